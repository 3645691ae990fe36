"""Preference pairs from a graph: the rejected answer has one entity swapped for another that is false for the head.

Naive sibling negatives are true facts in up to 53 % of cases; here no swap is true under any relation of the head.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from zhtune.graph.graph import Graph
from zhtune.graph.ontology import fill
from zhtune.synthesis.instruct import LIST_MARK, answer, rounds
from zhtune.synthesis.reword import reword


def pairs(graph: Graph, heads: list[str], wanted: int, seed: int) -> list[dict[str, Any]]:
    """`wanted` pairs over the facts of the heads, each fact once before any comes again; fewer if no false swap exists."""
    generator = random.Random(f"{seed}:prefer")
    taught = set(heads)
    keys = [key for key in graph.facts if key[0] in taught]
    rows: list[dict[str, Any]] = []
    for index in rounds(len(keys), wanted, generator):
        head, name = keys[index]
        relation = graph.ontology.relations[name]
        swap = false_swap(graph, head, name, generator)
        if swap is None:
            continue
        chosen = answer(graph, head, name)
        truth = graph.tails(head, name)
        rejected = fill(relation.say, h=head, ts=LIST_MARK.join(swap[1] if t == swap[0] else t for t in truth))
        question = reword(generator.choice(relation.ask), head, relation, graph.ontology, generator)
        rows.append({"prompt": [{"role": "user", "content": question}], "chosen": [{"role": "assistant", "content": chosen}],
                     "rejected": [{"role": "assistant", "content": rejected}],
                     "source": {"producer": "template", "flaw": "entity_swap", "swapped": list(swap), "relation": name,
                                "triples": [t.id for t in graph.facts[head, name]], "seed": seed}})
    return rows


def false_swap(graph: Graph, head: str, name: str, generator: random.Random) -> tuple[str, str] | None:
    """(true tail, false tail of the same type and nearly the same length), or None.

    The false tail is no tail of the head under any relation, is not part of a true one and has none as its part.
    Tails that are frequent under the relation come first: they are the tempting mistakes.
    """
    fact = generator.choice(graph.facts[head, name])
    old = fact.tail
    about = graph.about(head) | {head}
    counts = Counter(t.tail for t in graph.triples if t.relation == name)
    fit = [n for n in graph.of_type(fact.tail_type)
           if n not in about and abs(len(n) - len(old)) <= 1 and not any(n in t or t in n for t in about)]
    if not fit:
        return None
    frequent = sorted(fit, key=lambda n: (-counts[n], n))[:20]
    return old, generator.choice(frequent)
