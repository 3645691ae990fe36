"""Does an answer make exactly these statements? For answers about several facts, and about the values of attributes.

Where verify.py knows one question and its tails, here each tail is judged by the head or heads named before it: lists of
candidates, summaries, comparisons. The values of attributes are found as texts, whatever blanks or widths they are written
with; any other number beside them is flagged. Knows no task.
"""

from __future__ import annotations

import re

from zhtune.graph.graph import Graph, Triple
from zhtune.synthesis.link import Linker, Mention, stands_alone
from zhtune.synthesis.verify import CONTRADICTED, NARROW, SUPPORTED, UNSUPPORTED, Claim, Verification, avoids, read, shape, verification

_ANY_NUMBER = re.compile(r"\d+(?:\.\d+)?\s*[%％]?")
_DASH = "-~～–—―至到"
_WIDE = frozenset(map(chr, NARROW))


def verify_statements(graph: Graph, linker: Linker, answer: str, statements: list[Triple]) -> Verification:
    """Check an answer that should state some triples or values and nothing else of their heads.

    Args:
        graph: that they are of.
        linker: of the graph's names.
        answer: its text.
        statements: triples of the graph, or values of attributes (`Graph.values`).
    """
    answer = answer if _WIDE.isdisjoint(answer) else answer.translate(NARROW)
    ontology, true = graph.ontology, {(t.head, t.tail): t for t in statements}
    values = [t.tail for t in statements if t.relation not in ontology.relations]
    alone = {t.head for t in statements if t.head not in graph.types}       # it has values and no triples: no linker knows it
    mentions = _with_values(linker.mentions(answer), answer, [*values, *alone])
    forms = {t.relation: ontology.attributes.get(t.relation) or ontology.relations.get(t.relation) for t in statements}
    negative = {name: said is not None and avoids(said.say) for name, said in forms.items()}
    labels = tuple(label for name in negative if name in ontology.relations for label in ontology.relations[name].labels)
    form = shape(answer, mentions)
    reading = read(form, labels, -1, frozenset(), *([_ANY_NUMBER] if values else []))
    states = [dict(zip(mentions, states, strict=True)) for states in reading.states]
    claims, stated = [], set()
    for mention, focus in _focused(mentions, {t.head for t in statements}, true):
        found = [true.get((head, mention.name)) for head in focus]
        verdict, reason = SUPPORTED, ""
        if not found or None in found:
            of_head = any(mention.name in graph.about(head) for head in focus)
            verdict, reason = (UNSUPPORTED, "other_fact") if of_head else (CONTRADICTED, "not_in_graph")
        elif any(states[negative[t.relation]][mention] != negative[t.relation] for t in found):
            verdict, reason = CONTRADICTED, "polarity"
        else:
            stated.update(found)
        claims.append(Claim(mention.start, mention.end, answer[mention.start:mention.end], verdict, reason))
    return verification(answer, form, mentions, claims, reading, [t.tail for t in statements if t not in stated])


def _focused(mentions: list[Mention], heads: set[str], true: dict[tuple[str, str], Triple]) -> list[tuple[Mention, list[str]]]:
    """Mentions of tails with the heads that they are said of: the last named, together with those named right before it."""
    found: list[tuple[Mention, list[str]]] = []
    focus: list[str] = [*heads] if len(heads) == 1 else []
    listing = False
    for mention in mentions:
        if mention.name in heads and not (focus and all((head, mention.name) in true for head in focus)):
            focus, listing = [*focus, mention.name] if listing else [mention.name], True
        else:
            found.append((mention, focus))
            listing = False
    return found


def _with_values(mentions: list[Mention], answer: str, values: list[str]) -> list[Mention]:
    """Mentions of names and values, the longer values first; names inside a value are part of it."""
    placed: list[Mention] = []
    for value in sorted(set(values), key=lambda v: (-len(v), v)):
        for start, end in _places(value, answer):
            alone = len(value) > 1 or value.isdigit() or stands_alone(answer, start, end)
            if alone and not any(m.start < end and start < m.end for m in placed):
                placed.append(Mention(start, end, value))
    free = [m for m in mentions if not any(v.start < m.end and m.start < v.end for v in placed)]
    return sorted([*placed, *free], key=lambda m: m.start)


def _places(value: str, answer: str) -> list[tuple[int, int]]:
    """Where a value stands: as it is, or else in any writing of its blanks and dashes; never as a part of a longer number."""
    at, places = answer.find(value), []
    while at >= 0:
        places.append((at, at + len(value)))
        at = answer.find(value, at + len(value))
    if not places:
        characters = re.sub(f"[{_DASH}]+", "-", re.sub(r"\s+", "", value.translate(NARROW)))
        pattern = r"\s*".join(f"[{_DASH}]" if c == "-" else re.escape(c) for c in characters)
        places = [match.span() for match in re.finditer(pattern, answer)]
    return [(start, end) for start, end in places if not (_in_number(answer, start - 1, start) or _in_number(answer, end, end - 1))]


def _in_number(answer: str, outside: int, inside: int) -> bool:
    """Whether a place is cut out of a longer number at one of its ends."""
    return 0 <= outside < len(answer) and (answer[outside].isdigit() or answer[outside] == ".") and answer[inside].isdigit()
