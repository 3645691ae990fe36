"""Lines without Chinese for vocab_families.py: translation catalogues of installed packages, Python's own sources, emoji.

A line is a line of a message, of plain English a sentence; those with a Han character are left out (most Japanese ones
have some).
"""

from __future__ import annotations

import gettext
import random
import re
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from zhtune.text import HAN_RUN

CATALOGUES = (Path("/usr/share/locale"), Path(sysconfig.get_path("purelib")))
NUMBER = 2000
_SCRIPTS = {                                                # name -> (language, what a line must hold)
    "kana": ("ja", "[\u3041-\u30ff]"), "hangul": ("ko", "[\uac00-\ud7a3]"), "cyrillic": ("ru", "[\u0400-\u04ff]"),
    "arabic": ("ar", "[\u0600-\u06ff]"),
}
_EMOJI = re.compile("[\u2600-\u27bf\ufe0f\U0001f000-\U0001faff]")


def drift_sets(english: Path) -> tuple[dict[str, list[str]], list[Path]]:
    """Up to 2,000 lines of each kind, drawn with a seed, and the catalogues they come from.

    Args:
        english: a text file of plain English.
    """
    sets: dict[str, Iterable[str]] = {"english": re.split(r"(?<=[.!?]) |\n", english.read_text("utf-8")), "code": _source_lines()}
    files, messages = [], set()
    for name, (language, pattern) in _SCRIPTS.items():
        found = sorted(path for folder in CATALOGUES for path in folder.rglob("*.mo") if language in path.parts)
        lines, original = read_catalogues(found)
        files, messages = files + found, messages | original | lines
        sets[name] = [line for line in lines if re.search(pattern, line)]
    sets["messages"] = [line for line in messages if line.isascii()]
    sets["emoji"] = {line for line in messages if _EMOJI.search(line)} | _emoji_names()
    return {name: _draw(lines) for name, lines in sets.items()}, files


def read_catalogues(files: list[Path]) -> tuple[set[str], set[str]]:
    """The lines of all translations, and those of what was translated."""
    lines: set[str] = set()
    original: set[str] = set()
    for path in files:
        with open(path, "rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog
        for key, text in catalogue.items():
            key = key[0] if isinstance(key, tuple) else key
            if key:                                         # "" is the catalogue's own description
                lines.update(text.split("\n"))
                original.update(key.split("\n"))
    return lines, original


def _draw(lines: Iterable[str]) -> list[str]:
    kept = sorted({line for line in lines if line.strip() and not HAN_RUN.search(line)})
    return sorted(random.Random(0).sample(kept, min(NUMBER, len(kept))))


def _source_lines() -> list[str]:
    """Lines of the modules at the top of the standard library."""
    return [line for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")) for line in path.read_text("utf-8").split("\n")]


def _emoji_names() -> set[str]:
    """Lines of rich's table: "woman_health_worker 👩‍⚕️"."""
    from rich._emoji_codes import EMOJI
    return {f"{name} {emoji}" for name, emoji in EMOJI.items()}
