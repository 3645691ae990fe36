"""Random rewording of questions: short label queries, fillers, dropped characters. Wordings, not facts, are what fails.

Seeded by the record's own key, never by call order. Never drops a negation: it would ask the opposite.
"""

from __future__ import annotations

import random

from zhtune.graph.ontology import Ontology, Relation, fill

# With many wordings, more keyword queries and fillers leave fewer records to them: at .4 and .8 held-out accuracy was
# .874 near and .602 far, at these shares .912 and .672 (one run each, docs/measurements).
_LABEL_SHARE, _FILLER_SHARE, _DROP_SHARE, _DROP_MOST = 0.25, 0.5, 0.4, 0.2
_LABEL_FORMS = ("{h} {l}", "{h}{l}", "{h}的{l}", "{l} {h}", "{h}，{l}", "{h}的{l}？", "{l}：{h}", "{h} {l}？")
_NEGATIONS = frozenset("不没无非未否别莫勿忌禁戒免避防少")


def reword(wording: str, head: str, relation: Relation, ontology: Ontology, generator: random.Random) -> tuple[str, str]:
    """One question about `head`, made from a wording with {h}, and its form: "wording" or "keywords".

    With a chance of 25 % a keyword query ("感冒 症状") in place of the wording; otherwise the wording with a filler before
    it, after it or both (50 %), and with up to a fifth of the characters outside the head left out (40 %).
    """
    if generator.random() < _LABEL_SHARE:
        return fill(generator.choice(_LABEL_FORMS), h=head, l=generator.choice(relation.labels)), "keywords"
    if generator.random() < _DROP_SHARE:
        wording = _thin(wording, generator.uniform(0, _DROP_MOST), generator)
    question = fill(wording, h=head)
    if generator.random() < _FILLER_SHARE:
        sides = generator.choice(("before", "after", "both"))
        if ontology.filler_before and sides != "after":
            question = generator.choice(ontology.filler_before) + question
        if ontology.filler_after and sides != "before":
            question += generator.choice(ontology.filler_after)
    return question, "wording"


def _thin(wording: str, share: float, generator: random.Random) -> str:
    """The wording with each character outside {h}, but no negation, left out with the chance `share`."""
    draw = generator.random
    return "{h}".join(["".join([c for c in part if c in _NEGATIONS or draw() >= share]) for part in wording.split("{h}")])
