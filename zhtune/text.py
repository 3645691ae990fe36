"""Character-level rules for Chinese text. Never NFKC: it destroys Chinese punctuation (，？：（） become ASCII)."""

from __future__ import annotations

import re
import unicodedata
import warnings
from functools import cache
from typing import Any

# Unified ideographs, extensions A to H, compatibility ideographs, and 〇 and 々, which behave as Han characters.
HAN_RANGES = ((0x3005, 0x3006), (0x3007, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x323B0))
HAN = "".join(f"{chr(first)}-{chr(last - 1)}" for first, last in HAN_RANGES)
HAN_RUN = re.compile(f"[{HAN}]+")
_HAN_CHAR = re.compile(f"[{HAN}]")
# Full-width digits and letters only: 0-9 A-Z a-z stand 0xFEE0 below their full-width forms.
_FULL = re.compile("[０-９Ａ-Ｚａ-ｚ]+")
_FOLD = {c: c - 0xFEE0 for c in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))}
# C0 and C1 controls but tab and line feed, zero-width characters, byte order marks, and unpaired surrogates' stand-in.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200c\u200e\u200f\u2060\ufeff]")
# A URL ends where anything but its own ASCII characters begins (Han, Chinese punctuation, a blank), not with a mark of the sentence.
URL = re.compile(r"(?:(?:https?|ftp)://|(?<![A-Za-z0-9@./-])www\.)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*[A-Za-z0-9/_~#=&%-]", re.IGNORECASE)


def is_han(char: str) -> bool:
    """Whether `char` is one Han character."""
    return _HAN_CHAR.fullmatch(char) is not None


def writable(text: str) -> str:
    """The same with half characters (one of a surrogate pair, which UTF-8 cannot write) spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def normalise(text: str) -> str:
    """NFC, full-width letters and digits to half width, CRLF to LF, controls and zero-width characters out.

    Chinese punctuation, the ideographic space and emoji (with their joiner U+200D) stay as they are.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = unicodedata.normalize("NFC", text)
    return _INVISIBLE.sub("", _FULL.sub(lambda run: run[0].translate(_FOLD), text))


def fold(text: str) -> str:
    """The key under which two texts count as the same: normalised, lower case, without white space."""
    return "".join(normalise(text).casefold().split())


def jieba_words(text: str) -> list[str]:
    """The words that jieba finds, in order; joined they are the text."""
    return _jieba().lcut(text)


@cache
def _jieba() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                     # its own invalid escapes and pkg_resources
        import jieba
    jieba.setLogLevel("WARNING")                            # it tells stderr how it loads its dictionary
    return jieba
