"""Harder tasks from a graph, by templates: counting, choice, what is common or different, comparison, two hops, summary, dialogue,
attributes, consultation (consult.py).

Their wordings are generic and stand in prompts/tasks/zh.yaml; what is of a domain comes from the graph and its ontology.
An answer is checked by construction: it is computed from the triples that the record names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from zhtune import assets
from zhtune.config import read_yaml
from zhtune.graph.graph import Graph
from zhtune.graph.ontology import fill
from zhtune.synthesis.consult import consultations
from zhtune.synthesis.instruct import LIST_MARK, Job, Taught, answer, ranked, record

_LETTERS = "ABCD"
_TURNS = 4                                                  # facts looked at for one record before fewer are given
_COUNTED = range(2, 10)                                     # tails of a fact that is worth counting
_ENDED_TWICE = re.compile(r"([。！？])。\Z")                     # a value that is a sentence, in a sentence
Wordings = dict[str, dict[str, list[str]]]
Rows = Iterator[dict[str, Any]]


def read_wordings() -> Wordings:
    """The shipped wordings: task (or flaw) -> form -> texts with placeholders."""
    return read_yaml(assets.root() / "prompts" / "tasks" / "zh.yaml")


def task_jobs(graph: Graph, taught: Taught, counts: dict[str, int], seed: int, wordings: Wordings) -> list[Job]:
    """What makes the records of each task, as many as asked for or as the graph has.

    Args:
        graph: with its ontology.
        taught: only facts of taught heads are used.
        counts: task -> records.
        seed: of all choices.
        wordings: of read_wordings.
    """
    heads = set(taught.heads)
    return [partial(_records, task, graph, heads, wanted, seed, wordings[task]) for task, wanted in counts.items()]


def _records(task: str, graph: Graph, heads: set[str], wanted: int, seed: int, forms: dict[str, list[str]]) -> list[dict[str, Any]]:
    return [*islice(MAKERS[task](graph, heads, wanted, seed, forms), wanted)]


def _counting(graph: Graph, heads: set[str], wanted: int, seed: int, forms: dict[str, list[str]]) -> Rows:
    keys = [key for key, fact in graph.facts.items() if key[0] in heads and len(fact) in _COUNTED]
    for (head, name), draw in ranked(keys, wanted, f"{seed}:counting"):
        tails = graph.tails(head, name)
        said = fill(draw.choice(forms["say"]), h=head, l=_label(graph, name), n=str(len(tails)), ts=LIST_MARK.join(tails))
        yield record("counting", fill(draw.choice(forms["ask"]), h=head, l=_label(graph, name)), said, graph.facts[head, name], seed)


def _choice(task: str, false_ones: int) -> Callable[..., Rows]:
    """One of four: the true one among false ("choice"), or the false one among true ("exclude")."""
    def make(graph: Graph, heads: set[str], wanted: int, seed: int, forms: dict[str, list[str]]) -> Rows:
        true_ones = len(_LETTERS) - false_ones
        keys = [key for key, fact in graph.facts.items() if key[0] in heads and len(fact) >= true_ones]
        for (head, name), draw in ranked(keys, wanted * _TURNS, f"{seed}:{task}"):
            false = graph.false_names(head, graph.facts[head, name][0].tail_type, set())
            if len(false) < false_ones:
                continue
            true, wrong = draw.sample(graph.tails(head, name), true_ones), draw.sample(false, false_ones)
            options = draw.sample([*true, *wrong], len(_LETTERS))
            right = (true if true_ones == 1 else wrong)[0]
            listed = "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=True))
            said = fill(draw.choice(forms["say"]), t=f"{_LETTERS[options.index(right)]}. {right}。")
            yield record(task, fill(draw.choice(forms["ask"]), h=head, l=_label(graph, name), o=listed), said, graph.facts[head, name], seed)
    return make


def _two_heads(task: str, of: Callable[[list[str], list[str]], list[str]]) -> Callable[..., Rows]:
    """Two heads that share a tail under a relation, and what `of` says of their tails."""
    def make(graph: Graph, heads: set[str], wanted: int, seed: int, forms: dict[str, list[str]]) -> Rows:
        shared = sorted(key for key, triples in graph.inverse.items() if sum(t.head in heads for t in triples) >= 2)
        for (tail, name), draw in ranked(shared, wanted * _TURNS, f"{seed}:{task}"):
            a, b = draw.sample(sorted({t.head for t in graph.inverse[tail, name] if t.head in heads}), 2)
            x, y = graph.tails(a, name), graph.tails(b, name)
            found = of(x, y)
            if not found:
                continue
            values = {"a": a, "b": b, "l": _label(graph, name), "ts": LIST_MARK.join(found), "x": LIST_MARK.join(x), "y": LIST_MARK.join(y)}
            yield record(task, fill(draw.choice(forms["ask"]), **values), fill(draw.choice(forms["say"]), **values),
                         [*graph.facts[a, name], *graph.facts[b, name]], seed)
    return make


def _multi_hop(graph: Graph, heads: set[str], wanted: int, seed: int, forms: dict[str, list[str]]) -> Rows:
    """A tail that one head alone has under a relation leads to that head, and on to another of its facts."""
    unique = [key for key, triples in graph.inverse.items() if len({t.head for t in triples}) == 1 and triples[0].head in heads]
    for (tail, name), draw in ranked(unique, wanted * _TURNS, f"{seed}:multi_hop"):
        first = graph.inverse[tail, name][0]
        others = [r for r in graph.ontology.relations if r != name and (first.head, r) in graph.facts]
        if not others:
            continue
        other = draw.choice(others)
        values = {"k": first.head_type, "l": _label(graph, name), "m": _label(graph, other), "t": tail, "h": first.head,
                  "ts": LIST_MARK.join(graph.tails(first.head, other))}
        yield record("multi_hop", fill(draw.choice(forms["ask"]), **values), fill(draw.choice(forms["say"]), **values),
                     [first, *graph.facts[first.head, other]], seed)


def _summary(graph: Graph, heads: set[str], wanted: int, seed: int, forms: dict[str, list[str]]) -> Rows:
    keys = [(head, "") for head in graph.heads if head in heads]
    for (head, _), draw in ranked(keys, wanted, f"{seed}:summary"):
        names = [r for r in graph.ontology.relations if (head, r) in graph.facts]
        said = "".join(answer(graph, head, name) for name in names)
        yield record("summary", fill(draw.choice(forms["ask"]), h=head), said, [t for name in names for t in graph.facts[head, name]], seed)


def _dialogue(graph: Graph, heads: set[str], wanted: int, seed: int, forms: dict[str, list[str]]) -> Rows:
    """Three turns: a question, one that says "it", and the same about another head after a correction."""
    facts = {head: [r for r in graph.ontology.relations if (head, r) in graph.facts] for head in graph.heads if head in heads}
    keys = [(head, "") for head, names in facts.items() if len(names) >= 2]
    for (head, _), draw in ranked(keys, wanted * _TURNS, f"{seed}:dialogue"):
        first, second = draw.sample(facts[head], 2)
        others = [h for h in facts if h != head and second in facts[h]]
        if not others:
            continue
        other = draw.choice(others)
        turns = [(fill(draw.choice(graph.ontology.relations[first].ask), h=head), answer(graph, head, first)),
                 (fill(draw.choice(forms["follow"]), l=_label(graph, second)), answer(graph, head, second)),
                 (fill(draw.choice(forms["correct"]), h=other, l=_label(graph, second)), answer(graph, other, second))]
        made = record("dialogue", *turns[0], [*graph.facts[head, first], *graph.facts[head, second], *graph.facts[other, second]], seed)
        made["messages"] = [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
        yield made


def _attribute(graph: Graph, heads: set[str], wanted: int, seed: int, forms: dict[str, list[str]]) -> Rows:
    """The value of an attribute; the ontology's wordings come first. Entities that are no heads are asked too."""
    untaught = set(graph.heads) - heads
    keys = [key for key in graph.values if key[0] not in untaught]
    for (entity, name), draw in ranked(keys, wanted, f"{seed}:attribute"):
        rule = graph.ontology.attributes.get(name)
        form = "" if rule is None or rule.kind == "text" else "_number"
        asked = fill(draw.choice((rule and rule.ask) or forms[f"ask{form}"]), h=entity, l=name)
        values = LIST_MARK.join(t.tail for t in graph.values[entity, name])
        said = fill((rule and rule.say) or draw.choice(forms[f"say{form}"]), h=entity, l=name, v=values)
        yield record("attribute", asked, _ENDED_TWICE.sub(r"\1", said), graph.values[entity, name], seed)


def _label(graph: Graph, relation: str) -> str:
    return graph.ontology.relations[relation].labels[0]


MAKERS: dict[str, Callable[..., Rows]] = {
    "counting": _counting, "choice": _choice("choice", 3), "exclude": _choice("exclude", 1),
    "common": _two_heads("common", lambda x, y: [t for t in x if t in y]),
    "difference": _two_heads("difference", lambda x, y: [t for t in x if t not in y]),
    "comparison": _two_heads("comparison", lambda x, y: x if set(x) != set(y) else []),
    "multi_hop": _multi_hop, "summary": _summary, "dialogue": _dialogue, "attribute": _attribute, "consultation": consultations,
}
"""Task -> how its records are made: (graph, taught heads, records wanted, seed, wordings)."""

