"""Records on their way to the file: what safety asks for is added, and every answer is looked at once more: does it say what its triples say?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from zhtune.graph.graph import Graph
from zhtune.synthesis.instruct import Job
from zhtune.synthesis.safety import Safety
from zhtune.synthesis.statements import verify_statements
from zhtune.synthesis.verify import Verifier

TASKS = ("one_hop", "attribute", "consultation", "summary", "comparison")
"""Tasks whose answers state all of their triples, tails after heads; those of the others follow from them by counting or leaving out."""


@dataclass(frozen=True)
class Part:
    """Some records as lines of JSON, and what is to be reported of them."""

    lines: list[bytes]
    tasks: Counter[str]
    stated: set[str]
    """Ids of the triples that they state"""
    audit: Counter[tuple[str, str]]
    """From Auditor.audit"""

    @classmethod
    def of(cls, rows: list[dict[str, Any]], audit: Counter[tuple[str, str]] | None = None) -> Part:
        text = b"".join([orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows])
        return cls(text.splitlines(keepends=True),          # what orjson gives holds on to 4 KB for every line
                   Counter(row["source"]["task"] for row in rows), {triple for row in rows for triple in row["source"]["triples"]},
                   audit or Counter())


class Auditor:
    """The verifier and the safety rules of a graph, applied to records.

    Args:
        graph: with its ontology.
    """

    def __init__(self, graph: Graph):
        self._graph, self._by_id, self._verifier, self._safety = graph, graph.by_id, Verifier(graph), Safety(graph)

    def finish(self, job: Job) -> Part:
        """The records that a job makes, with their sentences of safety, audited."""
        rows = [*map(self._safety.add, job())]
        return Part.of(rows, self.audit(rows))

    def audit(self, rows: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
        """Counts of answers checked, by task, of those flagged, by task and reason, and of sentences of safety required and missing.

        Equal answers are checked once. Changes nothing.
        """
        found: Counter[tuple[str, str]] = Counter()
        answers = dict.fromkeys((row["source"]["task"], row["messages"][-1]["content"], tuple(row["source"]["triples"]))
                                for row in rows if row["source"]["task"] in TASKS)
        for task, said, ids in answers:
            found["answers", task] += 1
            if reason := self._wrong(task, said, ids):
                found["flagged", f"{task}: {reason}"] += 1
        if self._graph.ontology.safety:
            needing = [row for row in rows if self._safety.required(row["source"]["triples"])]
            found["safety", "required"] = len(needing)
            found["safety", "missing"] = sum(bool(self._safety.missing(row)) for row in needing)
        return found

    def _wrong(self, task: str, said: str, ids: tuple[str, ...]) -> str:
        """What is wrong first with an answer, or nothing."""
        statements, answer = [self._by_id[i] for i in ids], self._safety.without(ids, said)
        if task == "one_hop":
            found = self._verifier.verify(answer, statements[0].head, statements[0].relation)
        else:
            found = verify_statements(self._graph, self._verifier.linker, answer, statements)
        return found.flagged[0].reason if found.flagged else "missing" if found.missing else ""


def figures(audits: Iterable[Counter[tuple[str, str]]]) -> dict[str, dict[str, int]]:
    """The counts of all parts, for the report."""
    total: Counter[tuple[str, str]] = Counter()
    for audit in audits:
        total.update(audit)
    report: dict[str, dict[str, int]] = {"answers": {}, "flagged": {}}
    for (kind, name), number in sorted(total.items()):
        report.setdefault(kind, {})[name] = number
    return report
