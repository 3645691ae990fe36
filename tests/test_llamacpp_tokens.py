"""llama.cpp's ids of a tokenizer without a model, against those of tokenizers and of sentencepiece."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from zhtune.errors import ConfigError, DataError
from zhtune.export.gguf_tokenizer import probe_lines, read_vocabulary
from zhtune.export.llamacpp_tokens import crashes, llamacpp_ids
from zhtune.models.shapes import smollm_pre_tokenizer, write_byte_tokenizer

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
SHARED = Path(__file__).parents[2] / "shared" / "data"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
_POOL = "aBs1 9　\t\n'’,，、。.…!?()（）[]|中龘𠮷医生😀👨‍👩‍👧がカ한글кирعرب۔،।\u00a0\u200b\u2028\u0085\x00\x07<>_▁"


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Probe lines, control tokens, and 3,000 strings of characters on which tokenizers differ."""
    drawn = random.Random(0)
    mixed = ["".join(drawn.choices(_POOL, k=drawn.randint(1, 40))) for _ in range(3000)]
    return [*probe_lines(), "</s><s>x<unk> <0x0A>", "<|im_end|>\n<|im_start|>", "", " ", "医" * 3000, *mixed]


def corpus(name: str, number: int) -> list[str]:
    file = SHARED / "corpus" / name
    if not file.exists():
        pytest.skip("the shared corpus is not at hand")
    with open(file, encoding="utf-8") as opened:
        return [line for row in opened for line in json.loads(row)["text"].split("\n")][:number]


def expected(folder: Path, lines: list[str]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return [encoding.ids for encoding in tokenizer.encode_batch(lines, add_special_tokens=False)]


def train(folder: Path, pre_tokenizer: pre_tokenizers.PreTokenizer, size: int = 700, ignore_merges: bool = False) -> Path:
    """A byte-level tokenizer of the probe lines."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    tokenizer.train_from_iterator([*probe_lines(), "医生说 病人 doctor 12345 \n\n", "(a),b|c"] * 3, trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def test_bytes_by_hand(tmp_path: Path):
    """Three control tokens, then the 256 byte-level characters by code point: 94 of ASCII from 3 on, 12 of A1 to AC from 97, 82 of AE
    to FF from 109, the rest from 191. So ! 3, a 67, E4 163, B8 119, space (U+0120) 223, AD (U+0143) 258."""
    write_byte_tokenizer(tmp_path)
    assert llamacpp_ids(tmp_path, ["!", "a a", "", "中", "<|im_end|>"]) == [[3], [67, 223, 67], [], [163, 119, 258],
                                                                           [30, 94, 75, 79, 65, 71, 80, 70, 94, 32]]


def test_the_byte_tokenizer(tmp_path: Path, lines: list[str]):
    write_byte_tokenizer(tmp_path)
    assert llamacpp_ids(tmp_path, lines) == expected(tmp_path, lines)


STYLES = {
    "smollm": (smollm_pre_tokenizer, False),
    "gpt-2": (lambda: pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "bloom": (lambda: split(BLOOM), False),
    "llama-bpe": (lambda: split(LLAMA3), True),
    "chatglm-bpe": (lambda: split(LLAMA3), False),
    "qwen2": (lambda: split(LLAMA3.replace("{1,3}", "")), False),
}


@pytest.mark.parametrize("name", STYLES)
def test_byte_level_styles(tmp_path: Path, lines: list[str], name: str):
    pre_tokenizer, ignore_merges = STYLES[name]
    folder = train(tmp_path / "tokenizer", pre_tokenizer(), ignore_merges=ignore_merges)
    vocabulary = read_vocabulary(folder)
    assert vocabulary.pre == name and len(vocabulary.merges) > 200 and not any(crashes(vocabulary, line) for line in lines)
    assert llamacpp_ids(folder, lines) == expected(folder, lines)


def test_a_pre_token_that_is_a_token_skips_the_merges(tmp_path: Path):
    """Without a merge 医生 is one token in Llama-3's way only."""
    found = []
    for ignore_merges in (True, False):
        folder = train(tmp_path / str(ignore_merges), split(LLAMA3), 260, ignore_merges)
        definition = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        definition["model"]["vocab"]["åĮ»çĶŁ"] = 260
        (folder / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
        [ids] = llamacpp_ids(folder, ["医生"])
        assert [ids] == expected(folder, ["医生"])
        found.append(len(ids))
    assert found == [1, 6]


def test_llama_equals_tokenizers_and_sentencepiece(lines: list[str]):
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = SHARED / "tokenizers" / "llama"
    if not folder.is_dir():
        pytest.skip("the shared tokenizers are not at hand")
    texts = [*lines, *corpus("d2l_zh.jsonl", 4000), *corpus("laws_tw_traditional.jsonl", 1000)]
    ids = llamacpp_ids(folder, texts)
    assert len(ids) > 8000 and ids == expected(folder, texts)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert ids == reference.encode(texts)


def test_lines_that_would_crash_llamacpp(tmp_path: Path):
    folder = train(tmp_path / "tokenizer", split(BLOOM))
    line = "医" * 9999 + "，" + "医" * 9999
    assert llamacpp_ids(folder, [line]) == expected(folder, [line])
    with pytest.raises(DataError, match="line 2 has 10,000 characters without space or punctuation"):
        llamacpp_ids(folder, ["a", "医" * 10_000])


@pytest.mark.parametrize("change, words", [
    (lambda t: t["model"].update(type="Unigram"), "is a Unigram tokenizer; GGUF files are written of BPE so far"),
    (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "llama.cpp has no name for the pre-tokenizer"),
    (lambda t: t["model"].update(ignore_merges=True), "no name for the pre-tokenizer .* ignore_merges True"),
])
def test_what_llamacpp_cannot_express(tmp_path: Path, change, words: str):
    folder = train(tmp_path / "tokenizer", split(BLOOM))
    definition = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    change(definition)
    (folder / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    with pytest.raises(ConfigError, match=words):
        llamacpp_ids(folder, ["a"])
