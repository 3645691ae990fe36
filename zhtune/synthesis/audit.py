"""Every record looked at once more: does its answer say what its triples say, and all that safety asks for? Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from zhtune.graph.graph import Graph
from zhtune.parallel import begin
from zhtune.synthesis.safety import Safety
from zhtune.synthesis.statements import verify_statements
from zhtune.synthesis.verify import Verifier

TASKS = ("one_hop", "attribute", "consultation", "summary", "comparison")
"""Tasks whose answers state all of their triples, tails after heads; those of the others follow from them by counting or leaving out."""
_CHUNK = 2000


def audit(graph: Graph, safety: Safety, rows: list[dict[str, Any]], workers: int) -> Callable[[], dict[str, Any]]:
    """Begin, and give back what waits for the report's figures: answers checked by task, flagged ones with reasons, sentences of safety.

    Equal answers are checked once.
    """
    answers = list(dict.fromkeys((row["source"]["task"], row["messages"][-1]["content"], tuple(row["source"]["triples"]))
                                 for row in rows if row["source"]["task"] in TASKS))
    found = begin(_check, (graph, Verifier(graph), safety), answers, workers, _CHUNK)

    def figures() -> dict[str, Any]:
        needing = [row for row in rows if safety.required(row["source"]["triples"])] if graph.ontology.safety else []
        missing = sum(bool(safety.missing(row)) for row in needing)
        checked, flagged = Counter(task for task, _, _ in answers), Counter(f"{task}: {reason}" for task, reason in found() if reason)
        report: dict[str, Any] = {"answers": dict(sorted(checked.items())), "flagged": dict(sorted(flagged.items()))}
        return report | ({"safety": {"required": len(needing), "missing": missing}} if graph.ontology.safety else {})
    return figures


def _check(shared: tuple[Graph, Verifier, Safety], answers: list[tuple[str, str, tuple[str, ...]]]) -> list[tuple[str, str]]:
    """(task, what is wrong first or nothing) of each answer."""
    graph, verifier, safety = shared
    results = []
    for task, said, ids in answers:
        statements, answer = [graph.by_id[i] for i in ids], safety.without(ids, said)
        if task == "one_hop":
            found = verifier.verify(answer, statements[0].head, statements[0].relation)
        else:
            found = verify_statements(graph, verifier.linker, answer, statements)
        results.append((task, found.flagged[0].reason if found.flagged else "missing" if found.missing else ""))
    return results
