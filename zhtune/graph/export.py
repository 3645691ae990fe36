"""A graph for other tools: a networkx MultiDiGraph, and GraphML, which Gephi, Neo4j (APOC) and zhtune itself read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from zhtune.errors import DataError, require
from zhtune.records import read_jsonl

if TYPE_CHECKING:
    from networkx import MultiDiGraph

_SEVERAL = "；"
"""Between several values of one attribute, and several aliases, which GraphML cannot tell apart"""


def to_networkx(folder: str | os.PathLike[str]) -> MultiDiGraph:
    """The graph of a graph artifact: nodes are names, with name, type, aliases and attributes; an edge a triple, its key the relation,
    with relation and source.

    Raises:
        DataError: it is no graph artifact.
        MissingDependency: networkx is not installed.
    """
    folder = Path(folder)
    if not (folder / "triples.jsonl").exists() or not (folder / "entities.jsonl").exists():
        raise DataError("is no graph artifact; make one with zhtune kg", folder)
    graph = require("networkx", "graph").MultiDiGraph()
    for _, row in read_jsonl(folder / "entities.jsonl"):
        aliases = {"aliases": _SEVERAL.join(row["aliases"])} if row["aliases"] else {}
        graph.add_node(row["name"], name=row["name"], type=row["type"], **aliases)
    for _, row in read_jsonl(folder / "attributes.jsonl"):
        node, name = graph.nodes[row["entity"]], row["attribute"]
        key = f"{name}属性" if name in ("name", "type", "aliases") else name
        node[key] = _SEVERAL.join(filter(None, (node.get(key), row["value"])))
    for _, row in read_jsonl(folder / "triples.jsonl"):
        source = {"source": row["source"]} if row["source"] else {}
        graph.add_edge(row["head"], row["tail"], key=row["relation"], relation=row["relation"], **source)
    return graph


def write_graphml(folder: Path) -> None:
    """Write graph.graphml into a folder of a graph: UTF-8, everything in its order. Nodes have numbers as ids, for a name may hold anything."""
    graph = to_networkx(folder)
    numbers = {name: f"n{i}" for i, name in enumerate(graph.nodes)}
    plain = type(graph)()
    plain.add_nodes_from((numbers[name], data) for name, data in graph.nodes(data=True))
    for i, (_, row) in enumerate(read_jsonl(folder / "triples.jsonl")):
        plain.add_edge(numbers[row["head"]], numbers[row["tail"]], key=i, **graph.edges[row["head"], row["tail"], row["relation"]])
    writer = require("networkx.readwrite.graphml", "graph").GraphMLWriter(encoding="utf-8", prettyprint=True)
    writer.add_graph_element(plain)
    drawn = writer.xml[-1]                                  # networkx writes edges by their nodes; the order of a fact's tails is kept here
    drawn[:] = [e for e in drawn if e.tag != "edge"] + sorted((e for e in drawn if e.tag == "edge"), key=lambda e: int(e.get("id")))
    with (folder / "graph.graphml").open("wb") as file:
        writer.dump(file)
