"""A Hugging Face folder of LLaMA, Mistral or Qwen -> one GGUF file in 16, 8 or 4 bits, without llama.cpp and without torch.

Weights are read, quantized and written one tensor at a time, so memory holds one tensor. Blocks are quantized by gguf's
own Python code, which is bit-identical to ggml. K-quants are not written: their rows of 256 do not fit a width of 576.
"""

from __future__ import annotations

import errno
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zhtune.errors import ConfigError, require
from zhtune.export.gguf_tokenizer import add_special, add_tokens, read_vocabulary
from zhtune.log import progress
from zhtune.models.families import FAMILIES, family
from zhtune.templates.encode import ChatEncoder

BLOCK = 32                                                  # weights that share a scale in Q8_0, Q4_0 and Q4_1
# type -> (layer matrices, embedding and output); one-dimensional tensors stay F32.
TYPES = {"f16": ("F16", "F16"), "int8": ("Q8_0", "Q8_0"), "int4": ("Q4_1", "Q8_0")}
# GGUF architectures whose tensors are LLaMA's, some with biases and with norms of queries and keys.
_LAYOUTS = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class _Tensor:
    """One tensor to write."""

    name: str
    """In GGUF"""
    source: Any
    """gguf's LocalTensor, or an array"""
    shape: tuple[int, ...]
    type: Any
    """gguf.GGMLQuantizationType"""
    heads: int
    """Heads whose rows are permuted; 0 for none"""


def write_gguf(folder: Path, file: Path, encoder: ChatEncoder, type: str = "int8", licence: str = "") -> dict[str, Counter[str]]:
    """Write one GGUF file.

    Args:
        folder: a Hugging Face folder of such a model with safetensors and tokenizer.json.
        file: the file to write.
        encoder: of the folder; its template and stop tokens go into the file.
        type: a key of TYPES.
        licence: of the weights, stated in the file.

    Returns:
        "tensors", "weights" and "bytes" (with scales, without metadata) by type, in the order of their first occurrence.

    Raises:
        ConfigError: another architecture, a tokenizer that llama.cpp cannot express, weights that do not fit the config.
    """
    gguf = require("gguf", "gguf")
    logging.getLogger("gguf.gguf_writer").setLevel(logging.WARNING)
    config = _read_config(folder)
    vocabulary = read_vocabulary(folder, config["vocab_size"])
    tensors = list(_plan(gguf, folder, config, type))
    writer = gguf.GGUFWriter(None, config["gguf"])
    _add_hyperparameters(writer, gguf, config)
    if licence:
        writer.add_license(licence)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(int(gguf.LlamaFileType[f"MOSTLY_{TYPES[type][0]}"]))
    add_tokens(writer, vocabulary)
    add_special(writer, vocabulary, folder, encoder)
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), _size(gguf, tensor), raw_dtype=tensor.type)
    try:
        writer.write_header_to_file(file)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in progress(tensors, "quantize"):
            writer.write_tensor_data(gguf.quants.quantize(_values(tensor), tensor.type))
    except OSError as error:
        if error.errno is None:                             # numpy's tofile writes less than asked and forgets the reason
            raise OSError(errno.ENOSPC, str(error)) from error
        raise
    finally:
        writer.close()
    return _shares(gguf, tensors)


def _read_config(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    found = family(config)
    if found.gguf not in _LAYOUTS:
        names = ", ".join(f.name for f in FAMILIES.values() if f.gguf in _LAYOUTS)
        raise ConfigError(f"{folder} is a {found.name} model; GGUF files are written of {names} so far")
    if "quantization_config" in config:
        raise ConfigError(f"{folder} holds quantized weights (quantization_config in its config.json); quantize the 16-bit model")
    if config.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"{folder} uses the activation {config['hidden_act']}; llama.cpp's {found.gguf} has silu")
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    if not config.get("head_dim"):
        config["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    rope = config.get("rope_parameters") or {**(config.get("rope_scaling") or {}), "rope_theta": config.get("rope_theta", 10000.0)}
    rope.setdefault("rope_type", rope.get("type", "default"))
    if rope["rope_type"] not in ("default", "linear", "llama3"):
        raise ConfigError(f"{folder} has RoPE of type {rope['rope_type']}; GGUF files are written of default, linear and llama3 so far")
    return {**config, "rope_parameters": rope, "gguf": found.gguf}


def _add_hyperparameters(writer: Any, gguf: Any, config: dict[str, Any]) -> None:
    rope, width = config["rope_parameters"], config["head_dim"]
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None     # llama.cpp sees beyond it
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(min(config["max_position_embeddings"], window or math.inf))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _plan(gguf: Any, folder: Path, config: dict[str, Any], type: str) -> Iterator[_Tensor]:
    """The tensors of the file in order: embedding, layers, output. Nothing is read yet but headers."""
    sources = _sources(gguf, folder)
    if config.get("tie_word_embeddings"):
        sources.pop("lm_head.weight", None)
    elif "lm_head.weight" not in sources:
        raise ConfigError(f"{folder} has no lm_head.weight, and its config does not tie the output to the embedding")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[config["gguf"].upper()], config["num_hidden_layers"])
    found = {}
    for name, source in sources.items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ConfigError(f"{folder} has a tensor {name}, which a {config['gguf']} of {config['num_hidden_layers']} layers has not")
        found[target] = source
    rows = tuple(found["token_embd.weight"].shape) if "token_embd.weight" in found else None
    if rows != (config["vocab_size"], config["hidden_size"]):
        raise ConfigError(f"{folder} has an embedding of shape {rows}, its config says {(config['vocab_size'], config['hidden_size'])}")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]} if config["gguf"] == "llama" else {}
    for target in sorted(found, key=_order):
        shape = tuple(found[target].shape)
        part = target.split(".")[-2]
        yield _Tensor(target, found[target], shape, _type(gguf, target, shape, type), heads.get(part, 0))
    if config["rope_parameters"]["rope_type"] == "llama3":
        factors = _rope_factors(config)
        yield _Tensor("rope_freqs.weight", factors, factors.shape, gguf.GGMLQuantizationType.F32, 0)


def _sources(gguf: Any, folder: Path) -> dict[str, Any]:
    """Name -> tensor of all safetensors files."""
    import gguf.utility
    tensors: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensors |= gguf.utility.SafetensorsLocal(file).tensors
        except (ValueError, KeyError, OSError) as error:
            raise ConfigError(f"{file} is no whole safetensors file: {error}") from error
    if not tensors:
        raise ConfigError(f"{folder} has no safetensors")
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("rotary_emb.inv_freq")}   # old checkpoints' buffer


def _order(name: str) -> tuple[int, int, str]:
    parts = name.split(".")
    if parts[0] == "blk":
        return 1, int(parts[1]), name
    return (0 if parts[0] == "token_embd" else 2), 0, name


def _type(gguf: Any, name: str, shape: tuple[int, ...], type: str) -> Any:
    if len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    matrix, outer = TYPES[type]
    chosen = outer if name in ("token_embd.weight", "output.weight") else matrix
    return gguf.GGMLQuantizationType[chosen if shape[-1] % BLOCK == 0 else "F16"]


def _size(gguf: Any, tensor: _Tensor) -> int:
    """Bytes in the file."""
    return math.prod(gguf.quants.quant_shape_to_byte_shape(tensor.shape, tensor.type))


def _values(tensor: _Tensor) -> np.ndarray:
    """A tensor's weights as float32, in GGUF's order of rows."""
    if isinstance(tensor.source, np.ndarray):
        return tensor.source
    raw, dtype = tensor.source.mmap_bytes(), tensor.source.dtype
    if dtype == "BF16":                                     # the upper half of a float32
        values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif dtype in ("F16", "F32"):
        values = raw.view(np.float16 if dtype == "F16" else np.float32).astype(np.float32)
    else:
        raise ConfigError(f"{tensor.source.data_range.filename} holds {dtype} weights; GGUF files are written of F32, F16 and BF16")
    values = np.asarray(values).reshape(tensor.shape)
    return permute(values, tensor.heads) if tensor.heads else values


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection from Hugging Face's halves to llama.cpp's interleaved pairs of RoPE.

    Within each head: 0 1 2 | 3 4 5  ->  0 3 1 4 2 5. Source: llama.cpp's convert_hf_to_gguf.py.
    """
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _rope_factors(config: dict[str, Any]) -> np.ndarray:
    """Llama-3.1's frequency divisors, (head_dim / 2,): long waves are slowed, short ones kept, those between blended."""
    rope = config["rope_parameters"]
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, config["head_dim"], 2) / config["head_dim"])
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def _shares(gguf: Any, tensors: list[_Tensor]) -> dict[str, Counter[str]]:
    shares: dict[str, Counter[str]] = {}
    for tensor in tensors:
        found = {"tensors": 1, "weights": math.prod(tensor.shape), "bytes": _size(gguf, tensor)}
        shares.setdefault(tensor.type.name, Counter()).update(found)
    return shares
