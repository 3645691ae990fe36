"""Records -> fine-tuned model or adapter: loss on the assistants' answers and their ends only."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError, DataError, require
from zhtune.log import progress
from zhtune.models.context import require_context
from zhtune.models.load import load_chain, open_encoder, save_template
from zhtune.records import read_records, write_jsonl
from zhtune.references import MODEL_KINDS
from zhtune.templates.encode import ChatEncoder, answered, with_tools
from zhtune.tokenizers.load import read_object
from zhtune.train.adapter import Lora, Method, Tuning, prompt_length
from zhtune.train.samples import Sample
from zhtune.train.schedule import Schedule

STAGE = Stage("sft", version=2, kind="adapter", inputs={"model": MODEL_KINDS, "records": ("records", "file"),
                                                       "start": ("adapter", "file")})


@dataclass(frozen=True, kw_only=True)
class SftConfig(StageConfig):
    """Supervised fine-tuning on conversations, in full or by an adapter."""

    model: str
    """The model to train: a folder, an adapter, embedded, embedded:8, new:llama-15m"""
    records: str
    """Records: an artifact or a JSON Lines file of {"messages": […]}"""
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
    max_length: int = 512
    """Longest conversation in tokens; longer ones are dropped and counted, never cut"""
    template: str = ""
    """A chat template of prompts/chat, for a base that has none"""
    samples_only: bool = False
    """Write samples.jsonl (ids and loss mask of every record) and stop"""

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise ConfigError("--max_length must be at least 8 tokens")
        if self.start and self.method != "p-tuning-v2":
            raise ConfigError(f"--start is a prefix for --method p-tuning-v2, not for {self.method}")


def sft(config: SftConfig) -> Artifact:
    """Train on records; an interrupted run goes on from its last checkpoint.

    Raises:
        DataError: no record is left, or the loss is no number.
    """
    return build(STAGE, config, lambda work: _write(work, config), resumable=True)


def _write(work: Work, config: SftConfig) -> None:
    require("torch", "train"), require("trl", "train")
    from zhtune.train import finetune, trainer
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        encoder, folder = open_encoder(work.sources["model"], Path(scratch), config.template)
        quantized = finetune.check(work.sources["model"], folder, config.method, config.lora, config.tuning)
        taken = prompt_length(config.method, config.tuning)
        require_context(read_object(folder / "config.json"), "--max_length with the prompt" if taken else "--max_length", config.max_length + taken)
        samples = encode(work, encoder, config.max_length)
        if config.samples_only:
            work.kind = "records"
            write_jsonl(work.path / "samples.jsonl", (s.row() for s in samples))
            return
        model, _ = load_chain(work.sources["model"], Path(scratch), quantized=quantized)
        model = finetune.prepare(model, config.method, config.lora, config.tuning, config.seed, folder, work.sources.get("start"))
        figures = trainer.train(model, folder, samples, config.schedule, work.path / "checkpoints", config.seed)
        finetune.save(work, model, config.method, Path(config.out), work.sources["model"], folder)
        save_template(encoder, folder, work.path)
    finetune.show_samples(work, samples)
    finetune.report_training(work, figures)
    work.resolved |= {"method": config.method, "max_length": config.max_length}


def encode(work: Work, encoder: ChatEncoder, max_length: int) -> list[Sample]:
    """Records as samples. Dropped by name: no_answer (nothing to train), too_long (an answer is never cut).

    Where the template lets only the last answer be trained (ChatGLM-6B and 2, Qwen3), a record is one sample an answer.
    """
    samples: list[Sample] = []
    path = work.sources["records"].path
    file = path / "records.jsonl" if path.is_dir() else path
    for number, record in progress(read_records(file), "encode"):
        messages = with_tools(record["messages"], record.get("tools"))
        parts = answered(messages) if encoder.last_only else [messages]
        work.counted_in += len(parts)
        for part, messages in enumerate(parts):
            name = str(record.get("id", number)) + (f"#{part}" if len(parts) > 1 else "")
            encoded = encoder.sample(messages)
            if not any(m for m, i in zip(encoded.mask, encoded.ids, strict=True) if i not in encoder.stop_ids):
                work.drop("no_answer", id=name)
            elif len(encoded.ids) > max_length:
                work.drop("too_long", id=name, tokens=len(encoded.ids))
            else:
                samples.append(Sample(name, encoded.ids, encoded.mask))
    work.kept = len(samples)
    if not samples:
        raise DataError(f"no record is left to train on: {dict(work.dropped) or 'the file is empty'}", file)
    return samples
