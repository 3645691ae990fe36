"""Han text -> pieces: which characters become atoms, and continued BPE over Han runs for the words.

Works on characters and knows no base: `zhtune extend` leaves out what a base has. Only Han characters and a few
full-width marks become pieces, so text without them cannot change. Method and tables: Chinese vocabulary measurements
on 21 MB of modern text (coverage by size, length of words).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import orjson

from zhtune.errors import ConfigError, DataError
from zhtune.text import HAN_RUN
from zhtune.vocabulary.pieces import MARKS, Piece

# Share of Han occurrences that the atoms cover, by size: more characters at 4,000 leave no room for words.
_COVERAGE = ((1_000, .95), (2_000, .97), (4_000, .985), (6_000, .99), (8_000, .995), (10_000, .997), (12_000, .998),
             (15_000, .999), (20_000, .999), (24_000, .9995))
_ATOM_SHARE = 0.8                                           # of a vocabulary, unless the terms or --coverage ask for more
_MIN_COUNT = 2                                              # a pair seen once is no word


@dataclass
class TextCounts:
    """What training needs of a text, however long: maximal Han runs and marks with their weighted counts."""

    runs: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)

    def add(self, text: str, weight: int = 1) -> None:
        """Count one text, `weight` times."""
        if weight == 1:
            self.runs.update(HAN_RUN.findall(text))
        else:
            for run in HAN_RUN.findall(text):
                self.runs[run] += weight
        for mark in MARKS:
            self.marks[mark] += weight * text.count(mark)

    def characters(self) -> Counter[str]:
        """Occurrences of every Han character."""
        counts: Counter[str] = Counter()
        for run, count in self.runs.items():
            for char in run:
                counts[char] += count
        return counts


def coverage_for(size: int) -> float:
    """The share of Han occurrences that the atoms of a vocabulary of `size` pieces should cover, between table points."""
    if size <= _COVERAGE[0][0]:
        return _COVERAGE[0][1]
    for (low, at_low), (high, at_high) in pairwise(_COVERAGE):
        if size <= high:
            return at_low + (at_high - at_low) * (size - low) / (high - low)
    return _COVERAGE[-1][1]


def train_pieces(counts: TextCounts, required: set[str], size: int, max_piece: int = 5, coverage: float = 0.0) -> list[Piece]:
    """Atoms, marks and words, in this order; fewer than `size` where the text has no more words.

    Args:
        counts: the training text.
        required: Han characters that become atoms whatever their count (those of the domain's terms).
        size: pieces in all.
        max_piece: longest word, in characters.
        coverage: share of Han occurrences that the atoms cover; 0 takes it from the size.

    Raises:
        DataError: the text holds no Han character.
        ConfigError: the required characters alone are more than `size`.
    """
    characters = counts.characters()
    if not characters:
        raise DataError("the training text holds no Han character")
    atoms = select_atoms(characters, required, size - len(MARKS), coverage or coverage_for(size),
                         size - len(MARKS) if coverage else int(size * _ATOM_SHARE))
    runs = cut_runs(counts.runs, set(atoms))
    merges = train_words(runs, size - len(MARKS) - len(atoms), max_piece)
    uses = count_uses(runs, atoms, merges)
    return [*(Piece(a, "atom", characters[a]) for a in atoms),
            *(Piece(m, "punctuation", counts.marks[m]) for m in MARKS),
            *(Piece(left + right, "word", uses[left + right], left, right) for left, right in merges)]


def select_atoms(characters: Counter[str], required: set[str], room: int, coverage: float, limit: int) -> list[str]:
    """Required characters and the most frequent ones until `coverage` or `limit` is reached, most frequent first."""
    if len(required) > room:
        raise ConfigError(f"the terms hold {len(required)} Han characters, which all become atoms; "
                          f"--size must be at least {len(required) + len(MARKS)}")
    ranked = sorted(characters, key=lambda c: (-characters[c], c))
    chosen, covered = set(required), sum(characters[c] for c in required)
    wanted = coverage * sum(characters.values())
    for char in ranked:
        if covered >= wanted or len(chosen) >= min(limit, room):
            break
        if char not in chosen:
            chosen.add(char)
            covered += characters[char]
    return sorted(chosen, key=lambda c: (-characters[c], c))


def cut_runs(runs: Counter[str], atoms: set[str]) -> Counter[str]:
    """The runs cut at characters that are no atoms: no word holds such a character."""
    cut: Counter[str] = Counter()
    for run, count in runs.items():
        start = 0
        for i, char in enumerate(run):
            if char not in atoms:
                if i > start:
                    cut[run[start:i]] += count
                start = i + 1
        if start < len(run):
            cut[run[start:]] += count
    return cut


def train_words(runs: Counter[str], number: int, max_piece: int) -> list[tuple[str, str]]:
    """The first `number` merges (left, right) of BPE over the runs; ties go to the lower code points."""
    if number <= 0 or max_piece < 2:
        return []
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    alphabet = {char for run in runs for char in run}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The trainer makes pieces of at most max_token_length - 1 characters.
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + number, min_frequency=_MIN_COUNT, show_progress=False,
                                  max_token_length=max_piece + 1)
    tokenizer.train_from_iterator(_weighted(runs), trainer)
    first: dict[str, tuple[str, str]] = {}                  # a word can be made in two ways; the first one names its parts
    for merge in orjson.loads(tokenizer.to_str())["model"]["merges"]:
        left, right = merge if isinstance(merge, list) else merge.split(" ")
        first.setdefault(left + right, (left, right))
    return list(first.values())[:number]


def _weighted(runs: Counter[str]) -> Iterator[str]:
    """Each run as often as it was counted, in a fixed order: the trainer takes no counts."""
    for run in sorted(runs):
        yield " ".join([run] * runs[run])


def word_model(atoms: Iterable[str], merges: list[tuple[str, str]]):
    """A character-level `tokenizers` BPE model of atoms and merges; `.tokenize(run)` gives its tokens."""
    from tokenizers import models
    vocabulary = {text: i for i, text in enumerate([*atoms, *("".join(pair) for pair in merges)])}
    return models.BPE(vocabulary, merges)


def count_uses(runs: Counter[str], atoms: list[str], merges: list[tuple[str, str]]) -> Counter[str]:
    """How often each piece is a token of the runs. A word seen 0 times is a stepping stone to longer ones."""
    model, uses = word_model(atoms, merges), Counter()
    for run, count in runs.items():
        for token in model.tokenize(run):
            uses[token.value] += count
    return uses
