"""Shape of a ChatGLM-6B (v1) model, under the field names of its published config.json.

The published files say model_type "chatglm", as those of ChatGLM2, 3 and GLM-4 do; ours is of its own, so that no two
architectures share a name.
"""

from __future__ import annotations

from typing import ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class ChatGLMConfig(PreTrainedConfig):
    """ChatGLM-6B; the defaults are those of the published model with 130,528 rows."""

    model_type = "chatglm-6b"
    hidden_act = "gelu_pytorch_tanh"                        # of all of them: not written to config.json
    attribute_map: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "num_layers", "intermediate_size": "inner_hidden_size", "max_position_embeddings": "max_sequence_length"}

    vocab_size: int = 130528
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 16384
    max_sequence_length: int = 2048
    layernorm_epsilon: float = 1e-5
    residual_scale: float = 56**0.5
    """The published code takes sqrt(2 · 28) at any depth"""
    rotary_float16: bool = False
    """Round the rotary angles to float16 in bfloat16 and float32 too, as they were in the model's training; float16 always does"""
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 3
    mask_token_id: int = 130000
    gmask_token_id: int = 130001
    bos_token_id: int = 130004
    """<sop>: the context ends before it"""
    eos_token_id: int | list[int] | None = 130005
    """<eop>"""

    def __post_init__(self, **kwargs):
        if self.hidden_size % (4 * self.num_attention_heads):
            raise ValueError(f"hidden_size {self.hidden_size} cannot be cut into {self.num_attention_heads} heads of a multiple of 4: "
                             "each half of a head is rotated in pairs")
        super().__post_init__(**kwargs)
