"""Numbers that tell good Chinese text from bad, of one document: shares from 0 to 1. Judges nothing (filters.py does).

Everything counts characters, never words between blanks: on those, recipes made for English keep no Chinese document.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

import numpy as np

from zhtune import assets
from zhtune.text import HAN_RANGES

_OTHER, _HAN, _KANA, _DIGIT, _SYMBOL, _MARK, _BLANK, _GARBLED = range(8)
_SHARES = {"garbled": _GARBLED, "kana": _KANA, "han": _HAN, "digits": _DIGIT, "symbols": _SYMBOL}
_KANA_RANGES = ((0x3041, 0x30FB), (0x30FC, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFFA0), (0x1100, 0x1200), (0x3130, 0x3190), (0xAC00, 0xD7B0))
_ENDS = frozenset("。！？…；：”’」』）】》.!?;:)~～\"")
_SHORT = 10                                                 # characters of a short line
_GRAM = 10                                                  # characters that must come again to count as repeated
_FACTOR = np.array(0x9E3779B97F4A7C15, np.uint64)


@cache
def _classes() -> np.ndarray:
    """Class of each code point, (1114112,) uint8."""
    table = np.full(0x110000, _OTHER, np.uint8)
    for code in (*range(0x3400), *range(0xA000, 0x10000), *range(0x1F000, 0x1FC00)):
        kind = {"S": _SYMBOL, "P": _MARK, "N": _DIGIT}.get(unicodedata.category(chr(code))[0], _OTHER)
        table[code] = _BLANK if chr(code).isspace() else _SYMBOL if chr(code) in "#$%&*@/\\_|" else kind
    table[[ord(c) for c in "~～"]] = _MARK                  # which Chinese chats end sentences with
    for kind, ranges in ((_KANA, _KANA_RANGES), (_HAN, HAN_RANGES), (_GARBLED, ((0xE000, 0xF900), (0xFFFD, 0xFFFE), (0xF0000, 0x110000)))):
        for first, last in ranges:
            table[first:last] = kind
    return table


def code_points(text: str) -> np.ndarray:
    """(characters,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def shares(text: str) -> dict[str, float]:
    """`characters` (without blanks), and the shares of them that are garbled, Han, kana or hangul, digits, symbols."""
    counts = np.bincount(_classes()[code_points(text)], minlength=8)
    visible = len(text) - int(counts[_BLANK])
    share = {name: int(counts[kind]) / max(visible, 1) for name, kind in _SHARES.items()}
    return {"garbled": share.pop("garbled"), "characters": visible, **share}


def line_shares(text: str) -> dict[str, float]:
    """Shares of the lines that end a sentence (`terminal`) and that are short, and of the characters in lines that came before."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if not lines:
        return {"terminal": 0.0, "short_lines": 0.0, "repeated_lines": 0.0}
    repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
    return {"terminal": sum(line[-1] in _ENDS for line in lines) / len(lines), "short_lines": sum(len(line) < _SHORT for line in lines) / len(lines),
            "repeated_lines": repeated / sum(map(len, lines))}


def repetition(text: str) -> float:
    """Share of the Han characters that stand in a run of 10 which came before in the text.

    Code and foreign words repeat by nature and do not count.
    """
    codes = code_points(text)
    codes = codes[_classes()[codes] == _HAN].astype(np.uint64)
    if len(codes) <= _GRAM:
        return 0.0
    two = codes[:-1] * _FACTOR + codes[1:]                  # a polynomial in the code points, modulo 2^64, by doubling
    four = two[:-2] * _FACTOR**2 + two[2:]
    eight = four[:-4] * _FACTOR**4 + four[4:]
    grams = eight[:-2] * _FACTOR**2 + two[8:]
    ranked = np.sort(grams)
    places = np.flatnonzero(np.isin(grams, ranked[1:][ranked[1:] == ranked[:-1]]))
    if not len(places):
        return 0.0
    again = np.delete(places, np.unique(grams[places], return_index=True)[1])
    edges = np.bincount(again, minlength=len(codes) + 1) - np.bincount(again + _GRAM, minlength=len(codes) + 1)
    return float(np.count_nonzero(np.cumsum(edges)) / len(codes))


def adverts(text: str) -> float:
    """Share of the visible characters that stand in words of advertising and gambling (scripts/presets/adverts.txt), two at least."""
    spans = _merged(_lexicon().iter(text.lower()))
    return sum(end - start for start, end in spans) / len("".join(text.split())) if len(spans) > 1 else 0.0


def _merged(hits: Any) -> list[tuple[int, int]]:
    """(start, end) of hits, overlaps joined."""
    spans: list[tuple[int, int]] = []
    for last, length in hits:
        start = last - length + 1
        while spans and start < spans[-1][1]:
            start = min(start, spans.pop()[0])
        spans.append((start, last + 1))
    return spans


@cache
def _lexicon() -> Any:
    import ahocorasick
    automaton = ahocorasick.Automaton(ahocorasick.STORE_INTS)
    for word in re.findall(r"^[^#\s].*$", (assets.root() / "scripts" / "presets" / "adverts.txt").read_text("utf-8"), re.MULTILINE):
        automaton.add_word(word.strip().lower(), len(word.strip()))
    automaton.make_automaton()
    return automaton
