"""What a training step needs, measured on one sample, against what is free; and running out of memory, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from zhtune.errors import ConfigError
from zhtune.log import logger

_STATE = {"adamw": 8, "adamw8bit": 2, "paged_adamw8bit": 0, "paged_adamw32bit": 0}   # optimizer bytes a weight, in the device's memory
_LARGE = 1 << 22                                            # weights of a frozen matrix that is worth fewer bits
_MARGIN = 1.25                                              # of measured activations: gradients of activations, fragments


def find_micro_batch(loss_of: Callable[[int], Any], model: Any, optimizer: str, share: int, free: int) -> int:
    """The largest divisor of `share` whose activations fit beside gradients and optimizer state.

    Args:
        loss_of: the loss of so many of the longest samples; run for one and for two (on a card backward, too), nothing is stepped.
        model: on its device.
        optimizer: a name of Schedule.optimizer.
        share: samples that one process has to do a step.
        free: bytes that are free.

    Raises:
        ConfigError: not even one sample fits.
    """
    measure = _peak_bytes if next(model.parameters()).is_cuda else _saved_bytes
    one = measure(loss_of, model, 1)
    try:
        two = measure(loss_of, model, 2)
    except torch.OutOfMemoryError:
        logger.info("micro batch 1 of %d: two samples do not fit", share)
        return 1
    sample = max(two - one, 1) * _MARGIN
    fixed = state_bytes(model, optimizer) + max(one - sample, 0)
    fitting = [n for n in range(1, share + 1) if share % n == 0 and fixed + n * sample <= free]
    if not fitting:
        raise ConfigError(_advice(f"one sample needs {_gib(fixed + sample)}, {_gib(free)} are free", model, optimizer, 1))
    logger.info("micro batch %d of %d: %s a sample, %s for gradients and optimizer, %s free",
                fitting[-1], share, _gib(sample), _gib(fixed), _gib(free))
    return fitting[-1]


def _peak_bytes(loss_of: Callable[[int], Any], model: Any, count: int) -> int:
    """Bytes that a forward and backward pass take on the card at most, weights and gradients aside: what is computed again counts too."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.random.fork_rng():
        loss_of(count).backward()
    model.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated() - before - sum(4 * p.numel() for p in model.parameters() if p.requires_grad)


def _saved_bytes(loss_of: Callable[[int], Any], model: Any, count: int) -> int:
    """Bytes that autograd keeps for the backward pass of a loss, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor                                       # kept alive, so that no address is used twice
    with torch.random.fork_rng(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(count)
    del loss
    return sum(kept.values())


def state_bytes(model: Any, optimizer: str) -> int:
    """Bytes of float32 gradients and optimizer state."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad) * (4 + _STATE[optimizer])


def free_bytes(model: Any) -> int:
    """Memory that is free where the model lies."""
    if next(model.parameters()).is_cuda:
        return torch.cuda.mem_get_info()[0]
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


@contextmanager
def in_words(model: Any, optimizer: str, micro_batch: int) -> Iterator[None]:
    """Turn running out of memory into one line that says what to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = ("out of memory", "not enough memory", "can't allocate memory", "Cannot allocate memory")
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and not any(word in str(error) for word in words):
            raise
        raise ConfigError(_advice(str(error).splitlines()[0][:160], model, optimizer, micro_batch)) from error


def _advice(found: str, model: Any, optimizer: str, micro_batch: int) -> str:
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    ways = [f"--schedule.micro_batch {micro_batch // 2}"] if micro_batch > 1 else ["a shorter --max_length (sft, dpo) or --block (pretrain)"]
    if not getattr(model, "is_activation_checkpointing", False):
        ways.append("--schedule.gradient_checkpointing true")
    saved = state_bytes(model, optimizer) - state_bytes(model, "paged_adamw8bit")
    if saved:
        ways.append(f"--schedule.optimizer paged_adamw8bit (saves {_gib(saved)})")
    if all(p.requires_grad for p in model.parameters()):
        ways.append("--method lora")
    elif any(not p.requires_grad and p.dim() > 1 and p.is_floating_point() and p.numel() > _LARGE for p in model.parameters()):
        ways.append("--method qlora or --tuning.quantize nf4")
    return (f"out of memory at {micro_batch} samples at once: {found}; weights {_gib(weights)}, gradients and optimizer "
            f"{_gib(state_bytes(model, optimizer))}. What helps: {', '.join(ways)}")


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
