"""Lines without Chinese on which an extended tokenizer must agree with its base: code, English, other scripts, white space.

The code and much of the English is the source text of Python's own standard library, read at run time; the rest is
written here or drawn from Unicode ranges with a fixed seed.
"""

from __future__ import annotations

import random
from importlib.util import find_spec

_MODULES = ("argparse", "ast", "calendar", "collections", "configparser", "csv", "dataclasses", "difflib", "doctest", "enum",
            "inspect", "locale", "mailbox", "optparse", "pathlib", "pprint", "statistics", "tarfile", "textwrap", "turtle",
            "typing")
_LINES_A_MODULE = 500
_LINES_A_SCRIPT = 40
_SCRIPTS = {
    "latin": (0xC0, 0x24F), "ipa": (0x250, 0x2AF), "greek": (0x391, 0x3C9), "cyrillic": (0x410, 0x44F), "hebrew": (0x5D0, 0x5EA),
    "arabic": (0x621, 0x64A), "devanagari": (0x904, 0x939), "thai": (0xE01, 0xE3A), "hangul": (0xAC00, 0xD7A3),
    "hiragana": (0x3041, 0x3096), "katakana": (0x30A1, 0x30FA), "bopomofo": (0x3105, 0x312F), "cjk_punctuation": (0x3003, 0x301F),
    "punctuation": (0x2010, 0x2046), "arrows": (0x2190, 0x22FF), "box": (0x2500, 0x27BF), "hexagrams": (0x4DC0, 0x4DFF),
    "fullwidth": (0xFF01, 0xFF5E), "halfwidth_kana": (0xFF61, 0xFF9F), "emoji": (0x1F300, 0x1F64F),
    "mathematical": (0x1D400, 0x1D44F),
}
_PROSE = """The quick brown fox jumps over the lazy dog; it's 3:45 p.m., isn't it?
Dr. O'Neill paid $1,234.56 (about 1.1e3 euros) on 2024-02-29.
She said, "We'll see," and left. 'Fine,' he replied—then laughed…
HTTP/1.1 200 OK; Content-Type: text/html; charset=utf-8
def f(x: int) -> list[str]:\n    return [str(i) for i in range(x)]  # no comment
SELECT name, COUNT(*) FROM t WHERE id >= 10 GROUP BY 1;
{"key": [1, 2.5, null, true], "path": "C:\\\\temp\\\\x.txt"}
https://example.org/a?b=c&d=%20#e  user.name+tag@example.org
Blutdruck ca. 120/80 mmHg, weiß, Größe; l'hôpital, où, garçon, œuvre; niño, ¿qué?
Съешь же ещё этих мягких французских булок. Ελληνικά: καλημέρα κόσμε.
こんにちは、せかい。これはテストです。カタカナとひらがな。
ひらがなとカタカナ ー だけの行
한국어 문장도 그대로여야 합니다. مرحبا بالعالم، كيف حالك؟
\U0001f469\u200d\u2695\ufe0f \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e8\U0001f1f3 \U0001f44d\U0001f3fd \u2764\ufe0f
☑︎ 🫀 x²+y²≥z² ∑∫√ → ⇒ ½ ℃ № ™"""
_SPACES = ("", " ", "  ", "\t", "\n", "\r\n", " \n", "\n\n", "   \t ", "\u00a0", "\u2003", "\u3000", "\u200b", "\ufeff", "▁",
           "\x1c")


def plain_lines() -> list[str]:
    """Several thousand different lines without Han characters, the same ones every time on the same Python."""
    rng = random.Random(0)
    lines = [*_PROSE.split("\n"), *_PROSE.split("\n\n"), *_white_space(), *_source_lines()]
    for first, last in _SCRIPTS.values():
        for _ in range(_LINES_A_SCRIPT):
            words = ["".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 8))) for _ in range(rng.randint(1, 6))]
            lines.append(rng.choice((" ", "", ", ", "-", "\u3000", " 1 ")).join(words))
    return sorted(set(lines))


def _white_space() -> list[str]:
    """Words between all pairs of white-space oddities."""
    return [f"{a}word{b}1 x{a}{b}" for a in _SPACES for b in _SPACES] + [a + b for a in _SPACES for b in _SPACES]


def _source_lines() -> list[str]:
    """Lines of standard library modules, with their indentation; a module without source text gives none."""
    lines: list[str] = []
    for name in _MODULES:
        spec = find_spec(name)
        source = spec.loader.get_source(name) if spec is not None and spec.loader is not None else None
        lines += (source or "").split("\n")[:_LINES_A_MODULE]
    return lines
