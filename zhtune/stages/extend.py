"""Base + vocabulary -> the base with a Chinese vocabulary: tokenizer, weights and proof that nothing else changed."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError
from zhtune.log import logger
from zhtune.models.load import TOKENIZER_FILES, materialise
from zhtune.records import read_jsonl, write_json
from zhtune.references import MODEL_KINDS, Source
from zhtune.vocabulary import fertility, gates
from zhtune.vocabulary.bytelevel import Extension, extend_bytelevel
from zhtune.vocabulary.pieces import read_pieces, vocab_file

STAGE = Stage("extend", version=1, kind="model", inputs={"model": (*MODEL_KINDS, "tokenizer"), "vocab": ("vocab", "file")})
# What describes the old vocabulary is not copied.
_COPIED = tuple(name for name in TOKENIZER_FILES if name not in ("tokenizer.json", "tokenizer.model"))


@dataclass(frozen=True, kw_only=True)
class ExtendConfig(StageConfig):
    """Extend a byte-level BPE base (GPT-2, SmolLM2, Qwen, Llama-3, BLOOM) with a Chinese vocabulary."""

    model: str
    """Base model: a folder, embedded, embedded:8, new:llama-15m; with --tokenizer_only a folder with tokenizer.json"""
    vocab: str
    """Vocabulary: the output of zhtune vocab"""
    init: Literal["subtoken-mean", "mean"] = "subtoken-mean"
    """New embedding rows: mean of the rows the token was spelt with, or mean of all rows"""
    tokenizer_only: bool = False
    """Write a tokenizer and no weights"""


def extend(config: ExtendConfig) -> Artifact:
    """Write an extended model (or tokenizer) and extension.json, after every gate has passed.

    Raises:
        ConfigError: the base is an adapter, quantized, or not byte-level BPE, or the vocabulary adds nothing to it.
        GateFailed: the extended tokenizer would be wrong.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: ExtendConfig) -> None:
    source = work.sources["model"]
    refuse_unfit(source)
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        folder = _tokenizer_folder(source) if config.tokenizer_only and source.path else materialise(source, Path(scratch))
        definition = _definition(folder)
        new, extension = _extend_tokenizer(work, definition, vocab_file(work.sources["vocab"].path, "pieces.jsonl"))
        texts = _sample(vocab_file(work.sources["vocab"].path, "sample.jsonl"))
        for name in _COPIED:
            if (folder / name).exists():
                shutil.copyfile(folder / name, work.path / name)
        (work.path / "tokenizer.json").write_bytes(orjson.dumps(new, option=orjson.OPT_INDENT_2))
        checks = gates.run_gates(definition, new, extension, texts, work.path / "tokenizer.json")
        gates.require_passed(checks)
        if config.tokenizer_only:
            work.kind = "tokenizer"
        else:
            checks.append(_extend_weights(work, config, folder, definition, new, extension, texts))
    write_json(work.path / "extension.json", extension.summary())
    work.report["gates"] = [asdict(gate) for gate in checks]
    work.resolved |= {"base": source.reference, "base_digest": source.digest, "init": config.init, "demote": extension.demote}
    _measure(work, definition, new, extension, texts)


def refuse_unfit(source: Source) -> None:
    """Raise ConfigError, with the way out, for what has no weights of its own to extend."""
    name = source.reference
    if source.kind == "adapter":
        raise ConfigError(f"{name} is an adapter; merge it first: zhtune merge --adapter {name} --out …")
    if source.kind == "quantized" or (source.path is not None and source.path.suffix == ".gguf"):
        raise ConfigError(f"{name} is quantized; extend the model it was made from and quantize the result")
    if source.kind == "endpoint":
        raise ConfigError(f"{name} is an endpoint; extend needs the model's files")
    config = source.path / "config.json" if source.path is not None else None
    if config is not None and config.exists() and "quantization_config" in _read_object(config):
        raise ConfigError(f"{name} holds quantized weights (quantization_config in its config.json); "
                          "extend the model in 16 or 32 bits and quantize the result")


def _tokenizer_folder(source: Source) -> Path:
    if not (source.path / "tokenizer.json").exists():
        raise ConfigError(f"{source.reference} has no tokenizer.json")
    return source.path


def _definition(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer.json"
    if not file.exists() and (folder / "tokenizer.model").exists():
        raise ConfigError(f"{folder} has a SentencePiece tokenizer (tokenizer.model); extend reads byte-level BPE tokenizers "
                          "so far (GPT-2, SmolLM2, Qwen, Llama-3, BLOOM): choose such a base")
    if not file.exists():
        raise ConfigError(f"{folder} has no tokenizer.json")
    return _read_object(file)


def _read_object(file: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{file} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{file} must hold a JSON object, found {type(value).__name__}")
    return value


def _extend_tokenizer(work: Work, definition: dict[str, Any], file: Path) -> tuple[dict[str, Any], Extension]:
    pieces = read_pieces(file)
    new, extension = extend_bytelevel(definition, pieces)
    if not extension.tokens:
        raise ConfigError(f"the base has all {len(pieces)} pieces of the vocabulary as tokens: there is nothing to extend, "
                          "use it as it is")
    logger.info("extend: %d new tokens (%d atoms, %d helpers, %d words), ids from %d", len(extension.tokens),
                extension.number("atom"), extension.number("helper"), extension.number("word"), extension.base_size)
    if extension.lost:
        logger.warning("extend: %d Chinese tokens of the base are no longer reachable: %s", len(extension.lost),
                       " ".join(extension.lost[:5]))
    work.counted_in, work.kept = len(pieces), len(pieces) - extension.skipped.total()
    work.dropped.update(extension.skipped)
    return new, extension


def _extend_weights(work: Work, config: ExtendConfig, folder: Path, definition: dict[str, Any], new: dict[str, Any],
                    extension: Extension, texts: list[str]) -> gates.Gate:
    """Write the weights with the new rows; the gate is that transformers reads the tokenizer as we do."""
    from zhtune.models.extend import check_auto_tokenizer, extend_rows
    from zhtune.models.load import load_model
    model = load_model(folder, "auto")                      # a 16-bit checkpoint stays 16-bit; new rows are computed in 32
    ids = range(extension.base_size, extension.base_size + len(extension.tokens))
    work.report["rows"] = extend_rows(model, definition, new, ids, config.init)
    model.save_pretrained(work.path)
    if (folder / "generation_config.json").exists():        # save_pretrained writes its own; the base's stands
        shutil.copyfile(folder / "generation_config.json", work.path / "generation_config.json")
    lines = [*gates.drift_lines(extension)[::3], *(text[:200] for text in texts)]
    gate = check_auto_tokenizer(work.path, lines)
    gates.require_passed([gate])
    return gate


def _sample(file: Path) -> list[str]:
    return [row["text"] for _, row in read_jsonl(file) if isinstance(row.get("text"), str)]


def _measure(work: Work, definition: dict[str, Any], new: dict[str, Any], extension: Extension, texts: list[str]) -> None:
    """Tokens per character of the vocabulary's own sample, before and after."""
    before, after = (fertility.measure(gates.load(d), texts) for d in (definition, new))
    work.metrics |= {"new_tokens": len(extension.tokens), "helpers": extension.number("helper"),
                     "tokens_per_character_before": round(before.tokens_per_character, 4),
                     "tokens_per_character_after": round(after.tokens_per_character, 4),
                     "partial_share_before": round(before.partial_share, 4), "partial_share_after": round(after.partial_share, 4),
                     "lost_base_tokens": len(extension.lost)}
