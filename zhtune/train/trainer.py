"""One training run on TRL's SFTTrainer: answers only, checkpoints that can be trusted, equal losses after a resume.

This module imports torch and TRL at its top; stages import it inside their functions. It writes no trainer of its own:
it overrides `compute_loss`, because off CUDA TRL 1.16 scores every position, prompts and padding too, against the whole
vocabulary, which costs 2.5 to 3 times the time.
"""

from __future__ import annotations

import ctypes
import math
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import torch
from transformers import PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from zhtune.errors import DataError
from zhtune.log import logger
from zhtune.records import write_json
from zhtune.references import hash_file
from zhtune.train.samples import IGNORED, Sample, dataset
from zhtune.train.schedule import Schedule

_WHOLE = "whole.json"                                       # written last into a checkpoint: the sizes of its files


def train(model: Any, tokenizer_folder: Path, samples: list[Sample], schedule: Schedule, folder: Path, seed: int) -> dict[str, Any]:
    """Train `model` in place; goes on from the last whole checkpoint in `folder` if there is one.

    Args:
        model: a causal language model or a PeftModel, float32.
        tokenizer_folder: where its tokenizer.json lies.
        samples: what to train on.
        schedule: how.
        folder: for checkpoints.
        seed: of the order of samples.

    Returns:
        `{"losses": [[step, loss]…], "steps", "tokens", "seconds"}`.

    Raises:
        DataError: the loss is no number.
    """
    rows = dataset(samples, schedule.batch_size, schedule.epochs, seed)
    tokens = sum(len(s.input_ids) for s in samples) * schedule.epochs
    announce(model, len(samples), tokens, schedule, len(rows))
    more = {"dataset_kwargs": {"skip_prepare_dataset": True}, "packing": False}
    with own_types(model):
        trainer = AnswerTrainer(model=model, args=arguments(SFTConfig, schedule, folder, len(rows), seed, more), train_dataset=rows,
                                processing_class=tokenizer_of(tokenizer_folder))
    return fit(trainer, folder) | {"tokens": tokens}


@contextmanager
def own_types(model: Any) -> Iterator[None]:
    """Undo what TRL's constructors do to adapters on a quantized base: they round them to bf16, which Turing cards have not."""
    types = [(weight, weight.dtype) for weight in model.parameters() if weight.requires_grad]
    yield
    for weight, dtype in types:
        weight.data = weight.data.to(dtype)


def announce(model: Any, samples: int, tokens: int, schedule: Schedule, rows: int) -> None:
    """The derived numbers of a run, in one line, before it starts."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    logger.info("%s samples, %s steps of %s, %s tokens; %.1f of %.1f M parameters are trained (%.1f %%)",
                f"{samples:,}", math.ceil(rows / schedule.batch_size), schedule.batch_size, f"{tokens:,}", trainable / 1e6,
                everything / 1e6, 100 * trainable / everything)


def fit(trainer: Any, folder: Path) -> dict[str, Any]:
    """Run a TRL trainer, from its last whole checkpoint if there is one; `{"losses", "history", "steps", "seconds"}`."""
    keep_heap()
    transformers_logging.disable_progress_bar()
    steps = math.ceil(len(trainer.train_dataset) / trainer.args.per_device_train_batch_size)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Checkpoints())
    trainer.add_callback(_Progress(steps))
    trainer.add_callback(_Heap())
    last = last_whole_checkpoint(folder)
    if last is not None:
        logger.info("going on from step %s of %s", last.name.rpartition("-")[2], steps)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    log = trainer.state.log_history
    return {"losses": [[entry["step"], entry["loss"]] for entry in log if "loss" in entry], "history": log, "steps": steps,
            "seconds": log[-1].get("train_runtime", 0.0)}


class AnswerTrainer(SFTTrainer):
    """SFTTrainer whose loss is computed at trained positions only; mean over all trained tokens of the step."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        bare = self.accelerator.unwrap_model(model)
        causal = bare.get_base_model() if hasattr(bare, "get_base_model") else bare     # PEFT's wrapper has it, a plain model not
        labels = inputs["labels"][:, 1:]                    # (batch, sequence - 1)
        trained = labels != IGNORED
        with self.accelerator.autocast():
            hidden = causal.get_decoder()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
            logits = causal.get_output_embeddings()(hidden.last_hidden_state[:, :-1][trained])  # (trained tokens, vocabulary)
        total = torch.nn.functional.cross_entropy(logits.float(), labels[trained], reduction="sum")
        return total / (trained.sum() if num_items_in_batch is None else num_items_in_batch)


def arguments(kind: type, schedule: Schedule, folder: Path, rows: int, seed: int, more: dict[str, Any]) -> Any:
    """TRL's settings of a run: what its defaults switch on (bf16, gradient checkpointing, sampling) is decided here."""
    cuda = torch.cuda.is_available()
    bf16 = schedule.precision == "bf16" or (schedule.precision == "auto" and _has_bf16(cuda))
    steps = math.ceil(rows / schedule.batch_size)
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)   # TRL sets it itself
    return kind(
        output_dir=str(folder), per_device_train_batch_size=schedule.batch_size, num_train_epochs=1,
        learning_rate=schedule.learning_rate, lr_scheduler_type="linear", warmup_steps=schedule.warmup, adam_beta2=0.99,
        weight_decay=0.0, max_grad_norm=schedule.max_grad_norm, optim="adamw_torch_fused", bf16=bf16, use_cpu=not cuda,
        gradient_checkpointing=False, train_sampling_strategy="sequential", max_length=None, report_to="none",
        logging_steps=max(1, steps // 50), logging_nan_inf_filter=False, disable_tqdm=True, save_strategy="steps",
        save_steps=max(1, math.ceil(steps / (schedule.checkpoints + 1))), save_total_limit=2, dataloader_num_workers=0,
        dataloader_pin_memory=cuda, seed=seed, data_seed=seed, **more)


def _has_bf16(cuda: bool) -> bool:
    if cuda:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def tokenizer_of(folder: Path) -> PreTrainedTokenizerFast:
    """What TRL's collators pad with; it never sees text."""
    config = orjson.loads((folder / "tokenizer_config.json").read_bytes()) if (folder / "tokenizer_config.json").exists() else {}
    pad = config.get("pad_token") or config.get("eos_token") or "<pad>"
    pad = pad["content"] if isinstance(pad, dict) else pad
    eos = config.get("eos_token") or pad
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token=pad,
                                   eos_token=eos["content"] if isinstance(eos, dict) else eos)


class _Checkpoints(TrainerCallback):
    """Marks a checkpoint as whole after its last file is written: a kill in between leaves it unmarked and unused."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_json(folder / _WHOLE, {p.name: [p.stat().st_size, hash_file(p)] for p in sorted(folder.iterdir()) if p.is_file()})


class _Heap(TrainerCallback):
    """Gives the kept heap back every tenth step: kept for ever it fragments (7.7 GB after 630 steps)."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % 10 == 0 and (libc := _glibc()) is not None:
            libc.malloc_trim(0)


class _Progress(TrainerCallback):
    """One log line for every tenth of the run; stops on a loss that is no number."""

    def __init__(self, steps: int):
        self._steps, self._next = steps, 0.1

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise DataError(f"the loss is {loss} at step {state.global_step}; lower --schedule.learning_rate or look at the data")
        done = state.global_step / self._steps
        if done >= self._next:
            logger.info("step %d of %d, loss %.3f, learning rate %.1e", state.global_step, self._steps, loss, logs["learning_rate"])
            self._next = math.floor(done * 10) / 10 + 0.1


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
