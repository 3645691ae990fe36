"""A SentencePiece BPE tokenizer (LLaMA, Baichuan, Yi, ChatGLM2/3) + pieces -> the extended tokenizer.

Every new piece has a score below all old ones and below the piece before it, so old merges run first and text without
new pieces stays as it was; the usual merge of Chinese-LLaMA gives all new pieces score 0, and 7,769 of 25,398 lines
without Chinese change. Where the base has a tokenizer.model, that is the truth and tokenizer.json is made from it; where
it has only a tokenizer.json of this kind, merges are appended there. Does not check its result (see gates).

    ids      base pieces and added tokens, unchanged | atoms | marks | words and terms
    scores   base scores                             | lowest base score - 1, - 2, - 3 …
"""

from __future__ import annotations

import struct
from typing import Any

from zhtune.errors import ConfigError
from zhtune.tokenizers.load import BaseTokenizer, ids_of
from zhtune.tokenizers.spm import CONTROL, NORMAL, SentencePieceModel, SpPiece, append_pieces
from zhtune.tokenizers.spm_definition import spm_definition
from zhtune.vocabulary.extension import Bpe, Extension, NewToken, append_words, merge_parts, one_token_share
from zhtune.vocabulary.pieces import WORDS, Piece

_NEVER = -1e8                                               # scores so low are LLaMA's runs of spaces, never merged early


class ScoredBpe:
    """Merges by the score of the product, as SentencePiece has them: any two neighbours whose join is a piece."""

    def __init__(self, model: SentencePieceModel):
        ranked = sorted((p.text for p in model.pieces if p.type == NORMAL), key={p.text: -p.score for p in model.pieces}.get)
        self.ranks = {text: rank for rank, text in enumerate(ranked)}

    def append(self, pair: tuple[str, str]) -> None:
        self.know(pair[0] + pair[1])

    def know(self, text: str) -> None:
        """Make a text a piece, behind all others."""
        self.ranks.setdefault(text, len(self.ranks))

    def segment(self, text: str) -> list[str]:
        """The pieces of a text without spaces; characters that are no piece stay characters."""
        return merge_parts(list(text), lambda left, right: self.ranks.get(left + right))

    def reaches(self, text: str) -> bool:
        """Whether the text becomes one piece."""
        parts = self.segment(text)
        return len(parts) == 1 and (len(text) > 1 or text in self.ranks)


def extend_spbpe(base: BaseTokenizer, pieces: list[Piece], size: int = 0) -> tuple[BaseTokenizer, Extension]:
    """The tokenizer with the pieces it lacks.

    Args:
        pieces: atoms, marks and words, a word after its parts.
        size: new tokens at most, 0 for all.

    Raises:
        ConfigError: the tokenizer is none of this family, or the vocabulary's characters alone are more than `size`.
    """
    vocabulary = ids_of(base.definition)
    first = max(vocabulary.values()) + 1
    bpe = ScoredBpe(base.model) if base.model else _JsonBpe(base.definition)
    extension = Extension("sentencepiece", first, one_token_share(pieces, vocabulary.__contains__))

    def register(token: str, kind: str) -> None:
        extension.tokens.append(NewToken(first + len(extension.tokens), token, kind, token))
    for piece in pieces:
        if piece.kind in WORDS:
            continue
        if piece.text in vocabulary:
            extension.skipped["known"] += 1
        else:
            bpe.know(piece.text)
            register(piece.text, piece.kind)
    append_words(pieces, str, bpe, extension, register, size)
    return (_extend_model(base, extension) if base.model else _extend_json(base, bpe, extension)), extension


def _extend_model(base: BaseTokenizer, extension: Extension) -> BaseTokenizer:
    """New pieces behind the old ones; ids of added tokens that the model does not know become pieces that text never is."""
    named = {token["id"]: token["content"] for token in base.definition["added_tokens"]}
    fillers = [SpPiece(named.get(i, f"[PAD{i}]"), 0.0, CONTROL) for i in range(len(base.model.pieces), extension.base_size)]
    pieces, score = list(fillers), next_score(base.model)
    for token in extension.tokens:
        pieces.append(SpPiece(token.token, score))
        score = _float32(score - 1)
    model = append_pieces(base.model, pieces)
    made = spm_definition(model)
    for piece in fillers:
        if piece.text not in named.values():
            del made["model"]["vocab"][piece.text]          # a gap of the base stays one
    return BaseTokenizer(base.family, {**made, **{key: base.definition[key] for key in ("added_tokens", "post_processor")}}, model)


def next_score(model: SentencePieceModel) -> float:
    """The score of the first new piece: one below the lowest of the base, runs of spaces not counted.

    Raises:
        ConfigError: scores so low that steps of one are lost in 32 bits.
    """
    lowest = min((p.score for p in model.pieces if p.type == NORMAL and p.score > _NEVER), default=0.0)
    score = _float32(min(lowest, 0.0) - 1)
    if _float32(score - 1) >= score:
        raise ConfigError(f"the base's lowest SentencePiece score is {lowest}: in 32 bits there is no room for distinct scores below it")
    return score


def _float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


class _JsonBpe(Bpe):
    """Merges of a tokenizer.json; a single character is known when the vocabulary has it."""

    def __init__(self, definition: dict[str, Any]):
        super().__init__(tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in definition["model"]["merges"])
        self._characters = {token for token in definition["model"]["vocab"] if len(token) == 1}

    def know(self, character: str) -> None:
        """Make a character a token."""
        self._characters.add(character)

    def reaches(self, token: str) -> bool:
        """Whether the text becomes one token."""
        return token in self._characters if len(token) == 1 else super().reaches(token)


def _extend_json(base: BaseTokenizer, bpe: _JsonBpe, extension: Extension) -> BaseTokenizer:
    model = base.definition["model"]
    as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
    merges = [" ".join(pair) if as_text else list(pair) for pair in sorted(bpe.ranks, key=bpe.ranks.get)]
    vocabulary = ids_of(base.definition) | {token.token: token.id for token in extension.tokens}
    return BaseTokenizer(base.family, {**base.definition, "model": {**model, "vocab": vocabulary, "merges": merges}})
