"""Raw files -> documents, and corpus artifacts -> documents. Decides nothing about quality.

Reads .txt and .md (one document a file) and .jsonl (one a line, its text under "text", "content" or "body"), in UTF-8
with or without BOM, or in GB18030. A broken line or file is yielded as a Refusal, with its place; the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from zhtune.errors import DataError
from zhtune.records import Document, dumps, parse_object

TEXT_KEYS = ("text", "content", "body")
_SUFFIXES = (".txt", ".md", ".jsonl")
_SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("metadata", pa.string())])


@dataclass(frozen=True)
class Refusal:
    """A piece of input that is no document, and why."""

    reason: str
    where: str
    detail: str


def read_files(paths: list[Path]) -> Iterator[Document | Refusal]:
    """Yield the documents of files and folders, sorted by name; ids are paths relative to the folder given, after the
    folder's own name (or its number, where two have one name) if several are given.

    Raises:
        DataError: a folder that holds no readable file.
    """
    for place, path in zip(_places(paths), paths, strict=True):
        files = [path] if path.is_file() else _visible_files(path)
        if not any(file.suffix.lower() in _SUFFIXES for file in files):
            raise DataError(f"holds no file of the kinds {', '.join(_SUFFIXES)}", path)
        for file in files:
            name = place + (file.name if path.is_file() else file.relative_to(path).as_posix())
            if file.suffix.lower() in _SUFFIXES:
                yield from _read_file(file, name)
            else:
                yield Refusal("unknown_format", name, f"suffix {file.suffix!r}")


def _places(paths: list[Path]) -> list[str]:
    """What stands before the names of each input's files, so that no two documents have one id."""
    if len(paths) == 1:
        return [""]
    names = [path.name for path in paths]
    if all(path.is_file() for path in paths) and len(set(names)) == len(names):
        return [""] * len(paths)
    return [f"{name}/" if names.count(name) == 1 else f"{name}.{number}/" for number, name in enumerate(names)]


def _visible_files(folder: Path) -> list[Path]:
    """What counts in a folder: the same files whose content its digest covers."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts))


def decode(data: bytes) -> tuple[str, str] | None:
    """(text, encoding) of UTF-8 (BOM removed) or GB18030 bytes; None when they are neither."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding), encoding.removesuffix("-sig")
        except UnicodeDecodeError:
            continue
    return None


def _read_file(path: Path, name: str) -> Iterator[Document | Refusal]:
    try:
        data = path.read_bytes()
    except OSError as error:
        yield Refusal("unreadable", name, str(error.strerror))
        return
    decoded = decode(data)
    if decoded is None:
        yield Refusal("undecodable", name, "neither UTF-8 nor GB18030")
        return
    text, encoding = decoded
    if path.suffix.lower() != ".jsonl":
        yield Document(name, text, {"file": name, "encoding": encoding})
        return
    for number, line in enumerate(text.split("\n"), 1):     # at LF only: U+2028 may stand in a JSON string
        if line.strip():
            yield _json_document(line, name, number)


def _json_document(line: str, name: str, number: int) -> Document | Refusal:
    where = f"{name}:{number}"
    try:
        row = parse_object(line.encode("utf-8"), name, number)
    except DataError as error:
        return Refusal("bad_json", where, str(error))
    text = next((row[key] for key in TEXT_KEYS if isinstance(row.get(key), str)), None)
    if text is None:
        return Refusal("no_text_field", where, f"none of the keys {', '.join(TEXT_KEYS)} holds a string")
    return Document(where, text, {"file": name, **{k: v for k, v in row.items() if k == "title" and isinstance(v, str)}})


def write_documents(path: Path, documents: list[Document]) -> None:
    """Write one parquet part: id, text, metadata (a JSON object as text)."""
    columns = {"id": [d.id for d in documents], "text": [d.text for d in documents],
               "metadata": [dumps(d.metadata).decode() for d in documents]}
    pq.write_table(pa.table(columns, _SCHEMA), path, compression="zstd")


def read_texts(folder: Path, split: str = "part") -> Iterator[tuple[str, str]]:
    """Yield `(id, text)` of a corpus artifact's split: "part" (to learn from) or "heldout" (to measure on).

    A plain file or folder has no split: all of it is yielded, whichever split is asked for.
    """
    if not (folder / "manifest.json").exists():
        yield from ((d.id, d.text) for d in read_files([folder]) if isinstance(d, Document))
        return
    for path in sorted(folder.glob(f"{split}-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(columns=["id", "text"]):
            yield from zip(batch.column("id").to_pylist(), batch.column("text").to_pylist(), strict=True)
