"""A graph for other tools: a networkx MultiDiGraph, and GraphML, which Gephi, Neo4j (APOC) and zhtune itself read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zhtune.errors import require
from zhtune.graph.graph import Triple
from zhtune.graph.items import Attributed

if TYPE_CHECKING:
    from networkx import MultiDiGraph

_SEVERAL = "；"
"""Between several values of one attribute, and several aliases, which GraphML cannot tell apart"""


def to_networkx(triples: list[Triple], types: dict[str, str], aliases: dict[str, dict[str, None]] | None = None,
                attributes: list[Attributed] | None = None) -> MultiDiGraph:
    """A directed graph whose nodes are names, with type, aliases and attributes, and whose edges have relation and source.

    Args:
        triples: an edge each; its key is the relation.
        types: name -> type of every entity, each a node.
        aliases: name -> other names.
        attributes: values of entities.
    """
    networkx = require("networkx", "graph")
    graph = networkx.MultiDiGraph()
    for name, kind in types.items():
        graph.add_node(name, name=name, type=kind)
    for name, others in (aliases or {}).items():
        if others:
            graph.nodes[name]["aliases"] = _SEVERAL.join(others)
    for a in attributes or []:
        node = graph.nodes[a.entity]
        key = f"{a.attribute}属性" if a.attribute in ("name", "type", "aliases") else a.attribute
        node[key] = _SEVERAL.join(filter(None, (node.get(key), a.value)))
    for t in triples:
        graph.add_edge(t.head, t.tail, key=t.relation, relation=t.relation, **({"source": t.source} if t.source else {}))
    return graph


def write_graphml(path: Path, triples: list[Triple], types: dict[str, str], aliases: dict[str, dict[str, None]],
                  attributes: list[Attributed]) -> None:
    """Write graph.graphml: UTF-8, everything in the order given. Nodes have numbers as ids, for a name may hold anything."""
    networkx = require("networkx", "graph")
    graph = to_networkx(triples, types, aliases, attributes)
    numbers = {name: f"n{i}" for i, name in enumerate(graph.nodes)}
    plain = networkx.MultiDiGraph()
    plain.add_nodes_from((numbers[name], data) for name, data in graph.nodes(data=True))
    for i, t in enumerate(triples):
        plain.add_edge(numbers[t.head], numbers[t.tail], key=i, **graph.edges[t.head, t.tail, t.relation])
    writer = require("networkx.readwrite.graphml", "graph").GraphMLWriter(encoding="utf-8", prettyprint=True)
    writer.add_graph_element(plain)
    drawn = writer.xml[-1]                                  # networkx writes edges by their nodes; the order of a fact's tails is kept here
    drawn[:] = [e for e in drawn if e.tag != "edge"] + sorted((e for e in drawn if e.tag == "edge"), key=lambda e: int(e.get("id")))
    with path.open("wb") as file:
        writer.dump(file)
