"""Spreadsheets as rows of text cells, each with its line. Decides nothing about what they mean."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zhtune.errors import DataError

Line = tuple[int, list[str]]


def read_sheets(source: Path | io.BytesIO, name: str = "") -> Iterator[tuple[str, list[Line]]]:
    """Yield (file and sheet, its rows that are not blank) of a spreadsheet, for each sheet that is not empty.

    Args:
        source: its path, or its content.
        name: of the file, where only its content is given.

    Raises:
        DataError: it is no spreadsheet, or a cell holds an error.
    """
    from python_calamine import CalamineError, CalamineWorkbook
    try:
        book = CalamineWorkbook.from_object(source)
        sheets = [(name, book.get_sheet_by_name(name).to_python(skip_empty_area=False)) for name in book.sheet_names]
    except (CalamineError, OSError) as error:
        raise DataError(f"is no spreadsheet that can be read: {' '.join(str(error).split())}", name or source) from error
    for sheet, rows in sheets:
        texts = ((number, [cell_text(value) for value in row]) for number, row in enumerate(rows, 1))
        if lines := [line for line in texts if any(cell.strip() for cell in line[1])]:
            yield f"{name or source}[{sheet}]", lines


def cell_text(value: Any) -> str:
    """A cell as text: text untouched, whole numbers without .0, TRUE and FALSE, ISO dates (after a blank the time, where it is not midnight)."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return str(value).removesuffix(" 00:00:00")
    return "" if value is None else str(value)
