"""Whatever answers, behind one interface: a model folder, an adapter on its base, a GGUF file.

An engine takes conversations and gives text. The prompt's token ids come from the one encoder (zhtune/templates), so
training and every engine see the same ids. Streams yield whole characters: half a UTF-8 character is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from zhtune.errors import ConfigError
from zhtune.references import Source

Conversation = list[dict[str, Any]]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    max_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy decoding"""
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """One answer."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str
    """ "stop" (a stop token) or "length" (the limit) """


class Engine(Protocol):
    """What evaluate, chat, serve and generate call."""

    name: str
    """What it is, for people."""

    def generate(self, conversations: list[Conversation], sampling: Sampling) -> list[Reply]:
        """Answer many conversations, in order."""

    def stream(self, messages: Conversation, sampling: Sampling) -> Iterator[str | Reply]:
        """Yield pieces of the answer as whole characters, last the Reply with the whole text."""

    def close(self) -> None:
        """Free what it holds; it answers no more."""


def open_engine(source: Source, threads: int = 2) -> Engine:
    """The engine for a resolved reference: model, adapter, base, quantized artifact or .gguf file.

    Args:
        source: what answers.
        threads: of llama.cpp; torch takes its own from OMP_NUM_THREADS.

    Raises:
        ConfigError: nothing that answers.
    """
    if source.kind == "endpoint":
        raise ConfigError(f"{source.reference} is an endpoint; evaluate and chat read models, adapters and GGUF files")
    if source.kind == "quantized" or (source.path is not None and source.path.suffix == ".gguf"):
        from zhtune.models.llamacpp import LlamaCppEngine
        return LlamaCppEngine(source, threads)
    from zhtune.models.generation import TransformersEngine
    return TransformersEngine(source)


@contextmanager
def answering(source: Source, threads: int = 2) -> Iterator[Callable[[list[Conversation], int, float, int], list[Reply]]]:
    """An engine as the function that a local teacher is: (conversations, max_tokens, temperature, seed) -> replies."""
    engine = open_engine(source, threads)
    try:
        yield lambda conversations, max_tokens, temperature, seed: engine.generate(
            conversations, Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed))
    finally:
        engine.close()


class Whole:
    """Holds back what is not yet a whole character while tokens arrive one by one.

    Args:
        decode: token ids -> text, with U+FFFD where bytes are incomplete.
    """

    def __init__(self, decode: Any):
        self._decode = decode
        self._ids: list[int] = []
        self._done = ""

    def push(self, token: int) -> str:
        """The new whole characters that `token` completes; empty while a character is unfinished."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith("\ufffd") or not text.startswith(self._done):
            return ""
        new, self._done = text[len(self._done):], text
        return new

    def rest(self) -> str:
        """What is still held back at the end; a character that never became whole is dropped."""
        text = self._decode(self._ids).rstrip("\ufffd")
        new, self._done = text[len(self._done):], text
        return new

    @property
    def text(self) -> str:
        return self._done
