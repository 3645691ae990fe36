"""Records or preferences in any known format -> the same in messages form, with a report of every problem by row and field; a
corpus -> the report alone, by the rules of `clean`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.corpus import clean_page
from zhtune.corpus.contamination import Benchmark
from zhtune.corpus.pii import MASKS
from zhtune.corpus.tabular import Refusal
from zhtune.errors import ConfigError, DataError
from zhtune.log import logger, progress
from zhtune.records import dumps, write_jsonl
from zhtune.references import resolve
from zhtune.stages.clean import CleanConfig, check_preset
from zhtune.stages.clean import write as write_clean
from zhtune.synthesis.formats import Item, read_pairs, read_record
from zhtune.synthesis.leaks import Duplicates, NearDuplicates, benchmark_items, benchmark_problems
from zhtune.synthesis.linting.checks import check_pair, check_record, field_names, mend_pair, mend_record
from zhtune.synthesis.linting.names import CURES, Problem
from zhtune.synthesis.linting.page import terminal, write_page
from zhtune.synthesis.rows import read_rows
from zhtune.text import writable

STAGE = Stage("lint", version=8, kind="records", others=("preferences", "report"),
              inputs={"records": ("records", "file"), "preferences": ("preferences", "file"), "corpus": ("corpus", "file"),
              "preset": ("file",), "against": ("file", "records", "preferences")})
_ROUNDS = 3                                                 # a repair may bring another problem to light: <think> without an answer


@dataclass(frozen=True, kw_only=True)
class LintConfig(StageConfig):
    """Read records or preferences in any known format, report every problem by row and field, and write them in messages
    form. What cannot be trained on is refused; --fix true also repairs what has one right repair and drops what has none."""

    records: str | list[str] = ""
    """Files or folders of records: JSON, JSON Lines, CSV, TSV, xlsx, parquet, in any format of docs/formats.md"""
    preferences: str | list[str] = ""
    """Files or folders of preferences, in the same kinds of file"""
    corpus: str | list[str] = ""
    """Texts of any kind that `clean` reads, or a corpus: reported is what the rules of --preset refuse, near and benchmark copies,
    and by file what was found besides: encodings, traditional characters, mended mojibake"""
    preset: str = ""
    """Rules for --corpus, as in `clean`; by default shipped:web. Personal data counts as a problem"""
    fields: list[str] = field(default_factory=list)
    """Fields of --corpus that are text, as in `clean`"""
    against: str | list[str] = ""
    """Test and benchmark files: rows that hold their questions, or 13 words (characters) of them, are reported"""
    fix: bool = False
    """Repair what has one right repair, drop what has none; off, such rows are kept and reported"""
    personal: Literal["mask", "keep"] = "mask"
    """What --fix does with personal data; keep it where the answers are to state it, such as a branch's telephone number"""
    near: float = 0.9
    """Rows whose question and answer are more like an earlier row's than this (ROUGE-L of words, 0 to 1) are reported, and documents
    of --corpus that are so near to a longer one (Jaccard of 5-grams); 0 for none"""
    own_names: list[str] = field(default_factory=list)
    """Product names that the assistant may call itself"""

    def check(self) -> None:
        if sum(map(bool, (self.records, self.preferences, self.corpus))) != 1:
            raise ConfigError("lint reads either --records, --preferences or --corpus: give one of them")
        if self.corpus and self.fix:
            raise ConfigError("--fix repairs records and preferences; a corpus is repaired by zhtune clean")
        if (self.preset or self.fields) and not self.corpus:
            raise ConfigError("--preset and --fields are for --corpus")
        if not 0 <= self.near < 1:
            raise ConfigError(f"--near is a share from 0 to below 1, not {self.near}")


@dataclass
class Findings:
    """What was found, as report.json and the page tell it."""

    problems: list[dict[str, str]] = field(default_factory=list)
    repaired: Counter[str] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)

    def note(self, where: str, problems: list[Problem]) -> None:
        for problem in problems:
            self.problems.append({"row": where, "field": problem.field, "problem": problem.name, "detail": _writable(problem.detail)})

    def table(self, dropped: Counter[str]) -> dict[str, dict[str, Any]]:
        """By name, in the order of CURES: how often it was found, in how many rows, and what became of them."""
        found = Counter(problem["problem"] for problem in self.problems)
        rows = Counter(name for name, _ in {(problem["problem"], problem["row"]) for problem in self.problems})
        return {name: {"cure": CURES[name].cure, "found": found[name], "rows": rows[name], "repaired": self.repaired[name],
                       "dropped": dropped[name]} for name in CURES if found[name]}


def lint(config: LintConfig) -> Artifact:
    """Write records.jsonl or preferences.jsonl, report.json and report.html, and show the table of problems.

    Raises:
        ConfigError: an unknown preset.
        DataError: a file cannot be read at all, or nothing is left.
    """
    check_preset(config.preset)
    made = build(STAGE, config, lambda work: (_report if config.corpus else _write)(work, config))
    logger.info("%s", (clean_page.terminal if config.corpus else terminal)(made.path / "report.json"))
    return made


def _report(work: Work, config: LintConfig) -> None:
    """What `clean --report_only` would say of a corpus."""
    sources = work.given("corpus")
    work.sources["input"] = [replace(source, path=path) for source in sources
                             for path in (sorted(source.path.glob("*.parquet")) if source.manifest else [source.path])]
    work.sources.setdefault("preset", resolve(config.preset or "shipped:web"))
    write_clean(work, CleanConfig(input=config.corpus, fields=config.fields, rules={"personal": "drop"}, near=config.near, report_only=True,
                                  out=config.out, workers=config.workers))


def _write(work: Work, config: LintConfig) -> None:
    name = "records" if config.records else "preferences"
    work.kind = name
    sources = work.given(name)
    work.licences = {licence for source in sources for licence in source.licences}   # a test file gives nothing away
    tests = Benchmark(benchmark_items([s.path for s in work.given("against")])) if config.against else None
    findings = Findings()
    kept = _kept(work, config, [s.path for s in sources], findings, tests)
    work.kept = write_jsonl(work.path / f"{name}.jsonl", progress(kept, "lint"))
    if not work.kept:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(work.dropped.items())) or "there was no row"
        first = next((f"; first {p['row']}: {p['problem']}: {p['detail']}" for p in findings.problems), "")
        raise DataError(f"no row is left of {work.counted_in}: {reasons}{first}", sources[0].path)
    table = findings.table(work.dropped)
    work.metrics |= {name: work.kept, "problems": len(findings.problems), "repaired_rows": findings.repaired["rows"]}
    work.report |= {"by_name": table, "formats": dict(sorted(findings.forms.items())), "ignored_fields": dict(sorted(findings.ignored.items())),
                    "test_items": {"items": tests.items, "common_grams": tests.common_grams} if tests else {}, "problems": findings.problems}
    counts = {"in": work.counted_in, "kept": work.kept, "dropped": sum(work.dropped.values()), "repaired": findings.repaired["rows"]}
    write_page(work.path / "report.html", name, config.fix, counts, work.report)


def _kept(work: Work, config: LintConfig, paths: list[Path], findings: Findings, tests: Benchmark | None) -> Iterator[dict[str, Any]]:
    """The rows that are kept, as they are written; all others are dropped by name."""
    duplicates, near = Duplicates(), NearDuplicates(config.near) if config.near else None
    for item in _items(paths, bool(config.preferences)):
        work.counted_in += 1
        if isinstance(item, Refusal):
            findings.note(item.where, [Problem(item.reason, "", item.detail)])
            work.drop(item.reason, id=item.where, detail=_writable(item.detail))
            continue
        findings.forms[item.form] += 1
        findings.ignored.update(map(writable, item.ignored))
        value, problems = _settle(item, config, findings)
        if not any(CURES[p.name].cure == "refuse" for p in problems):
            between = [*(_against(value, item, tests) if tests else ()), *duplicates.problems(item.where, *_halves(value), value.get("tools"))]
            if near and not any(p.name == "duplicate" for p in between):
                between += near.problems(item.where, *_halves(value))
            findings.note(item.where, between)
            problems = [*problems, *between]
        final = min((p for p in problems if _drops(p.name, config.fix)), key=lambda p: CURES[p.name].cure != "refuse", default=None)
        if final is None:
            yield value
        else:
            row = {key: value[key] for key in ("id", "messages", "prompt", "chosen", "rejected") if key in value}
            work.drop(final.name, id=item.where, field=final.field, detail=_writable(final.detail), row=_writable(row))


def _items(paths: list[Path], preferences: bool) -> Iterator[Item | Refusal]:
    for row in read_rows(paths):
        if isinstance(row, Refusal):
            yield row
        elif preferences:
            yield from read_pairs(row)
        else:
            yield read_record(row)


def _settle(item: Item, config: LintConfig, findings: Findings) -> tuple[dict[str, Any], list[Problem]]:
    """The row, repaired where that is asked for, and the problems that it still has."""
    check, mend = (check_pair, mend_pair) if config.preferences else (check_record, mend_record)
    value, fields = item.value, item.fields
    problems = check(value, fields, config.own_names)
    if not any(CURES[p.name].cure == "refuse" for p in problems):
        problems += _unwritable(value)
    findings.note(item.where, problems)
    repaired: set[str] = set()
    stay = MASKS.keys() if config.personal == "keep" else set()
    for _ in range(_ROUNDS if config.fix else 0):
        names = {p.name for p in problems} - stay
        if not any(CURES[name].cure == "repair" for name in names) or any(_drops(name, True) for name in names):
            break
        value, fields = mend(value, [p for p in problems if p.name in names]), {}
        left = check(value, fields, config.own_names)
        findings.note(item.where, [p for p in left if p.name not in names | stay])
        repaired |= names - {p.name for p in left}
        problems = left
    if config.fix:                                          # what a repair has not cured has none
        problems = sorted(problems, key=lambda p: not _drops(p.name, True))
    if not any(_drops(p.name, config.fix) for p in problems):
        findings.repaired.update(repaired)
        findings.repaired["rows"] += bool(repaired)
    return value, problems


def _drops(name: str, fix: bool) -> bool:
    return CURES[name].cure == "refuse" or (fix and CURES[name].cure == "drop")


def _halves(value: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(question, answer) of a record or pair, for duplicates: up to the last answer, and from it on."""
    if "prompt" in value:
        return value["prompt"], [*value["chosen"], *value["rejected"]]
    last = max(i for i, message in enumerate(value["messages"]) if message["role"] == "assistant")
    return value["messages"][:last], value["messages"][last:]


def _against(value: dict[str, Any], item: Item, tests: Benchmark) -> Iterator[Problem]:
    for key in ("messages", "prompt", "chosen"):
        if key in value:
            yield from benchmark_problems(tests, value[key], field_names(key, value[key], item.fields))


def _unwritable(value: dict[str, Any]) -> list[Problem]:
    """What no rule for texts has seen: in an id, a source, the arguments of a call (where NaN would become null)."""
    try:
        if b"null" in dumps(value):
            json.dumps({key: part for key, part in value.items() if key != "source"}, allow_nan=False)
    except TypeError as error:
        return [Problem("unwritable", "", str(error))]
    except ValueError:
        return [Problem("unwritable", "", "NaN or Infinity, for which JSON has no number")]
    return []


def _writable(value: Any) -> Any:
    """The same with half characters and huge integers spelt out, so that JSON can write them."""
    if isinstance(value, int) and not -2**63 <= value < 2**64:
        return str(value)
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, list):
        return [_writable(inner) for inner in value]
    return {_writable(key): _writable(inner) for key, inner in value.items()} if isinstance(value, dict) else value
