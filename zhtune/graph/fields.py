"""The part of an ontology that says how data is read: attributes, aliases, what names an entity, which values are no values.

    rows:        {name: [gaishu_info.name], type: 疾病, type_field: [类型], types: {Company: 公司}, ignore: [desc]}
    attributes:  治愈率: {kind: percent, field: cure_prob, split: '[、]', head: 疾病, ask: ['{h}的治愈率是多少？'], say: '{h}的治愈率是{v}。'}
    aliases:     {field: [别名], split: '[、，]'}
    hygiene:     {sentinels: [无, 暂无], cut: drop}

A field is a column, a property, a predicate, or the path of a JSON key with dots between its parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from zhtune.errors import DataError
from zhtune.graph.items import Kind
from zhtune.graph.strict import check_keys, declared, one_or_more, pattern, placeholders, strings, text

SENTINELS = ("无", "暂无", "未知", "不详", "-", "--", "—", "——", "/", "null", "none", "nan", "n/a", "#n/a")
"""What stands where a value is missing, in lower case"""
_NUMBER = r"[-+]?(?:0|[1-9]\d*|[1-9]\d{0,2}(?:,\d{3})+)(?:\.\d+)?"
_UNIT = r"[%％‰]?[^\W\d]{0,4}"
_KINDS = {"number": re.compile(_NUMBER), "percent": re.compile(_NUMBER + r"\s?[%％]"),
          "range": re.compile(rf"{_NUMBER}\s?{_UNIT}\s?(?:[-~～〜–—―]{{1,4}}|至|到)\s?{_NUMBER}\s?{_UNIT}")}


@dataclass(frozen=True)
class Attribute:
    """One attribute: a value of an entity that is no entity itself; {h} is the entity, {v} its value or values."""

    name: str
    kind: Kind
    heads: tuple[str, ...]
    """Types that have it; empty for any"""
    fields: tuple[str, ...]
    """What it is called in the data, besides its name"""
    split: str
    """A regular expression of what stands between several values of one cell; empty: nothing"""
    ask: tuple[str, ...]
    say: str


@dataclass(frozen=True)
class Aliases:
    """Fields (or relations) whose values are other names of the entity."""

    fields: tuple[str, ...] = ()
    split: str = ""


@dataclass(frozen=True)
class Rows:
    """How a table row, a JSON object or a node becomes an entity."""

    name: tuple[str, ...] = ()
    """Fields that hold its name; the first with a text counts"""
    type: str = ""
    """Its type where no field says it"""
    type_field: tuple[str, ...] = ()
    types: tuple[tuple[str, str], ...] = ()
    """Type in the data -> type here"""
    ignore: tuple[str, ...] = ()
    """Fields that are not wanted"""


@dataclass(frozen=True)
class Hygiene:
    """Which values are taken out by name."""

    sentinels: tuple[str, ...] = SENTINELS
    drop_cut: bool = True
    """Whether values that end in ... or … are taken out, or only reported"""


def is_kind(value: str, kind: Kind) -> bool:
    """Whether a value is what its kind says: any text, 12.5, 98%, or a range such as 2-3周."""
    return kind == "text" or _KINDS[kind].fullmatch(value) is not None


def kind_of(values: list[str]) -> Kind:
    """The narrowest kind that all values have."""
    return next((kind for kind in _KINDS if values and all(is_kind(v, kind) for v in values)), "text")      # type: ignore[return-value]


def read_attributes(raw: Any, types: tuple[str, ...], path: Path) -> dict[str, Attribute]:
    """The section `attributes`, strictly."""
    known = {"kind", "head", "field", "split", "ask", "say"}
    made = {}
    for name, value in check_keys(raw or {}, set(raw or {}), set(), "attributes", path).items():
        where = f"attributes.{name}"
        value = check_keys(value or {}, known, set(), where, path)
        if value.get("kind", "text") not in get_args(Kind):
            raise DataError(f"{where}.kind is one of {', '.join(get_args(Kind))}, not {value['kind']!r}", path)
        heads, ask, say = one_or_more(value.get("head"), f"{where}.head", path), strings(value.get("ask"), f"{where}.ask", path), text(
            value.get("say"), f"{where}.say", path)
        declared(heads, types, f"{where}.head", path)
        if bool(ask) != bool(say):
            raise DataError(f"{where}: ask and say belong together", path)
        for wording in ask:
            placeholders(wording, {"h"}, f"{where}.ask", path)
        if say:
            placeholders(say, {"h", "v"}, f"{where}.say", path)
        made[name] = Attribute(name, value.get("kind", "text"), heads, one_or_more(value.get("field"), f"{where}.field", path),
                               pattern(value.get("split"), f"{where}.split", path), ask, say)
    return made


def read_rows(raw: Any, types: tuple[str, ...], path: Path) -> Rows:
    """The section `rows`, strictly."""
    raw = check_keys(raw or {}, {"name", "type", "type_field", "types", "ignore"}, set(), "rows", path)
    named = raw.get("types") or {}
    if not isinstance(named, dict) or not all(isinstance(n, str) for pair in named.items() for n in pair):
        raise DataError("rows.types must map the types of the data to the types here", path)
    kind = text(raw.get("type"), "rows.type", path)
    declared(named.values(), types, "rows.types", path)
    declared(filter(None, [kind]), types, "rows.type", path)
    return Rows(one_or_more(raw.get("name"), "rows.name", path), kind, one_or_more(raw.get("type_field"), "rows.type_field", path),
                tuple(named.items()), one_or_more(raw.get("ignore"), "rows.ignore", path))


def read_aliases(raw: Any, path: Path) -> Aliases:
    """The section `aliases`, strictly."""
    raw = check_keys(raw or {}, {"field", "split"}, set(), "aliases", path)
    return Aliases(one_or_more(raw.get("field"), "aliases.field", path), pattern(raw.get("split"), "aliases.split", path))


def read_hygiene(raw: Any, path: Path) -> Hygiene | None:
    """The section `hygiene`, strictly; None where there is none."""
    if raw is None:
        return None
    raw = check_keys(raw, {"sentinels", "cut"}, set(), "hygiene", path)
    if raw.get("cut", "drop") not in ("drop", "keep"):
        raise DataError(f"hygiene.cut is drop or keep, not {raw['cut']!r}", path)
    listed = strings(raw["sentinels"], "hygiene.sentinels", path) if "sentinels" in raw else SENTINELS
    return Hygiene(tuple(s.casefold() for s in listed), raw.get("cut", "drop") == "drop")
