"""Work spread over processes: the same results in the same order, whatever their number. Knows nothing of the work."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import Any

import orjson

_given: dict[str, Any] = {}                                 # in a process of its own only


def spread(work: Callable[[Any, list[Any]], list[Any]], shared: Any, items: list[Any], workers: int, size: int) -> list[Any]:
    """The results of work(shared, chunk) for all items, joined in order.

    Args:
        work: a function of a module; what it returns is JSON.
        shared: what every chunk needs, handed to each process once (without a copy where the system can fork).
        items: cut into chunks.
        workers: processes; with 1, or where all items are one chunk, the work is done here.
        size: items of a chunk.
    """
    chunks = [items[i:i + size] for i in range(0, len(items), size)]
    if workers < 2 or len(chunks) < 2:
        return [result for chunk in chunks for result in work(shared, chunk)]
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
    with ProcessPoolExecutor(min(workers, len(chunks)), context, _receive, (work, shared)) as pool:
        return list(chain.from_iterable(map(orjson.loads, pool.map(_run, chunks))))


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection: hundreds of thousands of records have no cycles, and looking through them takes a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _receive(work: Callable[[Any, list[Any]], list[Any]], shared: Any) -> None:
    gc.disable()
    _given.update(work=work, shared=shared)


def _run(chunk: list[Any]) -> bytes:
    return orjson.dumps(_given["work"](_given["shared"], chunk))
