"""A fastText model that somebody trained (Joulin et al. 2016, arXiv 1607.01759): how probable is a label for a text?

The library reads a file that was cut off without end or without a word, so the layout of the file is walked through first.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from zhtune.errors import ConfigError, DataError, require
from zhtune.text import jieba_words

Words = Literal["text", "characters", "jieba"]
_HEADER = struct.Struct("<2i12id3i2q")                      # magic, version, arguments, the dictionary's sizes
_MAGIC = (793712314, 12)
_COUNT, _LABEL = 9, 1                                       # bytes of an entry behind its text and a zero; the last is its kind
_CENTROIDS = 256


@dataclass(frozen=True)
class Classifier:
    """The probability of one label of a model, which is read when it is first needed: by every process for itself."""

    path: Path
    label: str
    """As the model has it"""
    words: Words
    """How its training text was divided by blanks: as it stood, into characters, or by jieba"""

    def probability(self, text: str) -> float:
        """From 0 to 1; 0 for a text of which the model knows nothing."""
        if self.words == "jieba":
            text = " ".join(jieba_words(text))
        elif self.words == "characters":
            text = " ".join(text)
        labels, chances = self._model.predict(" ".join(text.split()), k=-1)
        return min(float(dict(zip(labels, chances)).get(self.label, 0.0)), 1.0)

    @cached_property
    def _model(self) -> Any:
        return require("fasttext", "documents").load_model(str(self.path))


def open_classifier(path: Path, label: str, words: Words) -> Classifier:
    """Check a model and its label.

    Args:
        path: a supervised model, .bin or .ftz.
        label: with or without `__label__`.
        words: see Classifier.

    Raises:
        DataError: it is no such model, or not all of one.
        ConfigError: it has no such label.
        MissingDependency: fasttext-predict (or fasttext) is not installed.
    """
    require("fasttext", "documents")
    labels = _labels(path)
    for name in (label, f"__label__{label}"):
        if name in labels:
            return Classifier(path, name, words)
    raise ConfigError(f"{path} has no label {label!r}; its labels are: {', '.join(labels[:20])}")


def _labels(path: Path) -> list[str]:
    """The labels of a model whose file ends where its layout does."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            labels, end = _walk(data)
            if not labels or end != len(data):
                raise ValueError("no labels, or another size than its layout says")
            return labels
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise DataError(f"is no fastText classifier (.bin or .ftz), or not all of one ({error})", path) from error


def _walk(data: mmap.mmap) -> tuple[list[str], int]:
    """(labels, where the file should end)."""
    header = _HEADER.unpack_from(data)
    entries, pruned = header[-5], header[-1]
    if header[:2] != _MAGIC:
        raise ValueError("another kind of file")
    at, labels = _HEADER.size, []
    for _ in range(entries):
        end = data.find(b"\0", at)
        if end < 0:
            raise ValueError("the dictionary has no end")
        if data[end + _COUNT] == _LABEL:
            labels.append(data[at:end].decode("utf-8"))
        at = end + 1 + _COUNT
    at += 8 * max(pruned, 0)
    for _ in ("input", "output"):
        at = (_after_quantized if data[at] else _after_dense)(data, at + 1)
    return labels, at


def _after_dense(data: mmap.mmap, at: int) -> int:
    rows, columns = struct.unpack_from("<2q", data, at)
    return at + 16 + 4 * rows * columns


def _after_quantized(data: mmap.mmap, at: int) -> int:
    """Behind codes and centroids, and those of the norms where rows are normalised."""
    norms, rows, _, codes = struct.unpack_from("<?2qi", data, at)
    at = _after_centroids(data, at + 21 + codes)
    return _after_centroids(data, at + rows) if norms else at


def _after_centroids(data: mmap.mmap, at: int) -> int:
    return at + 16 + 4 * _CENTROIDS * struct.unpack_from("<i", data, at)[0]
