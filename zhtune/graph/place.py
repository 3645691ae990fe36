"""Items -> triples, attributes and aliases, as the ontology places them; cut values and sentinels are found here.

A name in the data is looked up as a relation, an inverse, an attribute, an alias or something to ignore; what is none of
them is an error, never a guess. It checks no types (zhtune.graph.hygiene does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from zhtune.errors import DataError
from zhtune.graph.fields import Hygiene, is_kind
from zhtune.graph.items import Attributed, Entity, Item, Note, Raw, Refused, Value
from zhtune.graph.ontology import Ontology
from zhtune.graph.tables import parts

_CUT = ("...", "…")
Drop = Callable[..., None]


class Target(NamedTuple):
    """Where a name of the data belongs."""

    kind: str
    """relation, inverse, attribute, alias or ignore"""
    name: str
    split: str


@dataclass
class Placed:
    """A graph before its triples are typed and checked."""

    raws: list[Raw] = field(default_factory=list)
    attributes: list[Attributed] = field(default_factory=list)
    aliases: dict[str, dict[str, None]] = field(default_factory=dict)
    """Name -> its other names, in order"""
    types: dict[str, str] = field(default_factory=dict)
    """Name -> type, of the entities that the data declares or describes, in order of appearance"""
    found: Counter[str] = field(default_factory=Counter)
    """Finding -> how often, dropped or not"""
    read: int = 0
    """Triples, attributes and aliases before anything was dropped"""


def targets(ontology: Ontology, path: object) -> tuple[dict[str, Target], dict[str, Target]]:
    """(name of an edge, name of a field) -> where it belongs. An edge is a relation first, a field an attribute first.

    Raises:
        DataError: a name that two relations, or two attributes, claim.
    """
    relations: dict[str, Target] = {}
    attributes: dict[str, Target] = {}
    for r in ontology.relations.values():
        _claim(relations, (r.name, *r.fields), Target("relation", r.name, r.split), path)
    for r in ontology.relations.values():
        _claim(relations, (r.inverse,) if r.inverse else (), Target("inverse", r.name, r.split), path)
    for a in ontology.attributes.values():
        _claim(attributes, (a.name, *a.fields), Target("attribute", a.name, a.split), path)
    _claim(attributes, ontology.aliases.fields, Target("alias", "", ontology.aliases.split), path)
    _claim(attributes, ontology.rows.ignore, Target("ignore", "", ""), path)
    return attributes | relations, relations | attributes


def place(items: Iterable[Item], ontology: Ontology, hygiene: Hygiene | None, drop: Drop, path: object) -> Placed:
    """Sort every item into triples, attributes and aliases.

    Args:
        hygiene: what is dropped by name; None only counts what the default would find.
        drop: takes a reason, the item that it came from, and the texts.
        path: of the ontology, for errors.

    Raises:
        DataError: a name that the ontology does not know.
    """
    placer, (edges, fields) = _Placer(ontology, hygiene, drop), targets(ontology, path)
    placed = placer.placed
    for item in items:
        if isinstance(item, Raw):
            target = edges.get(item.relation)
            if target is None:
                raise DataError(f"relation {item.relation!r} is not in the ontology", item.file, item.line or None)
            placer.edge(item, target)
        elif isinstance(item, Value):
            target = fields.get(item.field)
            if target is None:
                raise DataError(f"field {item.field!r} is no relation, attribute or alias of the ontology, nor under its rows.ignore",
                                item.file, item.line or None)
            placer.value(item, target)
        elif isinstance(item, Entity):
            placer.declare(item.name, item.type)
        elif isinstance(item, Refused):
            placed.read += 1
            placed.found[item.reason] += 1
            drop(item.reason, item, text=item.text)
        elif isinstance(item, Note):
            placed.found[item.finding] += 1
    return placed


def _claim(table: dict[str, Target], names: tuple[str, ...], target: Target, path: object) -> None:
    for name in dict.fromkeys(names):
        if name in table:
            raise DataError(f"{name!r} is claimed twice: by {table[name].kind} {table[name].name} and by {target.kind} {target.name}", str(path))
        table[name] = target


def _texts(text: str, target: Target) -> list[str]:
    return parts(text, target.split) if target.split else [text]


class _Placer:
    """Puts items where they belong; sentinels and cut values are counted, and dropped where that is asked for."""

    def __init__(self, ontology: Ontology, hygiene: Hygiene | None, drop: Drop):
        self.placed, self._ontology, self._drop = Placed(), ontology, drop
        self._sentinels = frozenset((hygiene or Hygiene()).sentinels)
        self._refused = {"sentinel": hygiene is not None, "cut": hygiene is not None and hygiene.drop_cut}

    def declare(self, name: str, kind: str) -> None:
        if not self.placed.types.get(name):
            self.placed.types[name] = kind

    def edge(self, raw: Raw, target: Target) -> None:
        if target.kind == "ignore":
            return
        if target.kind in ("attribute", "alias"):
            self.value(Value(raw.head, raw.head_type, raw.relation, raw.tail, raw.source, raw.file, raw.line), target)
            return
        for text in [raw.tail] if raw.node else _texts(raw.tail, target):
            self.placed.read += 1
            one = raw if text == raw.tail and raw.relation == target.name else raw._replace(relation=target.name, tail=text)
            if target.kind == "inverse":
                one = one._replace(head=text, tail=raw.head, head_type=raw.tail_type, tail_type=raw.head_type)
            if self._stays(one, one.head, one.relation, one.tail):
                self.placed.raws.append(one)

    def value(self, value: Value, target: Target) -> None:
        if target.kind == "ignore":
            return
        if target.kind in ("relation", "inverse"):
            self.edge(Raw(value.entity, value.field, value.text, value.type, "", value.source, value.file, value.line), target)
            return
        for text in _texts(value.text, target):
            self.placed.read += 1
            if not self._stays(value, value.entity, target.name or value.field, text):
                continue
            self.declare(value.entity, value.type)
            if target.kind == "alias":
                self._alias(value, text)
                continue
            kind = self._ontology.attributes[target.name].kind
            self.placed.found["not_of_kind"] += not is_kind(text, kind)
            self.placed.attributes.append(Attributed(value.entity, target.name, text, kind, value.source, value.file, value.line))

    def _alias(self, value: Value, text: str) -> None:
        known = self.placed.aliases.setdefault(value.entity, {})
        if text == value.entity or text in known:
            self.placed.found["duplicate_alias"] += 1
            self._drop("duplicate_alias", value, text=text)
            return
        known[text] = None

    def _stays(self, item: Raw | Value, head: str, name: str, tail: str) -> bool:
        """Whether the two texts stay."""
        flaws = {"sentinel": tail.casefold() in self._sentinels or head.casefold() in self._sentinels,
                 "cut": tail.endswith(_CUT) or head.endswith(_CUT)}
        for flaw in filter(flaws.get, flaws):
            self.placed.found[flaw] += 1
            if self._refused[flaw]:
                self._drop(flaw, item, triple=[head, name, tail])
                return False
        return True
