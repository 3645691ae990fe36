"""Model + preferences -> adapter, by direct preference optimisation (or KTO) against the model itself."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError, DataError, require
from zhtune.log import logger
from zhtune.models.context import require_context
from zhtune.models.load import open_encoder, save_template
from zhtune.records import read_preferences
from zhtune.references import MODEL_KINDS
from zhtune.templates.encode import ChatEncoder
from zhtune.tokenizers.load import read_object
from zhtune.train import mixing
from zhtune.train.adapter import Lora, Tuning
from zhtune.train.schedule import Launch, Schedule, Validation

STAGE = Stage("dpo", version=4, kind="adapter", inputs={"model": MODEL_KINDS, "preferences": ("preferences", "file")})
_COMPARED = 64                                              # pairs whose log-probabilities are taken before and after
_ANSWERED = 8                                               # prompts that are answered before and after


@dataclass(frozen=True, kw_only=True)
class DpoConfig(StageConfig):
    """Direct preference optimisation; the model without the adapter is the reference, so the adapter must begin by changing nothing."""

    neutral: ClassVar[tuple[str, ...]] = ("launch",)

    model: str
    """The model to train"""
    preferences: str
    """Preferences: an artifact or a JSON Lines file of {"prompt": […], "chosen": […], "rejected": […]}"""
    method: Literal["lora", "qlora", "ia3"] = "lora"
    """The adapter; a fresh prefix or prompt changes answers before it has learnt anything, and cannot be one"""
    lora: Lora = field(default_factory=Lora)
    """Low-rank adaptation (lora, qlora)"""
    tuning: Tuning = field(default_factory=Tuning)
    """How the base is held"""
    schedule: Schedule = field(default_factory=lambda: Schedule(learning_rate=5e-5, batch_size=8))
    """Learning rate, batch size, epochs"""
    loss: Literal["sigmoid", "ipo", "hinge", "kto"] = "sigmoid"
    """sigmoid is DPO; kto takes chosen and rejected answers one by one, a batch is of answers then"""
    beta: float = 0.1
    """How strongly the reference holds the model"""
    label_smoothing: float = 0.0
    """Share of the preferences that may be the wrong way round (sigmoid only)"""
    reference_free: bool = False
    """Compare answers without a reference (sigmoid, ipo, hinge)"""
    validation: Validation = field(default_factory=Validation)
    """What is held out and when to stop"""
    max_length: int = 512
    """Longest prompt with answer in tokens; longer pairs are dropped and counted"""
    template: str = ""
    """A chat template of prompts/chat, for a base that has none"""
    launch: Launch = field(default_factory=Launch)
    """Several processes, trackers"""

    def check(self) -> None:
        if self.beta <= 0:
            raise ConfigError("--beta must be above 0")
        if not 0 <= self.label_smoothing < 0.5 or (self.label_smoothing and self.loss != "sigmoid"):
            raise ConfigError("--label_smoothing is a share from 0 to below 0.5, for --loss sigmoid")
        if self.schedule.micro_batch == "auto":
            raise ConfigError("--schedule.micro_batch auto is for sft and pretrain; give dpo a number")
        if self.validation.patience and not self.validation.share:
            raise ConfigError("--validation.patience needs a --validation.share: without it nothing is measured on the way")
        if self.reference_free and self.loss == "kto":
            raise ConfigError("--reference_free needs --loss sigmoid, ipo or hinge")


def dpo(config: DpoConfig) -> Artifact:
    """Train an adapter on preference pairs; an interrupted run goes on from its last checkpoint.

    Raises:
        DataError: no pair is left, or the loss is no number.
    """
    return build(STAGE, config, lambda work: _write(work, config), resumable=True, joined=True)


def _write(work: Work, config: DpoConfig) -> None:
    require("torch", "train"), require("trl", "train")
    from zhtune.train import finetune, preference, trainer
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        encoder, folder = open_encoder(work.sources["model"], Path(scratch), config.template)
        quantized = finetune.check(work.sources["model"], folder, config.method, config.lora, config.tuning)
        require_context(read_object(folder / "config.json"), "--max_length", config.max_length)
        pairs, held = _encode(work, config, encoder)
        model = finetune.load(work.sources["model"], Path(scratch), config.method, quantized, config.launch.strategy)
        model = finetune.prepare(model, config.method, config.lora, config.tuning, config.seed, folder)
        shown = (held or pairs)[:_COMPARED]
        figures = preference.train_pairs(
            model, folder, pairs, preference.Objective(config.loss, config.beta, config.label_smoothing, config.reference_free),
            trainer.Run(config.schedule, work.checkpoints, config.seed, config.launch, work.path / "logs", held, config.validation.patience),
            lambda model: _look(model, shown, encoder))
        finetune.save(work, model, config.method, Path(config.out), work.sources["model"], folder, figures["weights"])
        save_template(encoder, folder, work.path)
    finetune.report_training(work, "dpo", figures)
    work.resolved |= {"method": config.method, "quantized": quantized}
    work.report["rewards"], before, after = figures["rewards"], figures["before"], figures["after"]
    work.metrics |= {"margin": figures["rewards"]["margins"][1], **preference.compared(shown, before[0], after[0]),
                     "answer_tokens_before": before[1], "answer_tokens_after": after[1]}
    if "accuracies" in figures["rewards"]:                  # TRL's KTO logs none
        work.metrics["accuracy"] = figures["rewards"]["accuracies"][1]
    if held:
        work.metrics["validation_pairs"] = len(held)
    _warn(work.metrics, preference.COLLAPSE)


def _look(model: Any, pairs: list[Any], encoder: ChatEncoder) -> tuple[list[tuple[float, float]], float]:
    """Log-probabilities of pairs, and the mean length of the model's own answers in tokens."""
    from zhtune.train import preference
    most = min(128, 2 * max(len(p.chosen_ids) for p in pairs))
    lengths = preference.answer_lengths(model, [p.prompt_ids for p in pairs[:_ANSWERED]], encoder.stop_ids, most)
    return preference.log_probabilities(model, pairs), sum(lengths) / len(lengths)


def _warn(metrics: dict[str, Any], collapse: float) -> None:
    logger.info("dpo: chosen preferred %.1f %% -> %.1f %%, chosen %+.2f nats a token, own answers %.1f -> %.1f tokens",
                100 * metrics["preferred_before"], 100 * metrics["preferred_after"], metrics["chosen_drift"],
                metrics["answer_tokens_before"], metrics["answer_tokens_after"])
    if metrics["chosen_drift"] < collapse:
        logger.warning("dpo: the chosen answers' log-probability collapsed, %.2f nats a token: the model unlearns them with the rejected ones; "
                       "raise --beta, lower --schedule.learning_rate or --schedule.epochs, or use --loss ipo", metrics["chosen_drift"])


def _encode(work: Work, config: DpoConfig, encoder: ChatEncoder) -> tuple[list[Any], list[Any]]:
    """Pairs to train on, and those held out; a pair is never held out whose question training sees."""
    from zhtune.train.preference import Pair
    file = work.sources["preferences"].file("preferences.jsonl")
    pairs, asked = [], []
    for number, row in read_preferences(file):
        work.counted_in += 1
        prompt = encoder.prompt(row["prompt"])
        answers = [encode_answer(encoder, row["prompt"], row[key][-1]) for key in ("chosen", "rejected")]
        if answers[0] == answers[1]:
            work.drop("same_answers", line=number)
        elif len(prompt) + max(map(len, answers)) > config.max_length:
            work.drop("too_long", line=number)
        else:
            pairs.append(Pair(prompt, *answers))
            asked.append(mixing.questions(row["prompt"]))
    out = mixing.held_out(asked, config.validation.share, config.seed)
    taught = [own for own, away in zip(asked, out, strict=True) if not away]
    leaks = mixing.leaks(asked, taught)
    train = [pair for pair, away in zip(pairs, out, strict=True) if not away]
    held = [pair for pair, away, leak in zip(pairs, out, leaks, strict=True) if away and not leak]
    if config.validation.share and not held:
        raise DataError(f"--validation.share {config.validation.share} holds out none of {len(pairs)} pairs that training does not ask as well", file)
    work.kept = len(train) + len(held)
    for _ in range(len(pairs) - work.kept):
        work.drop("validation_in_training")
    if not train:
        raise DataError(f"no pair is left to train on: {dict(work.dropped) or 'the file is empty'}", file)
    return train, held


def encode_answer(encoder: ChatEncoder, prompt: list[dict[str, Any]], answer: dict[str, Any]) -> list[int]:
    """Ids of an answer, up to and with the end-of-turn token: what a training sample has behind the prompt."""
    sample = encoder.sample([*({**message, "train": False} for message in prompt), {**answer, "train": True}])
    before = len(encoder.prompt(prompt))
    return [i for i, trained in zip(sample.ids[before:], sample.mask[before:], strict=True) if trained]
