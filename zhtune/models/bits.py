"""Bits per character: the one measure that compares models with different vocabularies.

Every text is cut into windows of equally many characters, and each window is scored on its own, so that two models see
the same characters of context whatever their tokens are.

Rows that no token has (a base's padding) count in the softmax, so probability on them costs the model bits. Training sums
over all rows too, and so do other harnesses: what is measured is the model that was trained, and its bits fit its loss.
Engines mask these rows when they decode, so a served model is never worse than its bits say.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

WINDOW = 200                                                # characters of one window


def windows(texts: Iterable[str], most: int, seed: int, size: int = WINDOW) -> list[str]:
    """A seeded sample of whole windows of `size` characters, in text order."""
    cut = [text[i:i + size] for text in texts for i in range(0, len(text) - size + 1, size)]
    chosen = sorted(random.Random(seed).sample(range(len(cut)), min(most, len(cut))))
    return [cut[i] for i in chosen]


def bits_per_character(model: Any, encoder: Any, texts: list[str], batch: int = 4) -> float:
    """Mean bits that a model needs for one character of `texts`; every token of a text is predicted.

    Args:
        model: a causal language model in evaluation mode.
        encoder: its ChatEncoder; an end-of-turn token stands before each text as its beginning.
        texts: windows.
        batch: texts scored at once.
    """
    import torch
    encoded = sorted(([encoder.end_id, *encoder.text_ids(text)] for text in texts), key=len)
    nats = 0.0
    for start in range(0, len(encoded), batch):
        rows = encoded[start:start + batch]
        width = max(map(len, rows))
        ids = torch.tensor([row + [encoder.end_id] * (width - len(row)) for row in rows], device=model.device)
        real = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[:, :-1].float()    # right padding under a causal mask needs no mask
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        nats += losses[real[:, 1:].flatten()].sum().item()
    return nats / math.log(2) / sum(map(len, texts))
