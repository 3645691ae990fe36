"""Corpus, files and a graph -> a Chinese vocabulary that any tokenizer can be extended with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig, read_yaml
from zhtune.corpus.domains import group_by_domain
from zhtune.corpus.read import read_texts
from zhtune.errors import ConfigError, DataError
from zhtune.log import logger
from zhtune.page import Page, line_plot
from zhtune.records import read_jsonl, write_jsonl
from zhtune.references import Source
from zhtune.text import HAN_RUN, normalise
from zhtune.vocabulary.curve import curve, suggest
from zhtune.vocabulary.pieces import MARKS, WORDS, sentencepiece_model, write_pieces
from zhtune.vocabulary.train import Plan, TextCounts, Trained, train_pieces
from zhtune.vocabulary.words import read_terms, read_vocabulary_words

STAGE = Stage("vocab", version=3, kind="vocab",
              inputs={"corpus": ("corpus", "file"), "input": ("file",), "graph": ("graph", "file"), "terms": ("file",),
                      "seed_vocab": ("vocab", "file")})
SAMPLE_TEXTS = 200
SAMPLE_CHARACTERS = 1000
_CURVE_CHARACTERS = 300_000                                 # of each domain
_EXAMPLES = 20
_GRAPH = "graph"


@dataclass(frozen=True, kw_only=True)
class VocabConfig(StageConfig):
    """Train a Chinese vocabulary: characters and words of the text's domain. It is usable for any base."""

    corpus: str = ""
    """Corpus artifact, or a folder of text"""
    input: str | list[str] = ""
    """Files or folders of raw text (txt, md, jsonl), instead of or beside a corpus"""
    graph: str = ""
    """Graph: every Han character of its names and question wordings becomes a token, and they count as text"""
    terms: str = ""
    """File of terms, one a line (medical words, drug names), that become tokens whatever their count"""
    size: int = 4000
    """Pieces in all; a byte-level base that lacks Chinese needs a few hundred helper tokens more"""
    max_piece: int = 5
    """Longest trained word in characters; 4 for general text"""
    coverage: float = 0.0
    """Share of Han occurrences that single-character tokens cover; 0 takes it from the size (.985 at 4,000)"""
    marks: bool = False
    """Make full-width punctuation tokens too: for a base that spells it in bytes; Japanese text with it changes as well"""
    algorithm: Literal["continued-bpe", "sentencepiece-bpe", "sentencepiece-unigram"] = "continued-bpe"
    """How words are found"""
    jieba: bool = False
    """Let no word cross the bounds of jieba's words: better looking pieces, 4 to 13 % more tokens"""
    seed_vocab: str = ""
    """Published vocabulary (SentencePiece .model, a vocab folder, a text with one piece a line) whose first words come first"""
    seed_size: int = 0
    """Words to take from it; 0 takes 45 % of the size, or all where there is no text to train on"""
    weights: dict[str, int] = field(default_factory=dict)
    """How many times a domain counts, by its name: that of an input, of one input the first folder or file in it: {leaflets: 2}"""
    sample: int = 20_000_000
    """Characters of each domain at most; 10 million are enough"""
    graph_weight: int = 20
    """How many times the graph's text counts"""

    def check(self) -> None:
        if not (self.corpus or self.input or self.graph or self.seed_vocab):
            raise ConfigError("vocab needs text: give --corpus, --input or --graph (or --seed_vocab to take over a vocabulary)")
        if self.size <= (len(MARKS) if self.marks else 1):
            raise ConfigError(f"--size {self.size} leaves no room for characters and words")
        if self.max_piece < 1 or self.graph_weight < 1 or self.sample < 1 or min(self.weights.values(), default=1) < 1:
            raise ConfigError("--max_piece, --graph_weight, --sample and all --weights must be at least 1")
        if not 0 <= self.coverage <= 1:
            raise ConfigError(f"--coverage is a share from 0 to 1, not {self.coverage}")


def vocab(config: VocabConfig) -> Artifact:
    """Write pieces.jsonl, vocab.model (SentencePiece BPE), sample.jsonl (texts to measure a tokenizer on) and report.html.

    Raises:
        DataError: there is no Han character in the text.
        ConfigError: the characters of graph and terms alone are more than the size.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: VocabConfig) -> None:
    names = sorted(graph_texts(work.sources["graph"])) if "graph" in work.sources else []
    texts = group_by_domain(_counted(work, _training_texts(work)), characters=config.sample, seed=config.seed)
    domains = {name: _count(some) for name, some in texts.items()}
    if unknown := [name for name in config.weights if name not in domains]:
        raise ConfigError(f"--weights names no domain {', '.join(unknown)}; the text has: {', '.join(domains)}")
    counts = TextCounts()
    for name, some in domains.items():
        counts.add_counts(some, config.weights.get(name, 1))
    counts.add_counts(_count(names), config.graph_weight)
    words = read_vocabulary_words(work.sources["seed_vocab"].path) if "seed_vocab" in work.sources else []
    if not counts.runs and words:                           # a vocabulary taken over as it is
        counts = _count(words)
    if config.jieba:
        counts.cut_at_words()
    terms = read_terms(work.sources["terms"].path) if "terms" in work.sources else []
    plan = Plan(config.size, config.max_piece, config.coverage, config.marks, config.algorithm, tuple(words),
                config.seed_size or (int(.45 * config.size) if domains or names else config.size), tuple(terms),
                frozenset(char for name in names for run in HAN_RUN.findall(name) for char in run))
    trained = train_pieces(counts, plan)
    if len(trained.pieces) < config.size:
        logger.warning("vocab: the text has words for %d pieces only, not for --size %d", len(trained.pieces), config.size)
    write_pieces(work.path / "pieces.jsonl", trained.pieces)
    (work.path / "vocab.model").write_bytes(sentencepiece_model(trained.pieces))
    heldout = group_by_domain(_heldout_texts(work), characters=_CURVE_CHARACTERS, seed=config.seed)
    _write_sample(work.path / "sample.jsonl", heldout or texts or _listed(names or words, config.seed))
    measured = {name: _count(some) for name, some in heldout.items()} or domains or {_GRAPH: counts}
    _measure(work, trained, counts, measured, "heldout" if heldout else "training")
    if terms:
        work.report["terms"] = _term_report(terms, trained, counts)


def _count(texts: Iterable[str]) -> TextCounts:
    counts = TextCounts()
    for text in texts:
        counts.add(text)
    return counts


def _counted(work: Work, texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for item in texts:
        work.counted_in += 1
        work.kept += 1
        yield item


def _training_texts(work: Work) -> Iterator[tuple[str, str]]:
    """The corpus, and raw files; where several inputs are given, each is a domain."""
    if "corpus" in work.sources:
        yield from read_texts(work.sources["corpus"].path, "part")
    sources = work.given("input")
    for source in sources:
        place = f"{source.path.stem}/" if len(sources) > 1 or "corpus" in work.sources else ""
        yield from ((place + name, normalise(text)) for name, text in read_texts(source.path))


def _listed(texts: list[str], seed: int) -> dict[str, list[str]]:
    """Names or words as one domain, in an order drawn from the seed."""
    return group_by_domain(((f"{_GRAPH}/{i}", text) for i, text in enumerate(texts)), seed=seed)


def _heldout_texts(work: Work) -> Iterator[tuple[str, str]]:
    """What a corpus artifact holds back."""
    corpus = work.sources.get("corpus")
    if corpus is not None and corpus.kind == "corpus":
        yield from read_texts(corpus.path, "heldout")


def _write_sample(path: Path, texts: dict[str, list[str]]) -> None:
    """A few texts of every domain, in equal shares as far as they reach."""
    share = max(1, SAMPLE_TEXTS // len(texts))
    write_jsonl(path, ({"id": f"{name}#{i}", "domain": name, "text": text[:SAMPLE_CHARACTERS]}
                       for name, some in sorted(texts.items()) for i, text in enumerate(some[:share])))


def _measure(work: Work, trained: Trained, counts: TextCounts, measured: dict[str, TextCounts], split: str) -> None:
    """The fertility curve of each domain and of all together, the size to take, and what was left out."""
    pieces = trained.pieces
    whole = TextCounts()
    for some in measured.values():
        whole.add_counts(some, 1)
    curves = {name: curve(some.runs, pieces) for name, some in sorted(measured.items()) if some.runs}
    points = curve(whole.runs or counts.runs, pieces)
    words = [p for p in pieces if p.kind in WORDS]
    atoms = {p.text: p.count for p in pieces if p.kind == "atom"}
    characters = counts.characters()
    work.dropped.update({f"seed_or_term_{reason}": len(some) for reason, some in trained.refused.items()})
    work.metrics |= {"pieces": len(pieces), "atoms": len(atoms), "words": len(words), "tokens_per_character": points[-1][1],
                     "coverage": round(sum(atoms.values()) / characters.total(), 5)}
    work.report |= {
        "curve": points, "curves": curves, "curve_text": split, "suggested_size": suggest(points, pieces),
        "han_characters": characters.total(), "last_words": [p.text for p in words[-_EXAMPLES:]],
        "longest_words": sorted((p.text for p in words), key=lambda text: (-len(text), text))[:_EXAMPLES],
        "unused_words": sum(p.count == 0 for p in words),
        "left_out": {"rare_characters": len(trained.rare), "for_example": "".join(trained.rare[:_EXAMPLES]),
                     **{reason: some[:_EXAMPLES] for reason, some in sorted(trained.refused.items())}}}
    _write_page(work, curves or {"text": points})


def _term_report(terms: list[str], trained: Trained, counts: TextCounts) -> list[dict[str, Any]]:
    """Term by term: whether it is one piece, how often the text holds it, and how often it stays one token there."""
    uses = {p.text: p.count for p in trained.pieces}
    reasons = {word: reason for reason, some in trained.refused.items() for word in some}
    found = dict.fromkeys(terms, 0)
    lengths = sorted(set(map(len, terms)))
    for run, count in counts.runs.items():
        for length in lengths:
            for i in range(len(run) - length + 1):
                if (part := run[i:i + length]) in found:
                    found[part] += count
    return [{"term": term, "one_piece": term in uses, "reason": reasons.get(term, ""), "occurrences": found[term],
             "as_one_token": uses.get(term, 0)} for term in terms]


def _write_page(work: Work, curves: dict[str, list[list[float]]]) -> None:
    report, metrics = work.report, work.metrics
    suggested = report["suggested_size"]
    page = Page(("词表", "Vocabulary"))
    page.figures([(("词条", "pieces"), metrics["pieces"]), (("字", "characters"), metrics["atoms"]), (("词", "words"), metrics["words"]),
                  (("每字词元", "tokens per character"), metrics["tokens_per_character"])])
    page.section("每字词元数随词表大小的变化", "Tokens per character by size")
    page.plot(line_plot({name: [(size, value) for size, value in points[1:]] for name, points in curves.items()},
                        "词条 pieces", "每字词元 tokens per character"))
    page.text("建议大小：再加 1,000 个词条节省不到 1 %（小模型或 LoRA：2 %）之处，且末尾的词在训练文本中至少用到 50 次。",
              "Suggested size: where 1,000 more pieces save less than 1 % (2 % for small models and LoRA), and the last words are used at "
              "least 50 times in the training text.")
    page.table([("用途", "use"), ("词条", "pieces")], [
        [("通用", "general"), suggested["general"] or f"> {metrics['pieces']}"],
        [("小模型、LoRA", "small model, LoRA"), suggested["small"] or f"> {metrics['pieces']}"],
        [("词至少用 50 次", "words used 50 times"), suggested["used"]]])
    page.section("例子与未收录", "Examples and what was left out")
    left = report["left_out"]
    page.table([("项目", "what"), ("内容", "content")], [
        [("最长的词", "longest words"), " ".join(report["longest_words"])], [("最后的词", "last words"), " ".join(report["last_words"])],
        [("未收录的字", "characters left out"), f"{left['rare_characters']}: {left['for_example']}"],
        *([reason, " ".join(some)] for reason, some in left.items() if isinstance(some, list))])
    (work.path / "report.html").write_text(page.html(), "utf-8")


def graph_texts(source: Source) -> set[str]:
    """Names, and all strings of the ontology, of a graph artifact, a folder like it or one JSON Lines file of triples.

    Raises:
        DataError: there are no triples.
    """
    folder = source.path if source.path.is_dir() else source.path.parent
    triples = source.file("triples.jsonl")
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
