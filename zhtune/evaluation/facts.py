"""Fact accuracy: a graph's facts asked on held-out wordings, by exact entity sets, with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from zhtune.graph.graph import Graph
from zhtune.models.engine import Engine, Sampling
from zhtune.synthesis.questions import Question, Verdict, majority, score, wilson
from zhtune.synthesis.teachers.replies import part_thinking


def ask(engine: Engine, questions: list[Question], graph: Graph, sampling: Sampling) -> list[tuple[Question, str, Verdict]]:
    """Put every question to an engine and judge the answers, without their thinking."""
    replies = engine.generate([[{"role": "user", "content": q.text}] for q in questions], sampling)
    return [(q, r.text, score(part_thinking(r.text)[1], q, graph)) for q, r in zip(questions, replies, strict=True)]


def figures(judged: list[tuple[Question, str, Verdict]], graph: Graph) -> dict[str, Any]:
    """Accuracy by split, by relation, for the worst wording; false refusals on known facts, refusals on unknown heads."""
    splits: dict[str, list[tuple[Question, str, Verdict]]] = defaultdict(list)
    for row in judged:
        splits[row[0].split].append(row)
    out: dict[str, Any] = {}
    for split, rows in splits.items():
        if split == "unknown":
            out[split] = _share(sum(v.refused for _, _, v in rows), len(rows), "refused")
            continue
        out[split] = {
            **_share(sum(v.exact for _, _, v in rows), len(rows), "exact"),
            "majority": majority(graph, [q for q, _, _ in rows]),
            "false_refusals": sum(v.refused for _, _, v in rows) / len(rows),
            "by_relation": {k: _share(*c, "exact") for k, c in _tally((q.relation, v.exact) for q, _, v in rows).items()},
            "worst_wordings": _worst(rows),
        }
    return out


def _share(right: int, n: int, name: str) -> dict[str, Any]:
    low, high = wilson(right, n)
    return {name: right / n if n else 0.0, "n": n, "low": low, "high": high}


def _tally(rows: Iterable[tuple[str, bool]]) -> dict[str, tuple[int, int]]:
    """(right, all) by key, in the order in which the keys come."""
    found: dict[str, list[bool]] = defaultdict(list)
    for key, exact in rows:
        found[key].append(exact)
    return {key: (sum(answers), len(answers)) for key, answers in found.items()}


def _worst(rows: list[tuple[Question, str, Verdict]], most: int = 5) -> list[dict[str, Any]]:
    tally = _tally((f"{q.relation}: {q.wording}", v.exact) for q, _, v in rows)
    worst = sorted(tally.items(), key=lambda item: (item[1][0] / item[1][1], item[0]))[:most]
    return [{"wording": wording, "exact": right / n, "n": n} for wording, (right, n) in worst]
