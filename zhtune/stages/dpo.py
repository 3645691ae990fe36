"""Model + preferences -> adapter, by direct preference optimisation against the model itself."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError, DataError, require
from zhtune.models.context import require_context
from zhtune.models.load import load_chain, open_encoder, save_template
from zhtune.records import read_preferences
from zhtune.references import MODEL_KINDS
from zhtune.templates.encode import ChatEncoder
from zhtune.tokenizers.load import read_object
from zhtune.train.adapter import Lora, Tuning
from zhtune.train.schedule import Schedule

STAGE = Stage("dpo", version=2, kind="adapter", inputs={"model": MODEL_KINDS, "preferences": ("preferences", "file")})


@dataclass(frozen=True, kw_only=True)
class DpoConfig(StageConfig):
    """Direct preference optimisation; the model without the adapter is the reference, so the adapter must begin by changing nothing."""

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
    beta: float = 0.1
    """How strongly the reference holds the model"""
    max_length: int = 512
    """Longest prompt with answer in tokens; longer pairs are dropped and counted"""
    template: str = ""
    """A chat template of prompts/chat, for a base that has none"""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ConfigError("--beta must be above 0")


def dpo(config: DpoConfig) -> Artifact:
    """Train an adapter on preference pairs; an interrupted run goes on from its last checkpoint.

    Raises:
        DataError: no pair is left, or the loss is no number.
    """
    return build(STAGE, config, lambda work: _write(work, config), resumable=True)


def _write(work: Work, config: DpoConfig) -> None:
    require("torch", "train"), require("trl", "train")
    from zhtune.train import finetune, preference
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        encoder, folder = open_encoder(work.sources["model"], Path(scratch), config.template)
        quantized = finetune.check(work.sources["model"], folder, config.method, config.lora, config.tuning)
        require_context(read_object(folder / "config.json"), "--max_length", config.max_length)
        pairs = _encode(work, encoder, config.max_length)
        model, _ = load_chain(work.sources["model"], Path(scratch), quantized=quantized)
        model = finetune.prepare(model, config.method, config.lora, config.tuning, config.seed, folder)
        figures = preference.train_pairs(model, folder, pairs, config.schedule, config.beta, work.path / "checkpoints", config.seed)
        finetune.save(work, model, config.method, Path(config.out), work.sources["model"], folder)
        save_template(encoder, folder, work.path)
    finetune.report_training(work, figures)
    work.report["rewards"] = figures["rewards"]
    work.metrics |= {"margin": figures["rewards"]["margins"][1], "accuracy": figures["rewards"]["accuracies"][1]}


def _encode(work: Work, encoder: ChatEncoder, longest: int) -> list[Any]:
    from zhtune.train.preference import Pair
    path = work.sources["preferences"].path
    file = path / "preferences.jsonl" if path.is_dir() else path
    pairs = []
    for number, row in read_preferences(file):
        work.counted_in += 1
        prompt = encoder.prompt(row["prompt"])
        answers = [_answer(encoder, row["prompt"], row[key][-1]) for key in ("chosen", "rejected")]
        if answers[0] == answers[1]:
            work.drop("same_answers", line=number)
        elif len(prompt) + max(map(len, answers)) > longest:
            work.drop("too_long", line=number)
        else:
            pairs.append(Pair(prompt, *answers))
    work.kept = len(pairs)
    if not pairs:
        raise DataError(f"no pair is left to train on: {dict(work.dropped) or 'the file is empty'}", file)
    return pairs


def _answer(encoder: ChatEncoder, prompt: list[dict[str, Any]], answer: dict[str, Any]) -> list[int]:
    """Ids of an answer, up to and with the end-of-turn token: what a training sample has behind the prompt."""
    sample = encoder.sample([*({**message, "train": False} for message in prompt), {**answer, "train": True}])
    before = len(encoder.prompt(prompt))
    return [i for i, trained in zip(sample.ids[before:], sample.mask[before:], strict=True) if trained]
