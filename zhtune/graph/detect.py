"""Which files of an input are a graph, what shape each has, and everything that they say. One literal table, shape -> reader."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from zhtune.corpus.sheets import read_sheets
from zhtune.errors import DataError
from zhtune.graph.fields import Rows
from zhtune.graph.graphml import read_graphml
from zhtune.graph.items import Item, Raw
from zhtune.graph.json_files import entity_rows, is_lines, load, load_lines, triples_in
from zhtune.graph.neo4j import columns, is_apoc_header, read_admin, read_apoc_csv, read_apoc_json
from zhtune.graph.ontology import Ontology
from zhtune.graph.place import targets
from zhtune.graph.property_graph import PropertyGraph
from zhtune.graph.rdf import read_ntriples, read_turtle
from zhtune.graph.read import header_of, is_triple, json_triples, read_spo, read_triples, table_triples
from zhtune.graph.rows import COLUMNS, Row, entities, layout_of
from zhtune.graph.tables import clean, read_csv, table_rows
from zhtune.log import logger

_TRIPLE_FILES = (".jsonl", ".csv", ".tsv")
_SHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
IN_ORDER = ("triples", "spo", "json_triples")
"""Shapes whose order of triples is kept as it is; the others are grouped by their heads"""
_NOT_GRAPH = ("ontology.yaml", "heldout.yaml")


@dataclass(frozen=True)
class Found:
    """One file of a graph and its shape."""

    path: Path
    shape: str


def find(path: Path, ontology: Ontology | None) -> list[Found]:
    """The files of an input with their shapes: itself, the one triples.* of a folder, or every file of a known kind.

    Raises:
        DataError: a file of an unknown kind, a folder without a readable one, several triples.*
    """
    if path.is_file():
        return [Found(path, shape_of(path, ontology))]
    named = sorted(p for p in path.iterdir() if p.stem == "triples" and p.suffix in _TRIPLE_FILES)
    if len(named) > 1:
        raise DataError(f"expected one file triples.jsonl, triples.csv or triples.tsv, found {len(named)}", path)
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith(".") and p.name not in _NOT_GRAPH)
    readable = [p for p in files if p.suffix.lower() in _SHAPES]
    known = named or readable
    if not known:
        raise DataError(f"holds no file of the kinds {', '.join(_SHAPES)}", path)
    if unread := [p.name for p in (readable if named else files) if p not in known]:
        logger.info("kg: not read, for %s: %s", f"{named[0].name} is the graph" if named else "their kinds are unknown", ", ".join(unread))
    return [Found(p, "triples" if p in named and p.suffix != ".jsonl" else shape_of(p, ontology)) for p in known]


def shape_of(path: Path, ontology: Ontology | None) -> str:
    """The shape of a file: by its suffix, its header or its first value.

    Raises:
        DataError: an unknown suffix.
    """
    known = _SHAPES.get(path.suffix.lower())
    if known is None:
        raise DataError(f"a graph is read from {', '.join(_SHAPES)}, not {path.suffix!r}", path)
    return known if isinstance(known, str) else known(path, ontology)


def read(found: list[Found], ontology: Ontology | None) -> tuple[list[Item], Rows | None]:
    """(everything that files of any shape say, in their order; how rows were read, None where there are none).

    Raises:
        DataError: whatever is wrong with them, with file:line.
    """
    items: list[Item] = []
    rows: list[Row] = []
    graph = PropertyGraph()
    for file in found:
        if file.shape in _NODES:
            _NODES[file.shape](file.path, graph)
            continue
        for one in _read_sheets(file.path, ontology) if file.shape == "sheets" else _READERS[file.shape](file.path):
            (rows if isinstance(one, Row) else items).append(one)
    types = ontology.types if ontology else ()
    layout: Rows | None = None
    if graph.nodes:
        layout = _layout(layout_of([*graph.nodes.values()]), ontology)
        items += graph.items(layout, types)
    elif graph.edges:
        raise DataError("relationships without nodes: give the folder that holds both", found[0].path)
    if rows:
        layout = _layout(layout_of(rows), ontology)
        items += entities(rows, layout, types)
    return items, layout


def _layout(drafted: Rows, ontology: Ontology | None) -> Rows:
    """The ontology's way of reading rows, with what it does not say as the data suggests; ids that nobody claims are ignored."""
    if ontology is None:
        return drafted
    own = ontology.rows
    _, claimed = targets(ontology, "the ontology")
    return replace(own, name=own.name or drafted.name, type_field=own.type_field or (() if own.type else drafted.type_field),
                   ignore=(*own.ignore, *(f for f in drafted.ignore if f not in claimed and f not in own.ignore)))


def _table_shape(path: Path, ontology: Ontology | None) -> str:
    rows = (cells for _, cells in read_csv(path))
    header = next(rows, None)
    if header is None:
        return "triples"
    if columns(header) is not None:
        return "neo4j"
    if is_apoc_header([clean(cell) for cell in header]):
        return "apoc_csv"
    return "table" if _is_wide(header, rows, ontology, path) else "triples"


def _is_wide(first: list[str], rows: Iterable[list[str]], ontology: Ontology | None, place: object) -> bool:
    header = [clean(cell) for cell in first]
    if header_of(header):
        return False
    if ontology and any(name in header for name in ontology.rows.name):
        return True
    edges, known = targets(ontology, "the ontology") if ontology else ({}, {})
    named = [cell.lower() in COLUMNS for cell in header]    # one alone may be the relation of a first triple: 名称, 类型
    if len(header) != 3 or header[1:] == ["", ""] or named[0] or sum(named) > 1 or all(cell in known for cell in header[1:]):
        return True
    return _has_header(header, rows, edges, place)


def _has_header(header: list[str], rows: Iterable[list[str]], relations: Container[str], place: object) -> bool:
    """Whether the first of rows of three cells is a header and no triple.

    It is one where its cells stand nowhere else and no entity has two rows, if the second column holds no relations:
    relations are few and come again, so three rows that all differ there are none, nor are two that all hold a digit.
    """
    heads, seconds = set[str](), list[str]()
    for row in ([clean(cell) for cell in cells] for cells in rows):
        if len(row) != 3 or not {*header}.isdisjoint(row) or row[0] in heads or row[1] in relations:
            return False
        heads.add(row[0])
        seconds.append(row[1])
    texts, digits = [*filter(None, seconds)], [any(map(str.isdigit, text)) for text in seconds if text]
    numbers = all(digits) and not any(map(str.isdigit, header[1]))
    if len(heads) >= (2 if numbers else 3) and (numbers or len({*texts}) == len(texts)):
        logger.info("kg: %s: read as a wide table; triples have the header head,relation,tail, or relations that come again", place)
        return True
    if heads:
        logger.warning("kg: %s: its first row is read as a triple; if it is a header, name its first column 名称 (or name)", place)
    return False


def _jsonl_shape(path: Path, ontology: Ontology | None) -> str:
    first = next((value for _, value in load_lines(path)), None)
    if isinstance(first, dict) and first.get("type") in ("node", "relationship") and ("properties" in first or "labels" in first or "start" in first):
        return "apoc_json"
    if isinstance(first, list):
        return "json_triples"
    plain = not isinstance(first, dict) or {"head", "relation"} <= set(first) or "tail" in first
    return "triples" if plain else "json_triples" if is_triple(first) else "entities"


def _json_shape(path: Path, ontology: Ontology | None) -> str:
    if is_lines(path):
        shape = _jsonl_shape(path, ontology)
        return "json_triples" if shape == "triples" else shape
    return "json_triples" if triples_in(load(path)) else "entities"


def _read_json_triples(path: Path) -> Iterator[Raw]:
    return json_triples(load_lines(path) if is_lines(path) else triples_in(load(path)) or [], str(path))


def _read_sheets(path: Path, ontology: Ontology | None) -> Iterator[Raw | Row]:
    empty = True
    for place, lines in read_sheets(path):
        empty = False
        wide = _is_wide(lines[0][1], (cells for _, cells in lines[1:]), ontology, place)
        yield from table_rows(iter(lines), place) if wide else table_triples(lines, place)
    if empty:
        raise DataError("holds no cell with a text", path)


_SHAPES: dict[str, str | Callable[[Path, Ontology | None], str]] = {
    ".jsonl": _jsonl_shape, ".json": _json_shape, ".csv": _table_shape, ".tsv": _table_shape, ".spo": "spo", ".graphml": "graphml",
    ".nt": "ntriples", ".ttl": "turtle", **dict.fromkeys(_SHEETS, "sheets")}
_READERS: dict[str, Callable[[Path], Iterator[Item | Row]]] = {
    "triples": read_triples, "spo": read_spo, "json_triples": _read_json_triples, "ntriples": read_ntriples, "turtle": read_turtle,
    "table": lambda path: table_rows(read_csv(path), str(path)), "entities": entity_rows}
_NODES: dict[str, Callable[[Path, PropertyGraph], None]] = {
    "neo4j": read_admin, "apoc_csv": read_apoc_csv, "apoc_json": read_apoc_json, "graphml": read_graphml}
