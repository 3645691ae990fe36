"""What is wrong between rows: duplicates, questions of test files, and 13 words in common with them.

Exact up to blanks, case and width (zhtune.text.fold); near ones by ROUGE-L (zhtune/synthesis/novelty.py); test items as in
corpora (zhtune/corpus/contamination.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zhtune.corpus.contamination import RUN, Benchmark, Item
from zhtune.corpus.streams import suffix_of
from zhtune.corpus.tabular import Refusal
from zhtune.errors import DataError
from zhtune.log import logger
from zhtune.synthesis.formats import QUESTIONS, read_record
from zhtune.synthesis.linting.names import Problem
from zhtune.synthesis.rows import SUFFIXES, read_rows
from zhtune.text import fold, normalise, writable

_WHOLE = ("unreadable", "bad_header")                       # of a file nothing, or of a sheet: what is missing may be all of a test
_TITLES = ("题目", "试题", "Question", "title", *QUESTIONS)


class Duplicates:
    """Remembers rows by their folded text, as 16 bytes each."""

    def __init__(self) -> None:
        self._rows: dict[bytes, str] = {}
        self._questions: dict[bytes, str] = {}

    def problems(self, where: str, question: list[dict[str, Any]], answer: list[dict[str, Any]], tools: Any = ()) -> Iterator[Problem]:
        """Whether a row, or only its question, was seen before; remembered if it is new. Other thoughts or tools make another row."""
        asked, whole = _key(question), _key([*question, *answer], *(m.get("reasoning", "") for m in (*question, *answer)), str(tools or ""))
        if whole in self._rows:
            yield Problem("duplicate", "", f"same as {self._rows[whole]}")
            return
        self._rows[whole] = where
        if asked in self._questions:
            yield Problem("same_question", "", f"same question as {self._questions[asked]}")
        self._questions.setdefault(asked, where)


def _key(messages: list[dict[str, Any]], *more: str) -> bytes:
    text = "\0".join([*(f"{m['role']}:{fold(m['content'])}{m.get('tool_calls', '')}" for m in messages), *filter(None, more)])
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()


class NearDuplicates:
    """Remembers the texts of rows that are not like any before.

    Args:
        threshold: ROUGE-L F of words above which two rows are near duplicates.
    """

    def __init__(self, threshold: float):
        from zhtune.synthesis.novelty import NoveltyIndex
        self._index = NoveltyIndex(threshold)
        self._places: list[str] = []

    def problems(self, where: str, question: list[dict[str, Any]], answer: list[dict[str, Any]]) -> Iterator[Problem]:
        """Whether a row's words are much like those of an earlier one; remembered if not."""
        twin = self._index.admit("\n".join(m["content"] for m in (*question, *answer)))
        if twin is None:
            self._places.append(where)
        else:
            yield Problem("near_duplicate", "", f"much like {self._places[twin.number]} (ROUGE-L {twin.score:.3f})")


def benchmark_items(paths: list[Path]) -> Iterator[Item]:
    """The items of benchmark files of any format: all texts of a row count, and its question is the user's, or what stands
    under a known name. Rows that cannot be read are told of at the end.

    Raises:
        DataError: a file that cannot be read, or no item at all: nothing would be compared.
    """
    if strange := [path for path in paths if path.is_file() and suffix_of(path.name) not in SUFFIXES]:
        raise DataError(f"is no benchmark that can be read; known are {', '.join(SUFFIXES)}, plain, .gz or .zst", strange[0])
    refused, found = [], False
    for row in read_rows(paths):
        if isinstance(row, Refusal):
            if row.reason in _WHOLE or (row.reason != "unknown_file" and not row.file):
                raise DataError(f"is no benchmark that can be read: {row.reason}: {writable(row.detail)}", row.where)
            refused.append(row)
            continue
        found = True
        read, texts = read_record(row), list(_strings(row.value))
        if isinstance(read, Refusal):
            questions = [row.value[key] for key in _TITLES if isinstance(row.value.get(key), str)][:1]
        else:
            questions = [m["content"] for m in read.value["messages"] if m["role"] == "user"]
            texts += [m["content"] for m in read.value["messages"]]
        yield Item(row.where, tuple(map(normalise, questions)), tuple(map(normalise, texts)))
    if not found:
        raise DataError("holds no benchmark item" + (f": {refused[0].reason}: {writable(refused[0].detail)}" if refused else ""), paths[0])
    if refused:
        logger.warning("benchmark: %d rows cannot be read and are not compared; the first: %s: %s: %s", len(refused), refused[0].where,
                       refused[0].reason, writable(refused[0].detail))


def benchmark_problems(benchmark: Benchmark, messages: list[dict[str, Any]], fields: list[str]) -> Iterator[Problem]:
    """The messages that stand in the test files, or have 13 words in common with them; one problem a message."""
    hits = benchmark.find([normalise(message["content"]) for message in messages])
    for message, field, hit in zip(messages, fields, hits, strict=True):
        if message["role"] in ("system", "tool"):
            continue
        if message["role"] == "user" and (place := benchmark.asks(normalise(message["content"]))):
            yield Problem("test_question", field, f"{place}: {message['content'][:40]}")
        elif hit and (hit.held or hit.words >= RUN):
            yield Problem("test_overlap", field, f"{hit.place}: {hit.text}")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)

