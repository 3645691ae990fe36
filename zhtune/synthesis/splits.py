"""Records that only measure, kept apart without leaks: unseen facts, unseen entities, unseen combinations.

What is held out is chosen by the hash of its name, so it stays the same when the graph grows. Unseen wordings are
another split: they stand in heldout.yaml. Makes no record: it divides those that were made.

    entity        an entity that no training text names
    triple        a (head, tail) pair that no training record states, under any relation, in either direction
    composition   a pair of facts that no training record joins, though each is taught
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from zhtune.digests import drawn
from zhtune.graph.graph import Graph
from zhtune.synthesis.link import Linker

SPLITS = ("entity", "triple", "composition")
_JOINED = ("common", "difference", "comparison", "multi_hop", "consultation")    # tasks that combine facts
_SINGLE = ("one_hop", "inverse", "yes_no", "attribute")         # tasks that measure one fact


@dataclass(frozen=True)
class Divided:
    """Records by what they are for."""

    train: list[dict[str, Any]]
    heldout: list[dict[str, Any]]
    """With source.split"""
    dropped: list[tuple[str, dict[str, Any]]]
    """Records that mix held-out things with others, and those that ask a held-out question about something else, with the reason"""
    entities: list[str]
    facts: list[list[str]]
    """[head, relation] with a held-out pair or entity in it"""


def divide(graph: Graph, rows: list[dict[str, Any]], shares: dict[str, float], seed: int) -> Divided:
    """Divide records.

    Args:
        graph: that they were made from.
        rows: with source.task and source.triples.
        shares: split -> share of heads, of facts and of combinations that are held out.
        seed: another one holds out others.
    """
    entities = {head: None for head in graph.heads if drawn(f"{seed}:entity:{head}", shares.get("entity", 0))}
    pairs = {_pair(t.head, t.tail) for t in graph.by_id.values() if drawn(f"{seed}:triple:{t.head}:{t.relation}", shares.get("triple", 0))}
    by_id, linker = graph.by_id, Linker(entities)
    train, heldout, dropped = [], [], []
    for row in rows:
        source = row["source"]
        triples = [by_id[i] for i in source["triples"]]
        if any(linker.mentions(message["content"]) for message in row["messages"]):
            split = "entity"
            measures = bool(triples) and all(t.head in entities for t in triples)
        elif any(_pair(t.head, t.tail) in pairs for t in triples):
            split, measures = "triple", source["task"] in _SINGLE
        elif source["task"] in _JOINED and drawn(f"{seed}:composition:{_combination(row)}", shares.get("composition", 0)):
            split, measures = "composition", True
        else:
            train.append(row)
            continue
        if measures:
            heldout.append({**row, "source": {**source, "split": split}})
        else:
            dropped.append((f"mixes_heldout_{split}", row))
    asked = {row["messages"][0]["content"] for row in heldout}
    left = [row for row in train if row["messages"][0]["content"] not in asked]     # two relations may share a wording
    dropped += [("asks_heldout_question", row) for row in train if row["messages"][0]["content"] in asked]
    facts = [[head, relation] for (head, relation), fact in graph.facts.items()
             if head not in entities and any(_pair(head, t.tail) in pairs or linker.mentions(t.tail) for t in fact)]
    return Divided(left, heldout, dropped, [*entities], facts)


def leaks(graph: Graph, train: list[dict[str, Any]], heldout: list[dict[str, Any]]) -> dict[str, int]:
    """How many held-out records a training record gives away, by question, pair (either direction), entity or combination."""
    by_id = graph.by_id
    questions = {row["messages"][0]["content"] for row in train}
    pairs = {_pair(by_id[i].head, by_id[i].tail) for row in train for i in row["source"]["triples"]}
    combinations = {_combination(row) for row in train if row["source"]["task"] in _JOINED}
    texts = "\n".join(message["content"] for row in train for message in row["messages"])
    found: Counter[str] = Counter({"question": 0, "pair": 0, "entity": 0, "combination": 0})
    for row in heldout:
        triples = [by_id[i] for i in row["source"]["triples"]]
        split = row["source"]["split"]
        found["question"] += row["messages"][0]["content"] in questions
        found["pair"] += split == "triple" and all(_pair(t.head, t.tail) in pairs for t in triples)
        found["combination"] += split == "composition" and _combination(row) in combinations
    heads = {by_id[i].head for row in heldout if row["source"]["split"] == "entity" for i in row["source"]["triples"]}
    found["entity"] = len({m.name for m in Linker(heads).mentions(texts)})
    return dict(found)


def _pair(left: str, right: str) -> tuple[str, str]:
    return (left, right) if left <= right else (right, left)


def _combination(row: dict[str, Any]) -> str:
    return ",".join(sorted(row["source"]["triples"]))
