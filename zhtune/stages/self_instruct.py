"""Seed tasks, or a corpus, and a teacher -> instruction records: batches, evolution, document questions, worked steps."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build, resolve_inputs
from zhtune.corpus.filters import divide
from zhtune.corpus.read import read_texts
from zhtune.errors import ConfigError, DataError
from zhtune.log import logger
from zhtune.models.open import answering
from zhtune.records import write_jsonl
from zhtune.references import MODEL_KINDS, Source
from zhtune.synthesis import self_instruct as synthesis
from zhtune.synthesis.novelty import NoveltyIndex
from zhtune.synthesis.teachers.asking import Asking, Prompt, TeacherConfig, forecast, open_teacher, rehearse
from zhtune.synthesis.teachers.teacher import expected_tokens

STAGE = Stage("self-instruct", version=3, kind="records",
              inputs={"teacher": MODEL_KINDS, "seeds": ("file", "records"), "corpus": ("corpus", "file"), "prompts": ("file",), "prices": ("file",)})
_SHORTEST_PASSAGE = 80


@dataclass(frozen=True, kw_only=True)
class SelfInstructConfig(TeacherConfig):
    """Let a teacher write instruction records: from seed tasks, from a corpus, deeper ones, and with worked steps."""

    teacher: str
    """Who writes: an endpoint's URL (OpenAI-compatible), or a local model, adapter or GGUF file"""
    seeds: str = ""
    """Seed tasks (JSON Lines: instruction, input, output); where none are given, seeds.jsonl beside the prompts (the shipped 175)"""
    corpus: str = ""
    """Corpus for questions on documents"""
    prompts: str = "shipped:self_instruct"
    """Folder of the prompts numbered, json, deepen, broaden, document, steps (.txt)"""
    tasks: int = 100
    """Tasks wanted from batches; 0 for none"""
    batch: int = 10
    """Tasks asked for in one request (BELLE 10, Alpaca 20)"""
    form: Literal["json", "numbered"] = "json"
    """How a batch is written: one JSON object a line, or numbered between ### as Alpaca's and BELLE's"""
    requests: int = 0
    """Most requests for batches; 0: four times what is needed if every task were accepted"""
    at_once: int = 8
    """Requests made from the same pool before its new tasks serve as examples"""
    evolve: int = 0
    """Accepted tasks that are made deeper or (every fifth) broader"""
    documents: int = 0
    """Passages of the corpus that are asked about"""
    pairs: int = 3
    """Questions on each passage"""
    passage: int = 800
    """Most characters of a passage"""
    steps: int = 0
    """Accepted tasks that are answered again step by step, the steps kept as `reasoning`"""
    novelty: float = 0.7
    """Instructions with a greater ROUGE-L F (jieba words) to an accepted one are dropped"""
    max_characters: int = 200
    """Longest instruction; its input may be longer"""

    def check(self) -> None:
        for name, least in (("tasks", 0), ("batch", 1), ("requests", 0), ("at_once", 1), ("evolve", 0), ("documents", 0), ("pairs", 1),
                            ("passage", 100), ("steps", 0), ("max_characters", 4)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} must be at least {least}, found {getattr(self, name)}")
        if not 0 < self.novelty < 1:
            raise ConfigError(f"--novelty is a share between 0 and 1, not {self.novelty}")
        if not (self.tasks or self.documents):
            raise ConfigError("self-instruct needs something to do: --tasks, or --documents with --corpus")
        if bool(self.documents) != bool(self.corpus):
            raise ConfigError("--documents and --corpus are given together")
        self.check_teacher(self.teacher)


def self_instruct(config: SelfInstructConfig) -> Artifact | str:
    """Write records.jsonl; every refused reply and task is kept with its reason. A killed run goes on from the teacher's log.

    A dry run gives its estimate, as text.

    Raises:
        ConfigError: no key, a prompt with other placeholders.
        DataError: no task was accepted, a seed that is no task.
        TeacherStopped: the endpoint fails all the time, or a cap is reached.
    """
    return _estimate(config) if config.dry_run else build(STAGE, config, lambda work: _write(work, config), resumable=True)


def _write(work: Work, config: SelfInstructConfig) -> None:
    prompts, seeds = _read(work.sources)
    index = NoveltyIndex(config.novelty)
    index.admit_all(task.instruction for _, task in seeds)
    pool = synthesis.Pool(index, work.drop, most=config.max_characters)
    with open_teacher(work.sources, work.path, config, answering) as (teacher, log):
        asking = Asking(teacher, config.max_tokens, config.temperature, config.seed)
        _fill(pool, asking, work, config, prompts, seeds)
        work.report["teacher"] = log.summary()
        if not log.ledger.answered_jobs:
            log.stopped("nothing was answered")             # another run asks again
    work.kept = len(pool.records)
    work.counted_in = work.kept + sum(work.dropped.values())   # a refused reply counts as one
    if not pool.records:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(work.dropped.items())) or "the teacher gave none"
        error = f"; the last failed call: {log.last_error}" if "no_reply" in work.dropped and log.last_error else ""
        raise DataError(f"no task was accepted: {reasons}{error}")
    write_jsonl(work.path / "records.jsonl", pool.records)
    methods = Counter(record["source"]["method"] for record in pool.records)
    work.metrics |= {"records": len(pool.records), **dict(sorted(methods.items()))}
    work.report["prompts"] = {name: prompt.sha256 for name, prompt in prompts.items()}


def _read(sources: dict[str, Source]) -> tuple[dict[str, Prompt], list[tuple[str, synthesis.Task]]]:
    """Prompts and seeds."""
    folder = sources["prompts"].path
    seeds = sources["seeds"].path if "seeds" in sources else folder / "seeds.jsonl"
    return ({name: Prompt.read(folder, name, placeholders) for name, placeholders in synthesis.PROMPTS.items()},
            synthesis.read_seeds(seeds / "records.jsonl" if seeds.is_dir() else seeds))


def _fill(pool: synthesis.Pool, asking: Asking, work: Work, config: SelfInstructConfig, prompts: dict[str, Prompt],
          seeds: list[tuple[str, synthesis.Task]]) -> None:
    """Each way of making tasks, one after the other."""
    if config.tasks:
        needed = -(-config.tasks // config.batch)
        at_once = config.at_once if config.requests else min(config.at_once, needed)
        sent = synthesis.batches(asking, pool, seeds, prompts[config.form], form=config.form, wanted=config.tasks, count=config.batch,
                                 requests=config.requests or 4 * needed, at_once=at_once)
        work.metrics["requests"] = sent
        if 0 < len(pool.records) < config.tasks:
            logger.info("self-instruct: %d of %d tasks after %d requests; --requests raises their number", len(pool.records), config.tasks, sent)
    if config.documents:
        synthesis.documents(asking, pool, prompts["document"], _passages(work.sources["corpus"], config), config.pairs)
    if config.evolve:
        synthesis.evolve(asking, pool, prompts, config.evolve)
    if config.steps:
        work.metrics["with_steps"] = synthesis.work_out(asking, pool, prompts["steps"], config.steps)


def _estimate(config: SelfInstructConfig) -> str:
    """Asks a rehearsal as `_fill` asks the teacher, every task accepted; seeds stand in for tasks that nobody has written yet."""
    sources = resolve_inputs(STAGE, config)
    (prompts, seeds), rehearsal = _read(sources), rehearse(sources, config.teacher_model)
    asking = Asking(rehearsal, config.max_tokens, config.temperature, config.seed)
    stand_ins = list(islice(cycle(task for _, task in seeds), max(config.evolve, config.steps, len(seeds))))
    empty, full = (synthesis.Pool(NoveltyIndex(), lambda *_, **__: None, tasks=tasks) for tasks in ([], stand_ins))
    needed = -(-config.tasks // config.batch)
    at_once = min(config.at_once, needed)
    for pool, requests in ((empty, at_once), (full, needed - at_once)):
        synthesis.batches(asking, pool, seeds, prompts[config.form], form=config.form, wanted=config.tasks, count=config.batch,
                          requests=requests, at_once=max(at_once, 1))
    if config.documents:
        synthesis.documents(asking, empty, prompts["document"], _passages(sources["corpus"], config), config.pairs)
    synthesis.evolve(asking, full, prompts, config.evolve)
    synthesis.work_out(asking, full, prompts["steps"], config.steps)
    shown = [{"content": synthesis.show(task)} for _, task in seeds]
    written = needed * config.batch + config.documents * config.pairs + config.evolve + config.steps
    return forecast(rehearsal, written * expected_tokens(shown) // len(shown), sources, config,
                    note=f"if every task is accepted; at most {config.requests or 4 * needed:,} for batches")


def _passages(source: Source, config: SelfInstructConfig) -> list[tuple[str, str]]:
    """As many passages as are wanted, chosen by the hash of their names, so that the corpus's order plays no part."""
    pieces = [(f"{name}#{number}", piece.strip()) for name, text in read_texts(source.path)
              for number, piece in enumerate(divide(text, config.passage)) if len(piece.strip()) >= _SHORTEST_PASSAGE]
    if not pieces:
        raise DataError(f"holds no passage of {_SHORTEST_PASSAGE} characters", source.path)
    ranked = sorted(pieces, key=lambda piece: hashlib.sha256(f"{config.seed}:{piece[0]}".encode()).digest())
    return ranked[:config.documents]
