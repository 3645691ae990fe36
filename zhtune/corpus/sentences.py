"""Sentences that stand in several documents, in bounded memory: each stays where it stands in the best one. Reads no file.

Compared are spans of sentences that follow each other (C4, Raffel et al. 2020: three), folded; a span of fewer than 20
letters and digits does not count, since anybody says such things. A span goes from a document if a better one has it, and
a second time from the same; documents have one order, so that what goes stands somewhere else for certain.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import numpy as np

from zhtune.corpus.units import code_units, fold, gram_hashes, segment_hashes

_SHORTEST = 20
_SORTED = 1 << 24                                           # spans sorted at once
_ENDS = np.zeros(1 << 16, bool)
_ENDS[[ord(mark) for mark in "\n。！？!?…；"]] = True
_CLOSING = np.zeros(1 << 16, bool)
_CLOSING[[ord(mark) for mark in "”’」』）》】\"')"]] = True


class RepeatedSpans:
    """Remembers the spans of documents in a scratch file, then finds the repeated ones.

    Args:
        scratch: an empty folder; takes 8 bytes a sentence.
        span: sentences in a span.
    """

    def __init__(self, scratch: Path, span: int):
        self._span, self._file = span, open(scratch / "spans", "w+b")
        self._bounds = array("q", [0])                      # of each document's spans

    def add(self, text: str) -> None:
        """Remember the next document's spans; the text must be given again to `remove`."""
        hashes = _spans(text, self._span)[1]
        self._file.write(hashes.tobytes())
        self._bounds.append(self._bounds[-1] + len(hashes))

    def find(self, order: np.ndarray) -> None:
        """Mark the repeated spans.

        Args:
            order: numbers of the documents, the best first.
        """
        self._file.flush()
        bounds = np.asarray(self._bounds)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        self._gone = np.zeros(self._bounds[-1], bool)
        parts = len(self._gone) // _SORTED + 1
        for part in range(parts):
            keys = np.fromfile(self._file.name, np.uint64)
            spans = np.flatnonzero((keys != 0) & (keys % np.uint64(parts) == part))
            keys = keys[spans]
            by_key = np.lexsort((spans, rank[np.searchsorted(bounds, spans, "right") - 1], keys))
            keys, spans = keys[by_key], spans[by_key]
            self._gone[spans[1:][keys[1:] == keys[:-1]]] = True
        self._file.close()
        os.unlink(self._file.name)

    def remove(self, number: int, text: str) -> str:
        """A document without its repeated spans."""
        gone = self._gone[self._bounds[number]:self._bounds[number + 1]]
        if not gone.any():
            return text
        starts, hashes = _spans(text, self._span)
        sentences = np.zeros(len(starts), bool)
        for i in range(self._span):
            sentences[i:len(hashes) + i] |= gone
        units = code_units([text])[0]
        kept = np.repeat(~sentences, np.diff(starts, append=len(units)))
        return units[kept].tobytes().decode("utf-16-le", "surrogatepass").strip()


def _spans(text: str, span: int) -> tuple[np.ndarray, np.ndarray]:
    """(first unit of each sentence; hash of the span that begins with each, 0 where it is too short)."""
    units = code_units([text])[0]
    ends = _ENDS[units]
    closing = _CLOSING[units]
    for _ in range(2):                                      # ”） after 。 belong to the sentence
        ends = ends | (closing & np.concatenate(([False], ends[:-1])) & (units != 10))
    last = ends & ~np.concatenate((ends[1:], [False]))      # of several marks in a row, the last one
    starts = np.concatenate(([0], np.flatnonzero(last[:-1]) + 1)) if len(units) else np.zeros(0, np.int64)
    if len(starts) < span:
        return starts, np.zeros(0, np.uint64)
    folded = fold(units)
    sentences, letters = segment_hashes(folded, starts), np.add.reduceat(folded != 0, starts, dtype=np.int64)
    total = np.convolve(letters, np.ones(span, np.int64), "valid")
    return starts, np.where(total >= _SHORTEST, gram_hashes(sentences, span), np.uint64(0))
