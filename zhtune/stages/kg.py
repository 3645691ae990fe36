"""A raw graph of any kind and an ontology -> a checked graph."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig, read_yaml
from zhtune.errors import DataError
from zhtune.graph import hygiene
from zhtune.graph.detect import IN_ORDER, Found, find, read
from zhtune.graph.draft import NO_TYPE, draft
from zhtune.graph.export import write_graphml
from zhtune.graph.fields import Hygiene
from zhtune.graph.graph import Triple
from zhtune.graph.items import Attributed, Item, Raw
from zhtune.graph.ontology import Ontology, read_heldout, read_ontology
from zhtune.graph.picture import report_page
from zhtune.graph.place import Placed, place, targets
from zhtune.graph.statistics import statistics
from zhtune.records import write_jsonl

STAGE = Stage("kg", version=6, kind="graph", inputs={"input": ("file",), "ontology": ("file", "graph"), "additions": ("file",)})
_SHOWN = 5
Pair = tuple[Triple, Raw]


@dataclass(frozen=True, kw_only=True)
class KgConfig(StageConfig):
    """Read a graph, check it against the ontology and write entities, triples and attributes."""

    input: str
    """A file or folder of triples (jsonl, csv, tsv, spo, json), wide tables (csv, tsv, xlsx), entities (json, jsonl), Neo4j exports, GraphML, N-Triples, Turtle"""  # noqa: E501
    ontology: str = ""
    """ontology.yaml, or a graph's folder that holds one (shipped:medical), if it does not lie in the input's; a graph without one gets a draft"""
    additions: str = ""
    """A YAML file of sections that the ontology lacks, such as safety and consult: `shipped:medical-safety` for the shipped graph"""
    on_contradiction: Literal["error", "drop"] = "error"
    """error stops with file:line; drop takes out both sides, counted"""
    order: Literal["file", "sorted"] = "file"
    """file keeps the order of the data, which is that of the answers; sorted makes the result independent of it"""
    graphml: bool = False
    """Also write graph.graphml"""


def kg(config: KgConfig) -> Artifact:
    """Write entities.jsonl, triples.jsonl, attributes.jsonl, ontology.yaml (and heldout.yaml, graph.graphml), report.html.

    Raises:
        DataError: broken rows, unknown relations, fields or types, contradictions.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: KgConfig) -> None:
    folder = work.sources["input"].path
    given = work.sources.get("ontology")
    path = given.file("ontology.yaml") if given else folder / "ontology.yaml"
    ontology = read_ontology(path) if given or path.exists() else None
    if ontology:
        targets(ontology, path)                             # names that are claimed twice, before any is looked up
    found = find(folder, ontology)
    items, layout = read(found, ontology)
    if not items:
        raise DataError("holds no triple", found[0].path)
    if config.order == "sorted":
        items.sort(key=_sort_key)
    if ontology is None:
        drafted = draft(items, layout, "graph")
        if not drafted["relations"] and not drafted.get("attributes"):
            column = f" (the column {', '.join(layout.name)})" if layout and layout.name else ""
            cure = "; between cells stands a comma in .csv, a tab in .tsv" if found[0].shape == "table" else ""
            raise DataError(f"names entities{column} and says nothing of them{cure}", found[0].path)
        ontology = _draft(work, drafted)
    else:
        shutil.copyfile(path, work.path / "ontology.yaml")
    if config.additions:
        ontology = _add(work, ontology, work.sources["additions"].path)
    if work.licences == {"unknown"} and ontology.licence != "unknown":
        work.licences = {ontology.licence}
    placed, pairs, attributes = _checked(work, items, ontology, config, found, path)
    triples = [t for t, _ in pairs]
    types = _types(triples, placed, attributes, ontology)
    _write_graph(work, triples, types, placed, attributes, ontology)
    if config.graphml:
        write_graphml(work.path)
    _report(work, triples, types, placed, attributes)
    if (folder / "heldout.yaml").exists():
        read_heldout(folder / "heldout.yaml", ontology)
        shutil.copyfile(folder / "heldout.yaml", work.path / "heldout.yaml")


def _draft(work: Work, drafted: dict[str, Any]) -> Ontology:
    (work.path / "ontology.yaml").write_text(yaml.safe_dump(drafted, allow_unicode=True, sort_keys=False), "utf-8")
    work.resolved["ontology"] = "drafted from the triples"
    return read_ontology(work.path / "ontology.yaml")


def _add(work: Work, ontology: Ontology, additions: Path) -> Ontology:
    """The ontology with further sections, each written after those that it has."""
    sections = read_yaml(additions)
    if twice := [key for key in sections if key in ontology.raw]:
        raise DataError(f"{twice[0]!r} is in the ontology already; only sections that it lacks can be added", additions)
    with open(work.path / "ontology.yaml", "a", encoding="utf-8") as file:
        file.write("\n" + yaml.safe_dump(sections, allow_unicode=True, sort_keys=False))
    return read_ontology(work.path / "ontology.yaml")


def _checked(work: Work, items: list[Item], ontology: Ontology, config: KgConfig, found: list[Found],
             path: Path) -> tuple[Placed, list[Pair], list[Attributed]]:
    """The triples and attributes that stay, in the order of the graph; all others are dropped by name."""
    several, counts = len(found) > 1, Counter[str]()

    def drop(reason: str, item: Any, **shown: Any) -> None:
        counts[reason] += 1
        work.drop(reason, **({"file": Path(item.file).name} if several else {}), line=item.line, **shown)

    plain = all(f.shape == "triples" for f in found)        # whatever they hold was always kept
    placed = place(items, ontology, ontology.hygiene or (None if plain else Hygiene()), drop, path)
    if config.order == "sorted":
        placed.raws.sort(key=lambda raw: raw[:6])
        placed.aliases = {name: dict.fromkeys(sorted(names)) for name, names in placed.aliases.items()}
    work.counted_in = placed.read
    pairs = hygiene.without_noise(hygiene.typed(placed.raws, ontology), drop)
    pairs = _settle(pairs, ontology, config, drop, placed.found)
    if config.order == "file" and not all(f.shape in IN_ORDER for f in found):
        pairs = _grouped(pairs, ontology)
    attributes = [a for a, _ in hygiene.without_noise([(a, a) for a in placed.attributes], drop)]
    if not pairs and not attributes:
        raise DataError("no triple is left", found[0].path)
    placed.found += Counter({name: counts[name] for name in ("duplicate", "self_loop")})
    return placed, pairs, _in_order(attributes, pairs, ontology, config)


def _settle(pairs: list[Pair], ontology: Ontology, config: KgConfig, drop: Any, findings: Counter[str]) -> list[Pair]:
    found = hygiene.contradictions(pairs, ontology)
    findings["contradiction"] += len(found)
    if found and config.on_contradiction == "error":
        shown = "; ".join(f"{text} (lines {', '.join(str(r.line) for _, r in sides)})" for text, sides in found[:_SHOWN])
        raise DataError(f"{len(found)} contradictions: {shown}. Correct them, or use --on_contradiction drop", found[0][1][0][1].file)
    refused = set()
    for text, sides in found:
        for triple, raw in sides:
            if triple not in refused:
                refused.add(triple)
                drop("contradiction", raw, triple=[triple.head, triple.relation, triple.tail], detail=text)
    return [pair for pair in pairs if pair[0] not in refused] if refused else pairs


def _grouped(pairs: list[Pair], ontology: Ontology) -> list[Pair]:
    """By head as they first appear, then by relation as the ontology has them; the order within a fact stays."""
    heads, relations = _ranks(triple.head for triple, _ in pairs), _ranks(ontology.relations)
    return sorted(pairs, key=lambda pair: (heads[pair[0].head], relations[pair[0].relation]))


def _in_order(attributes: list[Attributed], pairs: list[Pair], ontology: Ontology, config: KgConfig) -> list[Attributed]:
    """Attributes as their entities stand in the triples, then as they appear; within an entity as the ontology has them."""
    if config.order == "sorted":
        return sorted(attributes, key=lambda a: (a.entity, a.attribute, a.value))
    entities = _ranks([*(name for triple, _ in pairs for name in (triple.head, triple.tail)), *(a.entity for a in attributes)])
    named = _ranks(ontology.attributes)
    return sorted(attributes, key=lambda a: (entities[a.entity], named[a.attribute]))


def _ranks(names: Iterable[str]) -> dict[str, int]:
    """Name -> how many others appear before it."""
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


def _sort_key(item: Any) -> tuple[str, ...]:
    return (type(item).__name__, *(str(part) for part in item[:6]))


def _types(triples: list[Triple], placed: Placed, attributes: list[Attributed], ontology: Ontology) -> dict[str, str]:
    """Name -> type: those of the triples in their order, then what has attributes or aliases only, then what is only declared."""
    types: dict[str, str] = {}
    for t in triples:
        types.setdefault(t.head, t.head_type)
        types.setdefault(t.tail, t.tail_type)
    for a in attributes:
        heads = ontology.attributes[a.attribute].heads
        types.setdefault(a.entity, placed.types.get(a.entity) or (heads[0] if heads else ontology.rows.type or NO_TYPE))
    for name, kind in placed.types.items():
        types.setdefault(name, kind or ontology.rows.type or NO_TYPE)
    return types


def _write_graph(work: Work, triples: list[Triple], types: dict[str, str], placed: Placed, attributes: list[Attributed], ontology: Ontology) -> None:
    write_jsonl(work.path / "entities.jsonl", ({"id": i, "name": n, "type": k, "aliases": list(placed.aliases.get(n, ()))}
                                               for i, (n, k) in enumerate(types.items())))
    write_jsonl(work.path / "triples.jsonl", (t._asdict() for t in triples))
    write_jsonl(work.path / "attributes.jsonl", ({"entity": a.entity, "attribute": a.attribute, "value": a.value, "kind": a.kind,
                                                  "source": a.source} for a in attributes))
    aliases = sum(len(names) for names in placed.aliases.values())
    work.kept = len(triples) + len(attributes) + aliases
    work.metrics |= {"entities": len(types), "triples": len(triples), "relations": len({t.relation for t in triples}),
                     "facts": len({(t.head, t.relation) for t in triples})}
    work.metrics |= {"attributes": len(attributes)} if attributes else {}
    work.metrics |= {"aliases": aliases} if aliases else {}


def _report(work: Work, triples: list[Triple], types: dict[str, str], placed: Placed, attributes: list[Attributed]) -> None:
    work.report["remarks"] = hygiene.remarks(triples)
    work.report["hygiene"] = hygiene.findings(placed.found, triples, placed.aliases, types)
    work.report["statistics"] = statistics(triples, types, attributes)
    page = report_page(work.report, triples, work.metrics, dict(work.dropped))
    (work.path / "report.html").write_text(page, "utf-8")
