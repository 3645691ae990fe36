"""Logging and progress, both on stderr, so that stdout stays clean for `--json`. Knows nothing of stages."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

logger = logging.getLogger("zhtune")
_shown: list[str] = []                                      # labels of bars on the terminal: one at a time


def configure(level: int = logging.INFO) -> None:
    """Send zhtune's log lines to stderr; called by the CLI only, a library leaves logging to its caller."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)      # would have everybody install a package for processors
    logger.setLevel(level)
    logger.propagate = False


def progress(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Iterate with one progress bar when stderr is a terminal and the CLI has asked for logs; silent otherwise, and within another."""
    if _shown or not (logger.isEnabledFor(logging.INFO) and logger.handlers and sys.stderr.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track
    _shown.append(label)
    try:
        yield from track(items, description=label, total=total, console=Console(stderr=True), transient=True)
    finally:
        _shown.remove(label)


class Bar:
    """A bar that is moved from outside, on the same conditions as `progress`."""

    def __init__(self, label: str, total: int):
        self._bar = None
        if logger.isEnabledFor(logging.INFO) and logger.handlers and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress
            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(label, total=total)
            self._bar.start()
            self._label = label
            _shown.append(label)

    def update(self, done: int, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            _shown.remove(self._label)
