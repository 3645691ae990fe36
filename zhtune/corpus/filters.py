"""Named refusals and the division of long documents. A filter answers None (keep) or the reason's name."""

from __future__ import annotations

import hashlib

from zhtune.text import fold, han_share


def refusal(text: str, min_characters: int, min_han: float) -> str | None:
    """Why a text is no document for a Chinese corpus; None if it is one.

    Args:
        text: normalised text.
        min_characters: fewest non-blank characters.
        min_han: least share of Han characters among the non-blank ones.
    """
    visible = sum(not c.isspace() for c in text)
    if visible == 0:
        return "empty"
    if text.count("\ufffd") * 100 > visible:                # one replacement character in a hundred: decoded wrongly somewhere
        return "garbled"
    if visible < min_characters:
        return "too_short"
    if han_share(text) < min_han:
        return "few_han"
    return None


class Duplicates:
    """Remembers the folded text of every document seen, as 16 bytes each."""

    def __init__(self) -> None:
        self._seen: dict[bytes, str] = {}

    def first(self, name: str, text: str) -> str | None:
        """The name under which the same text was seen before; None (and remembered) if it is new."""
        key = hashlib.blake2b(fold(text).encode("utf-8"), digest_size=16).digest()
        if key in self._seen:
            return self._seen[key]
        self._seen[key] = name
        return None


def divide(text: str, limit: int) -> list[str]:
    """Pieces of at most `limit` characters, cut at paragraph ends, then at sentence ends, last anywhere; none is lost."""
    pieces: list[str] = []
    rest = text
    while len(rest) > limit:
        cut = max(rest.rfind("\n", 0, limit), 0) + 1
        if cut <= limit // 2:
            cut = max(rest.rfind(mark, 0, limit) for mark in "。！？；") + 1
        if cut <= limit // 2:
            cut = limit
        pieces.append(rest[:cut])
        rest = rest[cut:]
    return [*pieces, rest]


def held_out(name: str, share: float) -> bool:
    """Whether a document belongs to the held-out split: by the hash of its name, so that growth moves nothing."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8]) < share * 2**64
