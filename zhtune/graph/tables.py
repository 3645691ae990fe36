"""Tables from CSV and TSV as rows of text cells, each with its line; a cell stays the text it is. Decides nothing about what they mean."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from zhtune.corpus.encodings import decode
from zhtune.corpus.sheets import Line
from zhtune.errors import DataError
from zhtune.graph.rows import Row
from zhtune.text import normalise


def file_text(path: Path) -> str:
    """A file's text in UTF-8, GB18030, or UTF-16 with a byte order mark.

    Raises:
        DataError: it cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError("begins with the mark of UTF-16 but is none", path) from error
    decoded = decode(data)
    if decoded is None:
        raise DataError("is neither UTF-8 nor GB18030", path)
    return decoded[0]


@lru_cache(maxsize=1 << 17)
def clean(text: str) -> str:
    """A cell or name in NFC, without outer white space."""
    return normalise(text).strip()


def read_csv(path: Path, delimiter: str) -> Iterator[Line]:
    """Yield (line, cells) of each row that is not blank, as RFC 4180 says: a quote is doubled, a backslash an ordinary character.

    Raises:
        DataError: broken quoting.
    """
    # newline="" keeps line breaks inside quoted cells
    reader = csv.reader(io.StringIO(file_text(path), newline=""), delimiter=delimiter, doublequote=True, escapechar=None, strict=True)
    line = 1
    try:
        for row in reader:
            start, line = line, reader.line_num + 1
            if any(cell.strip() for cell in row):
                yield start, row
    except csv.Error as error:
        raise DataError(f"is not valid CSV: {error}", path, line) from error


def table_rows(lines: Iterator[Line], file: str) -> Iterator[Row]:
    """Yield the rows of a wide table under its header; columns without a name must be empty.

    Raises:
        DataError: a header that names a column twice, a row that is longer or shorter than it, a table without rows.
    """
    header, empty = [clean(cell) for cell in next(lines)[1]], True
    while header and not header[-1]:
        header.pop()
    if twice := sorted(n for n in set(header) - {""} if header.count(n) > 1):
        raise DataError(f"the header names {twice[0]!r} twice", file, 1)
    for line, row in lines:
        empty, cells = False, [clean(cell) for cell in row]
        if len(cells) < len(header) or any(cells[len(header):]):
            raise DataError(f"expected {len(header)} cells, found {len(cells)}", file, line)
        if stray := next((cell for name, cell in zip(header, cells, strict=False) if cell and not name), ""):
            raise DataError(f"{stray!r} stands in a column without a name", file, line)
        yield Row({n: [c] for n, c in zip(header, cells, strict=False) if n and c}, "cell", frozenset(), "", (), file, line)
    if empty:
        raise DataError("holds a header and no row", file)
