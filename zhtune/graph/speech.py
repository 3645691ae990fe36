"""The parts of an ontology that say how a graph's answers are given: what must be said with them, and how one is consulted.

    safety:
      disclaimers: [{relations: [用药], types: [药物], say: 以上内容仅供参考，用药请遵医嘱。}]     # say: the ontology's disclaimer if left out
      red_flags:   [{names: [胸痛], types: [急症], say: '出现{ts}时请立即就医。'}]                  # {ts}, if there, is what was touched
    consult: {features: [症状], advice: [科室], ask: ['我{ts}，可能是什么病？']}
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhtune.errors import DataError
from zhtune.graph.strict import check_keys, declared, placeholders, strings, text

_TOUCHING = ("relations", "types", "names")


@dataclass(frozen=True)
class Rule:
    """A sentence that an answer must hold if it states something of these relations, types or names."""

    say: str
    relations: frozenset[str]
    types: frozenset[str]
    names: frozenset[str]

    def sentence(self, statements: Iterable[Any]) -> str:
        """The sentence for statements (triples); empty where they touch nothing of the rule."""
        touched: dict[str, None] = {}
        for t in statements:
            if t.relation in self.relations:
                touched[t.tail] = None
            if self.types or self.names:
                for name, kind in ((t.head, t.head_type), (t.tail, t.tail_type)):
                    if name in self.names or kind in self.types:
                        touched[name] = None
        return self.say.replace("{ts}", "、".join(touched)) if touched else ""


@dataclass(frozen=True)
class Consult:
    """How somebody describes a head without its name."""

    features: tuple[str, ...] = ()
    """Relations that describe; empty: every relation that can be asked from its tail"""
    advice: tuple[str, ...] = ()
    """Relations that are told of the best candidates"""
    ask: tuple[str, ...] = ()
    """Wordings with {ts}, the features; empty: generic ones"""


def read_safety(raw: Any, disclaimer: str, relations: Iterable[str], types: Iterable[str], path: Path) -> tuple[Rule, ...]:
    """The section `safety`, strictly: red flags first, then disclaimers.

    Raises:
        DataError: an undeclared relation or type, a rule that nothing touches or that says nothing.
    """
    raw = check_keys(raw or {}, {"disclaimers", "red_flags"}, set(), "safety", path)
    rules = []
    for part, default in (("red_flags", ""), ("disclaimers", disclaimer)):
        if not isinstance(raw.get(part) or [], list):
            raise DataError(f"safety.{part} must be a list of rules", path)
        for number, entry in enumerate(raw.get(part) or [], 1):
            where = f"safety.{part}, rule {number}"
            entry = check_keys(entry, {"say", *_TOUCHING}, set(), where, path)
            touching = {key: strings(entry.get(key), f"{where}: {key}", path) for key in _TOUCHING}
            declared(touching["relations"], relations, where, path)
            declared(touching["types"], types, where, path)
            say = text(entry.get("say"), f"{where}: say", path) or default
            if not say or not any(touching.values()):
                raise DataError(f"{where} needs a text `say` and at least one of {', '.join(_TOUCHING)}", path)
            if strange := set(re.findall(r"\{(\w+)\}", say)) - {"ts"}:
                raise DataError(f"{where}: {say!r} may hold {{ts}} and no {{{min(strange)}}}", path)
            rules.append(Rule(say, **{key: frozenset(names) for key, names in touching.items()}))
    return tuple(rules)


def read_consult(raw: Any, relations: Iterable[str], path: Path) -> Consult:
    """The section `consult`, strictly."""
    raw = check_keys(raw or {}, {"features", "advice", "ask"}, set(), "consult", path)
    made = Consult(*(strings(raw.get(key), f"consult.{key}", path) for key in ("features", "advice", "ask")))
    declared((*made.features, *made.advice), relations, "consult", path)
    for wording in made.ask:
        placeholders(wording, {"ts"}, "consult.ask", path)
    return made
