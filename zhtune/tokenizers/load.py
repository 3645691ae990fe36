"""A tokenizer's files, of whatever kind -> one form: a parsed tokenizer.json, and the SentencePiece model where there is one.

In a folder tokenizer.model counts first (SentencePiece, or tiktoken ranks as GLM-4 has them), then *.tiktoken, then
tokenizer.json. What a SentencePiece model says is not left to a tokenizer.json beside it, which may have been converted
inexactly; only added tokens and what encoding puts around a text are taken from there. No code of a model is run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from zhtune.errors import ConfigError
from zhtune.tokenizers.glm import chatglm6b_definition, complete_chatglm6b, is_chatglm6b
from zhtune.tokenizers.ranks import find_ranks, ranks_definition, read_ranks
from zhtune.tokenizers.spm import UNIGRAM, SentencePieceModel, is_spm, read_spm
from zhtune.tokenizers.spm_definition import spm_definition


@dataclass(frozen=True)
class BaseTokenizer:
    """A tokenizer as it was found."""

    family: str
    """ "bytelevel", "sentencepiece" (BPE), or "unigram" """
    definition: dict[str, Any]
    """Parsed tokenizer.json"""
    model: SentencePieceModel | None = None
    """Of a folder with a SentencePiece tokenizer.model"""


def read_tokenizer(path: Path) -> BaseTokenizer:
    """Read a folder, a tokenizer.json, a SentencePiece model or a file of tiktoken ranks (qwen.tiktoken).

    Raises:
        ConfigError: there is no tokenizer, or one of a kind that is not read.
        DataError: a broken file.
    """
    if not path.exists():
        raise ConfigError(f"{path} is not there; expected a folder with tokenizer.json or tokenizer.model, or such a file")
    folder = path if path.is_dir() else path.parent
    if ranks := find_ranks(path):
        return BaseTokenizer("bytelevel", ranks_definition(read_ranks(ranks[0]), ranks[1]))
    model = path / "tokenizer.model" if path.is_dir() else path
    if model.suffix == ".model" and model.exists():
        if not is_spm(model):
            raise ConfigError(f"{model} is neither a SentencePiece model nor a file of tiktoken ranks")
        return _sentencepiece(read_spm(model), folder if path.is_dir() else None)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.exists() or file.suffix != ".json":
        raise ConfigError(f"{path} holds no tokenizer: expected tokenizer.json, tokenizer.model or qwen.tiktoken")
    definition = read_object(file)
    return BaseTokenizer(_family(definition), definition)


def _sentencepiece(model: SentencePieceModel, folder: Path | None) -> BaseTokenizer:
    """The exact tokenizer.json of a model, with the added tokens of the files beside it."""
    settings = _optional(folder, "tokenizer_config.json")
    if is_chatglm6b(model):
        model = complete_chatglm6b(model)
        return BaseTokenizer("unigram", chatglm6b_definition(model), model)
    made = spm_definition(model, settings.get("add_bos_token", True))
    beside = _optional(folder, "tokenizer.json")
    if beside:
        _require_same(model, beside, folder)
        made["post_processor"] = beside.get("post_processor")
    added = {token["id"]: token for token in made["added_tokens"]} | _added(beside, settings, _optional(folder, "added_tokens.json"))
    made["added_tokens"] = [added[i] for i in sorted(added)]
    # Without them in the vocabulary their ids would be counted on from its size when the file is loaded.
    if model.algorithm != UNIGRAM:
        made["model"]["vocab"] |= {added[i]["content"]: i for i in sorted(added) if i >= len(model.pieces)}
    return BaseTokenizer(_family(made) if model.algorithm == UNIGRAM else "sentencepiece", made, model)


def _added(definition: dict[str, Any], settings: dict[str, Any], names: dict[str, int]) -> dict[int, dict[str, Any]]:
    """Added tokens by id, from tokenizer.json, tokenizer_config.json (added_tokens_decoder) and added_tokens.json."""
    form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    found = {i: {"id": i, "content": text, **form} for text, i in names.items()}
    found |= {int(i): {"id": int(i), **form, **token} for i, token in settings.get("added_tokens_decoder", {}).items()}
    return found | {token["id"]: token for token in definition.get("added_tokens", [])}


def _require_same(model: SentencePieceModel, beside: dict[str, Any], folder: Path) -> None:
    """Raise ConfigError where tokenizer.json gives other ids to pieces than tokenizer.model."""
    vocabulary = beside.get("model", {}).get("vocab", {})
    ids = vocabulary if isinstance(vocabulary, dict) else {text: i for i, (text, _) in enumerate(vocabulary)}
    other = [piece.text for i, piece in enumerate(model.pieces) if ids.get(piece.text) != i]
    if other:
        raise ConfigError(f"{folder}: tokenizer.json and tokenizer.model are of two tokenizers: they give other ids to {len(other)} pieces, "
                          f"such as {other[0]!r}; take away the one that is not the model's")


def _family(definition: dict[str, Any]) -> str:
    model = definition.get("model", {})
    if model.get("type") == "Unigram":
        return "unigram"
    return "sentencepiece" if model.get("type") == "BPE" and model.get("byte_fallback") else "bytelevel"


def _optional(folder: Path | None, name: str) -> dict[str, Any]:
    return read_object(folder / name) if folder is not None and (folder / name).exists() else {}


def ids_of(definition: dict[str, Any]) -> dict[str, int]:
    """Every token's id by a parsed tokenizer.json, those of added tokens too."""
    return {**definition["model"]["vocab"], **{token["content"]: token["id"] for token in definition.get("added_tokens", [])}}


def fingerprint(definition: dict[str, Any]) -> str:
    """sha256 of which id every token has, whatever else tokenizer.json says."""
    added = {token["content"]: token["id"] for token in definition.get("added_tokens", [])}
    return hashlib.sha256(orjson.dumps([definition["model"]["vocab"], added], option=orjson.OPT_SORT_KEYS)).hexdigest()


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        value = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{file} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{file} must hold a JSON object, found {type(value).__name__}")
    return value
