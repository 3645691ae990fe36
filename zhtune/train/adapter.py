"""LoRA on the linear layers of a model, by PEFT; and where an adapter's base lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhtune.errors import require
from zhtune.models.extend import token_indices
from zhtune.references import Source


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = 8
    """Rank r of the update B·A"""
    alpha: int = 16
    """The update is scaled by alpha / rank"""
    dropout: float = 0.0
    """Dropout in front of A"""
    new_rows: bool = False
    """Train the rows of an extended model's new tokens too, in the embedding and in an output layer of its own"""


def add_lora(model: Any, lora: Lora, seed: int, rows: range | None = None) -> Any:
    """Wrap a model in a PeftModel with LoRA on every linear layer but the output layer.

    Embeddings stay out: LoRA on tied embeddings merges wrongly (difference 1e+01). Only `rows` of them are trained, each
    weight of these rows.
    """
    torch, peft = require("torch", "train"), require("peft", "train")
    torch.manual_seed(seed)
    return peft.get_peft_model(model, peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear", task_type="CAUSAL_LM",
        trainable_token_indices=token_indices(model, rows) if rows else None))


def save_adapter(model: Any, folder: Path, out: Path, base: Source, weights: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write the PEFT folder; its base is named by relative path. Returns what the manifest says of the base.

    Args:
        model: a PeftModel.
        folder: the unfinished artifact.
        out: where the artifact will lie, for the relative path.
        base: the model it was trained on.
        weights: all of them, where an engine has divided the model among processes.
    """
    location = base.reference if base.kind == "base" else os.path.relpath(base.path, out)
    for config in model.peft_config.values():
        config.base_model_name_or_path = location
    model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)          # PEFT's model card template, empty
    return {"base": location, "base_kind": base.kind, "base_digest": base.digest}
