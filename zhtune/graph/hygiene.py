"""What is wrong with a list of triples: dropped by name, reported, or a contradiction that stops."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TypeVar

from zhtune.errors import DataError
from zhtune.graph.graph import Triple
from zhtune.graph.items import Attributed, Raw
from zhtune.graph.ontology import Ontology

Statement = TypeVar("Statement", Triple, Attributed)


def typed(raws: list[Raw], ontology: Ontology) -> list[tuple[Triple, Raw]]:
    """Triples of declared relations with types from the data or, where it has none, from the ontology.

    Raises:
        DataError: a type that the relation does not allow.
    """
    pairs = []
    for raw in raws:
        relation = ontology.relations[raw.relation]
        head_type, tail_type = raw.head_type or relation.heads[0], raw.tail_type or relation.tails[0]
        for end, kind, allowed in (("head", head_type, relation.heads), ("tail", tail_type, relation.tails)):
            if kind not in allowed:
                raise DataError(f"the {end} of {raw.relation!r} is a {' or '.join(allowed)}, not a {kind}", raw.file, raw.line or None)
        pairs.append((Triple(raw.head, raw.relation, raw.tail, head_type, tail_type, raw.source), raw))
    return pairs


def without_noise(pairs: list[tuple[Statement, Raw | Attributed]], drop: Callable[..., None]) -> list[tuple[Statement, Raw | Attributed]]:
    """Drop duplicates and triples that are self loops, each counted by name.

    Args:
        pairs: triples or attributes, each with what it was read as.
    """
    seen: set[tuple[str, ...]] = set()
    kept = []
    for statement, read in pairs:
        key = statement[:3]
        if isinstance(statement, Triple) and statement.head == statement.tail:
            drop("self_loop", read, triple=list(key))
        elif key in seen:
            drop("duplicate", read, triple=list(key))
        else:
            seen.add(key)
            kept.append((statement, read))
    return kept


def contradictions(pairs: list[tuple[Triple, Raw]], ontology: Ontology) -> list[tuple[str, list[tuple[Triple, Raw]]]]:
    """Findings that cannot both be true: a tail under two excluding relations, several tails where one is allowed."""
    facts: dict[tuple[str, str], list[tuple[Triple, Raw]]] = defaultdict(list)
    for triple, raw in pairs:
        facts[triple.head, triple.relation].append((triple, raw))
    found: list[tuple[str, list[tuple[Triple, Raw]]]] = []
    for (head, name), fact in facts.items():
        if ontology.relations[name].one and len(fact) > 1:
            found.append((f"{head} has {len(fact)} {name}, which allows one: {', '.join(t.tail for t, _ in fact)}", fact))
        for left, right in ontology.contradictions:
            if name != left:
                continue
            other = {t.tail: (t, raw) for t, raw in facts.get((head, right), [])}
            found += [(f"{t.tail} stands under {left} and {right} of {head}", [(t, raw), other[t.tail]]) for t, raw in fact if t.tail in other]
    return found


def remarks(triples: list[Triple]) -> dict[str, list[str]]:
    """What is worth a look and stops nothing: names with several types, names of one character."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for t in triples:
        kinds[t.head].add(t.head_type)
        kinds[t.tail].add(t.tail_type)
    return {"several_types": sorted(n for n, k in kinds.items() if len(k) > 1), "one_character": sorted(n for n in kinds if len(n) == 1)}


def findings(found: Counter[str], triples: list[Triple], aliases: dict[str, dict[str, None]], types: dict[str, str]) -> dict[str, int]:
    """How often each flaw was found, dropped or not, in the order of the report; every flaw is there, with 0 too.

    Args:
        found: what was counted while reading.
        triples: those that stay.
        aliases: name -> other names.
        types: name -> type of every entity.
    """
    named = remarks(triples)
    owners = Counter(alias for names in aliases.values() for alias in names)
    counted = {"one_character": len(named["one_character"]), "several_types": len(named["several_types"]),
               "alias_of_several": sum(1 for alias, times in owners.items() if times > 1 or alias in types)}
    every = ("duplicate", "self_loop", "contradiction", "cut", "sentinel", "shared_name", "not_of_kind", "duplicate_alias")
    return {name: found[name] for name in every} | counted | {name: found[name] for name in sorted(set(found) - set(every)) if found[name]}
