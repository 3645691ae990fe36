"""A byte-level BPE tokenizer.json (GPT-2, SmolLM2, Qwen, Llama-3, BLOOM) + pieces -> the extended tokenizer.json.

Pure: a parsed definition in, a new one out; reads and writes no file, and does not check its result (see gates).
Only merges whose product holds Han bytes, or is one of the marks, are added or moved, so other text stays as it was.

    merges   atom chains | base merges | marks | repairs | words | demoted base merges | repairs
             (b1,b2) (b1b2,b3)           (ï¼,Į)            (高,血压)   (Ġ,中)
    ids      base and added tokens, unchanged | helpers and atoms | marks | words
"""

from __future__ import annotations

from typing import Any

from zhtune.errors import ConfigError
from zhtune.tokenizers.load import ids_of
from zhtune.vocabulary.extension import Bpe, Extension, NewToken, append_words, one_token_share
from zhtune.vocabulary.pieces import WORDS, Piece
from zhtune.vocabulary.symbols import is_private, is_text, mixes_han, to_bytes, to_symbols

STRONG = 0.995                                              # of Han occurrences are one token: a base that knows Chinese
_ROUNDS = 6                                                 # of repair: a repaired token may be the part of another


def extend_bytelevel(definition: dict[str, Any], pieces: list[Piece], demote: bool | None = None,
                     size: int = 0) -> tuple[dict[str, Any], Extension]:
    """The tokenizer with the pieces it lacks.

    Args:
        definition: a parsed tokenizer.json; it is not changed.
        pieces: atoms, marks and words, a word after its parts.
        demote: put base merges of Han with its left or right neighbour behind the words; None decides by the base:
            yes where less than 99.5 % of Han occurrences are one token.
        size: new tokens at most, 0 for all.

    Raises:
        ConfigError: it is no byte-level BPE tokenizer, or the vocabulary's characters alone are more than `size`.
    """
    check_bytelevel(definition)
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in definition["model"]["merges"]]
    base = Bpe(merges)
    share = one_token_share(pieces, lambda text: base.reaches(to_symbols(text)))
    builder = _Builder(definition, base, share, share < STRONG if demote is None else demote)
    builder.put_atoms_in_front(pieces, merges)
    builder.append_marks(pieces)
    builder.repair(builder.touched_tokens())
    append_words(pieces, to_symbols, builder.bpe, builder.extension, builder.register, size)
    builder.append_demoted()
    return builder.definition(), builder.extension


def check_bytelevel(definition: dict[str, Any]) -> None:
    """Assert that a tokenizer.json is byte-level BPE; raises ConfigError that says what it is instead."""
    model, types = definition.get("model", {}), _part_types(definition.get("pre_tokenizer")) | _part_types(definition.get("decoder"))
    if model.get("type") != "BPE" or "ByteLevel" not in types:
        raise ConfigError(f"the base's tokenizer is {model.get('type')!r} without byte level; extend reads byte-level BPE "
                          "(GPT-2, SmolLM2, Qwen, Llama-3, BLOOM), SentencePiece BPE and tiktoken ranks")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ConfigError("the base's tokenizer marks subwords with a prefix or suffix; extend reads byte-level BPE without them")


def _part_types(part: dict[str, Any] | None) -> set[str]:
    """Types of a pre-tokenizer or decoder and its parts."""
    return {part["type"]}.union(*map(_part_types, [*part.get("pretokenizers", []), *part.get("decoders", [])])) if part else set()


class _Builder:
    """The merges and tokens of the new tokenizer while it is made, in the order of the module's picture."""

    def __init__(self, definition: dict[str, Any], base: Bpe, share: float, demote: bool):
        self._old, self._base = definition, base
        # Added tokens must stand in model.vocab too, or all their ids shift when the file is loaded.
        self._vocabulary = ids_of(definition)
        self.extension = Extension("bytelevel", max(self._vocabulary.values()) + 1, share, demote)
        self._front: dict[tuple[str, str], None] = {}
        self._demoted: list[tuple[str, str]] = []
        self.bpe = Bpe([])

    def register(self, token: str, kind: str) -> None:
        """Give a token the next id, if it has none."""
        if token not in self._vocabulary:
            self._vocabulary[token] = self.extension.base_size + len(self.extension.tokens)
            text = (to_bytes(token) or b"").decode("utf-8", "replace")
            self.extension.tokens.append(NewToken(self._vocabulary[token], token, kind, text))

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
                    self.register(token[:i + 1], "atom" if i + 1 == len(token) else "helper")
        kept = []
        for pair in merges:
            if pair in self._front:
                continue
            (self._demoted if self.extension.demote and mixes_han("".join(pair)) else kept).append(pair)
        self.extension.demoted = len(self._demoted)
        self.bpe = Bpe([*self._front, *kept])

    def append_marks(self, pieces: list[Piece]) -> None:
        """Marks, and 々 and 〇, whose first two bytes are also those of other characters: behind the base merges."""
        for piece in pieces:
            token = to_symbols(piece.text)
            if piece.kind in WORDS or (piece.kind == "atom" and is_private(piece.text.encode("utf-8"))):
                continue
            if self.bpe.reaches(token):
                self.extension.skipped["known"] += 1
                continue
            while self._can_spell(token) and len(parts := self.bpe.segment(token)) > 1:
                self.bpe.append((parts[0], parts[1]))
                product = parts[0] + parts[1]
                self.register(product, piece.kind if product == token else "helper")
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
            tokens = [t for t in tokens if not self.bpe.reaches(t)]
            for token in tokens:
                parts = self.bpe.segment(token)
                if len(parts) == 2:
                    self.bpe.append((parts[0], parts[1]))
                    self.extension.repaired += 1
            if not tokens:
                return
        self.extension.lost += [to_bytes(t).decode("utf-8") for t in tokens if not self.bpe.reaches(t)]

    def append_demoted(self) -> None:
        """Base merges of Han with its neighbours come last: before the words, they keep the words from forming."""
        for pair in self._demoted:
            self.bpe.append(pair)
        self.repair(["".join(pair) for pair in self._demoted])

    def definition(self) -> dict[str, Any]:
        """The new tokenizer.json, with merges in the form they had."""
        model = self._old["model"]
        as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
        merges = [" ".join(pair) if as_text else list(pair) for pair in sorted(self.bpe.ranks, key=self.bpe.ranks.get)]
        vocabulary = dict(sorted(self._vocabulary.items(), key=lambda item: item[1]))
        return {**self._old, "model": {**model, "vocab": vocabulary, "merges": merges}}
