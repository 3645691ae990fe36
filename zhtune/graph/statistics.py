"""Numbers about a graph: by relation, by type, by attribute, degrees, hubs, components. Draws nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from zhtune.graph.graph import Triple
from zhtune.graph.items import Attributed

_HUBS = 10


def statistics(triples: list[Triple], types: dict[str, str], attributes: list[Attributed]) -> dict[str, Any]:
    """The statistics of a graph as they stand in report.json.

    Args:
        triples: those of the graph.
        types: name -> type of every entity.
        attributes: those of the graph.
    """
    out, into = Counter(t.head for t in triples), Counter(t.tail for t in triples)
    degrees = out + into
    hubs = sorted(degrees, key=lambda name: (-degrees[name], name))[:_HUBS]
    sizes = components(triples)
    return {
        "relations": _relations(triples),
        "types": dict(Counter(types.values()).most_common()),
        "attributes": _attributes(attributes),
        "degrees": {"out": _histogram(out), "in": _histogram(into), "without": sum(1 for name in types if name not in degrees)},
        "hubs": [{"name": name, "type": types[name], "out": out[name], "in": into[name]} for name in hubs],
        "components": {"number": len(sizes), "largest": sizes[0] if sizes else 0},
    }


def components(triples: list[Triple]) -> list[int]:
    """Sizes of the weakly connected components, the largest first."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        top = name
        while (above := parent.setdefault(top, top)) != top:
            top = above
        while parent[name] != top:                          # shorten the path for the next time
            parent[name], name = top, parent[name]
        return top
    for t in triples:
        parent[root(t.head)] = root(t.tail)
    return sorted(Counter(root(name) for name in list(parent)).values(), reverse=True)


def _relations(triples: list[Triple]) -> dict[str, dict[str, int]]:
    heads = Counter(relation for relation, _ in {(t.relation, t.head) for t in triples})
    tails = Counter(relation for relation, _ in {(t.relation, t.tail) for t in triples})
    return {name: {"triples": number, "heads": heads[name], "tails": tails[name]}
            for name, number in Counter(t.relation for t in triples).most_common()}


def _attributes(attributes: list[Attributed]) -> dict[str, dict[str, Any]]:
    entities = Counter(attribute for attribute, _ in {(a.attribute, a.entity) for a in attributes})
    kinds = {a.attribute: a.kind for a in attributes}
    return {name: {"kind": kinds[name], "values": number, "entities": entities[name]}
            for name, number in Counter(a.attribute for a in attributes).most_common()}


def _histogram(degrees: Counter[str]) -> dict[str, int]:
    """How many entities have 1, 2–3, 4–7, 8–15 … edges of this direction."""
    buckets = Counter(number.bit_length() - 1 for number in degrees.values())
    return {"1" if i == 0 else f"{1 << i}–{(2 << i) - 1}": buckets[i] for i in range(max(buckets, default=-1) + 1)}
