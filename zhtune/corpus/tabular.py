"""JSON Lines, JSON, CSV, TSV, xlsx and parquet -> rows, one after the other. What a row's keys mean is for read.py.

A broken line or row is yielded as a Fault, and the rest goes on. JSON Lines, CSV, TSV and parquet are streamed; JSON, xlsx
and packed parquet are held in memory.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from zhtune.corpus.sheets import read_sheets
from zhtune.corpus.streams import Line, Stream
from zhtune.errors import DataError
from zhtune.log import logger
from zhtune.records import parse_object

_LISTS = ("data", "rows", "records", "examples", "items", "train")         # {"data": [rows]}: a file with one such list
_CELL = 1 << 24                                             # characters of the longest cell; a stray quote swallows no more


class Fault(NamedTuple):
    """A piece of a file that is no row."""

    reason: str
    number: int
    detail: str


class Row(NamedTuple):
    """A row of a file."""

    number: int
    """1-based line, or number of the row in a file without lines"""
    value: Any
    sheet: str = ""
    """File and sheet, where it has sheets"""


def json_lines(stream: Stream, name: str) -> Iterator[Row | Fault]:
    """Yield the objects of a JSON Lines file."""
    for line in stream.lines():
        if not line.text.strip():
            continue
        if line.broken:
            yield Fault("undecodable", line.number, f"bytes that are not {stream.encoding}")
            continue
        try:
            yield Row(line.number, parse_object(line.text.encode("utf-8"), name, line.number))
        except DataError as error:
            yield Fault("bad_json" if line.ended and not stream.cut else "truncated", line.number, str(error))
        except UnicodeEncodeError:
            yield Fault("bad_json", line.number, "half a character (a surrogate without its other half)")


def json_values(stream: Stream) -> Iterator[Row | Fault]:
    """Yield the rows of a JSON file: a list, values one after the other, or an object that holds one list of rows.

    A broken value is left out up to the next line that begins a value as far indented as it.
    """
    lines = list(stream.lines())
    text, broken = "\n".join(line.text for line in lines), any(line.broken for line in lines)
    for row in _values(text):
        if broken and isinstance(row, Row) and "\ufffd" in orjson.dumps(row.value).decode("utf-8"):
            row = Fault("undecodable", row.number, f"bytes that are not {stream.encoding}")
        yield row


def _values(text: str) -> Iterator[Row | Fault]:
    try:
        whole = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        yield from _one_by_one(text)
        return
    values = whole if isinstance(whole, list) else [whole]
    if isinstance(whole, dict) and len(lists := [whole[key] for key in _LISTS if isinstance(whole.get(key), list)]) == 1:
        values = lists[0]
    yield from (Row(number, value) for number, value in enumerate(values, 1))


def _one_by_one(text: str) -> Iterator[Row | Fault]:
    between = re.compile(r"[\s,\]]*")
    begin = re.compile(r"\s*(?:\{\s*\"\w+\"\s*:\s*)?\[").match(text)       # a list, or the one list of an object
    at, number = begin.end() if begin else 0, 0
    scan = json.JSONDecoder().raw_decode
    while (at := between.match(text, at).end()) < len(text):
        if text[at] == "}":                                 # the end of the object around the list
            at += 1
            continue
        number += 1
        try:
            value, at = scan(text, at)
            orjson.dumps(value)
            yield Row(number, value)
        except TypeError:
            yield Fault("bad_json", number, "holds what cannot be written: half a character, or an integer beyond 64 bits")
        except (json.JSONDecodeError, RecursionError) as error:
            indent = re.escape(text[text.rfind("\n", 0, at) + 1:at]) if text[text.rfind("\n", 0, at) + 1:at].isspace() else ""
            following = re.compile(rf"\n{indent}(?=[{{\[\"])").search(text, at)
            yield Fault("bad_json" if following else "truncated", number, f"line {text.count(chr(10), 0, at) + 1}: {str(error)[:150]}")
            if not following:
                return
            at = following.end()


def csv_rows(stream: Stream, name: str, delimiter: str) -> Iterator[Row | Fault]:
    """Yield the rows of a table under its header, as RFC 4180 says; cells stay text. The delimiter may also be `;` or a tab."""
    csv.field_size_limit(_CELL)
    source = _Lines(stream)
    header: list[str] = []
    reader: Any = None
    while (first := source.peek()) is not None:
        if reader is None:
            reader = csv.reader(source, delimiter=max((delimiter, "\t", ";"), key=first.text.count), strict=True)
        try:
            cells = next(reader)
        except csv.Error as error:
            source.give_back()
            yield Fault("bad_csv" if source.peek() else "truncated", first.number, str(error))
            continue
        taken = source.taken()
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip().removeprefix("\ufeff") for cell in cells]
        elif any(line.broken for line in taken):
            yield Fault("undecodable", first.number, f"bytes that are not {stream.encoding}")
        elif source.peek() is None and (stream.cut or len(cells) < len(header)) and not taken[-1].ended:
            yield Fault("truncated", first.number, f"ends after {len(cells)} cells of {len(header)}")
        elif len(cells) != len(header):
            yield Fault("ragged_row", first.number, f"{len(cells)} cells under {len(header)} columns")
        else:
            if not taken[-1].ended:
                logger.warning("%s:%d: the last row has no line end; if the file was cut, this row was", name, first.number)
            yield Row(first.number, dict(zip(header, cells, strict=True)))


class _Lines:
    """Lines for a csv reader, which remembers those of the row being read: after a stray quote all but the first are given back."""

    def __init__(self, stream: Stream):
        self._lines = stream.lines(at_cr=True)
        self._ahead: deque[Line] = deque()
        self._taken: list[Line] = []

    def peek(self) -> Line | None:
        if not self._ahead and (line := next(self._lines, None)) is not None:
            self._ahead.append(line)
        return self._ahead[0] if self._ahead else None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if (line := self.peek()) is None:
            raise StopIteration
        self._taken.append(self._ahead.popleft())
        return line.text + "\n" * line.ended

    def taken(self) -> list[Line]:
        taken, self._taken = self._taken, []
        return taken

    def give_back(self) -> None:
        self._ahead.extendleft(reversed(self.taken()[1:]))


def sheet_rows(data: bytes, name: str) -> Iterator[Row | Fault]:
    """Yield the rows of a spreadsheet, each sheet under its header."""
    try:
        for sheet, ((_, header), *rows) in read_sheets(io.BytesIO(data), name):
            names = [name.strip() for name in header]
            yield from (Row(number, {key: cell for key, cell in zip(names, cells) if key}, sheet) for number, cells in rows)
    except DataError as error:
        yield Fault("unreadable", 1, str(error))


def parquet_rows(path: Path, data: bytes | None) -> Iterator[Row | Fault]:
    """Yield the rows of a parquet file, or of one that was packed."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    number = 0
    try:
        for batch in pq.ParquetFile(path if data is None else pa.BufferReader(data)).iter_batches(4096):
            for row in batch.to_pylist():
                number += 1
                yield Row(number, row)
    except (pa.ArrowException, OSError) as error:
        yield Fault("unreadable", number + 1, f"is no parquet file, or is damaged or cut: {' '.join(str(error).split())[:200]}")
