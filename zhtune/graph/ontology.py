"""The ontology of a graph: types, relations, their Chinese wordings, contradictions. Nothing of any domain is in code."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhtune.config import read_yaml
from zhtune.errors import DataError

_PLACEHOLDERS = {"ask": {"h"}, "say": {"h", "ts"}, "ask_inverse": {"t"}, "say_inverse": {"t", "hs"},
                 "ask_confirm": {"h", "t"}, "say_yes": {"h", "ts"}, "say_no": {"h", "ts"}}
_RELATION_KEYS = {"head", "tail", "cardinality", "labels", *_PLACEHOLDERS}
_KEYS = {"domain", "title", "licence", "types", "relations", "contradictions", "refuse", "filler_before", "filler_after", "disclaimer"}


@dataclass(frozen=True)
class Relation:
    """One relation and how people speak of it; {h} is the head, {t} a tail, {ts} and {hs} lists joined by 、."""

    name: str
    head: str
    tails: tuple[str, ...]
    """Types a tail may have"""
    one: bool
    """Whether a head has at most one tail"""
    labels: tuple[str, ...]
    """Short names for keyword queries"""
    ask: tuple[str, ...]
    say: str
    ask_inverse: tuple[str, ...] = ()
    say_inverse: str = ""
    ask_confirm: tuple[str, ...] = ()
    say_yes: str = ""
    say_no: str = ""


@dataclass(frozen=True)
class Ontology:
    """All relations of a graph."""

    domain: str
    title: str
    licence: str
    types: tuple[str, ...]
    relations: dict[str, Relation]
    contradictions: tuple[tuple[str, str], ...] = ()
    """Pairs of relations that may not share a tail for one head"""
    refuse: tuple[str, ...] = ()
    """Answers about a head that the graph does not know, with {h}"""
    filler_before: tuple[str, ...] = ()
    filler_after: tuple[str, ...] = ()
    disclaimer: str = ""
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


def read_ontology(path: Path) -> Ontology:
    """Read ontology.yaml strictly.

    Raises:
        DataError: an unknown or missing key, an undeclared type, a wording without its placeholders.
    """
    raw = read_yaml(path)
    _keys(raw, _KEYS, {"relations", "types"}, "the ontology", path)
    types = _strings(raw["types"], "types", path)
    if not isinstance(raw["relations"], dict) or not raw["relations"]:
        raise DataError("relations must be a mapping of at least one relation", path)
    relations = {name: _relation(name, value, types, path) for name, value in raw["relations"].items()}
    pairs = []
    for pair in raw.get("contradictions") or []:
        if not isinstance(pair, list) or len(pair) != 2 or not set(pair) <= set(relations):
            raise DataError(f"contradictions: {pair!r} is no pair of declared relations", path)
        pairs.append((pair[0], pair[1]))
    return Ontology(
        domain=str(raw.get("domain", path.parent.name)), title=str(raw.get("title", "")), licence=str(raw.get("licence", "unknown")),
        types=types, relations=relations, contradictions=tuple(pairs), refuse=_strings(raw.get("refuse"), "refuse", path),
        filler_before=_strings(raw.get("filler_before"), "filler_before", path),
        filler_after=_strings(raw.get("filler_after"), "filler_after", path), disclaimer=str(raw.get("disclaimer", "")), raw=raw)


def draft_ontology(relations: dict[str, tuple[str, tuple[str, ...]]], domain: str) -> dict[str, Any]:
    """A first ontology for a graph that has none, as YAML data: generic wordings made of the relation's name.

    Args:
        relations: name -> (head type, tail types).
        domain: a name for it.
    """
    forms = ["{h}的%s是什么？", "{h}有哪些%s？", "请问{h}的%s有哪些？", "想了解{h}的%s。", "{h}%s", "请列举{h}的%s。", "说说{h}的%s",
             "{h}的%s都包括什么？", "关于{h}，%s是哪些？", "我想知道{h}的%s"]
    drafted = {
        name: {"head": head, "tail": list(tails), "labels": [name], "ask": [form % name for form in forms], "say": f"{{h}}的{name}是{{ts}}。",
               "ask_inverse": [f"哪些{head}的{name}是{{t}}？"], "say_inverse": f"{name}是{{t}}的{head}有{{hs}}。",
               "ask_confirm": [f"{{h}}的{name}是{{t}}吗？"], "say_yes": f"是的，{{h}}的{name}是{{ts}}。",
               "say_no": f"不是，{{h}}的{name}是{{ts}}。"}
        for name, (head, tails) in relations.items()}
    types = sorted({head for head, _ in relations.values()} | {t for _, tails in relations.values() for t in tails})
    return {"domain": domain, "title": domain, "licence": "unknown", "types": types, "relations": drafted, "contradictions": [],
            "refuse": ["抱歉，我没有关于{h}的资料。"], "filler_before": ["请问，", "您好，", "想请教一下，"], "filler_after": ["谢谢。"]}


def _relation(name: str, raw: Any, types: tuple[str, ...], path: Path) -> Relation:
    where = f"relations.{name}"
    if not isinstance(raw, dict):
        raise DataError(f"{where} must be a mapping", path)
    _keys(raw, _RELATION_KEYS, {"head", "tail", "ask", "say"}, where, path)
    tails = tuple(raw["tail"]) if isinstance(raw["tail"], list) else (raw["tail"],)
    for kind in (raw["head"], *tails):
        if kind not in types:
            raise DataError(f"{where}: type {kind!r} is not among the declared types", path)
    if raw.get("cardinality", "many") not in ("one", "many"):
        raise DataError(f"{where}.cardinality is one or many, not {raw['cardinality']!r}", path)
    texts: dict[str, Any] = {}
    for key, wanted in _PLACEHOLDERS.items():
        value = raw.get(key)
        if value is None:
            continue
        for text in value if isinstance(value, list) else [value]:
            found = re.findall(r"\{(\w+)\}", str(text))
            if set(found) != wanted or len(found) != len(wanted):
                raise DataError(f"{where}.{key}: {text!r} must hold {_braced(wanted)} once", path)
        texts[key] = _strings(value, f"{where}.{key}", path) if key.startswith("ask") else str(value)
    labels = _strings(raw.get("labels"), f"{where}.labels", path) or (name,)
    return Relation(name, raw["head"], tails, raw.get("cardinality") == "one", labels, **texts)


def _braced(names: set[str]) -> str:
    return " and ".join(f"{{{name}}}" for name in sorted(names))


def _keys(raw: dict[str, Any], known: set[str], needed: set[str], where: str, path: Path) -> None:
    if unknown := sorted(set(map(str, raw)) - known):
        raise DataError(f"{where} has an unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}", path)
    if missing := sorted(needed - set(raw)):
        raise DataError(f"{where} lacks the key {missing[0]!r}", path)


def _strings(value: Any, where: str, path: Path) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise DataError(f"{where} must be a list of texts", path)
    return tuple(value)
