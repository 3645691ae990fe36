"""Records and tokens -> training samples in a fixed order. Knows token ids, not texts and not models.

The order of all epochs is worked out here, once, from the seed: a resumed run then only skips what it has done.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Sequence
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
    positions: list[int] | None = None
    """Position of each token in its own document, where several are packed; None: 0, 1, 2 …"""
    cut: str = ""
    """What was cut to fit: prompt, answer, turns"""

    def row(self) -> dict[str, Any]:
        """As samples.jsonl shows it."""
        return {"id": self.id, "input_ids": self.input_ids, "loss_mask": [int(m) for m in self.loss_mask],
                **({"positions": self.positions} if self.positions else {}), **({"cut": self.cut} if self.cut else {})}


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


def pack(samples: Sequence[Sample], length: int) -> list[Sample]:
    """Lay samples end to end in rows of at most `length` tokens, best fit, longest first; what was a sample stays a document.

        ids        a b c | d e          positions  0 1 2 | 0 1
        loss mask  0 1 1 | 0 1          the first token of a document is never predicted from the one before
    """
    rows: list[list[Sample]] = []
    room: list[tuple[int, int]] = []                        # (free tokens, row), sorted
    for sample in sorted(samples, key=lambda s: -len(s.input_ids)):     # stable: equal lengths keep their order
        size = len(sample.input_ids)
        place = bisect_left(room, (size, -1))
        if place == len(room):
            rows.append([])
            free, row = length, len(rows) - 1
        else:
            free, row = room.pop(place)
        rows[row].append(sample)
        insort(room, (free - size, row))
    return [_joined(row) for row in rows]


def _joined(row: list[Sample]) -> Sample:
    return Sample("+".join(s.id for s in row), [i for s in row for i in s.input_ids],
                  [m and n > 0 for s in row for n, m in enumerate(s.loss_mask)], [n for s in row for n in range(len(s.input_ids))])


def dataset(samples: list[Sample], rows: list[int], multiple: int = 1) -> Any:
    """The samples as a datasets.Dataset with `input_ids`, `labels` and, where they are packed, `position_ids`.

    Args:
        samples: what there is.
        rows: which of them, in order, epochs laid end to end.
        multiple: rows are filled up to a multiple of it with samples that train nothing, so that processes have equally many.
    """
    from datasets import Dataset
    labels = [[i if m else IGNORED for i, m in zip(s.input_ids, s.loss_mask, strict=True)] for s in samples]
    filling = -len(rows) % multiple
    columns = {"input_ids": [samples[i].input_ids for i in rows] + [samples[0].input_ids[:2]] * filling,
               "labels": [labels[i] for i in rows] + [[IGNORED] * len(samples[0].input_ids[:2])] * filling}
    if samples[0].positions is not None:
        columns["position_ids"] = [samples[i].positions for i in rows] + [samples[0].positions[:2]] * filling
    return Dataset.from_dict(columns)
