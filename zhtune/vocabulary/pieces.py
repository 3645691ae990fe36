"""The pieces of a vocabulary and their files: pieces.jsonl and a SentencePiece model. Trains nothing, knows no base.

A vocabulary is written for any base: its order is atoms, marks, words, and every word names the two pieces it is made
of. What a base already has is left out later, when it is extended.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zhtune.errors import ConfigError, DataError
from zhtune.records import read_jsonl, write_jsonl
from zhtune.text import is_han

# Full-width marks of ordinary Chinese text. A base that needs two or three tokens for a comma wastes a tenth of its text.
MARKS = "，。、；：？！（）“”《》"
KINDS = ("atom", "punctuation", "word")


@dataclass(frozen=True)
class Piece:
    """One entry of a vocabulary."""

    text: str
    kind: str
    """ "atom" (one Han character), "punctuation" (one of MARKS) or "word" (Han characters)"""
    count: int
    """Occurrences in the training text; of a word: how often it is a token when that text is encoded with all pieces"""
    left: str = ""
    """A word is `left + right`, both of them pieces before it"""
    right: str = ""


def write_pieces(path: Path, pieces: Iterable[Piece]) -> None:
    """Write pieces.jsonl."""
    write_jsonl(path, ({"piece": p.text, "count": p.count, "kind": p.kind, "left": p.left, "right": p.right} for p in pieces))


def read_pieces(path: Path) -> list[Piece]:
    """Read pieces.jsonl.

    Raises:
        DataError: a line is no piece, a piece occurs twice, or a word's parts do not make it up.
    """
    pieces: dict[str, Piece] = {}
    for number, row in read_jsonl(path):
        text, kind, count = row.get("piece"), row.get("kind"), row.get("count", 0)
        left, right = row.get("left", ""), row.get("right", "")
        if not isinstance(text, str) or not text or kind not in KINDS or not isinstance(count, int):
            raise DataError(f'expected {{"piece": text, "kind": {" | ".join(KINDS)}, "count": number}}, found {row}', path, number)
        if text in pieces:
            raise DataError(f"the piece {text!r} occurs a second time", path, number)
        if (kind == "punctuation" and text not in MARKS) or (kind != "punctuation" and not all(map(is_han, text))):
            raise DataError(f"the piece {text!r} is no {kind}: atoms and words are Han characters, punctuation is one of {MARKS}",
                            path, number)
        if kind == "word" and (left + right != text or left not in pieces or right not in pieces):
            raise DataError(f"the word {text!r} is not made of two pieces before it (left {left!r}, right {right!r})", path, number)
        if kind != "word" and len(text) != 1:
            raise DataError(f"the {kind} {text!r} is not one character", path, number)
        pieces[text] = Piece(text, kind, count, left, right)
    if not pieces:
        raise DataError("holds no piece", path)
    return list(pieces.values())


def vocab_file(folder: Path, name: str) -> Path:
    """A file of a vocab artifact or of a folder like it.

    Raises:
        ConfigError: it is not there.
    """
    if not (folder / name).exists():
        raise ConfigError(f"{folder} is no vocabulary: it has no {name}; make one with: zhtune vocab --corpus … --out …")
    return folder / name


def sentencepiece_model(pieces: list[Piece]) -> bytes:
    """A SentencePiece BPE model of the pieces, with byte fallback and strictly decreasing scores.

    Written in protobuf's wire format by hand, field numbers from sentencepiece_model.proto: neither sentencepiece nor
    protobuf is needed, and no path of the machine gets into the file.
    """
    normal, unknown, control, byte = 1, 2, 3, 6
    rows = [("<unk>", 0.0, unknown), ("<s>", 0.0, control), ("</s>", 0.0, control)]
    rows += [(f"<0x{value:02X}>", 0.0, byte) for value in range(256)]
    rows += [(text, -float(rank), normal) for rank, text in enumerate(["▁", *(p.text for p in pieces)])]
    model = b"".join(_field(1, _field(1, text.encode("utf-8")) + b"\x15" + struct.pack("<f", score) + _field(3, kind))
                     for text, score, kind in rows)
    bpe, pad = 2, -1
    trainer = ((3, bpe), (4, len(rows)), (35, True), (40, 0), (41, 1), (42, 2), (43, pad))      # 35 byte_fallback, 40- ids
    normalizer = _field(1, b"identity") + _field(3, False) + _field(4, False)                   # no dummy prefix, keep spaces
    return model + _field(2, b"".join(_field(number, value) for number, value in trainer)) + _field(3, normalizer)


def _field(number: int, value: bytes | int) -> bytes:
    """One field: a string or message (wire type 2), or an integer (wire type 0)."""
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value % (1 << 64))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
