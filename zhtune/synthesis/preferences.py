"""Preference pairs from a graph: the rejected answer has one entity swapped for another that is false for the head.

Naive sibling negatives are true facts in up to 53 % of cases; here no swap is true under any relation of the head.
"""

from __future__ import annotations

import random
from typing import Any

from zhtune.graph.graph import Graph
from zhtune.graph.ontology import fill
from zhtune.synthesis.instruct import LIST_MARK, answer, question, ranked

_TURNS = 4                                                  # facts looked at for one pair before fewer pairs are given


def pairs(graph: Graph, heads: list[str], wanted: int, avoid: set[str], seed: int) -> list[dict[str, Any]]:
    """`wanted` pairs over the facts of the heads, each fact once before any comes again; fewer if no other false swap exists.

    Args:
        graph: with its ontology.
        heads: whose facts are used.
        wanted: how many pairs.
        avoid: names that no answer may hold: heads that must stay unknown.
        seed: of all choices.
    """
    taught = set(heads)
    keys = [key for key in graph.facts if key[0] in taught]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (head, name), generator in ranked(keys, wanted * _TURNS, f"{seed}:prefer"):
        if len(rows) == wanted:
            break
        swap = false_swap(graph, head, name, avoid, generator)
        if swap is not None:
            row = _pair(graph, head, name, swap, generator, seed)
            rows.setdefault((row["prompt"][0]["content"], row["rejected"][0]["content"]), row)
    return list(rows.values())


def _pair(graph: Graph, head: str, name: str, swap: tuple[str, str], generator: random.Random, seed: int) -> dict[str, Any]:
    relation, truth = graph.ontology.relations[name], graph.tails(head, name)
    index = generator.randrange(len(relation.ask))
    prompt, form = question(graph, head, relation, index, str(generator.random()), set())
    rejected = fill(relation.say, h=head, ts=LIST_MARK.join(swap[1] if t == swap[0] else t for t in truth))
    return {"prompt": [{"role": "user", "content": prompt}], "chosen": [{"role": "assistant", "content": answer(graph, head, name)}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "source": {"producer": "template", "flaw": "entity_swap", "swapped": list(swap), "relation": name,
                       "triples": [t.id for t in graph.facts[head, name]], "wording": index, "form": form, "seed": seed}}


def false_swap(graph: Graph, head: str, name: str, avoid: set[str], generator: random.Random) -> tuple[str, str] | None:
    """(true tail, false tail of the same type and nearly the same length), or None.

    The false tail is no tail of the head under any relation, is not part of a true one and has none as its part.
    Tails that are frequent under the relation come first: they are the tempting mistakes.
    """
    fact = generator.choice(graph.facts[head, name])
    counts = graph.tail_counts[name]
    fit = [n for n in graph.false_names(head, fact.tail_type, avoid) if abs(len(n) - len(fact.tail)) <= 1]
    if not fit:
        return None
    frequent = sorted(fit, key=lambda n: (-counts[n], n))[:20]
    return fact.tail, generator.choice(frequent)
