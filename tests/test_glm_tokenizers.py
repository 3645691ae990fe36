"""ChatGLM's tokenizers: equal to SentencePiece with the published processing; text never becomes a control token."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import orjson
import pytest
import sentencepiece
from tokenizers import Tokenizer

from zhtune.errors import ConfigError
from zhtune.models.engine import Whole
from zhtune.tokenizers.glm import chatglm6b_definition, chatglm_definition, complete_chatglm6b
from zhtune.tokenizers.load import read_tokenizer
from zhtune.tokenizers.spm import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceModel,
    SpPiece,
    field,
    parse_spm,
    piece_field,
    read_spm,
    write_spm,
)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
V1, V3 = SHARED / "tokenizers" / "chatglm6b" / "ice_text.model", SHARED / "tokenizers" / "chatglm3" / "tokenizer.model"
sys.path.insert(0, str(ROOT / "scripts" / "bench"))
import glm_tokenizers as bench

CONTROLS = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
TEXTS = ["", " ", "你好", "  def f(x):\n\treturn x    # end\n\n", "你好，世界！a,b:c;d?\t中,文 中 , 文", "①㎏Ａ　全角　空格", "x\r\ny", " 前后 ",
         "<sop>[gMASK]<eop></s><pad><n>", "<0x0A> 𠮷野家 🙂", "a" + " " * 85 + "b", "<|blank_3|>"]


def small_chatglm6b() -> bytes:
    """A file of the layout of ChatGLM-6B's: <n> is id 4, control tokens, blanks and bytes stand behind the text."""
    text = [("▁", -2.6), *((c, -4.0 - i / 100) for i, c in enumerate("你好世界中文abcdefx,:;?!()<>/[]MASKgsop|_0123456789end#")), ("你好", -5.0),
            ("▁#", -5.5), ("▁end", -6.0), ("return", -6.0)]
    seen: dict[str, SpPiece] = {}
    for piece in [SpPiece("<unk>", 0.0, UNKNOWN), *(SpPiece(t, 0.0, CONTROL) for t in ("<s>", "</s>", "<pad>")), SpPiece("<n>", 0.0, USER_DEFINED),
                  *(SpPiece(t, s, NORMAL) for t, s in text), *(SpPiece(t, 0.0, CONTROL) for t in CONTROLS),
                  *(SpPiece(t, 0.0, USER_DEFINED) for t in ("<|tab|>", *(f"<|blank_{i}|>" for i in range(2, 81)))),
                  *(SpPiece(f"<0x{b:02X}>", 0.0, BYTE) for b in range(256))]:
        seen.setdefault(piece.text, piece)
    pieces = list(seen.values())
    trainer = ((3, 1), (4, len(pieces)), (35, True), (40, 0), (41, 1), (42, 2), (43, 3))
    return b"".join(map(piece_field, pieces)) + field(2, b"".join(field(n, v) for n, v in trainer)) + field(3, field(1, b"identity"))


@functools.cache
def small_chatglm3() -> bytes:
    """64,789 pieces, most of them single characters of no meaning."""
    words = ["▁", "\n", "你", "好", "s", "o", "p", "▁p", "so", "sop", "eo", "e", "h", "i", "l", "y"]
    fill = (chr(0x20000 + i) for i in range(64789 - 259 - len(words)))
    return write_spm([SpPiece(text, -float(i)) for i, text in enumerate([*words, *fill])])


def plain(definition: dict) -> Tokenizer:
    return Tokenizer.from_str(json.dumps({**definition, "added_tokens": []}))


def test_chatglm6b_equals_sentencepiece_and_gives_the_text_back():
    model = parse_spm(small_chatglm6b())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.data)
    fast = plain(chatglm6b_definition(model))
    for text in TEXTS:
        ids = bench.published_ids(processor, "chatglm6b", text)
        assert fast.encode(text).ids == ids
        assert fast.decode(ids, skip_special_tokens=False) == bench.published_text(processor, "chatglm6b", ids)
    controls = {i for i, piece in enumerate(model.pieces) if piece.type == CONTROL}
    assert not controls & set(fast.encode("<sop>[gMASK]<eop></s><pad>").ids)
    assert fast.decode(fast.encode("中,文: a,b  c\n你好?").ids) == "中，文： a,b  c\n你好？"


def test_a_stream_does_not_give_out_a_mark_before_its_width_is_known():
    fast, whole = plain(chatglm6b_definition(parse_spm(small_chatglm6b()))), Whole(lambda ids: fast.decode(ids))
    ids = fast.encode("a,中 b:c? 文!").ids
    pieces = [piece for piece in map(whole.push, ids) if piece]
    assert "".join([*pieces, whole.rest()]) == fast.decode(ids) == "a，中 b:c? 文！" and len(pieces) > 4


def test_control_tokens_are_read_only_where_they_are_meant(tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(small_chatglm6b())
    base = read_tokenizer(tmp_path)
    control = Tokenizer.from_str(orjson.dumps(base.definition).decode())
    ids = {piece.text: i for i, piece in enumerate(base.model.pieces)}
    assert base.family == "unigram" and control.encode("[gMASK]<sop>").ids == [ids["[gMASK]"], ids["<sop>"]]
    assert control.encode("").ids == []                     # nothing is put before or behind a text
    assert [t["content"] for t in base.definition["added_tokens"] if t["special"]] == ["<unk>", "<s>", "</s>", "<pad>", *CONTROLS]


def test_sop_is_no_part_of_english_words():
    model = parse_spm(small_chatglm3())
    two, three = (chatglm_definition(model, generation) for generation in ("chatglm2", "chatglm3"))
    assert [t["id"] for t in two["added_tokens"][3:]] == [*range(64789, 64794)]
    assert [t["content"] for t in three["added_tokens"][6:]] == ["<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    control, text = Tokenizer.from_str(orjson.dumps(three).decode()), plain(three)
    assert control.encode("philosophy people<sop>").ids == [*text.encode("philosophy people").ids, 64792]
    assert control.token_to_id("<|observation|>") == 64797 == control.get_vocab_size() - 1
    assert not {64792, 64793} & set(text.encode("<sop>sop eop<eop>").ids)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.data)
    assert all(text.encode(t).ids == processor.encode(t) for t in TEXTS)


def test_a_model_of_another_tokenizer_is_refused():
    other = parse_spm(write_spm([SpPiece("▁", 0.0)]))
    with pytest.raises(ConfigError, match="holds 260 pieces, that of ChatGLM2 and 3 has 64789"):
        chatglm_definition(other, "chatglm3")
    with pytest.raises(ConfigError, match="not the tokenizer of ChatGLM-6B: it has no <n> as piece 4"):
        complete_chatglm6b(other)


# The published models

@functools.cache
def published(path: Path) -> SentencePieceModel:
    return read_spm(path)


def sample() -> list[str]:
    """Texts of all kinds: records with code and tables, old and new prose."""
    found = bench.texts(SHARED, ("sft/alpaca_translated_zh", "corpus/luxun", "corpus/tcm_gb18030"))
    return [text for i, (_, text) in enumerate(found) if i % 37 == 0]


@pytest.mark.parametrize(("path", "name"), [(V1, "chatglm6b"), (V3, "chatglm3")])
def test_published_models_on_a_sample_of_real_text(path: Path, name: str):
    if not path.exists():
        pytest.skip(f"no {name} tokenizer beside the checkout")
    processor, fast = sentencepiece.SentencePieceProcessor(model_file=str(path)), bench.fast_tokenizer(path, name)
    text_ids, score = bench.encoder(path, name), [piece.score for piece in published(path).pieces]
    found = [*sample(), *TEXTS, "夜夜夜半"]
    assert len(found) > 1000
    for text, ours in zip(found, fast.encode_batch(found)):
        ids = bench.published_ids(processor, name, text)
        assert text_ids(text) == ids, text
        # 32-bit sums: another segmentation only where it is as probable
        assert ours.ids == ids or (name == "chatglm6b" and abs(sum(score[i] for i in ours.ids) - sum(score[i] for i in ids)) < .02), text
        assert fast.decode(ids, skip_special_tokens=False) == bench.published_text(processor, name, ids)


@pytest.mark.skipif(not V1.exists(), reason="no ChatGLM tokenizers beside the checkout")
def test_anchors():
    """Ids from chatglm.cpp's tests, which were made with the published classes."""
    one = Tokenizer.from_str(orjson.dumps(chatglm6b_definition(published(V1))).decode())
    assert one.encode("你好[gMASK]<sop>").ids == [5, 74874, 130001, 130004]
    three = Tokenizer.from_str(orjson.dumps(chatglm_definition(published(V3), "chatglm3")).decode())
    assert three.encode("[gMASK]<sop>你好").ids == [64790, 64792, 36474, 54591]
    assert three.encode("[gMASK]<sop><|user|>\n").ids == [64790, 64792, 64795, 30910, 13] and three.token_to_id("<|assistant|>") == 64796
    assert not {64792, 64793} & set(three.encode("philosophy people").ids)


@pytest.mark.skipif(not V1.exists(), reason="no ChatGLM tokenizers beside the checkout")
def test_the_file_of_march_2023_is_completed_to_the_later_one():
    later = published(V1)
    normalizer = field(3, field(1, b"nmt_nfkc") + field(2, later.charsmap))
    early = parse_spm(b"".join(map(piece_field, later.pieces[:130000])) + field(2, field(3, 1) + field(41, 1) + field(42, 2)) + normalizer)
    completed = complete_chatglm6b(early)
    assert not early.byte_fallback and completed.byte_fallback and completed.pieces == later.pieces
    assert complete_chatglm6b(later) is later
