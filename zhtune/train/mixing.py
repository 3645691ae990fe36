"""Several record sources by weight, and what is held out of training. Knows messages and samples, no model.

What is held out is chosen by the hash of its first question, so it stays the same when the data grows; a question that
training sees in any turn is never among it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from zhtune.digests import drawn
from zhtune.text import fold

Item = TypeVar("Item")


def questions(messages: list[dict[str, Any]]) -> list[str]:
    """The user's turns as keys: without differences of width, case and white space."""
    return [fold(m["content"]) for m in messages if m["role"] == "user"]


def held_out(asked: list[list[str]], share: float, seed: int) -> list[bool]:
    """Which records are held out, by the hash of their first question.

    Args:
        asked: questions of each record.
        share: of the different first questions.
        seed: another one holds out others.
    """
    return [drawn(f"{seed}:{own[0] if own else ''}", share) for own in asked]


def leaks(asked: list[list[str]], taught: Iterable[list[str]]) -> list[bool]:
    """Which held-out records ask something that training asks too."""
    known = {question for own in taught for question in own}
    return [any(question in known for question in own) for own in asked]


def weighted(items: Sequence[Item], weight: float, seed: str) -> list[Item]:
    """Each item `weight` times: whole copies, and of the rest a seeded part, in the items' order."""
    whole = int(weight)
    part = random.Random(seed).sample(range(len(items)), round((weight - whole) * len(items)))
    return [*items] * whole + [items[i] for i in sorted(part)]
