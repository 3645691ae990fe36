"""One training run on TRL's trainers: answers only, checkpoints that can be trusted, equal losses after a resume.

This module imports torch and TRL at its top; stages import it inside their functions. It writes no trainer of its own:
it overrides how SFTTrainer computes its loss (see loss.py) and averages it over validation data.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import torch
from huggingface_hub import constants as hub
from transformers import EarlyStoppingCallback, PreTrainedTokenizerFast, PrinterCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from zhtune.errors import require
from zhtune.log import logger
from zhtune.models.load import causal_of, clear_card, fuse_attention
from zhtune.train import parallel
from zhtune.train.batches import Collator
from zhtune.train.callbacks import Checkpoints, Heap, Progress, keep_heap, last_whole_checkpoint, memory_gib
from zhtune.train.loss import answer_loss
from zhtune.train.memory import find_micro_batch, free_bytes, in_words
from zhtune.train.precision import choose, halve_frozen, this_device
from zhtune.train.report import readable
from zhtune.train.samples import IGNORED, Sample, dataset, order
from zhtune.train.schedule import Launch, Schedule

hub.HF_HUB_DISABLE_TELEMETRY = True                         # TRL tells its makers of every run: nothing that is done here is told
_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw8bit": "adamw_bnb_8bit", "paged_adamw8bit": "paged_adamw_8bit",
               "paged_adamw32bit": "paged_adamw_32bit"}
_FUSED = 384                                                # tokens of a row from which fused attention pays on a processor
_DECAYS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Run:
    """What a run has beside model and samples."""

    schedule: Schedule
    folder: Path
    """For checkpoints"""
    seed: int
    """Of the order of samples"""
    launch: Launch = field(default_factory=Launch)
    logs: Path | None = None
    """Folder of the log of steps"""
    validation: Sequence[Any] = ()
    """Measured at every checkpoint; the checkpoint with the lowest loss is kept"""
    patience: int = 0
    """Measurements without a better loss after which training stops; 0: never"""
    measure: Callable[[Any], dict[str, float]] | None = None
    """Figures of the model at every checkpoint (names begin with eval_), instead of a loss"""
    neftune: float = 0.0
    """Strength of noise on the embeddings (Jain et al. 2023, arXiv 2310.05914)"""


def train(model: Any, tokenizer_folder: Path, samples: list[Sample], run: Run) -> dict[str, Any]:
    """Train `model` in place; goes on from the last whole checkpoint if there is one.

    Args:
        model: a causal language model or a PeftModel, float32.
        tokenizer_folder: where its tokenizer.json lies.
        samples: what to train on; all packed or none.
        run: how.

    Returns:
        the figures of `fit`, with "first_batch", its samples as text.

    Raises:
        DataError: the loss is no number.
        ConfigError: a precision, strategy or batch that cannot be; out of memory.
    """
    rows = order([len(s.input_ids) for s in samples], run.schedule.batch_size, run.schedule.epochs, run.seed)
    tokens = sum(len(samples[i].input_ids) for i in rows)
    announce(model, len(samples), tokens, run.schedule, len(rows))
    tokenizer = tokenizer_of(tokenizer_folder)
    batch = [readable(samples[i], tokenizer) for i in rows[:run.schedule.batch_size]]
    logger.info("first of the first batch, 【trained】: %s", batch[0])
    more = {"dataset_kwargs": {"skip_prepare_dataset": True}, "packing": False, "neftune_noise_alpha": run.neftune or None}
    args = arguments(SFTConfig, run, len(rows), more, model)
    if not torch.cuda.is_available() and statistics.median(len(s.input_ids) for s in samples) > _FUSED:
        fuse_attention(model)
    collator = Collator(tokenizer.pad_token_id, causal_of(model).config._attn_implementation == "flash_attention_2")
    if run.schedule.micro_batch == "auto":
        longest = max(samples, key=lambda s: len(s.input_ids))
        fit_micro_batch(args, run, model, lambda count: _one_loss(model, collator(dataset([longest], [0] * count).to_list()), args))
    multiple = args.per_device_train_batch_size * parallel.world()
    measured = list(run.validation) or (samples[:1] if run.measure else [])     # Trainer wants data even where `measure` has its own
    held = dataset(measured, list(range(len(measured))), multiple) if measured else None
    with own_types(model), in_words(model, run.schedule.optimizer, args.per_device_train_batch_size):   # the trainer moves it
        trainer = AnswerTrainer(model=model, args=args, train_dataset=dataset(samples, rows, multiple if parallel.world() > 1 else 1),
                                eval_dataset=held, data_collator=collator, processing_class=tokenizer, measure=run.measure)
    return fit(trainer, run, tokens, len(rows)) | {"first_batch": batch}


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


def fit(trainer: Any, run: Run, tokens: int, rows: int) -> dict[str, Any]:
    """Run a TRL trainer, from its last whole checkpoint if there is one.

    Returns:
        `{"losses": [[step, loss]…], "validation": [[step, loss]…], "history", "steps", "tokens", "seconds", "memory", "best", "weights"}`;
        memory in GiB; "weights" holds all of them where an engine has divided the model.
    """
    keep_heap()
    transformers_logging.disable_progress_bar()
    parallel.require_strategy(trainer.accelerator, run.launch.strategy)
    steps = math.ceil(rows / run.schedule.batch_size)
    trainer.remove_callback(PrinterCallback)
    if run.logs is not None and trainer.is_world_process_zero():
        run.logs.mkdir(exist_ok=True)
        _tensorboard(trainer, run)
    for callback in (Checkpoints(), Progress(steps, tokens, run.logs and run.logs / "steps.jsonl"), Heap()):
        trainer.add_callback(callback)
    if run.validation and run.patience:
        trainer.add_callback(EarlyStoppingCallback(run.patience))
    last = last_whole_checkpoint(run.folder)
    if last is not None:
        logger.info("going on from step %s of %s", last.name.rpartition("-")[2], steps)
    with in_words(trainer.model, run.schedule.optimizer, trainer.args.per_device_train_batch_size):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    log, state = trainer.state.log_history, trainer.state
    return {"losses": [[entry["step"], entry["loss"]] for entry in log if "loss" in entry],
            "validation": [[entry["step"], entry["eval_loss"]] for entry in log if "eval_loss" in entry],
            "history": log, "steps": state.global_step, "tokens": round(tokens * state.global_step / steps),
            "seconds": log[-1].get("train_runtime", 0.0), "memory": memory_gib(), "weights": parallel.gathered(trainer),
            "best": {"step": state.best_global_step, "loss": state.best_metric} if state.best_metric is not None else None}


class AnswerTrainer(SFTTrainer):
    """SFTTrainer whose loss is computed at trained positions only; mean over all trained tokens of the step."""

    def __init__(self, *args: Any, measure: Callable[[Any], dict[str, float]] | None, **more: Any):
        super().__init__(*args, **more)
        self._measure = measure
        self.model_accepts_loss_kwargs = True               # count trained tokens over the whole step, whatever the model's class is

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        total, count = self._sum(model, inputs)
        if num_items_in_batch is None:
            return total / count
        return total * self.accelerator.num_processes / num_items_in_batch      # gradients are averaged over processes

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Mean loss over all trained tokens of the validation data, whatever its batches are; or what `measure` says."""
        model = self.model_wrapped
        model.eval()
        if self._measure is not None:
            metrics = self._measure(self.model)
        else:
            sums = torch.zeros(2, dtype=torch.float64)
            with torch.no_grad():
                for inputs in self.get_eval_dataloader():
                    sums += torch.stack([part.double().cpu() for part in self._sum(model, self._prepare_inputs(inputs))])
            total, count = self.accelerator.gather(sums.float().to(self.args.device)).reshape(-1, 2).sum(0).tolist()
            metrics = {"eval_loss": total / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _sum(self, model: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        labels = inputs["labels"]
        given = {name: value for name, value in inputs.items() if name != "labels"}
        total = answer_loss(model, causal_of(self.accelerator.unwrap_model(model)), given, labels, self.accelerator.autocast())
        return total, (labels[:, 1:] != IGNORED).sum()


def arguments(kind: type, run: Run, rows: int, more: dict[str, Any], model: Any) -> Any:
    """TRL's settings of a run: what its defaults switch on (bf16, gradient checkpointing, sampling) is decided here.

    Frozen weights of `model` are stored in 16 bit on a card, and its attention is set.
    """
    schedule, device = run.schedule, this_device()
    precision = choose(schedule.precision, device)
    parallel.require_start(run.launch.strategy, device.cuda)
    if schedule.optimizer != "adamw":
        require("bitsandbytes", "qlora")
    if device.cuda:
        halve_frozen(model, precision)
        _set_attention(model, precision)
    share, at_once = parallel.share_of_batch(schedule)
    steps = math.ceil(rows / schedule.batch_size)
    every = max(1, math.ceil(steps / (schedule.checkpoints + 1)))
    measured = {"eval_strategy": "steps", "eval_steps": every} if run.validation or run.measure else {}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False} if run.validation else {}
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)   # TRL sets it itself
    made = kind(
        output_dir=str(run.folder), per_device_train_batch_size=at_once, per_device_eval_batch_size=at_once,
        gradient_accumulation_steps=share // at_once, num_train_epochs=1, learning_rate=schedule.learning_rate,
        lr_scheduler_type=_DECAYS[schedule.decay], warmup_steps=schedule.warmup, adam_beta2=0.99, weight_decay=schedule.weight_decay,
        max_grad_norm=schedule.max_grad_norm, optim=_OPTIMIZERS[schedule.optimizer], bf16=precision == "bf16", fp16=precision == "fp16",
        use_cpu=not device.cuda and not parallel.asked_for(run.launch.strategy), gradient_checkpointing=schedule.gradient_checkpointing,
        train_sampling_strategy="sequential", max_length=None, report_to=[n for n in run.launch.report_to.split(",") if n not in ("", "tensorboard")],
        logging_steps=max(1, steps // 50), logging_nan_inf_filter=False, disable_tqdm=True, save_strategy="steps", save_steps=every,
        save_total_limit=2, dataloader_num_workers=0, dataloader_pin_memory=device.cuda, remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True, ddp_find_unused_parameters=False, seed=run.seed, data_seed=run.seed,
        **measured, **best, **parallel.settings(run.launch.strategy), **more)
    made._n_gpu = min(made.n_gpu, 1)                        # one process trains on one card: DataParallel breaks batch and loss
    return made


def fit_micro_batch(args: Any, run: Run, model: Any, loss_of: Callable[[int], Any]) -> None:
    """Set the micro batch of `args` to the largest that fits, once: a resumed run takes the same."""
    share, noted = args.per_device_train_batch_size * args.gradient_accumulation_steps, run.folder / "micro_batch.json"
    if noted.exists():
        at_once = orjson.loads(noted.read_bytes())
    else:
        model.to(args.device)
        if run.schedule.gradient_checkpointing:             # as the trainer will
            causal_of(model).gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
        clear_card()                                        # the library's cache counts as used
        with in_words(model, run.schedule.optimizer, 1):
            at_once = parallel.together(find_micro_batch(loss_of, model, run.schedule.optimizer, share, free_bytes(model)))
        if args.process_index == 0:
            run.folder.mkdir(exist_ok=True, parents=True)
            noted.write_bytes(orjson.dumps(at_once))
    args.per_device_train_batch_size, args.gradient_accumulation_steps = at_once, share // at_once
    args.per_device_eval_batch_size = at_once


def _one_loss(model: Any, batch: dict[str, Any], args: Any) -> Any:
    inputs = {name: value.to(args.device) for name, value in batch.items()}
    autocast = partial(torch.autocast, args.device.type, torch.bfloat16 if args.bf16 else torch.float16, enabled=args.bf16 or args.fp16)
    model.train()
    with autocast():                                        # one object entered twice would stay on
        return answer_loss(model, causal_of(model), inputs, inputs.pop("labels"), autocast())


def _set_attention(model: Any, precision: str) -> None:
    ampere = torch.cuda.get_device_capability()[0] >= 8
    fuse_attention(model, flash=ampere and precision != "fp32" and importlib.util.find_spec("flash_attn") is not None)


def _tensorboard(trainer: Any, run: Run) -> None:
    """Write TensorBoard's files into logs/, where it is installed and no other tracker is asked for."""
    wanted = "tensorboard" in run.launch.report_to.split(",")
    if wanted:
        require("tensorboard", "train")
    elif run.launch.report_to or importlib.util.find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback
    trainer.add_callback(TensorBoardCallback(SummaryWriter(log_dir=str(run.logs))))


def tokenizer_of(folder: Path) -> PreTrainedTokenizerFast:
    """What TRL's collators pad with; it never sees text."""
    config = orjson.loads((folder / "tokenizer_config.json").read_bytes()) if (folder / "tokenizer_config.json").exists() else {}
    named = {name: value["content"] if isinstance(value, dict) else value for name in ("pad_token", "eos_token") if (value := config.get(name))}
    pad = named.get("pad_token") or named.get("eos_token") or "<pad>"
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token=pad, eos_token=named.get("eos_token") or pad)
