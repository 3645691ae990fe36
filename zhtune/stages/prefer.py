"""Graph -> preference pairs whose rejected answers are false in the graph."""

from __future__ import annotations

from dataclasses import dataclass

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError, DataError
from zhtune.graph.graph import Graph
from zhtune.records import write_jsonl
from zhtune.synthesis.instruct import read_taught
from zhtune.synthesis.preferences import pairs

STAGE = Stage("prefer", version=2, kind="preferences", inputs={"graph": ("graph",), "records": ("records",)})


@dataclass(frozen=True, kw_only=True)
class PreferConfig(StageConfig):
    """Make preference pairs from a graph by swapping one entity of a right answer."""

    graph: str
    """A graph artifact"""
    records: str = ""
    """The records of kg-instruct: only the heads taught there are used"""
    pairs: int = 200
    """How many pairs"""

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ConfigError("--pairs must be at least 1")


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
    if not rows:
        raise DataError("no fact has another entity of its type and length that is false for its head", work.sources["graph"].path)
    work.counted_in, work.kept = config.pairs, write_jsonl(work.path / "preferences.jsonl", rows)
    if work.kept < config.pairs:
        work.dropped["no_false_swap"] = config.pairs - work.kept
    work.metrics["pairs"] = len(rows)
