"""A language model of characters, fitted on the user's own good text: how many bits a character of another text costs it.

Counts of 1- to 4-grams, hashed into one table of 16 MB; each order is smoothed by the one below (Dirichlet prior, MacKay and
Peto 1995). Fixed cuts on perplexity (CCNet, BLOOM) hold for their corpora only; here the cut is a percentile of the good text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from zhtune.corpus.signals import code_points

_ORDER, _BITS = 4, 22
_PRIOR = 4.0                                                # pseudo-counts that the lower order gives
_UNIFORM = 1 / 20_000                                       # a character never seen
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_LEAST = 100                                                # good documents that a percentile needs


class CharModel:
    """Counts of hashed n-grams."""

    def __init__(self) -> None:
        self._table = np.zeros(1 << _BITS, np.uint32)
        self._total = 0

    def add(self, text: str) -> None:
        """Learn a text."""
        orders = list(_slots(text))
        for slots in orders:
            np.add.at(self._table, slots, 1)
        self._total += len(orders[0])

    def bits(self, text: str) -> float:
        """Mean bits a character (white space out, digits as one); 0 for a text of fewer than 4."""
        orders = list(_slots(text))
        if not len(orders[-1]):
            return 0.0
        chance = (self._table[orders[0]] + _PRIOR * _UNIFORM) / (self._total + _PRIOR)
        for above, slots in enumerate(orders[1:]):
            context = self._table[orders[above][:len(slots)]]
            chance[above + 1:] = (self._table[slots] + _PRIOR * chance[above + 1:]) / (context + _PRIOR)
        return float(-np.log2(np.minimum(chance, 1.0)).mean())


def fit(texts: Iterable[tuple[str, str]], percentile: float, characters: int = 20_000_000) -> tuple[CharModel, float] | None:
    """(model, limit): bits above which a text is less like the good ones than all but `percentile` of them.

    Each good document is measured by a model of the other half, so that none is known by heart.

    Args:
        texts: `(id, text)` of good documents.
        percentile: share of the good documents that the limit would refuse.
        characters: that are learnt, from the beginning.

    Returns:
        None with too few documents for a percentile.
    """
    halves: tuple[list[str], list[str]] = ([], [])
    for id_, text in texts:
        if (characters := characters - len(text)) < 0:
            break
        halves[hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] & 1].append(text)
    if len(halves[0]) + len(halves[1]) < _LEAST:
        return None
    bits: list[float] = []
    whole = CharModel()
    for learnt, measured in (halves, halves[::-1]):
        model = CharModel()
        for text in learnt:
            model.add(text)
            whole.add(text)
        bits += map(model.bits, measured)
    return whole, float(np.quantile(bits, 1 - percentile))


def _slots(text: str) -> Iterator[np.ndarray]:
    """Table slots of the n-grams of each order; entry i of order n ends at character i + n - 1."""
    codes = code_points("".join(text.split())).astype(np.uint64)
    codes[(codes >= ord("0")) & (codes <= ord("9"))] = ord("0")
    grams = np.zeros(len(codes), np.uint64)
    for order in range(1, _ORDER + 1):
        tail = codes[order - 1:]
        grams = (grams[:len(tail)] + tail + np.uint64(order)) * _FACTOR
        yield (grams ^ grams >> np.uint64(29)) * _FACTOR >> np.uint64(64 - _BITS)
