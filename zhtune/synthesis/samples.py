"""Preference pairs from a model's own answers: several samples of one question, the verifier says which is better.

    3  all that it says is supported, nothing is missing       1  something is unsupported, or nothing is said
    2  all that it says is supported, something is missing     0  something is contradicted by the graph

A pair needs a chosen answer of 2 or 3 and a rejected one below it; questions whose samples are all alike give none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from zhtune.graph.graph import Facts, Graph
from zhtune.synthesis.instruct import ranked
from zhtune.synthesis.preferences import asked, pair
from zhtune.synthesis.safety import Safety
from zhtune.synthesis.verify import CONTRADICTED, Verification, Verifier

_SUPPORTED = 2


@dataclass(frozen=True)
class Asked:
    """One question about one fact."""

    head: str
    relation: str
    text: str
    wording: int
    form: str


def questions(graph: Graph, facts: Facts, wanted: int, seed: int) -> list[Asked]:
    """`wanted` questions in training wordings over some facts (head, relation), each once before any comes again."""
    drawn = ranked(facts, wanted, f"{seed}:samples")
    return [Asked(head, name, *asked(graph, head, name, draw)) for (head, name), draw in drawn]


def grade(found: Verification) -> int:
    """What an answer is worth, from 0 to 3."""
    if any(claim.verdict == CONTRADICTED for claim in found.claims):
        return 0
    if found.flagged or not found.claims:
        return 1
    return _SUPPORTED if found.missing else 3


def sampled_pairs(graph: Graph, questions: list[Asked], answers: list[list[str]], model: str, seed: int) -> tuple[list[dict[str, Any]], Counter[str]]:
    """One pair at most for each question, and why the others give none: tie, none_supported.

    Args:
        answers: for each question the samples.
        model: a name for the source.
        seed: of the samples, for the source.
    """
    verifier, safety, rows, dropped = Verifier(graph), Safety(graph), [], Counter()
    for item, samples in zip(questions, answers, strict=True):
        ids = [t.id for t in graph.facts[item.head, item.relation]]
        found = [verifier.verify(safety.without(ids, text), item.head, item.relation) for text in samples]
        grades = [grade(verification) for verification in found]
        said = [i for i, text in enumerate(samples) if text.strip()] or [0]     # silence teaches nothing
        best, least = max(said, key=grades.__getitem__), min(grades[i] for i in said)
        if least == grades[best] or grades[best] < _SUPPORTED:
            dropped["tie" if least == grades[best] else "none_supported"] += 1
            continue
        worst = [i for i in said if grades[i] == least]
        other = min(worst, key=lambda i: abs(len(samples[i]) - len(samples[best])))     # of equals, that of most equal length
        why = sorted({claim.reason for claim in found[other].flagged}) or ["missing"]
        rows.append(pair(item.text, samples[best], samples[other], producer="model", model=model, flaw="sampled", why=why, grades=grades,
                         relation=item.relation, triples=ids, wording=item.wording, form=item.form, seed=seed))
    return rows, dropped
