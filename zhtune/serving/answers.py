"""One engine, many clients: requests wait in one queue and are answered one at a time by one thread.

Everything the engine does happens on that thread; the event loop only hands over requests and pieces of text. A client
that goes away cancels its answer, waiting or running. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from zhtune.errors import ZhtuneError
from zhtune.log import logger
from zhtune.models.engine import Conversation, Engine, Reply, until_stop
from zhtune.serving.request import ChatRequest, RequestError

Counts = Callable[[Conversation, str], tuple[int, int]]
"""Messages and an answer -> tokens of the prompt and of the answer"""


@dataclass(frozen=True)
class Finished:
    """The end of an answer."""

    text: str
    finish: str
    """ "stop" or "length" """
    usage: tuple[int, int] | None
    """Tokens of the prompt and of the answer; None where nobody counted them"""


class Answer:
    """One answer as it arrives. Leaving its `with` block cancels what has not been generated yet."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[str | Finished | ZhtuneError] = asyncio.Queue()

    def put(self, item: str | Finished | ZhtuneError) -> None:
        """Hand over a piece, the end or an error; called on the engine's thread."""
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def next(self, seconds: float) -> str | Finished | None:
        """The next piece, last the end; None if nothing came in that time. Raises what the engine raised."""
        try:
            item = await asyncio.wait_for(self._items.get(), seconds)
        except TimeoutError:
            return None
        if isinstance(item, ZhtuneError):
            raise item
        return item

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cancelled.set()


class Answers:
    """The queue before one engine.

    Args:
        engine: whatever answers; this object does not close it.
        counts: counts tokens where the engine does not, when a stop string cuts an answer short.
    """

    def __init__(self, engine: Engine, counts: Counts | None):
        self._engine, self._counts = engine, counts
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
            for item in self._items(request):
                if answer.cancelled.is_set() or self._closing.is_set():
                    return
                if item != "":
                    answer.put(item)
        except ZhtuneError as error:                        # raised again where the answer is awaited
            answer.put(error)
        except Exception as error:
            logger.error("the engine failed", exc_info=error)
            answer.put(RequestError("the engine failed; the server's log says more", status=500))

    def _items(self, request: ChatRequest) -> Iterator[str | Finished]:
        """Pieces of an answer up to a stop string (empty ones while text is held back), last its end."""
        held = text = ""
        for item in self._engine.stream(request.messages, request.sampling):
            if isinstance(item, Reply):
                if held:
                    yield held
                yield Finished(item.text, item.finish, (item.prompt_tokens, item.completion_tokens))
                return
            piece, held, stopped = until_stop(held + item, request.stop)
            text += piece
            yield piece
            if stopped:
                yield Finished(text, "stop", self._counts(request.messages, text) if self._counts else None)
                return
