"""What sft, pretrain and dpo do alike: load the model, choose what is trained, save it as a model or an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from zhtune.building import Work
from zhtune.errors import ConfigError
from zhtune.models.families import family_of, refuse
from zhtune.models.load import card_in_words, chain, clear_card, copy_tokenizer, load_chain, refuse_unmergeable
from zhtune.references import Source
from zhtune.train import parallel
from zhtune.train.adapter import BY_PEFT, WHOLE, Lora, Method, Tuning, adapt, last_layers, prompt_length, quantization, save_adapter
from zhtune.train.report import write_page


def check(source: Source, folder: Path, method: Method, lora: Lora, tuning: Tuning, unpack: str = "",
          strategy: str = "") -> str:
    """Refuse every combination that cannot be, before weights are loaded; returns how the base is to be held (load_model's `quantized`).

    Args:
        source: the model, or a chain of adapters that merge.
        folder: the model's, or the one its chain of adapters stands on.
        method, lora, tuning: of train/adapter.py.
        unpack: how to do without packing, where rows are to hold several documents.
        strategy: how several processes share the weights.

    Raises:
        ConfigError: what the family, the adapter under it, a quantized base or a strategy cannot do; new rows that are not there.
    """
    quantized = quantization(method, tuning)
    if method not in (*WHOLE, *BY_PEFT) and (divided := parallel.divides_weights(strategy)):
        raise ConfigError(f"--method {method} with {divided}, which leaves each process a part of every weight, also of the {method}'s, which "
                          "must be whole; take --launch.strategy zero2 (it divides the optimizer's state), none, or --method lora")
    refuse_unmergeable(chain(source)[1])
    found = family_of(folder)
    refuse(found, method)
    if unpack:
        refuse(found, "packing", unpack)
    if unpack and prompt_length(method, tuning):
        raise ConfigError(f"{method} puts its prompt in front of a row, not of each document in it; {unpack}")
    if lora.new_rows and method in ("lora", "qlora") and new_rows(folder) is None:
        raise ConfigError("--lora.new_rows: the model was not extended by zhtune (it has no extension.json): there are no new rows")
    return quantized


def load(source: Source, scratch: Path, method: Method, quantized: str, strategy: str) -> Any:
    """The model to train from; with a card, on the one that the launcher gave this process, unless an engine will divide it.

    It is float32, but for a base under an adapter, which a card holds in 16 or fewer bits: of that a 7B in float32 would only take the memory.

    Raises:
        ConfigError: it does not fit there.
    """
    parallel.take_card()
    clear_card()
    card = torch.cuda.is_available()
    with card_in_words(source.reference):
        model = load_chain(source, scratch, "auto" if card and method not in WHOLE else "float32", quantized)[0]
        return model.to("cuda") if card and not quantized and not parallel.divides_weights(strategy) else model


def prepare(model: Any, method: Method, lora: Lora, tuning: Tuning, seed: int, folder: Path, start: Source | None = None) -> Any:
    """The model to train: itself for "full" and "freeze", else a wrapper around it with the adapter.

    Args:
        folder: the model's, or the one its chain of adapters stands on.
        start: a prefix to begin with, of zhtune or as THUDM published it (p-tuning-v2).
    """
    if method == "full":
        return model.requires_grad_(True)
    if method == "freeze":
        return last_layers(model, tuning.layers)
    return adapt(model, family_of(folder), method, lora, tuning, seed, new_rows(folder) if lora.new_rows else None,
                 start.path if start else None)


def new_rows(folder: Path) -> range | None:
    """Ids of an extended model's new tokens."""
    if not (folder / "extension.json").exists():
        return None
    first, last = json.loads((folder / "extension.json").read_text("utf-8"))["new_ids"]
    return range(first, last + 1)


def save(work: Work, model: Any, method: Method, out: Path, base: Source, folder: Path, weights: dict[str, Any] | None = None) -> None:
    """Write the trained model (kind "model") or adapter (kind "adapter") into the work folder.

    Args:
        weights: all of them, where an engine has divided the model among processes.
    """
    if not work.leads:
        return
    if method not in WHOLE:
        work.kind = "adapter"
        work.resolved |= save_adapter(model, work.path, out, base, weights)
        return
    work.kind = "model"
    model.save_pretrained(work.path, state_dict=weights)
    copy_tokenizer(folder, work.path)


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
