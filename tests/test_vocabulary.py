"""Vocabulary training, byte-level extension and its gates, on tokenizers small enough to work out by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest
from tokenizers import Tokenizer

from zhtune.errors import ConfigError, DataError
from zhtune.records import write_jsonl
from zhtune.stages.vocab import VocabConfig, vocab
from zhtune.tokenizers.load import BaseTokenizer
from zhtune.vocabulary import curve, gates
from zhtune.vocabulary.bytelevel import extend_bytelevel
from zhtune.vocabulary.extension import Bpe
from zhtune.vocabulary.pieces import MARKS, Piece, read_pieces, sentencepiece_model, write_pieces
from zhtune.vocabulary.symbols import is_text, mixes_han, to_bytes, to_symbols
from zhtune.vocabulary.train import COVERAGE, Plan, TextCounts, between, select_atoms, train_pieces, train_words

TEXT = "医生，医生，医生。病人，病人。医生病人。 Doctor 囍"


def base(merges: list[str] = (), added: list[str] = ("<end>",)) -> dict:
    """A byte-level tokenizer.json: the 256 bytes have ids 0-255, merges follow, then added tokens (not in model.vocab)."""
    vocabulary = {character: i for i, character in enumerate(sorted(_alphabet()))}
    for merge in merges:
        vocabulary.setdefault(merge.replace(" ", ""), len(vocabulary))
    tokens = [{"id": len(vocabulary) + n, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
               "normalized": False, "special": True} for n, text in enumerate(added)]
    part = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": None,
            "pre_tokenizer": part, "post_processor": None, "decoder": part, "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": list(merges)}}


def _alphabet() -> list[str]:
    from tokenizers import pre_tokenizers
    return pre_tokenizers.ByteLevel.alphabet()


def chain(text: str) -> list[str]:
    """The merges that spell one character: "中" -> ["ä ¸", "ä¸ Ń"]."""
    token = to_symbols(text)
    return [f"{token[:i]} {token[i]}" for i in range(1, len(token))]


def join(left: str, right: str) -> str:
    return f"{to_symbols(left)} {to_symbols(right)}"


def atoms(text: str, count: int = 5) -> list[Piece]:
    return [Piece(char, "atom", count) for char in text]


def word(left: str, right: str) -> Piece:
    return Piece(left + right, "word", 3, left, right)


def encode(definition: dict, text: str) -> list[str]:
    return gates.load(definition).encode(text, add_special_tokens=False).tokens


def vocabulary_id(definition: dict, token: str) -> int:
    return definition["model"]["vocab"][token]


def all_gates(old: dict, new: dict, extension, folder: Path, texts: list[str] = (TEXT,)) -> dict[str, gates.Gate]:
    (folder / "tokenizer.json").write_bytes(orjson.dumps(new))
    return {g.name: g for g in gates.run_gates(BaseTokenizer("bytelevel", old), BaseTokenizer("bytelevel", new), extension, list(texts), folder / "tokenizer.json")}


# Training

def test_first_merges_are_the_most_frequent_pairs():
    counts = TextCounts()
    counts.add(TEXT)
    assert counts.runs == {"医生": 3, "病人": 2, "医生病人": 1, "囍": 1}
    trained = train_pieces(counts, Plan(size=4 + 13 + 2, coverage=.93, marks=True))
    pieces = trained.pieces
    assert trained.rare == ["囍"] and trained.refused == {}
    # 医生 4 times, 病人 3 times, 医生+病人 once only: no word. 14 of 15 Han characters are covered by four atoms.
    assert [(p.text, p.kind, p.count) for p in pieces if p.kind != "punctuation"] == [
        ("医", "atom", 4), ("生", "atom", 4), ("人", "atom", 3), ("病", "atom", 3), ("医生", "word", 4), ("病人", "word", 3)]
    assert {p.text: p.count for p in pieces if p.count and p.kind == "punctuation"} == {"，": 3, "。": 3}
    assert "".join(p.text for p in pieces if p.kind == "punctuation") == MARKS


def test_a_text_too_small_for_the_size_gives_fewer_pieces():
    counts = TextCounts()
    counts.add(TEXT)
    assert len(train_pieces(counts, Plan(size=1000, coverage=1.0)).pieces) == 5 + 2


@pytest.mark.parametrize(("longest", "words"), [(1, []), (2, ["压病", "高血"]), (3, ["压病", "血压病"]),
                                                (4, ["压病", "血压病", "高血压病"])])
def test_max_piece_is_the_real_length(longest: int, words: list[str]):
    # All pairs occur 5 times; ties go to the lower code points: 压 < 病 < 血 < 高.
    assert [a + b for a, b in train_words(Counter({"高血压病": 5}), 10, longest)] == words


def test_atoms_by_coverage_and_terms():
    characters = Counter({"的": 90, "一": 8, "囍": 1, "龘": 1})
    assert select_atoms(characters, set(), 10, .98, 10) == ["的", "一"]
    assert select_atoms(characters, {"龘"}, 10, .98, 10) == ["的", "一", "龘"]
    assert select_atoms(characters, set(), 10, 1.0, 1) == ["的"]
    with pytest.raises(ConfigError, match=r"2 Han characters.*--size must be at least 2"):
        select_atoms(characters, {"龘", "囍"}, 1, .98, 1)
    assert [between(COVERAGE, n) for n in (100, 4000, 20000, 99999)] == [.95, .985, .999, .9995]
    assert between(COVERAGE, 3000) == pytest.approx(.9775)


def test_curve_by_hand():
    pieces = [*atoms("医生病人"), word("医", "生"), word("病", "人")]
    # 6 characters: 18 bytes; 5 atoms + 3 bytes of 囍; one word: 医生 病 人 医 + 3; two words: 医生 病人 医 + 3.
    assert curve.curve(Counter({"医生病人": 1, "医囍": 1}), pieces) == [[0, 3.0], [4, 1.3333], [5, 1.1667], [6, 1.0]]


def test_pieces_file_errors_name_the_line(tmp_path: Path):
    file = tmp_path / "pieces.jsonl"
    good = [*atoms("医生"), word("医", "生")]
    write_pieces(file, good)
    assert read_pieces(file) == good
    bad = [({"piece": "ab", "kind": "word", "left": "a", "right": "b"}, "pieces.jsonl:4: the piece 'ab' is no word"),
           ({"piece": "医人", "kind": "word", "left": "医", "right": "人"}, ":4: the word '医人' is not made of two"),
           ({"piece": "医", "kind": "atom"}, ":4: the piece '医' occurs a second time")]
    for row, message in bad:
        write_pieces(file, good)
        with open(file, "ab") as out:
            out.write(orjson.dumps(row) + b"\n")
        with pytest.raises(DataError, match=message):
            read_pieces(file)


def test_sentencepiece_model_is_one():
    sentencepiece = pytest.importorskip("sentencepiece")
    pieces = [*atoms("医生病"), Piece("，", "punctuation", 1), word("医", "生")]
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(sentencepiece_model(pieces))
    assert processor.get_piece_size() == 3 + 256 + 1 + 5
    assert processor.encode("医生，病a", out_type=str) == ["医生", "，", "病", "<0x61>"]
    text = " 医生  囍，\tabc"
    assert processor.decode(processor.encode(text)) == text
    scores = [processor.get_score(i) for i in range(259, 265)]
    assert scores == [0.0, -1.0, -2.0, -3.0, -4.0, -5.0]


# Extension

def test_atoms_helpers_words_and_their_ids():
    new, extension = extend_bytelevel(base(["t h"]), [*atoms("医生"), word("医", "生")])
    assert new["model"]["merges"] == [*chain("医"), *chain("生"), "t h", join("医", "生")]
    # 256 bytes and "th" are 0-256, <end> is 257.
    assert [(t.id, t.kind, t.token) for t in extension.tokens] == [
        (258, "helper", to_symbols("医")[:2]), (259, "atom", to_symbols("医")),
        (260, "helper", to_symbols("生")[:2]), (261, "atom", to_symbols("生")), (262, "word", to_symbols("医生"))]
    assert new["model"]["vocab"]["<end>"] == 257
    assert extension.summary()["new_ids"] == [258, 262] and extension.base_size == 258
    assert Tokenizer.from_str(orjson.dumps(new).decode()).encode("the 医生<end>").ids[-2:] == [262, 257]
    assert gates.load(new).encode("<end>").ids == [vocabulary_id(new, c) for c in "<end>"]       # text is no control token


def test_the_definition_given_is_not_changed_and_merges_keep_their_form():
    old = base(["t h"])
    before = orjson.dumps(old)
    extend_bytelevel(old, atoms("医"))
    assert orjson.dumps(old) == before
    listed = {**old, "model": {**old["model"], "merges": [["t", "h"]]}}
    new, _ = extend_bytelevel(listed, atoms("医"))
    assert new["model"]["merges"] == [m.split(" ") for m in [*chain("医"), "t h"]]


def test_a_known_character_is_left_alone_and_only_missing_pieces_are_added():
    old = base([*chain("医"), *chain("生"), join("医", "生")])
    new, extension = extend_bytelevel(old, [*atoms("医生病"), word("医", "生")])
    assert new["model"]["merges"] == [*chain("病"), *old["model"]["merges"]]
    assert extension.skipped == {"known": 3} and extension.number("atom") == 1 and extension.number("word") == 0


def test_a_word_is_made_of_what_the_base_makes_of_it():
    old = base([*chain("高"), *chain("血"), *chain("压"), join("血", "压")])
    new, extension = extend_bytelevel(old, [*atoms("高血压"), word("高", "血"), word("高血", "压")])
    assert new["model"]["merges"][-2:] == [join("高", "血"), join("高", "血压")]
    assert encode(new, "高血压") == [to_symbols("高血压")] and extension.number("word") == 2


def test_a_weak_base_lets_go_of_space_and_han():
    space = f"{to_symbols(' ')} {to_symbols('医')}"
    old = base([*chain("医"), space, join(" 医", "a")])
    pieces = [*atoms("医生"), word("医", "生")]                                  # half of the occurrences known: weak
    new, extension = extend_bytelevel(old, pieces)
    assert extension.demote and extension.demoted == 2 and extension.one_token_share == .5
    assert new["model"]["merges"][-2:] == [space, join(" 医", "a")]
    assert encode(new, " 医生") == [to_symbols(" "), to_symbols("医生")] and encode(new, " 医") == [to_symbols(" 医")]
    kept, _ = extend_bytelevel(old, pieces, demote=False)
    assert encode(kept, " 医生") == [to_symbols(" 医"), to_symbols("生")]


def test_a_base_token_that_lost_its_path_is_repaired():
    # The base spells 生病 with 病's first byte glued to 生, which the chain of 病 takes away.
    token = to_symbols("生病")
    old = base([*chain("生"), f"{token[:3]} {token[3]}", f"{token[:4]} {token[4]}", f"{token[:5]} {token[5]}"])
    new, extension = extend_bytelevel(old, atoms("病"), demote=False)
    assert encode(new, "生病") == [token] and extension.repaired == 1 and extension.lost == []


def test_marks_stand_behind_the_base_merges():
    comma = to_symbols("，")
    old = base([f"{comma[0]} {comma[1]}"])                                       # a base with the first two bytes, as all real ones
    new, extension = extend_bytelevel(old, [Piece("，", "punctuation", 3)])
    assert new["model"]["merges"] == [f"{comma[0]} {comma[1]}", f"{comma[:2]} {comma[2]}"] and not extension.mark_helpers
    _, bytes_only = extend_bytelevel(base(), [Piece("，", "punctuation", 3)])
    assert bytes_only.mark_helpers == [b"\xef\xbc"]
    lines = gates.drift_lines(bytes_only)
    assert len(lines) > 5000 and not any("，" in line or "Ａ" in line for line in lines)


def test_extending_an_extended_tokenizer():
    first, _ = extend_bytelevel(base(), [*atoms("医生"), word("医", "生")])
    second, extension = extend_bytelevel(first, [*atoms("医生病"), word("医", "生"), Piece("医生病", "word", 1, "医生", "病")])
    assert [(t.id, t.text) for t in extension.tokens if t.kind != "helper"] == [(263, "病"), (264, "医生病")]
    assert encode(second, "医生病") == [to_symbols("医生病")] and encode(second, "医生") == [to_symbols("医生")]


def test_other_tokenizers_are_refused():
    sentencepiece = base()
    sentencepiece |= {"pre_tokenizer": {"type": "Metaspace"}, "decoder": {"type": "Sequence", "decoders": [{"type": "Metaspace"}]}}
    with pytest.raises(ConfigError, match="'BPE' without byte level; extend reads byte-level BPE .*, SentencePiece BPE"):
        extend_bytelevel(sentencepiece, atoms("医"))
    wordpiece = base()
    wordpiece["model"]["type"] = "WordPiece"
    with pytest.raises(ConfigError, match="'WordPiece' without byte level"):
        extend_bytelevel(wordpiece, atoms("医"))


def test_symbols():
    assert to_symbols("中 a") == "ä¸ŃĠa" and to_bytes("ä¸ŃĠa") == "中 a".encode() and to_bytes("<a b>") is None
    assert is_text(to_symbols("中")) and not is_text(to_symbols("中")[:2])
    assert [mixes_han(to_symbols(t)) for t in (" 中", "中，", "中a", "中", "中の", " a", " の", "，")] == [True] * 3 + [False] * 5
    assert mixes_han(to_symbols(" 医")[:2]) and not mixes_han(to_symbols(" 中")[:2])       # E5 is Han, E4 may be a hexagram
    assert Bpe([("a", "b"), ("b", "c"), ("ab", "c")]).segment("abcbc") == ["abc", "bc"]


# Gates

def test_a_sound_extension_passes_all_gates(tmp_path: Path):
    old = base(["t h", "Ġ th", "i n"])
    new, extension = extend_bytelevel(old, [*atoms("医生病人"), *(Piece(m, "punctuation", 1) for m in MARKS), word("医", "生")])
    found = all_gates(old, new, extension, tmp_path, [TEXT, "医生<end>病人"])        # a text that holds a control token's name
    gates.require_passed(found.values())
    assert list(found) == ["ids", "pieces", "dead", "context", "drift", "chinese", "round_trip", "reload"]
    assert found["drift"].numbers["lines"] > 5000 and found["drift"].numbers["changed"] == 0


def test_planted_faults_fail_their_gate_in_words(tmp_path: Path):
    old = base(["t h"])
    new, extension = extend_bytelevel(old, [*atoms("医生"), word("医", "生")])
    merges, vocabulary = new["model"]["merges"], new["model"]["vocab"]

    def planted(**changes) -> dict:
        return {**new, "model": {**new["model"], **changes}}

    def failure(gate: gates.Gate) -> str:
        with pytest.raises(gates.GateFailed) as caught:
            gates.require_passed([gate])
        return str(caught.value)
    unreachable = planted(merges=merges[:-1])
    assert ("gate 'dead' (checked 5, dead 1), for example: '医生' (id 262) is encoded to [259, 261]"
            in failure(gates.check_dead(gates.load(unreachable), unreachable, extension)))
    shifted = planted(vocab={**vocabulary, "<end>": 262, to_symbols("医生"): 257})
    assert "'<end>' had id 257, has 262" in failure(gates.check_ids(old, shifted, extension))
    latin = planted(merges=[*merges, "i s"], vocab={**vocabulary, "is": 263})
    assert "6 new entries, 5 recorded" in failure(gates.check_ids(old, latin, extension))
    lines = ["This is it.", "plain"]
    is_ids = [vocabulary[c] for c in to_symbols(" it.")]
    found = failure(gates.check_drift(gates.load(old), gates.load(latin), lines))
    assert "gate 'drift' (lines 2, changed 1), for example: 'This is it.' was" in found and str(is_ids)[1:-1] in found
    (tmp_path / "tokenizer.json").write_bytes(orjson.dumps(planted(merges=[])))
    assert "'reload' (lines 1, differ 1), for example: '医生'" in failure(
        gates.check_reload(gates.load(new), tmp_path / "tokenizer.json", extension, ["医生"]))
    undecoded = {**new, "decoder": {"type": "Fuse"}}
    assert "'round_trip' (lines 1, base_fails 0, new_failures 1)" in failure(
        gates.check_round_trip(gates.load(old), gates.load(undecoded), ["医 a"]))


def test_a_latin_piece_fails_its_gate():
    _, extension = extend_bytelevel(base(), [Piece("is", "word", 9, "i", "s")])
    with pytest.raises(gates.GateFailed, match=r"gate 'pieces' \(checked 1, wrong 1\), for example: 'is' \(id 257\) is a word"):
        gates.require_passed([gates.check_pieces(extension)])


# The stage

def _config(folder: Path, out: str, **fields) -> VocabConfig:
    return VocabConfig(input=str(folder / "in.txt"), out=str(folder / out), **fields)


def test_vocab_stage(tmp_path: Path):
    (tmp_path / "in.txt").write_text(TEXT * 20, "utf-8")
    graph = tmp_path / "graph"
    graph.mkdir()
    write_jsonl(graph / "triples.jsonl", [{"head": "麤病", "relation": "症状", "tail": "咳"}])
    (graph / "ontology.yaml").write_text("relations: {症状: {ask: ['{h}怎样？']}}\n", "utf-8")
    artifact = vocab(_config(tmp_path, "a", graph=str(graph), size=40))
    pieces = read_pieces(artifact.path / "pieces.jsonl")
    assert set("麤病症状咳怎样") <= {p.text for p in pieces if p.kind == "atom"}
    assert artifact.kind == "vocab" and artifact.manifest["metrics"]["pieces"] == len(pieces)
    report = orjson.loads((artifact.path / "report.json").read_bytes())
    assert report["curve_text"] == "training" and report["curve"][0] == [0, 3.0]
    assert [orjson.loads(line)["id"] for line in (artifact.path / "sample.jsonl").read_bytes().splitlines()] == ["in#0"]


def test_equal_bytes_whatever_the_hash_seed(tmp_path: Path):
    (tmp_path / "in.txt").write_text("".join(chr(0x4E00 + i * i % 97) + ("，" if i % 7 == 0 else "") for i in range(5000)), "utf-8")
    code = ("from zhtune.stages.vocab import *; import sys; "
            "print(vocab(VocabConfig(input=sys.argv[1], out=sys.argv[2], size=300)).digest)")
    digests = {subprocess.run([sys.executable, "-c", code, str(tmp_path / "in.txt"), str(tmp_path / seed)], check=True, text=True,
                              capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")}
    assert len(digests) == 1


def test_vocab_bad_input_leaves_nothing(tmp_path: Path):
    with pytest.raises(ConfigError, match="give --corpus, --input or --graph"):
        VocabConfig(out="x")
    (tmp_path / "in.txt").write_text("no Chinese here", "utf-8")
    with pytest.raises(DataError, match="no Han character"):
        vocab(_config(tmp_path, "out"))
    assert not (tmp_path / "out").exists()
