"""Files as they lie on disk, plain, .gz or .zst -> blocks of bytes and lines of text. Knows no format of data.

What a cut archive still gives is given; then the cut is said. A gzip file gives everything up to its cut, a zstd file
everything up to the block (at most 128 KB) that was cut.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from zhtune.corpus.encodings import HEAD, sniff

_PACKED = (".gz", ".zst")
_BYTEWISE = ("gb18030", "big5hkscs")                        # encodings whose ASCII is ASCII, besides UTF-8
_BLOCK = 1 << 20
_LINE_END = re.compile("(\r\n|\n|\r)")


class Line(NamedTuple):
    """One line without its end."""

    number: int
    text: str
    broken: bool
    """Whether some of its bytes are no characters of the file's encoding (they are U+FFFD here)"""
    end: str
    """Its end; empty for a last line without one, which a cut may have left"""


def suffix_of(name: str) -> str:
    """The suffix that tells the format, in lower case: ".jsonl" of "a.JSONL.gz"."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _PACKED else path.suffix


class Stream:
    """One file being read; an OSError that reading raises is the caller's to name."""

    def __init__(self, path: Path):
        self._path = path
        self.packed = path.suffix.lower() in _PACKED
        self.cut = ""
        """Why it ended before its end, known once it is read; empty for a whole file"""
        self._ascii = False
        self.encoding: str | None = None
        """Known once lines are read; None for bytes in no known encoding"""

    def blocks(self) -> Iterator[bytes]:
        """Yield the unpacked bytes in blocks of about a megabyte."""
        try:
            with self._open() as file:
                read = file.read1 if isinstance(file, gzip.GzipFile) else file.read   # read() would lose what precedes a cut
                while block := read(_BLOCK):
                    yield block
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.cut = f"the gzip archive is cut or damaged: {error}"
        except OSError as error:
            if error.errno is not None or not self.packed:
                raise
            self.cut = f"the zstd archive is cut or damaged: {error}"    # pyarrow has no type of its own for it

    def lines(self, at_cr: bool = False) -> Iterator[Line]:
        """Yield the lines, divided at LF; `at_cr`: also at a CR by itself, as old Macs wrote them."""
        number = 0
        for raw, ended in self._raw_lines():
            text, broken = (raw, False) if isinstance(raw, str) else self._decoded(raw)
            if not (at_cr and "\r" in text):
                yield Line(number := number + 1, text.removesuffix("\r"), broken, ("\r\n" if text.endswith("\r") else "\n") if ended else "")
                continue
            parts = _LINE_END.split(text + "\n" * ended)    # text, end, text, end … and what stands behind the last end
            for part, end in zip(parts[::2], [*parts[1::2], ""], strict=True):
                if part or end:
                    yield Line(number := number + 1, part, broken, end)

    def _open(self) -> Any:
        if self._path.suffix.lower() == ".gz":
            return gzip.open(self._path)
        if self._path.suffix.lower() == ".zst":
            import pyarrow as pa
            return pa.CompressedInputStream(pa.OSFile(str(self._path)), "zstd")
        return open(self._path, "rb")

    def _decoded(self, raw: bytes) -> tuple[str, bool]:
        if self._ascii and not raw.isascii():               # the first line that tells which encoding it is
            self._ascii, found = False, sniff(raw)
            self.encoding = found if found in _BYTEWISE else self.encoding
        try:
            return raw.decode(self.encoding), False
        except UnicodeDecodeError:
            return raw.decode(self.encoding, "replace"), True

    def _raw_lines(self) -> Iterator[tuple[bytes | str, bool]]:
        """(line, whether an LF ended it): bytes; of UTF-16, whose LF is two bytes, text."""
        blocks, head = self.blocks(), b""
        while len(head) < HEAD and (block := next(blocks, b"")):
            head += block
        self.encoding, self._ascii = sniff(head), head[:HEAD].isascii()
        if self.encoding is None:
            return
        if self.encoding == "utf-8-sig":
            head, self.encoding = head.removeprefix(codecs.BOM_UTF8), "utf-8"
        wide = codecs.getincrementaldecoder(self.encoding)("replace") if "16" in self.encoding else None
        rest, end = ("", "\n") if wide else (b"", b"\n")
        for block in chain([head], blocks):
            *whole, rest = (rest + (wide.decode(block) if wide else block)).split(end)
            yield from ((line, True) for line in whole)
        rest += wide.decode(b"", True) if wide else b""
        if rest:
            yield rest, False
