"""The families of models that zhtune knows: one literal table of what differs between them. Loads no weights.

A family is found by `model_type` in config.json. A model of another type can still be trained in full, by its last layers
or by LoRA on all its linear layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from zhtune.errors import ConfigError

_SPLIT = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_FUSED = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
_GLM = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj")
_ALIBI = "its ALiBi counts positions across the documents of a block"
_IDS = "it reads mask and positions from token ids, which a soft prompt has not; take p-tuning-v2"
_CONVERT = "transformers has no class for it: make it a LLaMA folder with zhtune convert"


@dataclass(frozen=True)
class Family:
    """What differs between families."""

    name: str
    linear: tuple[str, ...] | str
    """Linear layers that LoRA adapts, all but the output layer"""
    scaled: tuple[str, ...] = ()
    """What IA3 scales: keys, values, and (the last) the input of the MLP's second matrix"""
    outputs: tuple[str, ...] = ()
    """Outputs of attention and MLP, behind which a bottleneck stands"""
    template: str = ""
    """The chat template its published chat models were trained with: suggested where a model has none"""
    stops: tuple[str, ...] = ()
    """Tokens that end an answer of its chat models, whatever a folder's files say: llama.cpp stops there as well"""
    gguf: str = ""
    """Architecture in a GGUF file; empty where llama.cpp has none"""
    refuses: dict[str, str] = field(default_factory=dict)
    """What it cannot do -> why"""


def _llama_like(name: str, **fields: Any) -> Family:
    return Family(name, _SPLIT, ("k_proj", "v_proj", "down_proj"), ("o_proj", "down_proj"), **fields)


_LLAMA = _llama_like("llama", template="llama2", stops=("</s>", "<|eot_id|>", "<|end_of_text|>"), gguf="llama")
FAMILIES = {
    "llama": _LLAMA,
    "mistral": _llama_like("mistral", template="llama2", stops=("</s>",), gguf="llama"),
    "qwen2": _llama_like("qwen2", template="chatml", stops=("<|im_end|>", "<|endoftext|>"), gguf="qwen2"),
    "qwen3": _llama_like("qwen3", template="qwen3", stops=("<|im_end|>", "<|endoftext|>"), gguf="qwen3"),
    "gemma": _llama_like("gemma", stops=("<end_of_turn>", "<eos>"), gguf="gemma"),
    "gemma2": _llama_like("gemma2", stops=("<end_of_turn>", "<eos>"), gguf="gemma2",
                          refuses={"p-tuning-v2": "its softcap on attention scores has no place for a prefix"}),
    "gemma3_text": _llama_like("gemma3_text", stops=("<end_of_turn>", "<eos>"), gguf="gemma3"),
    "bloom": Family("bloom", _FUSED, ("query_key_value", "dense_4h_to_h"), ("self_attention.dense", "dense_4h_to_h"), "bloomz", ("</s>",),
                    "bloom", refuses={"packing": _ALIBI}),
    "chatglm-6b": Family("chatglm-6b", _FUSED, ("query_key_value", "dense_4h_to_h"), ("attention.dense", "dense_4h_to_h"), "chatglm", ("<eop>",),
                         refuses={"packing": "its mask and positions belong to one conversation", "p-tuning": _IDS, "prompt-tuning": _IDS}),
    "glm": Family("glm", _GLM, ("k_proj", "v_proj", "down_proj"), ("o_proj", "down_proj"), "chatglm3",
                  ("</s>", "<|endoftext|>", "<|user|>", "<|observation|>"), "chatglm"),
    "glm4": Family("glm4", _GLM, ("k_proj", "v_proj", "down_proj"), ("o_proj", "down_proj"), "glm-4",
                   ("<|endoftext|>", "<|user|>", "<|observation|>"), "glm4"),
    "baichuan": Family("baichuan", (), refuses={"loading": _CONVERT}),
    "internlm": Family("internlm", (), refuses={"loading": _CONVERT}),
    "internlm2": Family("internlm2", (), template="chatml", refuses={"loading": _CONVERT}),
}


def family(config: dict[str, Any]) -> Family:
    """The family of a parsed config.json; one of its own for a type that is not in the table."""
    name = str(config.get("model_type", ""))
    unproven = "nobody has tried it on this family; take lora"
    return FAMILIES.get(name) or Family(name, "all-linear", refuses=dict.fromkeys(
        ("p-tuning-v2", "p-tuning", "prompt-tuning", "ia3", "bottleneck"), unproven))


def family_of(folder: Path) -> Family:
    """The family of a model folder."""
    return family(orjson.loads((folder / "config.json").read_bytes()))


def refuse(found: Family, what: str, way: str = "") -> None:
    """Raise a ConfigError if the family cannot do `what` (a training method, "packing" or "loading"), with the way out."""
    if what in found.refuses:
        raise ConfigError(f"{what} of a {found.name} model: {found.refuses[what]}" + f"; {way}" * bool(way))
