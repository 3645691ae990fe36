"""Published folders of ChatGLM-6B, ChatGLM2, ChatGLM3 and GLM-4: which one it is, its config and its tensors in our terms.

ChatGLM-6B becomes our own class, the others transformers' GlmForCausalLM. Reads config.json and the texts of the
tokenizer's files; runs nothing of them. Names of a generation are those of its chat template.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError, DataError
from zhtune.models.chatglm.checkpoint import Checkpoint
from zhtune.tokenizers.load import read_object
from zhtune.tokenizers.ranks import find_ranks

CHATGLM, CHATGLM2, CHATGLM3, GLM4 = GENERATIONS = ("chatglm", "chatglm2", "chatglm3", "glm-4")
_IMAGE_ROWS = {150528: 20000}                               # vocabulary of March 2023 -> rows in front for images, never used
# What the conversion takes for granted, of every published model.
_EXPECTED = {"rmsnorm": True, "post_layer_norm": True, "apply_residual_connection_post_layernorm": False, "add_bias_linear": False,
             "multi_query_attention": True, "original_rope": True}
# Parts of GlmForCausalLM's names -> original ones; q, k and v are rows of one matrix.
_PARTS = {"self_attn.q_proj": "self_attention.query_key_value", "self_attn.k_proj": "self_attention.query_key_value",
          "self_attn.v_proj": "self_attention.query_key_value", "self_attn.o_proj": "self_attention.dense",
          "mlp.gate_up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h", "model.layers": "transformer.encoder.layers",
          "model.norm": "transformer.encoder.final_layernorm", "model.embed_tokens": "transformer.embedding.word_embeddings",
          "lm_head": "transformer.output_layer"}


def generation_of(folder: Path, asked: str = "") -> str:
    """Which of GENERATIONS a published folder is.

    Args:
        asked: "chatglm2" or "chatglm3", whose configs are alike, where the tokenizer's files do not tell.

    Raises:
        ConfigError: none of them; one that is read without conversion; one that cannot be told.
    """
    file = folder / "config.json"
    if not file.exists():
        raise ConfigError(f"{folder} has no config.json; expected the folder of a published ChatGLM or GLM-4 model")
    config = read_object(file)
    kind = config.get("model_type")
    if kind != "chatglm":
        raise ConfigError(f"{folder} is a model of type {kind!r}; convert reads original ChatGLM checkpoints (model_type 'chatglm'). "
                          "Models in Hugging Face's own form need no conversion")
    if "vision_config" in config:
        raise ConfigError(f"{folder} is a model of text and images (GLM-4V); only models of text are converted")
    if "inner_hidden_size" in config:
        return CHATGLM
    if "multi_query_group_num" not in config:
        raise ConfigError(f"{folder}: config.json is of no known generation of ChatGLM: it has neither inner_hidden_size (ChatGLM-6B) "
                          "nor multi_query_group_num (ChatGLM2 and later)")
    ranks = find_ranks(folder)
    if ranks is not None and ranks[1] == "glm4":
        return GLM4
    texts = [path.read_text("utf-8") for name in ("tokenizer_config.json", "tokenization_chatglm.py") if (path := folder / name).exists()]
    if asked or not texts:
        if asked not in (CHATGLM2, CHATGLM3):
            raise ConfigError(f"{folder}: the configs of ChatGLM2 and ChatGLM3 are alike, and there is no tokenizer_config.json or "
                              "tokenization_chatglm.py that would tell; say --generation chatglm2 or chatglm3")
        return asked
    return CHATGLM3 if any("<|assistant|>" in text for text in texts) else CHATGLM2


def native_config(config: dict[str, Any], generation: str, special: dict[str, Any]) -> Any:
    """Our ChatGLMConfig, or a GlmConfig.

    Args:
        config: the published config.json.
        special: pad_token_id, eos_token_id …, of the tokenizer: published configs of March 2023 mix two counts.

    Raises:
        ConfigError: a setting that the published models do not have.
    """
    if generation != CHATGLM:
        return _glm_config(config, generation, special)
    from zhtune.models.chatglm.configuration import ChatGLMConfig
    if config.get("position_encoding_2d") is not True:
        raise ConfigError(f"config.json says position_encoding_2d {config.get('position_encoding_2d')}; ChatGLM-6B has positions in two "
                          "dimensions, other models of this code are not converted")
    rows = config["vocab_size"]
    taken = ("hidden_size", "num_layers", "num_attention_heads", "inner_hidden_size", "max_sequence_length", "layernorm_epsilon")
    return ChatGLMConfig(vocab_size=rows - _IMAGE_ROWS.get(rows, 0), **{key: config[key] for key in taken}, **special)


def _glm_config(config: dict[str, Any], generation: str, special: dict[str, Any]) -> Any:
    from transformers import GlmConfig
    for key, value in _EXPECTED.items():
        if config.get(key, value) != value:
            raise ConfigError(f"config.json says {key} {config[key]}; all published models have {value}, and only these are converted")
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    ratio = config.get("rope_ratio", 1)
    if generation == CHATGLM2 and ratio != 1:               # chatglm2-6b-32k divides positions, its successors multiply the base
        rope |= {"rope_type": "linear", "factor": float(ratio)}
    else:
        rope["rope_theta"] *= ratio
    return GlmConfig(
        vocab_size=config["padded_vocab_size"], hidden_size=config["hidden_size"], intermediate_size=config["ffn_hidden_size"],
        num_hidden_layers=config["num_layers"], num_attention_heads=config["num_attention_heads"],
        num_key_value_heads=config["multi_query_group_num"], head_dim=config["kv_channels"], rms_norm_eps=config["layernorm_epsilon"],
        max_position_embeddings=config["seq_length"], attention_bias=config["add_qkv_bias"], rope_parameters=rope,
        tie_word_embeddings=config.get("tie_word_embeddings", False), **special)


def native_tensors(checkpoint: Checkpoint, config: Any) -> Iterator[tuple[str, Any]]:
    """(our name, tensor) of every parameter of the model that `config` describes.

    Raises:
        DataError: a tensor is missing, has another shape, or is not accounted for; before any is given out.
    """
    import torch
    from transformers import GlmForCausalLM

    from zhtune.models.chatglm.modeling import ChatGLMForCausalLM
    ours = config.model_type == ChatGLMForCausalLM.config_class.model_type
    with torch.device("meta"):
        model = (ChatGLMForCausalLM if ours else GlmForCausalLM)(config)
    wanted = {name: value.shape for name, value in model.named_parameters()}    # a tied one once, under the embedding's name
    sources = {name: name if ours else original_name(name) for name in wanted}
    left = checkpoint.names - set(sources.values())
    unknown = sorted(n for n in left if not n.endswith("inv_freq") and ".prefix_encoder." not in n and not (ours and n == "lm_head.weight"))
    missing = sorted(set(sources.values()) - checkpoint.names)
    if missing or unknown:
        raise DataError(f"the checkpoint is not what its config.json says: {len(missing)} tensors are missing"
                        f"{f', such as {missing[0]}' if missing else ''}, {len(unknown)} are unknown"
                        f"{f', such as {unknown[0]}' if unknown else ''}")
    return _read(checkpoint, wanted, sources, config)


def _read(checkpoint: Checkpoint, wanted: dict[str, Any], sources: dict[str, str], config: Any) -> Iterator[tuple[str, Any]]:
    for name, shape in wanted.items():
        tensor = checkpoint.read(sources[name])
        if ".self_attn." in name and "o_proj" not in name:
            heads, groups = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
            tensor = tensor.split([heads, groups, groups])["qkv".index(name.split(".self_attn.")[1][0])]
        elif name.endswith("word_embeddings.weight"):
            tensor = tensor[_IMAGE_ROWS.get(len(tensor), 0):]
        if tensor.shape != shape:
            raise DataError(f"{sources[name]} has the shape {tuple(tensor.shape)}, by config.json {tuple(shape)} is expected")
        yield name, tensor


def original_name(name: str) -> str:
    """The published name of a parameter of GlmForCausalLM."""
    for ours, theirs in _PARTS.items():
        name = name.replace(ours, theirs)
    return name
