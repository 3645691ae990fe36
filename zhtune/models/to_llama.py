"""Baichuan-7B, Baichuan2-7B, InternLM and InternLM2 under the LLaMA class: names and fused matrices, no arithmetic but one norm.

Their architecture is LLaMA's; transformers has no class of theirs and zhtune runs no remote code. Baichuan-13B has ALiBi
in the place of RoPE and is refused. Knows nothing of tokenizers and of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from zhtune.errors import ConfigError

LLAMA_LIKE = ("baichuan", "internlm", "internlm2")          # model_type
_BAICHUAN2_ROWS = 125696                                    # only Baichuan2 has so many, and a normalised output matrix
# InternLM2's names -> LLaMA's; wqkv is split apart
_INTERNLM2 = {"model.tok_embeddings": "model.embed_tokens", "output": "lm_head", "attention.wo": "self_attn.o_proj",
              "feed_forward.w1": "mlp.gate_proj", "feed_forward.w3": "mlp.up_proj", "feed_forward.w2": "mlp.down_proj",
              "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_KEPT = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "rms_norm_eps",
         "max_position_embeddings", "initializer_range", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")


def llama_config(config: dict[str, Any]) -> dict[str, Any]:
    """LLaMA's config.json for a parsed one of these families.

    Raises:
        ConfigError: Baichuan-13B, or another activation.
    """
    if config["model_type"] == "baichuan" and "max_position_embeddings" not in config:
        raise ConfigError("this Baichuan has ALiBi in the place of RoPE (the 13B models have): there is no class to convert it to")
    if config.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"its activation is {config['hidden_act']}, LLaMA's is silu")
    rope = {"rope_type": "default", **(config.get("rope_scaling") or {}), "rope_theta": float(config.get("rope_theta", 10000.0))}
    rope["rope_type"] = rope.pop("type", rope["rope_type"])
    bias = bool(config.get("bias", False)) and config["model_type"] != "baichuan"
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": bias, "mlp_bias": False,
            "rope_parameters": rope, **{name: config[name] for name in _KEPT if name in config}}


def llama_tensors(config: dict[str, Any], name: str, tensor: Any) -> Iterator[tuple[str, Any]]:
    """LLaMA's tensors for one tensor of these families.

        W_pack  rows  q all heads | k all heads | v all heads
        wqkv    rows  for each key-value head: its q heads | k | v
    """
    stem, _, kind = name.rpartition(".")                    # "model.layers.0.self_attn.W_pack", "weight"
    if stem.endswith("rotary_emb"):
        return
    if stem.endswith("W_pack"):
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{stem.removesuffix('W_pack')}{part}_proj.{kind}", rows.contiguous()
    elif stem.endswith("attention.wqkv"):
        groups, heads = config["num_key_value_heads"], config["num_attention_heads"]
        split = tensor.unflatten(0, (groups, heads // groups + 2, config["hidden_size"] // heads))
        for part, rows in zip("qkv", split.split([heads // groups, 1, 1], dim=1), strict=True):
            yield f"{stem.removesuffix('attention.wqkv')}self_attn.{part}_proj.{kind}", rows.flatten(0, 2).contiguous()
    elif config["model_type"] == "internlm2":
        layer = re.match(r"model\.layers\.\d+\.", stem)
        inner = stem[layer.end():] if layer else stem
        yield f"{layer[0] if layer else ''}{_INTERNLM2.get(inner, inner)}.{kind}", tensor
    elif stem == "lm_head" and config["model_type"] == "baichuan" and config["vocab_size"] == _BAICHUAN2_ROWS:
        yield name, (tensor.float() / tensor.float().norm(dim=-1, keepdim=True).clamp(min=1e-12)).to(tensor.dtype)
    else:
        yield name, tensor
