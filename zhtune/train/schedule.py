"""Learning rate, batches, precision of one training run. Needs no torch, so that configs can be read without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """How a model is trained."""

    learning_rate: float = 2e-4
    """Peak learning rate"""
    epochs: int = 1
    """How often each sample is seen"""
    batch_size: int = 16
    """Samples an optimizer step"""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises"""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm"""
    checkpoints: int = 4
    """How many checkpoints are written on the way; the last two are kept until the stage ends"""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 (autocast, float32 master weights), fp32, or auto: bf16 where the processor has it"""
