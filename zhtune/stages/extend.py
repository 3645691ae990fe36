"""Base + vocabulary -> the base with a Chinese vocabulary and proof that nothing else changed; or (--rope) with a longer context."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from unicodedata import is_normalized

import orjson

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.corpus.read import read_texts
from zhtune.errors import ConfigError
from zhtune.log import logger
from zhtune.models.context import context_of, scaled
from zhtune.models.load import TOKENIZER_FILES, copy_tokenizer, is_adapter, materialise
from zhtune.records import read_jsonl, write_json
from zhtune.references import MODEL_KINDS, Source
from zhtune.templates.encode import ChatEncoder
from zhtune.tokenizers.load import BaseTokenizer, read_object, read_tokenizer
from zhtune.tokenizers.spm import is_spm, read_spm
from zhtune.vocabulary import compare, gates
from zhtune.vocabulary.extend import extend_tokenizer
from zhtune.vocabulary.extension import Extension
from zhtune.vocabulary.fertility_page import write_page
from zhtune.vocabulary.pieces import read_pieces, vocab_file
from zhtune.vocabulary.reproduce import chinese_llama

STAGE = Stage("extend", version=4, kind="model", others=("tokenizer",),
              inputs={"model": (*MODEL_KINDS, "tokenizer"), "vocab": ("vocab", "file"), "corpus": ("corpus", "file")})
# What describes the old vocabulary is not copied.
_COPIED = tuple(name for name in TOKENIZER_FILES if name not in ("tokenizer.json", "tokenizer.model", "extension.json"))
# What a published vocabulary without a sample is measured on.
_PROBE = {"text": ["患者，男，65岁，因“反复胸闷、气促3年，加重1周”入院。\n既往有高血压病史10年，最高180/110mmHg；服用氨氯地平。",
                   "中华人民共和国民法典规定：当事人应当遵循诚信原则，秉持诚实，恪守承诺。"]}
_LONG_LINE = 10_000
_WORD_CHARACTERS = 20_000                                    # of each domain, cut by jieba
# Settings of tokenizer classes that would build another tokenizer from the files than tokenizer.json says.
_CLASS_SETTINGS = ("auto_map", "legacy", "sp_model_kwargs", "vocab_file", "add_prefix_space", "added_tokens_decoder")


@dataclass(frozen=True, kw_only=True)
class ExtendConfig(StageConfig):
    """Extend a base (LLaMA, Qwen, Llama-3, BLOOM, GLM-4, SmolLM2 …) with a Chinese vocabulary, or its context by RoPE scaling."""

    model: str
    """Base model: a folder, embedded, embedded:8, new:llama-15m; with --tokenizer_only also a folder or file of a tokenizer alone"""
    vocab: str = ""
    """Vocabulary: the output of zhtune vocab"""
    size: int = 0
    """New tokens at most; 0 takes all that the base lacks"""
    init: Literal["subtoken-mean", "weighted-mean", "mean", "random"] = "subtoken-mean"
    """New embedding rows: mean of the rows the token was spelt with, the same weighted to its first parts, mean of all rows, or noise"""
    tokenizer_only: bool = False
    """Write a tokenizer and no weights"""
    reproduce: Literal["", "chinese-llama"] = ""
    """chinese-llama: the historical merge of two SentencePiece models (--vocab chinese_sp.model), whose faults the report shows"""
    rope: Literal["", "linear", "dynamic", "yarn"] = ""
    """In place of a vocabulary a longer context: divided positions, dynamic NTK or YaRN"""
    context: int = 0
    """The new context in tokens (--rope)"""
    corpus: str = ""
    """Corpus: bits per character by position on its held-out text, before and after (--rope)"""
    windows: int = 4
    """Windows of the new context in which they are measured"""

    def check(self) -> None:
        if bool(self.vocab) == bool(self.rope):
            raise ConfigError("extend takes one of --vocab (a vocabulary) and --rope (a longer context)")
        if bool(self.rope) != bool(self.context) or (self.corpus and not self.rope):
            raise ConfigError("--rope and --context are given together, --corpus only with them")
        if self.context < 0 or self.windows < 1:
            raise ConfigError("--context and --windows are numbers of at least 1")
        if self.size < 0:
            raise ConfigError(f"--size is a number of new tokens, 0 for all; not {self.size}")


def extend(config: ExtendConfig) -> Artifact:
    """Write an extended model (or tokenizer) and extension.json, after every gate has passed.

    Raises:
        ConfigError: the base is an adapter, quantized, or has a unigram tokenizer, or the vocabulary adds nothing to it.
        GateFailed: the extended tokenizer would be wrong.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: ExtendConfig) -> None:
    source = work.sources["model"]
    refuse_unfit(source)
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        if config.rope:
            _lengthen(work, config, materialise(source, Path(scratch)))
            return
        own = source.path if config.tokenizer_only and not is_adapter(source) else None
        folder = own or materialise(source, Path(scratch))
        base, new, extension = _extend_tokenizer(work, config, folder)
        domains = _PROBE if config.reproduce else _sample(vocab_file(work.sources["vocab"].path, "sample.jsonl"))
        texts = [text for some in domains.values() for text in some]
        write_tokenizer(folder, work.path, base, new)
        checks = gates.run_gates(base, new, extension, texts, work.path / "tokenizer.json")
        checks.append(check_llamacpp(work.path, base, new, gates.all_lines(extension, texts)))
        if config.reproduce:
            _say_faults(checks)
        else:
            gates.require_passed(checks)
        if config.tokenizer_only:
            work.kind = "tokenizer"
        else:
            checks += _extend_weights(work, config, folder, base, new, extension, texts)
    write_json(work.path / "extension.json", extension.summary())
    work.report["gates"] = [asdict(gate) for gate in checks]
    work.resolved |= {"base": source.reference, "base_digest": source.digest, "init": config.init, "demote": extension.demote,
                      "family": extension.family}
    _measure(work, base, new, extension, domains)


def write_tokenizer(folder: Path, out: Path, base: BaseTokenizer, new: BaseTokenizer) -> None:
    """Write tokenizer.json, tokenizer.model where the base has one, and the files that stay; `folder` may be the base's one file."""
    for name in _COPIED:
        if folder.is_dir() and (folder / name).exists():
            shutil.copyfile(folder / name, out / name)
    (out / "tokenizer.json").write_bytes(orjson.dumps(new.definition, option=orjson.OPT_INDENT_2))
    if new.model is not None:
        (out / "tokenizer.model").write_bytes(new.model.data)
    settings = out / "tokenizer_config.json"
    if folder.is_dir() and (folder / "tokenizer.json").exists() and base.model is None and settings.exists():
        return
    # Classes such as LlamaTokenizer build a tokenizer of their own from the files, and not the exact one.
    kept = {key: value for key, value in (read_object(settings) if settings.exists() else {}).items() if key not in _CLASS_SETTINGS}
    if new.model is not None:
        kept = {"bos_token": _piece(new, new.model.bos), "eos_token": _piece(new, new.model.eos)} | kept
    write_json(settings, {key: value for key, value in kept.items() if value is not None} | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _piece(tokenizer: BaseTokenizer, i: int) -> str | None:
    return tokenizer.model.pieces[i].text if i >= 0 else None


def refuse_unfit(source: Source) -> None:
    """Raise ConfigError, with the way out, for what has no weights of its own to extend."""
    name = source.reference
    if source.kind == "quantized" or (source.path is not None and source.path.suffix == ".gguf"):
        raise ConfigError(f"{name} is quantized; extend the model it was made from and quantize the result")
    if source.kind == "endpoint":
        raise ConfigError(f"{name} is an endpoint; extend needs the model's files")
    config = source.path / "config.json" if source.path is not None else None
    if config is not None and config.exists() and "quantization_config" in read_object(config):
        raise ConfigError(f"{name} holds quantized weights (quantization_config in its config.json); "
                          "extend the model in 16 or 32 bits and quantize the result")


def _extend_tokenizer(work: Work, config: ExtendConfig, folder: Path) -> tuple[BaseTokenizer, BaseTokenizer, Extension]:
    """(base, extended tokenizer, what was added)."""
    source = work.sources["vocab"].path
    if config.reproduce:
        base, new, extension = chinese_llama(*(read_spm(_sentencepiece_file(path)) for path in (folder, source)))
        work.counted_in = len(extension.tokens) + extension.skipped.total()
    else:
        base, pieces = read_tokenizer(folder), read_pieces(vocab_file(source, "pieces.jsonl"))
        new, extension = extend_tokenizer(base, pieces, config.size)
        work.counted_in = len(pieces)
    if not extension.tokens:
        raise ConfigError(f"the base has all {work.counted_in} pieces of the vocabulary as tokens: there is nothing to extend, "
                          "use it as it is")
    logger.info("extend: %d new tokens (%d atoms, %d helpers, %d words), ids from %d", len(extension.tokens),
                extension.number("atom"), extension.number("helper"), extension.number("word"), extension.base_size)
    if extension.lost:
        logger.warning("extend: %d Chinese tokens of the base are no longer reachable: %s", len(extension.lost),
                       " ".join(extension.lost[:5]))
    work.kept = work.counted_in - extension.skipped.total()
    work.dropped.update(extension.skipped)
    return base, new, extension


def _lengthen(work: Work, config: ExtendConfig, folder: Path) -> None:
    """Write the model with RoPE scaling in its config, and bits per character by position before and after."""
    from zhtune.models import bits
    from zhtune.models.load import load_model
    settings = read_object(folder / "config.json")
    longer = scaled(settings, config.rope, config.context)
    texts = [text for _, text in read_texts(work.sources["corpus"].path, "heldout")] if config.corpus else []
    for file in sorted(folder.glob("*.safetensors*")):
        shutil.copyfile(file, work.path / file.name)
    copy_tokenizer(folder, work.path)
    write_json(work.path / "config.json", longer)
    work.resolved |= {"base": work.sources["model"].reference, "base_digest": work.sources["model"].digest, "rope": longer["rope_parameters"]}
    work.metrics |= {"context_before": context_of(settings), "context": config.context}
    if not texts:
        logger.warning("extend: nothing was measured; give text with --corpus, and train on long text: scaling alone costs quality")
        return
    encoder = ChatEncoder(folder, chat=False)
    windows = bits.long_windows(encoder, texts, config.context, config.windows)
    before, after = (bits.bits_by_position(load_model(path, "auto"), encoder, windows) for path in (folder, work.path))
    work.report["bits_per_character_by_position"] = [
        {"from": first, "to": last, "before": b, "after": a} for (first, last, b), (_, _, a) in zip(before, after, strict=True)]
    work.metrics |= {"bits_per_character_at_the_end_before": before[-1][2], "bits_per_character_at_the_end": after[-1][2]}


def _sentencepiece_file(path: Path) -> Path:
    file = path / "tokenizer.model" if path.is_dir() else path
    if not file.exists() or not is_spm(file):
        raise ConfigError(f"{path} is no SentencePiece model; --reproduce chinese-llama merges two of them")
    return file


def _say_faults(checks: list[gates.Gate]) -> None:
    for gate in checks:
        if not gate.passed:
            numbers = ", ".join(f"{name} {number}" for name, number in gate.numbers.items())
            logger.warning("extend: the historical merge fails the gate %s (%s), for example: %s", gate.name, numbers,
                           "; ".join(gate.examples[:2]))


def _extend_weights(work: Work, config: ExtendConfig, folder: Path, base: BaseTokenizer, new: BaseTokenizer,
                    extension: Extension, texts: list[str]) -> list[gates.Gate]:
    """Write the weights with the new rows; the gates are their rows, and that transformers reads the tokenizer as we do."""
    from zhtune.models.extend import base_rows, check_auto_tokenizer, check_rows, extend_rows
    from zhtune.models.load import load_model
    model = load_model(folder, "auto")                      # a 16-bit checkpoint stays 16-bit; new rows are computed in 32
    ids = range(extension.base_size, extension.base_size + len(extension.tokens))
    before = base_rows(model, ids)
    work.report["rows"] = extend_rows(model, base.definition, new.definition, ids, config.init, config.seed)
    checks = [check_rows(model, before, base.definition, new.definition, ids, config.init)]
    gates.require_passed(checks)
    model.save_pretrained(work.path)
    if (folder / "generation_config.json").exists():        # save_pretrained writes its own; the base's stands
        shutil.copyfile(folder / "generation_config.json", work.path / "generation_config.json")
    lines = [*gates.drift_lines(extension)[::3], *(text[:200] for text in texts)]
    checks.append(check_auto_tokenizer(work.path, lines))
    gates.require_passed(checks)
    return checks


def _sample(file: Path) -> dict[str, list[str]]:
    """Texts by domain."""
    texts: dict[str, list[str]] = {}
    for _, row in read_jsonl(file):
        if isinstance(row.get("text"), str):
            texts.setdefault(str(row.get("domain", "text")), []).append(row["text"])
    return texts


def check_llamacpp(folder: Path, base: BaseTokenizer, new: BaseTokenizer, lines: list[str]) -> gates.Gate:
    """llama.cpp gives each line the ids of the written tokenizer.json, where it did so for the base.

    It does not normalise: lines that the base's own NFC changes are left out. Not compared where the libraries of
    the extra `gguf` are missing or llama.cpp has no such tokenizer.
    """
    from zhtune.export.llamacpp_tokens import llamacpp_ids
    if find_spec("xllamacpp") is None or find_spec("gguf") is None:
        return gates.Gate("llamacpp", True, {"lines": 0}, ["not compared: pip install 'zhtune[gguf]'"])
    # Its cutting of BLOOM's text by a regular expression ends the process on very long runs without a space.
    nfc = new.definition.get("normalizer") == {"type": "NFC"}
    composed = [line for line in lines if len(line) < _LONG_LINE and (not nfc or is_normalized("NFC", line))]
    try:
        wrong = gates.differing(new, composed, llamacpp_ids(folder, composed))
    except ConfigError as error:
        return gates.Gate("llamacpp", True, {"lines": 0}, [f"not compared: {error}"])
    numbers = {"lines": len(lines), "left_out": len(lines) - len(composed), "base_differs": 0}
    if wrong:
        with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
            (Path(scratch) / "tokenizer.json").write_bytes(orjson.dumps(base.definition))
            before = gates.differing(base, wrong, llamacpp_ids(Path(scratch), wrong))
        numbers["base_differs"] = len(before)
        wrong = [line for line in wrong if line not in set(before)]
    return gates.Gate("llamacpp", not wrong, numbers | {"differ": len(wrong)}, [repr(line[:200]) for line in wrong[:5]])


def _measure(work: Work, base: BaseTokenizer, new: BaseTokenizer, extension: Extension, texts: dict[str, list[str]]) -> None:
    """The fertility report on the vocabulary's own sample, before and after, and the terms one by one."""
    pair = {"base": gates.load(base.definition), "extended": gates.load(new.definition)}
    config = work.path / "config.json"
    figures = compare.compare(pair, texts, word_characters=_WORD_CHARACTERS, configs={"extended": read_object(config)} if config.exists() else {})
    write_page(work.path / "report.html", figures)
    work.report |= {"fertility": figures, "terms": [
        {"term": token.text, "tokens_before": len(pair["base"].encode(token.text, add_special_tokens=False).ids),
         "tokens_after": len(pair["extended"].encode(token.text, add_special_tokens=False).ids)}
        for token in extension.tokens if token.kind == "term"]}
    before, after = (figures["tokenizers"][name]["all"] for name in pair)
    unused = figures["extensions"][0]["never_used_share"]
    work.metrics |= {"new_tokens": len(extension.tokens), "helpers": extension.number("helper"),
                     "tokens_per_character_before": before["tokens_per_character"],
                     "tokens_per_character_after": after["tokens_per_character"],
                     "partial_share_before": before["partial_share"], "partial_share_after": after["partial_share"],
                     "never_used_share": unused, "lost_base_tokens": len(extension.lost)}
    if before["tokens"] < 1.05 * after["tokens"]:
        logger.warning("extend: the sample's text needs only %.1f %% fewer tokens; is the vocabulary of this domain, or does the base know "
                       "Chinese already?", 100 - 100 * after["tokens"] / before["tokens"])
    if after["partial_share"] > .01:
        logger.warning("extend: %.1f %% of tokens are parts of characters; a larger vocabulary or a higher --coverage of vocab has more "
                       "characters", 100 * after["partial_share"])
