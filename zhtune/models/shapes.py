"""Random-weight models of named shapes (`new:NAME`): for training from scratch and for tests.

Their tokenizer knows the 256 bytes and the chat marks, nothing else: `zhtune extend` gives it a vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError, require
from zhtune.templates.encode import named_template

# family -> its classes in transformers, LlamaConfig and LlamaForCausalLM
_CLASSES = {"llama": "Llama", "bloom": "Bloom", "gemma": "Gemma", "glm": "Glm", "glm4": "Glm4", "mistral": "Mistral", "qwen2": "Qwen2",
            "qwen3": "Qwen3"}
# name, which begins with the family -> hidden size, MLP size, layers, heads, key-value heads, context
SHAPES = {
    "chatglm-tiny": (64, 256, 2, 4, 4, 512),
    **{f"{family}-tiny": (64, 128, 2, 4, 2, 512) for family in _CLASSES},
    "llama-15m": (288, 768, 6, 6, 6, 1024),
    "llama-110m": (768, 2048, 12, 12, 12, 1024),
}
# Kind of tokenizer -> special tokens, the first one pads, and the last one ends a turn.
SPECIAL_OF = {"llama": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "chatglm": ["<pad>", "[MASK]", "[gMASK]", "<sop>", "<eop>"]}
SPECIAL = SPECIAL_OF["llama"]
_TEMPLATE = {"llama": "chatml", "chatglm": "chatglm"}


def write_shape(name: str, folder: Path, seed: int = 0) -> None:
    """Write a Hugging Face folder with random weights (float32) and the byte tokenizer.

    Raises:
        ConfigError: no shape of that name.
    """
    if name not in SHAPES:
        raise ConfigError(f"no shape {name!r}; there are: {', '.join(f'new:{n}' for n in SHAPES)}")
    torch = require("torch", "train")
    own = name.startswith("chatglm")                        # a class of zhtune's
    write_byte_tokenizer(folder, "chatglm" if own else "llama")
    torch.manual_seed(seed)
    (_chatglm(name) if own else _by_transformers(name)).save_pretrained(folder)


def _by_transformers(name: str) -> Any:
    transformers = require("transformers", "train")
    hidden, mlp, layers, heads, kv_heads, context = SHAPES[name]
    family = name.partition("-")[0]
    # BLOOM has no fields for the MLP (four times the width), key-value heads and context
    grouped = {} if family == "bloom" else {"intermediate_size": mlp, "num_key_value_heads": kv_heads, "max_position_embeddings": context,
                                            "head_dim": hidden // heads}
    config = getattr(transformers, f"{_CLASSES[family]}Config")(
        vocab_size=256 + len(SPECIAL), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, **grouped,
        tie_word_embeddings=family not in ("glm", "glm4", "qwen3"), bos_token_id=None, eos_token_id=SPECIAL.index("<|im_end|>"),
        pad_token_id=SPECIAL.index("<|endoftext|>"))
    return getattr(transformers, f"{_CLASSES[family]}ForCausalLM")(config)


def _chatglm(name: str) -> Any:
    from zhtune.models.chatglm.configuration import ChatGLMConfig
    from zhtune.models.chatglm.modeling import ChatGLMForCausalLM
    hidden, mlp, layers, heads, _, context = SHAPES[name]
    pad, mask, gmask, sop, eop = range(5)
    return ChatGLMForCausalLM(ChatGLMConfig(
        vocab_size=256 + len(SPECIAL_OF["chatglm"]), hidden_size=hidden, inner_hidden_size=mlp, num_layers=layers, num_attention_heads=heads,
        max_sequence_length=context, residual_scale=(2 * layers)**0.5, pad_token_id=pad, mask_token_id=mask, gmask_token_id=gmask,
        bos_token_id=sop, eos_token_id=eop))


def write_byte_tokenizer(folder: Path, family: str = "llama") -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja of a byte-level tokenizer without merges."""
    folder.mkdir(parents=True, exist_ok=True)
    byte_tokenizer(family).save(str(folder / "tokenizer.json"))
    special = SPECIAL_OF[family]
    write_tokenizer_config(folder, eos=special[-1], pad=special[0], template=_TEMPLATE[family])


def byte_tokenizer(family: str = "llama"):
    """A `tokenizers.Tokenizer` of the 256 bytes and the family's special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_OF[family], *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = smollm_pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_OF[family]])
    return tokenizer


def smollm_pre_tokenizer():
    """Digits one by one, then GPT-2's byte level: SmolLM2's pre-tokenizer, llama.cpp's `smollm`."""
    from tokenizers import pre_tokenizers
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def write_tokenizer_config(folder: Path, eos: str, pad: str, template: str = "chatml") -> None:
    """tokenizer_config.json and a named chat template."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "pad_token": pad, "bos_token": None, "unk_token": None,
              "clean_up_tokenization_spaces": False, "model_max_length": 8192}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (folder / "chat_template.jinja").write_text(named_template(template), "utf-8")
