"""Tables from CSV and TSV as rows of text cells, each with its line; a cell stays the text it is. Decides nothing about what they mean."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from zhtune.corpus.encodings import UNKNOWN_ENCODING, decode
from zhtune.corpus.sheets import Line
from zhtune.errors import DataError
from zhtune.graph.rows import Row
from zhtune.text import normalise


def file_text(path: Path) -> str:
    """A file's text, in any encoding of zhtune/corpus/encodings.py.

    Raises:
        DataError: it cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    decoded = decode(data)
    if decoded is None:
        raise DataError(f"is {UNKNOWN_ENCODING}", path)
    return decoded[0]


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, its text) of each line that is not blank; divided at LF only, for U+2028 may stand in a JSON string."""
    return ((number, line) for number, line in enumerate(file_text(path).split("\n"), 1) if line.strip())


@lru_cache(maxsize=1 << 17)
def clean(text: str) -> str:
    """A cell or name in NFC, without outer white space."""
    return normalise(text).strip()


def parts(text: str, split: str) -> list[str]:
    """What stands between the matches of a regular expression, without outer white space; nothing that is empty."""
    return [part for part in map(str.strip, re.split(split, text)) if part]


def read_csv(path: Path) -> Iterator[Line]:
    """Yield (line, cells) of each row that is not blank, as RFC 4180 says: a quote is doubled, a backslash an ordinary character.
    Of a .tsv the delimiter is a tab.

    Raises:
        DataError: broken quoting.
    """
    # newline="" keeps line breaks inside quoted cells
    reader = csv.reader(io.StringIO(file_text(path), newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    line = 1
    try:
        for row in reader:
            start, line = line, reader.line_num + 1
            if any(cell.strip() for cell in row):
                yield start, row
    except csv.Error as error:
        raise DataError(f"is not valid CSV: {error}", path, line) from error


def check_header(names: list[str], file: str | Path, line: int) -> None:
    """Refuse two columns of one name: which of them is meant cannot be told."""
    if twice := sorted(n for n in set(names) if names.count(n) > 1):
        raise DataError(f"the header names {twice[0]!r} twice", file, line)


def table_rows(lines: Iterator[Line], file: str) -> Iterator[Row]:
    """Yield the rows of a wide table under its header; columns without a name must be empty.

    Raises:
        DataError: a header that names a column twice, a row that is longer or shorter than it, a table without rows.
    """
    header, empty = [clean(cell) for cell in next(lines)[1]], True
    while header and not header[-1]:
        header.pop()
    check_header([*filter(None, header)], file, 1)
    for line, row in lines:
        empty, cells = False, [clean(cell) for cell in row]
        if len(header) == 1 and any(cells[1:]):
            raise DataError(f"has several cells, the first row only {header[0]!r}: expected a header there. Take out a title that stands above it; "
                            "between cells stands a comma in .csv, a tab in .tsv", file, line)
        if len(cells) < len(header) or any(cells[len(header):]):
            raise DataError(f"expected {len(header)} cells, found {len(cells)}", file, line)
        if stray := next((cell for name, cell in zip(header, cells, strict=False) if cell and not name), ""):
            raise DataError(f"{stray!r} stands in a column without a name", file, line)
        yield Row({n: [c] for n, c in zip(header, cells, strict=False) if n and c}, file, line, "cell")
    if empty:
        raise DataError("holds a header and no row", file)
