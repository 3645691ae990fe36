"""Graph -> instruction records by templates, or in a teacher's words checked by the verifier, with provenance and coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import orjson

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build, resolve_inputs
from zhtune.errors import ConfigError, DataError
from zhtune.graph.graph import Graph, Triple
from zhtune.log import logger
from zhtune.models.open import answering
from zhtune.parallel import spread, uncollected
from zhtune.records import write_json, write_jsonl
from zhtune.references import MODEL_KINDS, Source
from zhtune.synthesis.audit import Auditor, Part, figures
from zhtune.synthesis.instruct import Job, Taught, choose_heads, record_jobs, rows_of, shuffle
from zhtune.synthesis.rewrite import PROMPTS, Rewriter
from zhtune.synthesis.splits import SPLITS, divide, leaks
from zhtune.synthesis.tasks import MAKERS, read_wordings, task_jobs
from zhtune.synthesis.teachers.asking import Asking, Prompt, TeacherConfig, forecast, open_teacher, rehearse
from zhtune.synthesis.teachers.teacher import Teacher, expected_tokens

STAGE = Stage("kg-instruct", version=6, kind="records",
              inputs={"graph": ("graph",), "teacher": MODEL_KINDS, "prompts": ("file",), "prices": ("file",)})


@dataclass(frozen=True, kw_only=True)
class KgInstructConfig(TeacherConfig):
    """Make instruction records from a graph: one-hop, inverse, yes/no, unanswerable questions and harder tasks."""

    graph: str
    """A graph artifact"""
    heads: int = 0
    """How many heads are taught; the others stay unknown, for refusals. 0 teaches all"""
    records_per_fact: int = 18
    """One-hop records for each (head, relation), each on another wording; with a teacher, the pairs asked for in one call"""
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
    teacher: str = ""
    """Who rewrites the one-hop records: an endpoint's URL (OpenAI-compatible), or a local model, adapter or GGUF file. Every draft is verified"""
    prompts: str = "shipped:kg_instruct"
    """Folder of the prompts rewrite and retry (.txt)"""
    retries: int = 2
    """How often rejected drafts go back to the teacher with what is wrong in them, before the template's record is taken"""

    def check(self) -> None:
        if self.records_per_fact < 1 or self.heads < 0:
            raise ConfigError("--records_per_fact must be at least 1 and --heads at least 0")
        if self.retries < 0:
            raise ConfigError(f"--retries must be at least 0, found {self.retries}")
        for name in ("inverse", "yes_no", "unanswerable"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--{name} is a share from 0 to 1")
        if not self.teacher and (self.teacher_model or self.template or self.prices or self.batch_api or self.dry_run):
            raise ConfigError("--teacher_model, --template, --prices, --batch_api and --dry_run go with --teacher, which is not given")
        self.check_teacher(self.teacher)
        for split, share in self.holdout.items():
            if split not in SPLITS or not 0 <= share < 1:
                raise ConfigError(f"--holdout: {split!r}: {share}; there are: {', '.join(SPLITS)}, each with a share below 1")
        for task, wanted in self.tasks.items():
            if task not in MAKERS or wanted < 0:
                raise ConfigError(f"--tasks: {task!r}: {wanted}; there are: {', '.join(MAKERS)}, each with a number of records")


def kg_instruct(config: KgInstructConfig) -> Artifact | str:
    """Write records.jsonl and taught.json (which heads are taught, which stay unknown). A dry run gives its estimate, as text.

    Raises:
        ConfigError: no key, a prompt with other placeholders.
        DataError: a held-out wording is among the training wordings.
        TeacherStopped: the endpoint fails all the time, or a cap is reached; run again, it goes on from the teacher's log.
    """
    if config.dry_run:
        return _estimate(config)
    with uncollected():
        return build(STAGE, config, lambda work: _write(work, config), resumable=True)


def _write(work: Work, config: KgInstructConfig) -> None:
    graph = Graph.open(work.sources["graph"].path)
    if config.heads > len(graph.heads):
        logger.info("kg-instruct: %d heads were asked for, the graph has %d: all are taught", config.heads, len(graph.heads))
    taught = choose_heads(graph, config.heads, config.seed)
    shares = {"inverse": config.inverse, "yes_no": config.yes_no, "unanswerable": config.unanswerable}
    made = record_jobs(graph, taught, config.records_per_fact, shares, config.seed, config.noise)
    workers = config.workers if len(made) > 1 + len(shares) else 1      # processes are not worth it for a small graph
    if config.teacher:
        rewritten = _in_the_teachers_words(work, graph, made, config)
        made = [lambda: rewritten]
    auditor = Auditor(graph)
    parts = spread(auditor.finish, [*made, *task_jobs(graph, taught, config.tasks, config.seed, read_wordings())], workers)
    verified = figures(part.audit for part in parts)        # held-out records too
    first, lines = sum(len(part.lines) for part in parts[:len(made)]), [line for part in parts for line in part.lines]
    if not lines:
        raise DataError("the graph gives no record", work.sources["graph"].path)
    for (task, wanted), part in zip(config.tasks.items(), parts[len(made):], strict=True):
        if len(part.lines) < wanted:
            logger.info("kg-instruct: %s: %d of %d records, the graph gives no more", task, len(part.lines), wanted)
    order = [*range(first)] if config.teacher else shuffle([*range(first)], config.seed)
    if config.tasks:
        order = shuffle([*order, *range(first, len(lines))], config.seed)
    lines = [lines[i] for i in order]
    work.counted_in = len(lines) + sum(work.dropped.values())   # a refused reply or draft counts as one
    if config.holdout:
        train, taught = _hold_out(work, graph, [orjson.loads(line) for line in lines], taught, config)
        parts, lines = [train], train.lines
    with open(work.path / "records.jsonl", "wb") as file:
        file.writelines(lines)
    write_json(work.path / "taught.json", vars(taught))
    work.kept = len(lines)
    _account(work, graph, taught, parts)
    work.report |= {"verified": verified}


def _account(work: Work, graph: Graph, taught: Taught, parts: list[Part]) -> None:
    """The ledger: records by task, and which triples and values at least one of them states."""
    counts: Counter[str] = sum((part.tasks for part in parts), Counter())
    work.metrics |= {"records": work.kept, "heads": len(taught.heads), **dict(sorted(counts.items()))}
    stated: set[str] = set().union(*(part.stated for part in parts))
    work.report |= coverage(graph.triples, taught, stated, {"coverage": lambda t: t.relation, "coverage_by_type": lambda t: t.tail_type,
                                                            "coverage_by_degree": _degree(graph)})
    if graph.values:
        work.report |= coverage(chain(*graph.values.values()), taught, stated, {"coverage_of_attributes": lambda t: t.relation})


def _in_the_teachers_words(work: Work, graph: Graph, made: list[Job], config: KgInstructConfig) -> list[dict]:
    rows = rows_of(made)
    with open_teacher(work.sources, work.path, config, answering) as (teacher, log):
        rewriter = _rewriter(work.sources, graph, teacher, work.drop, config.retries, config)
        rows = rewriter.rewrite([rows[i] for i in shuffle([*range(len(rows))], config.seed)])
        work.metrics |= rewriter.counts
        work.report |= {"teacher": log.summary()}
    if not rewriter.counts["accepted"] + rewriter.counts["accepted_after_retry"]:
        logger.warning("kg-instruct: no draft of the teacher was accepted, all records are the templates'; dropped.jsonl says why")
    return rows


def _rewriter(sources: dict[str, Source], graph: Graph, teacher: Teacher, refuse: Callable[..., Any], retries: int,
              config: KgInstructConfig) -> Rewriter:
    prompts = {name: Prompt.read(sources["prompts"].path, name, placeholders) for name, placeholders in PROMPTS.items()}
    return Rewriter(graph, Asking(teacher, config.max_tokens, config.temperature, config.seed), prompts, refuse, retries)


def _estimate(config: KgInstructConfig) -> str:
    sources = resolve_inputs(STAGE, config)
    graph, rehearsal = Graph.open(sources["graph"].path), rehearse(sources, config.teacher_model)
    taught = choose_heads(graph, config.heads, config.seed)
    rows = rows_of(record_jobs(graph, taught, config.records_per_fact, {}, config.seed, config.noise))
    _rewriter(sources, graph, rehearsal, lambda *_, **__: None, 0, config).rewrite(rows)
    return forecast(rehearsal, sum(expected_tokens(row["messages"]) for row in rows), sources, config,
                    note=f"facts with rejected drafts are asked again, at most {config.retries} times")


def _hold_out(work: Work, graph: Graph, rows: list[dict], taught: Taught, config: KgInstructConfig) -> tuple[Part, Taught]:
    """Write heldout.jsonl and prove that no training record gives one of it away; returns the training records and what they teach."""
    divided = divide(graph, rows, config.holdout, config.seed)
    if not divided.train:
        raise DataError(f"gives {len(rows)} records, of which --holdout leaves none to train on; lower its shares", work.sources["graph"].path)
    found = leaks(graph, divided.train, divided.heldout)
    if any(found.values()):
        raise DataError(f"training records give held-out ones away: {found}; report this as a defect")
    write_jsonl(work.path / "heldout.jsonl", divided.heldout)
    for reason, row in divided.dropped:
        work.drop(reason, **row)
    splits = Counter(row["source"]["split"] for row in divided.heldout)
    work.dropped.update({f"heldout_{split}": number for split, number in sorted(splits.items())})
    work.report |= {"heldout": dict(sorted(splits.items())), "leaks": found}
    away = set(divided.entities)
    return Part.of(divided.train), replace(taught, heads=[head for head in taught.heads if head not in away],
                                           heldout_entities=divided.entities, heldout_facts=divided.facts)


def coverage(statements: Iterable[Triple], taught: Taught, stated: set[str],
             keys: dict[str, Callable[[Triple], str]]) -> dict[str, dict[str, dict[str, int]]]:
    """A table for each key: statements by it, those of taught heads, and those that at least one record states."""
    heads, statements = set(taught.heads), list(statements)
    seen = [(statement.head in heads, statement.id in stated) for statement in statements]
    tables: dict[str, dict[str, dict[str, int]]] = {}
    for name, key in keys.items():
        table = tables[name] = {}
        for (value, (known, covered)), number in Counter(zip(map(key, statements), seen, strict=True)).items():
            row = table.setdefault(value, {"triples": 0, "taught": 0, "covered": 0})
            row["triples"] += number
            row["taught"] += number * known
            row["covered"] += number * covered
    return tables


def _degree(graph: Graph) -> Callable[[Triple], str]:
    """How many triples the tail stands in, in powers of two: rare names are what generators forget."""
    degrees = Counter(t.tail for t in graph.triples)
    return lambda triple: f"up to {1 << (degrees[triple.tail] - 1).bit_length()}"
