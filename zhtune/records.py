"""Strict JSON Lines and the records that stages hand to each other. Every error names file and line.

A JSON Lines file is divided at LF and nowhere else (a CR before it is dropped): U+2028, U+2029 and U+0085 may stand
unescaped inside a JSON string, and a general line splitter would cut there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from zhtune.errors import DataError

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Document:
    """One text of a corpus."""

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


def dumps(value: Any) -> bytes:
    """One line of JSON as zhtune writes it everywhere: UTF-8, keys in the order given, no trailing LF."""
    return orjson.dumps(value)


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Any]) -> int:
    """Write one JSON object a line; returns how many."""
    count = 0
    with open(path, "wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write one indented JSON file, durable before it is named: a reader never sees half of it."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_jsonl(path: str | os.PathLike[str], otherwise: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number, object)`; blank lines are skipped. `otherwise` says in an error what to do with a file of another kind.

    Raises:
        DataError: the file cannot be read, a line is not UTF-8 JSON or not an object.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):        # a binary file is split at LF only
                if line.isspace():
                    continue
                yield number, parse_object(line, path, number, otherwise)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error


def parse_object(line: bytes, path: str | os.PathLike[str], number: int, otherwise: str = "") -> dict[str, Any]:
    """One line of a JSON Lines file as a dict, or a DataError with file:line."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"not valid JSON ({error}){otherwise}", os.fspath(path), number) from error
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object, found {type(value).__name__}{otherwise}", os.fspath(path), number)
    return value


def check_messages(value: Any, path: str | os.PathLike[str], number: int, key: str = "messages") -> list[dict[str, Any]]:
    """Assert the shape `[{"role", "content"}…]` of one record's messages and return it."""
    if not isinstance(value, list) or not value:
        raise DataError(f"{key!r} must be a non-empty list of messages", os.fspath(path), number)
    for i, message in enumerate(value):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise DataError(f"{key}[{i}] needs a role of {', '.join(ROLES)}", os.fspath(path), number)
        if not isinstance(message.get("content"), str):
            raise DataError(f"{key}[{i}].content must be a string", os.fspath(path), number)
    return value


def read_records(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number, record)` of `{"messages": […], "source": {…}}` lines, checked."""
    for number, row in _rows_with(("messages",), path, "records"):
        check_messages(row["messages"], path, number)
        yield number, row


def read_preferences(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number, preference)` of `{"prompt": […], "chosen": […], "rejected": […]}` lines, checked."""
    keys = ("prompt", "chosen", "rejected")
    for number, row in _rows_with(keys, path, "preferences"):
        for key in keys:
            check_messages(row[key], path, number, key)
        yield number, row


def _rows_with(keys: tuple[str, ...], path: str | os.PathLike[str], kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    otherwise = f"; zhtune lint --{kind} FILE --out FOLDER makes {kind} of a file in another format"
    for number, row in read_jsonl(path, otherwise):
        if missing := [key for key in keys if key not in row]:
            raise DataError(f"has no {missing[0]!r}, only {', '.join(row) or 'nothing'}{otherwise}", os.fspath(path), number)
        yield number, row
