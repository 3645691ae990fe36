"""Near duplicates among any number of documents, in bounded memory: what does not fit lies in scratch files. Changes no text.

    add      folded units, bands and bins of each document -> scratch files; 8 bytes a document stay in memory
    find     band after band, the documents that agree in it -> candidate pairs -> exact Jaccard, the better document first

A document goes if a better one that stays has 5-grams in common with it to at least the threshold (exactly, up to equal
64-bit hashes). Which is better the caller says; the order in which documents come changes nothing.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zhtune.corpus.minhash import BINS, Sketches, rows_a_band
from zhtune.corpus.units import shingles

_LEADERS = 32                                               # of a group that agrees in a band, so many are compared with all others
_SORTED = 1 << 24                                           # keys sorted at once
_PAIRS = 1 << 16                                            # pairs whose bins are compared at once
_LOW = np.uint64(0xFFFFFFFF)


class NearIndex:
    """Remembers documents in scratch files, then finds those that are near duplicates of better ones.

    Args:
        scratch: an empty folder; takes about 4 bytes a character and 400 a document.
        threshold: least Jaccard of the sets of 5-grams of folded units.
    """

    def __init__(self, scratch: Path, threshold: float):
        self.rows = rows_a_band(threshold)
        self._threshold, self._scratch = threshold, scratch
        self._bounds = array("q", [0])                      # of each document's units
        self._files = [open(scratch / name, "w+b") for name in ("units", "bins", *(f"band-{i:03d}" for i in range(BINS // self.rows)))]

    def add(self, sketches: Sketches) -> None:
        """Remember documents, of which `minhash.sketch` has made sketches with `self.rows`."""
        self._bounds.extend((self._bounds[-1] + sketches.bounds[1:]).tolist())
        units, bins, *bands = self._files
        units.write(sketches.units.tobytes())
        bins.write(sketches.bins.tobytes())
        for file, band in zip(bands, sketches.bands.T, strict=True):
            file.write(band.tobytes())

    def find(self, order: np.ndarray, fixed: int = 0) -> Iterator[tuple[int, int, float]]:
        """Yield (number of a document that goes, that of the better one, their Jaccard), in the order of those that stay; ends the index
        and its files. Numbers are from 0, as documents were added.

        Args:
            order: numbers of all documents, the best first.
            fixed: so many of the first of them stay, whatever they are like.
        """
        for file in self._files:
            file.flush()
        if len(order):
            pairs = self._candidates(order)
            yield from self._decide(order, pairs[(pairs & _LOW) >= fixed])
        for file in self._files:
            file.close()
            os.unlink(file.name)

    def _candidates(self, order: np.ndarray) -> np.ndarray:
        """Pairs of ranks, (better << 32 | worse), sorted, that agree in a band and whose bins do not speak against it."""
        bins = np.memmap(self._files[1].name, np.uint8, "r").reshape(-1, BINS)
        parts = len(order) // _SORTED + 1
        found = [np.zeros(0, np.uint64)]
        for file in self._files[2:]:
            keys = np.fromfile(file.name, np.uint64)[order]
            for part in range(parts):
                ranks = np.flatnonzero((keys != 0) & (keys % np.uint64(parts) == part))
                for pairs in _pairs(keys[ranks], ranks):
                    found.append(pairs[self._likely(pairs, order, bins)])
            found = [np.unique(np.concatenate(found))]
        return found[0]

    def _likely(self, pairs: np.ndarray, order: np.ndarray, bins: np.ndarray) -> np.ndarray:
        """Whether the estimated Jaccard of each pair is at most four standard errors below the threshold."""
        left, right = order[pairs >> np.uint64(32)], order[pairs & _LOW]
        bounds = np.asarray(self._bounds)
        lengths = np.minimum(*(bounds[n + 1] - bounds[n] for n in (left, right)))
        error = np.sqrt(self._threshold * (1 - self._threshold) / np.clip(lengths - 4, 1, BINS))
        equal = np.concatenate([(bins[left[i:i + _PAIRS]] == bins[right[i:i + _PAIRS]]).mean(axis=1) for i in range(0, len(left), _PAIRS)])
        return equal >= self._threshold - 4 * error

    def _decide(self, order: np.ndarray, pairs: np.ndarray) -> Iterator[tuple[int, int, float]]:
        """Best first: what is near to a document that stays goes; what has gone takes nobody with it."""
        gone = np.zeros(len(order), bool)
        better = pairs >> np.uint64(32)
        starts = np.flatnonzero(np.diff(better, prepend=better[:1] + np.uint64(1)))
        for start, end in zip(starts, np.append(starts[1:], len(pairs))):
            rank = int(better[start])
            if gone[rank]:
                continue
            mine = self._shingles(order[rank])
            for other in (pairs[start:end] & _LOW).tolist():
                if not gone[other] and (jaccard := _jaccard(mine, self._shingles(order[other]))) >= self._threshold:
                    gone[other] = True
                    yield int(order[other]), int(order[rank]), jaccard

    def _shingles(self, number: int) -> np.ndarray:
        begin, end = self._bounds[number:number + 2]
        data = os.pread(self._files[0].fileno(), 2 * (end - begin), 2 * begin)
        hashes = shingles(np.frombuffer(data, np.uint16))
        hashes.sort()                                       # twice as fast as np.unique
        return hashes[np.diff(hashes, prepend=~hashes[:1]) != 0]


def _jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Of two sorted sets."""
    both = np.concatenate((left, right))
    both.sort()
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / (len(both) - common)


def _pairs(keys: np.ndarray, ranks: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of ranks (better << 32 | worse) with equal keys: the best of a group with all, then the next, up to _LEADERS."""
    by_key = np.argsort(keys, kind="stable")                # ranks ascend within a group
    keys, ranks = keys[by_key], ranks[by_key].astype(np.uint64)
    starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] + np.uint64(1)))
    sizes = np.diff(starts, append=len(keys))
    for leader in range(_LEADERS):
        large = sizes > leader + 1
        starts, sizes = starts[large], sizes[large]
        if not len(starts):
            return
        others = sizes - leader - 1
        place = np.arange(others.sum()) - np.repeat(np.cumsum(others) - others, others)
        yield np.repeat(ranks[starts + leader] << np.uint64(32), others) | ranks[np.repeat(starts + leader + 1, others) + place]
