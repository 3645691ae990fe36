"""Benchmark items in texts of any kind: documents of a corpus, messages of records. Reads no file, drops nothing.

Compared are n-grams of 8 words, a word being a Han character, a run of other letters and digits, so that eight Latin
letters are no n-gram; case, width, punctuation, blanks, line breaks and traditional characters do not count. Each part of an
item (question, every option) has its own n-grams, so that options may stand in any order. A text holds an item if these
n-grams cover half of its question, or half of the whole of it, and 13 words: one changed character leaves most of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from zhtune.corpus.units import NUMBER, SINGLE, code_units, fold, fold_units, gram_hashes, kinds, segment_hashes

GRAM = 8
RUN = 13                                                    # words in common that tell, as in the study of Brown et al. 2020
_COVERED = 0.5                                              # share of an item's words that makes it the item
_LETTERS = 5                                                # words of a gram that are not numbers: measures and tables are no item
_COMMON = 10                                                # grams in more items than this are a form's words, not an item's
_SHORTEST = 4                                               # a shorter question in common says nothing
_FILTER = np.uint64((1 << 22) - 1)


@dataclass(frozen=True)
class Item:
    """One question of a benchmark."""

    place: str
    questions: tuple[str, ...]
    """Normalised; mostly one"""
    parts: tuple[str, ...] = ()
    """Whatever else belongs to it: passage, options, answer"""


@dataclass(frozen=True)
class Hit:
    """What a text has in common with an item."""

    place: str
    """Of the item"""
    share: float
    """Of the words of its questions, or of the whole item, whichever is more; 0 if these are fewer than 13 words"""
    words: int
    """The most words in a row that both have"""
    text: str
    """These words, as they stand in the text"""

    @property
    def held(self) -> bool:
        """Whether the text holds the item, not only some words of it."""
        return self.share >= _COVERED


class Benchmark:
    """The n-grams of benchmark items, from any number of files."""

    def __init__(self, items: Iterable[Item]):
        self._places: list[str] = []
        self._questions: dict[bytes, str] = {}
        texts, owners, begins = [], [], []                  # two owners an item: its questions, and all of it
        for number, item in enumerate(items):
            self._places.append(item.place)
            for question in item.questions:
                units = fold_units([question])[0]
                if len(units) >= _SHORTEST:
                    self._questions.setdefault(units.tobytes(), item.place)
            for owner, parts in ((2 * number, item.questions), (2 * number + 1, dict.fromkeys((*item.questions, *item.parts)))):
                lengths = [len(part) + GRAM for part in parts]  # so that words of two parts never stand in a row
                texts += parts
                owners += [owner] * len(lengths)
                begins += [sum(lengths[:i]) for i in range(len(lengths))]
        self.items = len(self._places)
        grams = _Grams(texts)
        first = np.searchsorted(grams.text, grams.text)     # of its text, by gram
        positions = np.asarray(begins, np.int64)[grams.text] + grams.place - grams.place[first]
        self._index(grams.hashes, np.asarray(owners, np.int64)[grams.text], positions)

    def _index(self, grams: np.ndarray, owners: np.ndarray, positions: np.ndarray) -> None:
        """Sort occurrences by gram; those of common grams are left out."""
        by_gram = np.lexsort((positions, owners, grams))
        grams, owners, positions = grams[by_gram], owners[by_gram], positions[by_gram]
        grams, first, counts = np.unique(grams, return_index=True, return_counts=True)
        new_item = np.diff(owners // 2, prepend=-1) != 0
        new_item[first] = True
        rare = (np.add.reduceat(new_item, first) if len(first) else counts) <= _COMMON
        kept = np.repeat(rare, counts)
        self.common_grams = int(len(rare) - rare.sum())
        self._grams, self._owners, self._positions = grams[rare], owners[kept], positions[kept]
        self._bounds = np.concatenate(([0], np.cumsum(counts[rare])))
        self._filter = np.zeros(int(_FILTER) + 1, bool)
        self._filter[self._grams & _FILTER] = True
        self._sizes = np.zeros(2 * self.items)
        if len(self._grams):
            found, words = _covered(self._owners, self._positions)
            self._sizes[found] = words

    def asks(self, text: str) -> str | None:
        """The place of the question that a text is, word for word; None if it is none."""
        return self._questions.get(fold_units([text])[0].tobytes())

    def find(self, texts: list[str]) -> list[Hit | None]:
        """The item that each text has most of; None where fewer than 13 of its words stand in any.

        Args:
            texts: normalised.
        """
        hits: list[Hit | None] = [None] * len(texts)
        if not len(self._grams):
            return hits
        grams = _Grams(texts)
        at = np.flatnonzero(self._filter[grams.hashes & _FILTER])
        known = np.minimum(np.searchsorted(self._grams, grams.hashes[at]), len(self._grams) - 1)
        same = self._grams[known] == grams.hashes[at]
        at, known = at[same], known[same]
        text = grams.text[at]
        if not len(at):
            return hits
        first, place = np.flatnonzero(np.diff(text, prepend=-1)), grams.place[at]
        words = np.add.reduceat(np.minimum(np.diff(place, append=place[-1] + GRAM), GRAM), first)
        for number in text[first[words >= RUN]].tolist():
            here = slice(*np.searchsorted(text, (number, number + 1)))
            hits[number] = self._hit(grams, at[here], known[here])
        return hits

    def _hit(self, grams: _Grams, at: np.ndarray, known: np.ndarray) -> Hit:
        """Of one text: where among its grams those lie that some items have, and which these are."""
        counts = self._bounds[known + 1] - self._bounds[known]
        at = np.repeat(at, counts)
        entry = np.arange(len(at)) + np.repeat(self._bounds[known] - np.cumsum(counts) + counts, counts)
        owners, positions = self._owners[entry], self._positions[entry]
        found, words = _covered(owners, positions)
        shares = np.where(words >= RUN, words / self._sizes[found], 0.0)
        best = int(shares.argmax())
        words, last = _longest(owners, positions, grams.place[at])
        owner = found[best] if shares[best] >= _COVERED else owners[last]   # or the item with the longest run
        return Hit(self._places[owner // 2], float(shares[best]), words, grams.words_before(int(at[last]), words))


class _Grams:
    """The grams of some texts, but for those that are mostly numbers."""

    def __init__(self, texts: list[str]):
        self._units, bounds = code_units(texts)
        kind = kinds(self._units)
        inside = (kind > 0) & (kind < SINGLE)
        begins = inside & ~np.concatenate(([False], inside[:-1]))
        first = bounds[:-1][np.diff(bounds) > 0]
        begins[first] = inside[first]
        self._starts = starts = np.flatnonzero(begins | (kind == SINGLE))
        text = np.searchsorted(bounds, starts, "right") - 1
        count = len(starts) - GRAM + 1
        if count < 1:
            self.hashes, self.place, self.text = np.zeros(0, np.uint64), starts[:0], starts[:0]
            return
        words = segment_hashes(fold(self._units[starts[0]:]), starts - starts[0])
        hashes = gram_hashes(words, GRAM)
        letters = np.concatenate(([0], np.cumsum(np.maximum.reduceat(kind[starts[0]:], starts - starts[0]) > NUMBER)))
        self._kind = kind
        self.place = np.flatnonzero((text[GRAM - 1:] == text[:count]) & (letters[GRAM:] - letters[:count] >= _LETTERS))
        """Number of the first word of each gram, counted through all texts"""
        self.hashes, self.text = hashes[self.place], text[self.place]

    def words_before(self, gram: int, words: int) -> str:
        """The words that end with a gram, as they stand in its text."""
        last = self.place[gram] + GRAM
        end = self._starts[last] if last < len(self._starts) else len(self._units)
        begin = self._starts[last - words]
        shown = np.flatnonzero(self._kind[begin:end])
        return self._units[begin:begin + shown[-1] + 1].tobytes().decode("utf-16-le", "replace")


def _covered(owners: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(owners, ascending; words of each that the grams at these positions cover)."""
    width = int(positions.max()) + GRAM + 1
    pairs = np.unique(owners * width + positions)
    words = np.minimum(np.diff(pairs, append=pairs[-1] + width), GRAM)
    first = np.flatnonzero(np.diff(pairs // width, prepend=-1))
    return pairs[first] // width, np.add.reduceat(words, first)


def _longest(owners: np.ndarray, positions: np.ndarray, places: np.ndarray) -> tuple[int, int]:
    """(words of the longest run that a text has in common with an item, which occurrence is its last gram)."""
    by_run = np.lexsort((places, places - positions, owners))
    owners, shift, places = owners[by_run], (places - positions)[by_run], places[by_run]
    breaks = (np.diff(owners, prepend=-1) != 0) | (np.diff(shift, prepend=shift[0]) != 0) | (np.diff(places, prepend=-2) != 1)
    starts = np.flatnonzero(breaks)
    lengths = np.diff(starts, append=len(places))
    best = int(lengths.argmax())
    return int(lengths[best]) + GRAM - 1, int(by_run[starts[best] + lengths[best] - 1])
