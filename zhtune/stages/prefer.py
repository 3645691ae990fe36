"""Graph -> preference pairs whose rejected answers are false in the graph."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError, DataError
from zhtune.graph.graph import Graph
from zhtune.records import write_jsonl
from zhtune.synthesis.flaws import FLAWS, flawed_pairs
from zhtune.synthesis.instruct import read_taught
from zhtune.synthesis.preferences import pairs
from zhtune.synthesis.tasks import read_wordings

STAGE = Stage("prefer", version=2, kind="preferences", inputs={"graph": ("graph",), "records": ("records",)})


@dataclass(frozen=True, kw_only=True)
class PreferConfig(StageConfig):
    """Make preference pairs from a graph: the rejected answer has a flaw that the graph proves."""

    graph: str
    """A graph artifact"""
    records: str = ""
    """The records of kg-instruct: only the heads taught there are used"""
    pairs: int = 200
    """How many pairs with a swapped entity"""
    flaws: list[str] = field(default_factory=list)
    """Other flaws: omission, over_claim, relation_swap, polarity, count, false_refusal (omission and over_claim balance each other)"""
    flaw_pairs: int = 100
    """How many pairs of each of them"""

    def __post_init__(self) -> None:
        if self.pairs < 0 or self.flaw_pairs < 1 or not (self.pairs or self.flaws):
            raise ConfigError("--pairs and --flaw_pairs are numbers of pairs; at least one pair must be asked for")
        for flaw in self.flaws:
            if flaw not in FLAWS:
                raise ConfigError(f"--flaws: {flaw!r} is none; there are: {', '.join(FLAWS)}")


def prefer(config: PreferConfig) -> Artifact:
    """Write preferences.jsonl: prompt, chosen, rejected, source (with the swap).

    Raises:
        DataError: no fact of the graph has a false swap.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: PreferConfig) -> None:
    graph = Graph.open(work.sources["graph"].path)
    heads, avoid = graph.heads, set()
    if config.records:
        taught = read_taught(work.sources["records"].path, graph)
        heads, avoid = taught.heads, {*taught.unknown_train, *taught.unknown_eval}
    rows = pairs(graph, heads, config.pairs, avoid, config.seed)
    if config.pairs and not rows:
        raise DataError("no fact has another entity of its type and length that is false for its head", work.sources["graph"].path)
    swapped = len(rows)
    rows += flawed_pairs(graph, set(heads), avoid, tuple(config.flaws), config.flaw_pairs, config.seed, read_wordings())
    if config.flaws:
        random.Random(f"{config.seed}:order").shuffle(rows)
    wanted = config.pairs + len(config.flaws) * config.flaw_pairs
    work.counted_in, work.kept = wanted, write_jsonl(work.path / "preferences.jsonl", rows)
    if swapped < config.pairs:
        work.dropped["no_false_swap"] = config.pairs - swapped
    made = Counter(row["source"]["flaw"] for row in rows)
    work.dropped.update({f"no_more_{flaw}": config.flaw_pairs - made[flaw] for flaw in config.flaws if made[flaw] < config.flaw_pairs})
    work.metrics |= {"pairs": len(rows), **{flaw: made[flaw] for flaw in config.flaws}}
