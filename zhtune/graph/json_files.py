"""JSON and JSON Lines: one object an entity, or triples as lists and objects. Numbers stay the text they are.

    [{"name": …}, …]   {"0": {"name": …}, …}   {"感冒": {…}, …}   one object a line      entities, nested keys as paths a.b.c
    [[头, 关系, 尾], …]   {"感冒": [[头, 关系, 尾], …]}   [{"head", "relation", "tail"}, …]      triples
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from zhtune.corpus.tabular import is_object
from zhtune.errors import DataError
from zhtune.graph.read import is_triple
from zhtune.graph.rows import Row
from zhtune.graph.tables import clean, file_text, text_lines


def load(path: Path) -> Any:
    """A JSON file whose numbers are text; an object that holds nothing but one list of objects is that list.

    Raises:
        DataError: it is not valid JSON, or an object has a key twice.
    """
    value = _parse(file_text(path), path, 0)
    inner = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
    return inner if isinstance(inner, list) and inner and all(isinstance(part, dict) for part in inner) else value


def is_lines(path: Path) -> bool:
    """Whether a file is JSON Lines: by its suffix, or because its first line is a whole object and another line follows."""
    if path.suffix.lower() == ".jsonl":
        return True
    lines = [line for _, line in islice(text_lines(path), 2)]
    return len(lines) == 2 and is_object(lines[0].strip())


def load_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) of a JSON Lines file whose numbers are text; blank lines are skipped.

    Raises:
        DataError: a line is not valid JSON, or an object has a key twice.
    """
    return ((number, _parse(line, path, number)) for number, line in text_lines(path))


def triples_in(value: Any) -> Iterator[tuple[int, Any]] | None:
    """(number, value) of each triple, if this is a list of triples or an object of such lists; None if it is neither."""
    lists = [value] if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    if not lists or not all(isinstance(part, list) for part in lists):
        return None
    flat = [item for part in lists for item in part]
    return enumerate(flat, 1) if flat and is_triple(flat[0]) else None


def entity_rows(path: Path) -> Iterator[Row]:
    """Yield one row an entity; the line is the number of the record (of the line, in .jsonl).

    Raises:
        DataError: something else stands where an entity should.
    """
    records = [(number, "", value) for number, value in load_lines(path)] if is_lines(path) else _records(load(path))
    if not records:
        raise DataError("holds no entity", path)
    for number, key, record in records:
        if not isinstance(record, dict):
            raise DataError(f"expected one object an entity, found {type(record).__name__}", path, number)
        fields: dict[str, list[str]] = {}
        lists: set[str] = set()
        _flatten(record, "", False, fields, lists)
        yield Row(fields, str(path), number, lists=frozenset(lists), name=clean(key))


def _records(value: Any) -> list[tuple[int, str, Any]]:
    """(number, key, object) of each entity; the key is "" where the entities are a list, or only one."""
    if isinstance(value, dict) and value and all(isinstance(part, dict) for part in value.values()):
        return [(number, key, part) for number, (key, part) in enumerate(value.items(), 1)]
    return [(number, "", part) for number, part in enumerate(value if isinstance(value, list) else [value], 1)]


def _flatten(value: Any, path: str, listed: bool, fields: dict[str, list[str]], lists: set[str]) -> None:
    """Collect the texts under each path of keys; a list adds no part to the path."""
    if isinstance(value, dict):
        for key, part in value.items():
            _flatten(part, f"{path}.{key}" if path else key, listed, fields, lists)
    elif isinstance(value, list):
        for part in value:
            _flatten(part, path, True, fields, lists)
    elif value is not None and (text := clean(value if isinstance(value, str) else json.dumps(value))):
        fields.setdefault(path, []).append(text)
        if listed:
            lists.add(path)


def _parse(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=_no_number, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON ({error.msg})", path, number or error.lineno) from error
    except ValueError as error:
        raise DataError(f"not valid JSON ({error})", path, number or None) from error
    except RecursionError as error:
        raise DataError("is nested too deeply", path, number or None) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has the key {next(n for n in names if names.count(n) > 1)!r} twice")
    return made


def _no_number(name: str) -> str:
    raise ValueError(f"{name} is no number of JSON")
