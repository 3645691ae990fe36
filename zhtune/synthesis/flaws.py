"""Preference pairs with other flaws than a swapped entity; each is false by the graph, and none shows by its form.

What would show is balanced: an omission is shorter, an over-claim longer, and there are as many of both; refusals are
rejected for known heads as often as they are chosen for unknown ones; yes is as often right as no.

    omission        one of several tails is left out      | over_claim     a false tail is added
    polarity        yes for no, no for yes                | count          the number of tails is wrong by one
    relation_swap   the tails of an excluding relation    | false_refusal  a refusal of what is known, and the reverse
    missing_disclaimer   too sure of itself in place of what the ontology says must be said
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from zhtune.graph.graph import Facts, Graph, Triple
from zhtune.graph.ontology import fill
from zhtune.synthesis.instruct import LIST_MARK, answer, ranked
from zhtune.synthesis.preferences import asked, pair
from zhtune.synthesis.safety import Safety
from zhtune.synthesis.tasks import Wordings

_TURNS = 4                                                  # facts looked at for one pair before fewer pairs are given
Rows = Iterator[dict[str, Any]]


def flawed_pairs(graph: Graph, facts: Facts, unknown: set[str], flaws: tuple[str, ...], wanted: int, seed: int,
                 wordings: Wordings) -> list[dict[str, Any]]:
    """`wanted` pairs of each flaw, fewer where the graph gives no more.

    Args:
        facts: that are used.
        unknown: heads that must stay unknown: no answer names them, refusals of them are right.
        flaws: of FLAWS.
        wanted: pairs of each.
        seed: of all choices.
        wordings: of zhtune.synthesis.tasks.read_wordings.
    """
    rows = []
    for flaw in flaws:
        made = FLAWS[flaw](graph, facts, unknown, wanted, f"{seed}:{flaw}", wordings)
        rows += [{**row, "source": {**row["source"], "flaw": flaw, "seed": seed}} for row in islice(made, wanted)]
    return rows


def _listed(change: Callable[[Graph, Facts, str, str, set[str], random.Random], list[str] | None]) -> Callable[..., Rows]:
    """Pairs of one-hop answers whose list `change` makes wrong; it gives None where it cannot."""
    def make(graph: Graph, facts: Facts, unknown: set[str], wanted: int, seed: str, wordings: Wordings) -> Rows:
        for (head, name), draw in ranked(facts, max(wanted, len(facts)) * _TURNS, seed):
            wrong = change(graph, facts, head, name, unknown, draw)
            if wrong:
                said = fill(graph.ontology.relations[name].say, h=head, ts=LIST_MARK.join(wrong))
                yield _pair(asked(graph, head, name, draw)[0], answer(graph, head, name), said, graph.facts[head, name])
    return make


def _omit(graph: Graph, facts: Facts, head: str, name: str, unknown: set[str], draw: random.Random) -> list[str] | None:
    tails = graph.tails(head, name)
    advice = "".join(rule.sentence(graph.facts[head, name]) for rule in graph.ontology.safety)
    free = [t for t in tails if t not in advice]            # what safety names beside the answer is not left out of it
    left_out = draw.choice(free) if free else ""
    return [t for t in tails if t != left_out] if len(tails) > 1 and left_out else None


def _add(graph: Graph, facts: Facts, head: str, name: str, unknown: set[str], draw: random.Random) -> list[str] | None:
    tails = graph.tails(head, name)
    false = graph.false_names(head, graph.facts[head, name][0].tail_type, unknown)
    if not false or len(tails) < 2:                         # facts of one tail are never omitted from, so never added to
        return None
    at = draw.randrange(len(tails) + 1)
    return [*tails[:at], draw.choice(false), *tails[at:]]


def _swap_relation(graph: Graph, facts: Facts, head: str, name: str, unknown: set[str], draw: random.Random) -> list[str] | None:
    """Tails of a relation that excludes this one: what to avoid, given as what to eat."""
    others = [b if a == name else a for a, b in graph.ontology.contradictions if name in (a, b)]
    fit = [other for other in others if (head, other) in facts]
    return graph.tails(head, draw.choice(fit)) if fit else None


def _polarity(graph: Graph, facts: Facts, unknown: set[str], wanted: int, seed: str, wordings: Wordings) -> Rows:
    keys = [key for key in facts if graph.ontology.relations[key[1]].ask_confirm]
    for (head, name), draw in ranked(keys, wanted * _TURNS, seed):
        relation, fact, truth = graph.ontology.relations[name], graph.facts[head, name], graph.tails(head, name)
        false = graph.false_names(head, fact[0].tail_type, unknown)
        if not false:
            continue
        yes, no = (fill(form, h=head, ts=LIST_MARK.join(truth)) for form in (relation.say_yes, relation.say_no))
        for stated, right, wrong in ((draw.choice(truth), yes, no), (draw.choice(false), no, yes)):
            yield _pair(fill(draw.choice(relation.ask_confirm), h=head, t=stated), right, wrong, fact)


def _count(graph: Graph, facts: Facts, unknown: set[str], wanted: int, seed: str, wordings: Wordings) -> Rows:
    keys = [key for key, fact in facts.items() if 2 <= len(fact) <= 8]
    for (head, name), draw in ranked(keys, wanted * _TURNS, seed):
        tails, label = graph.tails(head, name), graph.ontology.relations[name].labels[0]
        say = draw.choice(wordings["counting"]["say"])
        right, wrong = (fill(say, h=head, l=label, n=str(n), ts=LIST_MARK.join(tails)) for n in (len(tails), len(tails) + draw.choice((-1, 1))))
        yield _pair(fill(draw.choice(wordings["counting"]["ask"]), h=head, l=label), right, wrong, graph.facts[head, name])


def _refusal(graph: Graph, facts: Facts, unknown: set[str], wanted: int, seed: str, wordings: Wordings) -> Rows:
    """A known head refused, then an unknown one answered with tails of another: one of each in turn."""
    known = ranked(facts, wanted, f"{seed}:known")
    others = ranked([(h, r) for h in sorted(unknown) for r in graph.ontology.relations if graph.asks(h, r)], wanted, f"{seed}:unknown")
    if not graph.ontology.refuse:
        return
    for ((head, name), draw), ((stranger, other), invent) in zip(known, others, strict=False):
        refusal = fill(draw.choice(graph.ontology.refuse), h=head)
        yield _pair(asked(graph, head, name, draw)[0], answer(graph, head, name), refusal, graph.facts[head, name])
        donors = [h for h, name in sorted(facts) if name == other and not set(graph.tails(h, other)) & graph.about(stranger)]
        if donors:
            text, *_ = asked(graph, stranger, other, invent)
            made_up = fill(graph.ontology.relations[other].say, h=stranger, ts=LIST_MARK.join(graph.tails(invent.choice(donors), other)))
            yield _pair(text, fill(invent.choice(graph.ontology.refuse), h=stranger), made_up, [])


def _missing_disclaimer(graph: Graph, facts: Facts, unknown: set[str], wanted: int, seed: str, wordings: Wordings) -> Rows:
    safety = Safety(graph)
    said = {key: safety.required([t.id for t in fact]) for key, fact in facts.items()}
    for (head, name), draw in ranked([key for key, sentences in said.items() if sentences], wanted, seed):
        (text, *_), right, instead = asked(graph, head, name, draw), answer(graph, head, name), wordings["missing_disclaimer"]["instead"]
        sure = draw.sample(instead, min(len(instead), len(said[head, name])))       # as many sentences: their number tells nothing
        yield _pair(text, right + "".join(said[head, name]), right + "".join(sure), graph.facts[head, name])


def _pair(text: str, chosen: str, rejected: str, triples: list[Triple]) -> dict[str, Any]:
    return pair(text, chosen, rejected, producer="template", triples=[t.id for t in triples])


FLAWS: dict[str, Callable[..., Rows]] = {
    "omission": _listed(_omit), "over_claim": _listed(_add), "relation_swap": _listed(_swap_relation), "polarity": _polarity,
    "count": _count, "false_refusal": _refusal, "missing_disclaimer": _missing_disclaimer,
}
"""Flaw -> how its pairs are made: (graph, facts, unknown heads, pairs wanted, seed, wordings)."""
