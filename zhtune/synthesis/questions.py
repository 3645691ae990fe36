"""Questions on held-out wordings, and what counts as a right answer. No training code reads this module."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from zhtune.errors import DataError
from zhtune.graph.graph import Graph
from zhtune.graph.ontology import fill
from zhtune.synthesis.instruct import LIST_MARK

_SETS = ("one_hop", "inverse", "common", "difference", "multi_hop")     # tasks whose answer is a set of names


@dataclass(frozen=True)
class Question:
    """One question with its expected answer."""

    id: str
    text: str
    head: str
    relation: str
    expected: tuple[str, ...]
    """Tails of the fact; empty for a head that was not taught"""
    split: str
    """near, far (held-out wordings), unknown (a head that was not taught); triple, entity, composition (held-out records)"""
    wording: str


@dataclass(frozen=True)
class Verdict:
    """What an answer is worth."""

    exact: bool
    """It names the head and exactly the expected set"""
    refused: bool
    found: tuple[str, ...]


def heldout_questions(graph: Graph, heads: list[str], split: str, most: int, seed: int, untaught: Iterable[list[str]] = ()) -> list[Question]:
    """Every fact of the heads crossed with the held-out wordings of a split, or a seeded sample balanced over relations
    and wordings.

    Args:
        graph: with held-out wordings.
        heads: whose facts are asked.
        split: "near", "far", or "unknown" (the same wordings, both kinds, about heads that were not taught).
        most: how many questions; 0 for all.
        seed: of the sample.
        untaught: facts [head, relation] that are not asked.
    """
    untaught = {(head, relation) for head, relation in untaught}
    kinds = ("near", "far") if split == "unknown" else (split,)
    by_wording: list[tuple[int, list[Question]]] = []
    for name, splits in graph.heldout.items():
        for number, wording in enumerate(w for kind in kinds for w in splits.get(kind, [])):
            facts = [h for h in heads if graph.asks(h, name) and (h, name) not in untaught]
            rows = [Question(f"{split}:{name}:{number}:{h}", fill(wording, h=h), h, name,
                             () if split == "unknown" else tuple(graph.tails(h, name)), split, wording) for h in facts]
            random.Random(f"{seed}:{split}:{name}:{number}").shuffle(rows)
            by_wording.append((number, rows))
    turns = [rows for _, rows in sorted(by_wording, key=lambda item: item[0])]      # all relations before the next wording of one
    taken = [rows[i] for i in range(max(map(len, turns), default=0)) for rows in turns if i < len(rows)]
    return taken[:most or len(taken)]


def recorded_questions(graph: Graph, rows: list[dict[str, Any]], most: int, seed: int) -> list[Question]:
    """Held-out records of kg-instruct as questions, of each split a seeded sample: those that are answered by a set of names.

    A fact's own question is judged by its tails; any other by the graph's names in its answer that are none of the question's, safety aside.

    Args:
        rows: of heldout.jsonl.
        most: of each split.
        seed: of the sample.

    Raises:
        DataError: the graph has not all that they state.
    """
    if any(i not in graph.by_id for row in rows for i in row["source"]["triples"]):
        raise DataError("heldout.jsonl states what the graph does not hold; give the graph that the records were made from, or --heldout 0")
    splits: dict[str, list[tuple[str, str, str, dict[str, Any]]]] = {}
    for number, row in enumerate(rows):
        task, split = row["source"]["task"], row["source"]["split"]
        if task in _SETS:
            splits.setdefault(split, []).append((f"{split}:{number}", row["messages"][0]["content"], row["messages"][-1]["content"], row["source"]))
    found = []
    for split in sorted(splits):
        random.Random(f"{seed}:{split}").shuffle(splits[split])
        for name, asked, said, source in splits[split][:most]:
            fact = graph.by_id[source["triples"][0]]
            own = source["task"] == "one_hop"
            expected = graph.tails(fact.head, fact.relation) if own else _others(said, asked, graph)
            found.append(Question(name, asked, fact.head if own else "", fact.relation if own else source["task"], tuple(expected), split,
                                  source["task"]))
    return found


def _others(answer: str, question: str, graph: Graph) -> tuple[str, ...]:
    """The graph's names in an answer that are none of the question's. What safety adds, such as a red flag with its names, answers nothing."""
    for rule in graph.ontology.safety:
        answer = _form(rule.say).sub("", answer)
    names = list(graph.types)
    asked = set(mentioned(question, names))
    return tuple(name for name in mentioned(answer, names) if name not in asked)


def score(answer: str, question: Question, graph: Graph) -> Verdict:
    """Judge an answer.

    A question that is none of one fact is answered by exactly the expected names, those of the question aside.
    Otherwise, if it has the form in which the relation is said, its list must be the expected set (an invented item makes it wrong).
    If not, the entities of the relation's tail types that it mentions, longest match first, must be that set.
    """
    relation = graph.ontology.relations[question.relation] if question.head else None
    refused = any(_form(text).search(answer) for text in graph.ontology.refuse)
    match = relation and _form(relation.say).search(answer.strip())
    if relation is None:
        found, named = _others(answer, question.text, graph), True
    elif match:
        found = _items(match["ts"], question.expected)
        named = match["h"] == question.head
    else:
        tails = set(graph.of_type(*relation.tails))
        linked = mentioned(answer, [*graph.of_type(*relation.heads), *tails, question.head])
        found = tuple(name for name in linked if name in tails and name != question.head)
        named = question.head in linked
    exact = bool(question.expected) and named and not refused and len(found) == len(set(found)) and set(found) == set(question.expected)
    return Verdict(exact, refused, found)


def _items(text: str, expected: tuple[str, ...]) -> tuple[str, ...]:
    """The items of a list slot; an expected name that itself holds the list mark counts as one item."""
    items = text.split(LIST_MARK)
    if any(LIST_MARK in name for name in expected) and sorted(items) == sorted(LIST_MARK.join(expected).split(LIST_MARK)):
        return expected
    return tuple(items)


def mentioned(text: str, names: list[str]) -> tuple[str, ...]:
    """The names that occur in a text, a name inside a longer matched one not counted, in order of first occurrence."""
    there = {name for name in names if name in text}        # a pattern of all names of a large graph takes a second
    pattern = re.compile("|".join(re.escape(n) for n in sorted(there, key=lambda n: (-len(n), n))))
    return tuple(dict.fromkeys(m.group() for m in pattern.finditer(text))) if there else ()


def majority(graph: Graph, questions: list[Question]) -> float:
    """Share of questions that the most frequent tail set of their relation would answer."""
    sets: dict[str, Counter[frozenset[str]]] = {}
    for question in questions:
        sets.setdefault(question.relation, Counter())[frozenset(question.expected)] += 1
    return sum(counts.most_common(1)[0][1] for counts in sets.values()) / len(questions) if questions else 0.0


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.959964, right / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _form(text: str) -> re.Pattern[str]:
    """An answer form as a pattern with the groups h and ts."""
    pattern = re.escape(text).replace(r"\{h\}", "(?P<h>.+?)").replace(r"\{ts\}", "(?P<ts>.+?)")
    return re.compile(pattern + (r"\Z" if text.endswith("}") else ""), re.DOTALL)    # a slot at the end runs to the end
