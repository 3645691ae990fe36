"""Preference pairs of a graph: are rejected answers false, and can form alone tell them from chosen ones?

Usage: python scripts/bench/prefer.py [--pairs 1000]. Falsehood is checked by sets of triples, not by the verifier; form by a
logistic regression on length, counts of punctuation and opening characters, trained on two thirds, measured on the rest.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter

import numpy as np

from zhtune import assets
from zhtune.graph.graph import Graph
from zhtune.stages.kg import KgConfig, kg
from zhtune.stages.kg_instruct import KgInstructConfig, kg_instruct
from zhtune.stages.prefer import PreferConfig, prefer
from zhtune.synthesis.flaws import FLAWS
from zhtune.synthesis.questions import mentioned
from zhtune.synthesis.safety import Safety

MARKS = "，。、；：？！（）《》"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    wanted = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as scratch:
        graph_at = kg(KgConfig(input=str(assets.shipped("medical")), additions=str(assets.shipped("medical-safety")), out=f"{scratch}/graph")).path
        records = kg_instruct(KgInstructConfig(graph=str(graph_at), heads=70, records_per_fact=1, out=f"{scratch}/records")).path
        made = prefer(PreferConfig(graph=str(graph_at), records=str(records), pairs=wanted, flaws=list(FLAWS), flaw_pairs=wanted,
                                   out=f"{scratch}/pairs"))
        rows = [json.loads(line) for line in open(made.path / "preferences.jsonl", encoding="utf-8")]
        graph = Graph.open(graph_at)
    print(made.manifest["metrics"], made.manifest["counts"]["dropped"])
    wrong = Counter(row["source"]["flaw"] for row in rows if rejected_is_true(graph, row))
    print(f"rejected answers that are true: {wrong.total()} of {len(rows)} {dict(wrong)}")
    accuracy, n = tell_by_form(rows)
    print(f"form alone tells chosen from rejected: {accuracy:.1%} of {n} held-out answers")


def rejected_is_true(graph: Graph, row: dict) -> bool:
    """By sets: whether what the rejected answer says of the fact is what the graph says."""
    source, rejected, chosen = row["source"], row["rejected"][0]["content"], row["chosen"][0]["content"]
    if rejected == chosen:
        return True
    facts = [t for t in graph.triples if t.id in set(source["triples"])]
    if source["flaw"] == "count":
        return str(len(facts)) in re.findall(r"\d+", rejected)
    if source["flaw"] == "polarity":
        stated = [name for name in mentioned(row["prompt"][0]["content"], [*graph.types]) if name != facts[0].head]
        says_yes = rejected.startswith(graph.ontology.relations[facts[0].relation].say_yes[:2])
        return says_yes == any(name in {t.tail for t in facts} for name in stated)
    if source["flaw"] == "missing_disclaimer":
        return all(text in rejected for text in Safety(graph).required(source["triples"]))
    if source["flaw"] == "false_refusal":
        return not facts and rejected.startswith("抱歉")
    said = set(mentioned(rejected, [*graph.types])) - {facts[0].head}
    return said == {t.tail for t in facts}


def tell_by_form(rows: list[dict]) -> tuple[float, int]:
    openings = Counter(row[side][0]["content"][:1] for row in rows for side in ("chosen", "rejected"))
    common = [char for char, _ in openings.most_common(50)]

    def features(text: str) -> list[float]:
        return [len(text) / 50, *(text.count(mark) for mark in MARKS), *(float(text.startswith(char)) for char in common), 1.0]
    parts = {True: ([], []), False: ([], [])}
    for i, row in enumerate(rows):
        for side, label in (("chosen", 1.0), ("rejected", 0.0)):
            x, y = parts[i % 3 != 0]
            x.append(features(row[side][0]["content"]))
            y.append(label)
    (x, y), (test_x, test_y) = ((np.array(a), np.array(b)) for a, b in (parts[True], parts[False]))
    weights = np.zeros(x.shape[1])
    for _ in range(2000):
        weights -= 0.5 * (x.T @ (1 / (1 + np.exp(-x @ weights)) - y) / len(y) + 1e-4 * weights)
    return float(np.mean((test_x @ weights > 0) == (test_y > 0.5))), len(test_y)


if __name__ == "__main__":
    main()
