"""Word and PDF files -> their text, in reading order. What holds no text (a scan, a locked file) is refused in words."""

from __future__ import annotations

import io
import logging
import re
import statistics
from collections.abc import Iterator
from typing import Any

from zhtune.errors import require
from zhtune.text import HAN

_SCAN = 20                                                  # visible characters a page below which a PDF is pictures of text
_PAGE_NUMBER = re.compile(r"[-—–\s第]*\d{1,4}[-—–\s页]*(?:[/共]\s*\d{1,4}\s*页?)?")
_ENDS = "。！？…；：”』」）!?;:"
_OPENS = re.compile(rf"[{HAN}“『「（《，、]")


class Unreadable(Exception):
    """(reason, detail) of a file that gives no text."""


def docx_text(data: bytes) -> str:
    """Paragraphs and tables of a .docx, a row of a table as one line with tabs.

    Raises:
        Unreadable: it is damaged, cut, or another kind of file.
    """
    docx = require("docx", "documents")
    try:
        return "\n".join(_blocks(docx.Document(io.BytesIO(data))))
    except Exception as error:                              # zip, XML and package errors have no type in common
        raise Unreadable("unreadable", f"is no Word document, or is damaged or cut ({_line(error)})") from error


def _blocks(document: Any) -> Iterator[str]:
    from docx.table import Table
    for block in document.iter_inner_content():
        if isinstance(block, Table):
            for row in block.rows:                          # a merged cell stands in row.cells as often as it is wide
                yield "\t".join({cell._tc: cell.text.replace("\n", " ") for cell in row.cells}.values())
        else:
            yield block.text


def pdf_text(data: bytes) -> str:
    """The text layer of a PDF: page numbers out, the line ends that a page's width made out.

    Raises:
        Unreadable: it is damaged, cut or locked, or has no text layer (a scan).
    """
    pypdf = require("pypdf", "documents")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)   # it tells of every small deviation from the standard
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("locked", "is protected by a password; save it without one")
        pages = [page.extract_text().encode("utf-16", "surrogatepass").decode("utf-16", "replace") for page in reader.pages]
    except Unreadable:
        raise
    except Exception as error:                              # the library raises many types on damaged files
        raise Unreadable("unreadable", f"is no PDF, or is damaged or cut ({_line(error)})") from error
    visible = sum(len("".join(page.split())) for page in pages)
    if visible < _SCAN * len(pages) or not pages:
        raise Unreadable("scanned", f"{visible} characters on {len(pages)} pages: a scan without a text layer; run OCR on it first")
    return "\n".join(_unwrapped([line for page in pages for line in _page_lines(page)]))


def _page_lines(page: str) -> list[str]:
    lines = [line.strip() for line in page.splitlines() if line.strip()]
    return [line for i, line in enumerate(lines) if not (i in (0, len(lines) - 1) and _PAGE_NUMBER.fullmatch(line))]


def _unwrapped(lines: list[str]) -> Iterator[str]:
    """Lines with those joined that only the width of the page divided: full ones that end within a sentence."""
    full = 0.85 * statistics.quantiles(map(len, lines), n=10)[8] if len(lines) > 1 else 0
    held = last = ""
    for line in lines:
        if held and not (len(last) >= full and last[-1] not in _ENDS and _OPENS.match(line)):
            yield held
            held = ""
        held, last = held + line, line
    if held:
        yield held


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
