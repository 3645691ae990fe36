"""What happens beside the steps: checkpoints that can be trusted, progress, the log file, the heap. Computes no loss."""

from __future__ import annotations

import ctypes
import math
import platform
import resource
import time
from pathlib import Path
from typing import Any

import orjson
import torch
from transformers import TrainerCallback

from zhtune.digests import hash_file
from zhtune.errors import DataError
from zhtune.log import Bar, logger
from zhtune.records import dumps

_WHOLE = "whole.json"                                       # written last into a checkpoint: the sizes of its files


class Checkpoints(TrainerCallback):
    """Marks a checkpoint as whole after its last file is written: a kill in between leaves it unmarked and unused."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.distributed.is_initialized():              # every process writes its own random state
            torch.distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            files = (p for p in sorted(folder.rglob("*")) if p.is_file())
            content = {p.relative_to(folder).as_posix(): [p.stat().st_size, hash_file(p)] for p in files}
            (folder / _WHOLE).write_bytes(dumps(content))   # waits for no disk: what a crash tears has another digest


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all there with their content; broken ones are passed over."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    return next((checkpoint for checkpoint in found if _is_whole(checkpoint)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        files = orjson.loads((checkpoint / _WHOLE).read_bytes())
        return all((checkpoint / name).stat().st_size == size and hash_file(checkpoint / name) == digest
                   for name, (size, digest) in files.items())
    except (OSError, orjson.JSONDecodeError):
        return False


class Progress(TrainerCallback):
    """A bar on a terminal, a line for every tenth of the run, a line of JSON for each logged step; stops on a loss that is no number.

    Args:
        steps: of the run.
        tokens: real tokens of all steps.
        log: file of JSON lines, or None.
    """

    def __init__(self, steps: int, tokens: int, log: Path | None):
        self._steps, self._each, self._log, self._next = steps, tokens / steps, log, 0.1

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began, self._first = time.monotonic(), state.global_step
        self._bar = Bar("train", self._steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        logs, step = logs or {}, state.global_step
        if self._log is not None and state.is_world_process_zero:
            with open(self._log, "ab") as file:
                file.write(dumps({"step": step, **logs}) + b"\n")
        loss = logs.get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise DataError(f"the loss is {loss} at step {step}; lower --schedule.learning_rate or look at the data")
        seconds = (time.monotonic() - self._began) / max(step - self._first, 1)
        text = (f"step {step} of {self._steps}, loss {loss:.3f}, learning rate {logs['learning_rate']:.1e}, {self._each / seconds:.0f} tokens/s, "
                f"{memory_gib():.1f} GiB, {_minutes(seconds * (self._steps - step))} left")
        self._bar.update(step, text)
        if step / self._steps >= self._next:
            logger.info(text)
            self._next = math.floor(step / self._steps * 10) / 10 + 0.1

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any) -> None:
        found = (f"{word} {metrics[name]:.4g}" for name, word in _MEASURED.items() if name in (metrics or {}))
        logger.info("step %d: %s", state.global_step, ", ".join(found))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.close()


_MEASURED = {"eval_loss": "validation loss", "eval_bits_per_character": "bits per character", "eval_rewards/accuracies": "accuracy",
             "eval_rewards/margins": "margin"}


def memory_gib() -> float:
    """Peak memory of this process: the card's, or resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


class Heap(TrainerCallback):
    """Gives the kept heap back every tenth step, else it fragments (7.7 GB after 630 steps), and what earlier stages left at the start."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if (libc := _glibc()) is not None:
            libc.malloc_trim(0)

    on_train_end = on_train_begin

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % 10 == 0:
            self.on_train_begin(args, state, control)


def keep_heap() -> None:
    """Let glibc keep freed memory: without it every step maps its large tensors anew (741 against 637 tokens per second).

    Only blocks above 1 GiB are still mapped one by one; with none mapped at all the heap fragments (11.5 against 3.1 GB).
    """
    libc = _glibc()
    if libc is None:
        return
    for option, value in ((-3, 1 << 30), (-1, 2**31 - 1), (-2, 64 << 20)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
        libc.mallopt(option, value)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc: others have neither mallopt nor malloc_trim."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
