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
from zhtune.corpus.units import gram_hashes
from zhtune.text import HAN_RANGES

_OTHER, _HAN, _KANA, _DIGIT, _SYMBOL, _MARK, _BLANK, _GARBLED = range(8)
_SHARES = {"garbled": _GARBLED, "kana": _KANA, "han": _HAN, "digits": _DIGIT, "symbols": _SYMBOL}
_KANA_RANGES = ((0x3041, 0x30FB), (0x30FC, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFFA0), (0x1100, 0x1200), (0x3130, 0x3190), (0xAC00, 0xD7B0))
_ENDS = frozenset("。！？…；：”’」』）】》.!?;:)~～\"")
_INSIDE = re.compile("[。！？；，、…,;]")
_SHORT = 10                                                 # characters of a short line
_AGAIN = (10, 30)                                           # Han characters that must come again to count as repeated, in short and in long texts


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
    """Shares of the lines that end a sentence or have a mark of one (`terminal`), of those that are short and have none, and of the
    characters in lines that came before. Poems have short lines, and people forget the last full stop; navigation has no marks."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if not lines:
        return {"terminal": 0.0, "short_lines": 0.0, "repeated_lines": 0.0}
    repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
    bare = [line for line in lines if line[-1] not in _ENDS and not _INSIDE.search(line)]
    return {"terminal": (len(lines) - len(bare)) / len(lines), "short_lines": sum(len(line) < _SHORT for line in bare) / len(lines),
            "repeated_lines": repeated / sum(map(len, lines))}


def repetition(text: str) -> float:
    """Share of the Han characters that stand in a run of 30 (in short texts a third of them, 10 at least) which came before in the text.

    Code and foreign words repeat by nature and do not count, nor the terms of a statute: these are shorter.
    """
    codes = code_points(text)
    codes = codes[_classes()[codes] == _HAN].astype(np.uint64)
    size = min(max(len(codes) // 3, _AGAIN[0]), _AGAIN[1])
    if len(codes) <= size:
        return 0.0
    grams = gram_hashes(codes, size)
    ranked = np.sort(grams)
    places = np.flatnonzero(np.isin(grams, ranked[1:][ranked[1:] == ranked[:-1]]))
    if not len(places):
        return 0.0
    again = np.delete(places, np.unique(grams[places], return_index=True)[1])
    edges = np.bincount(again, minlength=len(codes) + 1) - np.bincount(again + size, minlength=len(codes) + 1)
    return float(np.count_nonzero(np.cumsum(edges)) / len(codes))


def adverts(text: str) -> float:
    """Share of the visible characters that stand in words of advertising and gambling (scripts/presets/adverts.txt), two different ones
    at least: a medicine whose name is one of them is none."""
    spans = _merged(_lexicon().iter(text.lower()))
    words = {text[start:end].lower() for start, end in spans}
    return sum(end - start for start, end in spans) / len("".join(text.split())) if len(words) > 1 else 0.0


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
