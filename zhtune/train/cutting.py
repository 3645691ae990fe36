"""A conversation that is too long, cut so that what is left is whole: a later turn, a prompt or an answer goes, never an end token.

It cuts texts, not ids, so the template around them stays what it is. Knows the encoder, no model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zhtune.train.samples import Sample


def cut(name: str, messages: list[dict[str, Any]], encoder: Any, limit: int) -> Sample | None:
    """A sample of at most `limit` tokens, or None where not even its template fits.

    Later turns go first ("turns"). If the first turn alone is too long, its prompt loses the middle of its longest text,
    where instruction and question seldom stand, so that the answer stays whole ("prompt"); an answer that does not fit beside
    half of the limit is cut, and has no end token then ("answer").
    """
    answers = [n for n, m in enumerate(messages) if m["role"] == "assistant"]
    for last in reversed(answers[:-1]):
        encoded = encoder.sample(messages[:last + 1])
        if len(encoded.ids) <= limit:
            return Sample(name, encoded.ids, encoded.mask, cut="turns")
    turn = messages[:answers[0] + 1] if answers else messages
    turns = ["turns"] if len(answers) > 1 else []
    prompt, sample = len(encoder.prompt(turn[:-1])), encoder.sample(turn)
    room = max(limit - (len(sample.ids) - prompt), limit // 2)
    if prompt > room:
        shorter = _shortened(turn, lambda text: len(encoder.prompt(text[:-1])) <= room)
        if shorter is None:
            return None
        sample, turns = encoder.sample(shorter), [*turns, "prompt"]
    if len(sample.ids) > limit:
        turns.append("answer")
    return Sample(name, sample.ids[:limit], sample.mask[:limit], cut="+".join(turns))


def _shortened(turn: list[dict[str, Any]], fits: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]] | None:
    """The turn with the middle of its longest prompt text left out, as little as fits; None where that is not enough."""
    longest = max(range(len(turn) - 1), key=lambda n: len(turn[n]["content"]))
    text = turn[longest]["content"]

    def keeping(characters: int) -> list[dict[str, Any]]:
        left = (characters + 1) // 2
        shorter = {**turn[longest], "content": text[:left] + text[len(text) - (characters - left):]}
        return [*turn[:longest], shorter, *turn[longest + 1:]]
    low, high = 0, len(text)                                # `low` fits, `high` does not
    if not fits(keeping(0)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(keeping(middle)) else (low, middle)
    return keeping(low)
