"""Consultations: somebody describes features of a head without its name; the answer lists what it may be, and why.

A candidate is a head that has at least two of the features; it is listed with those it has. Nothing is certain.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from zhtune.graph.graph import Graph, Triple
from zhtune.graph.ontology import fill
from zhtune.synthesis.instruct import LIST_MARK, answer, ranked, record

_TURNS = 4                                                  # descriptions tried for one record before fewer are given
_MOST_CANDIDATES = 3
_FEATURES = (2, 3, 4)


def consultations(graph: Graph, heads: set[str], wanted: int, seed: int, forms: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Records of the task; its wordings have {fs} (features with their relations), {k} (the type), {cs} (candidates)."""
    consult = graph.ontology.consult
    features = consult.features or tuple(name for name, relation in graph.ontology.relations.items() if relation.ask_inverse)
    facts = {head: [t for name in features for t in graph.facts.get((head, name), [])] for head in graph.heads if head in heads}
    keys = [(head, "") for head, known in facts.items() if len(known) >= min(_FEATURES)]
    for (head, _), draw in ranked(keys, wanted * _TURNS, f"{seed}:consultation"):
        told = draw.sample(facts[head], min(draw.choice(_FEATURES), len(facts[head])))
        found = _candidates(graph, heads, head, told)
        if not found:                                       # too many heads have them: no list would be whole
            continue
        best = [name for name, known in found.items() if len(known) == len(told)]
        advice = [(name, r) for name in best for r in consult.advice if (name, r) in graph.facts]
        values = {"fs": _described(graph, told, forms, draw), "k": graph.types[head], "ts": LIST_MARK.join(t.tail for t in told)}
        asked = fill(draw.choice(consult.ask or forms["advise" if consult.advice else "ask"]), **values)
        listed = "；".join(fill(draw.choice(forms["candidate"]), h=name, fs=_described(graph, known, forms, draw)) for name, known in found.items())
        said = fill(draw.choice(forms["say"]), cs=listed) + "".join(answer(graph, name, r) for name, r in advice)
        stated = dict.fromkeys([*(t for known in found.values() for t in known), *(t for key in advice for t in graph.facts[key])])
        yield record("consultation", asked, said, list(stated), seed)


def _candidates(graph: Graph, heads: set[str], head: str, told: list[Triple]) -> dict[str, list[Triple]]:
    """Heads of the same type with the features that they have, those with most first; empty if too many have all of them.

    Heads that would have to share the last place with one that is not listed are left out.
    """
    known: dict[str, list[Triple]] = defaultdict(list)
    for feature in told:
        for triple in graph.inverse[feature.tail, feature.relation]:
            if triple.head in heads and graph.types[triple.head] == graph.types[head]:
                known[triple.head].append(triple)
    counts = Counter({name: len(triples) for name, triples in known.items() if len(triples) >= min(_FEATURES)})
    names = [name for name, _ in counts.most_common()]      # of equal counts the first found first: the order of the file
    if len(names) > _MOST_CANDIDATES:
        cut = counts[names[_MOST_CANDIDATES]]
        names = [name for name in names[:_MOST_CANDIDATES] if counts[name] > cut]
    return {name: known[name] for name in names}


def _described(graph: Graph, triples: Iterable[Triple], forms: dict[str, list[str]], draw: Any) -> str:
    """Features by their relation: 症状为发热、咳嗽，病因为受凉."""
    tails: dict[str, list[str]] = defaultdict(list)
    for t in triples:
        tails[t.relation].append(t.tail)
    form = draw.choice(forms["feature"])
    return "，".join(fill(form, l=graph.ontology.relations[name].labels[0], ts=LIST_MARK.join(names)) for name, names in tails.items())
