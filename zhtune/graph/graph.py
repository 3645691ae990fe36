"""A knowledge graph in memory: typed entities, triples, and the facts (head, relation) -> tails, in file order."""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from zhtune.errors import DataError
from zhtune.graph.ontology import Ontology, read_heldout, read_ontology
from zhtune.records import read_jsonl


@dataclass(frozen=True)
class Triple:
    """One directed, typed edge."""

    head: str
    relation: str
    tail: str
    head_type: str
    tail_type: str
    source: str = ""

    @cached_property
    def id(self) -> str:
        """First 12 hex digits of sha1 over head, relation and tail."""
        return hashlib.sha1("\0".join((self.head, self.relation, self.tail)).encode("utf-8")).hexdigest()[:12]


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
        self.facts: dict[tuple[str, str], list[Triple]] = defaultdict(list)
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
        names = ("head", "relation", "tail", "head_type", "tail_type", "source")
        triples = [Triple(**{n: str(row.get(n, "")) for n in names}) for _, row in read_jsonl(folder / "triples.jsonl")]
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

    def asks(self, head: str, relation: str) -> bool:
        """Whether the relation can be asked of the head: a fact of it is there, or the graph knows no such name at all."""
        return (head, relation) in self.facts or head not in self.types

    def heldout_wordings(self, relation: str) -> set[str]:
        """The wordings of a relation that only measure."""
        return {wording for wordings in self.heldout.get(relation, {}).values() for wording in wordings}

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

    def false_names(self, head: str, kind: str, avoid: set[str]) -> list[str]:
        """Names of a type that are no tail of the head under any relation, nor part of one, nor hold one; sorted.

        Args:
            avoid: names to leave out, such as heads that must stay unknown.
        """
        barred = avoid.union(*(self._overlapping(known) for known in (*self.about(head), head)))
        return [n for n in self.of_type(kind) if n not in barred]

    def _overlapping(self, known: str) -> list[str]:
        """Names that hold a name or are part of it, itself among them."""
        if known not in self._overlaps:
            names, starts, joined, automaton = self._searchable
            found, at = [], joined.find(known)
            while at >= 0:
                index = bisect(starts, at) - 1
                found.append(names[index])
                at = joined.find(known, starts[index + 1])
            self._overlaps[known] = found + [name for _, name in automaton.iter(known)]
        return self._overlaps[known]

    @cached_property
    def _searchable(self) -> tuple[list[str], list[int], str, Any]:
        """All names, where each starts in one text of them all, that text, and an automaton that finds them."""
        import ahocorasick
        names, automaton = [*self.types], ahocorasick.Automaton()
        for name in names:
            automaton.add_word(name, name)
        automaton.make_automaton()
        return names, [0, *accumulate(len(name) + 1 for name in names)], "\0".join(names), automaton

    def of_type(self, *types: str) -> list[str]:
        """Names of the given types, sorted within each; a name of several types is there under each of them."""
        if types not in self._by_types:
            self._by_types[types] = list(dict.fromkeys(name for kind in types for name in self._by_type.get(kind, [])))
        return self._by_types[types]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that a folder of plain triples need not have."""
    return [row for _, row in read_jsonl(path)] if path.exists() else []
