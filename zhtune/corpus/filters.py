"""Named refusals and the division of long documents. A filter answers None (keep) or the reason's name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zhtune.config import from_mapping, read_yaml
from zhtune.corpus import signals
from zhtune.corpus.classifier import Words
from zhtune.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What becomes of a document. A preset (scripts/presets/*.yaml) holds what differs from the defaults here.
    A share of 1 (for max_) or 0 (for min_) turns its rule off."""

    min_characters: int = 20
    """Fewest visible characters (too_short)"""
    min_han: float = 0.3
    """Least share of Han characters among the visible ones (few_han)"""
    max_garbled: float = 0.01
    """U+FFFD and private-use characters (garbled)"""
    max_kana: float = 1.0
    """Japanese kana and Korean hangul: Japanese is not Chinese (other_script)"""
    max_digits: float = 1.0
    """Digits (many_digits)"""
    max_symbols: float = 1.0
    """Signs that are neither letters nor punctuation: # $ < = | and box drawings (many_symbols)"""
    min_terminal: float = 0.0
    """Least share of lines that end a sentence or have a mark of one (unfinished_lines)"""
    max_short_lines: float = 1.0
    """Lines under 10 characters without any mark of a sentence (short_lines)"""
    max_repeated_lines: float = 1.0
    """Characters in lines that came before in the document (repeated_lines)"""
    max_repetition: float = 1.0
    """Han characters in runs of 30 (fewer in short texts) that came before in the document (repetitive)"""
    max_adverts: float = 1.0
    """Characters in words of advertising and gambling (adverts)"""
    min_percentile: float = 0.0
    """With --good: documents less like it than this share of the good documents themselves are refused (unlike_good)"""
    min_label: float = 0.0
    """With --classifier: least probability of the label (unlike_label)"""
    label: str = ""
    """That label of the classifier, such as zh of lid.176, or high_quality of your own"""
    label_words: Words = "text"
    """How the classifier's training text was divided by blanks: as it stood, into characters, or by jieba"""
    mojibake: bool = False
    """Read back what was read in a wrong encoding, refuse what cannot be (mojibake)"""
    markup: bool = False
    """Remove known HTML tags, entities and terminal colours inside of text"""
    urls: Literal["keep", "remove"] = "keep"
    """URLs; one ends where Han or Chinese punctuation begins"""
    boilerplate: int = 0
    """Remove navigation lines that stand in at least this many documents; 0 for none"""
    script: Literal["keep", "simplified"] = "keep"
    """Convert documents in traditional characters, and only those, to simplified ones"""
    original: bool = False
    """Keep the text as it was before that conversion in the metadata, under "original" """
    personal: Literal["keep", "mask", "drop"] = "keep"
    """Personal data: replaced by what it is, such as 【手机号】, or its document refused (personal)"""

    near: float = 0.0
    """Documents whose 5-grams overlap so much (Jaccard) with those of a better one: 0.8, or 0 for none (near_duplicate)"""
    repeated_sentences: int = 0
    """Remove so many sentences in a row where a better document has them, too: 3, or 0 for none (repeated_sentences)"""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, float) and not 0 <= value <= 1:
                raise ConfigError(f"the rule {name} is a share from 0 to 1, not {value}")


# signal -> (reason, rule), asked in the order in which `measured` yields the signals.
_LIMITS = {"garbled": ("garbled", "max_garbled"), "characters": ("too_short", "min_characters"), "han": ("few_han", "min_han"),
           "kana": ("other_script", "max_kana"), "digits": ("many_digits", "max_digits"), "symbols": ("many_symbols", "max_symbols"),
           "terminal": ("unfinished_lines", "min_terminal"), "short_lines": ("short_lines", "max_short_lines"),
           "repeated_lines": ("repeated_lines", "max_repeated_lines"), "adverts": ("adverts", "max_adverts"),
           "repetition": ("repetitive", "max_repetition")}


def read_rules(preset: Path | None, changes: dict[str, Any]) -> Rules:
    """The rules of a preset file, with changes.

    Raises:
        ConfigError: an unknown rule, or a value that it cannot have.
    """
    return from_mapping(Rules, "rules", {**(read_yaml(preset) if preset else {}), **changes})


def measured(text: str, rules: Rules | None = None) -> Iterator[tuple[str, float]]:
    """Yield (signal, value); given rules, only those that these ask for. The dear ones come last."""
    yield from signals.shares(text).items()
    if rules is None or rules.min_terminal > 0 or min(rules.max_short_lines, rules.max_repeated_lines) < 1:
        yield from signals.line_shares(text).items()
    if rules is None or rules.max_adverts < 1:
        yield "adverts", signals.adverts(text)
    if rules is None or rules.max_repetition < 1:
        yield "repetition", signals.repetition(text)


def refusal(text: str, rules: Rules) -> tuple[str, float] | None:
    """(reason, value of its signal) why a normalised text is refused; None if it is kept."""
    for signal, value in measured(text, rules):
        reason, rule = _LIMITS[signal]
        if signal == "characters" and value == 0:
            return "empty", 0.0
        if value < getattr(rules, rule) if rule.startswith("min_") else value > getattr(rules, rule):
            return reason, round(value, 4)
    return None


def divide(text: str, limit: int) -> list[str]:
    """Pieces of at most `limit` characters, cut at paragraph ends, then at sentence ends, last anywhere; none is lost."""
    pieces: list[str] = []
    rest = text
    while len(rest) > limit:
        cut = max(rest.rfind("\n", 0, limit), 0) + 1
        if cut <= limit // 2:
            cut = max(rest.rfind(mark, 0, limit) for mark in "。！？；") + 1
        if cut <= limit // 2:
            cut = limit
        pieces.append(rest[:cut])
        rest = rest[cut:]
    return [*pieces, rest]
