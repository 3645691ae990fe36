"""The pieces of a vocabulary and their files: pieces.jsonl and a SentencePiece model. Trains nothing, knows no base.

A vocabulary is written for any base: its order is atoms, marks, words, and every word names the two pieces it is made
of. What a base already has is left out later, when it is extended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zhtune.errors import ConfigError, DataError
from zhtune.records import read_jsonl, write_jsonl
from zhtune.text import is_han
from zhtune.tokenizers.spm import SpPiece, write_spm

# Full-width marks of ordinary Chinese text. A base that needs two or three tokens for a comma wastes a tenth of its text.
MARKS = "，。、；：？！（）“”《》"
WORDS = ("word", "term")                                    # made of two pieces; a term is a word somebody asked for
KINDS = ("atom", "punctuation", *WORDS)


@dataclass(frozen=True)
class Piece:
    """One entry of a vocabulary."""

    text: str
    kind: str
    """ "atom" (one Han character), "punctuation" (one of MARKS), "word" or "term" (Han characters)"""
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
        if kind in WORDS and (left + right != text or left not in pieces or right not in pieces):
            raise DataError(f"the {kind} {text!r} is not made of two pieces before it (left {left!r}, right {right!r})", path, number)
        if kind not in WORDS and len(text) != 1:
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
    """A SentencePiece BPE model of the pieces, with byte fallback and strictly decreasing scores."""
    return write_spm(SpPiece(text, -float(rank)) for rank, text in enumerate(["▁", *(p.text for p in pieces)]))
