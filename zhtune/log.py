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
