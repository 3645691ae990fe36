"""Cleaning: formats and encodings, refusals counted by reason, duplicates, division, the held-out split."""

import json

import pyarrow.parquet as pq
import pytest

from zhtune.corpus.filters import divide
from zhtune.corpus.read import read_texts, read_whole
from zhtune.digests import drawn
from zhtune.errors import ConfigError, DataError
from zhtune.stages.clean import CleanConfig, clean

GOOD = "今天的门诊时间是上午八点到十一点，请带好病历本，谢谢您的配合。"


def made_of(tmp_path, files, out="o", **fields):
    """The corpus of a folder that holds `files` (name -> bytes or text)."""
    folder = tmp_path / "in"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return clean(CleanConfig(input=str(folder), out=str(tmp_path / out), **{"heldout": 0, **fields}))


def rows(artifact, split="part"):
    return [row for path in sorted(artifact.path.glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def refused(artifact):
    return [json.loads(line) for line in (artifact.path / "dropped.jsonl").read_text("utf-8").split("\n") if line]


def test_formats_encodings_and_reasons_are_counted_exactly(tmp_path):
    made = made_of(tmp_path, {
        "a.txt": "\ufeff" + GOOD,
        "b.txt": GOOD.encode("gb18030"),                    # the same text in another encoding
        "c.md": "短。",
        "d.jsonl": json.dumps({"text": GOOD + "第二\u2028段。"}, ensure_ascii=False) + '\n{broken\n{"x": 1}\n[]\n',
        "e.dat": b"%PDF",
        "f.txt": "This is an English text without any Han character in it at all.",
        "g.txt": b"\x81\xff\xff",
        "h.txt": " \n\u3000\n",
    })
    reasons = {"bad_json": 1, "duplicate": 1, "empty": 1, "few_han": 1, "no_text_field": 2, "too_short": 1, "undecodable": 1, "unknown_format": 1}
    assert made.manifest["counts"] == {"in": 11, "kept": 2, "dropped": reasons}
    assert {(d["id"], d["reason"]) for d in refused(made)} == {
        ("b.txt", "duplicate"), ("c.md", "too_short"), ("d.jsonl:2", "bad_json"), ("d.jsonl:3", "no_text_field"), ("d.jsonl:4", "no_text_field"),
        ("e.dat", "unknown_format"), ("f.txt", "few_han"), ("g.txt", "undecodable"), ("h.txt", "empty")}
    assert [d["same_as"] for d in refused(made) if d["reason"] == "duplicate"] == ["a.txt"]
    assert [(r["id"], r["text"]) for r in rows(made)] == [("a.txt", GOOD), ("d.jsonl:1", GOOD + "第二\u2028段。")]
    assert made.manifest["licences"] == ["unknown"]


def test_gb18030_is_read_as_the_text_it_is(tmp_path):
    made = made_of(tmp_path, {"a.txt": (GOOD + "㐂𠀀").encode("gb18030")})
    assert [(r["text"], json.loads(r["metadata"])) for r in rows(made)] == [(GOOD + "㐂𠀀", {"file": "a.txt", "encoding": "gb18030"})]


def test_keys_and_titles_of_json_lines_and_the_licence_named(tmp_path):
    lines = [{"content": GOOD, "title": "门诊", "n": 1}, {"body": GOOD + "一"}, {"text": 5, "content": GOOD + "二"}]
    made = made_of(tmp_path, {"a.jsonl": "\r\n\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)}, licence="CC-BY-4.0")
    assert [r["id"] for r in rows(made)] == ["a.jsonl:1", "a.jsonl:3", "a.jsonl:5"]
    assert json.loads(rows(made)[0]["metadata"]) == {"file": "a.jsonl", "title": "门诊"}
    assert made.manifest["licences"] == ["CC-BY-4.0"]


def test_width_and_punctuation(tmp_path):
    made = made_of(tmp_path, {"a.txt": "ＡＢ１２：请问，门诊（二楼）几点开？\u200b" + GOOD})
    assert rows(made)[0]["text"] == "AB12：请问，门诊（二楼）几点开？" + GOOD


def test_the_held_out_split_goes_by_the_hash_of_the_name(tmp_path):
    texts = {f"{i:03d}.txt": f"第{i}篇。" + GOOD for i in range(60)}
    first = made_of(tmp_path, texts, heldout=0.25)
    out = {r["id"] for r in rows(first, "heldout")}
    assert out == {name for name in texts if drawn(name, 0.25)} and 0 < len(out) < 60
    assert {r["id"] for r in rows(first)} == set(texts) - out
    more = made_of(tmp_path, {f"x{i}.txt": f"新{i}篇。" + GOOD for i in range(20)}, out="more", heldout=0.25)
    assert {r["id"] for r in rows(more, "heldout")} & set(texts) == out            # growth moves nothing
    assert [drawn("a", 0.0), drawn("a", 1.0)] == [False, True]


def test_workers_and_order_of_creation_do_not_change_the_digest(tmp_path):
    texts = {f"{i}.txt": f"第{i}篇。" + GOOD for i in range(5)}
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    one = made_of(tmp_path / "x", texts)
    two = made_of(tmp_path / "y", dict(reversed(texts.items())), workers=5)
    assert one.digest == two.digest


def test_long_documents_are_divided_and_nothing_is_lost(tmp_path):
    text = (GOOD * 2 + "\n") * 6                             # lines of 63 characters
    assert len(GOOD) == 31
    pieces = divide(text.strip(), 100)
    assert "".join(pieces) == text.strip() and [len(p) for p in pieces] == [63, 63, 63, 63, 63, 62]
    assert [len(p) for p in divide("字" * 250, 100)] == [100, 100, 50]
    made = made_of(tmp_path, {"a.txt": text}, max_characters=100)
    assert [r["id"] for r in rows(made)] == [f"a.txt#{i}" for i in range(6)] and made.manifest["counts"]["in"] == 1


def test_clean_of_nothing_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="the folder holds no file"):
        made_of(tmp_path, {})
    with pytest.raises(DataError, match="no document is left of 1: too_short 1"):
        made_of(tmp_path, {"a.txt": "短"})
    assert not (tmp_path / "o").exists()
    with pytest.raises(ConfigError, match="does not exist"):
        clean(CleanConfig(input=str(tmp_path / "nowhere"), out=str(tmp_path / "o")))
    assert not (tmp_path / "o").exists()


def test_files_in_hidden_folders_are_not_read(tmp_path):
    made = made_of(tmp_path, {"a.txt": GOOD, ".git/b.txt": GOOD + "隐", ".c.txt": GOOD + "藏"})
    assert made.manifest["counts"] == {"in": 1, "kept": 1, "dropped": {}}


def test_files_of_one_name_in_several_folders_have_ids_of_their_own(tmp_path):
    for folder, text in (("x", "甲"), ("y", "乙"), ("z/x", "丙")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.txt").write_text(text * 30, "utf-8")
    inputs = [str(tmp_path / name) for name in ("x", "y", "z/x")]
    made = clean(CleanConfig(input=inputs, out=str(tmp_path / "o"), heldout=0))
    assert [name for name, _ in read_texts(made.path)] == ["x.0/a.txt", "y/a.txt", "x.2/a.txt"]


LONG = "".join(chr(0x4E00 + i * 37 % 5000) for i in range(120))


def test_near_duplicates_benchmark_items_and_other_corpora_go_by_name(tmp_path):
    question = "患者反复上腹痛三年餐后加重最可能的诊断是下列哪一种疾病"
    (tmp_path / "test.csv").write_text(f"Question,A,B,Answer\n{question},胃溃疡,胃炎,A\n", "utf-8")
    (tmp_path / "other").mkdir()
    other = made_of(tmp_path / "other", {"o.txt": GOOD})
    files = {"a.txt": LONG, "b.txt": LONG[:100] + "尾" + LONG[100:], "c.txt": GOOD + "！", "d.txt": f"题目：{question}？答：胃溃疡。"}
    made = made_of(tmp_path, files, near=0.7, against=str(tmp_path / "test.csv"), distinct_from=str(other.path))
    assert made.manifest["counts"] == {"in": 4, "kept": 1, "dropped": {"benchmark": 1, "near_duplicate": 2}}
    assert [r["id"] for r in rows(made)] == ["b.txt"] and made.manifest["metrics"]["benchmark_items"] == 1
    assert {d["id"]: d.get("same_as", d.get("item")) for d in refused(made)} == {"a.txt": "b.txt", "c.txt": "o/o.txt", "d.txt": "test.csv:2"}
    assert [d["jaccard"] for d in refused(made) if d["id"] == "a.txt"] == [round(112 / 121, 4)]      # 116 and 117, of which 112 in common
    files = json.loads((made.path / "report.json").read_text("utf-8"))["files"]
    assert all(sum(counts.values()) == 2 for counts in files.values())           # in = kept + dropped for each
    assert made_of(tmp_path, {}, "plain").manifest["counts"]["kept"] == 4 and not (made.path / "checkpoints").exists()


def test_a_divided_document_is_known_again_and_short_ones_go_too(tmp_path):
    book = "".join(f"第{i}章讲的是第{i * 7}种病怎样诊断，怎样治疗，怎样预防。\n" for i in range(400)).strip()
    first = made_of(tmp_path / "a", {"book.txt": book, "c.txt": GOOD}, heldout=0.3, max_characters=1000)
    assert 1 < len(rows(first)) < len(rows(first, "heldout")) + len(rows(first))
    assert dict(read_whole(first.path)) == {"book.txt": book, "c.txt": GOOD}
    for number, near in enumerate((None, 0.8)):
        with pytest.raises(DataError, match="no document is left of 1: near_duplicate 1"):
            made_of(tmp_path / "b", {"copy.txt": book.replace("，", ",")}, f"o{number}", near=near, distinct_from=str(first.path))
    short = {f"{i}.txt": text for i, text in enumerate(("很好吃！", "很好吃", "很好，吃！"))}
    made = made_of(tmp_path / "c", short, near=0.8, min_characters=3)
    assert made.manifest["counts"] == {"in": 3, "kept": 1, "dropped": {"near_duplicate": 2}}


def test_a_benchmark_that_holds_nothing_is_refused_and_what_is_not_read_is_told(tmp_path, caplog):
    (tmp_path / "t.docx.gz").write_bytes(b"x")
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    (tmp_path / "t.csv").write_text("Question,A\n首都在哪里,上海\n少一格\n", "utf-8")
    for name, words in (("t.docx.gz", "is no benchmark that can be read; known are"), ("empty.jsonl", "holds no benchmark item")):
        with pytest.raises(DataError, match=words):
            made_of(tmp_path, {"a.txt": GOOD}, against=str(tmp_path / name))
    (tmp_path / "two.json").write_text('{"train": [{"问": "甲"}], "test": [{"问": "乙"}]}', "utf-8")
    with pytest.raises(DataError, match="two.json: is no benchmark that can be read: several_lists: holds several lists of rows, train and test"):
        made_of(tmp_path, {"a.txt": GOOD}, against=[str(tmp_path / "t.csv"), str(tmp_path / "two.json")])
    made_of(tmp_path, {"a.txt": GOOD}, against=str(tmp_path / "t.csv"))
    assert "benchmark: 1 rows cannot be read and are not compared; the first: t.csv:3: ragged_row" in caplog.text


def test_what_is_no_text_in_a_plain_folder_is_told(tmp_path, caplog):
    (tmp_path / "a.txt").write_text(GOOD, "utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "甲"}\n{broken\n[]\n', "utf-8")
    assert [name for name, _ in read_texts(tmp_path)] == ["a.txt", "b.jsonl:1"]
    assert "left out as no text: 1 bad_json, 1 no_text_field; zhtune clean lists them" in caplog.text


def test_the_same_corpus_goes_whole_and_a_share_is_a_share(tmp_path):
    first = made_of(tmp_path, {"a.txt": LONG, "b.txt": GOOD}, heldout=0.5)
    with pytest.raises(DataError, match="no document is left of 2: near_duplicate 2"):
        made_of(tmp_path, {}, "again", distinct_from=str(first.path))
    with pytest.raises(ConfigError, match="the rule near is a share from 0 to 1, not 1.5"):
        made_of(tmp_path, {}, "again", near=1.5)
    assert not (tmp_path / "again").exists()


def test_repeated_sentences_are_a_rule(tmp_path):
    shared = "第二句话说的是门诊时间。第三句话说的是病历本。第四句话说的是医保卡。"
    texts = {"a.txt": LONG + "。" + shared, "b.txt": "开头这句话谁都没有说过，就在这里。" + shared + "结尾这句话也是谁都没有说过的，请放心。"}
    made = made_of(tmp_path, texts, rules={"repeated_sentences": 3})
    assert [r["text"] for r in rows(made)] == [texts["a.txt"], texts["b.txt"].replace(shared, "")]
