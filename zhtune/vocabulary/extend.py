"""A tokenizer of any family + pieces -> the extended tokenizer. Reads and writes no file, and does not check its result (see gates)."""

from __future__ import annotations

from zhtune.errors import ConfigError
from zhtune.tokenizers.load import BaseTokenizer
from zhtune.vocabulary.bytelevel import extend_bytelevel
from zhtune.vocabulary.extension import Extension
from zhtune.vocabulary.pieces import Piece
from zhtune.vocabulary.spbpe import extend_spbpe


def extend_tokenizer(base: BaseTokenizer, pieces: list[Piece], size: int = 0) -> tuple[BaseTokenizer, Extension]:
    """The tokenizer with the pieces it lacks.

    Args:
        pieces: atoms, marks and words, a word after its parts.
        size: new tokens at most, 0 for all.

    Raises:
        ConfigError: a tokenizer of a kind that cannot be extended, or the vocabulary's characters alone are more than `size`.
    """
    if base.family == "unigram":
        raise ConfigError("the base has a unigram tokenizer (ChatGLM-6B, T5): it chooses the segmentation whose log probabilities sum highest, "
                          "so a new piece with any score changes how old text is cut, and there are no merges to append behind the old "
                          "ones; take a BPE base (LLaMA, BLOOM, Qwen, ChatGLM2/3, GLM-4)")
    if base.family == "sentencepiece":
        return extend_spbpe(base, pieces, size)
    definition, extension = extend_bytelevel(base.definition, pieces, size=size)
    return BaseTokenizer("bytelevel", definition), extension
