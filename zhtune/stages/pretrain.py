"""Model + tokens -> continued pretraining: the new embedding rows first, then every weight; bits per character all the way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.corpus.tokens import block_positions, read_blocks
from zhtune.errors import ConfigError, DataError, require
from zhtune.log import logger
from zhtune.models import bits
from zhtune.models.context import require_context
from zhtune.models.load import open_encoder, save_template
from zhtune.references import MODEL_KINDS
from zhtune.templates.encode import ChatEncoder
from zhtune.tokenizers.load import fingerprint, read_object
from zhtune.train.adapter import Lora, Method, Tuning, prompt_length
from zhtune.train.samples import Sample
from zhtune.train.schedule import Launch, Schedule

STAGE = Stage("pretrain", version=4, kind="model", others=("adapter",),
              inputs={"model": MODEL_KINDS, "tokens": ("tokens",), "corpus": ("corpus",), "replay": ("tokens",), "general": ("corpus",)})


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(StageConfig):
    """Continued pretraining on packed tokens."""

    neutral: ClassVar[tuple[str, ...]] = ("launch",)

    model: str
    """The model to train"""
    tokens: str
    """Tokens: the output of zhtune pack with this model's tokenizer"""
    corpus: str = ""
    """The corpus, to measure bits per character on its held-out documents before, on the way and after"""
    replay: str = ""
    """Tokens of general text, of the same tokenizer, that are mixed in against forgetting"""
    replay_ratio: float = 0.2
    """Share of the training blocks that are replay"""
    general: str = ""
    """A corpus of general text: bits per character on its held-out documents before and after say what was forgotten"""
    method: Method = "full"
    """full trains every weight and freeze the last layers, and they write a model; the others write an adapter"""
    lora: Lora = field(default_factory=Lora)
    """Low-rank adaptation (lora, qlora)"""
    tuning: Tuning = field(default_factory=Tuning)
    """The other methods, and how the base is held"""
    schedule: Schedule = field(default_factory=lambda: Schedule(batch_size=4))
    """Learning rate, batch size, epochs"""
    block: int = 256
    """Tokens of one training sample"""
    blocks: int = 0
    """How many blocks are trained on, evenly spread over the tokens; 0 for all"""
    isolate: bool = True
    """Documents in one block do not see each other (not for BLOOM)"""
    new_rows: float = 0.2
    """Share of the blocks that train only the rows which extend added (full training of an extended model)"""
    windows: int = 50
    """Windows of 200 characters for bits per character"""
    launch: Launch = field(default_factory=Launch)
    """Several processes, trackers"""

    def check(self) -> None:
        if self.block < 16 or self.blocks < 0:
            raise ConfigError("--block must be at least 16 and --blocks at least 0")
        if not 0 <= self.new_rows < 1:
            raise ConfigError("--new_rows is a share from 0 to below 1")
        if not 0 < self.replay_ratio < 1:
            raise ConfigError("--replay_ratio is a share above 0 and below 1")


def pretrain(config: PretrainConfig) -> Artifact:
    """Train on blocks of tokens; an interrupted run goes on from its last checkpoint.

    Raises:
        DataError: tokens of another tokenizer, too few tokens, no held-out text, a loss that is no number.
    """
    return build(STAGE, config, lambda work: _write(work, config), resumable=True, joined=True)


def _write(work: Work, config: PretrainConfig) -> None:
    require("torch", "train"), require("trl", "train")
    from zhtune.train import finetune
    from zhtune.train.batches import require_isolation
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        encoder, folder = open_encoder(work.sources["model"], Path(scratch), chat=False)
        quantized = finetune.check(work.sources["model"], folder, config.method, config.lora, config.tuning,
                                   "give --isolate false" if config.isolate else "", config.launch.strategy)
        own = fingerprint(read_object(folder / "tokenizer.json"))
        for source in (work.sources[name] for name in ("tokens", "replay") if name in work.sources):
            if source.manifest["resolved"].get("tokenizer", own) != own:
                raise DataError("was packed with another tokenizer than this model's; pack it with --model of the model", source.path)
        taken = prompt_length(config.method, config.tuning)
        require_context(read_object(folder / "config.json"), "--block with the prompt" if taken else "--block", config.block + taken)
        model = finetune.load(work.sources["model"], Path(scratch), config.method, quantized, config.launch.strategy)
        samples = _samples(work, config, model.config.vocab_size)
        texts = {name: bits.heldout_windows(work.sources[source].path, config.windows, config.seed)
                 for name, source in (("", "corpus"), ("general_", "general")) if source in work.sources}
        _measure(work, model, encoder, texts, "before")
        rows = finetune.new_rows(folder)
        if rows and config.method in ("lora", "qlora") and not config.lora.new_rows:
            logger.warning("pretrain: the model has %d new tokens, whose rows stay as they were made; train them with --lora.new_rows true",
                           len(rows))
        rows = rows if config.method == "full" else None
        first = round(len(samples) * config.new_rows) if rows else 0
        begun: dict[str, Any] | None = None
        model = finetune.prepare(model, config.method, config.lora, config.tuning, config.seed, folder)
        if config.isolate:
            require_isolation(model)                        # before a trainer has wrapped it
        if first:
            logger.info("pretrain: rows %d to %d first", rows.start, rows.stop - 1)
            begun = _phase(work, config, model, folder, samples[:first], "rows", rows, None)
        figures = _phase(work, config, model, folder, samples[first:], "all", None, _meter(encoder, texts))
        figures = _joined(begun, figures) if begun else figures
        _measure(work, model.eval(), encoder, texts, "after")
        finetune.save(work, model, config.method, Path(config.out), work.sources["model"], folder, figures["weights"])
        save_template(encoder, folder, work.path)
    finetune.report_training(work, "pretrain", figures)
    work.resolved |= {"method": config.method, "quantized": quantized}


def _measure(work: Work, model: Any, encoder: ChatEncoder, texts: dict[str, list[str]], when: str) -> None:
    """Bits per character of the corpus and of general text; after training, what was forgotten."""
    for name, windows in texts.items():
        work.metrics[f"{name}bits_per_character_{when}"] = bits.bits_per_character(model, encoder, windows)
    if when == "after" and "general_" in texts:
        before, after = (work.metrics[f"general_bits_per_character_{w}"] for w in ("before", "after"))
        work.metrics["forgetting"] = after / before - 1
        logger.info("pretrain: general text %.3f -> %.3f bits per character (%+.1f %%)", before, after, 100 * (after / before - 1))


def _meter(encoder: ChatEncoder, texts: dict[str, list[str]]) -> Callable[[Any], dict[str, float]] | None:
    """What is measured at every checkpoint."""
    if not texts:
        return None
    return lambda model: {f"eval_{name}bits_per_character": bits.bits_per_character(model.eval(), encoder, windows)
                          for name, windows in texts.items()}


def _phase(work: Work, config: PretrainConfig, model: Any, folder: Path, samples: list[Sample], name: str, rows: range | None,
           measure: Callable[[Any], dict[str, float]] | None) -> dict[str, Any]:
    from zhtune.train import trainer
    schedule = config.schedule
    if rows:                                                # alone they bear twice the rate; decay would reach the rows that stay
        schedule = replace(schedule, learning_rate=2 * schedule.learning_rate, weight_decay=0.0)
    with only_rows(model, rows) if rows else nullcontext():
        return trainer.train(model.train(), folder, samples, trainer.Run(
            schedule, work.checkpoints / name, config.seed, config.launch, work.path / "logs", measure=measure))


def _joined(begun: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """The figures of two phases as those of one run."""
    steps = begun["steps"]
    return figures | {"losses": begun["losses"] + [[step + steps, loss] for step, loss in figures["losses"]],
                      "history": begun["history"] + [{**entry, "step": entry["step"] + steps} for entry in figures["history"]],
                      **{name: begun[name] + figures[name] for name in ("steps", "tokens", "seconds")}}


@contextmanager
def only_rows(model: Any, rows: range) -> Iterator[None]:
    """Train nothing but the embedding rows `rows`, by a gradient mask; afterwards every weight again.

    Untied output rows are trained too: else new tokens would never get probability.
    """
    import torch
    model.requires_grad_(False)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    mask = torch.zeros(embedding.shape[0], 1, dtype=embedding.dtype)
    mask[rows.start:rows.stop] = 1
    hooks = []
    for weight in {id(w): w for w in (embedding, head)}.values():
        weight.requires_grad_(True)
        hooks.append(weight.register_hook(lambda gradient: gradient * mask.to(gradient)))    # the model may be moved after this
    yield
    for hook in hooks:
        hook.remove()
    model.requires_grad_(True)


def _samples(work: Work, config: PretrainConfig, vocabulary: int) -> list[Sample]:
    """Blocks to train on, replay evenly among them."""
    path = work.sources["tokens"].path
    blocks = _blocks(path, config.block, vocabulary)
    wanted = min(config.blocks or len(blocks), len(blocks))
    work.counted_in, work.kept = len(blocks), wanted
    if wanted < len(blocks):
        work.dropped["not_chosen"] = len(blocks) - wanted
    samples = _spread(path, blocks, config, wanted, "")
    if not config.replay:
        return samples
    path = work.sources["replay"].path
    blocks = _blocks(path, config.block, vocabulary)
    more = round(wanted * config.replay_ratio / (1 - config.replay_ratio))
    if more > len(blocks):
        raise DataError(f"has {len(blocks)} blocks of {config.block} tokens, --replay_ratio {config.replay_ratio} needs {more}; "
                        f"add text or lower the ratio", path)
    work.metrics["replay_blocks"] = more
    parts = samples, _spread(path, blocks, config, more, "replay:")
    places = sorted(((n + 0.5) / len(part), which, n) for which, part in enumerate(parts) for n in range(len(part)))
    return [parts[which][n] for _, which, n in places]


def _spread(path: Path, blocks: Any, config: PretrainConfig, wanted: int, prefix: str) -> list[Sample]:
    """So many blocks, evenly spread; every token is predicted but a block's first and, where documents are isolated, a document's first."""
    chosen = [i * len(blocks) // wanted for i in range(wanted)]
    if not config.isolate:
        return [Sample(f"{prefix}{i}", blocks[i].tolist(), [True] * config.block) for i in chosen]
    positions = block_positions(path, config.block, chosen)
    return [Sample(f"{prefix}{i}", blocks[i].tolist(), (row > 0).tolist(), row.tolist()) for i, row in zip(chosen, positions, strict=True)]


def _blocks(path: Path, length: int, vocabulary: int) -> Any:
    try:
        blocks = read_blocks(path, length)
    except ValueError as error:
        raise DataError(str(error), path / "tokens.bin") from error
    if int(blocks.max()) >= vocabulary:
        raise DataError(f"holds the id {int(blocks.max())}, the model has {vocabulary} rows: it was packed for another tokenizer", path)
    return blocks
