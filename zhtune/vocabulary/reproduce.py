"""The historical merge of Chinese-LLaMA (Cui et al. 2023, arXiv 2304.08177), for those who need its very ids.

Every piece of a second SentencePiece model that the base lacks is put behind the base's pieces with score 0. Its faults
are known and its report shows them: new pieces outrank old merges, ties break differently in tokenizer.json, pieces that
are no Chinese change old text, pieces without two parts are never used. `extend` without `--reproduce` has none of them.
"""

from __future__ import annotations

from zhtune.errors import ConfigError
from zhtune.text import is_han
from zhtune.tokenizers.load import BaseTokenizer
from zhtune.tokenizers.spm import NORMAL, SentencePieceModel, SpPiece, append_pieces
from zhtune.tokenizers.spm_definition import spm_definition
from zhtune.vocabulary.extension import Extension, NewToken


def chinese_llama(base: SentencePieceModel, other: SentencePieceModel) -> tuple[BaseTokenizer, BaseTokenizer, Extension]:
    """(the base, the merged tokenizer, what was added): 32,000 + 17,953 = 49,953 pieces for LLaMA and chinese_sp.model.

    Args:
        base: its tokenizer.model alone; added tokens beside it do not count, or the ids would not be the historical ones.
        other: the model whose pieces are poured in.

    Raises:
        ConfigError: the base is no SentencePiece BPE, or has all pieces already.
    """
    known = {piece.text for piece in base.pieces}
    texts = [piece.text for piece in other.pieces if piece.type == NORMAL and piece.text not in known]
    if not texts:
        raise ConfigError("the base has all pieces of the vocabulary: there is nothing to merge")
    old = BaseTokenizer("sentencepiece", spm_definition(base), base)
    model = append_pieces(base, [SpPiece(text, 0.0) for text in texts])
    extension = Extension("sentencepiece", len(base.pieces), 0.0)
    extension.tokens = [NewToken(len(base.pieces) + i, text, "atom" if len(text) == 1 and is_han(text) else "word", text)
                        for i, text in enumerate(texts)]
    extension.skipped["known"] = sum(piece.type == NORMAL for piece in other.pieces) - len(texts)
    return old, BaseTokenizer("sentencepiece", spm_definition(model), model), extension
