"""A SentencePiece model -> the tokenizer.json that gives the same ids.

transformers' own conversion does not: of 8,695 lines of real text 375 differ on LLaMA's tokenizer (runs of spaces). The
file made here has no metaspace pre-tokenizer but the normalizer Prepend ▁, Replace space by ▁, and every pair of pieces
whose join is a piece as a merge, better scores first. Equal where no two pieces share a score that matters; the gate of
`zhtune extend` compares.
"""

from __future__ import annotations

import base64
from typing import Any

from zhtune.errors import ConfigError
from zhtune.tokenizers.spm import BPE, BYTE, CONTROL, NORMAL, UNIGRAM, UNKNOWN, UNUSED, USER_DEFINED, SentencePieceModel

SPACE = "▁"
_NEVER = -1e4                                               # a log probability that no sum of pieces' falls below
_SCORES = {USER_DEFINED: 0.0, CONTROL: _NEVER, UNKNOWN: _NEVER, BYTE: _NEVER, UNUSED: _NEVER}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def spm_definition(model: SentencePieceModel, begin: bool = True) -> dict[str, Any]:
    """A parsed tokenizer.json.

    Args:
        begin: whether encoding a text puts the model's beginning token before it.

    Raises:
        ConfigError: one that no tokenizer.json can equal.
    """
    if model.algorithm not in (BPE, UNIGRAM):
        raise ConfigError("a SentencePiece model of words or characters has no tokenizer.json; those of BPE and unigram have")
    if model.space_is_suffix:
        raise ConfigError("the SentencePiece model puts the space behind words (treat_whitespace_as_suffix); no tokenizer.json can say so")
    vocabulary = {piece.text: i for i, piece in enumerate(model.pieces)}
    if len(vocabulary) < len(model.pieces):
        raise ConfigError(f"tokenizer.model holds {len(model.pieces) - len(vocabulary)} pieces twice; no tokenizer.json can say so")
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": _added_tokens(model), "normalizer": _normalizer(model),
            "pre_tokenizer": None, "post_processor": _post_processor(model) if begin and model.bos >= 0 else None,
            "decoder": _decoder(model), "model": _unigram(model) if model.algorithm == UNIGRAM else _bpe(model, vocabulary)}


def _bpe(model: SentencePieceModel, vocabulary: dict[str, int]) -> dict[str, Any]:
    unknown = next((piece.text for piece in model.pieces if piece.type == UNKNOWN), None)
    return {"type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": model.byte_fallback, "ignore_merges": False,
            "vocab": vocabulary, "merges": spm_merges(model)}


def _unigram(model: SentencePieceModel) -> dict[str, Any]:
    """User-defined pieces win wherever they stand (their file says 0); control and byte pieces never do in a text."""
    unknown = next((i for i, piece in enumerate(model.pieces) if piece.type == UNKNOWN), None)
    return {"type": "Unigram", "unk_id": unknown, "byte_fallback": model.byte_fallback,
            "vocab": [[piece.text, _SCORES.get(piece.type, piece.score)] for piece in model.pieces]}


def spm_merges(model: SentencePieceModel) -> list[list[str]]:
    """All pairs of pieces whose join is a piece, by its score, then its id, then those of the parts."""
    parts = {piece.text: i for i, piece in enumerate(model.pieces) if piece.type == NORMAL}
    merges = []
    for text in sorted(parts, key=lambda text: (-model.pieces[parts[text]].score, parts[text])):
        splits = [(text[:cut], text[cut:]) for cut in range(1, len(text)) if text[:cut] in parts and text[cut:] in parts]
        merges += sorted(([left, right] for left, right in splits), key=lambda pair: (parts[pair[0]], parts[pair[1]]))
    return merges


def _added_tokens(model: SentencePieceModel) -> list[dict[str, Any]]:
    """Control pieces as special tokens; user-defined ones, which SentencePiece matches in text, as tokens that are not special.

    A unigram model matches the latter itself: as added tokens they would cut the text before it is normalised (ChatGLM-6B:
    1,885 of 7,236 lines differ).
    """
    kinds = {UNKNOWN: True, CONTROL: True} | ({} if model.algorithm == UNIGRAM else {USER_DEFINED: False})
    return [{"id": i, "content": piece.text if kinds[piece.type] else piece.text.replace(SPACE, " "), "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": kinds[piece.type]}
            for i, piece in enumerate(model.pieces) if piece.type in kinds]


def _normalizer(model: SentencePieceModel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if model.charsmap:
        steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(model.charsmap).decode("ascii")})
    if model.squeeze_spaces:
        steps += [{"type": "Strip", "strip_left": True, "strip_right": True},
                  {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]
    if model.space_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    return {"type": "Sequence", "normalizers": [*steps, _REPLACE]}


def _decoder(model: SentencePieceModel) -> dict[str, Any]:
    steps = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if model.space_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _post_processor(model: SentencePieceModel) -> dict[str, Any]:
    token = model.pieces[model.bos].text
    begin, first = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {"type": "TemplateProcessing", "single": [begin, first],
            "pair": [begin, first, {"SpecialToken": {"id": token, "type_id": 1}}, second],
            "special_tokens": {token: {"id": token, "ids": [model.bos], "tokens": [token]}}}


