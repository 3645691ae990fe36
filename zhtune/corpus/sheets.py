"""Spreadsheets as rows of text cells, each with its line. Decides nothing about what they mean.

A cell is the text that people see where that is more than its number: a percentage, a code padded with zeros (.xlsx only;
thousands, currencies and rounding are left out), a value merged over several rows. One that holds an error (#N/A) is empty.
"""

from __future__ import annotations

import datetime
import io
import re
import zipfile
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from zhtune.errors import DataError

Line = tuple[int, list[str]]
_SHOWN = re.compile(r"[#,]*0(\.0+)?%|0{2,}")
"""Number formats that change what a number is, not only how it looks"""
_LOOKS = re.compile(r"_.|\[(?:Black|Blue|Cyan|Green|Magenta|Red|White|Yellow|Color ?\d+)\]", re.IGNORECASE)
"""Parts of a format that are room or colour alone"""
_PARTS = ("xl/styles.xml", "xl/workbook.xml", "xl/_rels/workbook.xml.rels")


def read_sheets(source: Path | io.BytesIO, name: str = "") -> Iterator[tuple[str, list[Line]]]:
    """Yield (file and sheet, its rows that are not blank) of a spreadsheet, for each sheet that is not empty.

    Args:
        source: its path, or its content.
        name: of the file, where only its content is given.

    Raises:
        DataError: it is no spreadsheet.
    """
    from python_calamine import CalamineError, CalamineWorkbook
    try:
        book = CalamineWorkbook.from_object(source)
        sheets = [(sheet, sheet.to_python(skip_empty_area=False)) for sheet in map(book.get_sheet_by_name, book.sheet_names)]
        formats = _formats(source)
    except (CalamineError, OSError, zipfile.BadZipFile, ElementTree.ParseError) as error:
        raise DataError(f"is no spreadsheet that can be read: {' '.join(str(error).split())}", name or source) from error
    for sheet, values in sheets:
        shown = formats.get(sheet.name, {})
        rows = [[cell_text(value, shown.get((r, c), "")) for c, value in enumerate(row)] for r, row in enumerate(values)]
        _unmerge(rows, sheet.merged_cell_ranges or [])
        if lines := [(number, row) for number, row in enumerate(rows, 1) if any(map(str.strip, row))]:
            yield f"{name or source}[{sheet.name}]", lines


def _unmerge(rows: list[list[str]], ranges: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    """Give a value merged over rows to each that holds something else too. Downward only: to the right a merged title would name every column;
    and not from the first row: below a header stand units, not a thing of its name."""
    filled = [any(map(str.strip, row)) for row in rows]
    for (top, column), (bottom, _) in ranges:
        for row in range(top + 1, min(bottom + 1, len(rows))):
            if filled[row] and any(filled[:top]) and column < len(rows[row]):
                rows[row][column] = rows[top][column]


def _formats(source: Path | io.BytesIO) -> dict[str, dict[tuple[int, int], str]]:
    """Sheet -> (row, column), from 0 -> number format, of an .xlsx's cells whose format is one of _SHOWN: calamine tells none."""
    if not zipfile.is_zipfile(source):
        return {}
    with zipfile.ZipFile(source) as book:
        if not {*_PARTS} <= {*book.namelist()}:
            return {}
        styles, sheets, files = (ElementTree.fromstring(book.read(part)) for part in _PARTS)
        codes = {"9": "0%", "10": "0.00%"} | {e.get("numFmtId"): e.get("formatCode", "") for e in styles.iterfind("{*}numFmts/{*}numFmt")}
        shown = {str(i): _LOOKS.sub("", codes.get(e.get("numFmtId"), "").split(";")[0]) for i, e in enumerate(styles.iterfind("{*}cellXfs/{*}xf"))}
        shown = {style: code for style, code in shown.items() if _SHOWN.fullmatch(code)}
        targets = {e.get("Id"): e.get("Target", "").removeprefix("/xl/") for e in files} if shown else {}
        found = {}
        for sheet in sheets.iterfind("{*}sheets/{*}sheet"):
            part = "xl/" + next((targets.get(value, "") for key, value in sheet.items() if key.endswith("}id")), "")
            if part in book.namelist():
                with book.open(part) as stream:
                    found[sheet.get("name", "")] = {place: shown[style] for place, style in _styles(stream) if style in shown}
        return found


def _styles(stream: Any) -> Iterator[tuple[tuple[int, int], str]]:
    """((row, column), style) of each cell of a sheet's XML; a row or cell that does not say where it stands follows the last."""
    number = 0
    for _, row in ElementTree.iterparse(stream):
        if row.tag.endswith("}row"):
            number, column = int(row.get("r", number + 1)), 0
            for cell in row:
                column += 1
                if place := cell.get("r", "").rstrip("0123456789"):
                    column = sum((ord(letter) - 64) * 26 ** i for i, letter in enumerate(reversed(place)))
                yield (number - 1, column - 1), cell.get("s", "0")
            row.clear()


def cell_text(value: Any, shown: str = "") -> str:
    """A cell as text: text untouched, whole numbers without .0, TRUE and FALSE, ISO dates (after a blank the time, where it is not midnight).

    Args:
        shown: the number format, if it is one of _SHOWN.
    """
    if isinstance(value, bool):
        return str(value).upper()
    if shown.endswith("%") and isinstance(value, int | float):
        with localcontext(rounding=ROUND_HALF_UP):          # as Excel rounds
            return f"{Decimal(repr(value)):.{len(shown.partition('.')[2].rstrip('%'))}%}"
    if shown and isinstance(value, int | float) and value >= 0 and float(value).is_integer():
        return str(int(value)).zfill(len(shown))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, float):                            # as many digits as Excel shows: 0.04049999999999999 is 0.0405 there
        return f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        return str(value).removesuffix(" 00:00:00")
    return "" if value is None else str(value)
