"""SentencePiece model files (tokenizer.model): read, extended by pieces, written anew. Encodes nothing.

The file is one protobuf message. It is read and written here in protobuf's wire format, field numbers from
sentencepiece_model.proto: the protobuf package is not needed, what is not understood stays byte for byte as it was, and
no path of the machine gets into a file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zhtune.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5             # wire types


@dataclass(frozen=True)
class SpPiece:
    """One entry; its id is its place in the file."""

    text: str
    score: float
    type: int = NORMAL


@dataclass(frozen=True)
class SentencePieceModel:
    """What matters of a model file."""

    data: bytes
    """The file"""
    pieces: list[SpPiece]
    algorithm: int
    """UNIGRAM, BPE, or 3 and 4 for words and characters"""
    byte_fallback: bool
    bos: int
    eos: int
    space_prefix: bool
    """Whether a text gets a space in front (add_dummy_prefix)"""
    squeeze_spaces: bool
    """Whether runs of spaces become one (remove_extra_whitespaces)"""
    space_is_suffix: bool
    charsmap: bytes
    """Compiled normalisation rules (nmt_nfkc); empty for identity"""


def read_spm(path: Path) -> SentencePieceModel:
    """Read a SentencePiece model file.

    Raises:
        DataError: it is none.
    """
    return parse_spm(path.read_bytes(), path)


def parse_spm(data: bytes, path: Path | None = None) -> SentencePieceModel:
    """Read a SentencePiece model from its bytes; `path` is for the error."""
    pieces, trainer, normalizer = [], {}, {}
    try:
        for number, value in _fields(data):
            if number == 1:
                piece = dict(_fields(value))
                pieces.append(SpPiece(piece[1].decode("utf-8"), struct.unpack("<f", piece.get(2, bytes(4)))[0], piece.get(3, NORMAL)))
            elif number == 2:
                trainer |= dict(_fields(value))
            elif number == 3:
                normalizer |= dict(_fields(value))
    except (KeyError, IndexError, UnicodeDecodeError, AttributeError, TypeError, ValueError, struct.error) as error:
        raise DataError("is no SentencePiece model: its bytes are not the protobuf message that a tokenizer.model holds", path) from error
    if not pieces or not trainer:
        raise DataError("is no SentencePiece model: it holds no pieces or no training settings", path)
    return SentencePieceModel(
        data, pieces, algorithm=trainer.get(3, UNIGRAM), byte_fallback=bool(trainer.get(35, 0)), bos=_signed(trainer.get(41, 1)),
        eos=_signed(trainer.get(42, 2)), space_prefix=bool(normalizer.get(3, 1)), squeeze_spaces=bool(normalizer.get(4, 1)),
        space_is_suffix=bool(trainer.get(24, 0)), charsmap=normalizer.get(2, b""))


def is_spm(path: Path) -> bool:
    """Whether a file begins like a SentencePiece model (a tokenizer.model of another kind is a text of tiktoken ranks)."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x0a"


def append_pieces(model: SentencePieceModel, pieces: Iterable[SpPiece]) -> SentencePieceModel:
    """The model with more pieces behind its own; the old file's bytes are the beginning of the new one."""
    pieces = list(pieces)
    size = field(2, field(4, len(model.pieces) + len(pieces)))  # a second trainer_spec is merged into the first
    return parse_spm(model.data + b"".join(map(piece_field, pieces)) + size)


def write_spm(pieces: Iterable[SpPiece]) -> bytes:
    """A BPE model of these pieces, with byte fallback, no normalisation, no dummy prefix, <s> at 1 and </s> at 2."""
    rows = [SpPiece("<unk>", 0.0, UNKNOWN), SpPiece("<s>", 0.0, CONTROL), SpPiece("</s>", 0.0, CONTROL),
            *(SpPiece(f"<0x{value:02X}>", 0.0, BYTE) for value in range(256)), *pieces]
    pad = -1
    trainer = ((3, BPE), (4, len(rows)), (35, True), (40, 0), (41, 1), (42, 2), (43, pad))
    normalizer = field(1, b"identity") + field(3, False) + field(4, False)
    return b"".join(map(piece_field, rows)) + field(2, b"".join(field(number, value) for number, value in trainer)) + field(3, normalizer)


def piece_field(piece: SpPiece) -> bytes:
    """One piece as a field of the model."""
    return field(1, field(1, piece.text.encode("utf-8")) + b"\x15" + struct.pack("<f", piece.score) + field(3, piece.type))


def field(number: int, value: bytes | int) -> bytes:
    """One field: a string or message (wire type 2), or an integer (wire type 0)."""
    if isinstance(value, bytes):
        return _varint(number << 3 | _BYTES) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value % (1 << 64))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(number, value) of each field of a message; raises ValueError where the bytes end too early."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
        elif wire in (_FIXED32, _FIXED64, _BYTES):
            length, at = _read_varint(data, at) if wire == _BYTES else (4 if wire == _FIXED32 else 8, at)
            value, at = data[at:at + length], at + length
        else:
            raise ValueError(f"wire type {wire}")
        if at > len(data) or not number:
            raise ValueError("cut")
        yield number, value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _signed(value: int) -> int:
    """-1 (no such token) is written as a 64-bit two's complement."""
    return value - (1 << 64) if value >> 63 else value
