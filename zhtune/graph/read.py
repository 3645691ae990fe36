"""Triples from .jsonl, .csv, .tsv, .spo, sheets and JSON lists. Every cell stays the text it is: leading zeros, quotes, line breaks, backslashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from zhtune.errors import DataError
from zhtune.graph.items import Raw
from zhtune.graph.tables import Line, check_header, clean, read_csv, text_lines
from zhtune.records import parse_object

_FIELDS = ("head", "relation", "tail", "head_type", "tail_type", "source")
_HEADERS = {"head": "head", "relation": "relation", "tail": "tail", "head_type": "head_type", "tail_type": "tail_type", "source": "source",
            "头": "head", "关系": "relation", "尾": "tail", "头实体": "head", "尾实体": "tail", "头类型": "head_type", "尾类型": "tail_type",
            "subject": "head", "predicate": "relation", "object": "tail"}
_KEYS = _HEADERS | {"node_1": "head", "node_2": "tail", "h": "head", "r": "relation", "t": "tail"}
"""Of JSON objects: the same and what other tools write"""


def read_triples(path: Path) -> Iterator[Raw]:
    """Yield the triples of one .jsonl, .csv or .tsv file, names in NFC without outer white space.

    Raises:
        DataError: an unknown encoding, a row without head, relation and tail.
    """
    return _read_jsonl(path) if path.suffix.lower() == ".jsonl" else table_triples(read_csv(path), str(path))


def read_spo(path: Path) -> Iterator[Raw]:
    """Yield the triples of lines head, relation, tail with tabs between them; a quote is an ordinary character.

    Raises:
        DataError: a line of another number of parts.
    """
    return table_triples(((number, line.rstrip("\r").split("\t")) for number, line in text_lines(path)), str(path))


def table_triples(lines: Iterable[Line], file: str) -> Iterator[Raw]:
    """Yield the triples of rows; the first row may be a header, otherwise the cells are head, relation and tail.

    Raises:
        DataError: a row of another number of cells, an empty head, relation or tail.
    """
    names: list[str] | None = None
    for number, row in lines:
        if names is None:
            names = header_of(row)
            if names is not None:
                check_header([*filter(None, names)], file, number)
                continue
            names = list(_FIELDS[:3])
        if len(row) != len(names):
            raise DataError(f"expected {len(names)} cells, found {len(row)}", file, number)
        yield _checked(dict(zip(names, row, strict=True)), file, number)


def header_of(row: list[str]) -> list[str] | None:
    """The names of a header's cells ("" for what is not wanted), or None where the row is no header of triples."""
    names = [_HEADERS.get(cell.strip().lstrip(":").lower(), "") for cell in row]
    return names if {"head", "relation", "tail"} <= set(names) else None


def is_triple(value: Any) -> bool:
    """Whether a JSON value is a triple: a list of three texts, or an object with the keys of one."""
    if isinstance(value, dict):
        return {"head", "relation", "tail"} <= {_KEYS.get(str(key).lower()) for key in value}
    return isinstance(value, list) and len(value) == 3 and all(isinstance(part, str) for part in value)


def json_triples(values: Iterable[tuple[int, Any]], file: str) -> Iterator[Raw]:
    """Yield the triples of JSON lists and objects; TYPE<TAB>NAME as head or tail of an object gives its type.

    Args:
        values: number of the record, value.

    Raises:
        DataError: a value that is no triple.
    """
    for number, value in values:
        if not is_triple(value):
            raise DataError("expected a triple as the others are: three texts, or an object of head, relation and tail", file, number)
        if isinstance(value, list):
            yield _checked(dict(zip(_FIELDS, value, strict=False)), file, number)
            continue
        row = {_KEYS.get(str(key).lower(), ""): part for key, part in value.items()}
        for name in ("head", "tail"):
            kind, tab, rest = str(row[name]).partition("\t")       # what is no text is refused below
            if tab:
                row |= {name: rest, f"{name}_type": row.get(f"{name}_type") or kind}
        yield _of_object(row, file, number)


def _read_jsonl(path: Path) -> Iterator[Raw]:
    for number, line in text_lines(path):
        yield _of_object(parse_object(line.encode("utf-8"), path, number), str(path), number)


def _of_object(row: dict[str, Any], file: str, line: int) -> Raw:
    for name in _FIELDS:
        if not isinstance(text := row.get(name, ""), str):
            raise DataError(f"{name!r} must be a text, found {type(text).__name__}", file, line)
    return _checked(row, file, line)


def _checked(row: dict[str, str], file: str, line: int) -> Raw:
    """The triple that a row says, whatever else it holds."""
    made = Raw(*[clean(row[name]) if name in row else "" for name in _FIELDS], file, line)
    if not all(made[:3]):
        raise DataError(f"the {_FIELDS[made.index('')]} is empty", file, line)
    return made
