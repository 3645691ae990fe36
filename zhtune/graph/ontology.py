"""The ontology of a graph: types, relations, their Chinese wordings, contradictions. Nothing of any domain is in code."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from zhtune.config import read_yaml
from zhtune.errors import DataError
from zhtune.graph.fields import Aliases, Attribute, Hygiene, Rows, read_aliases, read_attributes, read_hygiene, read_rows
from zhtune.graph.speech import Consult, Rule, read_consult, read_safety
from zhtune.graph.strict import check_keys, one_or_more, pattern, placeholders, strings, text

_PLACEHOLDERS = {"ask": {"h"}, "say": {"h", "ts"}, "ask_inverse": {"t"}, "say_inverse": {"t", "hs"},
                 "ask_confirm": {"h", "t"}, "say_yes": {"h", "ts"}, "say_no": {"h", "ts"}}
_ASKED = {"ask_inverse": ("say_inverse",), "ask_confirm": ("say_yes", "say_no")}    # what a question needs to be answered
_RELATION_KEYS = {"head", "tail", "cardinality", "labels", "inverse", "field", "split", *_PLACEHOLDERS}
_KEYS = {"domain", "title", "licence", "types", "relations", "contradictions", "refuse", "filler_before", "filler_after", "disclaimer",
         "rows", "attributes", "aliases", "hygiene", "safety", "consult"}


@dataclass(frozen=True)
class Relation:
    """One relation and how people speak of it; {h} is the head, {t} a tail, {ts} and {hs} lists joined by 、."""

    name: str
    heads: tuple[str, ...]
    """Types a head may have"""
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
    inverse: str = ""
    """The name it has from tail to head; a triple of that name is turned round when read"""
    fields: tuple[str, ...] = ()
    """What it is called in the data, besides its name"""
    split: str = ""
    """A regular expression of what stands between several tails of one cell; empty: nothing"""


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
    attributes: dict[str, Attribute] = field(default_factory=dict)
    aliases: Aliases = field(default_factory=Aliases)
    rows: Rows = field(default_factory=Rows)
    hygiene: Hygiene | None = None
    """None: the default where the kind of input asks for it"""
    safety: tuple[Rule, ...] = ()
    """What must be said with answers that touch something, red flags before disclaimers"""
    consult: Consult = field(default_factory=Consult)
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


def read_ontology(path: Path) -> Ontology:
    """Read ontology.yaml strictly.

    Raises:
        DataError: an unknown or missing key, an undeclared type, a wording without its placeholders.
    """
    raw = read_yaml(path)
    check_keys(raw, _KEYS, {"relations", "types"}, "the ontology", path)
    types = strings(raw["types"], "types", path)
    attributes = read_attributes(raw.get("attributes"), types, path)
    if not isinstance(raw["relations"], dict) or not (raw["relations"] or attributes):
        raise DataError("relations must be a mapping of at least one relation", path)
    relations = {name: _relation(name, value, types, path) for name, value in raw["relations"].items()}
    pairs = []
    for pair in raw.get("contradictions") or []:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(n, str) and n in relations for n in pair):
            raise DataError(f"contradictions: {pair!r} is no pair of declared relations", path)
        pairs.append((pair[0], pair[1]))
    refuse, disclaimer = strings(raw.get("refuse"), "refuse", path), text(raw.get("disclaimer"), "disclaimer", path)
    for wording in refuse:
        placeholders(wording, {"h"}, "refuse", path)
    return Ontology(
        domain=text(raw.get("domain"), "domain", path) or path.parent.name, title=text(raw.get("title"), "title", path),
        licence=text(raw.get("licence"), "licence", path) or "unknown",
        types=types, relations=relations, contradictions=tuple(pairs), refuse=refuse,
        filler_before=strings(raw.get("filler_before"), "filler_before", path),
        filler_after=strings(raw.get("filler_after"), "filler_after", path), disclaimer=disclaimer,
        attributes=attributes, aliases=read_aliases(raw.get("aliases"), path), rows=read_rows(raw.get("rows"), types, path),
        hygiene=read_hygiene(raw.get("hygiene"), path), consult=read_consult(raw.get("consult"), relations, path), raw=raw,
        safety=read_safety(raw.get("safety"), disclaimer, relations, types, path))


def read_heldout(path: Path, ontology: Ontology) -> dict[str, dict[str, list[str]]]:
    """Read heldout.yaml: relation -> {"near": wordings, "far": wordings}, each wording with {h} once.

    Raises:
        DataError: an undeclared relation, another split, a wording without its placeholder.
    """
    raw = read_yaml(path)
    check_keys(raw, set(ontology.relations), set(), "the held-out wordings", path)
    for name, splits in raw.items():
        if not isinstance(splits, dict):
            raise DataError(f"{name} must be a mapping of near and far to lists of wordings", path)
        check_keys(splits, {"near", "far"}, set(), name, path)
        for split, wordings in splits.items():
            for wording in strings(wordings, f"{name}.{split}", path):
                placeholders(wording, {"h"}, f"{name}.{split}", path)
    return {name: {split: list(wordings or []) for split, wordings in splits.items()} for name, splits in raw.items()}


def fill(form: str, **values: str) -> str:
    """A wording with its placeholders filled in one pass: a name that looks like a placeholder stays the name it is."""
    if len(values) == 1:
        (name, value), = values.items()
        return form.replace(f"{{{name}}}", value)
    pieces = [*_pieces(form)]
    pieces[1::2] = [values.get(name, f"{{{name}}}") for name in pieces[1::2]]
    return "".join(pieces)


@lru_cache(1 << 12)
def _pieces(form: str) -> list[str]:
    """Text and the names of placeholders in turn."""
    return re.split(r"\{(\w+)\}", form)


def _relation(name: str, raw: Any, types: tuple[str, ...], path: Path) -> Relation:
    where = f"relations.{name}"
    check_keys(raw, _RELATION_KEYS, {"head", "tail", "ask", "say"}, where, path)
    heads, tails = (strings(raw[key] if isinstance(raw[key], list) else [raw[key]], f"{where}.{key}", path) for key in ("head", "tail"))
    if not heads or not tails:
        raise DataError(f"{where} needs at least one type of head and of tail", path)
    for kind in (*heads, *tails):
        if kind not in types:
            raise DataError(f"{where}: type {kind!r} is not among the declared types", path)
    if raw.get("cardinality", "many") not in ("one", "many"):
        raise DataError(f"{where}.cardinality is one or many, not {raw['cardinality']!r}", path)
    labels = strings(raw.get("labels"), f"{where}.labels", path) or (name,)
    return Relation(name, heads, tails, raw.get("cardinality") == "one", labels, **_wordings(raw, where, path),
                    inverse=text(raw.get("inverse"), f"{where}.inverse", path), fields=one_or_more(raw.get("field"), f"{where}.field", path),
                    split=pattern(raw.get("split"), f"{where}.split", path))


def _wordings(raw: dict[str, Any], where: str, path: Path) -> dict[str, Any]:
    """The wordings of a relation: ask* are lists, say* one text each; a kind of question comes with its answers."""
    texts: dict[str, Any] = {}
    for key, wanted in _PLACEHOLDERS.items():
        value = raw.get(key)
        if key == "say" or (key.startswith("say") and value is not None):
            if not isinstance(value, str):
                raise DataError(f"{where}.{key} must be one text", path)
            texts[key] = value
        elif key.startswith("ask"):
            texts[key] = strings(value, f"{where}.{key}", path)
        for wording in [value] if isinstance(value, str) else value or []:
            placeholders(wording, wanted, f"{where}.{key}", path)
    if not texts["ask"]:
        raise DataError(f"{where}.ask needs at least one wording", path)
    for key, answers in _ASKED.items():
        if texts[key] and (missing := [a for a in answers if a not in texts]):
            raise DataError(f"{where} has {key} but lacks the key {missing[0]!r} to answer it", path)
    return texts
