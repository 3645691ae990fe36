"""Anything that answers -> report: facts on held-out wordings, bits per character of held-out text."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError, DataError
from zhtune.evaluation import facts
from zhtune.graph.graph import Graph
from zhtune.log import logger
from zhtune.models.engine import Engine, Sampling
from zhtune.models.open import open_engine
from zhtune.records import read_records, write_json, write_jsonl
from zhtune.references import MODEL_KINDS
from zhtune.synthesis.instruct import Taught, read_taught
from zhtune.synthesis.questions import Question, heldout_questions, recorded_questions

STAGE = Stage("evaluate", version=4, kind="report",
              inputs={"model": MODEL_KINDS, "graph": ("graph",), "records": ("records",), "corpus": ("corpus", "file")})
_SAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StageConfig):
    """Measure a model, adapter or GGUF file: fact accuracy on a graph, bits per character on a corpus."""

    model: str
    """What answers"""
    graph: str = ""
    """Graph with held-out wordings: its facts are asked"""
    records: str = ""
    """The records the model was taught with: only their heads are asked, and others to see refusals"""
    corpus: str = ""
    """Corpus: bits per character on its held-out documents (not for GGUF files)"""
    questions: int = 500
    """Questions of each split (near, far), balanced over wordings; 0 asks every fact on every wording"""
    unknown: int = 100
    """Questions about heads that were not taught"""
    heldout: int = 100
    """Questions of each split in the records' heldout.jsonl: triple and entity show what is made up about what was never taught,
    composition whether taught facts are joined; 0 asks none"""
    windows: int = 50
    """Windows of 200 characters for bits per character"""
    max_tokens: int = 64
    """Longest answer in tokens"""
    template: str = ""
    """Chat template for a model that has none, such as chatml"""

    def check(self) -> None:
        if not (self.graph or self.corpus):
            raise ConfigError("evaluate needs something to measure on: --graph or --corpus")


def evaluate(config: EvaluateConfig) -> Artifact:
    """Write figures.json and answers.jsonl (every question, answer and verdict).

    Raises:
        DataError: there are no held-out wordings or records, or the corpus no held-out text.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: EvaluateConfig) -> None:
    questions, graph = _questions(work, config) if config.graph else ([], None)
    figures: dict[str, Any] = {}
    with closing(open_engine(work.sources["model"], template=config.template)) as engine:
        if config.corpus:
            figures["bits_per_character"] = _bits(work, config, engine)
        judged = facts.ask(engine, questions, graph, Sampling(max_tokens=config.max_tokens, seed=config.seed)) if graph else []
    if graph:
        figures["facts"] = facts.figures(judged, graph)
        work.counted_in = work.kept = len(judged)
        work.metrics |= {f"{split}_exact": row["exact"] for split, row in figures["facts"].items() if "exact" in row}
    write_jsonl(work.path / "answers.jsonl", ({**vars(q), "answer": text, **vars(v)} for q, text, v in judged))
    if figures.get("bits_per_character") is not None:
        work.metrics["bits_per_character"] = figures["bits_per_character"]
    write_json(work.path / "figures.json", figures)
    chosen = random.Random(config.seed).sample(judged, min(_SAMPLES, len(judged)))
    work.report["samples"] = [{"id": q.id, "question": q.text, "answer": text, "expected": q.expected} for q, text, _ in chosen]


def _questions(work: Work, config: EvaluateConfig) -> tuple[list[Question], Graph]:
    path = work.sources["graph"].path
    graph = Graph.open(path)
    apart = work.sources["records"].path / "heldout.jsonl" if config.records and config.heldout else None
    rows = [row for _, row in read_records(apart)] if apart and apart.exists() else []
    if not graph.heldout and not rows:
        raise DataError("has no held-out wordings (heldout.yaml), and there are no held-out records (kg-instruct --holdout, evaluate --records): "
                        "there is nothing to ask", path)
    taught = read_taught(work.sources["records"].path, graph) if config.records else Taught(graph.heads)
    questions = [q for split in ("near", "far")
                 for q in heldout_questions(graph, taught.heads, split, config.questions, config.seed, taught.heldout_facts)]
    if taught.unknown_eval and config.unknown:
        questions += heldout_questions(graph, taught.unknown_eval, "unknown", config.unknown, config.seed)
    questions += recorded_questions(graph, rows, config.heldout, config.seed)
    return questions, graph


def _bits(work: Work, config: EvaluateConfig, engine: Engine) -> float | None:
    from zhtune.models import bits
    from zhtune.models.generation import TransformersEngine
    if not isinstance(engine, TransformersEngine):          # llama.cpp and endpoints give no log-probabilities of a prompt
        if not config.graph:
            raise ConfigError("--corpus alone measures nothing of a GGUF file or an endpoint, which tell no probabilities of a text: "
                              "give --graph, or evaluate the model before it is quantized")
        logger.warning("evaluate: no bits per character of a GGUF file or an endpoint, which tell no probabilities of a text")
        return None
    return bits.bits_per_character(engine.model, engine.encoder, bits.heldout_windows(work.sources["corpus"].path, config.windows, config.seed))
