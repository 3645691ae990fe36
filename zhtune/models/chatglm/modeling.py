"""ChatGLM-6B (v1) on transformers' own interfaces, with the parameter names of the published checkpoints.

A context that sees itself whole, then an answer that is causal. Two positions a token, one for each half of a head:

    row       今天   挂     什么   [gMASK]  <sop>  内    科    <eop>
    position  0      1      2      3        3      3     3     3        frozen at the mask token
    block     0      0      0      0        1      2     3     4        0 is the context
    sees      whole context ───────────────  and, from <sop> on, what is before

A row without <sop> is an answer throughout: causal. Nothing here knows of text or of a tokenizer.
Source: modeling_chatglm.py of THUDM/chatglm-6b (v1.1), whose outputs tests/test_chatglm.py compares with.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.models.glm.modeling_glm import eager_attention_forward
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXMLP
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from zhtune.models.chatglm.configuration import ChatGLMConfig

_BASE = 10000                                               # of the rotary angles


def two_positions(ids: torch.Tensor, mask: torch.Tensor | None, config: ChatGLMConfig) -> torch.Tensor:
    """Position and block of every token of whole rows, (2, batch, sequence); padding has 0 and 0.

    Args:
        ids: (batch, sequence), from the beginning of each row.
        mask: (batch, sequence), 0 for padding on either side; None: no padding.
        config: names the mask tokens and <sop>.
    """
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    index = real.long().cumsum(-1) - 1
    answer = ((ids == config.bos_token_id) & real).cumsum(-1) > 0
    answer |= ~answer.any(-1, keepdim=True)
    context = real & ~answer
    length = context.sum(-1, keepdim=True)
    frozen = (length - 1).clamp(min=0)
    for token in (config.mask_token_id, config.gmask_token_id):     # the second counts where there are both
        found = context & (ids == token)
        first = index.gather(1, found.long().argmax(-1, keepdim=True))
        frozen = torch.where(found.any(-1, keepdim=True), first, frozen)
    position = torch.where(answer, frozen, index)
    block = torch.where(answer, index - length + 1, 0)
    return torch.stack([position, block]).masked_fill(~real, 0)


def rotary_table(positions: torch.Tensor, config: ChatGLMConfig, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of both positions, each (batch, 1, sequence, 2, half a head).

    The published frequencies are rounded to float16, and in a float16 model so are the angles: at position 1,000 their
    cosines are off by up to 0.4, and the weights were trained so.
    """
    half = config.hidden_size // config.num_attention_heads // 2
    frequency = 1.0 / (_BASE ** (torch.arange(0, half, 2, device=positions.device).float() / half))
    if config.rotary_float16 or dtype == torch.float16:
        angles = (positions[..., None].half() * frequency.half()).float()
    else:
        angles = positions[..., None].float() * frequency.half().float()
    angles = torch.cat([angles, angles], -1).permute(1, 2, 0, 3)[:, None]   # (2, batch, sequence, half) before
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: torch.Tensor, table: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotate (batch, heads, sequence, head), each half of a head by its own position; element i pairs with i + a quarter."""
    halves = x.unflatten(-1, (2, -1))
    left, right = halves.chunk(2, -1)
    return (halves * table[0] + torch.cat([-right, left], -1) * table[1]).flatten(-2)


class ChatGLMAttention(nn.Module):
    """Attention through transformers' interface, so that any registered implementation serves."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.num_key_value_groups, self.scaling, self.is_causal = 1, self.head_dim**-0.5, True
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor, attention_mask: Any, rotary: tuple[torch.Tensor, torch.Tensor], cache: Any,
                **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        mixed = self.query_key_value(hidden).unflatten(-1, (-1, 3 * self.head_dim)).transpose(1, 2)
        query, key, value = mixed.chunk(3, -1)              # each head's own three thirds
        query, key = _rotate(query, rotary), _rotate(key, rotary)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, weights = attend(self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs)
        return self.dense(output.flatten(2)), weights


class ChatGLMBlock(GradientCheckpointingLayer):
    """One layer; what is carried past attention and MLP is the normalised input, scaled."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int):
        super().__init__()
        self.scale = config.residual_scale
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = ChatGLMAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = GPTNeoXMLP(config)                       # names and arithmetic are the same

    def forward(self, hidden: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        normed = self.input_layernorm(hidden)
        hidden = normed * self.scale + self.attention(normed, **kwargs)[0]
        normed = self.post_attention_layernorm(hidden)
        return normed * self.scale + self.mlp(normed)


class ChatGLMPreTrainedModel(PreTrainedModel):
    """What transformers must know of the architecture."""

    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["ChatGLMBlock"]
    _input_embed_layer = "word_embeddings"
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs: ClassVar[dict[str, type]] = {"hidden_states": ChatGLMBlock, "attentions": ChatGLMAttention}


class ChatGLMModel(ChatGLMPreTrainedModel):
    """Embedding and layers."""

    def __init__(self, config: ChatGLMConfig):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(ChatGLMBlock(config, i) for i in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None,
                position_ids: torch.Tensor | None = None, cache: Any = None, inputs_embeds: torch.Tensor | None = None,
                use_cache: bool | None = None, **kwargs: Any) -> BaseModelOutputWithPast:
        """Hidden states, (batch, sequence, hidden).

        Args:
            input_ids: (batch, new tokens); or inputs_embeds with position_ids.
            attention_mask: (batch, old and new tokens), 0 for padding.
            position_ids: (2, batch, new tokens), of two_positions; found from input_ids where they begin the rows.
            cache: keys and values of the tokens before.

        Raises:
            ValueError: positions of one channel, or none where the ids do not tell them.
        """
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        past = cache.get_seq_length() if cache is not None else 0
        if position_ids is None:
            position_ids = self._positions(input_ids, attention_mask, past)
        if position_ids.dim() != 3:
            raise ValueError("ChatGLM-6B has two positions a token: position_ids must be (2, batch, sequence), or None")
        hidden = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        blocks = torch.where(position_ids[1] == 0, 0, -1).expand(hidden.shape[0], -1)   # -1 is causal
        blocks = nn.functional.pad(blocks, (past, 0), value=-1)
        mask = create_causal_mask(config=self.config, inputs_embeds=hidden, attention_mask=attention_mask, cache=cache,
                                  block_sequence_ids=blocks)
        rotary = rotary_table(position_ids, self.config, hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask, rotary=rotary, cache=cache, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.final_layernorm(hidden), cache=cache)

    def _positions(self, ids: torch.Tensor | None, mask: torch.Tensor | None, past: int) -> torch.Tensor:
        if ids is None or (past and not (ids == self.config.bos_token_id).any()):
            raise ValueError("ChatGLM-6B reads its positions from whole rows of ids: pass position_ids of two_positions for "
                             "embeddings or the tokens after the first")
        return two_positions(ids, None if mask is None else mask[:, -ids.shape[1]:], self.config)


class ChatGLMForCausalLM(ChatGLMPreTrainedModel, GenerationMixin):
    """The language model; its output matrix is the embedding."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "transformer.word_embeddings.weight"}

    def __init__(self, config: ChatGLMConfig):
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None,
                position_ids: torch.Tensor | None = None, cache: Any = None, inputs_embeds: torch.Tensor | None = None,
                labels: torch.Tensor | None = None, use_cache: bool | None = None, logits_to_keep: int | torch.Tensor = 0,
                **kwargs: Any) -> CausalLMOutputWithPast:
        """Logits, (batch, sequence, vocabulary), and the loss where labels are given (-100: none); see ChatGLMModel."""
        outputs = self.transformer(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, cache=cache,
                                   inputs_embeds=inputs_embeds, use_cache=use_cache, **kwargs)
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None if labels is None else self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, cache=outputs.cache, hidden_states=outputs.hidden_states,
                                      attentions=outputs.attentions)

    def _prepare_position_ids_for_generation(self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]) -> torch.Tensor:
        """Both positions of whole rows, for `generate` and zhtune's own loop."""
        return two_positions(model_kwargs.get("input_ids", inputs_tensor), model_kwargs.get("attention_mask"), self.config)

    def _update_model_kwargs_for_generation(self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As for other models, but the position stays frozen: only the block is counted on."""
        known = model_kwargs["position_ids"].shape[-1]
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        positions = model_kwargs["position_ids"]
        positions[0, :, known:] = positions[0, :, known - 1:known]
        return model_kwargs
