"""Traditional -> simplified, behind a gate: opencc's tw2s damages text that is simplified already (显著 becomes 显着)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from zhtune.corpus.signals import code_points, shares
from zhtune.errors import require

_GATE = 0.025                                               # share of Han characters that only traditional text has
_PHRASES = {"甚么": "什么", "姪": "侄"}                      # what tw2s leaves


def is_traditional(text: str) -> bool:
    """Whether a text is written in traditional characters: more than 1 in 40 of its Han characters is of no simplified text."""
    marks = np.count_nonzero(_traditional()[code_points(text)])
    if not marks:
        return False
    share = shares(text)
    return bool(marks > _GATE * share["han"] * share["characters"])


def simplified(text: str) -> str:
    """A traditional text in simplified characters, Taiwan's variants and phrases of characters included (words stay: 程式)."""
    text = _converter("tw2s").convert(text)
    for old, new in _PHRASES.items():
        text = text.replace(old, new)
    return text


@cache
def _converter(name: str) -> Any:
    return require("opencc", "documents").OpenCC(name)


@cache
def _traditional() -> np.ndarray:
    """(1114112,): the characters that t2s changes and GB 2312 has not. 乾, 著, 瞭, 於 stand in simplified text, too: not they."""
    characters = [chr(code) for code in (*range(0x3400, 0xA000), *range(0xF900, 0xFB00))]
    others = _converter("t2s").convert("\n".join(characters)).split("\n")
    table = np.zeros(0x110000, bool)
    table[[ord(a) for a, b in zip(characters, others, strict=True) if a != b and not a.encode("gb2312", "ignore")]] = True
    return table
