"""GraphML as networkx, Gephi and apoc.export.graphml write it. Directed edges; nested graphs are not read.

An edge's relation is its data under one of `_RELATION`, or its attribute `label` (APOC). An undirected edge is read from
source to target.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.parsers.expat import ErrorString, ExpatError, ParserCreate

from zhtune.errors import DataError
from zhtune.graph.property_graph import Edge, PropertyGraph
from zhtune.graph.rows import Row
from zhtune.graph.tables import clean, file_text

_RELATION = ("relation", "关系", "type", "label", "edge label", "name", "predicate")
_LABELS = ("labels", "type", "类型")


def read_graphml(path: Path, graph: PropertyGraph) -> None:
    """Add the nodes and edges of one file.

    Raises:
        DataError: it is not valid XML or no GraphML, an edge without a relation.
    """
    text = file_text(path)
    keys: dict[str, str] = {}
    found = 0
    for tag, line, attributes, data in _elements(text, path):
        if tag == "key":
            keys[attributes.get("id", "")] = attributes.get("attr.name") or attributes.get("id", "")
            continue
        found += 1
        named = {clean(keys.get(k, k)): value for k, v in data if (value := clean(v))}
        if tag == "node":
            _add_node(graph, attributes, named, path, line)
        else:
            _add_edge(graph, attributes, named, path, line)
    if not found:
        raise DataError("holds no node and no edge of GraphML", path)


def _add_node(graph: PropertyGraph, attributes: dict[str, str], named: dict[str, str], path: Path, line: int) -> None:
    if "id" not in attributes:
        raise DataError("a node has no id", path, line)
    if "labels" in attributes:
        named.setdefault("labels", attributes["labels"])    # apoc writes them here and as data
    labels = next((named.pop(name) for name in _LABELS if name in named), "")
    fields, kinds = {name: [value] for name, value in named.items()}, tuple(filter(None, labels.split(":")))
    graph.add_node(attributes["id"], Row(fields, str(path), line, name=clean(attributes["id"]), labels=kinds))


def _add_edge(graph: PropertyGraph, attributes: dict[str, str], named: dict[str, str], path: Path, line: int) -> None:
    if not {"source", "target"} <= set(attributes):
        raise DataError("an edge has no source or no target", path, line)
    key = next((name for wanted in _RELATION for name in named if name.lower() == wanted), "")
    relation = named.pop(key, "") or clean(attributes.get("label", ""))
    if not relation:
        raise DataError(f"an edge has no relation; expected it as data under one of {', '.join(_RELATION)}", path, line)
    graph.edges.append(Edge(attributes["source"], attributes["target"], relation, named, str(path), line))


def _elements(text: str, path: Path) -> list[tuple[str, int, dict[str, str], list[list[str]]]]:
    """(tag, line, attributes, data) of each key, node and edge; a document type is refused, for entities could be bombs."""
    made: list[tuple[str, int, dict[str, str], list[list[str]]]] = []
    inside = False                                          # of data
    parser = ParserCreate(namespace_separator=" ")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal inside
        tag = name.rsplit(" ", 1)[-1]
        if tag in ("key", "node", "edge"):
            made.append((tag, parser.CurrentLineNumber, attributes, []))
        elif tag == "data" and made:
            made[-1][3].append([attributes.get("key", ""), ""])
            inside = True

    def characters(text: str) -> None:
        if inside:
            made[-1][3][-1][1] += text

    def end(name: str) -> None:
        nonlocal inside
        inside = inside and name.rsplit(" ", 1)[-1] != "data"

    def refuse(*_: Any) -> None:
        raise DataError("has a document type; GraphML needs none", path, parser.CurrentLineNumber)

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = start, end, characters, refuse
    try:
        parser.Parse(text.encode("utf-8"), True)
    except ExpatError as error:
        raise DataError(f"is not valid XML: {ErrorString(error.code)}", path, error.lineno) from error
    return made
