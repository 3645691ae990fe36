"""What is wrong between rows: duplicates, questions of test files, and 13 characters in common with them.

Exact up to blanks, case and width (zhtune.text.fold); near ones by ROUGE-L (zhtune/synthesis/novelty.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from zhtune.corpus.read import Refusal
from zhtune.synthesis.formats import QUESTIONS, read_record
from zhtune.synthesis.lint_names import Problem
from zhtune.synthesis.rows import Row
from zhtune.text import HAN, fold

GRAM = 13                                                   # characters, as in the study of Brown et al. 2020 (there: words)
_HAN = 8                                                    # fewer in a gram: measures and formulas (，bp130/80mmhg) that anybody writes
_SHORTEST = 4                                               # a shorter question in common says nothing
_COMMON = 10                                                # grams in more test items than this are a form's words, not an item's
_HAN_CHAR = re.compile(f"[{HAN}]")
_TITLES = ("题目", "试题", "Question", "title", *QUESTIONS)


class Duplicates:
    """Remembers rows by their folded text, as 16 bytes each."""

    def __init__(self) -> None:
        self._rows: dict[bytes, str] = {}
        self._questions: dict[bytes, str] = {}

    def problems(self, where: str, question: list[dict[str, Any]], answer: list[dict[str, Any]]) -> Iterator[Problem]:
        """Whether a row, or only its question, was seen before; remembered if it is new."""
        asked, whole = _key(question), _key([*question, *answer])
        if whole in self._rows:
            yield Problem("duplicate", "", f"same as {self._rows[whole]}")
            return
        self._rows[whole] = where
        if asked in self._questions:
            yield Problem("same_question", "", f"same question as {self._questions[asked]}")
        self._questions.setdefault(asked, where)


def _key(messages: list[dict[str, Any]]) -> bytes:
    text = "\0".join(f"{m['role']}:{fold(m['content'])}{m.get('tool_calls', '')}" for m in messages)
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


class TestItems:
    """The questions and 13-character grams of test files, each with the place of its item.

    Args:
        rows: of any format; all texts of a row count, and its question is the user's, or what stands under a known name.
    """

    __test__ = False                                        # no test case of pytest

    def __init__(self, rows: Iterable[Row | Refusal]):
        self.items = 0
        self._questions: dict[str, str] = {}
        grams: dict[str, tuple[str, int]] = {}
        for row in rows:
            if isinstance(row, Refusal):
                continue
            self.items += 1
            questions, texts = _texts(row)
            self._questions |= {q: row.where for q in map(fold, questions) if len(q) >= _SHORTEST and q not in self._questions}
            for gram in {gram for text in texts for gram in _grams(fold(text))}:
                place, count = grams.get(gram, (row.where, 0))
                grams[gram] = (place, count + 1)
        self._grams = {gram: place for gram, (place, count) in grams.items() if count <= _COMMON}
        self.common_grams = len(grams) - len(self._grams)

    def problems(self, messages: list[dict[str, Any]], fields: list[str]) -> Iterator[Problem]:
        """The messages that stand in the test files, or share 13 characters with them; one problem a message."""
        for message, field in zip(messages, fields, strict=True):
            if message["role"] in ("system", "tool"):
                continue
            text = fold(message["content"])
            if message["role"] == "user" and text in self._questions:
                yield Problem("test_question", field, f"{self._questions[text]}: {message['content'][:40]}")
            elif shared := next((gram for gram in _grams(text) if gram in self._grams), None):
                yield Problem("test_overlap", field, f"{self._grams[shared]}: {shared}")


def _texts(row: Row) -> tuple[list[str], list[str]]:
    """(questions, all texts) of a row of a test file."""
    item, texts = read_record(row), list(_strings(row.value))
    if not isinstance(item, Refusal):
        messages = item.value["messages"]
        return [m["content"] for m in messages if m["role"] == "user"], texts + [m["content"] for m in messages]
    return [row.value[key] for key in _TITLES if isinstance(row.value.get(key), str)][:1], texts


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _grams(text: str) -> Iterator[str]:
    grams = (text[i:i + GRAM] for i in range(len(text) - GRAM + 1))
    return (gram for gram in grams if len(_HAN_CHAR.findall(gram)) >= _HAN)
