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
from itertools import pairwise
from pathlib import Path
from typing import Any

from zhtune.corpus.read import read_texts
from zhtune.errors import DataError

WINDOW = 200                                                # characters of one window


def windows(texts: Iterable[str], most: int, seed: int, size: int = WINDOW) -> list[str]:
    """A seeded sample of whole windows of `size` characters, in text order; texts that are all shorter are joined, line by line."""
    texts = list(texts)
    if not any(len(text) >= size for text in texts):
        texts = ["\n".join(texts)]
    cut = [text[i:i + size] for text in texts for i in range(0, len(text) - size + 1, size)]
    chosen = sorted(random.Random(seed).sample(range(len(cut)), min(most, len(cut))))
    return [cut[i] for i in chosen]


def heldout_windows(corpus: Path, most: int, seed: int) -> list[str]:
    """Windows of a corpus's held-out documents.

    Raises:
        DataError: they do not fill one.
    """
    found = windows((text for _, text in read_texts(corpus, "heldout")), most, seed)
    if not found:
        raise DataError(f"has no held-out text of {WINDOW} characters; clean --heldout 0.1 keeps more apart, or clean more text", corpus)
    return found


def bits_per_character(model: Any, encoder: Any, texts: list[str]) -> float:
    """Mean bits that a model needs for one character of `texts`; every token of a text is predicted.

    Args:
        model: a causal language model in evaluation mode.
        encoder: its ChatEncoder; an end-of-turn token stands before each text as its beginning.
        texts: windows.
    """
    import torch
    nats = 0.0
    for text in texts:                                      # one at a time: logits are the largest tensor, and no row is padded
        ids = torch.tensor([[encoder.end_id, *encoder.text_ids(text)]], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1].float()
        nats += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    return nats / math.log(2) / sum(map(len, texts))


def long_windows(encoder: Any, texts: Iterable[str], length: int, most: int) -> list[list[int]]:
    """Token ids of evenly chosen windows of `length` tokens, from texts laid end to end.

    Raises:
        DataError: they have fewer tokens than one window.
    """
    ids = [i for text in texts for i in (*encoder.text_ids(text), encoder.end_id)]
    whole = len(ids) // length
    if not whole:
        raise DataError(f"the held-out text has {len(ids)} tokens, one window of the new context takes {length}")
    return [ids[n * length:(n + 1) * length] for n in sorted({i * whole // most for i in range(min(most, whole))})]


def bits_by_position(model: Any, encoder: Any, windows: list[list[int]], spans: int = 8) -> list[tuple[int, int, float]]:
    """(first position, last, mean bits of one character there), of equal spans of the windows.

    Args:
        model: a causal language model in evaluation mode.
        encoder: its ChatEncoder.
        windows: token ids, all of equal length.
        spans: how many.
    """
    import torch
    length = len(windows[0])
    bounds = [1 + i * (length - 1) // spans for i in range(spans + 1)]
    nats, characters = [0.0] * spans, [0] * spans
    for window in windows:
        ids = torch.tensor([window], device=model.device)
        with torch.inference_mode():
            hidden = model.get_decoder()(input_ids=ids).last_hidden_state[0]
            for span, (first, last) in enumerate(pairwise(bounds)):     # a span at a time: logits are the largest tensor
                logits = model.get_output_embeddings()(hidden[first - 1:last - 1]).float()
                nats[span] += torch.nn.functional.cross_entropy(logits, ids[0, first:last], reduction="sum").item()
        read = [len(encoder.decode(window[:bound]).rstrip("\ufffd")) for bound in bounds]
        characters = [n + after - before for n, (before, after) in zip(characters, pairwise(read), strict=True)]
    return [(first, last - 1, n / math.log(2) / max(c, 1)) for (first, last), n, c in zip(pairwise(bounds), nats, characters, strict=True)]
