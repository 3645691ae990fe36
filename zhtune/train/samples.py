"""Records and tokens -> training samples in a fixed order. Knows token ids, not texts and not models.

The order of all epochs is worked out here, once, from the seed: a resumed run then only skips what it has done.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

_MEGABATCH = 50                                             # batches whose samples are sorted by length among themselves
IGNORED = -100                                              # torch's label of a position that is not trained


@dataclass(frozen=True)
class Sample:
    """What one conversation or block trains."""

    id: str
    input_ids: list[int]
    loss_mask: list[bool]

    def row(self) -> dict[str, Any]:
        """As samples.jsonl shows it."""
        return {"id": self.id, "input_ids": self.input_ids, "loss_mask": [int(m) for m in self.loss_mask]}


def order(lengths: list[int], batch: int, epochs: int, seed: int) -> list[int]:
    """Indices of all epochs in training order: batches of similar length, shuffled; the last batch of an epoch may be short.

    Args:
        lengths: tokens of each sample.
        batch: samples a step.
        epochs: how often each sample is seen.
        seed: of the shuffling.
    """
    indices: list[int] = []
    for epoch in range(epochs):
        generator = random.Random(f"{seed}:{epoch}")
        shuffled = generator.sample(range(len(lengths)), len(lengths))
        batches: list[list[int]] = []
        for start in range(0, len(shuffled), batch * _MEGABATCH):
            mega = sorted(shuffled[start:start + batch * _MEGABATCH], key=lambda i: (-lengths[i], i))
            batches += [mega[i:i + batch] for i in range(0, len(mega), batch)]
        short = [b for b in batches if len(b) < batch]
        full = [b for b in batches if len(b) == batch]
        generator.shuffle(full)
        indices += [i for b in [*full, *short] for i in b]
    return indices


def dataset(samples: list[Sample], batch: int, epochs: int, seed: int) -> Any:
    """The samples as a datasets.Dataset with `input_ids` and `labels`, in training order, epochs laid end to end."""
    from datasets import Dataset
    rows = order([len(s.input_ids) for s in samples], batch, epochs, seed)
    labels = [[i if m else IGNORED for i, m in zip(s.input_ids, s.loss_mask, strict=True)] for s in samples]
    return Dataset.from_dict({"input_ids": [samples[i].input_ids for i in rows], "labels": [labels[i] for i in rows]})
