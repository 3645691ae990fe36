"""A first ontology for a graph that has none, with types and kinds from the data and wordings made of the names.

It decides what a reader cannot know: a list is a relation, a scalar an attribute, and a table's column a relation where
one of its cells holds a list. It is meant to be corrected by hand and given back with --ontology.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from zhtune.graph.fields import Rows, kind_of
from zhtune.graph.items import Entity, Item, Kind, Raw, Value
from zhtune.graph.tables import parts

NO_TYPE = "实体"
ALIASES = ("alias", "aliases", "altlabel", "别名", "又名", "别称")
"""Last parts of fields that hold other names, in lower case"""
_SPLIT = r"[、；;|｜]"
_LONGEST_NAME = 30
Types = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass
class _Field:
    """What was seen of one field of entities."""

    shape: str
    types: dict[str, None] = field(default_factory=dict)    # as ordered sets
    texts: dict[str, None] = field(default_factory=dict)


def draft(items: Iterable[Item], rows: Rows | None, domain: str) -> dict[str, Any]:
    """An ontology as YAML data.

    Args:
        items: everything that was read.
        rows: how the rows of the data were read, if it has rows.
        domain: a name for it.
    """
    edges: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    fields: dict[str, _Field] = {}
    types: dict[str, None] = {}
    for item in items:
        if isinstance(item, Raw):
            heads, tails = edges.setdefault(item.relation, ({}, {}))
            heads[item.head_type or NO_TYPE] = tails[item.tail_type or NO_TYPE] = None
        elif isinstance(item, Value):
            seen = fields.setdefault(item.field, _Field(item.shape))
            seen.types[item.type or NO_TYPE] = seen.texts[item.text] = None
            seen.shape = "list" if item.shape == "list" else seen.shape
            types[item.type or NO_TYPE] = None
        elif isinstance(item, Entity):
            types[item.type or NO_TYPE] = None
    relations: dict[str, Types] = {name: (tuple(heads), tuple(tails)) for name, (heads, tails) in edges.items()}
    made = draft_ontology(relations, domain)
    if rows is None and not fields:
        return made
    return _with_fields(made, fields, types, rows, domain)


def _with_fields(made: dict[str, Any], fields: dict[str, _Field], types: dict[str, None], rows: Rows | None, domain: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    aliases = [name for name in fields if _last(name).lower() in ALIASES]
    for path, seen in fields.items():
        if path in aliases:
            continue
        lists = seen.shape == "list" or (seen.shape == "cell" and _lists(seen.texts))
        taken = {*made["relations"], *attributes, *(other for other in fields if other != path)}
        name = _last(path) if _last(path) not in taken else path if path not in taken else f"{path}属性"
        if lists:
            relation = draft_ontology({name: (tuple(seen.types), (name,))}, domain)["relations"][name]
            made["relations"][name] = relation | {"field": path} | ({"split": _SPLIT} if seen.shape == "cell" else {})
            types[name] = None
        else:
            attributes[name] = draft_attribute(name, kind_of(list(seen.texts)), path)
    made["types"] = sorted({*made["types"], *types})
    if rows is not None:
        made["rows"] = {key: list(value) for key, value in (("name", rows.name), ("type_field", rows.type_field), ("ignore", rows.ignore)) if value}
    if attributes:
        made["attributes"] = attributes
    if aliases:
        made["aliases"] = {"field": aliases, "split": _SPLIT}
    return made


def draft_attribute(name: str, kind: Kind, path: str) -> dict[str, Any]:
    """One attribute as YAML data."""
    what = "什么" if kind == "text" else "多少"
    forms = (f"{{h}}的%s是{what}？", f"请问{{h}}的%s是{what}？", "想了解{h}的%s。", "说说{h}的%s。", "我想知道{h}的%s。")
    return {"kind": kind, "field": path, "ask": [form % name for form in forms],
            "say": f"{{h}}的{name}：{{v}}。" if kind == "text" else f"{{h}}的{name}是{{v}}。"}


def draft_ontology(relations: dict[str, Types], domain: str) -> dict[str, Any]:
    """Relations alone as YAML data: generic wordings made of their names.

    Args:
        relations: name -> (head types, tail types).
        domain: a name for it.
    """
    forms = ["{h}的%s是什么？", "{h}有哪些%s？", "请问{h}的%s有哪些？", "想了解{h}的%s。", "{h}%s", "请列举{h}的%s。", "说说{h}的%s",
             "{h}的%s都包括什么？", "关于{h}，%s是哪些？", "我想知道{h}的%s"]
    drafted = {
        name: {"head": list(heads), "tail": list(tails), "labels": [name], "ask": [form % name for form in forms], "say": f"{{h}}的{name}是{{ts}}。",
               "ask_inverse": [f"哪些{'或'.join(heads)}的{name}是{{t}}？"], "say_inverse": f"{name}是{{t}}的{'或'.join(heads)}有{{hs}}。",
               "ask_confirm": [f"{{h}}的{name}是{{t}}吗？"], "say_yes": f"是的，{{h}}的{name}是{{ts}}。",
               "say_no": f"不是，{{h}}的{name}是{{ts}}。"}
        for name, (heads, tails) in relations.items()}
    types = sorted({kind for heads, tails in relations.values() for kind in (*heads, *tails)})
    return {"domain": domain, "title": domain, "licence": "unknown", "types": types, "relations": drafted, "contradictions": [],
            "refuse": ["抱歉，我没有关于{h}的资料。"], "filler_before": ["请问，", "您好，", "想请教一下，"], "filler_after": ["谢谢。"]}


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]


def _lists(cells: Iterable[str]) -> bool:
    """Whether some cell of a column is a list of names, and no such cell a sentence."""
    lists = [names for cell in cells if len(names := parts(cell, _SPLIT)) > 1]
    return bool(lists) and all(len(name) <= _LONGEST_NAME for names in lists for name in names)
