"""Files of records -> rows, each a dict and its place. What the keys mean is for zhtune/synthesis/formats.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zhtune.corpus import tabular
from zhtune.corpus.read import list_files
from zhtune.corpus.streams import suffix_of
from zhtune.corpus.tabular import Refusal, Row
from zhtune.digests import visible_files

SUFFIXES = (*tabular.SUFFIXES, ".txt")


def read_rows(paths: list[Path]) -> Iterator[Row | Refusal]:
    """Yield the rows of files and folders (all files in them, sorted by name; of an artifact its JSON Lines only).

    What cannot be read, of a file or as a whole, is yielded as a Refusal, and the rest goes on.

    Raises:
        DataError: a folder without any file of a known kind.
    """
    for file, name in list_files(paths, SUFFIXES, _files):
        suffix = suffix_of(name)
        if suffix not in SUFFIXES:
            yield Refusal("unknown_file", name, f"suffix {file.suffix!r}; known are {', '.join(SUFFIXES)}, plain, .gz or .zst")
            continue
        for row in tabular.read_rows(file, name, ".json" if suffix == ".txt" else suffix):
            if isinstance(row, Row) and not isinstance(row.value, dict):
                said = "" if isinstance(row.value, list) else f": {str(row.value)[:200]}"
                yield Refusal("not_an_object", row.where, type(row.value).__name__ + said, name)
            else:
                yield row


def _files(folder: Path) -> list[Path]:
    if (folder / "manifest.json").exists():
        return [file for file in (folder / "records.jsonl", folder / "preferences.jsonl") if file.exists()]
    return visible_files(folder)
