"""Corpus, files and a graph -> a Chinese vocabulary that any byte-level tokenizer can be extended with."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig, read_yaml
from zhtune.corpus.read import read_texts
from zhtune.errors import ConfigError, DataError
from zhtune.log import logger
from zhtune.records import read_jsonl, write_jsonl
from zhtune.references import Source
from zhtune.text import HAN_RUN, normalise
from zhtune.vocabulary.fertility import curve
from zhtune.vocabulary.pieces import MARKS, Piece, sentencepiece_model, write_pieces
from zhtune.vocabulary.train import TextCounts, train_pieces

STAGE = Stage("vocab", version=1, kind="vocab",
              inputs={"corpus": ("corpus", "file"), "input": ("file",), "graph": ("graph", "file")})
SAMPLE_TEXTS = 200
SAMPLE_CHARACTERS = 1000


@dataclass(frozen=True, kw_only=True)
class VocabConfig(StageConfig):
    """Train a Chinese vocabulary: characters, full-width punctuation and words of the text's domain."""

    corpus: str = ""
    """Corpus artifact, or a folder of text"""
    input: str | list[str] = ""
    """Files or folders of raw text (txt, md, jsonl), instead of or beside a corpus"""
    graph: str = ""
    """Graph: every Han character of its names and question wordings becomes a token, and they count as text"""
    size: int = 4000
    """Pieces in all; a base that lacks Chinese needs a few hundred helper tokens more"""
    max_piece: int = 5
    """Longest word in characters"""
    coverage: float = 0.0
    """Share of Han occurrences that single-character tokens cover; 0 takes it from the size (.985 at 4,000)"""
    graph_weight: int = 20
    """How many times the graph's text counts"""

    def __post_init__(self) -> None:
        if not (self.corpus or self.input or self.graph):
            raise ConfigError("vocab needs text: give --corpus, --input or --graph")
        if self.size <= len(MARKS):
            raise ConfigError(f"--size must be more than {len(MARKS)}: that many marks of punctuation are always in")
        if self.max_piece < 1 or self.graph_weight < 1:
            raise ConfigError("--max_piece and --graph_weight must be at least 1")
        if not 0 <= self.coverage <= 1:
            raise ConfigError(f"--coverage is a share from 0 to 1, not {self.coverage}")


def vocab(config: VocabConfig) -> Artifact:
    """Write pieces.jsonl, vocab.model (SentencePiece BPE) and sample.jsonl (texts to measure a tokenizer on).

    Raises:
        DataError: there is no Han character in the text.
        ConfigError: the graph's characters alone are more than the size.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: VocabConfig) -> None:
    counts, terms = TextCounts(), sorted(graph_texts(work.sources["graph"])) if "graph" in work.sources else []
    for _, text in _training_texts(work):
        work.counted_in += 1
        counts.add(text)
    work.kept = work.counted_in
    for term in terms:
        counts.add(term, config.graph_weight)
    required = {char for term in terms for run in HAN_RUN.findall(term) for char in run}
    pieces = train_pieces(counts, required, config.size, config.max_piece, config.coverage)
    if len(pieces) < config.size:
        logger.warning("vocab: the text has words for %d pieces only, not for --size %d", len(pieces), config.size)
    write_pieces(work.path / "pieces.jsonl", pieces)
    (work.path / "vocab.model").write_bytes(sentencepiece_model(pieces))
    _measure(work, pieces, counts, terms, config.seed)


def _training_texts(work: Work) -> Iterator[tuple[str, str]]:
    if "corpus" in work.sources:
        yield from read_texts(work.sources["corpus"].path, "part")
    sources = work.sources.get("input", [])
    for source in sources if isinstance(sources, list) else [sources]:
        yield from ((name, normalise(text)) for name, text in read_texts(source.path))


def _measure(work: Work, pieces: list[Piece], counts: TextCounts, terms: list[str], seed: int) -> None:
    """The fertility curve and the sample, of held-out text where the corpus has it."""
    corpus = work.sources.get("corpus")
    texts = sorted(read_texts(corpus.path, "heldout")) if corpus is not None and corpus.kind == "corpus" else []
    heldout = TextCounts()
    for _, text in texts:
        heldout.add(text)
    points = curve(heldout.runs or counts.runs, pieces)
    pool = texts or sorted(_training_texts(work)) or [("graph", term) for term in terms]
    sample = sorted(random.Random(seed).sample(pool, min(SAMPLE_TEXTS, len(pool))))
    write_jsonl(work.path / "sample.jsonl", ({"id": name, "text": text[:SAMPLE_CHARACTERS]} for name, text in sample))
    words = [p for p in pieces if p.kind == "word"]
    atoms = {p.text: p.count for p in pieces if p.kind == "atom"}
    characters = counts.characters()
    work.metrics |= {"pieces": len(pieces), "atoms": len(atoms), "words": len(words), "tokens_per_character": points[-1][1],
                     "coverage": round(sum(atoms.values()) / characters.total(), 5)}
    work.report |= {"curve": points, "curve_text": "heldout" if heldout.runs else "training",
                    "han_characters": characters.total(), "last_words": [p.text for p in words[-20:]],
                    "unused_words": sum(p.count == 0 for p in words)}


def graph_texts(source: Source) -> set[str]:
    """Names, and all strings of the ontology, of a graph artifact, a folder like it or one JSON Lines file of triples.

    Raises:
        DataError: there are no triples.
    """
    folder = source.path if source.path.is_dir() else source.path.parent
    triples = folder / "triples.jsonl" if source.path.is_dir() else source.path
    texts: set[str] = set()
    for _, row in read_jsonl(triples):
        texts |= set(_strings([row.get(key) for key in ("head", "relation", "tail", "head_type", "tail_type")]))
    if not texts:
        raise DataError("holds no triple", triples)
    if source.path.is_dir() and (folder / "entities.jsonl").exists():
        for _, row in read_jsonl(folder / "entities.jsonl"):
            texts |= set(_strings([row.get("name"), row.get("aliases")]))
    if source.path.is_dir() and (folder / "ontology.yaml").exists():
        texts |= set(_strings(read_yaml(folder / "ontology.yaml")))
    return {normalise(text) for text in texts}


def _strings(value: Any) -> Iterable[str]:
    """All strings in nested lists and mappings, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
