"""A file of tiktoken ranks (Qwen-1, GLM-4) -> the tokenizer.json that gives the same ids. Encodes nothing.

tiktoken joins the two neighbours whose join has the lowest rank; tokenizer.json wants the two named. They are named by
joining each token's own bytes so: wherever a token is made in a text, no join crossed its ends before, hence the parts
were the same. A token that its bytes do not lead to is taken only where it is a whole pre-token: ignore_merges.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError, DataError
from zhtune.vocabulary.symbols import spelt

LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LINE = re.compile(rb"[A-Za-z0-9+/]+=* [0-9]+\r?\n?")
_NONE = float("inf")


@dataclass(frozen=True)
class RankKind:
    """What a family's code knows and its file of ranks does not say."""

    pattern: str
    """Of pre-tokens"""
    nfc: bool
    """Whether text is composed first"""
    special: tuple[str, ...]
    """Control tokens, in the order of their ids"""
    first: int
    """Id of the first: as many as there are ranks"""


# From tokenization_qwen.py of Qwen-7B; from tokenization_chatglm.py and tokenizer_config.json of glm-4-9b.
KINDS = {
    "qwen1": RankKind(rf"{LETTERS}|\p{{N}}|{REST}", True,
                      ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))), 151643),
    "glm4": RankKind(rf"{LETTERS}|\p{{N}}{{1,3}}|{REST}", False,
                     ("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
                      "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"), 151329),
}


def find_ranks(path: Path) -> tuple[Path, str] | None:
    """A folder's file of ranks, or that file itself, and its key in KINDS; None where there is none."""
    qwen = path / "qwen.tiktoken" if path.is_dir() else path
    if qwen.suffix == ".tiktoken" and qwen.is_file():
        return qwen, "qwen1"
    file = path / "tokenizer.model" if path.is_dir() else path   # GLM-4's; elsewhere a SentencePiece model has this name
    if file.is_file():
        with open(file, "rb") as opened:
            if _LINE.fullmatch(opened.readline(1000)):
                return file, "glm4"
    return None


def read_ranks(path: Path) -> list[bytes]:
    """The tokens of a file of ranks, the token of rank 0 first.

    Args:
        path: a text file; a line is a token in base64, a space, its rank.

    Raises:
        DataError: a line that is none, a token or a rank that is there twice, a gap in the ranks, a byte that is no token.
    """
    found: dict[int, tuple[bytes, int]] = {}
    lines: dict[bytes, int] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            rank, token = _read_line(line, path, number)
            if token in lines:
                raise DataError(f"the token {token!r} is there twice, first in line {lines[token]}", path, number)
            if rank in found:
                raise DataError(f"the rank {rank} is there twice, first in line {found[rank][1]}", path, number)
            lines[token], found[rank] = number, (token, number)
    for expected, rank in enumerate(sorted(found)):
        if rank != expected:
            raise DataError(f"found rank {rank}, but none has rank {expected}: ranks count from 0 without a gap; "
                            "the file is cut or changed, fetch it again", path, found[rank][1])
    missing = [value for value in range(256) if bytes([value]) not in lines]
    if missing:
        raise DataError(f"{len(missing)} of the 256 bytes are no token, such as 0x{missing[0]:02X}; some text would have no ids; "
                        "the file is cut or changed, fetch it again", path)
    return [found[rank][0] for rank in range(len(found))]


def _read_line(line: bytes, path: Path, number: int) -> tuple[int, bytes]:
    try:
        token, rank = line.split()
        token = base64.b64decode(token, validate=True)
        if not token or not rank.isdigit():
            raise ValueError
    except ValueError as error:
        raise DataError(f"expected a token in base64, a space and its rank, found {line[:60].strip()!r}", path, number) from error
    return int(rank), token


def ranks_definition(ranks: list[bytes], kind: str) -> dict[str, Any]:
    """The parsed tokenizer.json of a published file of ranks.

    Args:
        ranks: of read_ranks.
        kind: a key of KINDS.

    Raises:
        ConfigError: another number of ranks than that family has.
    """
    if len(ranks) != KINDS[kind].first:
        raise ConfigError(f"the file of ranks holds {len(ranks)} tokens, {kind} has {KINDS[kind].first}: its control tokens would get "
                          "other ids; it is cut, or of another model")
    return build_definition(ranks, KINDS[kind])


def build_definition(ranks: list[bytes], kind: RankKind) -> dict[str, Any]:
    """A parsed tokenizer.json; nothing is put before a text (GLM-4's [gMASK]<sop> belongs to its chat template)."""
    merges, unreached = rank_merges(ranks)
    added = [{"id": kind.first + i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, token in enumerate(kind.special)]
    split = {"type": "Split", "pattern": {"Regex": kind.pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": {"type": "NFC"} if kind.nfc else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "post_processor": level, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": bool(unreached),
                      "vocab": {spelt(token): rank for rank, token in enumerate(ranks)},
                      "merges": [[spelt(left), spelt(right)] for left, right in merges]}}


def rank_merges(ranks: list[bytes]) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """The two parts of each token of more than a byte, by rank; and the tokens that tiktoken makes of no two parts."""
    rank_of = {token: rank for rank, token in enumerate(ranks)}
    found = {token: _two_parts(token, rank_of) for token in ranks if len(token) > 1}
    return [parts for parts in found.values() if parts], [token for token, parts in found.items() if not parts]


def _two_parts(token: bytes, rank_of: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """What tiktoken has joined the token's bytes to before the last step; None if it does not get so far."""
    parts = [token[i:i + 1] for i in range(len(token))]
    joins = [rank_of.get(token[i:i + 2], _NONE) for i in range(len(token) - 1)]
    while len(parts) > 2:
        best = min(joins)
        if best == _NONE:
            return None
        at = joins.index(best)                              # the first of equals
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
        del joins[at]
        if at:
            joins[at - 1] = rank_of.get(parts[at - 1] + parts[at], _NONE)
        if at < len(joins):
            joins[at] = rank_of.get(parts[at] + parts[at + 1], _NONE)
    return parts[0], parts[1]
