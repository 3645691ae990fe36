"""Several processes: shares of a batch, DeepSpeed and FSDP settings, and that what was asked for is what runs.

The processes come from torchrun, accelerate or deepspeed; this module starts none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from zhtune import assets
from zhtune.errors import ConfigError, require
from zhtune.train.schedule import Schedule


def world() -> int:
    """How many processes the launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def take_card() -> None:
    """Make the card that the launcher gave this process the current one, where libraries put what they load."""
    if world() > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def share_of_batch(schedule: Schedule) -> tuple[int, int]:
    """(samples a step, samples at once) of one process.

    Raises:
        ConfigError: they do not divide.
    """
    share, rest = divmod(schedule.batch_size, world())
    if rest or not share:
        raise ConfigError(f"--schedule.batch_size {schedule.batch_size} is over all processes and {world()} of them do not divide it")
    at_once = share if schedule.micro_batch in (0, "auto") else min(int(schedule.micro_batch), share)
    if share % at_once:
        raise ConfigError(f"--schedule.micro_batch {at_once} does not divide the {share} samples of one of {world()} processes")
    return share, at_once


def settings(strategy: str) -> dict[str, Any]:
    """What TrainingArguments need for a strategy: a shipped name or a DeepSpeed JSON file.

    Raises:
        ConfigError: neither.
    """
    if not strategy:
        return {}
    values = _values(strategy)
    if "zero_optimization" not in values:
        return {"fsdp": True, "fsdp_config": values}
    require("deepspeed", "cluster")
    return {"deepspeed": values}


def _values(strategy: str) -> dict[str, Any]:
    shipped = assets.root() / "scripts" / "deepspeed"
    file = Path(strategy) if strategy.endswith(".json") else shipped / f"{strategy}.json"
    if not file.exists():
        raise ConfigError(f"--launch.strategy {strategy}: no such file; shipped are {', '.join(sorted(p.stem for p in shipped.glob('*.json')))}")
    return json.loads(file.read_text("utf-8"))


def divides_weights(strategy: str) -> str:
    """"ZeRO-3" or "FSDP", where no process will hold a whole weight; else empty."""
    kind = asked_for(strategy)
    file = strategy or os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")
    if kind != "DEEPSPEED":
        return kind
    stage = _values(file).get("zero_optimization", {}).get("stage") if file else os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE")
    return "ZeRO-3" if str(stage) == "3" else ""


def asked_for(strategy: str) -> str:
    """"DEEPSPEED", "FSDP" or "" as --launch.strategy or accelerate's own environment says."""
    if strategy:
        return "DEEPSPEED" if "zero_optimization" in _values(strategy) else "FSDP"
    return next((kind for kind in ("DEEPSPEED", "FSDP") if os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() == "true"), "")


def require_start(strategy: str, cuda: bool) -> None:
    """Refuse FSDP where it cannot run, before a library says so in its own words.

    Raises:
        ConfigError: one process, or no card.
    """
    if asked_for(strategy) == "FSDP" and not (cuda and world() > 1):
        raise ConfigError(f"FSDP was asked for with {world()} process{'es' if world() > 1 else ''} {'and' if cuda else 'without'} CUDA cards; "
                          f"it needs several, each with a card: torchrun --nproc_per_node N -m zhtune …")


def require_strategy(accelerator: Any, strategy: str) -> None:
    """Refuse to train when the engine is not what was asked for: libraries drop it in silence.

    Raises:
        ConfigError: another engine, another ZeRO stage, or processes that do not know of each other.
    """
    wanted, found = asked_for(strategy), accelerator.distributed_type.name
    if wanted and found != wanted:
        raise ConfigError(f"{wanted} was asked for and {found} runs; it needs CUDA cards and a start by torchrun, accelerate or deepspeed")
    if accelerator.num_processes != world():
        raise ConfigError(f"{world()} processes were started and {found} knows of {accelerator.num_processes}: each would train on all data")
    if found == "DEEPSPEED" and strategy:
        stage, got = _values(strategy)["zero_optimization"]["stage"], accelerator.state.deepspeed_plugin.zero_stage
        if stage != got:
            raise ConfigError(f"ZeRO stage {stage} was asked for and stage {got} runs")


def gathered(trainer: Any) -> dict[str, Any] | None:
    """All weights of a model that DeepSpeed or FSDP has divided; None where each process holds them. All processes call it."""
    if trainer.accelerator.distributed_type.name not in ("DEEPSPEED", "FSDP"):
        return None
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


def together(value: int) -> int:
    """The smallest of the processes' values: they must agree, and the fullest card decides."""
    if not torch.distributed.is_initialized():
        return value
    least = torch.tensor(value, device="cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    return int(least)
