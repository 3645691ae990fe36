"""Graph -> instruction records by templates: one-hop, inverse, yes/no, unanswerable. No model, no network.

Every record carries its source: the task, the ids of the triples it states, the wording, the seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhtune.errors import DataError
from zhtune.graph.graph import Graph, Triple
from zhtune.graph.ontology import fill
from zhtune.synthesis.reword import reword

LIST_MARK = "、"
_INVERSE_MOST = 3                                           # an inverse answer with more heads than this is no fact but a list


@dataclass(frozen=True)
class Taught:
    """Which heads are taught, and which are kept unknown: to train refusals, and to measure them."""

    heads: list[str]
    unknown_train: list[str]
    unknown_eval: list[str]


def choose_heads(graph: Graph, most: int, seed: int) -> Taught:
    """Split the heads: those taught (all for 0; else a seeded choice), the rest in halves. No name is in two parts."""
    heads = graph.heads
    order = sorted(heads, key=lambda h: (-sum((h, r) in graph.facts for r in graph.ontology.relations), _rank(h, seed)))
    chosen = set(order[:most or len(order)])
    rest = sorted((h for h in heads if h not in chosen and not _is_tail_of(graph, h, chosen)), key=lambda h: _rank(h, seed))
    return Taught([h for h in heads if h in chosen], rest[::2], rest[1::2])


def read_taught(folder: Path, graph: Graph) -> Taught:
    """taught.json of kg-instruct's records.

    Raises:
        DataError: there is none, or its heads are not of this graph.
    """
    path = folder / "taught.json"
    try:
        taught = Taught(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError("is missing or not what kg-instruct writes; give --records of kg-instruct", path) from error
    known = set(graph.heads)
    if strange := [head for head in taught.heads if head not in known]:
        raise DataError(f"teaches {strange[0]!r}, which is no head of the graph; give the graph that the records were made from", path)
    return taught


def records(graph: Graph, taught: Taught, per_fact: int, shares: dict[str, float], seed: int) -> list[dict[str, Any]]:
    """All records, shuffled by the seed.

    Args:
        graph: with its ontology.
        taught: from choose_heads.
        per_fact: one-hop records a fact, each on another wording before one is used again.
        shares: of "inverse", "yes_no", "unanswerable" records, relative to the one-hop ones.
        seed: of all choices.

    Raises:
        DataError: a training wording is one of the held-out wordings.
    """
    refuse_leaks(graph)
    rows = list(_one_hop(graph, taught, per_fact, seed))
    makers = {"inverse": _inverse, "yes_no": _yes_no, "unanswerable": _unanswerable}
    facts = len(rows)
    for task, share in shares.items():
        rows += makers[task](graph, taught, round(share * facts), seed)
    random.Random(f"{seed}:order").shuffle(rows)
    return rows


def refuse_leaks(graph: Graph) -> None:
    """Held-out wordings measure; none may be among the wordings that train."""
    for name, splits in graph.heldout.items():
        asked = set(graph.ontology.relations[name].ask) if name in graph.ontology.relations else set()
        for wording in [w for wordings in splits.values() for w in wordings]:
            if wording in asked:
                raise DataError(f"the held-out wording {wording!r} of {name} is also a training wording")


def record(task: str, question: str, answer: str, triples: list[Triple], seed: int, **more: Any) -> dict[str, Any]:
    """One record with its provenance."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "source": {"producer": "template", "task": task, "triples": [t.id for t in triples], "seed": seed, **more}}


def answer(graph: Graph, head: str, relation: str) -> str:
    """The answer form of a fact, filled."""
    return fill(graph.ontology.relations[relation].say, h=head, ts=LIST_MARK.join(graph.tails(head, relation)))


def _one_hop(graph: Graph, taught: Taught, per_fact: int, seed: int) -> Iterator[dict[str, Any]]:
    heads = set(taught.heads)
    for (head, name), triples in graph.facts.items():
        if head not in heads:
            continue
        relation = graph.ontology.relations[name]
        generator = random.Random(f"{seed}:one_hop:{head}:{name}")
        wordings = rounds(len(relation.ask), per_fact, generator)
        for index in wordings:
            question = reword(relation.ask[index], head, relation, graph.ontology, generator)
            yield record("one_hop", question, answer(graph, head, name), triples, seed, wording=index)


def _inverse(graph: Graph, taught: Taught, wanted: int, seed: int) -> list[dict[str, Any]]:
    heads, generator = set(taught.heads), random.Random(f"{seed}:inverse")
    known = {key: [t for t in triples if t.head in heads] for key, triples in graph.inverse.items()}
    keys = [k for k, triples in known.items() if 1 <= len(triples) <= _INVERSE_MOST and graph.ontology.relations[k[1]].ask_inverse]
    rows = []
    for index in rounds(len(keys), wanted, generator):
        tail, name = keys[index]
        relation = graph.ontology.relations[name]
        said = fill(relation.say_inverse, t=tail, hs=LIST_MARK.join(t.head for t in known[tail, name]))
        rows.append(record("inverse", fill(generator.choice(relation.ask_inverse), t=tail), said, known[tail, name], seed))
    return rows


def _yes_no(graph: Graph, taught: Taught, wanted: int, seed: int) -> list[dict[str, Any]]:
    heads, generator = set(taught.heads), random.Random(f"{seed}:yes_no")
    keys = [k for k in graph.facts if k[0] in heads and graph.ontology.relations[k[1]].ask_confirm]
    rows = []
    for number, index in enumerate(rounds(len(keys), wanted, generator)):
        head, name = keys[index]
        relation, truth = graph.ontology.relations[name], graph.tails(head, name)
        others = [n for n in graph.of_type(graph.facts[head, name][0].tail_type) if n not in graph.about(head) and n != head]
        true = number % 2 == 0 or not others                # true and corrupted statements in equal number
        stated = generator.choice(truth if true else others)
        question = fill(generator.choice(relation.ask_confirm), h=head, t=stated)
        form = fill(relation.say_yes if true else relation.say_no, h=head, ts=LIST_MARK.join(truth))
        rows.append(record("yes_no", question, form, graph.facts[head, name], seed, true=true, stated=stated))
    return rows


def _unanswerable(graph: Graph, taught: Taught, wanted: int, seed: int) -> list[dict[str, Any]]:
    if not graph.ontology.refuse or not taught.unknown_train:
        return []
    generator = random.Random(f"{seed}:unanswerable")
    keys = [(h, r) for h in taught.unknown_train for r in graph.ontology.relations if (h, r) in graph.facts]
    rows = []
    for index in rounds(len(keys), wanted, generator):
        head, name = keys[index]
        relation = graph.ontology.relations[name]
        question = reword(generator.choice(relation.ask), head, relation, graph.ontology, generator)
        rows.append(record("unanswerable", question, fill(generator.choice(graph.ontology.refuse), h=head), [], seed))
    return rows


def rounds(size: int, wanted: int, generator: random.Random) -> list[int]:
    """`wanted` indices below `size`: every one once, shuffled, before any comes again."""
    indices: list[int] = []
    while size and len(indices) < wanted:
        indices += generator.sample(range(size), size)
    return indices[:wanted]


def _rank(name: str, seed: int) -> float:
    return random.Random(f"{seed}:head:{name}").random()


def _is_tail_of(graph: Graph, name: str, heads: set[str]) -> bool:
    """Whether a taught answer mentions the name: then it would not be unknown."""
    return any(t.head in heads for r in graph.ontology.relations for t in graph.inverse.get((name, r), []))
