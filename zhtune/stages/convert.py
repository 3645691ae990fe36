"""A checkpoint that only its own code reads -> a model folder that loads without it: ChatGLM, Baichuan, InternLM."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError
from zhtune.log import logger
from zhtune.models.families import FAMILIES
from zhtune.models.to_llama import LLAMA_LIKE, llama_config, llama_tensors
from zhtune.records import write_json
from zhtune.templates.encode import named_template
from zhtune.tokenizers.glm import chatglm6b_definition, chatglm_definition, complete_chatglm6b
from zhtune.tokenizers.load import read_object, read_tokenizer
from zhtune.tokenizers.ranks import find_ranks, ranks_definition, read_ranks
from zhtune.tokenizers.spm import read_spm

STAGE = Stage("convert", version=2, kind="model", inputs={"model": ("file",)})
_PADDING = {"chatglm": "<pad>", "chatglm2": "<unk>", "chatglm3": "<unk>", "glm-4": "<|endoftext|>"}     # by generation


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(StageConfig):
    """Convert a published ChatGLM-6B, ChatGLM2-6B, ChatGLM3-6B or GLM-4-9B (.bin or safetensors, also its int8 and int4).

    Baichuan-7B, Baichuan2-7B, InternLM and InternLM2 become LLaMA folders.
    """

    model: str
    """Folder of the published files"""
    generation: Literal["", "chatglm2", "chatglm3"] = ""
    """Which of the two it is, for a folder whose tokenizer's files do not tell"""


def convert(config: ConvertConfig) -> Artifact:
    """Write weights as safetensors, config, tokenizer.json, tokenizer.model and the chat template.

    Raises:
        ConfigError: it is no original ChatGLM checkpoint, or has a setting that no published one has.
        DataError: files that are missing, cut, or hold more than tensors; tensors that the config does not expect.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: ConvertConfig) -> None:
    from zhtune.models.chatglm.checkpoint import Checkpoint
    from zhtune.models.chatglm.originals import generation_of, native_config, native_tensors
    from zhtune.models.load import quiet_libraries
    source = work.sources["model"]
    if (source.path / "config.json").exists() and read_object(source.path / "config.json").get("model_type") in LLAMA_LIKE:
        _write_llama(work, source.path)
        return
    generation = generation_of(source.path, config.generation)
    published = read_object(source.path / "config.json")
    quiet_libraries()
    ids = write_tokenizer(source.path, work.path, generation)
    native = native_config(published, generation, _special(ids, generation))
    if native.vocab_size <= max(ids.values()):
        raise ConfigError(f"the tokenizer has ids up to {max(ids.values())}, the model {native.vocab_size} rows: they do not belong together")
    bits = published.get("quantization_bit") or 0
    checkpoint = Checkpoint(source.path, bits)
    prefix = sum(".prefix_encoder." in name for name in checkpoint.names)
    if prefix:
        logger.warning("convert: %d tensors of a P-tuning v2 prefix are left out: a prefix is an adapter, not part of the model", prefix)
    native.architectures = ["ChatGLMForCausalLM" if generation == "chatglm" else "GlmForCausalLM"]
    native.dtype = kind = _write_weights(work, native_tensors(checkpoint, native))
    if generation == "chatglm" and kind == "float16":
        native.rotary_float16 = True                        # as in its training, whatever it will be computed in
    native.save_pretrained(work.path)
    work.resolved |= {"generation": generation, "quantization_bit": bits, "base_digest": source.digest}


def _write_llama(work: Work, source: Path) -> None:
    """Weights and config under LLaMA's names; the tokenizer's files, whose tokenizer.json is made of tokenizer.model."""
    from zhtune.models.chatglm.checkpoint import Checkpoint
    published, settings = read_object(source / "config.json"), read_object(source / "tokenizer_config.json")
    native, checkpoint = llama_config(published), Checkpoint(source)
    pairs = (pair for name in sorted(checkpoint.names) for pair in llama_tensors(published, name, checkpoint.read(name)))
    native["dtype"] = _write_weights(work, pairs)
    (work.path / "tokenizer.json").write_bytes(orjson.dumps(read_tokenizer(source).definition))
    for name in ("tokenizer.model", "generation_config.json", "chat_template.jinja"):
        if (source / name).exists():
            shutil.copyfile(source / name, work.path / name)
    kept = {key: value for key, value in settings.items() if key not in ("auto_map", "added_tokens_decoder")}
    write_json(work.path / "tokenizer_config.json", {**kept, "tokenizer_class": "PreTrainedTokenizerFast"})
    write_json(work.path / "config.json", native)


def _write_weights(work: Work, tensors: Iterable[tuple[str, Any]]) -> str:
    """Write (name, tensor) pairs as safetensors; returns the type that most parameters have."""
    from zhtune.models.chatglm.checkpoint import write_shards
    types: Counter[str] = Counter()

    def counted() -> Iterator[tuple[str, Any]]:
        for name, tensor in tensors:
            types[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
            yield name, tensor
    size = write_shards(counted(), work.path)
    work.metrics |= {"parameters": types.total(), "megabytes": round(size / 1e6, 2)}
    return max(types, key=types.__getitem__)


def write_tokenizer(source: Path, out: Path, generation: str) -> dict[str, int]:
    """Write the tokenizer's files, the chat template and generation_config.json; returns token -> id.

    Raises:
        ConfigError: the folder's tokenizer is missing or of another model.
    """
    from tokenizers import Tokenizer
    file = source / ("ice_text.model" if generation == "chatglm" else "tokenizer.model")
    if not file.exists():
        raise ConfigError(f"{source} has no {file.name}; fetch the whole folder, the tokenizer cannot be made without it")
    if generation == "glm-4":
        definition, data = ranks_definition(read_ranks(file), find_ranks(file)[1]), file.read_bytes()
    elif generation == "chatglm":
        model = complete_chatglm6b(read_spm(file))
        definition, data = chatglm6b_definition(model), model.data
    else:
        model = read_spm(file)
        definition, data = chatglm_definition(model, generation), model.data
    (out / "tokenizer.json").write_bytes(orjson.dumps(definition))
    (out / "tokenizer.model").write_bytes(data)
    ids = Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab(with_added_tokens=True)
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _ends(ids, generation)[0], "pad_token": _PADDING[generation],
        "bos_token": None, "unk_token": None,
        "padding_side": "left", "clean_up_tokenization_spaces": False})
    (out / "chat_template.jinja").write_text(named_template(generation), "utf-8")
    special = _special(ids, generation)
    write_json(out / "generation_config.json", {key: special[key] for key in ("eos_token_id", "pad_token_id")})
    return ids


def _ends(ids: dict[str, int], generation: str) -> list[str]:
    """The tokens that end an answer, the first of them the tokenizer's own end."""
    return [token for token in FAMILIES["chatglm-6b" if generation == "chatglm" else "glm"].stops if token in ids]


def _special(ids: dict[str, int], generation: str) -> dict[str, Any]:
    """The ids that a config names."""
    ends = [ids[token] for token in _ends(ids, generation)]
    named = {"pad_token_id": ids[_PADDING[generation]], "eos_token_id": ends[0] if len(ends) == 1 else ends}
    if generation == "chatglm":
        named |= {"mask_token_id": ids["[MASK]"], "gmask_token_id": ids["[gMASK]"], "bos_token_id": ids["<sop>"]}
    return named
