"""Random rewording of questions: short label queries, fillers, dropped characters. Wordings, not facts, are what fails.

Seeded by the record's own key, never by call order.
"""

from __future__ import annotations

import random

from zhtune.graph.ontology import Ontology, Relation, fill

_LABEL_SHARE, _FILLER_SHARE, _DROP_SHARE, _DROP_MOST = 0.25, 0.5, 0.4, 0.2
_LABEL_FORMS = ("{h} {l}", "{h}{l}", "{h}的{l}", "{l} {h}", "{h}，{l}", "{h}的{l}？", "{l}：{h}", "{h} {l}？")


def reword(wording: str, head: str, relation: Relation, ontology: Ontology, generator: random.Random) -> str:
    """One question about `head`, made from a wording with {h}.

    With a chance of 25 % a keyword query ("感冒 症状"); otherwise the wording with fillers (50 %) and with up to a fifth
    of the characters outside the head left out (40 %).
    """
    if generator.random() < _LABEL_SHARE:
        label = generator.choice(relation.labels)
        return fill(generator.choice(_LABEL_FORMS), h=head, l=label)
    if generator.random() < _DROP_SHARE:
        wording = _thin(wording, generator.uniform(0, _DROP_MOST), generator)
    question = fill(wording, h=head)
    if generator.random() < _FILLER_SHARE:
        before, after = (generator.choice(texts) if texts and generator.random() < 0.6 else ""
                         for texts in (ontology.filler_before, ontology.filler_after))
        question = before + question + after
    return question


def _thin(wording: str, share: float, generator: random.Random) -> str:
    """The wording with each character outside {h} left out with the chance `share`."""
    return "{h}".join("".join(c for c in part if generator.random() >= share) for part in wording.split("{h}"))
