"""Work spread over processes: the same results in the same order, whatever their number. Knows nothing of the work."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

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
    with _pool(function, workers) as pool:
        under_way: deque[Future[list[Result]]] = deque()
        for batch in chain(ahead, stream):
            under_way.append(pool.submit(_run, batch))
            if len(under_way) > 2 * workers:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()


def spread(function: Callable[[Item], Result], items: list[Item], workers: int) -> list[Result]:
    """function(item) of each item, in order. The last one is begun first: what takes long had better stand at the end.

    Args:
        function: pure; it and the items are inherited by the processes (they are forked), results are handed back pickled.
        items: of comparable weight.
        workers: processes.

    Raises:
        ZhtuneError: a process was killed.
    """
    if workers < 2 or len(items) < 2 or not _FORKS:
        return [function(item) for item in items]
    with _pool(lambda i: function(items[i]), min(workers, len(items))) as pool:
        futures = [pool.submit(_run, [i]) for i in reversed(range(len(items)))]
        return [result for future in reversed(futures) for result in future.result()]


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
def _pool(function: Callable[[Any], Any], workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that know the function. Where the block is left early, by Ctrl-C too, what has not begun is not done."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _install, (function, os.getpid()))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise ZhtuneError("a worker process was killed, most likely for want of memory; use fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _install(function: Callable[[Any], Any], parent: int) -> None:
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)            # Ctrl-C is for the parent
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process soon after its parent: one that was killed cannot tell its workers, which would wait for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


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
