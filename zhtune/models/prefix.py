"""P-tuning v2 (Liu et al. 2021, arXiv 2110.07602) as THUDM trained ChatGLM with it: keys and values in front of every layer's own.

The prefix enters inside the attention, not through a cache: the tokens' positions stay what they are, prefix keys are not
rotated and every token sees them. So it computes the same with and without cache, with left and right padding, and under
gradient checkpointing, where PEFT's own prefix does not. It is registered with transformers as an attention function;
BLOOM, which calls none, gets it in front of its attention, at ALiBi's positions -n … -1 (where PEFT puts it).

    keys    prefix 0 … n-1 | cached | new      mask  True  | the model's own
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from zhtune.errors import ConfigError
from zhtune.models.chatglm.checkpoint import Checkpoint

NAME = "zhtune_prefix"                                      # of the attention function in transformers' table
PUBLISHED = "transformer.prefix_encoder."                   # in front of the names in THUDM's checkpoints


class Prefix(torch.nn.Module):
    """Trained keys and values of every layer.

    Args:
        layers, heads, width: of the model's keys: layers, key-value heads, numbers a head.
        tokens: length n of the prefix.
        source: numbers a token that a two-layer network makes keys and values of; 0 trains them directly.
        inner: width of that network.
        dropout: of keys and values while training; THUDM's is 0.1.
    """

    positions = 0                                           # of the context: the tokens' own stay

    def __init__(self, layers: int, heads: int, width: int, tokens: int, source: int = 0, inner: int = 0, dropout: float = 0.0):
        super().__init__()
        self.shape = (layers, heads, width)
        self.on = True
        size = 2 * layers * heads * width
        self.dropout = torch.nn.Dropout(dropout)
        self.embedding = torch.nn.Embedding(tokens, source or size)
        self.trans = torch.nn.Sequential(torch.nn.Linear(source, inner), torch.nn.Tanh(), torch.nn.Linear(inner, size)) if source else None

    @classmethod
    def of(cls, model: Any, tokens: int, projection: bool, dropout: float) -> Prefix:
        """A fresh prefix for a model: N(0, 1) as published, or a projection of the model's width."""
        hidden = model.config.hidden_size if projection else 0
        return cls(*key_shape(model.config), tokens, hidden, hidden, dropout)

    @classmethod
    def from_tensors(cls, model: Any, tensors: dict[str, Any], dropout: float = 0.0) -> Prefix:
        """The prefix in THUDM's tensors, of ChatGLM or ChatGLM2, projected or not, with or without the long names.

        Raises:
            ConfigError: they are no prefix, or one of another shape of model.
        """
        tensors = {name.removeprefix(PUBLISHED): tensor for name, tensor in tensors.items()}
        if "embedding.weight" not in tensors:
            raise ConfigError("no prefix among its tensors (embedding.weight is missing)")
        shape, (tokens, source) = key_shape(model.config), tensors["embedding.weight"].shape
        projected = "trans.0.weight" in tensors
        size = (tensors["trans.2.weight"] if projected else tensors["embedding.weight"].T).shape[0]
        if size != 2 * shape[0] * shape[1] * shape[2]:
            raise ConfigError(f"its prefix holds {size} numbers a token, this model's {shape[0]} layers of {shape[1]} heads of {shape[2]} "
                              f"need {2 * shape[0] * shape[1] * shape[2]}")
        made = cls(*shape, tokens, source if projected else 0, tensors["trans.0.weight"].shape[0] if projected else 0, dropout)
        made.load_state_dict({name: tensor.float() for name, tensor in tensors.items() if name.startswith(("embedding.", "trans."))})
        return made

    def attach(self, model: Any) -> None:
        """Put this prefix in front of the keys of every layer of `model`."""
        attentions = [m for m in model.modules() if type(m).__name__.endswith("Attention") and hasattr(m, "layer_idx")]
        if len(attentions) != self.shape[0]:
            raise ConfigError(f"{type(model).__name__} has {len(attentions)} attentions in {self.shape[0]} layers: no place for a prefix")
        for attention in attentions:
            if model.config.model_type == "bloom":
                attention.register_forward_pre_hook(self._before_bloom, with_kwargs=True)
            else:
                attention.prefix = self.layer               # what _attend calls
        if model.config.model_type != "bloom":
            model.set_attn_implementation(NAME)

    def layer(self, index: int, batch: int, like: Any) -> tuple[Any, Any] | None:
        """Keys and values of one layer, (batch, heads, tokens, width) each, in the type of `like`; None while switched off."""
        if not self.on:
            return None
        _, heads, width = self.shape
        rows = slice(2 * index * heads * width, 2 * (index + 1) * heads * width)
        if self.trans is None:
            flat = self.embedding.weight[:, rows]
        else:                                               # only this layer's rows: nothing outlives a checkpointed layer
            first, tanh, last = self.trans
            flat = functional.linear(tanh(first(self.embedding.weight)), last.weight[rows], last.bias[rows])
        both = self.dropout(flat.view(1, -1, 2, heads, width).expand(batch, -1, -1, -1, -1)).permute(2, 0, 3, 1, 4).to(like.dtype)
        return both[0], both[1]

    def saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Config and tensors of what is kept: the projection is worked out and left behind."""
        with torch.no_grad():
            folded = self.embedding.weight if self.trans is None else self.trans(self.embedding.weight)
        layers, heads, width = self.shape
        config = {"peft_type": "ZHTUNE_PREFIX", "tokens": folded.shape[0], "layers": layers, "heads": heads, "width": width}
        return config, {"embedding.weight": folded}

    def _before_bloom(self, attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden, alibi = args[0], kwargs["alibi"]            # (batch, sequence, hidden), (batch * heads, 1, keys)
        found = self.layer(attention.layer_idx, hidden.shape[0], hidden)
        if found is None:
            return None
        tokens, heads = found[0].shape[2], self.shape[1]
        slopes = build_alibi_tensor(torch.ones(1, 2, device=alibi.device), heads, torch.float32)[:, :, 1:]  # (heads, 1, 1)
        before = (slopes * torch.arange(-tokens, 0, device=alibi.device)).to(alibi.dtype).repeat(hidden.shape[0], 1, 1)
        return args, kwargs | {"alibi": torch.cat([before, alibi], -1), "layer_past": _InFront(*found, kwargs["layer_past"]),
                               "attention_mask": functional.pad(kwargs["attention_mask"], (tokens, 0))}


class _InFront:
    """A cache of BLOOM's whose keys and values come behind those of a prefix, which it does not store."""

    def __init__(self, key: Any, value: Any, cache: Any):
        self._prefix, self._cache = (key, value), cache

    def update(self, key: Any, value: Any, layer: int) -> tuple[Any, Any]:
        if self._cache is not None:
            key, value = self._cache.update(key, value, layer)
        return torch.cat([self._prefix[0].to(key.dtype), key], 2), torch.cat([self._prefix[1].to(value.dtype), value], 2)


def key_shape(config: Any) -> tuple[int, int, int]:
    """Layers, key-value heads and numbers a head of a transformers config, which names them only where they differ."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return config.num_hidden_layers, heads, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def published_tensors(folder: Path) -> dict[str, Any]:
    """The tensors of a prefix in a folder of safetensors, or of .bin read by weights-only loading.

    Raises:
        ConfigError: there are no weights.
        DataError: they cannot be read, or hold more than tensors.
    """
    checkpoint = Checkpoint(folder)
    return {name: checkpoint.read(name) for name in checkpoint.names if name.removeprefix(PUBLISHED).startswith(("embedding.", "trans."))}


def _attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
    """transformers' SDPA attention with this layer's prefix in front of the keys, (batch, heads, keys, width)."""
    found = module.prefix(module.layer_idx, query.shape[0], key)
    if found is not None:
        attention_mask = functional.pad(attention_mask, (found[0].shape[2], 0), value=True)
        key, value = torch.cat([found[0], key], 2), torch.cat([found[1], value], 2)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _mask(*args: Any, **kwargs: Any) -> Any:
    """SDPA's mask, made even where plain causal attention would need none: the prefix is not causal."""
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _mask)
