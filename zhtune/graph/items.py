"""What the readers of raw graphs hand over, each with its place. Nothing here is checked against an ontology."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["text", "number", "percent", "range"]


class Raw(NamedTuple):
    """A triple as it was read."""

    head: str
    relation: str
    tail: str
    head_type: str
    tail_type: str
    source: str
    file: str
    line: int
    node: bool = False
    """Whether the tail is a node of the data: one name, never a list of them"""


class Value(NamedTuple):
    """What a field says of an entity: the tail of a relation, an attribute or an alias, as the ontology says."""

    entity: str
    type: str
    field: str
    text: str
    source: str
    file: str
    line: int
    shape: Literal["list", "scalar", "cell"] = "scalar"
    """Without an ontology a list is a relation, a scalar an attribute, and a table's cell what its column looks like"""


class Entity(NamedTuple):
    """An entity that the data declares, whether or not anything is said of it."""

    name: str
    type: str
    file: str
    line: int


class Refused(NamedTuple):
    """A piece of the data that is none of these, and why."""

    reason: str
    text: str
    file: str
    line: int


class Note(NamedTuple):
    """Something worth counting that refuses nothing."""

    finding: str
    text: str


class Attributed(NamedTuple):
    """One attribute of an entity, placed by the ontology."""

    entity: str
    attribute: str
    value: str
    kind: Kind
    source: str
    file: str
    line: int


Item = Raw | Value | Entity | Refused | Note
