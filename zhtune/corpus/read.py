"""Raw files -> documents, and corpus artifacts -> documents. Decides nothing about quality.

    .txt .md                         one document a file (of a file beyond 16 million characters: one a part, cut at line ends)
    .html .htm .xhtml .docx .pdf     one document a file
    .jsonl .ndjson .json .csv .tsv .xlsx .parquet    one document a row; its text is in the fields asked for, or in the first of TEXT_KEYS

Each may be packed as .gz or .zst, in any encoding of zhtune/corpus/encodings.py. A broken line or file is yielded as a
Refusal, with its place; the rest goes on. What takes long to open is yielded sealed, so that another process can open it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zhtune.corpus.documents import Unreadable, docx_text, pdf_text
from zhtune.corpus.encodings import UNKNOWN_ENCODING, decode
from zhtune.corpus.html_text import html_text
from zhtune.corpus.streams import Stream, suffix_of
from zhtune.corpus.tabular import SUFFIXES as _TABLES
from zhtune.corpus.tabular import Refusal, Row, read_rows
from zhtune.digests import visible_files
from zhtune.errors import DataError
from zhtune.log import logger
from zhtune.records import Document, dumps
from zhtune.text import writable

TEXT_KEYS = ("text", "content", "body", "html", "正文", "内容", "文本")
_TEXTS, _PAGES, _FILES = (".txt", ".md"), (".html", ".htm", ".xhtml"), (".docx", ".pdf")
SUFFIXES = (*_TEXTS, *_PAGES, *_FILES, *_TABLES)
_LONGEST = 1 << 24                                          # characters of a text file that are one document
_PIECE = re.compile(r"#[1-9]\d*$")                          # what ends the id of a divided document's later pieces
_SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("metadata", pa.string())])


@dataclass(frozen=True)
class Sealed:
    """A document that is not opened yet: a page of HTML, a Word or PDF file."""

    id: str
    suffix: str
    content: bytes | str
    metadata: dict[str, Any]


def read_files(paths: list[Path], fields: Iterable[str] = ()) -> Iterator[Document | Refusal]:
    """Yield the documents of files and folders, sorted by name; ids are paths relative to the folder given, after the
    folder's own name (or its number, where two have one name) if several are given.

    Args:
        paths: files and folders.
        fields: of rows; the texts of all that a row has are joined by line ends. Without them: the first of TEXT_KEYS.

    Raises:
        DataError: a folder that holds no readable file.
    """
    return map(unseal, read_sealed(paths, fields))


def read_sealed(paths: list[Path], fields: Iterable[str] = ()) -> Iterator[Document | Refusal | Sealed]:
    """As `read_files`; `unseal` opens what is sealed."""
    fields = tuple(fields)
    for file, name in list_files(paths):
        yield from read_file(file, name, fields)


def list_files(paths: list[Path], suffixes: Iterable[str] = SUFFIXES, files_of: Callable[[Path], list[Path]] = visible_files,
               ) -> Iterator[tuple[Path, str]]:
    """The files of files and folders in the order in which they are read, each with what its documents' ids begin with.

    Args:
        suffixes: one of them at least a folder must hold.
        files_of: the files of a folder that are meant.

    Raises:
        DataError: a folder that holds no readable file.
    """
    for place, path in zip(_places(paths), paths, strict=True):
        files = [path] if path.is_file() else files_of(path)
        if not path.is_file() and not any(suffix_of(file.name) in suffixes for file in files):
            raise DataError(f"holds no file of the kinds {', '.join(suffixes)} (plain, .gz or .zst)", path)
        for file in files:
            yield file, place + (file.name if path.is_file() else file.relative_to(path).as_posix())


def unseal(item: Document | Refusal | Sealed) -> Document | Refusal:
    """Open what is sealed."""
    if not isinstance(item, Sealed):
        return item
    try:
        if item.suffix in _PAGES:
            text, encoding = (item.content, "") if isinstance(item.content, str) else decode(item.content) or ("", None)
            if encoding is None:
                raise Unreadable("undecodable", UNKNOWN_ENCODING)
            text, title = html_text(text)
            found = {"encoding": encoding, "title": title}
            return Document(item.id, text, {**item.metadata, **{k: v for k, v in found.items() if v}})
        return Document(item.id, (docx_text if item.suffix == ".docx" else pdf_text)(item.content), item.metadata)
    except Unreadable as error:
        return Refusal(error.args[0], item.id, error.args[1], item.metadata["file"])


def _places(paths: list[Path]) -> list[str]:
    """What stands before the names of each input's files, so that no two documents have one id."""
    if len(paths) == 1:
        return [""]
    names = Counter(path.name for path in paths)
    if all(path.is_file() for path in paths):
        if len(names) == len(paths):
            return [""] * len(paths)
        common = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
        return [f"{Path(os.path.relpath(path.parent, common)).as_posix()}/" for path in paths]
    return [f"{path.name}/" if names[path.name] == 1 else f"{path.name}.{number}/" for number, path in enumerate(paths)]


def read_file(path: Path, name: str, fields: tuple[str, ...]) -> Iterator[Document | Refusal | Sealed]:
    """One of the files that `list_files` names."""
    suffix = suffix_of(name)
    if suffix not in SUFFIXES:
        yield Refusal("unknown_format", name, f"suffix {path.suffix!r}")
        return
    if suffix in _TABLES:
        for row in read_rows(path, name, suffix):
            yield row if isinstance(row, Refusal) else _row_document(row, name, fields)
        return
    stream = Stream(path)
    try:
        if suffix in _TEXTS:
            yield from _text(stream, name)
        else:
            content = b"".join(stream.blocks())
            if not stream.cut:                              # a part of such a file is nothing
                yield Sealed(name, suffix, content, {"file": name})
    except OSError as error:
        yield Refusal("unreadable", name, str(error.strerror or error))
    if stream.cut:
        yield Refusal("truncated", name, stream.cut)


def _text(stream: Stream, name: str) -> Iterator[Document | Refusal]:
    """The document of a text file, and a refusal for each line that cannot be decoded."""
    start, lines, size, found = 1, [], 0, False
    for line in stream.lines():
        found = True
        if line.broken and line.end:
            yield Refusal("undecodable", f"{name}:{line.number}", f"bytes that are not {stream.encoding}", name)
            continue
        if line.broken:
            yield Refusal("truncated", f"{name}:{line.number}", "ends within a character", name)
        if size > _LONGEST:
            yield Document(f"{name}:{start}", "".join(lines), {"file": name, "encoding": stream.encoding})
            start, lines, size = line.number, [], 0
        lines.append(line.text.rstrip("\ufffd") if line.broken else line.text + "\n" * bool(line.end))
        size += len(lines[-1])
    if not found and stream.encoding is None and not stream.cut:
        yield Refusal("undecodable", name, UNKNOWN_ENCODING)
    elif (lines or not found) and not stream.cut:
        yield Document(name if start == 1 else f"{name}:{start}", "".join(lines), {"file": name, "encoding": stream.encoding})


def _row_document(row: Row, name: str, fields: tuple[str, ...]) -> Document | Refusal | Sealed:
    where, value = row.where, row.value
    if isinstance(value, str):
        value, fields = {"text": value}, ()
    if not isinstance(value, dict):
        return Refusal("no_text_field", where, f"expected an object or a string, found {type(value).__name__}", name)
    texts = {key: text for key in fields or TEXT_KEYS if (text := _field_text(value.get(key))) is not None}
    if not texts:
        found = writable(", ".join(list(map(str, value))[:8]))
        return Refusal("no_text_field", where, f"none of the keys {', '.join(fields or TEXT_KEYS)} holds a text; there are: {found}", name)
    metadata = {"file": name, **{k: v for k, v in value.items() if k == "title" and isinstance(v, str)}}
    if not fields:
        texts = dict([next(iter(texts.items()))])
    if any(writable(text) != text for text in (*texts.values(), *metadata.values())):
        return Refusal("bad_json", where, "half a character (a surrogate without its other half)", name)
    if "html" in texts:
        return Sealed(where, ".html", "<br>".join(texts.values()), metadata)
    return Document(where, "\n".join(texts.values()), metadata)


def _field_text(value: Any) -> str | None:
    """A string, or a list of strings (the lines of a poem) as lines."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else None


def write_documents(path: Path, documents: list[Document]) -> None:
    """Write one parquet part: id, text, metadata (a JSON object as text)."""
    columns = {"id": [d.id for d in documents], "text": [d.text for d in documents],
               "metadata": [dumps(d.metadata).decode() for d in documents]}
    pq.write_table(pa.table(columns, _SCHEMA), path, compression="zstd")


def read_texts(folder: Path, split: str = "part") -> Iterator[tuple[str, str]]:
    """Yield `(id, text)` of a corpus artifact's split: "part" (to learn from) or "heldout" (to measure on).

    A plain file or folder has no split: all of it is yielded, whichever split is asked for, and what is no text is told of at the end.
    """
    if not (folder / "manifest.json").exists():
        refused, kept = Counter[str](), False
        for item in read_files([folder]):
            if isinstance(item, Document):
                kept = True
                yield item.id, item.text
            else:
                refused[item.reason] += 1
        if refused and kept:                                # of nothing the caller says that it is nothing
            counts = ", ".join(f"{number} {reason}" for reason, number in refused.most_common())
            logger.warning("%s: left out as no text: %s; zhtune clean lists them", folder, counts)
        return
    for path in sorted(folder.glob(f"{split}-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(columns=["id", "text"]):
            yield from zip(batch.column("id").to_pylist(), batch.column("text").to_pylist(), strict=True)


def read_whole(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield `(id, text)` of all documents of a corpus, held-out ones too, those whole again that `clean` divided (id#0, id#1 …)."""
    splits = [read_texts(folder, split) for split in (("part", "heldout") if (folder / "manifest.json").exists() else ("part",))]
    heads = [next(split, None) for split in splits]

    def take(place: int) -> str:
        text, heads[place] = heads[place][1], next(splits[place], None)
        return text
    while left := [i for i, head in enumerate(heads) if head is not None]:
        first = next((i for i in left if not _PIECE.search(heads[i][0])), left[0])     # no later piece: its first lies in the other split
        name, text = heads[first][0].removesuffix("#0"), take(first)
        number = 1
        while (place := next((i for i, head in enumerate(heads) if head and head[0] == f"{name}#{number}"), None)) is not None:
            text, number = text + take(place), number + 1
        yield name, text
