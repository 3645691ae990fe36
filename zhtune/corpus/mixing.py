"""How often the documents of several corpora stand in a mix, and in which order. Reads and writes nothing.

    share      by weights, or by size ** (1 / temperature): 1 as they are, more evens out (Conneau et al. 2020)
    epochs     how often a corpus stands in the mix; never above the cap, and what it leaves goes to the others by share
    copies     of a document: whole epochs, and one more for a part of the documents chosen by hash
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zhtune.corpus.units import mix
from zhtune.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """What a mix takes of one corpus."""

    name: str
    size: float
    """Of the corpus, in tokens or characters"""
    wanted: float
    """Share of the mix, by weight or temperature"""
    epochs: float
    """How often it stands in the mix, at most the cap"""


def plan(names: list[str], sizes: list[float], weights: list[float], temperature: float, max_epochs: float, total: float,
         estimated: bool = False) -> list[Part]:
    """Epochs of each corpus so that shares are as wanted, as far as the cap allows.

    Args:
        names: of the corpora.
        sizes: of each, in any unit.
        weights: of each; empty: by temperature.
        temperature: 1 or more; of weights only where these are empty.
        max_epochs: cap.
        total: size of the mix; 0 for as much as all corpora hold.
        estimated: sizes are estimates, which refuse no total.

    Raises:
        ConfigError: weights that are not one positive number a corpus, an empty corpus, more than the cap allows.
    """
    if weights and len(weights) != len(names):
        raise ConfigError(f"--weights holds {len(weights)} numbers for {len(names)} corpora: give one for each")
    if any(w <= 0 for w in weights):
        raise ConfigError(f"--weights are above 0, found {min(weights)}; leave out the corpus instead")
    if not all(sizes):
        raise ConfigError(f"{names[sizes.index(0)]} is empty; leave it out of the mix")
    shares = np.asarray(weights, float) if weights else np.asarray(sizes, float) ** (1 / temperature)
    shares = shares / shares.sum()
    rest = total = total or float(sum(sizes))
    most = np.asarray(sizes, float) * max_epochs
    if total > most.sum() * (1 + 1e-9) and not estimated:
        raise ConfigError(f"--total_tokens {total:,.0f} is more than {max_epochs:g} epochs of all corpora, {most.sum():,.0f}: raise --max_epochs")
    taken, free = np.zeros(len(names)), np.ones(len(names), bool)
    while free.any():                                       # what a capped corpus cannot give, the others give by share
        taken[free] = rest * shares[free] / shares[free].sum()
        over = free & (taken >= most)
        if not over.any():
            break
        taken[over] = most[over]
        free &= ~over
        rest = total - taken[~free].sum()
    return [Part(*row) for row in zip(names, map(float, sizes), shares.tolist(), np.round(taken / np.asarray(sizes), 9).tolist())]


def draw(documents: list[int], epochs: list[float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The documents of a mix in its order, as (corpus, number) of each.

    Args:
        documents: how many each corpus has.
        epochs: how often each stands in the mix.
        seed: another one draws and orders otherwise.
    """
    corpora, numbers, keys = [], [], []
    for corpus, (count, often) in enumerate(zip(documents, epochs, strict=True)):
        name = mix(np.arange(count, dtype=np.uint64) + np.uint64((seed & 0xFFFF) << 32) + np.uint64((corpus + 1) << 48))
        extra = name < np.uint64(int((often % 1) * (2**64 - 1)))
        copies = int(often) + extra.astype(np.int64)
        number = np.repeat(np.arange(count), copies)
        copy = np.arange(len(number)) - np.repeat(np.cumsum(copies) - copies, copies)
        corpora.append(np.full(len(number), corpus))
        numbers.append(number)
        keys.append(mix(name[number] + copy.astype(np.uint64) + np.uint64(1)))
    corpus, number = np.concatenate(corpora), np.concatenate(numbers)
    order = np.argsort(np.concatenate(keys), kind="stable")
    return corpus[order], number[order]
