"""Byte-level symbols: GPT-2's printable character for each byte, and what the bytes of a token say about its text.

Knows nothing of merges.
"""

from __future__ import annotations

from zhtune.text import is_han


def _alphabet() -> list[str]:
    """GPT-2's printable character for each byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) if byte in kept else chr(0x100 + others.index(byte)) for byte in range(256)]


_CHARACTER = _alphabet()
_BYTE = {character: byte for byte, character in enumerate(_CHARACTER)}


def to_symbols(text: str) -> str:
    """Text as byte-level characters: "中" is "ä¸Ń"."""
    return "".join([_CHARACTER[byte] for byte in text.encode("utf-8")])


def to_bytes(token: str) -> bytes | None:
    """The bytes of a byte-level token; None for a token of another kind (a control token with a space in it)."""
    try:
        return bytes([_BYTE[character] for character in token])
    except KeyError:
        return None


def is_text(token: str) -> bool:
    """Whether a byte-level token is a sequence of whole UTF-8 characters."""
    data = to_bytes(token)
    if not data:
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_private(data: bytes) -> bool:
    """Whether only Han characters begin with these two bytes (hexagrams are E4 B7, CJK punctuation, 々 and 〇 are E3 80)."""
    first, second = data[0], data[1]
    if first == 0xE3:
        return second >= 0x90
    if first == 0xE4:
        return second != 0xB7
    if first == 0xEF:
        return 0xA4 <= second <= 0xAB
    return 0xE5 <= first <= 0xE9 or (first == 0xF0 and 0xA0 <= second <= 0xB2)


def mixes_han(token: str) -> bool:
    """Whether a token holds a Han character, or the certain beginning of one, and a space, ASCII or punctuation."""
    data = to_bytes(token) or b""
    han = other = False
    at = 0
    while at < len(data):
        first = data[at]
        length = 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
        unit = data[at:at + length]
        if _begins_han(unit, length):
            han = True
        elif first < 0x80 or first in (0xE2, 0xEF) or unit[:2] == b"\xe3\x80":
            other = True
        at += length
    return han and other


def _begins_han(unit: bytes, length: int) -> bool:
    """Whether the bytes, perhaps cut, are certainly those of a Han character."""
    if 0xE5 <= unit[0] <= 0xE9 or (len(unit) >= 2 and is_private(unit)):
        return True
    return len(unit) == length > 1 and is_han(unit.decode("utf-8", "replace"))
