"""Graph -> instruction records by templates: one-hop, inverse, yes/no, unanswerable. No model, no network.

Every record carries its source: the task, the ids of the triples it states, the wording, the seed.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from zhtune.errors import DataError
from zhtune.graph.graph import Facts, Graph, Triple
from zhtune.graph.ontology import Relation, fill
from zhtune.synthesis.reword import reword

LIST_MARK = "、"
_INVERSE_MOST = 3                                           # an inverse answer with more heads than this is no fact but a list
_DRAWS = 16                                                 # rewordings tried before the plain wording is taken
_COMPOSED = 60
_CHUNK = 10000                                              # one-hop records of a job
Job = Callable[[], list[dict[str, Any]]]


@dataclass(frozen=True)
class Taught:
    """Which heads are taught, and which are kept unknown: to train refusals, and to measure them."""

    heads: list[str]
    unknown_train: list[str] = field(default_factory=list)
    unknown_eval: list[str] = field(default_factory=list)
    heldout_entities: list[str] = field(default_factory=list)
    """Heads that no training text may name"""
    heldout_facts: list[list[str]] = field(default_factory=list)
    """[head, relation] of taught heads of which no training record may state all"""

    def facts(self, graph: Graph) -> Facts:
        """The facts (head, relation) that are taught, in the graph's order."""
        heads, heldout = set(self.heads), {(head, relation) for head, relation in self.heldout_facts}
        return {key: fact for key, fact in graph.facts.items() if key[0] in heads and key not in heldout}


def choose_heads(graph: Graph, most: int, seed: int) -> Taught:
    """Split the heads: those taught (all for 0; else a seeded choice), the rest in halves. No name is in two parts.

    Where none is left, names that no graph entity has are composed from the halves of two heads, to be refused.
    """
    heads = graph.heads
    facts = Counter(head for head, relation in graph.facts if relation in graph.ontology.relations)
    order = sorted(heads, key=lambda h: (-facts[h], _rank(h, seed)))
    chosen = set(order[:most or len(order)])
    rest = [h for h in heads if h not in chosen and not _is_tail_of(graph, h, chosen)] or _composed(graph, order)
    rest = sorted(rest, key=lambda h: _rank(h, seed))
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


def record_jobs(graph: Graph, taught: Taught, per_fact: int, shares: dict[str, float], seed: int, noise: bool = True) -> list[Job]:
    """What makes the records, each a part of them: of the one-hop ones in the graph's order, then of each share.

    Args:
        graph: with its ontology.
        taught: from choose_heads.
        per_fact: one-hop records a fact, each on another wording before one is used again.
        shares: of "inverse", "yes_no", "unanswerable" records, relative to the one-hop ones.
        seed: of all choices.
        noise: whether questions are reworded at random (keyword queries, fillers, dropped characters).

    Raises:
        DataError: a training wording is one of the held-out wordings.
    """
    refuse_leaks(graph)
    heads, size = set(taught.heads), max(1, _CHUNK // per_fact)
    facts = [key for key in graph.facts if key[0] in heads]
    jobs: list[Job] = [partial(_one_hop, graph, facts[start:start + size], per_fact, seed, noise) for start in range(0, len(facts), size)]
    return jobs + [partial(_share, graph, taught, task, round(share * len(facts) * per_fact), seed, noise) for task, share in shares.items()]


def rows_of(jobs: list[Job]) -> list[dict[str, Any]]:
    """The records of all jobs."""
    return [row for job in jobs for row in job()]


def shuffle(order: list[int], seed: int) -> list[int]:
    """The places of records, shuffled where they stand."""
    random.Random(f"{seed}:order").shuffle(order)
    return order


def refuse_leaks(graph: Graph) -> None:
    """Held-out wordings measure; none may be among the wordings that train."""
    for name, splits in graph.heldout.items():
        asked = set(graph.ontology.relations[name].ask) if name in graph.ontology.relations else set()
        for wording in [w for wordings in splits.values() for w in wordings]:
            if wording in asked:
                raise DataError(f"the held-out wording {wording!r} of {name} is also a training wording")


def record(task: str, question: str, answer: str, triples: list[Triple], seed: int, **more: Any) -> dict[str, Any]:
    """One record with its provenance: `triples` are what it states, values of attributes among them."""
    return _record(task, question, answer, [t.id for t in triples], seed, **more)


def _record(task: str, question: str, answer: str, ids: list[str], seed: int, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "source": {"producer": "template", "task": task, "triples": ids, "seed": seed, **more}}


def answer(graph: Graph, head: str, relation: str) -> str:
    """The answer form of a fact, filled."""
    return fill(graph.ontology.relations[relation].say, h=head, ts=LIST_MARK.join(graph.tails(head, relation)))


def _one_hop(graph: Graph, facts: list[tuple[str, str]], per_fact: int, seed: int, noise: bool) -> list[dict[str, Any]]:
    """The records of some facts, each fact by its own key: what other facts there are changes nothing. Those of one share its answer and ids."""
    made = []
    for head, name in facts:
        key, seen, relation = f"{seed}:one_hop:{head}:{name}", set(), graph.ontology.relations[name]
        said, ids = answer(graph, head, name), [t.id for t in graph.facts[head, name]]
        for number, index in enumerate(rounds(len(relation.ask), per_fact, random.Random(key))):
            asked, form = question(graph, head, relation, index, f"{key}:{number}", seen, noise)
            seen.add(asked)
            made.append(_record("one_hop", asked, said, ids, seed, wording=index, form=form))
    return made


def question(graph: Graph, head: str, relation: Relation, index: int, key: str, seen: set[str], noise: bool = True) -> tuple[str, str]:
    """A reworded question, drawn again while it repeats one of `seen` or has become a held-out wording; without noise the wording."""
    if noise:
        generator, held = random.Random(key), graph.heldout_wordings[relation.name]
        for _ in range(_DRAWS):
            text, form = reword(relation.ask[index], head, relation, graph.ontology, generator)
            if text not in seen and text.replace(head, "{h}") not in held:
                return text, form
    return fill(relation.ask[index], h=head), "wording"     # a training wording is no held-out one: refuse_leaks


def _share(graph: Graph, taught: Taught, task: str, wanted: int, seed: int, noise: bool) -> list[dict[str, Any]]:
    maker = {"inverse": _inverse, "yes_no": _yes_no, "unanswerable": _unanswerable}[task]
    return [*islice(maker(graph, taught, wanted, seed, noise), wanted)]


def _inverse(graph: Graph, taught: Taught, wanted: int, seed: int, noise: bool) -> Iterator[dict[str, Any]]:
    heads = set(taught.heads)
    known = {key: [t for t in triples if t.head in heads] for key, triples in graph.inverse.items()}
    keys = [k for k, triples in known.items() if 1 <= len(triples) <= _INVERSE_MOST and graph.ontology.relations[k[1]].ask_inverse]
    for (tail, name), generator in ranked(keys, wanted, f"{seed}:inverse"):
        relation = graph.ontology.relations[name]
        said = fill(relation.say_inverse, t=tail, hs=LIST_MARK.join(t.head for t in known[tail, name]))
        yield record("inverse", fill(generator.choice(relation.ask_inverse), t=tail), said, known[tail, name], seed)


def _yes_no(graph: Graph, taught: Taught, wanted: int, seed: int, noise: bool) -> Iterator[dict[str, Any]]:
    """A true and a corrupted statement of one fact after the other."""
    heads, unknown = set(taught.heads), {*taught.unknown_train, *taught.unknown_eval}
    keys = [k for k in graph.facts if k[0] in heads and graph.ontology.relations[k[1]].ask_confirm]
    for (head, name), generator in ranked(keys, wanted, f"{seed}:yes_no"):
        relation, truth, fact = graph.ontology.relations[name], graph.tails(head, name), graph.facts[head, name]
        false = graph.false_names(head, fact[0].tail_type, unknown)
        if not false:                                       # else "yes" would be the likelier answer
            continue
        for true, stated, form in ((True, generator.choice(truth), relation.say_yes), (False, generator.choice(false), relation.say_no)):
            asked = fill(generator.choice(relation.ask_confirm), h=head, t=stated)
            yield record("yes_no", asked, fill(form, h=head, ts=LIST_MARK.join(truth)), fact, seed, true=true, stated=stated)


def _unanswerable(graph: Graph, taught: Taught, wanted: int, seed: int, noise: bool) -> Iterator[dict[str, Any]]:
    keys = [(h, r) for h in taught.unknown_train for r in graph.ontology.relations if graph.asks(h, r)]
    for (head, name), generator in ranked(keys if graph.ontology.refuse else [], wanted, f"{seed}:unanswerable"):
        relation = graph.ontology.relations[name]
        asked, _ = question(graph, head, relation, generator.randrange(len(relation.ask)), str(generator.random()), set(), noise)
        yield record("unanswerable", asked, fill(generator.choice(graph.ontology.refuse), h=head), [], seed)


def ranked(keys: list[tuple[str, str]], most: int, seed: str) -> Iterator[tuple[tuple[str, str], random.Random]]:
    """`most` keys by the hash of each, all once before any comes again, each time with a generator of its own."""
    order = sorted(keys, key=lambda key: (random.Random(f"{seed}:{key[0]}:{key[1]}").random(), key))
    for index in range(most if order else 0):
        head, name = order[index % len(order)]
        yield (head, name), random.Random(f"{seed}:{head}:{name}:{index // len(order)}")


def rounds(size: int, wanted: int, generator: random.Random) -> list[int]:
    """`wanted` indices below `size`: every one once, shuffled, before any comes again."""
    indices: list[int] = []
    while size and len(indices) < wanted:
        indices += generator.sample(range(size), size)
    return indices[:wanted]


def _rank(name: str, seed: int) -> float:
    return random.Random(f"{seed}:head:{name}").random()


def _composed(graph: Graph, heads: list[str]) -> list[str]:
    """Names of nothing: the first half of one head and the second of another of its type; none is part of a real name."""
    made: dict[str, None] = {}
    for left, right in pairwise(heads):
        name = left[:(len(left) + 1) // 2] + right[len(right) // 2:]
        if graph.types[left] == graph.types[right] and not graph.overlapping(name):
            made[name] = None
        if len(made) == _COMPOSED:
            break
    return list(made)


def _is_tail_of(graph: Graph, name: str, heads: set[str]) -> bool:
    """Whether a taught answer mentions the name: then it would not be unknown."""
    return any(t.head in heads for r in graph.ontology.relations for t in graph.inverse.get((name, r), []))
