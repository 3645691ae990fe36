"""Adapters that are modules of zhtune's own, hooked into a frozen model: prefix, soft prompt, bottleneck.

What PEFT's wrapper is for LoRA, `Attached` is for these: the base model computes, the part adds to it, only the part is
trained and saved. Unlike LoRA none of them can be folded into the base's weights, but each can be switched off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from zhtune.errors import ArtifactError, ConfigError
from zhtune.models.inserts import Bottleneck, SoftPrompt
from zhtune.models.prefix import Prefix

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# peft_type in adapter_config.json -> part. Soft prompts are stored as PEFT stores them, and PEFT's own are read.
PARTS: dict[str, Any] = {"ZHTUNE_PREFIX": Prefix, "PROMPT_TUNING": SoftPrompt, "P_TUNING": SoftPrompt, "ZHTUNE_BOTTLENECK": Bottleneck}


class Attached(torch.nn.Module):
    """A frozen causal language model with a part hooked into it. Attributes it has not are the base's.

    Args:
        base: the model, changed in place: its forward gives what base and part give together.
        part: a Prefix, SoftPrompt or Bottleneck.
    """

    # Said of what is trained, not of the base under it: Trainer refuses, and TRL rounds to bf16, what is quantized.
    is_quantized = is_loaded_in_4bit = is_loaded_in_8bit = False

    def __init__(self, base: Any, part: Any):
        super().__init__()
        self.base_model = base.requires_grad_(False)
        self.part = part.to(base.device)
        self.part.attach(base)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_model":
                raise
            return getattr(self.base_model, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model(*args, **kwargs)

    def get_base_model(self) -> Any:
        """The model under the part, which computes with it."""
        return self.base_model

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Compute without the part while the context is open."""
        self.part.on = False
        try:
            yield
        finally:
            self.part.on = True

    # A checkpoint is the part alone, with what is folded away at the end: the base does not change.

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.part.state_dict(*args, **kwargs)

    def load_state_dict(self, state: dict[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self.part.load_state_dict(state, strict, assign)

    def save_pretrained(self, folder: Path, location: str) -> None:
        """Write adapter_config.json, which names the base, and adapter_model.safetensors."""
        config, tensors = self.part.saved()
        config = {"base_model_name_or_path": location, "task_type": "CAUSAL_LM", "inference_mode": True, **config}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        save_file({name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})


def load_attached(model: Any, folder: Path, config: dict[str, Any]) -> Attached:
    """A saved part, on the model it belongs to.

    Raises:
        ArtifactError: its weights are missing, broken or of another shape of model.
    """
    try:
        tensors = load_file(folder / WEIGHTS)
        part = PARTS[config["peft_type"]].from_tensors(model, tensors)
    except (OSError, SafetensorError, KeyError, RuntimeError, ConfigError) as error:
        raise ArtifactError(f"{folder} does not fit its base: {str(error).splitlines()[0]}") from error
    return Attached(model, part).eval()
