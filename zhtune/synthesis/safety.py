"""What the ontology says must go with an answer: adding it to records, and seeing where it is missing. Wordings are the ontology's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zhtune.graph.graph import Graph


class Safety:
    """The rules of a graph's ontology, applied to what a record or a pair names as its source.

    Args:
        graph: with its ontology.
    """

    def __init__(self, graph: Graph):
        self._graph = graph
        self._known: dict[tuple[str, ...], list[str]] = {}
        self._last: tuple[Iterable[str], list[str]] = (), []

    def required(self, ids: Iterable[str]) -> list[str]:
        """The sentences that an answer which states these triples and values must hold: red flags first, each once."""
        if not self._graph.ontology.safety:
            return []
        if ids is not self._last[0]:                        # records of one fact share their ids
            key = tuple(ids)
            if key not in self._known:
                statements = [self._graph.by_id[i] for i in key]
                self._known[key] = list(dict.fromkeys(said for rule in self._graph.ontology.safety if (said := rule.sentence(statements))))
            self._last = ids, self._known[key]
        return self._last[1]

    def missing(self, row: dict[str, Any], side: str = "messages") -> list[str]:
        """Sentences that no answer of a record, or of one side of a pair, holds though what it states requires them."""
        if not (needed := self.required(row["source"]["triples"])):
            return []
        said = "\n".join([message["content"] for message in row[side] if message["role"] == "assistant"])
        return [text for text in needed if text not in said]

    def add(self, row: dict[str, Any], side: str = "messages") -> dict[str, Any]:
        """A record, or one side of a pair, with what it lacks after its last answer."""
        if not (lacking := self.missing(row, side)):
            return row
        *before, last = row[side]
        return {**row, side: [*before, {**last, "content": last["content"] + "".join(lacking)}]}

    def without(self, ids: Iterable[str], answer: str) -> str:
        """An answer without the sentences that its statements require: what is left is about the graph."""
        for sentence in self.required(ids):
            answer = answer.replace(sentence, "")
        return answer
