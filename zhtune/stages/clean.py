"""Raw text -> corpus: read, normalise, refuse by named reason, deduplicate, divide, hold out a share. A stream from end to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from zhtune import assets
from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.corpus import char_model, clean_page, filters, script
from zhtune.corpus.classifier import open_classifier
from zhtune.corpus.contamination import Benchmark
from zhtune.corpus.distinct import Distinct, unique
from zhtune.corpus.prepare import Outcome, Settings, count_lines, prepared
from zhtune.corpus.read import read_sealed, read_texts, read_whole, write_documents
from zhtune.digests import drawn
from zhtune.errors import ConfigError, DataError
from zhtune.log import logger, progress
from zhtune.records import Document, write_json
from zhtune.references import Source, expand
from zhtune.synthesis.leaks import benchmark_items
from zhtune.text import normalise

STAGE = Stage("clean", version=8, kind="corpus", others=("report",),
              inputs={"input": ("file",), "preset": ("file",), "good": ("corpus", "file"), "classifier": ("file",),
              "distinct_from": ("corpus", "file"), "against": ("file", "records", "preferences")})
_PART = 20_000                                              # documents a parquet part
_EXAMPLES = 3                                               # of each reason, in the report


@dataclass(frozen=True, kw_only=True)
class CleanConfig(StageConfig):
    """Clean raw Chinese text into a corpus: txt, md, html, docx, PDF with text, JSON (Lines), CSV, TSV, xlsx, parquet, plain,
    .gz or .zst, in UTF-8, GB18030, Big5 or UTF-16."""

    input: str | list[str]
    """Files, folders or patterns (quoted: 'texts/*.jsonl.gz') of raw text"""
    fields: list[str] = field(default_factory=list)
    """Fields of a row (JSON, CSV, xlsx, parquet) that are its text, joined by line ends; by default the first one found of
    text, content, body, html, 正文, 内容, 文本"""
    preset: str = ""
    """Rules to begin with: shipped:web, shipped:prose, shipped:technical, shipped:dialogue, shipped:classical, shipped:short, or
    a YAML file; without one, length and share of Han only"""
    rules: dict[str, Any] = field(default_factory=dict)
    """Rules that differ from the preset's, such as {"max_digits": 0.4, "personal": "mask"} (docs/corpora.md lists them)"""
    min_characters: int | None = None
    """Fewest visible characters of a document, where the preset's (or 20) does not fit"""
    min_han: float | None = None
    """Least share of Han characters among them, where the preset's (or 0.3) does not fit"""
    good: str = ""
    """Text like what you want: documents less like it than all but the rule min_percentile of it are refused"""
    classifier: str = ""
    """A fastText model (.bin, .ftz): documents for which the rule label is less probable than the rule min_label are refused"""
    near: float | None = None
    """Of documents whose 5-grams overlap so much (Jaccard, such as 0.8) the longest stays, where the preset's (or 0: all stay) does not fit"""
    distinct_from: str | list[str] = ""
    """Corpora (artifacts or text) whose documents must not stand here again: as near duplicates with --near, else as equal text"""
    against: str | list[str] = ""
    """Test and benchmark files: documents that hold their questions are refused (benchmark)"""
    max_characters: int = 4000
    """Longer documents are divided at paragraph or sentence ends"""
    heldout: float = 0.04
    """Share of documents (of pieces, where one was divided), chosen by the hash of their name, that no training sees:
    bits per character is measured on them"""
    licence: str = ""
    """Licence of the input, carried upward (SPDX name); shipped text knows its own"""
    report_only: bool = False
    """Write no corpus, only a report of what would be refused and why, with the signals' distribution"""

    def check(self) -> None:
        if not 0 <= self.heldout < 1:
            raise ConfigError(f"--heldout is a share from 0 to below 1, not {self.heldout}")
        if self.max_characters < 100:
            raise ConfigError("--max_characters must be at least 100")


def clean(config: CleanConfig) -> Artifact:
    """Write a corpus (`part-*.parquet`, `heldout-*.parquet`: id, text, metadata); every refused piece is kept with its reason.

    Raises:
        ConfigError: an unknown rule or preset.
        DataError: no document is left.
    """
    check_preset(config.preset)
    made = build(STAGE, config, lambda work: write(work, config))
    if config.report_only:
        logger.info("%s", clean_page.terminal(made.path / "report.json"))
    return made


def check_preset(name: str) -> None:
    """Refuse what is neither a shipped preset nor a file."""
    presets = [f"shipped:{file.stem}" for file in sorted((assets.root() / "scripts" / "presets").glob("*.yaml"))]
    if name and name not in presets and not any(Path(path).is_file() for path in expand(name)):
        raise ConfigError(f"--preset {name} is no preset and no YAML file; presets are: {', '.join(presets)}")


class Ledger:
    """Counts every piece of input once, in total and by file: in = kept + dropped."""

    def __init__(self, work: Work):
        self._work = work
        self.files: dict[str, Counter[str]] = {}
        self.notes: dict[str, Counter[str]] = {}
        self.examples: dict[str, list[dict[str, Any]]] = {}

    def took(self, file: str) -> None:
        self._work.counted_in += 1
        self.files.setdefault(file, Counter())["in"] += 1

    def kept(self, file: str) -> None:
        self._work.kept += 1
        self.files[file]["kept"] += 1

    def dropped(self, file: str, reason: str, **item: Any) -> None:
        """Count a refused piece; it goes to dropped.jsonl with what is known of it."""
        self._work.drop(reason, **item)
        self.files[file][reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(item)

    def drop(self, reason: str, document: Document, **item: Any) -> None:
        self.dropped(document.metadata["file"], reason, id=document.id, **item)


def write(work: Work, config: CleanConfig, judged: tuple[Settings, Iterable[Outcome]] | None = None) -> None:
    """The work of `clean`, which `lint --corpus` does, too; or what is left of it, of documents judged elsewhere (scripts/datatrove_clean.py)."""
    sources = work.given("input")
    work.licences = {config.licence} if config.licence else {licence for source in sources for licence in source.licences}
    if judged is not None:
        settings, outcomes = judged
    else:
        settings = settings_of(config, work.sources)
        paths = [source.path for source in sources]
        if settings.rules.boilerplate:
            lines = count_lines(read_sealed(paths, config.fields), settings.rules, config.workers)
            settings = replace(settings, lines=lines)
        outcomes = prepared(read_sealed(paths, config.fields), settings, config.workers)
    work.resolved["rules"] = vars(settings.rules)
    ledger, histogram = Ledger(work), Histogram()
    documents = _passed(work, config, outcomes, ledger, histogram)
    work.checkpoints.mkdir()
    if not settings.rules.near:                             # near duplicates have equal ones among them
        documents = unique(documents, work.checkpoints, ledger.drop)
    documents = _distinct(work, settings.rules, documents, ledger)
    counts = _count(documents) if config.report_only else _write_parts(work, config, documents)
    if not counts["documents"] and not config.report_only:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(work.dropped.items())) or "there was no text"
        raise DataError(f"no document is left of {work.counted_in}: {reasons}")
    work.metrics |= counts
    work.report |= {"rules": vars(settings.rules), "reasons": {reason: {"documents": n, "examples": ledger.examples[reason]}
                    for reason, n in work.dropped.most_common()}, "signals": histogram.quantiles(), "files": ledger.files, "notes": ledger.notes}
    if config.report_only:
        work.kind = "report"
        write_json(work.path / "figures.json", {"dropped": dict(sorted(work.dropped.items())), "signals": histogram.quantiles()})
    clean_page.write_page(work.path / "report.html", work.report, work.counted_in, work.kept)


def settings_of(config: CleanConfig, sources: dict[str, Any]) -> Settings:
    """The rules and a model of good text; not yet the lines that many documents share."""
    given = {name: value for name in ("min_characters", "min_han", "near") if (value := getattr(config, name)) is not None}
    preset = sources.get("preset")
    rules = filters.read_rules(preset.path if preset else None, {**config.rules, **given})
    if "min_percentile" in config.rules and not config.good:
        raise ConfigError("the rule min_percentile compares with good text: give some with --good")
    model = char_model.fit(read_texts(sources["good"].path), rules.min_percentile) if config.good and rules.min_percentile else None
    if config.good and model is None:
        raise ConfigError("--good needs at least 100 documents and a rule min_percentile above 0, such as 0.02")
    classifier = None
    if bool(config.classifier) != bool(rules.label and rules.min_label):
        raise ConfigError('--classifier and the rules label and min_label go together: --rules \'{"label": "zh", "min_label": 0.5}\'')
    if config.classifier:
        classifier = open_classifier(sources["classifier"].path, rules.label, rules.label_words)
    if rules.script == "simplified":
        script.is_traditional("")                           # without opencc, say so before the work; with it, its table is built once
    return Settings(rules, model, classifier, measure=config.report_only)


def _passed(work: Work, config: CleanConfig, outcomes: Iterable[Outcome], ledger: Ledger, histogram: Histogram) -> Iterator[Document]:
    """The documents that the rules keep, normalised; counts are in documents as read, before long ones are divided."""
    masked: Counter[str] = Counter()
    for outcome in progress(outcomes, "clean"):
        ledger.took(outcome.file)
        histogram.add(outcome.signals)
        masked += outcome.personal
        if config.report_only and (outcome.notes or outcome.personal):
            ledger.notes.setdefault(outcome.file, Counter()).update([*outcome.notes, *outcome.personal.elements()])
        if outcome.document is None:
            ledger.dropped(outcome.file, outcome.reason, id=outcome.id, **outcome.details)
        else:
            yield outcome.document
    if masked:
        work.metrics["masked"] = dict(sorted(masked.items()))


def _distinct(work: Work, rules: filters.Rules, documents: Iterator[Document], ledger: Ledger) -> Iterator[Document]:
    """Those of which nothing better, no other corpus and no benchmark has a copy."""
    benchmark = None
    if work.sources.get("against"):
        benchmark = Benchmark(benchmark_items([source.path for source in work.given("against")]))
        work.metrics["benchmark_items"] = benchmark.items
    others = work.given("distinct_from")
    near = rules.near or (1.0 if others else 0.0)
    distinct = Distinct(near, rules.repeated_sentences, rules.min_characters, benchmark)
    for document in distinct(documents, _texts_of(others), work.checkpoints, ledger.drop):
        ledger.kept(document.metadata["file"])
        yield document


def _texts_of(sources: list[Source]) -> Iterator[tuple[str, str]]:
    """`(id, text)` of whole corpora, held-out documents too."""
    for source in sources:
        yield from ((f"{source.path.name}/{name}", normalise(text)) for name, text in read_whole(source.path))


def _count(documents: Iterator[Document]) -> dict[str, int]:
    counts = {"documents": 0, "characters": 0}
    for document in documents:
        counts["documents"] += 1
        counts["characters"] += len(document.text)
    return counts


def _write_parts(work: Work, config: CleanConfig, documents: Iterator[Document]) -> dict[str, int]:
    """Write the pieces of both splits, a part as soon as it is full; returns documents and characters of each."""
    counts = {f"{prefix}{what}": 0 for what in ("documents", "characters") for prefix in ("", "heldout_")}
    waiting: dict[str, list[Document]] = {"part": [], "heldout": []}
    parts: Counter[str] = Counter()

    def flush(split: str) -> None:
        write_documents(work.path / f"{split}-{parts[split]:05d}.parquet", waiting[split])
        parts[split] += 1
        waiting[split] = []
    for document in documents:
        pieces = filters.divide(document.text, config.max_characters)
        for number, text in enumerate(pieces):
            metadata = {key: value for key, value in document.metadata.items() if key != "original" or number == 0}
            piece = Document(document.id if len(pieces) == 1 else f"{document.id}#{number}", text, metadata)
            split = "heldout" if drawn(piece.id, config.heldout) else "part"
            prefix = "heldout_" if split == "heldout" else ""
            counts[f"{prefix}documents"] += 1
            counts[f"{prefix}characters"] += len(text)
            waiting[split].append(piece)
            if len(waiting[split]) == _PART:
                flush(split)
    for split in waiting:
        if waiting[split]:
            flush(split)
    return counts


class Histogram:
    """Shares of 0 to 1 by hundredths, in fixed memory."""

    def __init__(self) -> None:
        self._counts: dict[str, np.ndarray] = {}

    def add(self, signals: dict[str, float]) -> None:
        for name, value in signals.items():
            if name != "characters":
                self._counts.setdefault(name, np.zeros(101, np.int64))[min(int(value * 100), 100)] += 1

    def quantiles(self) -> dict[str, dict[str, float]]:
        """Of each signal, the value that 1, 10, 50, 90 and 99 of a hundred documents do not exceed."""
        return {name: {f"{q}%": int(np.searchsorted(np.cumsum(counts), counts.sum() * q / 100)) / 100 for q in (1, 10, 50, 90, 99)}
                for name, counts in self._counts.items()}


