"""Byte-level symbols: GPT-2's printable character for each byte, and what the bytes of a token say about its text.

Knows nothing of merges.
"""

from __future__ import annotations

import re


def _alphabet() -> list[str]:
    """GPT-2's printable character for each byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) if byte in kept else chr(0x100 + others.index(byte)) for byte in range(256)]


_CHARACTER = _alphabet()
_BYTE = {character: byte for byte, character in enumerate(_CHARACTER)}
# What only Han characters begin with: hexagrams are E4 B7, CJK punctuation, 々 and 〇 are E3 80.
_PRIVATE = rb"\xe3[\x90-\xff]|\xe4[^\xb7]|[\xe5-\xe9]|\xef[\xa4-\xab]|\xf0[\xa0-\xb2]"
_HAN = re.compile(_PRIVATE + rb"|\xe3\x80[\x85\x87]")
_OTHER = re.compile(rb"[\x00-\x7f]|\xe2|\xe3\x80(?![\x85\x87])|\xef(?![\xa4-\xab])")     # ASCII and punctuation


def to_symbols(text: str) -> str:
    """Text as byte-level characters: "中" is "ä¸Ń"."""
    return spelt(text.encode("utf-8"))


def spelt(data: bytes) -> str:
    """Bytes as byte-level characters."""
    return data.decode("latin-1").translate(_CHARACTER)


def to_bytes(token: str) -> bytes | None:
    """The bytes of a byte-level token; None for a token of another kind (a control token with a space in it)."""
    try:
        return bytes([_BYTE[character] for character in token])
    except KeyError:
        return None


def is_text(token: str) -> bool:
    """Whether a byte-level token is a sequence of whole UTF-8 characters."""
    data = to_bytes(token)
    return bool(data) and data.decode("utf-8", "ignore").encode("utf-8") == data


def is_private(data: bytes) -> bool:
    """Whether only Han characters begin with these two bytes."""
    return re.match(_PRIVATE, data) is not None


def mixes_han(token: str) -> bool:
    """Whether a token holds a Han character, or the certain beginning of one, and a space, ASCII or punctuation."""
    data = to_bytes(token) or b""                           # no byte within a character is one that begins another
    return _HAN.search(data) is not None and _OTHER.search(data) is not None
