"""What Neo4j's own tools write: neo4j-admin's CSV files, APOC's JSON Lines and APOC's CSV. It speaks to no database.

    stock_id:ID(Stock),name,code,:LABEL          nodes: an id in its id space, properties with or without a type, labels
    :START_ID(Stock),:END_ID(Concept),:TYPE      relationships
    {"type":"node","id":"0","labels":["Person"],"properties":{…}}        apoc.export.json
    "_id","_labels","name","_start","_end","_type"                       apoc.export.csv
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from zhtune.errors import DataError
from zhtune.graph.json_files import load_lines
from zhtune.graph.property_graph import Edge, PropertyGraph
from zhtune.graph.rows import Row
from zhtune.graph.tables import Line, check_header, clean, parts, read_csv

_HEADER = re.compile(r"(?P<name>[^:]*):(?P<kind>[A-Za-z_]+)(?P<list>\[\])?(?:\((?P<space>[^)]*)\))?(?:\{[^}]*\})?")
_ROLES = ("ID", "LABEL", "START_ID", "END_ID", "TYPE", "IGNORE")
_NODE_ROLES, _EDGE_ROLES = {"ID"}, {"START_ID", "END_ID"}


class Column(NamedTuple):
    """One column of a neo4j-admin file."""

    role: str
    """ID, LABEL, START_ID, END_ID, TYPE, IGNORE, or empty for a property"""
    name: str
    space: str
    list: bool


def columns(header: list[str]) -> list[Column] | None:
    """The columns of a neo4j-admin header; None where it has neither :ID nor :START_ID and :END_ID."""
    made = [_column(clean(cell)) for cell in header]
    roles = {column.role for column in made}
    return made if roles >= _NODE_ROLES or roles >= _EDGE_ROLES else None


def is_apoc_header(header: list[str]) -> bool:
    """Whether a header is one of apoc.export.csv."""
    return {"_id", "_labels"} <= set(header) or {"_start", "_end", "_type"} <= set(header)


def read_admin(path: Path, graph: PropertyGraph) -> None:
    """Add the nodes or relationships of one neo4j-admin CSV file.

    Raises:
        DataError: a column twice, a row of another length, an id that is empty or there already.
    """
    lines = read_csv(path)
    header = columns(next(lines)[1]) or []
    check_header([c.name or c.role for c in header if c.role != "IGNORE"], path, 1)
    for line, cells in _full_rows(lines, len(header), path):
        row = [(c, cell) for c, cell in zip(header, cells, strict=True) if cell and c.role != "IGNORE"]
        roles = {c.role: (c.space, cell) for c, cell in row if c.role}
        fields = {c.name: parts(cell, ";") if c.list else [cell] for c, cell in row if c.name and c.role in ("", "ID")}
        if any(c.role == "START_ID" for c in header):
            start, end, kind = (roles.get(role, ("", "")) for role in ("START_ID", "END_ID", "TYPE"))
            if not (start[1] and end[1] and kind[1]):
                raise DataError("a relationship needs :START_ID, :END_ID and :TYPE", path, line)
            properties = {name: texts[0] for name, texts in fields.items()}
            graph.edges.append(Edge("\0".join(start), "\0".join(end), kind[1], properties, str(path), line))
            continue
        if "ID" not in roles:
            raise DataError("the :ID is empty", path, line)
        own = next(c.name for c in header if c.role == "ID")
        fields = {(":ID" if name == own else name): texts for name, texts in fields.items()}
        labels = tuple(parts(roles.get("LABEL", ("", ""))[1], ";"))
        graph.add_node("\0".join(roles["ID"]), Row(fields, str(path), line, name=roles["ID"][1], labels=labels))


def read_apoc_json(path: Path, graph: PropertyGraph) -> None:
    """Add the nodes and relationships of one file of apoc.export.json (JSON Lines).

    Raises:
        DataError: a line that is neither a node nor a relationship, a node that is there already.
    """
    for number, row in load_lines(path):
        if not isinstance(row, dict) or row.get("type") not in ("node", "relationship"):
            raise DataError('expected an object whose "type" is node or relationship', path, number)
        properties = {clean(k): texts for k, v in _mapping(row.get("properties"), path, number).items() if (texts := _texts(v, path, number))}
        if row["type"] == "node":
            key, labels = _id(row, path, number), tuple(map(clean, row.get("labels") or []))
            graph.add_node(key, Row(properties, str(path), number, name=key, labels=labels))
            continue
        start, end = (_id(_mapping(row.get(side), path, number), path, number) for side in ("start", "end"))
        if not isinstance(row.get("label"), str):
            raise DataError('a relationship needs its type under "label"', path, number)
        graph.edges.append(Edge(start, end, clean(row["label"]), {k: "；".join(v) for k, v in properties.items()}, str(path), number))


def read_apoc_csv(path: Path, graph: PropertyGraph) -> None:
    """Add the nodes and relationships of one file of apoc.export.csv.

    Raises:
        DataError: a row that is neither.
    """
    lines = read_csv(path)
    header = [clean(cell) for cell in next(lines)[1]]
    for line, cells in _full_rows(lines, len(header), path):
        row = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
        fields = {name: cell for name, cell in row.items() if name not in ("_id", "_labels", "_start", "_end", "_type")}
        if "_id" in row:
            labels = tuple(filter(None, row.get("_labels", "").split(":")))
            graph.add_node(row["_id"], Row({name: [cell] for name, cell in fields.items()}, str(path), line, name=row["_id"], labels=labels))
        elif {"_start", "_end", "_type"} <= set(row):
            graph.edges.append(Edge(row["_start"], row["_end"], row["_type"], fields, str(path), line))
        else:
            raise DataError("expected a node (_id) or a relationship (_start, _end, _type)", path, line)


def _column(cell: str) -> Column:
    found = _HEADER.fullmatch(cell)
    if not found:
        return Column("", cell, "", False)
    kind = found["kind"].upper()
    if kind in _ROLES:
        return Column(kind, found["name"], found["space"] or "", False)
    return Column("", found["name"], "", bool(found["list"]))


def _full_rows(lines: Iterator[Line], width: int, path: Path) -> Iterator[Line]:
    empty = True
    for line, cells in lines:
        empty = False
        if len(cells) != width:
            raise DataError(f"expected {width} cells, found {len(cells)}", path, line)
        yield line, [clean(cell) for cell in cells]
    if empty:
        raise DataError("holds a header and no row; put the header and its data into one file", path)


def _mapping(value: Any, path: Path, number: int) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise DataError(f"expected an object, found {type(value).__name__}", path, number)
    return value or {}


def _id(value: dict[str, Any], path: Path, number: int) -> str:
    if not isinstance(value.get("id"), str):
        raise DataError('"id" is missing', path, number)
    return value["id"]


def _texts(value: Any, path: Path, number: int) -> list[str]:
    """A property as texts; a point or a duration, which is an object, is refused."""
    if isinstance(value, dict):
        raise DataError("a property that is an object cannot be an attribute", path, number)
    listed = value if isinstance(value, list) else [value]
    texts = (clean(v if isinstance(v, str) else json.dumps(v)) for v in listed if v is not None)
    return [text for text in texts if text]
