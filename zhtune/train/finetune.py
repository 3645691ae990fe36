"""What sft, pretrain and dpo do alike: load the model, choose what is trained, save it as a model or an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zhtune.building import Work
from zhtune.errors import ConfigError
from zhtune.models.load import copy_tokenizer
from zhtune.records import write_jsonl
from zhtune.references import Source
from zhtune.train.adapter import Lora, add_lora, save_adapter
from zhtune.train.report import write_page
from zhtune.train.samples import Sample

SHOWN = 100                                                 # samples kept beside every trained model


def prepare(model: Any, method: str, lora: Lora, seed: int, folder: Path) -> Any:
    """The model to train: itself for "full", a PeftModel around it for "lora".

    Args:
        folder: the model's, or the one its chain of adapters stands on.

    Raises:
        ConfigError: new rows are to be trained and the model has none.
    """
    if method == "full":
        return model.requires_grad_(True)
    rows = new_rows(folder)
    if lora.new_rows and rows is None:
        raise ConfigError("--lora.new_rows: the model was not extended by zhtune (it has no extension.json): there are no new rows")
    return add_lora(model, lora, seed, rows if lora.new_rows else None)


def new_rows(folder: Path) -> range | None:
    """Ids of an extended model's new tokens."""
    if not (folder / "extension.json").exists():
        return None
    first, last = json.loads((folder / "extension.json").read_text("utf-8"))["new_ids"]
    return range(first, last + 1)


def save(work: Work, model: Any, method: str, out: Path, base: Source, folder: Path, weights: dict[str, Any] | None = None) -> None:
    """Write the trained model (kind "model") or adapter (kind "adapter") into the work folder.

    Args:
        weights: all of them, where an engine has divided the model among processes.
    """
    if not work.leads:
        return
    if method == "lora":
        work.kind = "adapter"
        work.resolved |= save_adapter(model, work.path, out, base, weights)
        return
    work.kind = "model"
    model.save_pretrained(work.path, state_dict=weights)
    copy_tokenizer(folder, work.path)
    if (folder / "extension.json").exists():                # which rows are new travels with the model
        (work.path / "extension.json").write_bytes((folder / "extension.json").read_bytes())


def show_samples(work: Work, samples: list[Sample]) -> None:
    """Keep the first samples where a person can look at them: ids and loss mask."""
    write_jsonl(work.path / "samples.jsonl", (s.row() for s in samples[:SHOWN]))


def report_training(work: Work, name: str, figures: dict[str, Any]) -> None:
    """Losses into the metrics, the curve and the speed into the report, and its page."""
    losses = figures["losses"]
    if losses:
        work.metrics |= {"first_loss": losses[0][1], "last_loss": losses[-1][1]}
    work.metrics |= {"steps": figures["steps"], "tokens": figures["tokens"]}
    speed = figures["tokens"] / figures["seconds"] if figures["seconds"] else None
    work.report |= {"losses": losses, "validation": figures["validation"], "tokens_per_second": speed, "peak_memory_gib": figures["memory"]}
    if figures["best"]:
        work.metrics |= {"best_step": figures["best"]["step"], "best_validation_loss": figures["best"]["loss"]}
    write_page(work.path / "report.html", name, figures)
