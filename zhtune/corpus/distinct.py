"""What stands in other documents, in other data sets, in benchmarks -> out, in bounded memory. Judges no document by itself.

    documents ─benchmark items─> spool file ─near duplicates─> ─repeated sentences─> documents, in the order they came

The texts pass through a spool on disk; a document costs some 50 bytes of memory (docs/corpora.md). Of several copies the longest stays (in
letters and digits), and of equally long ones the one whose id has the lowest hash: so neither order nor workers matter.
"""

from __future__ import annotations

import hashlib
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from zhtune.corpus.contamination import Benchmark
from zhtune.corpus.minhash import sketch
from zhtune.corpus.near import NearIndex
from zhtune.corpus.sentences import RepeatedSpans
from zhtune.corpus.units import fold_units
from zhtune.digests import hash64
from zhtune.parallel import batches
from zhtune.records import Document, dumps
from zhtune.text import fold

_BATCH = 100                                                # documents at a time
Drop = Callable[..., None]


def unique(documents: Iterable[Document], scratch: Path, drop: Drop) -> Iterator[Document]:
    """Yield the first of documents whose folded texts are equal. Of each 16 bytes are remembered, on disk (SQLite): memory does not grow.

    Args:
        documents: normalised.
        scratch: a folder; takes about 40 bytes a document.
        drop: as of `Distinct`.
    """
    path = scratch / "duplicates"
    seen = sqlite3.connect(path, isolation_level=None)
    seen.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536;"
                       "CREATE TABLE seen (key BLOB PRIMARY KEY, name TEXT) WITHOUT ROWID; BEGIN")
    for document in documents:
        key = hashlib.blake2b(fold(document.text).encode("utf-8"), digest_size=16).digest()
        if seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, document.id)).rowcount:
            yield document
        else:
            drop("duplicate", document, same_as=seen.execute("SELECT name FROM seen WHERE key = ?", (key,)).fetchone()[0])
    seen.close()
    path.unlink()


@dataclass(frozen=True)
class Distinct:
    """Drops what other documents, data sets or benchmarks hold."""

    near: float = 0.0
    """Least Jaccard of near duplicates; 0 for none"""
    span: int = 0
    """Sentences in a row that count as repeated; 0 for none"""
    shortest: int = 1
    """Non-blank characters that a document without its repeated sentences must still have"""
    benchmark: Benchmark | None = None

    def __call__(self, documents: Iterable[Document], others: Iterable[tuple[str, str]], scratch: Path, drop: Drop) -> Iterator[Document]:
        """Yield the documents that stay, in the order they came.

        Args:
            documents: normalised.
            others: `(id, text)` of other data sets, normalised, that documents are compared with as well.
            scratch: an empty folder, on a disk with room for one and a half times the text.
            drop: called with the reason, the document and what it is like, for each that goes.
        """
        if self.benchmark:
            documents = self._clean_of_items(documents, self.benchmark, drop)
        if not self.near and not self.span:
            yield from documents
            return
        spool = _Spool(scratch)
        index = NearIndex(scratch, self.near) if self.near else None
        for batch in batches(spool.written(others, documents), lambda _: 1, _BATCH):
            texts = [document.text for document in batch]
            if index:
                sketches = sketch(texts, index.rows)
                index.add(sketches)
            spool.sizes.extend(np.diff(sketches.bounds if index else fold_units(texts)[1]).tolist())
        order = spool.order()
        kept = np.full(len(order), -1, np.int32)            # number of the document for which another goes
        likeness = np.zeros(len(order), np.float32)
        for number, better, jaccard in index.find(order, spool.others) if index else ():
            kept[number], likeness[number] = better, jaccard
        yield from self._left(spool, order, kept, likeness, RepeatedSpans(scratch, self.span) if self.span else None, drop)
        spool.close()

    def _clean_of_items(self, documents: Iterable[Document], benchmark: Benchmark, drop: Drop) -> Iterator[Document]:
        for batch in batches(documents, lambda _: 1, _BATCH):
            for document, hit in zip(batch, benchmark.find([d.text for d in batch]), strict=True):
                if hit and hit.held:
                    drop("benchmark", document, item=hit.place, share=round(hit.share, 3), text=hit.text[:200])
                else:
                    yield document

    def _left(self, spool: _Spool, order: np.ndarray, kept: np.ndarray, likeness: np.ndarray, spans: RepeatedSpans | None,
              drop: Drop) -> Iterator[Document]:
        needed = set(kept[kept >= 0].tolist())
        names = {number: name for number, name in enumerate(spool.ids()) if number in needed}
        if spans:
            for number, document in enumerate(spool.read()):
                spans.add(document.text if kept[number] < 0 else "")
            spans.find(order)
        for number, document in enumerate(spool.read()):
            if number < spool.others:
                continue
            if kept[number] >= 0:
                drop("near_duplicate", document, same_as=names[int(kept[number])], jaccard=round(float(likeness[number]), 4))
                continue
            text = spans.remove(number, document.text) if spans else document.text
            if text != document.text and sum(not c.isspace() for c in text) < self.shortest:
                drop("repeated_sentences", document, text=document.text[:200])
            else:
                yield Document(document.id, text, document.metadata)


class _Spool:
    """Documents on disk, read as often as need be; their sizes and the hashes of their ids in memory."""

    def __init__(self, scratch: Path):
        self._path, self._ids = scratch / "documents", scratch / "ids"
        self.others = 0
        """So many of the first are of other data sets"""
        self.sizes, self._keys = array("I"), array("Q")     # in letters and digits

    def written(self, others: Iterable[tuple[str, str]], documents: Iterable[Document]) -> Iterator[Document]:
        """Pass documents on, those of other data sets first, and keep them."""
        with open(self._path, "wb") as file, open(self._ids, "wb") as ids:
            for document in (Document(*other) for other in others):
                self.others += 1
                yield self._write(file, ids, document)
            for document in documents:
                yield self._write(file, ids, document)

    def _write(self, file: Any, ids: Any, document: Document) -> Document:
        file.write(dumps([document.id, document.text, document.metadata]) + b"\n")
        ids.write(dumps(document.id) + b"\n")
        self._keys.append(hash64(document.id))
        return document

    def order(self) -> np.ndarray:
        """Numbers of the documents, the best first, those of other data sets before all."""
        smallness = ~np.asarray(self.sizes)                 # uint32
        smallness[:self.others] = 0
        return np.lexsort((np.asarray(self._keys), smallness))

    def read(self) -> Iterator[Document]:
        with open(self._path, "rb") as file:
            for line in file:
                yield Document(*orjson.loads(line))

    def ids(self) -> Iterator[str]:
        with open(self._ids, "rb") as file:
            yield from map(orjson.loads, file)

    def close(self) -> None:
        self._path.unlink()
        self._ids.unlink()
