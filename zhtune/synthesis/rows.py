"""Files of data -> rows: JSON, JSON Lines (divided at LF only), CSV, TSV, xlsx and parquet, in UTF-8, UTF-16 or GB18030.

A row is a dict and the place it stands in. Cells stay text: "NA", "null", "007" and "1e5" mean nothing here; a number cell
of a spreadsheet is written without ".0" and a date as an ISO date. A broken row is yielded as a Refusal and the rest goes
on; a file of which nothing can be read stops with file:line. What the keys mean is for zhtune/synthesis/formats.py.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from zhtune.corpus.read import Refusal
from zhtune.corpus.sheets import read_sheets
from zhtune.digests import visible_files
from zhtune.errors import DataError

_JSON = (".json", ".jsonl", ".ndjson", ".txt")
SUFFIXES = (*_JSON, ".csv", ".tsv", ".xlsx", ".parquet")
# {"data": [rows]}: a file with one such list
_ROWS_KEYS = ("data", "rows", "records", "examples", "items", "train", "validation", "valid", "dev", "test")


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    file: str
    """The file's name; relative to its folder, where a folder was given"""
    number: int
    """1-based line, or number of the row in a JSON array, spreadsheet or parquet file"""
    value: dict[str, Any]

    @property
    def where(self) -> str:
        return f"{self.file}:{self.number}"


def read_rows(paths: list[Path]) -> Iterator[Row | Refusal]:
    """Yield the rows of files and folders (all files in them, sorted by name; of an artifact its JSON Lines only).

    Raises:
        DataError: a file cannot be read, decoded or parsed at all; a folder without any file of a known kind.
    """
    files = [found for path in paths for found in _files(path)]
    names = [name for _, name in files]
    for number, (path, name) in enumerate(files):
        unique = name if names.count(name) == 1 else f"{number + 1}/{name}"
        if path.suffix.lower() not in SUFFIXES:
            yield Refusal("unknown_file", unique, f"suffix {path.suffix!r}; known are {', '.join(SUFFIXES)}")
        else:
            yield from _read_file(path, unique)


def _files(path: Path) -> list[tuple[Path, str]]:
    if path.is_file():
        return [(path, path.name)]
    if (path / "manifest.json").exists():
        return [(file, file.name) for file in (path / "records.jsonl", path / "preferences.jsonl") if file.exists()]
    found = visible_files(path)
    if not any(file.suffix.lower() in SUFFIXES for file in found):
        raise DataError(f"holds no file of the kinds {', '.join(SUFFIXES)}", path)
    return [(file, file.relative_to(path).as_posix()) for file in found]


def _read_file(path: Path, name: str) -> Iterator[Row | Refusal]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet(path, name)
        elif suffix == ".xlsx":
            yield from _xlsx(path, name)
        elif suffix in (".csv", ".tsv"):
            yield from _csv(decode(path.read_bytes(), path), path, name)
        else:
            yield from _json(decode(path.read_bytes(), path), path, name)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error


def decode(data: bytes, path: Path) -> str:
    """Text of UTF-8, UTF-16 (with its mark) or GB18030 bytes. In a file that is UTF-8 but for a few lines, the broken
    bytes become U+FFFD, which the rules report with their row.

    Raises:
        DataError: none of the three.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        good, bad = 0, []
        for number, line in enumerate(data.split(b"\n"), 1):
            if not line.isascii():
                broken = _is_broken(line)
                good += not broken
                bad += [number] if broken else []
    if good > len(bad):
        return data.decode("utf-8-sig", errors="replace")
    try:
        return data.decode("gb18030")
    except UnicodeDecodeError as error:
        raise DataError("is neither UTF-8 nor GB18030; convert it to UTF-8", path, bad[0]) from error


def _is_broken(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def parse(text: str) -> Any:
    """A JSON value. Also what orjson refuses and others write: NaN, and half a surrogate pair, which the rules report.

    Raises:
        json.JSONDecodeError
    """
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return json.loads(text)


def _json(text: str, path: Path, name: str) -> Iterator[Row | Refusal]:
    lines = text.split("\n")                                # at LF only: U+2028 may stand in a string
    whole = _whole(text, lines, path)
    if whole is not None:
        for number, value in enumerate(whole, 1):
            yield _row(value, name, number, "")
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _row(parse(line), name, number, line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield Refusal("bad_json", f"{name}:{number}", f"{error}: {line[:200]}")


def _whole(text: str, lines: list[str], path: Path) -> list[Any] | None:
    """The rows of a file that is one JSON value; None where it is JSON Lines."""
    filled = [line for line in lines if line.strip()][:2]
    try:
        if filled and isinstance(value := parse(filled[0]), dict):
            return _listed(value, path) if len(filled) == 1 else None
    except (json.JSONDecodeError, RecursionError):
        pass                                                # the first line of an indented file, or a broken one: the whole tells
    try:
        value = parse(text)
    except (json.JSONDecodeError, RecursionError) as error:
        if path.suffix.lower() == ".json" and isinstance(error, json.JSONDecodeError):
            raise DataError(f"is neither JSON nor JSON Lines ({error.msg}, column {error.colno})", path, error.lineno) from error
        return None
    if isinstance(value, dict):
        return _listed(value, path) or [value]
    return value if isinstance(value, list) else None


def _listed(value: dict[str, Any], path: Path) -> list[Any] | None:
    """The one list of rows in an object; None if it holds none.

    Raises:
        DataError: it holds several, such as train and test: which is meant cannot be told.
    """
    lists = {key: part for key in _ROWS_KEYS if isinstance(part := value.get(key), list) and all(isinstance(row, dict) for row in part)}
    if len(lists) > 1:
        raise DataError(f"holds several lists of rows, {' and '.join(lists)}; make a file of each", path)
    return next(iter(lists.values()), None)


def _row(value: Any, name: str, number: int, line: str) -> Row | Refusal:
    if isinstance(value, dict):
        return Row(name, number, value)
    return Refusal("not_an_object", f"{name}:{number}", f"{type(value).__name__}: {line[:200] or str(value)[:200]}")


def _csv(text: str, path: Path, name: str) -> Iterator[Row | Refusal]:
    csv.field_size_limit(2**31 - 1)                         # an answer may be longer than 131,072 characters
    head = text.partition("\n")[0]
    delimiter = max((",", "\t", ";"), key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            number, start = start, reader.line_num + 1
            if not any(cells):
                continue
            if not header:
                header = _header(cells, path, number)
            else:
                yield _cells(header, cells, name, number)
    except csv.Error as error:
        raise DataError(f"not valid CSV ({error})", path, start) from error


def _header(cells: list[str], path: Path | str, number: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := sorted(name for name in set(names) - {""} if names.count(name) > 1):
        raise DataError(f"the header names {twice[0]!r} twice", path, number)
    return names


def _cells(header: list[str], cells: list[str], name: str, number: int) -> Row | Refusal:
    if len(cells) != len(header):
        return Refusal("ragged_row", f"{name}:{number}", f"{len(cells)} cells under {len(header)} columns: {' | '.join(cells)[:200]}")
    return Row(name, number, dict(zip(header, cells, strict=True)))


def _xlsx(path: Path, name: str) -> Iterator[Row | Refusal]:
    sheets = list(read_sheets(path, name))
    for place, ((start, header), *rows) in sheets:
        names = _header(header, place, start)
        yield from (Row(place if len(sheets) > 1 else name, number, {key: cell for key, cell in zip(names, cells, strict=True) if key})
                    for number, cells in rows)


def _parquet(path: Path, name: str) -> Iterator[Row | Refusal]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    try:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches():
            for value in batch.to_pylist():
                number += 1
                yield Row(name, number, value)
    except pa.ArrowException as error:
        raise DataError(f"is no parquet file that can be read ({str(error).splitlines()[0]})", path) from error
