"""Triples and an ontology -> a checked graph."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import DataError
from zhtune.graph import hygiene
from zhtune.graph.graph import Triple
from zhtune.graph.ontology import Ontology, draft_ontology, read_heldout, read_ontology
from zhtune.graph.read import Raw, read_triples, triple_file
from zhtune.records import write_jsonl

STAGE = Stage("kg", version=2, kind="graph", inputs={"input": ("file",), "ontology": ("file",)})
_SHOWN = 5
_NO_TYPE = "实体"


@dataclass(frozen=True, kw_only=True)
class KgConfig(StageConfig):
    """Read triples (jsonl, csv, tsv), check them against the ontology and write a graph."""

    input: str
    """A file of triples, or a folder with triples.* and, if it has them, ontology.yaml and heldout.yaml"""
    ontology: str = ""
    """ontology.yaml, if it does not lie in the input's folder; a graph without one gets a draft"""
    on_contradiction: Literal["error", "drop"] = "error"
    """error stops with file:line; drop takes out both sides, counted"""


def kg(config: KgConfig) -> Artifact:
    """Write entities.jsonl, triples.jsonl, attributes.jsonl, ontology.yaml (and heldout.yaml).

    Raises:
        DataError: broken rows, unknown relations or types, contradictions.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: KgConfig) -> None:
    folder = work.sources["input"].path
    file = triple_file(folder)
    raws = list(read_triples(file))
    if not raws:
        raise DataError("holds no triple", file)
    work.counted_in = len(raws)
    ontology, source = _ontology(work, raws, folder)
    if work.licences == {"unknown"} and ontology.licence != "unknown":
        work.licences = {ontology.licence}
    pairs = hygiene.without_noise(hygiene.typed(raws, ontology, file), work.drop)
    pairs = _settle(work, pairs, ontology, config, file)
    triples = [t for t, _ in pairs]
    if not triples:
        raise DataError("no triple is left", file)
    _write_graph(work, triples)
    if source is not None:
        shutil.copyfile(source, work.path / "ontology.yaml")
    if (folder / "heldout.yaml").exists():
        read_heldout(folder / "heldout.yaml", ontology)
        shutil.copyfile(folder / "heldout.yaml", work.path / "heldout.yaml")


def _ontology(work: Work, raws: list[Raw], folder: Path) -> tuple[Ontology, Path | None]:
    given = work.sources.get("ontology")
    path = given.path if given else folder / "ontology.yaml"
    if path.exists():
        return read_ontology(path), path
    relations: dict[str, tuple[dict[str, None], dict[str, None]]] = {}      # dicts as ordered sets
    for raw in raws:
        heads, tails = relations.setdefault(raw.relation, ({}, {}))
        heads[raw.head_type or _NO_TYPE] = tails[raw.tail_type or _NO_TYPE] = None
    drafted = {name: (tuple(heads), tuple(tails)) for name, (heads, tails) in relations.items()}
    text = yaml.safe_dump(draft_ontology(drafted, "graph"), allow_unicode=True, sort_keys=False)
    (work.path / "ontology.yaml").write_text(text, "utf-8")
    work.resolved["ontology"] = "drafted from the triples"
    return read_ontology(work.path / "ontology.yaml"), None


def _settle(work: Work, pairs: list[tuple[Triple, Raw]], ontology: Ontology, config: KgConfig, file: Path) -> list[tuple[Triple, Raw]]:
    found = hygiene.contradictions(pairs, ontology)
    if found and config.on_contradiction == "error":
        shown = "; ".join(f"{text} (lines {', '.join(str(r.line) for _, r in sides)})" for text, sides in found[:_SHOWN])
        raise DataError(f"{len(found)} contradictions: {shown}. Correct them, or use --on_contradiction drop", file)
    refused = {}
    for text, sides in found:
        for triple, raw in sides:
            if raw.line not in refused:
                refused[raw.line] = text
                work.drop("contradiction", line=raw.line, triple=[triple.head, triple.relation, triple.tail], detail=text)
    return [(t, r) for t, r in pairs if r.line not in refused]


def _write_graph(work: Work, triples: list[Triple]) -> None:
    types: dict[str, str] = {}
    for t in triples:
        types.setdefault(t.head, t.head_type)
        types.setdefault(t.tail, t.tail_type)
    write_jsonl(work.path / "entities.jsonl", ({"id": i, "name": n, "type": k, "aliases": []} for i, (n, k) in enumerate(types.items())))
    write_jsonl(work.path / "triples.jsonl", ({"head": t.head, "relation": t.relation, "tail": t.tail, "head_type": t.head_type,
                                               "tail_type": t.tail_type, "source": t.source} for t in triples))
    (work.path / "attributes.jsonl").write_bytes(b"")
    work.kept = len(triples)
    work.metrics |= {"entities": len(types), "triples": len(triples), "relations": len({t.relation for t in triples}),
                     "facts": len({(t.head, t.relation) for t in triples})}
    work.report["remarks"] = hygiene.remarks(triples)
