"""One document: normalised, judged, masked. A pure function of the document and the settings, so any process may do it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from zhtune.corpus import char_model, filters, script
from zhtune.corpus.boilerplate import LineCounts, line_keys
from zhtune.corpus.classifier import Classifier
from zhtune.corpus.html_text import strip_markup
from zhtune.corpus.mojibake import GARBLED, mend
from zhtune.corpus.pii import personal, replace
from zhtune.corpus.read import Sealed, unseal
from zhtune.corpus.tabular import Refusal
from zhtune.parallel import in_order
from zhtune.records import Document
from zhtune.text import URL, normalise

_EXCERPT = 200                                              # characters of a refused text that are kept
_SUSPECT = 500                                              # one sign of a wrong encoding in so many characters


@dataclass(frozen=True)
class Settings:
    """What every document is held against."""

    rules: filters.Rules
    model: tuple[char_model.CharModel, float] | None = None
    """A model of good text, and the most bits a character that a document may cost it"""
    classifier: Classifier | None = None
    lines: LineCounts | None = None
    """How many documents have each line"""
    measure: bool = False
    """Whether all signals of each document are wanted"""


@dataclass(frozen=True)
class Outcome:
    """What became of one piece of input."""

    id: str
    file: str
    document: Document | None = None
    """Normalised; None if it is refused"""
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    """What is kept of a refused one"""
    personal: Counter[str] = field(default_factory=Counter)
    """Personal data that was masked, by kind"""
    signals: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What is no reason to refuse it, where signals are wanted: its encoding, traditional, mended"""


def prepare(item: Document | Refusal | Sealed, settings: Settings) -> Outcome:
    """Normalise a piece of input and judge it."""
    rules = settings.rules
    item = unseal(item)
    if isinstance(item, Refusal):
        return Outcome(item.where, item.file or item.where, reason=item.reason, details={"detail": item.detail})
    text, metadata = _normalised(item.text, rules), item.metadata
    if settings.lines:
        text = settings.lines.without(text, rules.boilerplate).strip()
    if rules.script == "simplified" and script.is_traditional(text):
        metadata = {**metadata, "script": "traditional", **({"original": _masked(text, rules)} if rules.original else {})}
        text = script.simplified(text)
    seen = {"signals": dict(filters.measured(text)), "notes": tuple(_notes(item, metadata, rules))} if settings.measure else {}
    outcome = partial(Outcome, item.id, metadata["file"], **seen)
    if refused := _refusal(text, settings):
        return outcome(reason=refused[0], details={"text": _masked(text[:_EXCERPT], rules), "value": refused[1]})
    found = list(personal(text)) if rules.personal != "keep" else []
    counts = Counter(find.name for find in found)
    if found and rules.personal == "drop":
        detail = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        return outcome(reason="personal", details={"detail": detail})
    return outcome(Document(item.id, replace(text, found), metadata), personal=counts)


def prepared(items: Iterable[Document | Refusal | Sealed], settings: Settings, workers: int = 1) -> Iterator[Outcome]:
    """Yield the Outcome of every piece of input, in order."""
    return in_order(lambda item: prepare(item, settings), items, _weight, workers)


def count_lines(items: Iterable[Document | Refusal | Sealed], rules: filters.Rules, workers: int = 1) -> LineCounts:
    """In how many documents of the input each line stands that may be navigation."""
    def keys(item: Document | Refusal | Sealed) -> set[int]:
        item = unseal(item)
        return line_keys(_normalised(item.text, rules)) if isinstance(item, Document) else set()
    counts = LineCounts()
    for found in in_order(keys, items, _weight, workers):
        counts.add(found)
    return counts


def _notes(item: Document, metadata: dict[str, Any], rules: filters.Rules) -> Iterator[str]:
    yield from (metadata[key] for key in ("encoding", "script") if metadata.get(key, "utf-8") != "utf-8")
    if rules.mojibake and mend(item.text) != item.text:
        yield "mended"


def _masked(text: str, rules: filters.Rules) -> str:
    return text if rules.personal == "keep" else replace(text, list(personal(text)))


def _normalised(text: str, rules: filters.Rules) -> str:
    text = mend(text) if rules.mojibake else text
    text = normalise(strip_markup(text) if rules.markup else text)
    return (URL.sub("", text) if rules.urls == "remove" and ("://" in text or "www." in text) else text).strip()


def _refusal(text: str, settings: Settings) -> tuple[str, float] | None:
    """(reason, value) why a normalised text is refused."""
    if refused := filters.refusal(text, settings.rules):
        return refused
    if settings.rules.mojibake and (signs := len(GARBLED.findall(text))) * _SUSPECT > len(text):
        return "mojibake", signs
    if settings.model:
        model, limit = settings.model
        bits = model.bits(text)
        if bits > limit:
            return "unlike_good", round(bits, 3)
    if settings.classifier and (chance := settings.classifier.probability(text)) < settings.rules.min_label:
        return "unlike_label", round(chance, 4)
    return None


def _weight(item: Document | Refusal | Sealed) -> int:
    return len(item.detail if isinstance(item, Refusal) else item.text if isinstance(item, Document) else item.content) + 100
