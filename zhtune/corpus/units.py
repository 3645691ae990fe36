"""Text -> folded code units and hashes of their n-grams, as numpy arrays: the keys by which texts are compared. Compares nothing.

A text is folded to its letters and digits: white space, punctuation and symbols out, lower case, half width, traditional
characters as simplified. A unit is one UTF-16 code unit, so a character, but for the rare ones beyond U+FFFF, which are two.
Python strings per n-gram are what makes other tools slow; here is none.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

import numpy as np

NUMBER, WORD, SINGLE = 1, 2, 3                              # kinds of unit; Han, kana and Hangul stand for themselves
_ALONE = ((0x2E80, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xDFFF), (0xF900, 0xFAFF))   # with surrogates
_A, _B, _C = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """(folded unit or 0, kind or 0) by code unit, (65536,) each.

    simplified.txt: the single characters that OpenCC 1.4.2 (Apache 2.0) t2s converts, and under them what to.
    """
    traditional, simplified = (Path(__file__).parent / "simplified.txt").read_text("utf-8").split()
    simple = dict(zip(traditional, simplified, strict=True))
    fold, kind = np.zeros(1 << 16, np.uint16), np.zeros(1 << 16, np.uint8)
    for code in range(1 << 16):
        char = chr(code - 0xFEE0 if 0xFF01 <= code <= 0xFF5E else code)
        category = unicodedata.category(char)
        if category[0] not in "LNM" and category != "Cs":
            continue
        lower = simple.get(char, char).lower()
        fold[code] = ord(lower) if len(lower) == 1 else ord(char)
        alone = any(first <= code <= last for first, last in _ALONE)
        kind[code] = SINGLE if alone else NUMBER if category[0] == "N" else WORD
    return fold, kind


def code_units(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """UTF-16 code units of all texts, one after the other, and where each begins (texts + 1,)."""
    data = [text.encode("utf-16-le", "surrogatepass") for text in texts]
    bounds = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(d) // 2 for d in data], out=bounds[1:])
    return np.frombuffer(b"".join(data), np.uint16), bounds


def fold_units(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Folded units of all texts, one after the other, and where each text begins (texts + 1,)."""
    units, bounds = code_units(texts)
    folded = _tables()[0][units]
    kept = np.flatnonzero(folded)
    return folded[kept], np.searchsorted(kept, bounds)


def kinds(units: np.ndarray) -> np.ndarray:
    """NUMBER, WORD, SINGLE, or 0 for what folding leaves out, by code unit."""
    return _tables()[1][units]


def fold(units: np.ndarray) -> np.ndarray:
    """Folded units in place, 0 where folding leaves one out."""
    return _tables()[0][units]


def mix(values: np.ndarray) -> np.ndarray:
    """A bijection of uint64 whose every bit depends on all (splitmix64 of Steele et al. 2014)."""
    for shift, factor in ((30, _B), (27, _C)):
        values = values ^ (values >> np.uint64(shift))
        values *= factor
    return values ^ (values >> np.uint64(31))


def shingles(units: np.ndarray) -> np.ndarray:
    """64-bit hashes of all 5-grams, (units - 4,); of fewer units one of them all, (1,)."""
    if not len(units):
        return np.zeros(0, np.uint64)
    if len(units) < 5:
        units = np.pad(units, (0, 5 - len(units)))
    wide = units.astype(np.uint64)
    pairs = wide[:-1] | wide[1:] << np.uint64(16)
    hashes = pairs[:-3] | pairs[2:-1] << np.uint64(32)      # four units, exactly
    hashes = hashes * _A + wide[4:] * _B
    hashes ^= hashes >> np.uint64(32)
    hashes *= _C
    return hashes ^ (hashes >> np.uint64(29))


def segment_hashes(units: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """64-bit hashes of the segments that begin at `starts` (ascending, the first 0): units that are 0 do not count.

    Equal for equal sequences of other units, whatever zeros stand between them.
    """
    if not len(starts):
        return np.zeros(0, np.uint64)
    filled = units != 0
    counts = np.cumsum(filled, dtype=np.uint64)             # number of a unit in its segment, from 1
    counts -= np.repeat(counts[starts] - filled[starts], np.diff(starts, append=len(units)))
    terms = mix(units * _A + counts * _C)
    terms *= filled
    return np.add.reduceat(terms, starts)


@cache
def single_hashes() -> np.ndarray:
    """What `segment_hashes` gives for one code unit alone, (65536,)."""
    units = np.arange(1 << 16, dtype=np.uint16)
    return segment_hashes(fold(units), units.astype(np.int64))


def gram_hashes(hashes: np.ndarray, size: int) -> np.ndarray:
    """64-bit hashes of all n-grams of things that have hashes, (hashes - size + 1,): polynomials in these, by doubling."""
    if len(hashes) < size:
        return np.zeros(0, np.uint64)
    total, width = hashes, 1
    for bit in f"{size:b}"[1:]:
        total = total[:-width] * np.uint64(pow(int(_A), width, 1 << 64)) + total[width:]
        width *= 2
        if bit == "1":
            total = total[:-1] * _A + hashes[width:]
            width += 1
    return total
