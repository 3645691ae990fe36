"""Work spread over processes: the same results in the same order, whatever their number. Knows nothing of the work."""

from __future__ import annotations

import gc
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

import orjson

from zhtune.errors import ZhtuneError

Item = TypeVar("Item")
Result = TypeVar("Result")
_FORKS = "fork" in multiprocessing.get_all_start_methods()
_BATCH = 1 << 19                                            # weight of a batch: characters or bytes
_function: Callable[[Any], Any]


def in_order(function: Callable[[Item], Result], items: Iterable[Item], weight: Callable[[Item], int], workers: int) -> Iterator[Result]:
    """Yield `function(item)` of each item, in order. At most a few batches are under way, so memory does not grow with the stream.

    Args:
        function: pure; what it holds is inherited by the processes (they are forked), not copied.
        items: read here, one batch after the other; a small stream is done here altogether.
        weight: of an item, in characters or bytes.
        workers: processes.

    Raises:
        ZhtuneError: a process was killed.
    """
    stream = batches(items, weight, _BATCH)
    ahead = [batch for _, batch in zip(range(2), stream)]
    if workers < 2 or len(ahead) < 2 or not _FORKS:
        for batch in chain(ahead, stream):
            yield from map(function, batch)
        return
    with _deaths_in_words(), _pool(function, workers) as pool:
        under_way: deque[Future[list[Result]]] = deque()
        for batch in chain(ahead, stream):
            under_way.append(pool.submit(_run, batch))
            if len(under_way) > 2 * workers:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()


def begin(work: Callable[[Any, list[Any]], list[Any]], shared: Any, items: list[Any], workers: int, size: int) -> Callable[[], list[Any]]:
    """Start work(shared, chunk) for all items; what comes back is to be called for the results, joined in order.

    Args:
        work: pure; what it returns is JSON, which costs less to hand over than objects.
        shared: what every chunk needs.
        items: cut into chunks.
        workers: processes; with 1, or where all items are one chunk, the work is done here, when the results are called for.
        size: items of a chunk.
    """
    starts = range(0, len(items), size)
    if workers < 2 or len(starts) < 2 or not _FORKS:
        return lambda: work(shared, items)
    pool = _pool(lambda start: orjson.dumps(work(shared, items[start:start + size])), min(workers, len(starts)))
    with _deaths_in_words():
        futures = [pool.submit(_run, [start]) for start in starts]

    def results() -> list[Any]:
        with _deaths_in_words(), pool:
            return [result for future in futures for line in future.result() for result in orjson.loads(line)]
    return results


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


@contextmanager
def _deaths_in_words() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise ZhtuneError("a worker process was killed, most likely for want of memory; use fewer --workers") from error


def _pool(function: Callable[[Any], Any], workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _install, (function,))


def _install(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function


def _run(batch: list[Any]) -> list[Any]:
    return list(map(_function, batch))


def batches(items: Iterable[Item], weight: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Items in lists, each closed as soon as its items weigh `most`."""
    batch: list[Item] = []
    total = 0
    for item in items:
        batch.append(item)
        total += weight(item)
        if total >= most:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
