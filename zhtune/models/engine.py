"""Whatever answers, behind one interface: a model folder, an adapter on its base, a GGUF file, an endpoint.

An engine takes conversations and gives text. The prompt's token ids come from the one encoder (zhtune/templates), so
training and every engine see the same ids. Streams yield whole characters: half a UTF-8 character is held back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from zhtune.errors import ConfigError

Conversation = list[dict[str, Any]]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    max_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy decoding"""
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Strings before which the answer ends"""
    by: str = ""
    """Which of the engine's adapters answers; empty: the model without them"""
    adapter: bool = True
    """False answers without the adapter that stands beside the weights, as the model under it"""


@dataclass(frozen=True)
class Reply:
    """One answer."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str
    """ "stop" (a stop token or string) or "length" (the limit) """


class Engine(Protocol):
    """What evaluate, chat, serve and generate call."""

    name: str
    """What it is, for people."""

    def generate(self, conversations: list[Conversation], sampling: Sampling) -> list[Reply]:
        """Answer many conversations, in order."""

    def stream(self, messages: Conversation, sampling: Sampling) -> Iterator[str | Reply]:
        """Yield pieces of the answer as whole characters, last the Reply with the whole text."""

    def check(self, messages: Conversation) -> None:
        """Raise DataError for a conversation that it cannot answer, such as one longer than its context."""

    def close(self) -> None:
        """Free what it holds; it answers no more."""


def refuse_bare(name: str) -> NoReturn:
    """Refuse to answer without the adapter where none stands beside the weights."""
    raise ConfigError(f"{name} has no adapter of its own beside its weights that an answer could leave out; chat and serve keep a LoRA there "
                      "with --apart true, while a GGUF file, an endpoint and a merged model hold one set of weights")


def until_stop(text: str, stops: tuple[str, ...]) -> tuple[str, str, bool]:
    """Divide text into what may be shown, what must wait (it may begin a stop string), and whether one was found."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    if found:
        return text[:min(found)], "", True
    wait = max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
    return text[:len(text) - wait], text[len(text) - wait:], False


# Ends of a text that the next token may change: half a character, and marks whose width ChatGLM-6B tells from the next character.
_UNSETTLED = ("\ufffd", ",", "!", ":", ";", "?")


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
        if text.endswith(_UNSETTLED):
            return ""
        new, self._done = text[len(self._done):], text
        return new

    def rest(self) -> str:
        """What is still held back at the end; a character that never became whole is dropped."""
        return self._decode(self._ids).rstrip("\ufffd")[len(self._done):]
