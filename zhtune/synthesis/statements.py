"""Does an answer make exactly these statements? For answers about several facts, and about the values of attributes.

Where verify.py knows one question and its tails, here each tail is judged by the head or heads named before it: lists of
candidates, summaries, comparisons. The values of attributes are found as texts, whatever blanks or widths they are written
with; any other number beside them is flagged. Knows no task.
"""

from __future__ import annotations

import re
from itertools import pairwise

from zhtune.graph.graph import Graph, Triple
from zhtune.synthesis.link import Linker, Mention, stands_alone
from zhtune.synthesis.verify import CONTRADICTED, SUPPORTED, UNSUPPORTED, Claim, Verification, avoids, polarities, quantities, unknown_items

_ANY_NUMBER = re.compile(r"\d+(?:\.\d+)?\s*[%％]?")
_DASH = "-~～–—―至到"
_NARROW = {0xFF10 + i: str(i) for i in range(10)} | {0xFF05: "%", 0xFF0E: "."}


def verify_statements(graph: Graph, linker: Linker, answer: str, statements: list[Triple]) -> Verification:
    """Check an answer that should state some triples or values and nothing else of their heads.

    Args:
        graph: that they are of.
        linker: of the graph's names.
        answer: its text.
        statements: triples of the graph, or values of attributes (`Graph.values`).
    """
    answer = answer.translate(_NARROW)
    ontology, true = graph.ontology, {(t.head, t.tail): t for t in statements}
    values = [t.tail for t in statements if t.relation not in ontology.relations]
    mentions = _with_values(linker.mentions(answer), answer, values)
    forms = {name: form.say for forms in (ontology.relations, ontology.attributes) for name, form in forms.items()}
    negative = {t.relation: avoids(forms.get(t.relation, "")) for t in statements}
    states = {way: polarities(answer, mentions, way) for way in {*negative.values()}}
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
    labels = tuple(label for name in negative if name in ontology.relations for label in ontology.relations[name].labels)
    claims += unknown_items(answer, mentions, labels)
    claims += quantities(answer, mentions, -1, set(), *([_ANY_NUMBER] if values else []))
    return Verification(tuple(sorted(claims, key=lambda c: (c.start, c.end))), tuple(t.tail for t in statements if t not in stated))


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
        for match in _pattern(value).finditer(answer):
            alone = len(value) > 1 or stands_alone(answer, match.start(), match.end())
            if alone and not any(m.start < match.end() and match.start() < m.end for m in placed):
                placed.append(Mention(match.start(), match.end(), value))
    free = [m for m in mentions if not any(v.start < m.end and m.start < v.end for v in placed)]
    return sorted([*placed, *free], key=lambda m: m.start)


def _pattern(value: str) -> re.Pattern[str]:
    """A value in any writing of its blanks and dashes, not as a part of a longer number."""
    characters = re.sub(r"\s+", "", value.translate(_NARROW))
    parts = [f"[{_DASH}]" if c in _DASH else re.escape(c) for c in characters]
    dashes = [i for i, (a, b) in enumerate(pairwise(characters)) if a in _DASH and b in _DASH]      # -- is one dash
    text = r"\s*".join(part for i, part in enumerate(parts) if i not in dashes)
    return re.compile((r"(?<![\d.])" if characters[:1].isdigit() else "") + text + (r"(?![\d.])" if characters[-1:].isdigit() else ""))
