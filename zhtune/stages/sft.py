"""Records -> fine-tuned model or adapter: loss on the assistants' answers and their ends only."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError, DataError, require
from zhtune.log import logger, progress
from zhtune.models.context import require_context
from zhtune.models.load import open_encoder, save_template
from zhtune.records import read_records, write_jsonl
from zhtune.references import MODEL_KINDS, Source
from zhtune.templates.encode import ChatEncoder, answered, with_tools
from zhtune.tokenizers.load import read_object
from zhtune.train import mixing
from zhtune.train.adapter import Lora, Method, Tuning, prompt_length
from zhtune.train.cutting import cut
from zhtune.train.samples import Sample, pack
from zhtune.train.schedule import Launch, Schedule, Validation

STAGE = Stage("sft", version=3, kind="adapter", others=("model", "records"),
              inputs={"model": MODEL_KINDS, "records": ("records", "file"), "validation_records": ("records", "file"),
                      "start": ("adapter", "file")})
_SHOWN = 100                                                # samples kept beside a trained model


@dataclass(frozen=True, kw_only=True)
class SftConfig(StageConfig):
    """Supervised fine-tuning on conversations, in full or by an adapter."""

    neutral: ClassVar[tuple[str, ...]] = ("launch",)

    model: str
    """The model to train: a folder, an adapter, embedded, embedded:8, new:llama-15m"""
    records: str | list[str]
    """Records, one source or several: artifacts or JSON Lines files of {"messages": […]}"""
    weights: list[float] = field(default_factory=list)
    """How often each source is seen in an epoch (2: twice, 0.5: a seeded half); all once if empty"""
    validation_records: str = ""
    """Records to validate on; records that ask what training asks are left out of them"""
    method: Method = "lora"
    """full trains every weight and freeze the last layers, and they write a model; the others write an adapter"""
    lora: Lora = field(default_factory=Lora)
    """Low-rank adaptation (lora, qlora)"""
    tuning: Tuning = field(default_factory=Tuning)
    """The other methods, and how the base is held"""
    start: str = ""
    """A prefix to begin with: an adapter, or a checkpoint of THUDM's P-tuning v2"""
    schedule: Schedule = field(default_factory=Schedule)
    """Learning rate, batch size, epochs"""
    validation: Validation = field(default_factory=Validation)
    """What is held out and when to stop"""
    max_length: int = 512
    """Longest conversation in tokens"""
    too_long: Literal["drop", "cut"] = "drop"
    """What becomes of longer ones, counted either way: cut drops later turns, then the middle of a prompt, then an answer's end"""
    packing: bool = False
    """Lay several conversations in one row of max_length tokens; they do not see each other"""
    neftune: float = 0.0
    """Noise on the embeddings while training (NEFTune; 5 to 15 are usual, 0 is none)"""
    template: str = ""
    """A chat template of prompts/chat, for a base that has none"""
    samples_only: bool = False
    """Write samples.jsonl (ids and loss mask of every record) and stop"""
    launch: Launch = field(default_factory=Launch)
    """Several processes, trackers"""

    def check(self) -> None:
        if self.max_length < 8:
            raise ConfigError("--max_length must be at least 8 tokens")
        sources = 1 if isinstance(self.records, str) else len(self.records)
        if self.weights and (len(self.weights) != sources or min(self.weights) <= 0):
            raise ConfigError(f"--weights needs one number above 0 for each of the {sources} --records, found {self.weights}")
        if self.validation_records and self.validation.share:
            raise ConfigError("--validation_records and --validation.share exclude each other")
        if self.validation.patience and not (self.validation.share or self.validation_records):
            raise ConfigError("--validation.patience needs --validation.share or --validation_records: without them nothing is measured on the way")
        if self.start and self.method != "p-tuning-v2":
            raise ConfigError(f"--start is a prefix for --method p-tuning-v2, not for {self.method}")


def sft(config: SftConfig) -> Artifact:
    """Train on records; an interrupted run goes on from its last checkpoint.

    Raises:
        DataError: no record is left, validation records that are the training records, or the loss is no number.
        ConfigError: a precision, strategy or packing that model or machine cannot do; out of memory.
    """
    return build(STAGE, config, lambda work: _write(work, config), resumable=True, joined=True)


def _write(work: Work, config: SftConfig) -> None:
    require("torch", "train"), require("trl", "train")
    from zhtune.train import finetune, trainer
    from zhtune.train.batches import require_isolation
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        encoder, folder = open_encoder(work.sources["model"], Path(scratch), config.template)
        quantized = finetune.check(work.sources["model"], folder, config.method, config.lora, config.tuning,
                                   "leave out --packing" if config.packing else "", config.launch.strategy)
        taken = prompt_length(config.method, config.tuning)
        require_context(read_object(folder / "config.json"), "--max_length with the prompt" if taken else "--max_length", config.max_length + taken)
        samples, held = divide(work, config, encoder)
        if config.packing:
            samples = pack(samples, config.max_length)
            work.metrics["packed_rows"] = len(samples)
        if config.samples_only:
            work.kind = "records"
            write_jsonl(work.path / "samples.jsonl", (s.row() for s in samples))
            return
        model = finetune.load(work.sources["model"], Path(scratch), config.method, quantized, config.launch.strategy)
        model = finetune.prepare(model, config.method, config.lora, config.tuning, config.seed, folder, work.sources.get("start"))
        if config.packing:
            require_isolation(model)                        # as it was loaded: storing it in 16 bit rounds more than what is looked for
        figures = trainer.train(model, folder, samples, trainer.Run(
            config.schedule, work.checkpoints, config.seed, config.launch, work.path / "logs", held, config.validation.patience,
            neftune=config.neftune))
        finetune.save(work, model, config.method, Path(config.out), work.sources["model"], folder, figures["weights"])
        save_template(encoder, folder, work.path)
    write_jsonl(work.path / "samples.jsonl", (s.row() for s in samples[:_SHOWN]))
    finetune.report_training(work, "sft", figures)
    work.resolved |= {"method": config.method, "max_length": config.max_length, "quantized": quantized}


def divide(work: Work, config: SftConfig, encoder: ChatEncoder) -> tuple[list[Sample], list[Sample]]:
    """The sources as samples by weight, and what is held out of them or given for validation."""
    sources = work.given("records")
    train: list[Sample] = []
    held: list[tuple[Sample, list[str]]] = []
    taught: list[list[str]] = []
    shares, cuts = [], Counter()
    for number, source in enumerate(sources):
        found = encode(work, encoder, source, config, f"{number}:" if len(sources) > 1 else "")
        out = mixing.held_out([asked for _, asked in found], config.validation.share, config.seed)
        cuts.update(sample.cut for sample, _ in found if sample.cut)
        held += [pair for pair, away in zip(found, out, strict=True) if away]
        kept = [pair for pair, away in zip(found, out, strict=True) if not away]
        taught += [asked for _, asked in kept]
        weight = config.weights[number] if config.weights else 1.0
        mixed = mixing.weighted([sample for sample, _ in kept], weight, f"{config.seed}:{number}")
        shares.append({"records": source.reference, "weight": weight, "samples": len(mixed), "trained_tokens": sum(sum(s.loss_mask) for s in mixed)})
        train += mixed
    work.kept = len(taught)
    if not train:
        raise DataError(f"no record is left to train on: {dict(work.dropped) or 'the file is empty'}", sources[0].file("records.jsonl"))
    if cuts:
        work.metrics["cut"] = dict(sorted(cuts.items()))
        logger.info("sft: cut to %d tokens: %s", config.max_length, ", ".join(f"{count} {what}" for what, count in sorted(cuts.items())))
    if len(shares) > 1:
        _report_shares(work, shares)
    if config.validation.share and not held:
        raise DataError(f"--validation.share {config.validation.share} holds out none of {len(taught)} records: raise it",
                        sources[0].file("records.jsonl"))
    if config.validation_records:
        held = encode(work, encoder, work.sources["validation_records"], config, "validation:")
    return train, _without_leaks(work, held, taught)


def _without_leaks(work: Work, held: list[tuple[Sample, list[str]]], taught: list[list[str]]) -> list[Sample]:
    if not held:
        return []
    seen = mixing.leaks([asked for _, asked in held], taught)
    if all(seen):
        raise DataError(f"all {len(held)} validation records ask what the training records ask: they measure nothing")
    for (sample, _), leaks in zip(held, seen, strict=True):
        if leaks:
            work.drop("validation_in_training", id=sample.id)
    kept = [sample for (sample, _), leaks in zip(held, seen, strict=True) if not leaks]
    work.metrics["validation_records"] = len(kept)
    work.kept += len(kept)
    return kept


def _report_shares(work: Work, shares: list[dict[str, Any]]) -> None:
    total = sum(s["trained_tokens"] for s in shares)
    for share in shares:
        share["share"] = share["trained_tokens"] / total
        logger.info("%s: %d samples, %.1f %% of the trained tokens", share["records"], share["samples"], 100 * share["share"])
    work.report["sources"] = shares


def encode(work: Work, encoder: ChatEncoder, source: Source, config: SftConfig, prefix: str) -> list[tuple[Sample, list[str]]]:
    """Records as samples, each with its questions. Dropped by name: no_answer (nothing to train), too_long.

    Where the template lets only the last answer be trained (ChatGLM-6B and 2, Qwen3), a record is one sample an answer.
    """
    samples: list[tuple[Sample, list[str]]] = []
    for number, record in progress(read_records(source.file("records.jsonl")), "encode"):
        messages = with_tools(record["messages"], record.get("tools"))
        parts = answered(messages) if encoder.last_only else [messages]
        work.counted_in += len(parts)
        for part, messages in enumerate(parts):
            name = f"{prefix}{record.get('id', number)}" + (f"#{part}" if len(parts) > 1 else "")
            encoded = encoder.sample(messages)
            sample: Sample | None = Sample(name, encoded.ids, encoded.mask)
            if not _trains(sample, encoder):
                work.drop("no_answer", id=name)
                continue
            if len(encoded.ids) > config.max_length:
                sample = cut(name, messages, encoder, config.max_length) if config.too_long == "cut" else None
            if sample is None or not _trains(sample, encoder):
                work.drop("too_long", id=name, tokens=len(encoded.ids))
            else:
                samples.append((sample, mixing.questions(messages)))
    return samples


def _trains(sample: Sample, encoder: ChatEncoder) -> bool:
    """Whether anything but ends of turns is trained."""
    return any(m for m, i in zip(sample.loss_mask, sample.input_ids, strict=True) if i not in encoder.stop_ids)
