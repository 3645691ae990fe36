"""tokenizer.json -> the vocabulary of a GGUF file, so that llama.cpp gives every text the ids that training saw.

Reads byte-level BPE (llama.cpp's "gpt2") and SentencePiece-like BPE with byte fallback (its "llama"). llama.cpp knows
pre-tokenizers by name only; what has no name there is refused, never approximated. Proves nothing: the stage compares ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError
from zhtune.log import logger
from zhtune.templates.encode import ChatEncoder
from zhtune.tokenizers.ranks import LETTERS, REST

# (The Split pattern before ByteLevel, ignore_merges) -> tokenizer.ggml.pre. Source: llama.cpp's llama-vocab.cpp. Not its "glm4": that
# ignores merges here and did not in older llama.cpp.
_PATTERNS = {
    (rf"{LETTERS}|\p{{N}}{{1,3}}|{REST}", True): "llama-bpe",
    (rf"{LETTERS}|\p{{N}}{{1,3}}|{REST}", False): "chatglm-bpe",
    (rf"{LETTERS}|\p{{N}}|{REST}", False): "qwen2",
    (r" ?[^(\s|[.,!?…。，、।۔،])]+", False): "bloom",
}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6    # gguf.TokenType


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp must know of a tokenizer; lists are by token id."""

    model: str
    """ "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE) """
    pre: str
    """llama.cpp's name of the pre-tokenizer"""
    tokens: list[str]
    types: list[int]
    merges: list[str]
    """Of a byte-level BPE, first to last"""
    scores: list[float]
    """Of a SentencePiece BPE: the piece with the higher score is merged first"""
    unknown: int | None
    space_prefix: bool
    """Whether text gets a space in front"""


def read_vocabulary(folder: Path, rows: int | None = None) -> Vocabulary:
    """The vocabulary of a folder's tokenizer.json, padded with unused tokens.

    Args:
        folder: holds tokenizer.json.
        rows: of the embedding; None for as many as there are ids.

    Raises:
        ConfigError: a tokenizer that llama.cpp cannot express, or one with more ids than rows.
    """
    definition = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    model = definition["model"]
    if model.get("type") != "BPE":
        raise ConfigError(f"{folder}/tokenizer.json is a {model.get('type')} tokenizer; GGUF files are written of BPE so far")
    by_id = {i: token for token, i in model["vocab"].items()} | {t["id"]: t["content"] for t in definition["added_tokens"]}
    rows = max(by_id) + 1 if rows is None else rows
    if max(by_id) >= rows:
        raise ConfigError(f"the tokenizer has ids up to {max(by_id)}, the embedding has {rows} rows; tokenizer and weights do not "
                          "belong together")
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(rows)]
    spaced = model.get("byte_fallback", False)
    types = [_UNUSED if i not in by_id else _BYTE if spaced and _is_byte(token) else _NORMAL for i, token in enumerate(tokens)]
    unknown = model["vocab"].get(model.get("unk_token"))
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    for added in definition["added_tokens"]:
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    if spaced and unknown is not None:
        types[unknown] = _UNKNOWN
    common = {"tokens": tokens, "types": types, "unknown": unknown}
    if spaced:
        return Vocabulary(model="llama", pre="default", merges=[], scores=_scores(tokens, merges),
                          space_prefix=_space_prefix(definition), **common)
    return Vocabulary(model="gpt2", pre=_pre_tokenizer(definition), merges=[" ".join(pair) for pair in merges], scores=[],
                      space_prefix=False, **common)


def add_tokens(writer: Any, vocabulary: Vocabulary) -> None:
    """Write what turns text into ids into a GGUFWriter."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "gpt2":
        writer.add_token_merges(vocabulary.merges or [""])  # the writer takes no empty list
    else:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    if vocabulary.unknown is not None:
        writer.add_unk_token_id(vocabulary.unknown)


def add_special(writer: Any, vocabulary: Vocabulary, folder: Path, encoder: ChatEncoder) -> None:
    """Write the special ids and the chat template into a GGUFWriter."""
    named, before = _token_id(folder, "eos_token", vocabulary.tokens), _beginning(folder)
    eos = encoder.end_id if named is None else named        # the tokenizer's end of text; the end of turn where it has none
    more = [i for i in encoder.stop_ids if i not in (eos, encoder.end_id)]
    bos = before if before is not None else _token_id(folder, "bos_token", vocabulary.tokens)
    writer.add_bos_token_id(eos if bos is None else bos)    # without one llama.cpp assumes id 11
    writer.add_add_bos_token(before is not None)
    writer.add_add_eos_token(False)
    writer.add_eos_token_id(eos)
    writer.add_eot_token_id(encoder.end_id)
    if more:
        writer.add_eom_token_id(more[0])
    if len(more) > 1:
        logger.warning("quantize: llama.cpp stops at three tokens; not at: %s", ", ".join(vocabulary.tokens[i] for i in more[1:]))
    writer.add_chat_template(encoder.template_text)


def _token_id(folder: Path, name: str, tokens: list[str]) -> int | None:
    """The id of what tokenizer_config.json calls eos_token or bos_token; None where it names none of the tokens."""
    file = folder / "tokenizer_config.json"
    value = json.loads(file.read_text("utf-8")).get(name) if file.exists() else None
    token = value["content"] if isinstance(value, dict) else value
    return tokens.index(token) if token in tokens else None


def _beginning(folder: Path) -> int | None:
    """The id that tokenizer.json puts before every text, if it puts one."""
    from tokenizers import Tokenizer
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("").ids
    if len(ids) > 1:
        raise ConfigError(f"tokenizer.json puts {len(ids)} tokens around every text; llama.cpp can put one before it")
    return ids[0] if ids else None


def _pre_tokenizer(definition: dict[str, Any]) -> str:
    """llama.cpp's name of a byte-level pre-tokenizer; it says whether a pre-token that is a token skips the merges."""
    ignore_merges = definition["model"].get("ignore_merges", False)
    normalizer, outer = definition.get("normalizer"), definition.get("pre_tokenizer") or {}
    steps = outer.get("pretokenizers", [outer])
    last = steps[-1]
    if normalizer in (None, {"type": "NFC"}) and last.get("type") == "ByteLevel" and not last["add_prefix_space"]:
        before = steps[:-1]
        if not before and last["use_regex"] and not ignore_merges:
            return "gpt-2"
        if before == [{"type": "Digits", "individual_digits": True}] and last["use_regex"] and not ignore_merges:
            return "smollm"
        if len(before) == 1 and before[0].get("type") == "Split" and before[0]["behavior"] == "Isolated" and not last["use_regex"]:
            name = _PATTERNS.get((before[0]["pattern"].get("Regex", ""), ignore_merges))
            if name and not before[0]["invert"]:
                return name
    raise ConfigError(f"llama.cpp has no name for the pre-tokenizer of tokenizer.json (normalizer {json.dumps(normalizer)}, "
                      f"ignore_merges {ignore_merges}, {json.dumps(outer)[:200]}); known are those of GPT-2, SmolLM2, Llama-3, Qwen, "
                      "GLM-4 and BLOOM")


# SentencePiece-like tokenizers.

def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _space_prefix(definition: dict[str, Any]) -> bool:
    """Whether text gets a leading ▁; the space itself must become ▁."""
    normalizer, pre = definition.get("normalizer") or {}, definition.get("pre_tokenizer")
    steps = normalizer.get("normalizers", [normalizer])
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if pre is None and steps == [{"type": "Prepend", "prepend": "▁"}, replace]:
        return True
    if pre is None and steps == [replace]:
        return False
    if not normalizer and pre and pre.get("type") == "Metaspace" and not pre["split"] and pre["prepend_scheme"] in ("always", "never"):
        return pre["prepend_scheme"] == "always"
    raise ConfigError("llama.cpp cannot express this SentencePiece tokenizer.json; its normalizer must be Prepend ▁ (or nothing) and "
                      f"Replace space by ▁, without a pre-tokenizer; found {json.dumps(normalizer)[:150]} and {json.dumps(pre)}")


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """Scores under which llama.cpp merges in tokenizer.json's order: minus the rank of the first merge that makes the piece.

    Not those of tokenizer.model: where pieces share a score it merges left to right, and tokenizer.json by rank.
    """
    first: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        first.setdefault("".join(pair), rank)
    return [-float(first.get(token, len(merges))) for token in tokens]


def probe_lines() -> list[str]:
    """About 200 lines on which two tokenizers would differ if they differed: 14 kinds of text, alone and in all pairs.

    Composed (NFC) only: llama.cpp has no normalizer, and zhtune's own text is NFC.
    """
    kinds = ["今天应该挂什么科？", "Hello, world's END", "3.14159 和 2026年12月31日 1,234,567", "def f(x):\n    return x[1:]\n", "🩺👨‍👩‍👧🌿",
             "龘𠮷〇", "   ", "\t\n\n ", "café naïve Ünïcode", "１２３ＡＢＣ", "https://a.b/c?d=1&e=%20", "（中文）【标点】《书》……——",
             "don't I'LL we've", "\u3000\u3000高血压\u3000患者"]
    return [*kinds, *(a + b for a in kinds for b in kinds)]
