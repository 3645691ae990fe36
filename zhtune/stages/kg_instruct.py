"""Graph -> instruction records by templates, each checked by the verifier, with provenance and coverage."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError, DataError
from zhtune.graph.graph import Graph, Triple
from zhtune.log import logger
from zhtune.parallel import uncollected
from zhtune.records import write_json, write_jsonl
from zhtune.synthesis.audit import audit
from zhtune.synthesis.instruct import Taught, choose_heads, records
from zhtune.synthesis.safety import Safety
from zhtune.synthesis.splits import SPLITS, divide, leaks
from zhtune.synthesis.tasks import MAKERS, read_wordings, task_records

STAGE = Stage("kg-instruct", version=3, kind="records", inputs={"graph": ("graph",)})


@dataclass(frozen=True, kw_only=True)
class KgInstructConfig(StageConfig):
    """Make instruction records from a graph: one-hop, inverse, yes/no, unanswerable questions and harder tasks."""

    graph: str
    """A graph artifact"""
    heads: int = 0
    """How many heads are taught; the others stay unknown, for refusals. 0 teaches all"""
    records_per_fact: int = 18
    """One-hop records for each (head, relation), each on another wording"""
    inverse: float = 0.02
    """Inverse questions, as a share of the one-hop records"""
    yes_no: float = 0.04
    """Yes/no questions, true and corrupted ones in equal number, as a share of the one-hop records"""
    unanswerable: float = 0.06
    """Questions about unknown heads, as a share of the one-hop records"""
    noise: bool = True
    """Reword questions at random: keyword queries, fillers, dropped characters. Better for training; off for data that people read"""
    tasks: dict[str, int] = field(default_factory=dict)
    """Records of harder tasks: {counting: 200, attribute: 500}, and choice, exclude, common, difference, comparison, multi_hop, summary, dialogue, consultation"""  # noqa: E501
    holdout: dict[str, float] = field(default_factory=dict)
    """Kept out of training, as heldout.jsonl: {triple: 0.05, entity: 0.05, composition: 0.1}, shares of facts, heads, combinations"""

    def __post_init__(self) -> None:
        if self.records_per_fact < 1 or self.heads < 0:
            raise ConfigError("--records_per_fact must be at least 1 and --heads at least 0")
        for name in ("inverse", "yes_no", "unanswerable"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--{name} is a share from 0 to 1")
        for split, share in self.holdout.items():
            if split not in SPLITS or not 0 <= share < 1:
                raise ConfigError(f"--holdout: {split!r}: {share}; there are: {', '.join(SPLITS)}, each with a share below 1")
        for task, wanted in self.tasks.items():
            if task not in MAKERS or wanted < 0:
                raise ConfigError(f"--tasks: {task!r}: {wanted}; there are: {', '.join(MAKERS)}, each with a number of records")


def kg_instruct(config: KgInstructConfig) -> Artifact:
    """Write records.jsonl and taught.json (which heads are taught, which stay unknown).

    Raises:
        DataError: a held-out wording is among the training wordings.
    """
    with uncollected():
        return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: KgInstructConfig) -> None:
    graph = Graph.open(work.sources["graph"].path)
    if config.heads > len(graph.heads):
        logger.info("kg-instruct: %d heads were asked for, the graph has %d: all are taught", config.heads, len(graph.heads))
    taught = choose_heads(graph, config.heads, config.seed)
    shares = {"inverse": config.inverse, "yes_no": config.yes_no, "unanswerable": config.unanswerable}
    rows = records(graph, taught, config.records_per_fact, shares, config.seed, config.noise, config.workers)
    rows += task_records(graph, taught, config.tasks, config.seed, read_wordings())
    if config.tasks:
        random.Random(f"{config.seed}:order").shuffle(rows)
    if not rows:
        raise DataError("the graph gives no record", work.sources["graph"].path)
    rows = list(map(Safety(graph).add, rows))
    work.counted_in = len(rows)
    if config.holdout:
        rows = _hold_out(work, graph, rows, config)
    work.kept = write_jsonl(work.path / "records.jsonl", rows)
    write_json(work.path / "taught.json", vars(taught))
    tasks = Counter(row["source"]["task"] for row in rows)
    work.metrics |= {"records": len(rows), "heads": len(taught.heads), **{task: tasks[task] for task in sorted(tasks)}}
    stated = {triple for row in rows for triple in row["source"]["triples"]}
    work.report |= {"coverage": coverage(graph, taught, stated, lambda t: t.relation),
                    "coverage_by_type": coverage(graph, taught, stated, lambda t: t.tail_type),
                    "coverage_by_degree": coverage(graph, taught, stated, _degree(graph)), "verified": audit(graph, rows, config.workers)}
    if graph.values:
        work.report["coverage_of_attributes"] = coverage(graph, taught, stated, lambda t: t.relation, chain(*graph.values.values()))


def _hold_out(work: Work, graph: Graph, rows: list[dict], config: KgInstructConfig) -> list[dict]:
    """Write heldout.jsonl and prove that no training record gives one of it away; returns the training records."""
    divided = divide(graph, rows, config.holdout, config.seed)
    found = leaks(graph, divided.train, divided.heldout)
    if any(found.values()):
        raise DataError(f"training records give held-out ones away: {found}; report this as a defect")
    write_jsonl(work.path / "heldout.jsonl", divided.heldout)
    work.dropped.update(divided.dropped)
    splits = Counter(row["source"]["split"] for row in divided.heldout)
    work.dropped.update({f"heldout_{split}": number for split, number in sorted(splits.items())})
    work.report |= {"heldout": dict(sorted(splits.items())), "leaks": found}
    return divided.train


def coverage(graph: Graph, taught: Taught, stated: set[str], key: Callable[[Triple], str],
             statements: Iterable[Triple] | None = None) -> dict[str, dict[str, int]]:
    """By a key: triples of the graph (or other statements), of taught heads, and stated by at least one record."""
    heads = set(taught.heads)
    table: dict[str, dict[str, int]] = {}
    for triple in statements or graph.triples:
        row = table.setdefault(key(triple), {"triples": 0, "taught": 0, "covered": 0})
        row["triples"] += 1
        row["taught"] += triple.head in heads
        row["covered"] += triple.id in stated
    return table


def _degree(graph: Graph) -> Callable[[Triple], str]:
    """How many triples the tail stands in, in powers of two: rare names are what generators forget."""
    degrees = Counter(t.tail for t in graph.triples)
    return lambda triple: f"up to {1 << (degrees[triple.tail] - 1).bit_length()}"
