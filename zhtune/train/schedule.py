"""Learning rate, batches, precision of one training run. Needs no torch, so that configs can be read without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zhtune.config import Checked
from zhtune.errors import ConfigError


@dataclass(frozen=True)
class Schedule(Checked):
    """How a model is trained."""

    learning_rate: float = 2e-4
    """Peak learning rate"""
    epochs: int = 1
    """How often each sample is seen"""
    batch_size: int = 16
    """Samples an optimizer step, over all processes"""
    micro_batch: int | Literal["auto"] = 0
    """Samples at once in one process, a divisor of its share of the batch; 0: all of it; auto: as many as fit in memory. Changes no loss"""
    decay: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warmup"""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises"""
    weight_decay: float = 0.0
    """Decay of the weights (AdamW)"""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm"""
    optimizer: Literal["adamw", "adamw8bit", "paged_adamw8bit", "paged_adamw32bit"] = "adamw"
    """adamw, or one of bitsandbytes: 8-bit state, paged out of the card's memory when it is full"""
    gradient_checkpointing: bool = False
    """Keep no activations between layers and compute them again: less memory, about a third more time"""
    checkpoints: int = 4
    """How many checkpoints are written on the way, one at the end not counted; the last two, and the best, are kept until the stage ends"""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """bf16 or fp16 (autocast, float32 master weights; fp16 with loss scaling), fp32, or auto: what the card or processor has"""

    def check(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.checkpoints < 0:
            raise ConfigError("--schedule.epochs and --schedule.batch_size must be at least 1, --schedule.checkpoints not negative")
        if self.micro_batch != "auto" and self.micro_batch and self.batch_size % self.micro_batch:
            raise ConfigError(f"--schedule.micro_batch {self.micro_batch} does not divide --schedule.batch_size {self.batch_size}")


@dataclass(frozen=True)
class Validation(Checked):
    """What is held out of training and measured on the way."""

    share: float = 0.0
    """Share of the prompts held out, chosen by their hash; the checkpoint with the lowest loss on them is kept"""
    patience: int = 0
    """Stop after so many measurements without a better loss; 0: never"""

    def check(self) -> None:
        if not 0 <= self.share <= 0.5:
            raise ConfigError("--validation.share is a share from 0 to 0.5")


@dataclass(frozen=True)
class Launch(Checked):
    """Where a run runs and whom it tells; changes no result beyond rounding."""

    strategy: str = ""
    """How several processes share the weights: empty (each holds all), zero2, zero3, zero3_offload, fsdp2, or a DeepSpeed JSON file"""
    report_to: str = ""
    """Trackers of transformers to report to (wandb, swanlab, mlflow …), by comma; empty: logs/, with TensorBoard where it is installed"""
