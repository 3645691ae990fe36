"""JSON, JSON Lines, CSV, TSV, xlsx and parquet -> rows, one after the other. What a row's keys mean is for who asks.

Cells stay text: "NA", "null", "007" and "1e5" mean nothing here. A broken line or row is yielded as a Refusal, and the rest
goes on. JSON Lines, CSV, TSV and parquet are streamed; JSON, xlsx and packed parquet are held in memory.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from zhtune.corpus.encodings import UNKNOWN_ENCODING
from zhtune.corpus.sheets import read_sheets
from zhtune.corpus.streams import Line, Stream
from zhtune.errors import DataError
from zhtune.log import logger

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx", ".parquet")
# {"data": [rows]}: a file with one such list
_LISTS = ("data", "rows", "records", "examples", "items", "train", "validation", "valid", "dev", "test")
# The list, or the one list of an object
_BEGIN = re.compile(rf'\s*(?:\{{[^\[\]{{}}]*?"(?:{"|".join(_LISTS)})"\s*:\s*)?\[')
_CELL = 1 << 24                                             # characters of the longest cell; a stray quote swallows no more


@dataclass(frozen=True)
class Refusal:
    """A piece of input that cannot be read, and why."""

    reason: str
    where: str
    detail: str
    file: str = ""
    """The file it was found in, where `where` is more than that"""


class Row(NamedTuple):
    """A row of a file."""

    file: str
    """The file's name, with its sheet where it has sheets"""
    number: int
    """1-based line, or number of the row in a file without lines"""
    value: Any

    @property
    def where(self) -> str:
        return f"{self.file}:{self.number}"


def read_rows(path: Path, name: str, suffix: str) -> Iterator[Row | Refusal]:
    """Yield the rows of a file, and a refusal for each that is broken, for a cut archive and for a file that cannot be read at all.

    Args:
        name: what the places of rows begin with.
        suffix: one of SUFFIXES.
    """
    stream = Stream(path)
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(path, b"".join(stream.blocks()) if stream.packed else None, name)
        elif suffix == ".xlsx":
            yield from _sheet_rows(b"".join(stream.blocks()), name)
        elif suffix in (".csv", ".tsv"):
            yield from _csv_rows(stream, name, "," if suffix == ".csv" else "\t")
        else:
            yield from _json_rows(stream, name, suffix != ".json")
    except OSError as error:
        yield Refusal("unreadable", name, str(error.strerror or error))
        return
    if stream.cut:
        yield Refusal("truncated", name, stream.cut)
    elif stream.encoding is None and suffix not in (".parquet", ".xlsx"):
        yield Refusal("undecodable", name, UNKNOWN_ENCODING)


def parse(text: str) -> Any:
    """A JSON value. Also what orjson refuses and others write: NaN, half a surrogate pair, an integer beyond 64 bits.

    Raises:
        ValueError, RecursionError
    """
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)


def _json_rows(stream: Stream, name: str, lines: bool) -> Iterator[Row | Refusal]:
    """Rows of JSON or JSON Lines, told apart by how the file begins; where that does not tell, it is JSON Lines if `lines`."""
    source, ahead, filled = stream.lines(), [], []
    for line in source:
        ahead.append(line)
        filled += [stripped] if (stripped := line.text.strip()) else []
        if len(filled) == 2:
            break
    if not filled:
        return
    first, second = filled[0], filled[-1] if len(filled) == 2 else ""
    goes_on = first[0] == "[" or first[-1] in "{[,"         # the value, on the next line
    one_a_line = (lines or is_object(second)) if is_object(first) else (lines and not goes_on)
    if one_a_line:
        yield from _json_lines(chain(ahead, source), stream, name)
        return
    held = [*ahead, *source]
    text = "\n".join(line.text for line in held)
    try:
        found = _listed(parse(text), name)
    except (ValueError, RecursionError):
        if is_object(second):
            yield from _json_lines(held, stream, name)
            return
        found = _one_by_one(text, name)
    broken = any(line.broken for line in held)
    for row in found:
        if broken and isinstance(row, Row) and _has_lost(row.value):
            row = Refusal("undecodable", row.where, f"bytes that are not {stream.encoding}", name)
        yield row


def is_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    try:
        return text[:1] == "{" and isinstance(parse(text), dict)
    except (ValueError, RecursionError):
        return False


def _has_lost(value: Any) -> bool:
    try:
        return "\ufffd" in json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return True


def _json_lines(lines: Iterable[Line], stream: Stream, name: str) -> Iterator[Row | Refusal]:
    for line in lines:
        if not line.text.strip():
            continue
        place = f"{name}:{line.number}"
        if line.broken:
            yield Refusal("undecodable", place, f"bytes that are not {stream.encoding}", name)
            continue
        try:
            yield Row(name, line.number, parse(line.text))
        except (ValueError, RecursionError) as error:
            yield Refusal("bad_json" if line.end and not stream.cut else "truncated", place, f"not valid JSON ({error})", name)


def _listed(value: Any, name: str) -> Iterator[Row | Refusal]:
    """The rows of a JSON value: of a list its items, of an object the one list that it holds, or itself."""
    values = value if isinstance(value, list) else [value]
    if isinstance(value, dict):
        lists = {key: part for key in _LISTS if isinstance(part := value.get(key), list) and any(isinstance(row, dict) for row in part)}
        if len(lists) > 1:
            return iter([Refusal("several_lists", name, f"holds several lists of rows, {' and '.join(lists)}; make a file of each")])
        texts = [part for key, part in value.items() if key in _LISTS and isinstance(part, list)]
        if len(texts) == 1 and not lists and not any(isinstance(part, str | dict) for part in value.values()):
            values = texts[0]                               # strings, with nothing but numbers beside them
        values = next(iter(lists.values()), values)
    return (Row(name, number, row) for number, row in enumerate(values, 1))


def _one_by_one(text: str, name: str) -> Iterator[Row | Refusal]:
    """The rows of JSON that is broken, or values one after the other.

    A broken value is left out up to the next line that begins a value as far indented as it.
    """
    between, scan = re.compile(r"[\s,]*"), json.JSONDecoder().raw_decode
    begin = _BEGIN.match(text)
    at, number, inside = begin.end() if begin else 0, 0, bool(begin)
    while (at := between.match(text, at).end()) < len(text):
        if inside and text[at] == "]":                      # the end of the list; behind it another one may stand, but nothing else
            closing = re.compile(r"\][\s}]*").match(text, at)
            inside, at = False, closing.end()
            if not number:
                yield Refusal("bad_json", name, "not valid JSON, and no row before its list ends", name)
            continue
        number += 1
        try:
            value, end = scan(text, at)
            if not inside and not isinstance(value, dict | list):
                raise json.JSONDecodeError("Expecting an object", text, at)
            yield Row(name, number, value)
            at = end
        except (ValueError, RecursionError) as error:
            line = text[text.rfind("\n", 0, at) + 1:at]
            following = re.compile(rf"\n{line if line.isspace() else ''}(?=[{{\[\"])").search(text, at)
            cut = isinstance(error, json.JSONDecodeError) and error.pos >= len(text.rstrip())
            detail = str(error)[:200] + ("" if following or cut else "; what follows is not read")
            yield Refusal("truncated" if cut else "bad_json", f"{name}:{number}", detail, name)
            if not following:
                return
            at = following.end()


def _csv_rows(stream: Stream, name: str, delimiter: str) -> Iterator[Row | Refusal]:
    """The rows of a table under its header, as RFC 4180 says. The delimiter may also be a comma, `;` or a tab."""
    csv.field_size_limit(_CELL)
    source = _Lines(stream)
    header: list[str] = []
    reader: Any = None
    while (first := source.peek()) is not None:
        if reader is None:
            reader = csv.reader(source, delimiter=max((delimiter, ",", "\t", ";"), key=first.text.count), strict=True)
        try:
            cells = next(reader)
        except csv.Error as error:
            source.give_back()
            reason = "bad_header" if not header else "bad_csv" if source.peek() else "truncated"
            yield Refusal(reason, f"{name}:{first.number}", str(error), name)
            if not header:
                return
            continue
        taken, place = source.taken(), f"{name}:{first.number}"
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip().removeprefix("\ufeff") for cell in cells]
            if wrong := f"bytes that are not {stream.encoding}" if taken[-1].broken else _twice(header):
                yield Refusal("bad_header", place, wrong, name)
                return
        elif any(line.broken for line in taken):
            yield Refusal("undecodable", place, f"bytes that are not {stream.encoding}", name)
        elif source.peek() is None and (stream.cut or len(cells) < len(header)) and not taken[-1].end:
            yield Refusal("truncated", place, f"ends after {len(cells)} cells of {len(header)}", name)
        elif len(cells) != len(header):
            yield Refusal("ragged_row", place, f"{len(cells)} cells under {len(header)} columns", name)
        else:
            if not taken[-1].end:
                logger.warning("%s: the last row has no line end; if the file was cut, this row was", place)
            yield Row(name, first.number, dict(zip(header, cells, strict=True)))


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
        return line.text + line.end

    def taken(self) -> list[Line]:
        taken, self._taken = self._taken, []
        return taken

    def give_back(self) -> None:
        self._ahead.extendleft(reversed(self.taken()[1:]))


def _sheet_rows(data: bytes, name: str) -> Iterator[Row | Refusal]:
    try:
        for sheet, ((start, header), *rows) in read_sheets(io.BytesIO(data), name):
            names = [name.strip() for name in header]
            if twice := _twice(names):
                yield Refusal("bad_header", f"{sheet}:{start}", twice, name)
            else:
                yield from (Row(sheet, number, {key: cell for key, cell in zip(names, cells) if key}) for number, cells in rows)
    except DataError as error:
        yield Refusal("unreadable", f"{name}:1", str(error), name)


def _parquet_rows(path: Path, data: bytes | None, name: str) -> Iterator[Row | Refusal]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    number = 0
    try:
        for batch in pq.ParquetFile(path if data is None else pa.BufferReader(data)).iter_batches(4096):
            for row in batch.to_pylist():
                number += 1
                yield Row(name, number, row)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:      # the last two of what is no text, no date
        detail = f"is no parquet file, or is damaged or cut: {' '.join(str(error).split())[:200]}"
        yield Refusal("unreadable", f"{name}:{number + 1}", detail, name)


def _twice(header: list[str]) -> str:
    """What is wrong with a header: which of two equal columns is meant cannot be told."""
    return next((f"the header names {name!r} twice" for name in header if name and header.count(name) > 1), "")
