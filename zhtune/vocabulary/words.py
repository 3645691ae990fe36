"""Words from elsewhere: pieces of a published vocabulary, words that SentencePiece trains, terms of the user.

All of them become merges of two pieces each. A word without two parts gets the missing parts as pieces of their own
(Chinese-LLaMA's 国务院 and 中华人民共和国 are such words: poured into a BPE as they are, they are never used). Knows no base.
"""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from zhtune.corpus.encodings import decode
from zhtune.errors import ConfigError, DataError
from zhtune.text import is_han, normalise
from zhtune.tokenizers.spm import NORMAL, read_spm
from zhtune.vocabulary.extension import Bpe
from zhtune.vocabulary.pieces import WORDS, read_pieces

_LONGEST_SENTENCE = 1 << 20                                 # bytes; SentencePiece leaves out longer ones without saying so
_COLUMNS = re.compile("[\t,，]")


@dataclass
class Merged:
    """Words as merges."""

    merges: list[tuple[str, str]] = field(default_factory=list)
    """(left, right) in order; parts that had to be made stand before the word"""
    refused: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Words that were left out, by reason"""


def read_vocabulary_words(path: Path) -> list[str]:
    """Pieces of a published vocabulary in its order: a SentencePiece model, pieces.jsonl or its folder, or a text of one a line.

    Raises:
        ConfigError: it is none of these.
        DataError: a broken file.
    """
    file = path / "pieces.jsonl" if path.is_dir() else path
    if not file.exists():
        raise ConfigError(f"{path} is no vocabulary: expected a SentencePiece .model, a pieces.jsonl or a text file with one piece a line")
    if file.suffix == ".model":
        return [piece.text.removeprefix("▁") for piece in read_spm(file).pieces if piece.type == NORMAL]
    if file.suffix == ".jsonl":
        return [piece.text for piece in read_pieces(file) if piece.kind in WORDS or piece.kind == "atom"]
    return [line.split("\t")[0].removeprefix("▁") for line in _lines(file)]


def read_terms(path: Path) -> list[str]:
    """Terms, one a line (the first column of a TSV or CSV); NFC, in the file's order, each once.

    Raises:
        DataError: there is none.
    """
    terms: dict[str, None] = {}
    for line in _lines(path):
        if term := _COLUMNS.split(normalise(line).strip())[0].strip():
            terms[term] = None
    if not terms:
        raise DataError("holds no term; expected one a line", path)
    return list(terms)


def merge_words(words: Iterable[str], atoms: set[str], merges: list[tuple[str, str]], limit: int) -> Merged:
    """Merges for words that are none yet, behind the given ones.

    Args:
        words: Han characters; others are refused with the reason.
        atoms: the characters that are pieces.
        merges: what there is already; it is not changed.
        limit: new merges at most; what comes after is refused as "over_size".
    """
    bpe, merged = Bpe(merges), Merged()
    for word in words:
        if len(word) < 2 or not all(map(is_han, word)):
            merged.refused["one_character" if len(word) < 2 else "not_han"].append(word)
            continue
        if not atoms.issuperset(word):
            merged.refused["rare_character"].append(word)
            continue
        parts = bpe.segment(word)
        if len(parts) == 1:
            merged.refused["known"].append(word)
        elif len(merged.merges) + len(parts) - 1 > limit:
            merged.refused["over_size"].append(word)
        else:
            while len(parts) > 1:
                pair = (parts[0], parts[1])
                bpe.append(pair)
                merged.merges.append(pair)
                parts[:2] = [parts[0] + parts[1]]
    return merged


def sentencepiece_words(runs: Counter[str], algorithm: str, number: int, longest: int) -> list[str]:
    """Words of a SentencePiece model trained on the runs, best first.

    Args:
        runs: Han runs with their counts.
        algorithm: "bpe" or "unigram".
        number: words wanted; there may be fewer where the text has no more.
        longest: most characters of a word.

    Raises:
        DataError: SentencePiece finds too little text.
    """
    import sentencepiece
    characters = len({char for run in runs for char in run})
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(run for run in sorted(runs) for _ in range(runs[run])), model_writer=model, model_type=algorithm,
            vocab_size=characters + number + 3, character_coverage=1.0, max_sentencepiece_length=longest, hard_vocab_limit=False,
            add_dummy_prefix=False, normalization_rule_name="identity", max_sentence_length=_LONGEST_SENTENCE, num_threads=1,
            split_by_unicode_script=False, minloglevel=2)
    except RuntimeError as error:
        raise DataError(f"SentencePiece cannot train {number} words on this text: {str(error).splitlines()[-1]}") from error
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = (processor.id_to_piece(i) for i in range(processor.get_piece_size()))
    return [piece for piece in pieces if len(piece) > 1 and all(map(is_han, piece))][:number]


def _lines(path: Path) -> list[str]:
    """Lines of a text file that are not blank."""
    if not path.is_file():
        raise ConfigError(f"{path} is no file; expected a text with one word a line")
    text = decode(path.read_bytes())
    if text is None:
        raise DataError("is neither UTF-8 nor GB18030", path)
    return [line.strip() for line in text[0].splitlines() if line.strip()]
