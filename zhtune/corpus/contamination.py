"""Benchmark items in texts of any kind: documents of a corpus, messages of records. Reads no file, drops nothing.

Compared are n-grams of 8 words, a word being a Han character, a run of other letters and digits, so that eight Latin
letters are no n-gram; case, width, punctuation, blanks, line breaks and traditional characters do not count. Each part of an
item (question, every option) has its own n-grams, so that options may stand in any order. A text holds an item if these
n-grams cover half of its question, or half of the whole of it, and 13 words: one changed character leaves most of them. Of a
short question it may not: a text also holds one of which it has, beside one such n-gram, all words in order but one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from zhtune.corpus.units import NUMBER, SINGLE, code_units, fold, fold_units, gram_hashes, kinds, segment_hashes, single_hashes
from zhtune.parallel import batches

GRAM = 8
RUN = 13                                                    # words in common that tell, as in the study of Brown et al. 2020
_COVERED = 0.5                                              # share of an item's words that makes it the item
_LETTERS = 5                                                # words of a gram that are not numbers: measures and tables are no item
_COMMON = 10                                                # grams in more items than this are a form's words, not an item's
_SHORTEST = 4                                               # a shorter question in common says nothing
_SHIFT = np.uint64(32)                                      # to the bits of a hash that the second filter sees
_CHUNK = 1 << 17                                            # characters at a time: what they need stays in the cache


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
        whole, text = grams.whole(np.arange(len(grams.hashes)))
        at = np.flatnonzero(whole)
        self._words, self._parts = grams.words, grams.bounds    # of all parts, one after the other; where each begins
        positions = np.asarray(begins, np.int64)[text] + at - self._parts[text]
        self._index(grams.hashes[at], np.asarray(owners, np.int64)[text], positions, at)

    def _index(self, grams: np.ndarray, owners: np.ndarray, positions: np.ndarray, at: np.ndarray) -> None:
        """Sort occurrences by gram; those of common grams are left out."""
        by_gram = np.lexsort((positions, owners, grams))
        grams, owners, positions, at = grams[by_gram], owners[by_gram], positions[by_gram], at[by_gram]
        grams, first, counts = np.unique(grams, return_index=True, return_counts=True)
        new_item = np.diff(owners // 2, prepend=-1) != 0
        new_item[first] = True
        rare = (np.add.reduceat(new_item, first) if len(first) else counts) <= _COMMON
        kept = np.repeat(rare, counts)
        self.common_grams = int(len(rare) - rare.sum())
        self._grams, self._owners, self._positions, self._at = grams[rare], owners[kept], positions[kept], at[kept]
        self._bounds = np.concatenate(([0], np.cumsum(counts[rare])))
        size = min(1 << max(8 * len(self._grams), 1).bit_length(), 1 << 24)     # of 100 other grams the two filters let 1 through
        self._filters, self._mask = np.zeros((2, size), bool), np.uint64(size - 1)
        for table, shift in zip(self._filters, (np.uint64(0), _SHIFT)):
            table[self._grams >> shift & self._mask] = True
        self._sizes = np.zeros(2 * self.items)
        if len(self._grams):
            found, words = _covered(self._owners, self._positions)
            self._sizes[found] = words

    def asks(self, text: str) -> str | None:
        """The place of the question that a text is, word for word; None if it is none."""
        return self._questions.get(fold_units([text])[0].tobytes())

    def find(self, texts: list[str]) -> list[Hit | None]:
        """The item that each text has most of; None where fewer than 13 of its words stand in any, unless they are a question but for one.

        Args:
            texts: normalised.
        """
        return [hit for batch in batches(texts, len, _CHUNK) for hit in self._find(batch)] if len(self._grams) else [None] * len(texts)

    def _find(self, texts: list[str]) -> list[Hit | None]:
        hits: list[Hit | None] = [None] * len(texts)
        grams = _Grams(texts)
        at = np.flatnonzero(self._filters[0, grams.hashes & self._mask])
        at = at[self._filters[1, grams.hashes[at] >> _SHIFT & self._mask]]
        known = np.minimum(np.searchsorted(self._grams, grams.hashes[at]), len(self._grams) - 1)
        same = self._grams[known] == grams.hashes[at]
        at, known = at[same], known[same]
        whole, text = grams.whole(at)
        at, known = at[whole], known[whole]
        if not len(at):
            return hits
        first = np.flatnonzero(np.diff(text, prepend=-1))
        words = np.add.reduceat(np.minimum(np.diff(at, append=at[-1] + GRAM), GRAM), first)
        counts = self._bounds[known + 1] - self._bounds[known]  # each gram, with every place that it has in an item
        entry = np.arange(counts.sum()) + np.repeat(self._bounds[known] - np.cumsum(counts) + counts, counts)
        texts_of, at = np.repeat(text, counts), np.repeat(at, counts)
        nearly = self._nearly(grams, texts_of, at, entry)
        for number in sorted({*text[first[words >= RUN]].tolist(), *nearly}):
            here = slice(*np.searchsorted(texts_of, (number, number + 1)))
            hits[number] = self._hit(grams, at[here], entry[here], nearly.get(number))
        return hits

    def _hit(self, grams: _Grams, at: np.ndarray, entry: np.ndarray, nearly: tuple[float, int] | None) -> Hit:
        """Of one text: where among its grams those lie that some items have, and which these are."""
        owners, positions = self._owners[entry], self._positions[entry]
        found, words = _covered(owners, positions)
        shares = np.where(words >= RUN, words / self._sizes[found], 0.0)
        best = int(shares.argmax())
        share, owner = float(shares[best]), int(found[best])
        if share < _COVERED and nearly:
            share, owner = nearly
        words, last = _longest(owners, positions, at)
        if share < _COVERED:                                # of the item with the longest run
            owner = int(owners[last])
        return Hit(self._places[owner // 2], share, words, grams.words_before(int(at[last]), words))

    def _nearly(self, grams: _Grams, text: np.ndarray, at: np.ndarray, entry: np.ndarray) -> dict[int, tuple[float, int]]:
        """By text, (share of its words, owner) of a question that stands in it but for one word: another, one more or one less."""
        part = np.searchsorted(self._parts, self._at[entry], "right") - 1
        begin = at - self._at[entry] + self._parts[part]    # of the whole question in the text
        asked = np.flatnonzero((self._owners[entry] % 2 == 0) & (self._parts[part + 1] - self._parts[part] >= RUN))
        asked = asked[np.unique((part[asked] << 32) + begin[asked], return_index=True)[1]]
        if not len(asked):
            return {}
        text, part, begin = text[asked], part[asked], begin[asked]
        sizes = self._parts[part + 1] - self._parts[part]
        starts = np.cumsum(sizes) - sizes
        offset = np.arange(sizes.sum()) - np.repeat(starts, sizes)
        wanted, place = self._words[np.repeat(self._parts[part], sizes) + offset], np.repeat(begin, sizes) + offset
        low, end = np.repeat(grams.bounds[text], sizes), np.repeat(grams.bounds[text + 1], sizes)
        same = np.zeros(len(place), bool)
        for there in (place - 1, place, place + 1):
            same |= (there >= low) & (there < end) & (grams.words[np.clip(there, 0, len(grams.words) - 1)] == wanted)
        equal = np.add.reduceat(same, starts, dtype=np.int64)
        found: dict[int, tuple[float, int]] = {}
        for i in np.flatnonzero(equal >= sizes - 1).tolist():
            number, pair = int(text[i]), (float(equal[i] / sizes[i]), int(self._owners[entry[asked[i]]]))
            found[number] = max(found.get(number, pair), pair)
        return found


class _Grams:
    """The grams of some texts, each numbered by its first word, counted through all texts."""

    def __init__(self, texts: list[str]):
        self._units, bounds = code_units(texts)
        self._kind = kind = kinds(self._units)
        single = kind == SINGLE
        inside = (kind > 0) & ~single
        begins = inside.copy()
        begins[1:] &= ~inside[:-1]
        first = bounds[:-1][np.diff(bounds) > 0]
        begins[first] = inside[first]
        self._starts = starts = np.flatnonzero(begins | single)
        self.bounds = np.searchsorted(starts, bounds)
        """Where each text begins, in words, (texts + 1,)"""
        self.words = words = single_hashes()[self._units[starts]]
        self._letters = np.ones(len(starts), bool)
        if len(longer := np.flatnonzero(inside[starts])):   # words of several letters, numbers
            run = np.flatnonzero(inside)
            parts = np.searchsorted(run, starts[longer])
            words[longer] = segment_hashes(fold(self._units[run]), parts)
            self._letters[longer] = np.maximum.reduceat(kind[run], parts) > NUMBER
        self.hashes = gram_hashes(words, GRAM)
        """Of all grams; of those that `whole` lets through it has a meaning"""

    def whole(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(which of some grams lie within one text and are not mostly numbers, the text of each of these)."""
        text = np.searchsorted(self.bounds, at, "right") - 1
        letters = self._letters[at[:, None] + np.arange(GRAM)].sum(axis=1)
        good = (at + GRAM <= self.bounds[text + 1]) & (letters >= _LETTERS)
        return good, text[good]

    def words_before(self, gram: int, words: int) -> str:
        """The words that end with a gram, as they stand in its text."""
        last = gram + GRAM
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
