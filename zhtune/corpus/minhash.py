"""Texts -> MinHash sketches by one-permutation hashing. Knows nothing of what is compared with what.

Each 5-gram of folded units falls by 7 bits of its hash into one of 128 bins, which keeps the lowest of 32 other bits (Li
et al. 2012); an empty bin takes another's value (optimal densification, Shrivastava 2017). Two texts agree in as large a
share of bins as their sets of 5-grams overlap (Jaccard). 128 bins are cut into bands; whoever agrees in a whole band is
a candidate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zhtune.corpus.units import fold_units, mix, shingles

BINS = 128
_EMPTY = np.uint32(0xFFFFFFFF)
_CHUNK = 1 << 16                                            # units at a time: what they need stays in the cache
# The bins that an empty bin looks at, in turn, (attempts, bins).
_PROBES = np.argsort(mix(np.arange(1, BINS * BINS + 1, dtype=np.uint64)).reshape(BINS, BINS), axis=0, kind="stable")


@dataclass(frozen=True)
class Sketches:
    """What is kept of some texts to find their near duplicates."""

    units: np.ndarray
    """Folded units of all texts, uint16"""
    bounds: np.ndarray
    """Where each text begins in them, (texts + 1,)"""
    bands: np.ndarray
    """(texts, bands) uint64; 0 in the rows of texts without a letter"""
    bins: np.ndarray
    """(texts, 128) uint8: the lowest byte of each bin, to estimate the Jaccard"""


def rows_a_band(threshold: float) -> int:
    """Bins a band: as many as still let 99.9 % of the pairs at the threshold agree in one band."""
    return max((rows for rows in (1, 2, 4, 8, 16) if (1 - threshold**rows) ** (BINS // rows) <= 0.001), default=1)


def sketch(texts: list[str], rows: int) -> Sketches:
    """Sketches of texts, each by itself: batches and their order change nothing.

    Args:
        texts: normalised.
        rows: bins a band, of rows_a_band.
    """
    units, bounds = fold_units(texts)
    values = np.full((len(texts), BINS), _EMPTY)
    first = 0
    while first < len(texts):                               # whole texts up to a chunk, or one that is longer
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + _CHUNK, "right")) - 1)
        _lowest(units[bounds[first]:bounds[last]], np.diff(bounds[first:last + 1]), values[first:last])
        first = last
    lengths = np.diff(bounds)
    for text in np.flatnonzero((lengths > 0) & (lengths < 5)).tolist():
        _lowest(np.pad(units[bounds[text]:bounds[text + 1]], (0, 5 - lengths[text])), np.asarray([5]), values[text:text + 1])
    filled = lengths > 0
    values[filled] = _densified(values[filled])
    bands = np.zeros((len(texts), BINS // rows), np.uint64)
    parts = values.reshape(len(texts), -1, rows).astype(np.uint64)
    for row in range(rows):
        bands = mix(bands + parts[:, :, row] + np.uint64(row + 1))
    bands[~filled] = 0
    return Sketches(units, bounds, bands, values.astype(np.uint8))


def _lowest(units: np.ndarray, lengths: np.ndarray, values: np.ndarray) -> None:
    """Lower the bins (texts, 128) to the least hashes of each text's 5-grams."""
    if len(units) < 5:
        return
    hashes = shingles(units)
    text = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    inside = text[:-4] == text[4:]                          # no 5-gram of two texts
    hashes, text = hashes[inside], text[:-4][inside]
    bins = text * BINS + (hashes >> np.uint64(57)).astype(np.int32)
    np.minimum.at(values.reshape(-1), bins, (hashes >> np.uint64(25)).astype(np.uint32))


def _densified(values: np.ndarray) -> np.ndarray:
    """Every empty bin filled with the value of the first other bin of its probes that is not."""
    filled = values.copy()
    text, bin_ = np.nonzero(values == _EMPTY)
    for probes in _PROBES:
        if not len(text):
            break
        found = values[text, probes[bin_]]
        filled[text, bin_] = found
        still = found == _EMPTY
        text, bin_ = text[still], bin_[still]
    return filled
