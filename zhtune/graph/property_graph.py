"""Nodes and edges with properties -> items. A node is a row (zhtune.graph.rows): one of its properties is its name.

Nodes are known by their ids while a file is read, entities by their names afterwards: nodes that share a name become
one entity, counted. Properties of edges are counted, not kept, but for `source`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from zhtune.errors import DataError
from zhtune.graph.fields import Rows
from zhtune.graph.items import Item, Note, Raw
from zhtune.graph.rows import Row, entities, name_of, type_of


class Edge(NamedTuple):
    """A directed edge between two ids."""

    start: str
    end: str
    type: str
    properties: dict[str, str]
    file: str
    line: int


@dataclass
class PropertyGraph:
    """Nodes and edges as they were read, before any name is known."""

    nodes: dict[str, Row] = field(default_factory=dict)
    """Id (with its id space, where the format has such) -> the node; only edges are relations: a property of several values is no list"""
    edges: list[Edge] = field(default_factory=list)

    def add_node(self, key: str, row: Row) -> None:
        """Add a node.

        Raises:
            DataError: the id is there already.
        """
        if key in self.nodes:
            first = self.nodes[key]
            raise DataError(f"the node {_shown(key)} is there already, from {first.file}:{first.line}", row.file, row.line)
        self.nodes[key] = row

    def items(self, layout: Rows, types: tuple[str, ...]) -> Iterator[Item]:
        """Yield the entities with their properties, then the triples, each in the order of the data.

        Raises:
            DataError: a node without a name, an edge to a node that is not there.
        """
        names: dict[str, tuple[str, str]] = {}
        seen: dict[str, str] = {}
        for key, row in self.nodes.items():
            names[key] = (name_of(row, layout), type_of(row, layout, types))
            if seen.setdefault(names[key][0], key) != key:
                yield Note("shared_name", names[key][0])
            yield from entities([row], layout, types)
        for edge in self.edges:
            for key, which in ((edge.start, "starts"), (edge.end, "ends")):
                if key not in names:
                    raise DataError(f"the edge {which} at the node {_shown(key)}, which is not there", edge.file, edge.line)
            yield from (Note("edge_property", name) for name in edge.properties if name != "source")
            (head, head_type), (tail, tail_type) = names[edge.start], names[edge.end]
            yield Raw(head, edge.type, tail, head_type, tail_type, edge.properties.get("source", ""), edge.file, edge.line, True)


def _shown(key: str) -> str:
    space, _, name = key.rpartition("\0")
    return f"{name!r} of {space}" if space else repr(name)
