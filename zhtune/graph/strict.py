"""Strict reading of the parts of a YAML mapping. Every error names the file and the key. Knows nothing of what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zhtune.errors import DataError


def check_keys(raw: Any, known: set[str], needed: set[str], where: str, path: Path) -> dict[str, Any]:
    """Assert a mapping that has every needed key and no unknown one, and return it."""
    if not isinstance(raw, dict):
        raise DataError(f"{where} must be a mapping", path)
    if unknown := sorted(set(map(str, raw)) - known):
        raise DataError(f"{where} has an unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}", path)
    if missing := sorted(needed - set(raw)):
        raise DataError(f"{where} lacks the key {missing[0]!r}", path)
    return raw


def declared(names: Iterable[str], known: Iterable[str], where: str, path: Path) -> None:
    """Assert that an ontology declares the types or relations that are named."""
    for name in names:
        if name not in known:
            raise DataError(f"{where}: {name!r} is not declared in the ontology", path)


def strings(value: Any, where: str, path: Path) -> tuple[str, ...]:
    """A list of texts, none of them empty; no value is an empty list."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise DataError(f"{where} must be a list of texts", path)
    return tuple(value)


def one_or_more(value: Any, where: str, path: Path) -> tuple[str, ...]:
    """As `strings`, but one text may stand without its list."""
    return strings([value] if isinstance(value, str) else value, where, path)


def text(value: Any, where: str, path: Path) -> str:
    """One text; no value is the empty one."""
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where} must be one text", path)
    return value or ""


def pattern(value: Any, where: str, path: Path) -> str:
    """A regular expression that compiles."""
    try:
        re.compile(text(value, where, path))
    except re.error as error:
        raise DataError(f"{where}: {value!r} is no regular expression ({error})", path) from error
    return value or ""


def placeholders(wording: str, wanted: set[str], where: str, path: Path) -> None:
    """Assert that a wording holds each placeholder once, and no other."""
    if sorted(re.findall(r"\{(\w+)\}", wording)) != sorted(wanted):
        raise DataError(f"{where}: {wording!r} must hold {' and '.join(f'{{{name}}}' for name in sorted(wanted))} once", path)
