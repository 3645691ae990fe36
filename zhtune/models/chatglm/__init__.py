"""ChatGLM: the architecture of ChatGLM-6B, and the conversion of original checkpoints of all generations."""

from __future__ import annotations


def register() -> None:
    """Make transformers' AutoConfig and AutoModelForCausalLM know our model_type "chatglm-6b"; loads torch."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from zhtune.models.chatglm.configuration import ChatGLMConfig
    from zhtune.models.chatglm.modeling import ChatGLMForCausalLM
    AutoConfig.register(ChatGLMConfig.model_type, ChatGLMConfig, exist_ok=True)
    AutoModelForCausalLM.register(ChatGLMConfig, ChatGLMForCausalLM, exist_ok=True)
