"""One engine, many clients: requests wait in one queue and are answered one at a time by one thread.

Everything the engine does happens on that thread; the event loop only hands over requests and pieces of text. A client
that goes away cancels its answer, waiting or running. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from zhtune.errors import ZhtuneError
from zhtune.log import logger
from zhtune.models.engine import Engine, Reply
from zhtune.serving.request import ChatRequest, RequestError


class Answer:
    """One answer as it arrives. Closing it cancels what has not been generated yet."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[str | Reply | ZhtuneError] = asyncio.Queue()

    def put(self, item: str | Reply | ZhtuneError) -> None:
        """Hand over a piece, the end or an error; called on the engine's thread."""
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def next(self, seconds: float) -> str | Reply | None:
        """The next piece, last the end; None if nothing came in that time. Raises what the engine raised."""
        try:
            item = await asyncio.wait_for(self._items.get(), seconds)
        except TimeoutError:
            return None
        if isinstance(item, ZhtuneError):
            raise item
        return item

    def close(self) -> None:
        self.cancelled.set()


class Answers:
    """The queue before one engine.

    Args:
        engine: whatever answers; this object does not close it.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self._closing = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    def start(self, request: ChatRequest) -> Answer:
        """Queue a request; called on the event loop."""
        answer = Answer()
        self._thread.submit(self._run, request, answer)
        return answer

    def close(self) -> None:
        """Cancel everything and wait for the engine's thread to end."""
        self._closing.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _run(self, request: ChatRequest, answer: Answer) -> None:
        if answer.cancelled.is_set():
            return
        try:
            for item in self._engine.stream(request.messages, request.sampling):
                if answer.cancelled.is_set() or self._closing.is_set():
                    return
                answer.put(item)
        except ZhtuneError as error:                        # raised again where the answer is awaited
            answer.put(error)
        except Exception as error:
            logger.error("the engine failed", exc_info=error)
            answer.put(RequestError("the engine failed; the server's log says more", status=500))
