"""Han text -> pieces: which characters become atoms, and continued BPE over Han runs for the words.

Works on characters and knows no base: `zhtune extend` leaves out what a base has. Only Han characters and a few
full-width marks become pieces, so text without them cannot change. Method and tables: Chinese vocabulary measurements
on 21 MB of modern text (coverage by size, length of words).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import orjson

from zhtune.errors import ConfigError, DataError
from zhtune.text import HAN_RUN, is_han
from zhtune.vocabulary.pieces import MARKS, Piece
from zhtune.vocabulary.words import merge_words, sentencepiece_words

# Share of Han occurrences that the atoms cover, by size: more characters at 4,000 leave no room for words.
COVERAGE = ((1_000, .95), (2_000, .97), (4_000, .985), (6_000, .99), (8_000, .995), (10_000, .997), (12_000, .998),
            (15_000, .999), (20_000, .999), (24_000, .9995))
_ATOM_SHARE = 0.8                                           # of a vocabulary, unless the terms or --coverage ask for more
_PRIVATE = 0xF0000                                          # two private planes: 131,068 symbols
_MIN_COUNT = 2                                              # a pair seen once is no word


@dataclass
class TextCounts:
    """What training needs of a text, however long: maximal Han runs and marks with their weighted counts."""

    runs: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    """The runs cut at word bounds, where they were asked for"""

    def add(self, text: str) -> None:
        """Count one text."""
        self.runs.update(HAN_RUN.findall(text))
        for mark in MARKS:
            self.marks[mark] += text.count(mark)

    def add_counts(self, other: TextCounts, weight: int) -> None:
        """Count all that another counted, `weight` times."""
        for mine, theirs in ((self.runs, other.runs), (self.marks, other.marks)):
            for key, count in theirs.items():
                mine[key] += weight * count

    def cut_at_words(self) -> None:
        """Fill `words` with jieba's words of each run: no piece will cross their bounds."""
        import jieba
        jieba.setLogLevel("WARNING")
        for run, count in self.runs.items():
            for word in jieba.cut(run):
                self.words[word] += count

    def characters(self) -> Counter[str]:
        """Occurrences of every Han character."""
        counts: Counter[str] = Counter()
        for run, count in self.runs.items():
            for char in run:
                counts[char] += count
        return counts


def between(points: Sequence[Sequence[float]], size: float) -> float:
    """The value at a size on the straight lines between points (size, value); beyond them that of the nearest point."""
    if size <= points[0][0]:
        return points[0][1]
    for (low, at_low), (high, at_high) in pairwise(points):
        if size <= high:
            return at_low + (at_high - at_low) * (size - low) / (high - low)
    return points[-1][1]


@dataclass(frozen=True)
class Plan:
    """What to train."""

    size: int
    """Pieces in all"""
    max_piece: int = 5
    """Longest word that is trained, in characters; seeds and terms may be longer"""
    coverage: float = 0.0
    """Share of Han occurrences that the atoms cover; 0 takes it from the size"""
    marks: bool = False
    """Whether full-width punctuation becomes pieces"""
    algorithm: str = "continued-bpe"
    """ "continued-bpe", "sentencepiece-bpe" or "sentencepiece-unigram" """
    seeds: tuple[str, ...] = ()
    """Words that come first, best first"""
    seed_size: int = 0
    """Seeds at most, with the parts they need"""
    terms: tuple[str, ...] = ()
    """Words that must be in"""
    required: frozenset[str] = frozenset()
    """Han characters that become atoms whatever their count"""


@dataclass
class Trained:
    """A vocabulary and what was left out of it."""

    pieces: list[Piece]
    refused: dict[str, list[str]]
    """Seeds and terms that did not become pieces, by reason"""
    rare: list[str]
    """Han characters of the text that are no atoms, most frequent first"""


def train_pieces(counts: TextCounts, plan: Plan) -> Trained:
    """Atoms, marks, words and terms, in this order; fewer than the plan's size where the text has no more words.

    Raises:
        DataError: the text holds no Han character.
        ConfigError: the required characters and the terms alone are more than the size.
    """
    characters = counts.characters()
    if not characters:
        raise DataError("the training text holds no Han character")
    marks = MARKS if plan.marks else ""
    required = set(plan.required) | {char for term in plan.terms for char in term if is_han(char)}
    room = plan.size - len(marks)
    atoms = select_atoms(characters, required, room, plan.coverage or between(COVERAGE, plan.size),
                         room if plan.coverage else int(plan.size * _ATOM_SHARE))
    known, room = set(atoms), room - len(atoms)
    runs = cut_runs(counts.words or counts.runs, known)
    seeds = merge_words(plan.seeds, known, [], min(plan.seed_size, room))
    merges = [*seeds.merges, *_trained_words(runs, atoms, seeds.merges, room - len(seeds.merges), plan)][:room]
    terms = merge_words(plan.terms, known, merges, plan.size)
    while len(merges) + len(terms.merges) > room:           # the last words make room for terms
        if not merges:
            raise ConfigError(f"the terms alone need {len(terms.merges)} pieces beside {len(atoms)} characters; "
                              f"--size must be at least {plan.size - room + len(terms.merges)}")
        merges = merges[:max(0, room - len(terms.merges))]
        terms = merge_words(plan.terms, known, merges, plan.size)
    uses = count_uses(runs, atoms, [*merges, *terms.merges])
    asked = set(plan.terms)
    pieces = [*(Piece(a, "atom", characters[a]) for a in atoms), *(Piece(m, "punctuation", counts.marks[m]) for m in marks),
              *(Piece(left + right, "term" if left + right in asked else "word", uses[left + right], left, right)
                for left, right in [*merges, *terms.merges])]
    refused = {reason: [*seeds.refused.get(reason, []), *terms.refused.get(reason, [])]
               for reason in {**seeds.refused, **terms.refused} if reason != "known"}
    return Trained(pieces, refused, [char for char, _ in characters.most_common() if char not in known])


def _trained_words(runs: Counter[str], atoms: list[str], seeds: list[tuple[str, str]], number: int, plan: Plan) -> list[tuple[str, str]]:
    """Merges behind the seeds, by the plan's algorithm."""
    if plan.algorithm == "continued-bpe":
        return continue_words(runs, atoms, seeds, number, plan.max_piece) if seeds else train_words(runs, number, plan.max_piece)
    words = sentencepiece_words(runs, plan.algorithm.removeprefix("sentencepiece-"), number, plan.max_piece)
    return merge_words(words, set(atoms), seeds, number).merges


def select_atoms(characters: Counter[str], required: set[str], room: int, coverage: float, limit: int) -> list[str]:
    """Required characters and the most frequent ones until `coverage` or `limit` is reached, most frequent first."""
    if len(required) > room:
        raise ConfigError(f"graph and terms hold {len(required)} Han characters, which all become pieces; "
                          f"--size must be at least {len(required)}, and more for words")
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
        for part in "".join([char if char in atoms else " " for char in run]).split():
            cut[part] += count
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


def continue_words(runs: Counter[str], atoms: list[str], merges: list[tuple[str, str]], number: int, max_piece: int) -> list[tuple[str, str]]:
    """The next `number` merges of BPE over the runs, after `merges` have been applied to them.

    Every piece is one symbol to the trainer, which cannot know how long it is: words over `max_piece` are left out
    afterwards, and more are trained where that leaves too few.
    """
    if number <= 0:
        return []
    texts = [*atoms, *("".join(pair) for pair in merges)]
    symbols = {text: chr(_PRIVATE + i) for i, text in enumerate(texts)}
    names = {symbol: text for text, symbol in symbols.items()}
    model, encoded = word_model(atoms, merges), Counter()
    for run, count in runs.items():
        encoded["".join([symbols[token.value] for token in model.tokenize(run)])] += count
    asked, words = number, []
    while True:
        trained = train_words(encoded, asked, max_piece)
        pairs = [tuple("".join([names[symbol] for symbol in part]) for part in pair) for pair in trained]
        words = _new_words(pairs, set(texts), max_piece)
        if len(words) >= number or len(trained) < asked:
            return words[:number]
        asked = int(asked * max(1.1, 1.1 * number / max(1, len(words))))


def _new_words(pairs: list[tuple[str, str]], known: set[str], max_piece: int) -> list[tuple[str, str]]:
    """Merges whose word is short enough and not there yet; of several that make a word the first."""
    words: dict[str, tuple[str, str]] = {}
    for left, right in pairs:
        word = left + right
        if len(word) <= max_piece and word not in known and (left in known or left in words) and (right in known or right in words):
            words.setdefault(word, (left, right))
    return list(words.values())


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
