"""The tokenizers of ChatGLM-6B, ChatGLM2 and ChatGLM3: their SentencePiece model -> tokenizer.json with the same ids.

What their published classes do around SentencePiece is in that file: ChatGLM-6B writes line breaks, tabs and runs of spaces
as pieces, and gives half-width marks beside Chinese characters back their width, which its NFKC took. Nothing is put before
or behind a text: [gMASK] and <sop> belong to the chat template. A text's "<sop>" stays text; the published slow class of
ChatGLM-6B makes a control token of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError
from zhtune.tokenizers.spm import BPE, BYTE, CONTROL, UNIGRAM, USER_DEFINED, SentencePieceModel, SpPiece, append_pieces, field, parse_spm
from zhtune.tokenizers.spm_definition import spm_definition

_TAB = "<|tab|>"
_BLANKS = 80                                                # the longest run of spaces that is a piece
_MARKS = {",": "，", "!": "！", ":": "：", ";": "；", r"\?": "？"}
_CHINESE = "[\u4e00-\u9fff]"
_TEXT_PIECES = 130_000                                      # of ChatGLM-6B, before its control tokens
_SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
# By place behind the pieces. The published names of <sop> and <eop> are "sop" and "eop", which would be cut out of English words.
_ADDED = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>")
ADDED = {"chatglm2": _ADDED, "chatglm3": (*_ADDED, "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")}
PIECES = 64_789                                             # of ChatGLM2 and 3


def is_chatglm6b(model: SentencePieceModel) -> bool:
    """Whether a unigram model is that of ChatGLM-6B: it has a piece for line breaks as id 4."""
    return model.algorithm == UNIGRAM and len(model.pieces) > 4 and model.pieces[4].text == "<n>" and model.pieces[3].text == "<pad>"


def complete_chatglm6b(model: SentencePieceModel) -> SentencePieceModel:
    """The model of March 2023, to which its code adds control tokens, blanks and bytes, as the later file has it.

    Raises:
        ConfigError: it is no ChatGLM-6B model.
    """
    if not is_chatglm6b(model):
        raise ConfigError("ice_text.model is not the tokenizer of ChatGLM-6B: it has no <n> as piece 4; fetch the folder again")
    if len(model.pieces) != _TEXT_PIECES:
        return model
    blanks = [_TAB, *(_blank(i) for i in range(2, _BLANKS + 1))]
    more = [*(SpPiece(text, 0.0, CONTROL) for text in _SPECIAL), *(SpPiece(text, 0.0, USER_DEFINED) for text in blanks),
            *(SpPiece(f"<0x{value:02X}>", 0.0, BYTE) for value in range(256))]
    return parse_spm(append_pieces(model, more).data + field(2, field(35, True)))    # byte_fallback


def chatglm6b_definition(model: SentencePieceModel) -> dict[str, Any]:
    """A parsed tokenizer.json of ChatGLM-6B: `sentencepiece` with the published pre- and post-processing."""
    made = spm_definition(model, begin=False)
    before = [_replace({"String": text}, piece) for text, piece in _spaces()]
    after = [_replace({"String": piece}, text) for text, piece in _spaces()]
    # The published response processing, as far as it concerns marks; the order is that of its code.
    after += [_replace({"Regex": regex}, wide) for mark, wide in _MARKS.items()
              for regex in (f"(?<={_CHINESE}){mark}", f"{mark}(?={_CHINESE})")]
    made["normalizer"]["normalizers"][:0] = before
    made["decoder"]["decoders"] += after
    return made


def exact_ids(folder: Path, definition: dict[str, Any]) -> Callable[[str], list[int]] | None:
    """Text -> ids by SentencePiece itself, in a folder of ChatGLM-6B; None in others, whose tokenizer.json is exact.

    SentencePiece adds log probabilities in 32 bits. Where two segmentations are equally probable (夜夜|夜, 夜|夜夜), or nearly
    so in a long text, its rounding decides, which the 64-bit sums of tokenizer.json cannot repeat: 178 of 309,556 texts.
    """
    model, file = definition["model"], folder / "tokenizer.model"
    if model["type"] != "Unigram" or model["vocab"][4:5] != [["<n>", 0.0]] or not file.exists():
        return None
    import sentencepiece
    processor, spaces = sentencepiece.SentencePieceProcessor(model_file=str(file)), _spaces()

    def ids(text: str) -> list[int]:
        for plain, piece in spaces:
            text = text.replace(plain, piece)
        return processor.encode(text)
    return ids


def chatglm_definition(model: SentencePieceModel, generation: str) -> dict[str, Any]:
    """A parsed tokenizer.json of ChatGLM2 or 3.

    Args:
        generation: a key of ADDED.

    Raises:
        ConfigError: another number of pieces than these tokenizers have.
    """
    if model.algorithm != BPE or len(model.pieces) != PIECES:
        raise ConfigError(f"tokenizer.model holds {len(model.pieces)} pieces, that of ChatGLM2 and 3 has {PIECES}: its control tokens "
                          "would get other ids")
    made = spm_definition(model, begin=False)
    added = {text: PIECES + i for i, text in enumerate(ADDED[generation])}
    form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    made["added_tokens"] += [{"id": i, "content": text, **form} for text, i in added.items()]
    made["model"]["vocab"] |= added
    return made


def _spaces() -> list[tuple[str, str]]:
    """What is written as pieces of its own, in the order in which it is replaced."""
    return [("\n", "<n>"), ("\t", _TAB), *((" " * i, _blank(i)) for i in range(_BLANKS, 1, -1))]


def _blank(length: int) -> str:
    return f"<|blank_{length}|>"


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}
