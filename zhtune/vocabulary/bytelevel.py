"""A byte-level BPE tokenizer.json (GPT-2, SmolLM2, Qwen, Llama-3, BLOOM) + pieces -> the extended tokenizer.json.

Pure: a parsed definition in, a new one out; reads and writes no file, and does not check its result (see gates).
Only merges whose product holds Han bytes, or is one of the marks, are added or moved, so other text stays as it was.

    merges   atom chains | base merges | marks | repairs | words | demoted base merges | repairs
             (b1,b2) (b1b2,b3)           (ï¼,Į)            (高,血压)   (Ġ,中)
    ids      base and added tokens, unchanged | helpers and atoms | marks | words
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from zhtune.errors import ConfigError
from zhtune.vocabulary.pieces import Piece
from zhtune.vocabulary.symbols import is_private, is_text, mixes_han, to_bytes, to_symbols

STRONG = 0.99                                               # of Han occurrences are one token: a base that knows Chinese
_ROUNDS = 6                                                 # of repair: a repaired token may be the part of another


@dataclass(frozen=True)
class NewToken:
    """One token that the base did not have."""

    id: int
    token: str
    """In byte-level characters"""
    kind: str
    """ "helper" (a part of a character), "atom", "punctuation" or "word" """

    @property
    def text(self) -> str:
        """The token as text; a helper has U+FFFD in it."""
        return (to_bytes(self.token) or b"").decode("utf-8", "replace")


@dataclass
class Extension:
    """What was done to a tokenizer."""

    base_size: int
    """First new id: the base's highest id, added tokens included, plus one"""
    one_token_share: float
    """Share of Han occurrences of the vocabulary's text that are one token of the base"""
    demote: bool
    """Whether base merges of Han with spaces, ASCII or punctuation were put behind the words"""
    tokens: list[NewToken] = field(default_factory=list)
    demoted: int = 0
    repaired: int = 0
    """Base tokens that needed one new merge to stay reachable"""
    lost: list[str] = field(default_factory=list)
    """Base tokens with Han characters that are no longer reachable"""
    skipped: Counter[str] = field(default_factory=Counter)
    """Pieces that were not added, by reason: known (one token already), no_byte_token, no_two_parts"""
    mark_helpers: list[bytes] = field(default_factory=list)
    """Beginnings of characters that marks made a token: they may shorten other characters that begin so"""

    def number(self, kind: str) -> int:
        """How many new tokens are of a kind."""
        return sum(token.kind == kind for token in self.tokens)

    def summary(self) -> dict[str, Any]:
        """As extension.json holds it."""
        return {"base_size": self.base_size, "new_ids": [self.tokens[0].id, self.tokens[-1].id] if self.tokens else [],
                "helpers": self.number("helper"), "atoms": self.number("atom"), "punctuation": self.number("punctuation"),
                "words": self.number("word"), "base_one_token_share": round(self.one_token_share, 4), "demote": self.demote,
                "demoted": self.demoted, "repaired": self.repaired, "lost": self.lost,
                "skipped": dict(sorted(self.skipped.items()))}


class Bpe:
    """Merges by rank; grows at the end only, so that what is reachable stays so."""

    def __init__(self, merges: Iterable[tuple[str, str]]):
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}   # of a pair that is there twice the last counts
        self._next = max(self.ranks.values(), default=-1) + 1

    def append(self, pair: tuple[str, str]) -> None:
        """Add a merge behind all others, unless it is there."""
        if pair not in self.ranks:
            self.ranks[pair] = self._next
            self._next += 1

    def segment(self, token: str) -> list[str]:
        """The tokens of a string of byte-level characters taken as one pre-token."""
        parts, ranks = list(token), self.ranks
        while len(parts) > 1:
            best, at = None, 0
            for i in range(len(parts) - 1):
                rank = ranks.get((parts[i], parts[i + 1]))
                if rank is not None and (best is None or rank < best):
                    best, at = rank, i
            if best is None:
                break
            parts[at:at + 2] = [parts[at] + parts[at + 1]]
        return parts

    def reaches(self, token: str) -> bool:
        """Whether the string becomes one token."""
        return len(self.segment(token)) == 1


def extend_bytelevel(definition: dict[str, Any], pieces: list[Piece],
                     demote: bool | None = None) -> tuple[dict[str, Any], Extension]:
    """The tokenizer with the pieces it lacks.

    Args:
        definition: a parsed tokenizer.json; it is not changed.
        pieces: atoms, marks and words, a word after its parts.
        demote: put base merges of Han with its left or right neighbour behind the words; None decides by the base:
            yes where less than 99 % of Han occurrences are one token.

    Raises:
        ConfigError: it is no byte-level BPE tokenizer.
    """
    check_bytelevel(definition)
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in definition["model"]["merges"]]
    base = Bpe(merges)
    share = _one_token_share(base, pieces)
    builder = _Builder(definition, base, share, share < STRONG if demote is None else demote)
    builder.put_atoms_in_front(pieces, merges)
    builder.append_marks(pieces)
    builder.repair(builder.touched_tokens())
    builder.append_words(pieces)
    builder.append_demoted()
    return builder.definition(), builder.extension


def check_bytelevel(definition: dict[str, Any]) -> None:
    """Assert that a tokenizer.json is byte-level BPE; raises ConfigError that says what it is instead."""
    model = definition.get("model", {})
    if model.get("byte_fallback") or model.get("type") == "Unigram" or "Metaspace" in _part_types(definition):
        raise ConfigError("the base has a SentencePiece tokenizer; extend reads byte-level BPE tokenizers so far "
                          "(GPT-2, SmolLM2, Qwen, Llama-3, BLOOM): choose such a base")
    if model.get("type") != "BPE" or "ByteLevel" not in _part_types(definition):
        raise ConfigError(f"the base's tokenizer is {model.get('type')!r} without byte level; extend reads byte-level BPE "
                          "tokenizers (GPT-2, SmolLM2, Qwen, Llama-3, BLOOM)")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ConfigError("the base's tokenizer marks subwords with a prefix or suffix; extend reads byte-level BPE without them")


def _part_types(definition: dict[str, Any]) -> set[str]:
    """Types of the pre-tokenizer's and decoder's parts."""
    types: set[str] = set()
    todo = [definition.get("pre_tokenizer"), definition.get("decoder")]
    while todo:
        part = todo.pop()
        if part:
            types.add(part["type"])
            todo += [*part.get("pretokenizers", []), *part.get("decoders", [])]
    return types


def _one_token_share(base: Bpe, pieces: list[Piece]) -> float:
    atoms = [p for p in pieces if p.kind == "atom"]
    total = sum(p.count for p in atoms)
    return sum(p.count for p in atoms if base.reaches(to_symbols(p.text))) / total if total else 1.0


class _Builder:
    """The merges and tokens of the new tokenizer while it is made, in the order of the module's picture."""

    def __init__(self, definition: dict[str, Any], base: Bpe, share: float, demote: bool):
        self._old, self._base = definition, base
        self._vocabulary: dict[str, int] = {**definition["model"]["vocab"]}
        # Added tokens must stand in model.vocab too, or all their ids shift when the file is loaded.
        self._vocabulary |= {token["content"]: token["id"] for token in definition.get("added_tokens", [])}
        self.extension = Extension(max(self._vocabulary.values()) + 1, share, demote)
        self._front: dict[tuple[str, str], None] = {}
        self._demoted: list[tuple[str, str]] = []
        self._bpe = Bpe([])

    def _register(self, token: str, kind: str) -> None:
        if token not in self._vocabulary:
            self._vocabulary[token] = self.extension.base_size + len(self.extension.tokens)
            self.extension.tokens.append(NewToken(self._vocabulary[token], token, kind))

    def _can_spell(self, token: str) -> bool:
        """Whether the base has a token for each byte; SmolLM2 lacks 21 of the 256."""
        if all(character in self._vocabulary for character in token):
            return True
        self.extension.skipped["no_byte_token"] += 1
        return False

    def put_atoms_in_front(self, pieces: list[Piece], merges: list[tuple[str, str]]) -> None:
        """Chains for the characters that are not one token yet. For all characters would make 120 of Qwen's tokens unreachable."""
        for piece in pieces:
            token = to_symbols(piece.text)
            if piece.kind != "atom" or not is_private(piece.text.encode("utf-8")):
                continue
            if self._base.reaches(token):
                self.extension.skipped["known"] += 1
            elif self._can_spell(token):
                for i in range(1, len(token)):
                    self._front[token[:i], token[i]] = None
                    self._register(token[:i + 1], "atom" if i + 1 == len(token) else "helper")
        kept = []
        for pair in merges:
            if pair in self._front:
                continue
            (self._demoted if self.extension.demote and mixes_han("".join(pair)) else kept).append(pair)
        self.extension.demoted = len(self._demoted)
        self._bpe = Bpe([*self._front, *kept])

    def append_marks(self, pieces: list[Piece]) -> None:
        """Marks, and 々 and 〇, whose first two bytes are also those of other characters: behind the base merges."""
        for piece in pieces:
            token = to_symbols(piece.text)
            if piece.kind == "word" or (piece.kind == "atom" and is_private(piece.text.encode("utf-8"))):
                continue
            if self._bpe.reaches(token):
                self.extension.skipped["known"] += 1
                continue
            while self._can_spell(token) and len(parts := self._bpe.segment(token)) > 1:
                self._bpe.append((parts[0], parts[1]))
                product = parts[0] + parts[1]
                self._register(product, piece.kind if product == token else "helper")
                if product != token:
                    self.extension.mark_helpers.append(to_bytes(product))

    def touched_tokens(self) -> list[str]:
        """Base tokens whose path may have changed: those that hold the beginning of a chain."""
        starts = {left + right for left, right in self._front if len(left) == 1}
        if not starts:
            return []
        return [t for t in self._old["model"]["vocab"] if any(t[i:i + 2] in starts for i in range(len(t) - 1)) and not mixes_han(t)]

    def repair(self, tokens: list[str]) -> None:
        """Give each token of whole characters that lost its path one merge of its two new parts."""
        tokens = [t for t in tokens if is_text(t) and self._base.reaches(t)]
        for _ in range(_ROUNDS):
            tokens = [t for t in tokens if not self._bpe.reaches(t)]
            for token in tokens:
                parts = self._bpe.segment(token)
                if len(parts) == 2:
                    self._bpe.append((parts[0], parts[1]))
                    self.extension.repaired += 1
            if not tokens:
                return
        self.extension.lost += [to_bytes(t).decode("utf-8") for t in tokens if not self._bpe.reaches(t)]

    def append_words(self, pieces: list[Piece]) -> None:
        """One merge for each word, of the two tokens it is at that point. In a base that knows Chinese these may be
        others than those it was trained with, and a word of three gets a second chance when there are more words."""
        waiting = [to_symbols(p.text) for p in pieces if p.kind == "word"]
        while waiting:
            later = []
            for token in waiting:
                parts = self._bpe.segment(token)
                if len(parts) == 2:
                    self._bpe.append((parts[0], parts[1]))
                    self._register(token, "word")
                elif len(parts) > 2:
                    later.append(token)
                else:
                    self.extension.skipped["known"] += 1
            if len(later) == len(waiting):
                self.extension.skipped["no_two_parts"] += len(later)
                return
            waiting = later

    def append_demoted(self) -> None:
        """Base merges of Han with its neighbours come last: before the words, they keep the words from forming."""
        for pair in self._demoted:
            self._bpe.append(pair)
        self.repair(["".join(pair) for pair in self._demoted])

    def definition(self) -> dict[str, Any]:
        """The new tokenizer.json, with merges in the form they had."""
        model = self._old["model"]
        as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
        merges = [" ".join(pair) if as_text else list(pair) for pair in sorted(self._bpe.ranks, key=self._bpe.ranks.get)]
        vocabulary = dict(sorted(self._vocabulary.items(), key=lambda item: item[1]))
        return {**self._old, "model": {**model, "vocab": vocabulary, "merges": merges}}
