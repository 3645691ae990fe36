"""Preference pairs from a graph: the rejected answer has one entity swapped for another that is false for the head.

Naive sibling negatives are true facts in up to 53 % of cases; here no swap is true under any relation of the head.
"""

from __future__ import annotations

import random
from typing import Any

from zhtune.graph.graph import Facts, Graph
from zhtune.graph.ontology import fill
from zhtune.synthesis.instruct import LIST_MARK, answer, question, ranked

_TURNS = 4                                                  # facts looked at for one pair before fewer pairs are given


def pairs(graph: Graph, facts: Facts, wanted: int, avoid: set[str], seed: int) -> list[dict[str, Any]]:
    """`wanted` pairs over some facts, each once before any comes again; fewer if no other false swap exists.

    Args:
        graph: with its ontology.
        facts: (head, relation) of each.
        wanted: how many pairs.
        avoid: names that no answer may hold: heads that must stay unknown.
        seed: of all choices.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (head, name), generator in ranked(facts, wanted * _TURNS, f"{seed}:prefer"):
        if len(rows) == wanted:
            break
        swap = false_swap(graph, head, name, avoid, generator)
        if swap is None:
            continue
        text, index, form = asked(graph, head, name, generator)
        tails = LIST_MARK.join(swap[1] if t == swap[0] else t for t in graph.tails(head, name))
        rejected = fill(graph.ontology.relations[name].say, h=head, ts=tails)
        rows.setdefault((text, rejected), pair(
            text, answer(graph, head, name), rejected, producer="template", flaw="entity_swap", swapped=list(swap), relation=name,
            triples=[t.id for t in graph.facts[head, name]], wording=index, form=form, seed=seed))
    return list(rows.values())


def asked(graph: Graph, head: str, name: str, generator: random.Random) -> tuple[str, int, str]:
    """A question about a fact, the index of its training wording, and how that was reworded."""
    relation = graph.ontology.relations[name]
    index = generator.randrange(len(relation.ask))
    text, form = question(graph, head, relation, index, str(generator.random()), set())
    return text, index, form


def pair(text: str, chosen: str, rejected: str, **source: Any) -> dict[str, Any]:
    """One preference pair: a question and its answers."""
    return {"prompt": [{"role": "user", "content": text}], "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}], "source": source}


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
