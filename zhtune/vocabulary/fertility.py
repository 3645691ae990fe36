"""Tokens per character: of a vocabulary by its size, before there is a base, and of a tokenizer on texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from zhtune.vocabulary.pieces import Piece
from zhtune.vocabulary.symbols import is_text, to_bytes
from zhtune.vocabulary.train import cut_runs, word_model

_POINTS = 8                                                 # of the curve, between atoms only and the whole vocabulary


@dataclass(frozen=True)
class Fertility:
    """What a tokenizer makes of some texts."""

    characters: int
    tokens: int
    partial: int
    """Tokens that are not whole characters (byte fallback)"""

    @property
    def tokens_per_character(self) -> float:
        return self.tokens / self.characters if self.characters else 0.0

    @property
    def partial_share(self) -> float:
        return self.partial / self.tokens if self.tokens else 0.0


def measure(tokenizer: Any, texts: Iterable[str]) -> Fertility:
    """Tokens, and tokens that hold a part of a character, of a byte-level `tokenizers.Tokenizer`."""
    texts = list(texts)
    uses: Counter[int] = Counter()
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        uses.update(encoding.ids)
    tokens = {i: tokenizer.id_to_token(i) for i in uses}
    partial = sum(uses[i] for i, token in tokens.items() if to_bytes(token) is not None and not is_text(token))
    return Fertility(sum(map(len, texts)), sum(uses.values()), partial)


def curve(runs: Counter[str], pieces: list[Piece]) -> list[list[float]]:
    """`[[pieces, tokens per Han character]…]` of Han runs, on a base that knows bytes only.

    The first point has no pieces (3 bytes a character), the second all atoms and marks, then words in their order; a
    Han character that is no atom costs its bytes.
    """
    atoms = [p.text for p in pieces if p.kind == "atom"]
    merges = [(p.left, p.right) for p in pieces if p.kind == "word"]
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
