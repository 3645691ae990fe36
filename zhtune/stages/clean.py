"""Raw text -> corpus: read, normalise, refuse by named reason, divide, deduplicate, hold out a share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.corpus import filters
from zhtune.corpus.read import Document, Refusal, read_files, write_documents
from zhtune.errors import ConfigError, DataError
from zhtune.log import progress
from zhtune.text import normalise

STAGE = Stage("clean", version=2, kind="corpus", inputs={"input": ("file",)})
_PART = 20_000                                              # documents a parquet part


@dataclass(frozen=True, kw_only=True)
class CleanConfig(StageConfig):
    """Clean raw Chinese text (txt, md, jsonl; UTF-8 or GB18030) into a corpus."""

    input: str | list[str]
    """Files or folders of raw text"""
    min_characters: int = 20
    """Fewest non-blank characters of a document"""
    min_han: float = 0.3
    """Least share of Han characters among the non-blank ones"""
    max_characters: int = 4000
    """Longer documents are divided at paragraph or sentence ends"""
    heldout: float = 0.04
    """Share of documents (of pieces, where one was divided), chosen by the hash of their name, that no training sees:
    bits per character is measured on them"""
    licence: str = ""
    """Licence of the input, carried upward (SPDX name); shipped text knows its own"""

    def __post_init__(self) -> None:
        if not 0 <= self.heldout < 1:
            raise ConfigError(f"--heldout is a share from 0 to below 1, not {self.heldout}")
        if self.max_characters < 100:
            raise ConfigError("--max_characters must be at least 100")


def clean(config: CleanConfig) -> Artifact:
    """Write a corpus (`part-*.parquet`, `heldout-*.parquet`: id, text, metadata); every refused piece is kept with its reason.

    Raises:
        DataError: no document is left.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: CleanConfig) -> None:
    if config.licence:
        work.licences = {config.licence}
    splits: dict[str, list[Document]] = {"part": [], "heldout": []}
    for document in progress(_documents(work, config), "clean"):
        splits["heldout" if filters.held_out(document.id, config.heldout) else "part"].append(document)
    if not splits["part"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(work.dropped.items())) or "there was no text"
        raise DataError(f"no document is left of {work.counted_in}: {reasons}")
    for split, documents in splits.items():
        for number, start in enumerate(range(0, len(documents), _PART)):
            write_documents(work.path / f"{split}-{number:05d}.parquet", documents[start:start + _PART])
    work.metrics["documents"] = len(splits["part"])
    work.metrics["heldout_documents"] = len(splits["heldout"])
    work.metrics["characters"] = sum(len(d.text) for d in splits["part"])
    work.metrics["heldout_characters"] = sum(len(d.text) for d in splits["heldout"])


def _documents(work: Work, config: CleanConfig) -> Iterator[Document]:
    """The kept documents; counts are in documents as read, before long ones are divided."""
    duplicates = filters.Duplicates()
    sources = work.sources["input"]
    for item in read_files([s.path for s in (sources if isinstance(sources, list) else [sources])]):
        work.counted_in += 1
        if isinstance(item, Refusal):
            work.drop(item.reason, id=item.where, detail=item.detail)
            continue
        text = normalise(item.text).strip()
        reason = filters.refusal(text, config.min_characters, config.min_han)
        if reason:
            work.drop(reason, id=item.id, text=text[:200])
            continue
        twin = duplicates.first(item.id, text)
        if twin is not None:
            work.drop("duplicate", id=item.id, same_as=twin)
            continue
        work.kept += 1
        pieces = filters.divide(text, config.max_characters)
        for number, piece in enumerate(pieces):
            yield Document(item.id if len(pieces) == 1 else f"{item.id}#{number}", piece, item.metadata)
