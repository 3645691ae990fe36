"""N-Triples and Turtle through rdflib: an IRI as object is an edge, a literal a field of its subject.

Names: rdfs:label or skos:prefLabel (a Chinese one first), otherwise the last part of the IRI. rdf:type is the type,
skos:altLabel an alias. The order is that of the file. Blank nodes without a label have no name: what is said with them
is refused and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from zhtune.errors import DataError, require
from zhtune.graph.items import Entity, Item, Raw, Refused, Value
from zhtune.graph.tables import clean, file_text, text_lines

_RDF_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
_LABELS = ("http://www.w3.org/2004/02/skos/core#prefLabel", "http://www.w3.org/2000/01/rdf-schema#label")
_CLASSES = ("http://www.w3.org/2002/07/owl#", "http://www.w3.org/2000/01/rdf-schema#", "http://www.w3.org/1999/02/22-rdf-syntax-ns#")
"""Where types stand that say nothing of the domain, such as owl:Class"""


class Statement(NamedTuple):
    """Subject, predicate, object of rdflib, and the line (0 where the format gives none)."""

    subject: Any
    predicate: Any
    object: Any
    line: int


def read_ntriples(path: Path) -> Iterator[Item]:
    """Yield the items of an N-Triples file, in its order.

    Raises:
        DataError: a line that is no statement.
    """
    parsing = require("rdflib.plugins.parsers.ntriples", "graph")
    statements: list[Statement] = []
    number = 0

    class Sink:
        def triple(self, subject: Any, predicate: Any, obj: Any) -> None:
            statements.append(Statement(subject, predicate, obj, number))

    parser = parsing.W3CNTriplesParser(Sink())
    with _untouched():
        for number, line in text_lines(path):
            try:
                parser.parsestring(line)
            except parsing.ParseError as error:
                raise DataError(f"is no statement of N-Triples: {' '.join(str(error).split())}", path, number) from error
    yield from _items(statements, str(path))


def read_turtle(path: Path) -> Iterator[Item]:
    """Yield the items of a Turtle file.

    Raises:
        DataError: it is not valid Turtle.
    """
    rdflib = require("rdflib", "graph")
    notation = require("rdflib.plugins.parsers.notation3", "graph")
    statements: list[Statement] = []

    class Recorder(rdflib.Graph):                           # its store forgets the order
        def add(self, triple: Any) -> Any:
            statements.append(Statement(*triple, 0))
            return self

    graph = Recorder(bind_namespaces="none")
    try:
        with _untouched():
            graph.parse(data=file_text(path), format="turtle", publicID="urn:zhtune:")
    except notation.BadSyntax as error:
        raise DataError(f"is not valid Turtle: {' '.join(error.message.split())}", path, error.lines + 1) from error
    yield from _items(statements, str(path))


@contextmanager
def _untouched() -> Iterator[None]:
    """Keep rdflib from rewriting literals ("007" of xsd:integer to "7"); it knows only this setting for the whole module."""
    rdflib = require("rdflib", "graph")
    before, rdflib.NORMALIZE_LITERALS = rdflib.NORMALIZE_LITERALS, False
    try:
        yield
    finally:
        rdflib.NORMALIZE_LITERALS = before


def _items(statements: list[Statement], file: str) -> Iterator[Item]:
    literal_class = require("rdflib", "graph").Literal
    names: dict[Any, str] = _names(statements, literal_class)
    types: dict[Any, str] = {}
    for s in statements:
        if str(s.predicate) == _RDF_TYPE and not str(s.object).startswith(_CLASSES):
            types.setdefault(s.subject, names.get(s.object) or _local(s.object))
    for subject, kind in types.items():
        if name := _name(subject, names):
            yield Entity(name, kind, file, 0)
    for s in statements:
        if str(s.predicate) == _RDF_TYPE or (str(s.predicate) in _LABELS):
            continue
        head, field = _name(s.subject, names), names.get(s.predicate) or _local(s.predicate)
        literal = isinstance(s.object, literal_class)
        tail = clean(str(s.object)) if literal else _name(s.object, names)
        if not head or not (tail or literal):
            said = ("_" if type(part).__name__ == "BNode" else str(part) for part in s[:3])     # rdflib numbers blank nodes at random
            yield Refused("blank_node", " ".join(said), file, s.line)
        elif literal and tail:
            yield Value(head, types.get(s.subject, ""), field, tail, "", file, s.line)
        elif not literal:
            yield Raw(head, field, tail, types.get(s.subject, ""), types.get(s.object, ""), "", file, s.line, True)


def _names(statements: list[Statement], literal_class: type) -> dict[Any, str]:
    """Subject -> its best label: preferred ones before others, Chinese ones before those of no or another language."""
    best: dict[Any, tuple[tuple[int, int], str]] = {}
    for s in statements:
        if str(s.predicate) in _LABELS and (text := clean(str(s.object))):
            language = (s.object.language or "") if isinstance(s.object, literal_class) else ""
            rank = (0 if language.lower().startswith("zh") else 1 if not language else 2, _LABELS.index(str(s.predicate)))
            if s.subject not in best or rank < best[s.subject][0]:
                best[s.subject] = (rank, text)
    return {subject: text for subject, (_, text) in best.items()}


def _name(node: Any, names: dict[Any, str]) -> str:
    """A node's label, or the last part of its IRI; empty for a blank node without a label."""
    blank = type(node).__name__ == "BNode"
    return names.get(node) or ("" if blank else _local(node))


def _local(iri: Any) -> str:
    text = str(iri).rstrip("/#")
    return clean(unquote(text[max(text.rfind("/"), text.rfind("#"), text.rfind(":")) + 1:])) or text
