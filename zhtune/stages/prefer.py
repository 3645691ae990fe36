"""Graph -> preference pairs whose rejected answers are false in the graph: made by templates, or a model's own answers."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError, DataError
from zhtune.graph.graph import Facts, Graph
from zhtune.models.open import answering
from zhtune.records import write_jsonl
from zhtune.references import MODEL_KINDS
from zhtune.synthesis.flaws import FLAWS, flawed_pairs
from zhtune.synthesis.instruct import Taught, read_taught
from zhtune.synthesis.link import Linker
from zhtune.synthesis.preferences import pairs
from zhtune.synthesis.safety import Safety
from zhtune.synthesis.samples import questions, sampled_pairs
from zhtune.synthesis.tasks import read_wordings
from zhtune.synthesis.teachers.joblog import JobLog
from zhtune.synthesis.teachers.replies import part_thinking
from zhtune.synthesis.teachers.teacher import Job, LocalTeacher

STAGE = Stage("prefer", version=5, kind="preferences", inputs={"graph": ("graph",), "records": ("records",), "model": MODEL_KINDS})


@dataclass(frozen=True, kw_only=True)
class PreferConfig(StageConfig):
    """Make preference pairs from a graph: the rejected answer has a flaw that the graph proves."""

    graph: str
    """A graph artifact"""
    records: str = ""
    """The records of kg-instruct: only the facts taught there are used, none that is held out"""
    model: str = ""
    """A model that answers: the pairs are its own samples, judged by the verifier, in place of swapped entities"""
    samples: int = 4
    """Answers of the model to each question"""
    temperature: float = 0.8
    """Of the model"""
    max_tokens: int = 128
    """Longest answer of the model in tokens"""
    pairs: int | None = None
    """How many pairs with a swapped entity: 200 where nothing is said, none where only --flaws are named; with --model, how many
    questions, each for one pair at most"""
    flaws: list[str] = field(default_factory=list)
    """Other flaws: omission, over_claim, relation_swap, polarity, count, false_refusal, missing_disclaimer; omission and over_claim balance"""
    flaw_pairs: int = 100
    """How many pairs of each of them"""

    def check(self) -> None:
        if self.wanted < 0 or self.flaw_pairs < 1 or not (self.wanted or self.flaws):
            raise ConfigError("--pairs and --flaw_pairs are numbers of pairs; at least one pair must be asked for")
        if self.samples < 2 or self.temperature <= 0 or self.max_tokens < 1:
            raise ConfigError("--samples must be at least 2, --temperature above 0 and --max_tokens at least 1: equal answers make no pair")
        for flaw in self.flaws:
            if flaw not in FLAWS:
                raise ConfigError(f"--flaws: {flaw!r} is none; there are: {', '.join(FLAWS)}")

    @property
    def wanted(self) -> int:
        """Pairs of swaps or samples."""
        if self.pairs is not None:
            return self.pairs
        return 0 if self.flaws and not self.model else 200


def prefer(config: PreferConfig) -> Artifact:
    """Write preferences.jsonl: prompt, chosen, rejected, source (with the swap).

    Raises:
        DataError: no fact of the graph has a false swap.
    """
    return build(STAGE, config, lambda work: _write(work, config), resumable=bool(config.model))


def _write(work: Work, config: PreferConfig) -> None:
    graph = Graph.open(work.sources["graph"].path)
    taught = read_taught(work.sources["records"].path, graph) if config.records else Taught(graph.heads)
    facts, avoid = taught.facts(graph), {*taught.unknown_train, *taught.unknown_eval}
    rows = _sampled(work, graph, facts, config) if config.model else _swapped(work, graph, facts, avoid, config)
    rows += flawed_pairs(graph, facts, avoid, tuple(config.flaws), config.flaw_pairs, config.seed, read_wordings())
    made = Counter(row["source"]["flaw"] for row in rows)
    work.dropped.update({f"no_more_{flaw}": config.flaw_pairs - made[flaw] for flaw in config.flaws if made[flaw] < config.flaw_pairs})
    rows = _without(rows, taught.heldout_entities, work)
    if not rows:
        raise DataError(f"gives no pair of {', '.join(config.flaws)}: missing_disclaimer needs safety: in the ontology, relation_swap "
                        "contradictions:, false_refusal --records with heads that stay unknown", work.sources["graph"].path)
    safety = Safety(graph)
    rows = [row if row["source"]["flaw"] in ("missing_disclaimer", "sampled") else safety.add(safety.add(row, "chosen"), "rejected") for row in rows]
    if config.flaws:
        random.Random(f"{config.seed}:order").shuffle(rows)
    wanted = config.wanted + len(config.flaws) * config.flaw_pairs
    work.counted_in, work.kept = wanted, write_jsonl(work.path / "preferences.jsonl", rows)
    made = Counter(row["source"]["flaw"] for row in rows)
    work.metrics |= {"pairs": len(rows), **{flaw: made[flaw] for flaw in config.flaws}}


def _without(rows: list[dict[str, Any]], heldout: list[str], work: Work) -> list[dict[str, Any]]:
    """Pairs that name no held-out entity."""
    linker, kept = Linker(heldout), []
    for row in rows:
        if any(linker.mentions(m["content"]) for side in ("prompt", "chosen", "rejected") for m in row[side]):
            work.drop("names_heldout_entity", **row)
        else:
            kept.append(row)
    return kept


def _swapped(work: Work, graph: Graph, facts: Facts, avoid: set[str], config: PreferConfig) -> list[dict[str, Any]]:
    rows = pairs(graph, facts, config.wanted, avoid, config.seed)
    if config.wanted and not rows:
        raise DataError("no fact has another entity of its type and length that is false for its head", work.sources["graph"].path)
    if len(rows) < config.wanted:
        work.dropped["no_false_swap"] = config.wanted - len(rows)
    return rows


def _sampled(work: Work, graph: Graph, facts: Facts, config: PreferConfig) -> list[dict[str, Any]]:
    """Pairs of a model's samples; its answers are logged, so a killed run goes on."""
    source = work.sources["model"]
    asked = questions(graph, facts, config.wanted, config.seed)
    jobs = [Job([{"role": "user", "content": item.text}], config.max_tokens, config.temperature, config.seed * config.samples + number, str(number))
            for number in range(config.samples) for item in asked]
    (work.path / "logs").mkdir(exist_ok=True)
    name = f"{source.path.name if source.path else source.reference}@{source.digest[:12]}"
    with answering(source, config.workers) as generate, JobLog(work.path / "logs" / "samples.jsonl") as log:
        texts = [part_thinking(outcome.text)[1] for outcome in LocalTeacher(name, generate, log).ask(jobs)]
    rows, dropped = sampled_pairs(graph, asked, [texts[i::len(asked)] for i in range(len(asked))], name, config.seed)
    work.dropped.update(dropped)
    grades = Counter(str(grade) for row in rows for grade in row["source"]["grades"])
    work.report["grades"] = dict(sorted(grades.items()))
    if not rows:
        raise DataError(f"the model's samples give no pair: {dict(dropped)}; more --pairs, --samples or a higher --temperature may", source.path)
    return rows
