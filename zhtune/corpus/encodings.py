"""Which encoding Chinese bytes are in: UTF-8, GB18030, Big5 with HKSCS, UTF-16 with or without its mark.

Bytes that are not UTF-8 can be valid in several of the others; the one that reads as common characters is taken. That is
right from 40 bytes on, where statistical detectors confuse GB18030 with Big5 or with Latin.
"""

from __future__ import annotations

import codecs
from functools import cache

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_CANDIDATES = ("gb18030", "big5hkscs", "utf-16-le", "utf-16-be")
UNKNOWN_ENCODING = "in no encoding that is known: UTF-8, GB18030, Big5, UTF-16"
HEAD = 1 << 16                                              # bytes that are looked at
_LEAST = 0.5                                                # share of common characters below which bytes are no Chinese text
_LEAST_WIDE = 0.9                                           # of UTF-16 without mark and zero bytes: any two bytes are some character


def decode(data: bytes) -> tuple[str, str] | None:
    """(text, encoding) of bytes that are whole and without a fault; None when they are in none of the encodings."""
    for name in (sniff(data), "gb18030"):                   # the whole may hold what its head does not
        try:
            if name:
                return data.decode(name), name.removesuffix("-sig")
        except UnicodeDecodeError:
            continue
    return None


def sniff(data: bytes) -> str | None:
    """The encoding of a text by its first 64 KB; a few broken lines do not hide it. None: it is no text of these kinds."""
    head = data[:HEAD]
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    if 10 * head.count(0) <= len(head) and _mostly_utf8(head):      # of UTF-16 half the bytes of what is valid UTF-8 are zero
        return "utf-8"
    least = {name: _LEAST_WIDE if "16" in name and b"\0" not in head else _LEAST for name in _CANDIDATES}
    scores = {name: score for name in _CANDIDATES if (score := _score(head, name)) >= least[name]}
    return max(scores, key=scores.__getitem__, default=None if _faulty(head, "gb18030") else "gb18030")


def _mostly_utf8(head: bytes) -> bool:
    """Whether bytes are UTF-8 but for a cut end, or but for fewer lines than are good."""
    lines = [line for line in head.split(b"\n") if not line.isascii()]
    return not _faulty(head, "utf-8") or sum(_faulty(line, "utf-8") for line in lines) < len(lines) / 2


def _faulty(data: bytes, encoding: str) -> bool:
    """Whether bytes hold a fault, a cut end aside."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(data)
        return False
    except UnicodeDecodeError:
        return True


def _score(head: bytes, encoding: str) -> float:
    """Share of common characters among those beyond ASCII, faults counted as four uncommon ones; a cut end does not count."""
    if "16" not in encoding and b"\0" in head:
        return 0.0
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(head)
    beyond = [c for c in text if c > "\x7f"]
    faults = beyond.count("\ufffd") + sum(c < " " and c not in "\t\n\r\x1b" for c in text)
    common = _common()
    return sum(c in common for c in beyond) / (len(beyond) + 3 * faults) if beyond else 0.0


@cache
def _common() -> frozenset[str]:
    """The frequent characters of GB 2312 (level 1) and Big5 (level 1), the marks of both, and the lines that tables are drawn with."""
    simplified = bytes(b for high in (*range(0xA1, 0xA4), *range(0xB0, 0xD8)) for low in range(0xA1, 0xFF) for b in (high, low))
    traditional = bytes(b for high in (0xA1, *range(0xA4, 0xC7)) for low in (*range(0x40, 0x7F), *range(0xA1, 0xFF)) for b in (high, low))
    return frozenset(simplified.decode("gb2312", "ignore") + traditional.decode("big5", "ignore") + "".join(map(chr, range(0x2500, 0x2580))))
