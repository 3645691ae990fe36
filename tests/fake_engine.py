"""An engine that implements the real protocol and needs no model: it answers with fixed pieces, whatever it is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from zhtune.errors import DataError
from zhtune.models.engine import Conversation, Reply, Sampling, refuse_bare, until_stop

PIECES = ("感冒", "挂", "呼吸内科", "🩺👨‍👩‍👧", "。")


class FakeEngine:
    """Yields its pieces, one a token, up to `max_tokens`; a prompt is one token a character, its context 1,000.

    Args:
        pieces: of every answer.
        seconds: between pieces.
        adapter: whether one stands beside its weights, which an answer can leave out.
    """

    name = "fake"

    def __init__(self, pieces: Sequence[str] = PIECES, seconds: float = 0, adapter: bool = True):
        self.pieces, self.seconds, self.adapter = pieces, seconds, adapter
        self.seen: list[tuple[Conversation, Sampling]] = []
        self.most_at_once = self._running = 0
        self.ended = threading.Event()
        """Set whenever a stream has ended, also before its last piece"""
        self.yielded = 0
        self.closed = False

    def generate(self, conversations: list[Conversation], sampling: Sampling) -> list[Reply]:
        return [[*self.stream(messages, sampling)][-1] for messages in conversations]

    def stream(self, messages: Conversation, sampling: Sampling) -> Iterator[str | Reply]:
        self.seen.append(([*messages], sampling))
        if not (sampling.adapter or self.adapter):
            refuse_bare(self.name)
        prompt = sum(len(message["content"]) for message in messages)
        if prompt >= 1000:
            raise DataError(f"the conversation has {prompt} tokens, the model's context is 1000")
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            text, held, spoken, stopped = "", "", 0, False
            for piece in self.pieces[:sampling.max_tokens]:
                time.sleep(self.seconds)
                spoken += 1
                self.yielded += 1
                piece, held, stopped = until_stop(held + piece, sampling.stop)
                text += piece
                if piece:
                    yield piece
                if stopped:
                    break
            if held:
                yield held
            yield Reply(text + held, prompt, spoken, "stop" if stopped or spoken == len(self.pieces) else "length")
        finally:
            self._running -= 1
            self.ended.set()

    def close(self) -> None:
        self.closed = True
