"""Exact greedy ROUGE-L novelty: is a text too near to one that was accepted before? It knows nothing of what the texts are.

The decisions are those of rouge_score's `fmeasure(_score_lcs(new, old)) > threshold` over the same tokens, ties included; only
the way there is shorter. ROUGE-L F is 2·LCS/(m + n) for m and n tokens. Each text has a signature of 128 bits, one bit a token
(number of the token modulo 128). A bit in one signature that the other lacks is a token that cannot be in the common
subsequence, so with c = popcount(a & b)

    LCS <= min(m - popcount(a) + c, n - popcount(b) + c)

and numpy leaves 3 pairs in 10,000 for which the LCS itself is computed (rapidfuzz, bit-parallel). Texts are kept by length
class, because the shorter of two similar texts has at least threshold/(2 - threshold) of the tokens of the longer.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import LCSseq

from zhtune.errors import DataError

_BITS = 128
_CLASS_RATIO = math.log(1.25)                               # lengths of one class differ by a quarter at most
_SLACK = 1e-6                                               # bounds are that much wider; the decision is rouge_score's own expression
_SURROGATES, _CODE_POINTS = range(0xD800, 0xE000), 0x110000


@dataclass(frozen=True)
class Twin:
    """The accepted text that is nearest to a new one, above the threshold."""

    number: int
    """Its place among the accepted texts, from 0"""
    score: float
    """ROUGE-L F"""


def rouge_l(common: int, new: int, old: int) -> float:
    """ROUGE-L F of two token lists in rouge_score's own floating point.

    2·7/(7 + 13) is 0.7, but this gives 0.7000000000000001: a threshold of 0.7 decides by the last bit.

    Args:
        common: length of the longest common subsequence.
        new, old: numbers of tokens.
    """
    if not common:
        return 0.0
    precision, recall = common / old, common / new
    return 2 * precision * recall / (precision + recall)


def words(text: str) -> list[str]:
    """jieba's words of a text, without blanks."""
    import jieba
    if not jieba.dt.initialized:
        jieba.setLogLevel(logging.WARNING)                  # it reports the loading of its dictionary as an event
    return [word for word in jieba.lcut(text) if not word.isspace()]


class NoveltyIndex:
    """Accepted texts, and whether a new one is novel among them.

    Args:
        threshold: a text whose ROUGE-L F with an accepted one is above it is no novelty; between 0 and 1.
        tokens: of a text.
    """

    def __init__(self, threshold: float = 0.7, tokens: Callable[[str], list[str]] = words):
        self._threshold, self._tokens = threshold, tokens
        self._numbers: dict[str, int] = {}                  # token -> number
        self._same: dict[str, int] = {}                     # token string -> the text that has it
        self._texts: list[str] = []                         # token strings of the accepted texts
        self._classes: dict[int, _Class] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def admit(self, text: str) -> Twin | None:
        """Accept `text` (None) or name the accepted text that it is too near to, and leave it out."""
        return self._admit(self._encode(self._tokens(text)))

    def admit_all(self, texts: Iterable[str]) -> list[Twin | None]:
        """`admit` of each text in order, faster: the commonest tokens get bits of their own."""
        tokenised = [self._tokens(text) for text in texts]
        counts = Counter(token for tokens in tokenised for token in tokens)
        for token in sorted(counts, key=lambda token: (-counts[token], token)):
            self._numbers.setdefault(token, len(self._numbers))
        return [self._admit(self._encode(tokens)) for tokens in tokenised]

    def _admit(self, encoded: str) -> Twin | None:
        twin = self._nearest(encoded)
        if twin is None:
            self._add(encoded)
        return twin

    def _encode(self, tokens: list[str]) -> str:
        """One code point a token: rapidfuzz compares strings exactly and fast."""
        numbers = self._numbers
        encoded = "".join([_code_point(numbers.setdefault(token, len(numbers))) for token in tokens])
        if len(numbers) > _CODE_POINTS - len(_SURROGATES):
            raise DataError(f"novelty numbers at most {_CODE_POINTS - len(_SURROGATES):,} different words; compare fewer texts")
        return encoded

    def _add(self, encoded: str) -> None:
        number = len(self._texts)
        self._texts.append(encoded)
        if not encoded:
            return                                          # no token is like nothing: rouge_score gives 0
        self._same.setdefault(encoded, number)
        found = self._classes.setdefault(_length_class(len(encoded)), _Class())
        found.add(number, len(encoded), _signature(encoded))

    def _nearest(self, encoded: str) -> Twin | None:
        if encoded in self._same:
            return Twin(self._same[encoded], 1.0)
        length, best = len(encoded), None
        if not length:
            return None
        signature = _signature(encoded)
        reach = (2 - self._threshold) / self._threshold
        shortest, longest = math.ceil(length / reach - _SLACK), math.floor(length * reach + _SLACK)
        for key in range(_length_class(shortest), _length_class(longest) + 1):
            near = self._classes.get(key)
            for number in near.candidates(length, signature, self._threshold) if near else ():
                best = self._better(best, encoded, number)
        return best

    def _better(self, best: Twin | None, encoded: str, number: int) -> Twin | None:
        """`best`, or the text `number` if it is above the threshold and nearer (of equals the first)."""
        old = self._texts[number]
        least = math.ceil(self._threshold * (len(encoded) + len(old)) / 2 - _SLACK)
        score = rouge_l(LCSseq.similarity(encoded, old, score_cutoff=least), len(encoded), len(old))
        if score <= self._threshold or (best and (score, -number) <= (best.score, -best.number)):
            return best
        return Twin(number, score)


class _Class:
    """Signatures of the texts of one length class, as growing columns."""

    def __init__(self) -> None:
        self.size, self.shortest = 0, 1 << 30
        self.signatures = np.zeros((2, 64), np.uint64)      # the low and the high 64 bits
        self.columns = np.zeros((3, 64), np.int32)          # number, length, popcount of the signature

    def add(self, number: int, length: int, signature: tuple[np.uint64, np.uint64]) -> None:
        if self.size == self.signatures.shape[1]:
            self.signatures = np.concatenate([self.signatures, np.zeros_like(self.signatures)], axis=1)
            self.columns = np.concatenate([self.columns, np.zeros_like(self.columns)], axis=1)
        self.signatures[:, self.size] = signature
        self.columns[:, self.size] = number, length, int(signature[0]).bit_count() + int(signature[1]).bit_count()
        self.shortest = min(self.shortest, length)
        self.size += 1

    def candidates(self, length: int, signature: tuple[np.uint64, np.uint64], threshold: float) -> list[int]:
        """Numbers of the texts whose bound lets 2·LCS/(m + n) be above the threshold."""
        bits = int(signature[0]).bit_count() + int(signature[1]).bit_count()
        least = bits - length + threshold * (length + self.shortest) / 2 - _SLACK    # common bits that any text of the class needs
        common = np.bitwise_count(self.signatures[0, :self.size] & signature[0])
        common += np.bitwise_count(self.signatures[1, :self.size] & signature[1])
        places = (common >= max(math.ceil(least), 0)).nonzero()[0]
        if not len(places):
            return []
        numbers, lengths, own = self.columns[:, places]
        shared = common[places].astype(np.int32)
        most = np.minimum(length - bits + shared, lengths - own + shared)
        return numbers[2 * most > threshold * (length + lengths) - _SLACK].tolist()


def _code_point(number: int) -> str:
    if number >= _SURROGATES.start:
        number += len(_SURROGATES)
    return chr(number) if number < _CODE_POINTS else "\0"   # _encode raises right after


def _length_class(length: int) -> int:
    return math.floor(math.log(length) / _CLASS_RATIO)


def _signature(encoded: str) -> tuple[np.uint64, np.uint64]:
    """The low and the high 64 bits."""
    bits = 0
    for char in set(encoded):
        bits |= 1 << (ord(char) % _BITS)
    return np.uint64(bits & 0xFFFFFFFFFFFFFFFF), np.uint64(bits >> 64)
