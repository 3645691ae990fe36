"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) on TRL's DPOTrainer, which receives ids, never text.

Imports torch and TRL at its top; the stage imports it inside its function. The reference is the model without its adapter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from zhtune.train.samples import order
from zhtune.train.schedule import Schedule
from zhtune.train.trainer import announce, arguments, fit, own_types, tokenizer_of


@dataclass(frozen=True)
class Pair:
    """One preference as token ids."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


def train_pairs(model: Any, tokenizer_folder: Path, pairs: list[Pair], schedule: Schedule, beta: float, folder: Path, seed: int) -> dict[str, Any]:
    """Train a PeftModel's adapter on pairs, in place.

    Args:
        model: a PeftModel; without its adapter it is the reference.
        tokenizer_folder: where its tokenizer.json lies.
        pairs: what to train on.
        schedule: how.
        beta: strength of the pull towards the reference.
        folder: for checkpoints.
        seed: of the order of pairs.

    Returns:
        the figures of trainer.fit, with the first and last reward margin and accuracy.
    """
    rows = order([len(p.prompt_ids) + len(p.chosen_ids) for p in pairs], schedule.batch_size, schedule.epochs, seed)
    data = Dataset.from_dict({name: [getattr(pairs[i], name) for i in rows] for name in ("prompt_ids", "chosen_ids", "rejected_ids")})
    tokens = sum(2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in pairs) * schedule.epochs
    announce(model, len(pairs), tokens, schedule, len(data))
    with own_types(model):
        trainer = EncodedDPOTrainer(model=model, args=arguments(DPOConfig, schedule, folder, len(data), seed, {"beta": beta}),
                                    train_dataset=data, processing_class=tokenizer_of(tokenizer_folder))
    figures = fit(trainer, folder)
    logged = [entry for entry in figures["history"] if "rewards/margins" in entry]
    shown = {name: [logged[0][f"rewards/{name}"], logged[-1][f"rewards/{name}"]] for name in ("margins", "accuracies", "chosen", "rejected")}
    return figures | {"tokens": tokens, "rewards": shown}


class EncodedDPOTrainer(DPOTrainer):
    """DPOTrainer for pairs that are token ids already."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset
