"""Rows (of tables, JSON objects, nodes) -> entities and what their fields say of them. Knows no file format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from zhtune.errors import DataError
from zhtune.graph.fields import Rows
from zhtune.graph.items import Entity, Value

_NAMES = ("name", "名称", "名字", "姓名", "中文名", "title", "标题", "label", "entity", "实体", "实体名", "中心词")
_TYPES = ("type", "类型", "实体类型")
_IDS = ("id", ":id", "_id", "序号")
"""Last parts of fields, in lower case: what names an entity (the earlier the better), types it, or only numbers it"""
COLUMNS = frozenset((*_NAMES, *_TYPES, *_IDS))


class Row(NamedTuple):
    """One entity as it was read: field -> its texts, in the order of the data."""

    fields: dict[str, list[str]]
    file: str
    line: int
    shape: Literal["scalar", "cell"] = "scalar"
    lists: frozenset[str] = frozenset()
    """Fields that are lists in the data"""
    name: str = ""
    """Its name where no field holds one; empty if there is none"""
    labels: tuple[str, ...] = ()
    """Types that the format itself gives it"""


def layout_of(rows: list[Row]) -> Rows:
    """Which fields name and type the entities of these rows, and which only number them."""
    seen = list(dict.fromkeys(f for row in rows for f in row.fields))
    last = {f: f.rsplit(".", 1)[-1].lower() for f in seen}
    name = next(([f] for wanted in _NAMES for f in seen if last[f] == wanted), [])
    if not name and rows and rows[0].shape == "cell":
        name = _first(seen)
    name += _own_names(rows, name)
    typed = [] if any(row.labels for row in rows) else [f for f in seen if last[f] in _TYPES and f not in name][:1]
    numbered = [f for f in seen if (last[f] in _IDS or f.split(".")[0].lower() in _IDS) and f not in name]
    return Rows(tuple(name), "", tuple(typed), (), tuple(numbered))


def _own_names(rows: list[Row], name: list[str]) -> list[str]:
    """The first columns of tables that lack the columns of the name, where no other table has them as well."""
    tables: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.shape == "cell":
            tables.setdefault(row.file, {}).update(dict.fromkeys(row.fields))
    firsts = [first for fields in tables.values() if fields.keys().isdisjoint(name) for first in _first([*fields])]
    return [first for first in firsts if sum(first in fields for fields in tables.values()) == 1]


def _first(fields: list[str]) -> list[str]:
    """The first column that is more than a row's number."""
    return [field for field in fields if field != "序号"][:1]


def entities(rows: list[Row], layout: Rows, types: tuple[str, ...] = ()) -> Iterator[Entity | Value]:
    """Yield each row's entity and one value for each text of its other fields.

    Args:
        types: those that the ontology declares; of several labels the first that is among them counts.

    Raises:
        DataError: a row without a name.
    """
    skipped = {*layout.name, *layout.type_field, *layout.ignore}
    for row in rows:
        name, kind = name_of(row, layout), type_of(row, layout, types)
        yield Entity(name, kind, row.file, row.line)
        for field, texts in row.fields.items():
            if field in skipped:
                continue
            shape = "list" if field in row.lists else row.shape
            for text in texts:
                yield Value(name, kind, field, text, "", row.file, row.line, shape)


def name_of(row: Row, layout: Rows) -> str:
    """The name of a row's entity."""
    name = next((texts[0] for field in layout.name if (texts := row.fields.get(field))), row.name)
    if not name:
        wanted = f"none of {', '.join(layout.name)} holds a text; " if layout.name else ""
        raise DataError(f"an entity has no name: {wanted}say under rows.name of the ontology which field is the name, or which several are, "
                        f"of {', '.join(row.fields)}", row.file, row.line)
    return name


def type_of(row: Row, layout: Rows, types: tuple[str, ...]) -> str:
    """The type of a row's entity; empty where nothing says it."""
    renamed = dict(layout.types)
    said = [texts[0] for field in layout.type_field if (texts := row.fields.get(field))] or row.labels
    labels = [renamed.get(label, label) for label in said]
    return next((label for label in labels if label in types), labels[0] if labels else layout.type)
