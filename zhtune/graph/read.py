"""Triples from .jsonl, .csv and .tsv. Every cell stays the text it is: leading zeros, quotes, line breaks, backslashes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zhtune.corpus.read import decode
from zhtune.errors import DataError
from zhtune.records import parse_object
from zhtune.text import normalise

SUFFIXES = (".jsonl", ".csv", ".tsv")
_FIELDS = ("head", "relation", "tail", "head_type", "tail_type", "source")
_HEADERS = {"head": "head", "relation": "relation", "tail": "tail", "head_type": "head_type", "tail_type": "tail_type", "source": "source",
            "头": "head", "关系": "relation", "尾": "tail", "头实体": "head", "尾实体": "tail", "头类型": "head_type", "尾类型": "tail_type",
            "subject": "head", "predicate": "relation", "object": "tail"}


@dataclass(frozen=True)
class Raw:
    """A triple as it was read, with its place."""

    head: str
    relation: str
    tail: str
    head_type: str
    tail_type: str
    source: str
    file: str
    line: int


def triple_file(path: Path) -> Path:
    """The file of triples of an input: itself, or the one triples.* in a folder.

    Raises:
        DataError: none, or several.
    """
    if path.is_file():
        return path
    found = sorted(p for p in path.iterdir() if p.stem == "triples" and p.suffix in SUFFIXES)
    if len(found) != 1:
        raise DataError(f"expected one file triples.jsonl, triples.csv or triples.tsv, found {len(found)}", path)
    return found[0]


def read_triples(path: Path) -> Iterator[Raw]:
    """Yield the triples of one file, names in NFC without outer white space.

    Raises:
        DataError: an unknown format or encoding, a row without head, relation and tail.
    """
    if path.suffix == ".jsonl":
        yield from _read_jsonl(path)
    elif path.suffix in (".csv", ".tsv"):
        yield from _read_table(path, "\t" if path.suffix == ".tsv" else ",")
    else:
        raise DataError(f"triples are read from {', '.join(SUFFIXES)}, not {path.suffix!r}", path)


def _read_jsonl(path: Path) -> Iterator[Raw]:
    for number, line in enumerate(_text(path).split("\n"), 1):   # at LF only: U+2028 may stand in a JSON string
        if not line.strip():
            continue
        row, values = parse_object(line.encode("utf-8"), path, number), {}
        for name in _FIELDS:
            value = row.get(name, "")
            if not isinstance(value, str):
                raise DataError(f"{name!r} must be a string, found {type(value).__name__}", path, number)
            values[name] = normalise(value).strip()
        yield _checked(values, path, number)


def _read_table(path: Path, delimiter: str) -> Iterator[Raw]:
    # newline="" keeps line breaks inside quoted cells; RFC 4180: a quote is doubled, a backslash is an ordinary character
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, doublequote=True, escapechar=None, strict=True)
    names: list[str] | None = None
    line = 1
    try:
        for row in reader:
            start, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if names is None:
                names = _header(row)
                if names is not None:
                    if twice := sorted(n for n in set(names) - {""} if names.count(n) > 1):
                        raise DataError(f"the header names {twice[0]!r} twice", path, start)
                    continue
                names = list(_FIELDS[:3])
            if len(row) != len(names):
                raise DataError(f"expected {len(names)} cells, found {len(row)}", path, start)
            values = dict.fromkeys(_FIELDS, "") | {n: normalise(c).strip() for n, c in zip(names, row, strict=True) if n}
            yield _checked(values, path, start)
    except csv.Error as error:
        raise DataError(f"is not valid CSV: {error}", path, line) from error


def _text(path: Path) -> str:
    try:
        decoded = decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    if decoded is None:
        raise DataError("is neither UTF-8 nor GB18030", path)
    return decoded[0]


def _header(row: list[str]) -> list[str] | None:
    names = [_HEADERS.get(cell.strip().lstrip(":").lower(), "") for cell in row]
    return names if {"head", "relation", "tail"} <= set(names) else None


def _checked(values: dict[str, str], path: Path, line: int) -> Raw:
    for name in ("head", "relation", "tail"):
        if not values[name]:
            raise DataError(f"the {name} is empty", path, line)
    return Raw(**values, file=path.name, line=line)
