"""Packed token files: `tokens.bin` (uint16 or uint32, one document after the other) and `offsets.npy` (document bounds)."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def write_tokens(folder: Path, documents: Iterable[Any], vocabulary: int) -> tuple[int, int]:
    """Write documents of token ids; returns (documents, tokens).

    Args:
        folder: where to write.
        documents: ids of each document, its end token included.
        vocabulary: ids are below this; uint16 holds them up to 65,536.
    """
    dtype = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    offsets = array("q", [0])
    with open(folder / "tokens.bin", "wb") as file:
        for ids in documents:
            file.write(np.asarray(ids, dtype=dtype).tobytes())
            offsets.append(offsets[-1] + len(ids))
    np.save(folder / "offsets.npy", np.asarray(offsets, dtype=np.int64))
    return len(offsets) - 1, offsets[-1]


class TokenFile:
    """The documents of a folder that write_tokens has written, read one by one."""

    def __init__(self, folder: Path):
        self.offsets = np.load(folder / "offsets.npy", allow_pickle=False)
        self._file = open(folder / "tokens.bin", "rb")
        self._dtype = _dtype(self.offsets, os.fstat(self._file.fileno()).st_size)

    def __getitem__(self, number: int) -> np.ndarray:
        begin, end = self.offsets[number:number + 2].tolist()
        width = self._dtype().itemsize
        return np.frombuffer(os.pread(self._file.fileno(), (end - begin) * width, begin * width), self._dtype)

    def close(self) -> None:
        self._file.close()


def read_blocks(folder: Path, length: int) -> Any:
    """All tokens as rows of `length`, (blocks, length); the last, unfilled block is left out.

    Raises:
        ValueError: fewer tokens than one block.
    """
    offsets = np.load(folder / "offsets.npy", allow_pickle=False)
    size = (folder / "tokens.bin").stat().st_size
    tokens = np.fromfile(folder / "tokens.bin", dtype=_dtype(offsets, size))
    blocks = len(tokens) // length
    if blocks == 0:
        raise ValueError(f"{len(tokens)} tokens do not fill one block of {length}")
    return tokens[:blocks * length].reshape(blocks, length)


def block_positions(folder: Path, length: int, rows: list[int]) -> Any:
    """For some rows of `read_blocks`: each token's position in its document, from 0 again at the row's start, (rows, length)."""
    offsets = np.load(folder / "offsets.npy", allow_pickle=False)
    starts = np.asarray(rows)[:, None] * length
    index = starts + np.arange(length)
    return index - np.maximum(offsets[np.searchsorted(offsets, index, side="right") - 1], starts)


def _dtype(offsets: np.ndarray, size: int) -> type:
    return np.uint16 if size == 2 * offsets[-1] else np.uint32
