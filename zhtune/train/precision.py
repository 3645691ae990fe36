"""Number formats by what the card can: bf16, or fp16 with loss scaling on cards before Ampere (2080 Ti), or float32."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from zhtune.errors import ConfigError


@dataclass(frozen=True)
class Device:
    """What precision depends on."""

    cuda: bool
    bf16: bool
    """Whether it computes in bf16 natively"""
    name: str


def this_device() -> Device:
    """The device that training will run on."""
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        return Device(True, major >= 8, f"{torch.cuda.get_device_name()} (capability {major}.{minor})")
    bf16 = torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return Device(False, bf16, "this processor")


def choose(asked: str, device: Device) -> str:
    """"bf16", "fp16" or "fp32" for what was asked.

    Raises:
        ConfigError: the device cannot do what was asked.
    """
    if asked == "auto":
        return "bf16" if device.bf16 else "fp16" if device.cuda else "fp32"
    if asked == "bf16" and device.cuda and not device.bf16:
        raise ConfigError(f"--schedule.precision bf16: {device.name} has no bf16; use fp16 (loss scaling, float32 master weights) or auto")
    if asked == "fp16" and not device.cuda:
        raise ConfigError("--schedule.precision fp16 needs a CUDA card; on a processor use bf16, fp32 or auto")
    return asked


def autocast_of(model: Any) -> Any:
    """What a forward outside the trainer needs where halve_frozen stored matrices in 16 bit and norms in 32: autocast; else nothing."""
    types = {p.dtype for p in model.parameters() if p.dim() > 1}
    half = next((dtype for dtype in (torch.bfloat16, torch.float16) if dtype in types), None)
    return torch.autocast(next(model.parameters()).device.type, half) if half else nullcontext()


def halve_frozen(model: Any, precision: str) -> None:
    """Store the matrices under an adapter in 16 bit; the adapter itself, and norms and biases (one dimension), stay float32."""
    if precision == "fp32" or not hasattr(model, "get_base_model"):     # PEFT's wrapper has it, a plain model, which is saved whole, not
        return
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.dim() > 1 and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
        elif parameter.requires_grad or parameter.is_floating_point():
            parameter.data = parameter.data.float()
