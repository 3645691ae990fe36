"""Random-weight models of named shapes (`new:NAME`): for training from scratch and for tests. LLaMA architecture.

Their tokenizer knows the 256 bytes and the chat marks, nothing else: `zhtune extend` gives it a vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path

from zhtune.errors import ConfigError, require
from zhtune.templates.encode import named_template

# name -> hidden size, MLP size, layers, heads, key-value heads, context
SHAPES = {
    "llama-tiny": (64, 128, 2, 4, 2, 512),
    "llama-15m": (288, 768, 6, 6, 6, 1024),
    "llama-110m": (768, 2048, 12, 12, 12, 1024),
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_shape(name: str, folder: Path, seed: int = 0) -> None:
    """Write a Hugging Face folder with random weights (float32) and the byte tokenizer.

    Raises:
        ConfigError: no shape of that name.
    """
    if name not in SHAPES:
        raise ConfigError(f"no shape {name!r}; there are: {', '.join(f'new:{n}' for n in SHAPES)}")
    torch, transformers = require("torch", "train"), require("transformers", "train")
    hidden, mlp, layers, heads, kv_heads, context = SHAPES[name]
    write_byte_tokenizer(folder)
    config = transformers.LlamaConfig(
        vocab_size=256 + len(SPECIAL), hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=context, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=SPECIAL.index("<|im_end|>"), pad_token_id=SPECIAL.index("<|endoftext|>"))
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def write_byte_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja of a byte-level tokenizer without merges."""
    folder.mkdir(parents=True, exist_ok=True)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    write_tokenizer_config(folder, eos="<|im_end|>", pad="<|endoftext|>")


def byte_tokenizer():
    """A `tokenizers.Tokenizer` of the 256 bytes and the chat marks."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = smollm_pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def smollm_pre_tokenizer():
    """Digits one by one, then GPT-2's byte level: SmolLM2's pre-tokenizer, llama.cpp's `smollm`."""
    from tokenizers import pre_tokenizers
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def write_tokenizer_config(folder: Path, eos: str, pad: str) -> None:
    """tokenizer_config.json and the ChatML template without a system prompt."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "pad_token": pad, "bos_token": None, "unk_token": None,
              "clean_up_tokenization_spaces": False, "model_max_length": 8192}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (folder / "chat_template.jinja").write_text(named_template("chatml"), "utf-8")
