"""Files of tiktoken ranks: a small one by hand, bad ones, and Qwen-1's own against Qwen2.5's published tokenizer.json."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from zhtune.errors import ConfigError, DataError
from zhtune.tokenizers.ranks import KINDS, RankKind, build_definition, find_ranks, rank_merges, ranks_definition, read_ranks

SHARED = Path(__file__).parents[2] / "shared" / "data"
BYTES = [bytes([value]) for value in range(256)]
ZHONG = "中".encode()                                       # E4 B8 AD
TOKENS = [b"ab", b"bc", ZHONG[:2], b"abc", b" a", ZHONG, b" abc", b"cd", b"xyz", b"yz"]
SMALL = RankKind(KINDS["qwen1"].pattern, True, ("<|end|>",), 266)


def write_ranks(path: Path, tokens: list[bytes]) -> Path:
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)), "ascii")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_ranks(tmp_path / "qwen.tiktoken", BYTES + TOKENS)


def test_merges_by_hand(file: Path):
    ranks = read_ranks(file)
    merges, unreached = rank_merges(ranks)
    # " abc": ab comes first, then abc; so it is " " + "abc", though " a" is a token. xyz: yz has a higher rank, but leads to it.
    assert merges == [(b"a", b"b"), (b"b", b"c"), (b"\xe4", b"\xb8"), (b"ab", b"c"), (b" ", b"a"), (b"\xe4\xb8", b"\xad"), (b" ", b"abc"),
                      (b"c", b"d"), (b"x", b"yz"), (b"y", b"z")]
    assert unreached == []


def test_ids_by_hand(file: Path):
    definition = build_definition(read_ranks(file), SMALL)
    assert definition["model"]["merges"][2] == ["ä", "¸"] and definition["model"]["vocab"]["ä¸Ń"] == 261
    assert definition["model"]["ignore_merges"] is False
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    for text, ids in {"abc": [259], " abc": [262], "abcd": [259, 100], "bcd": [257, 100], "xyz": [264], "中": [261], "丫": [258, 0xAB],
                      "a12": [97, 49, 50], "<|end|>": [266], "e\u0301": [0xC3, 0xA9], "a中\nab": [97, 261, 10, 256]}.items():
        assert tokenizer.encode(text).ids == ids, text
        assert text == "e\u0301" or tokenizer.decode(ids, skip_special_tokens=False) == text


def test_a_token_that_its_bytes_do_not_lead_to(tmp_path: Path):
    """cde has no two parts: tiktoken gives its id to the pre-token cde, and to nothing longer."""
    ranks = read_ranks(write_ranks(tmp_path / "ranks", [*BYTES, b"cde"]))
    assert rank_merges(ranks) == ([], [b"cde"])
    tokenizer = Tokenizer.from_str(json.dumps(build_definition(ranks, RankKind(KINDS["glm4"].pattern, False, (), 257))))
    assert tokenizer.encode("cde").ids == [256] and tokenizer.encode("cdef").ids == [99, 100, 101, 102]


def test_lines_in_any_order(tmp_path: Path, file: Path):
    lines = file.read_text("ascii").splitlines()
    (tmp_path / "turned").write_text("\r\n".join(reversed(lines)) + "\n\n", "ascii")
    assert read_ranks(tmp_path / "turned") == read_ranks(file) == BYTES + TOKENS


@pytest.mark.parametrize("change, words", [
    (lambda lines: [*lines[:4], "B!== 4", *lines[5:]], r"ranks:5: expected a token in base64, a space and its rank, found b'B!== 4'"),
    (lambda lines: [*lines, "YWJj"], "ranks:267: expected a token"),
    (lambda lines: [*lines, "YWJj 2x"], "ranks:267: expected a token"),
    (lambda lines: [*lines, "YWI= 266"], "ranks:267: the token b'ab' is there twice, first in line 257"),
    (lambda lines: [*lines, "YWJjZA== 3"], "ranks:267: the rank 3 is there twice, first in line 4"),
    (lambda lines: lines[:260] + lines[261:], "ranks:261: found rank 261, but none has rank 260"),
    (lambda lines: lines[:200], "ranks: 56 of the 256 bytes are no token, such as 0xC8"),
    (lambda lines: [], "ranks: 256 of the 256 bytes"),
])
def test_bad_files(tmp_path: Path, file: Path, change, words: str):
    bad = tmp_path / "ranks"
    bad.write_text("".join(line + "\n" for line in change(file.read_text("ascii").splitlines())), "ascii")
    with pytest.raises(DataError, match=words):
        read_ranks(bad)


def test_a_file_of_another_size_is_refused(file: Path):
    with pytest.raises(ConfigError, match="holds 266 tokens, glm4 has 151329"):
        ranks_definition(read_ranks(file), "glm4")


def test_control_tokens():
    """Ids as tokenization_qwen.py and GLM-4's tokenizer_config.json state them."""
    qwen, glm = ({token: kind.first + i for i, token in enumerate(kind.special)} for kind in (KINDS["qwen1"], KINDS["glm4"]))
    assert (qwen["<|endoftext|>"], qwen["<|im_start|>"], qwen["<|im_end|>"], qwen["<|extra_204|>"]) == (151643, 151644, 151645, 151850)
    assert (glm["<|endoftext|>"], glm["[gMASK]"], glm["<sop>"], glm["<|user|>"], glm["<|observation|>"], glm["<|end_of_video|>"]) == (
        151329, 151331, 151333, 151336, 151338, 151342)


def test_which_file_of_a_folder(tmp_path: Path, file: Path):
    assert find_ranks(tmp_path) == (file, "qwen1")
    glm, other, none = (tmp_path / name for name in ("glm", "other", "none"))
    for folder in (glm, other, none):
        folder.mkdir()
    write_ranks(glm / "tokenizer.model", BYTES)
    (other / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    assert find_ranks(glm) == (glm / "tokenizer.model", "glm4")
    assert find_ranks(other) is None and find_ranks(none) is None


def test_qwen_against_its_published_tokenizer_json():
    qwen1, qwen2 = SHARED / "tokenizers" / "qwen1_tiktoken", SHARED / "tokenizers" / "qwen2_5" / "tokenizer.json"
    corpus = SHARED / "corpus" / "d2l_zh.jsonl"
    if not (qwen1.is_dir() and qwen2.exists() and corpus.exists()):
        pytest.skip("the shared tokenizers are not at hand")
    definition = ranks_definition(read_ranks(find_ranks(qwen1)[0]), "qwen1")
    published = json.loads(qwen2.read_text("utf-8"))
    assert len(definition["model"]["merges"]) == 151387 and definition["model"]["vocab"] == published["model"]["vocab"]
    assert [" ".join(pair) for pair in definition["model"]["merges"]] == [m if isinstance(m, str) else " ".join(m)
                                                                          for m in published["model"]["merges"]]
    ours, theirs = Tokenizer.from_str(json.dumps(definition)), Tokenizer.from_file(str(qwen2))
    with open(corpus, encoding="utf-8") as opened:
        lines = [line for row in opened for line in json.loads(row)["text"].split("\n")][:6000]
    lines += [line + "\u3000 e\u0301 12 don't" for line in lines[:500]]
    assert len(lines) == 6500
    assert [e.ids for e in ours.encode_batch(lines)] == [e.ids for e in theirs.encode_batch(lines)]
