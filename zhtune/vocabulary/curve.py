"""Tokens per character of a vocabulary by its size, before there is a base, and the size to take."""

from __future__ import annotations

from collections import Counter
from statistics import median_high

from zhtune.vocabulary.pieces import WORDS, Piece
from zhtune.vocabulary.train import between, cut_runs, word_model

_USES, _WINDOW = 50, 200                                    # the median use of 200 words in a row, below which they learn little
_POINTS = 8                                                 # of the curve, between atoms only and the whole vocabulary


def curve(runs: Counter[str], pieces: list[Piece]) -> list[list[float]]:
    """`[[pieces, tokens per Han character]…]` of Han runs, on a base that knows bytes only.

    The first point has no pieces (3 bytes a character), the second all atoms and marks, then words in their order; a
    Han character that is no atom costs its bytes.
    """
    atoms = [p.text for p in pieces if p.kind == "atom"]
    merges = [(p.left, p.right) for p in pieces if p.kind in WORDS]
    total = sum(len(run) * count for run, count in runs.items())
    if not total:
        return []
    whole = sum(len(run.encode("utf-8")) * count for run, count in runs.items())
    cut = cut_runs(runs, set(atoms))
    outside = whole - sum(len(run.encode("utf-8")) * count for run, count in cut.items())
    points = [[0, round(whole / total, 4)]]
    for number in sorted({round(len(merges) * i / _POINTS) for i in range(_POINTS + 1)}):
        model = word_model(atoms, merges[:number])
        tokens = outside + sum(len(model.tokenize(run)) * count for run, count in cut.items())
        points.append([len(pieces) - len(merges) + number, round(tokens / total, 4)])
    return points


def suggest(points: list[list[float]], pieces: list[Piece]) -> dict[str, int | None]:
    """A size for a vocabulary, never beyond words that the text hardly uses.

    Args:
        points: of `curve`.
        pieces: the vocabulary.

    Returns:
        "general": pieces from which the next 1,000 save less than 1 % of the tokens, None: more than were trained; "small": the
        same with 2 %, for small models and LoRA; "used": pieces up to which words are used at least 50 times in the training text.
    """
    atoms = sum(p.kind not in WORDS for p in pieces)
    words = [p.count for p in pieces if p.kind in WORDS]
    used = next((atoms + i for i in range(0, len(words), _WINDOW) if median_high(words[i:i + _WINDOW]) < _USES), len(pieces))
    return {"general": _size_at(points, .01, used), "small": _size_at(points, .02, used), "used": used}


def _size_at(points: list[list[float]], saving: float, limit: int) -> int | None:
    """The first point of the curve, in steps of 500, after which 1,000 pieces save less than `saving`, at most `limit`."""
    last = int(points[-1][0])
    for size in range(int(points[1][0]) // 500 * 500 + 500, last - 1000 + 1, 500):
        here = between(points, size)
        if (here - between(points, size + 1000)) / here < saving:
            return min(size, limit)
    return limit if limit < last else None
