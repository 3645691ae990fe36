"""What an extension did to a tokenizer, and what both families share: merges by rank, and appending words to them.

Knows no tokenizer file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

from zhtune.errors import ConfigError
from zhtune.vocabulary.pieces import WORDS, Piece


@dataclass(frozen=True)
class NewToken:
    """One token that the base did not have."""

    id: int
    token: str
    """As the vocabulary spells it: in byte-level characters, or as text"""
    kind: str
    """ "helper" (a part of a character), or the kind of its piece """
    text: str
    """The token as text; a helper has U+FFFD in it"""


@dataclass
class Extension:
    """What was done to a tokenizer."""

    family: str
    """ "bytelevel" or "sentencepiece" """
    base_size: int
    """First new id: the base's highest id, added tokens included, plus one"""
    one_token_share: float
    """Share of Han occurrences of the vocabulary's text that are one token of the base"""
    demote: bool = False
    """Whether base merges of Han with spaces, ASCII or punctuation were put behind the words"""
    tokens: list[NewToken] = field(default_factory=list)
    demoted: int = 0
    repaired: int = 0
    """Base tokens that needed one new merge to stay reachable"""
    lost: list[str] = field(default_factory=list)
    """Base tokens with Han characters that are no longer reachable"""
    skipped: Counter[str] = field(default_factory=Counter)
    """Pieces that were not added, by reason: known (one token already), no_byte_token, no_two_parts, over_size"""
    mark_helpers: list[bytes] = field(default_factory=list)
    """Beginnings of characters that marks made a token: they may shorten other characters that begin so"""

    def number(self, kind: str) -> int:
        """How many new tokens are of a kind."""
        return sum(token.kind == kind for token in self.tokens)

    def summary(self) -> dict[str, Any]:
        """As extension.json holds it."""
        return {"family": self.family, "base_size": self.base_size,
                "new_ids": [self.tokens[0].id, self.tokens[-1].id] if self.tokens else [],
                "helpers": self.number("helper"), "atoms": self.number("atom"), "punctuation": self.number("punctuation"),
                "words": self.number("word"), "terms": self.number("term"), "base_one_token_share": round(self.one_token_share, 4),
                "demote": self.demote, "demoted": self.demoted, "repaired": self.repaired, "lost": self.lost,
                "skipped": dict(sorted(self.skipped.items()))}


def merge_parts(parts: list[str], rank: Callable[[str, str], int | None]) -> list[str]:
    """BPE: join the pair of neighbours with the lowest rank, the leftmost of equals, until none has one."""
    while ranked := [(found, i) for i, pair in enumerate(pairwise(parts)) if (found := rank(*pair)) is not None]:
        at = min(ranked)[1]
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
    return parts


class Bpe:
    """Merges by rank of the pair, as tokenizer.json has them; grows at the end only, so that what is reachable stays so."""

    def __init__(self, merges: Iterable[tuple[str, str]]):
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}   # of a pair that is there twice the last counts
        self._next = count(max(self.ranks.values(), default=-1) + 1)

    def append(self, pair: tuple[str, str]) -> None:
        """Add a merge behind all others, unless it is there."""
        self.ranks.setdefault(pair, next(self._next))

    def segment(self, token: str) -> list[str]:
        """The tokens of a string of vocabulary characters taken as one pre-token."""
        return merge_parts(list(token), lambda left, right: self.ranks.get((left, right)))

    def reaches(self, token: str) -> bool:
        """Whether the string becomes one token."""
        return len(self.segment(token)) == 1


def one_token_share(pieces: list[Piece], is_token: Callable[[str], bool]) -> float:
    """Share of the characters' occurrences that are one token of the base; 1 where the vocabulary has no characters."""
    atoms = [p for p in pieces if p.kind == "atom"]
    total = sum(p.count for p in atoms)
    return sum(p.count for p in atoms if is_token(p.text)) / total if total else 1.0


def append_words(pieces: list[Piece], spell: Callable[[str], str], bpe: Any, extension: Extension, register: Callable[[str, str], None],
                 size: int) -> None:
    """One merge for each word, of the two tokens it is at that point. In a base that knows Chinese these may be others
    than those it was trained with, and a word of three gets a second chance when there are more words.

    Args:
        pieces: of the vocabulary; words and terms are used.
        spell: text -> the characters of the tokenizer's vocabulary.
        bpe: has `segment(token)` and `append((left, right))`.
        register: is called with (token, kind) of each word that is added.
        size: new tokens in all, 0 for no limit; terms and their parts come before words.

    Raises:
        ConfigError: the characters and terms alone are more than `size`.
    """
    needed = {spell(text) for text in closure(pieces)}
    waiting = [(spell(p.text), p.kind) for p in pieces if p.kind in WORDS]
    reserved = sum(not bpe.reaches(token) for token in needed)
    if size and len(extension.tokens) + reserved > size:
        raise ConfigError(f"the vocabulary's characters and terms alone need {len(extension.tokens) + reserved} new tokens; --size must "
                          "be at least that")
    while waiting:
        later = []
        for token, kind in waiting:
            parts = bpe.segment(token)
            if len(parts) > 2:
                later.append((token, kind))
            elif len(parts) < 2:
                extension.skipped["known"] += 1
            elif token in needed or not size or len(extension.tokens) + reserved < size:
                bpe.append((parts[0], parts[1]))
                register(token, kind)
                reserved -= token in needed
            else:
                extension.skipped["over_size"] += 1
        if len(later) == len(waiting):
            extension.skipped["no_two_parts"] += len(later)
            return
        waiting = later


def closure(pieces: list[Piece]) -> set[str]:
    """Terms, and the words they are made of."""
    parts = {p.text: (p.left, p.right) for p in pieces if p.kind in WORDS}
    found, todo = set(), [p.text for p in pieces if p.kind == "term"]
    while todo:
        text = todo.pop()
        if text in parts and text not in found:
            found.add(text)
            todo += parts[text]
    return found
