"""A knowledge graph in memory: typed entities, triples, and the facts (head, relation) -> tails, in file order."""

from __future__ import annotations

import hashlib
import sys
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from zhtune.errors import DataError
from zhtune.graph.ontology import Ontology, read_heldout, read_ontology
from zhtune.records import read_jsonl


class _Edge(NamedTuple):
    head: str
    relation: str
    tail: str
    head_type: str
    tail_type: str
    source: str = ""


class Triple(_Edge):
    """One directed, typed edge."""

    @cached_property
    def id(self) -> str:
        """First 12 hex digits of sha1 over head, relation and tail."""
        return hashlib.sha1("\0".join((self.head, self.relation, self.tail)).encode("utf-8")).hexdigest()[:12]


Facts = dict[tuple[str, str], list[Triple]]
"""(head, relation) -> its triples"""


class Without(Sequence[str]):
    """Names without some of them, though none is copied: one of ten thousand is drawn at once.

    Args:
        names: all of them.
        barred: the places of those that are left out, ascending.
    """

    def __init__(self, names: list[str], barred: list[int]):
        self._names = names
        self._before = [place - i for i, place in enumerate(barred)]    # how many stay before each place that is left out

    def __len__(self) -> int:
        return len(self._names) - len(self._before)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._names[index + bisect(self._before, index)]


class Graph:
    """Triples with the indices that generation and evaluation need.

    Args:
        triples: in file order; their order within a fact is the order of its answer.
        ontology: their relations.
        heldout: relation -> {"near": wordings, "far": wordings}, never used in training.
        aliases: name -> its other names.
        attributes: (name, attribute) -> its values.
    """

    def __init__(self, triples: list[Triple], ontology: Ontology, heldout: dict[str, dict[str, list[str]]] | None = None,
                 aliases: dict[str, list[str]] | None = None, attributes: dict[tuple[str, str], list[str]] | None = None):
        self.triples = triples
        self.ontology = ontology
        self.heldout = heldout or {}
        self.aliases = aliases or {}
        self.attributes = attributes or {}
        self.facts: Facts = defaultdict(list)
        self.inverse: dict[tuple[str, str], list[Triple]] = defaultdict(list)
        self.types: dict[str, str] = {}
        """Name -> its type; a name of several types has the one it bears as a head"""
        self._about: dict[str, set[str]] = defaultdict(set)
        for triple in triples:
            self.facts[triple.head, triple.relation].append(triple)
            self.inverse[triple.tail, triple.relation].append(triple)
            self.types.setdefault(triple.tail, triple.tail_type)
            self._about[triple.head].add(triple.tail)
        self.types |= {t.head: t.head_type for t in triples}
        self._overlaps: dict[str, list[str]] = {}
        self._places_of: dict[str, dict[str, int]] = {}
        self._by_types: dict[tuple[str, ...], list[str]] = {}
        self._by_type: dict[str, list[str]] = defaultdict(list)
        for name, kind in sorted({(t.head, t.head_type) for t in triples} | {(t.tail, t.tail_type) for t in triples}):
            self._by_type[kind].append(name)

    @classmethod
    def open(cls, folder: Path) -> Graph:
        """Read a graph artifact (or a folder of the same files).

        Raises:
            DataError: a file is missing or not what it should be.
        """
        if not (folder / "triples.jsonl").exists() or not (folder / "ontology.yaml").exists():
            raise DataError("is no graph: it needs triples.jsonl and ontology.yaml; make one with zhtune kg", folder)
        parts = ("head", "relation", "tail", "head_type", "tail_type", "source")
        triples = [Triple(*[sys.intern(str(row.get(part, ""))) for part in parts]) for _, row in read_jsonl(folder / "triples.jsonl")]
        ontology, file = read_ontology(folder / "ontology.yaml"), folder / "heldout.yaml"
        aliases = {row["name"]: row["aliases"] for row in _rows(folder / "entities.jsonl") if row.get("aliases")}
        attributes: dict[tuple[str, str], list[str]] = {}
        for row in _rows(folder / "attributes.jsonl"):
            attributes.setdefault((row["entity"], row["attribute"]), []).append(row["value"])
        return cls(triples, ontology, read_heldout(file, ontology) if file.exists() else {}, aliases, attributes)

    @cached_property
    def values(self) -> dict[tuple[str, str], list[Triple]]:
        """(name, attribute) -> its values as statements, with ids as triples have; they have no tail type."""
        return {(name, attribute): [Triple(name, attribute, value, self.types.get(name, ""), "") for value in values]
                for (name, attribute), values in self.attributes.items()}

    @cached_property
    def by_id(self) -> dict[str, Triple]:
        """Every triple and every value by its id."""
        return {t.id: t for statements in (self.triples, *self.values.values()) for t in statements}

    @cached_property
    def alias_of(self) -> dict[str, str]:
        """Alias -> the name of the triples that bears it; what several bear names none of them."""
        bearers = Counter(alias for others in self.aliases.values() for alias in {*others})
        return {alias: name for name, others in self.aliases.items() if name in self.types for alias in others if bearers[alias] == 1}

    def asks(self, head: str, relation: str) -> bool:
        """Whether the relation can be asked of the head: a fact of it is there, or the graph knows no such name at all."""
        return (head, relation) in self.facts or head not in self.types

    @cached_property
    def heldout_wordings(self) -> dict[str, set[str]]:
        """Relation -> its wordings that only measure."""
        return {relation: {w for wordings in self.heldout.get(relation, {}).values() for w in wordings} for relation in self.ontology.relations}

    @cached_property
    def tail_counts(self) -> dict[str, Counter[str]]:
        """Relation -> how often each name is a tail of it."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for (tail, name), triples in self.inverse.items():
            counts[name][tail] = len(triples)
        return counts

    @cached_property
    def heads(self) -> list[str]:
        """Every name that is the head of a triple, in file order."""
        return list(dict.fromkeys(t.head for t in self.triples))

    def tails(self, head: str, relation: str) -> list[str]:
        """The tails of one fact, in file order."""
        return [t.tail for t in self.facts.get((head, relation), [])]

    def about(self, head: str) -> set[str]:
        """Every tail of a head, under any relation."""
        return self._about.get(head, set())

    def false_names(self, head: str, kind: str, avoid: set[str]) -> Sequence[str]:
        """Names of a type that are no tail of the head under any relation, nor part of one, nor hold one; sorted.

        Args:
            avoid: names to leave out, such as heads that must stay unknown.
        """
        places, names = self._places(kind), self.of_type(kind)
        barred = {places[name] for known in (*self.about(head), head) for name in self.overlapping(known) if name in places}
        return Without(names, sorted(barred.union(places[name] for name in avoid if name in places)))

    def _places(self, kind: str) -> dict[str, int]:
        """Each name of a type and where it stands among them."""
        if kind not in self._places_of:
            self._places_of[kind] = {name: i for i, name in enumerate(self.of_type(kind))}
        return self._places_of[kind]

    def overlapping(self, known: str) -> list[str]:
        """Names that hold a text or are part of it, itself among them."""
        if known not in self._overlaps:
            with_piece, automaton = self._searchable
            fewest = min((with_piece.get(known[i:i + 2], []) for i in range(max(1, len(known) - 1))), key=len)
            self._overlaps[known] = [name for name in fewest if known in name] + [name for _, name in automaton.iter(known)]
        return self._overlaps[known]

    @cached_property
    def _searchable(self) -> tuple[dict[str, list[str]], Any]:
        """The names that hold each one or two characters, and an automaton that finds all names in a text."""
        import ahocorasick
        with_piece, automaton = defaultdict(list), ahocorasick.Automaton()
        for name in self.types:
            automaton.add_word(name, name)
            for piece in dict.fromkeys([*name, *(name[i:i + 2] for i in range(len(name) - 1))]):
                with_piece[piece].append(name)
        automaton.make_automaton()
        return with_piece, automaton

    def of_type(self, *types: str) -> list[str]:
        """Names of the given types, sorted within each; a name of several types is there under each of them."""
        if types not in self._by_types:
            self._by_types[types] = list(dict.fromkeys(name for kind in types for name in self._by_type.get(kind, [])))
        return self._by_types[types]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that a folder of plain triples need not have."""
    return [row for _, row in read_jsonl(path)] if path.exists() else []
