"""Reading, typing and checking triples."""

import json
from pathlib import Path

import pytest
from conftest import ONTOLOGY, ROWS, write_graph_input

from zhtune.errors import ConfigError, DataError
from zhtune.stages.kg import KgConfig, kg

CASE = Path(__file__).resolve().parents[2] / "shared" / "cases" / "04-cells-stay-text"


def triples(folder):
    rows = [json.loads(line) for line in (folder / "triples.jsonl").read_text("utf-8").split("\n") if line]
    return [(r["head"], r["relation"], r["tail"]) for r in rows]


def test_graph_is_written_with_types_from_the_ontology(toy_graph):
    assert triples(toy_graph.path) == ROWS
    first = json.loads((toy_graph.path / "triples.jsonl").read_text("utf-8").split("\n")[0])
    assert (first["head_type"], first["tail_type"]) == ("病", "药")
    assert toy_graph.manifest["metrics"] == {"entities": 11, "triples": 9, "relations": 3, "facts": 8}
    assert toy_graph.manifest["licences"] == ["CC0-1.0"]


def test_noise_is_dropped_by_name(tmp_path):
    rows = [*ROWS, ROWS[0], ("感冒", "用药", "感冒")]
    made = kg(KgConfig(input=str(write_graph_input(tmp_path / "in", rows)), out=str(tmp_path / "g")))
    assert made.manifest["counts"] == {"in": 11, "kept": 9, "dropped": {"duplicate": 1, "self_loop": 1}}


def test_three_planted_contradictions_are_caught_with_their_lines(tmp_path):
    ontology = json.loads(json.dumps(ONTOLOGY))
    ontology["relations"]["用药"]["cardinality"] = "one"
    rows = [("感冒", "宜吃", "姜"), ("感冒", "忌吃", "姜"), ("咳嗽", "忌吃", "梨"), ("咳嗽", "宜吃", "梨"), ("感冒", "用药", "甲药"), ("感冒", "用药", "乙药")]
    folder = write_graph_input(tmp_path / "in", rows, ontology)
    with pytest.raises(DataError) as caught:
        kg(KgConfig(input=str(folder), out=str(tmp_path / "g")))
    text = str(caught.value)
    assert "3 contradictions" in text and "姜 stands under 宜吃 and 忌吃 of 感冒 (lines 1, 2)" in text
    assert "梨 stands under 宜吃 and 忌吃 of 咳嗽 (lines 4, 3)" in text and "感冒 has 2 用药, which allows one: 甲药, 乙药 (lines 5, 6)" in text
    assert not (tmp_path / "g").exists()


def test_contradictions_can_be_dropped_on_both_sides(tmp_path):
    rows = [*ROWS, ("感冒", "忌吃", "白粥")]
    made = kg(KgConfig(input=str(write_graph_input(tmp_path / "in", rows)), out=str(tmp_path / "g"), on_contradiction="drop"))
    assert made.manifest["counts"]["dropped"] == {"contradiction": 2}
    assert ("感冒", "宜吃", "白粥") not in triples(made.path)


@pytest.mark.parametrize(("row", "message"), [
    (("感冒", "没有", "甲药"), ":10: relation '没有' is not in the ontology"), (("感冒", "用药", ""), ":10: the tail is empty")])
def test_bad_rows_name_file_and_line(tmp_path, row, message):
    folder = write_graph_input(tmp_path / "in", [*ROWS, row])
    with pytest.raises(DataError, match="triples.jsonl" + message):
        kg(KgConfig(input=str(folder), out=str(tmp_path / "g")))


def test_an_ontology_with_an_unknown_key_is_refused(tmp_path):
    folder = write_graph_input(tmp_path / "in", ontology={**ONTOLOGY, "refusal": []})
    with pytest.raises(DataError, match=r"ontology.yaml: the ontology has an unknown key 'refusal'"):
        kg(KgConfig(input=str(folder), out=str(tmp_path / "g")))


def test_an_ontology_may_be_a_graphs_folder(tmp_path):
    theirs = write_graph_input(tmp_path / "theirs")
    (tmp_path / "t.csv").write_text("head,relation,tail\n感冒,用药,甲药\n", "utf-8")
    made = kg(KgConfig(input=str(tmp_path / "t.csv"), ontology=str(theirs), out=str(tmp_path / "g")))
    assert (made.path / "ontology.yaml").read_bytes() == (theirs / "ontology.yaml").read_bytes() and made.manifest["resolved"] == {}
    (theirs / "ontology.yaml").unlink()
    with pytest.raises(ConfigError, match=r"theirs/ontology.yaml cannot be read: No such file"):
        kg(KgConfig(input=str(tmp_path / "t.csv"), ontology=str(theirs), out=str(tmp_path / "h")))


def test_csv_cells_stay_the_text_they_are(tmp_path):
    (tmp_path / "t.csv").write_bytes('头,关系,尾\r\n"a,b",编码,00123450\r\n"说""好""",编码,"一\n二"\r\n末\\,编码,1e5\r\n'.encode("gb18030"))
    made = kg(KgConfig(input=str(tmp_path / "t.csv"), out=str(tmp_path / "g")))
    assert triples(made.path) == [("a,b", "编码", "00123450"), ('说"好"', "编码", "一\n二"), ("末\\", "编码", "1e5")]
    assert made.manifest["resolved"] == {"ontology": "drafted from the triples"}


@pytest.mark.skipif(not CASE.exists(), reason="the shared cases are not here")
@pytest.mark.parametrize("name", ["triples", "codes"])
def test_case_cells_stay_text(tmp_path, name):
    made = kg(KgConfig(input=str(CASE / f"{name}.csv"), out=str(tmp_path / "g")))
    expected = json.loads((CASE / "expected.json").read_text("utf-8"))
    wanted = expected[name] if name in expected else expected[f"{name}.csv"]
    assert sorted(triples(made.path)) == sorted(tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in wanted)


@pytest.mark.parametrize(("domain", "counts"), [("medical", (1292, 2067, 10, 1000)), ("poetry", (321, 509, 6, 464))])
def test_shipped_graphs_are_free_of_contradictions(tmp_path, domain, counts):
    made = kg(KgConfig(input=f"shipped:{domain}", out=str(tmp_path / "g")))
    assert tuple(made.manifest["metrics"].values()) == counts and made.manifest["counts"]["dropped"] == {}


@pytest.mark.parametrize(("change", "message"), [
    ({"ask": None}, "relations.用药.ask needs at least one wording"), ({"ask": []}, "relations.用药.ask needs at least one wording"),
    ({"say": ["{h}的药有{ts}。"]}, "relations.用药.say must be one text"), ({"say": "{h}的药有{t}。"}, "must hold {h} and {ts} once"),
    ({"say_yes": None}, "has ask_confirm but lacks the key 'say_yes' to answer it"), ({"tail": []}, "needs at least one type"),
    ({"say_inverse": None}, "has ask_inverse but lacks the key 'say_inverse' to answer it")])
def test_a_relation_that_cannot_be_asked_or_answered_is_refused(tmp_path, change, message):
    ontology = json.loads(json.dumps(ONTOLOGY))
    ontology["relations"]["用药"] |= change
    with pytest.raises(DataError, match=f"ontology.yaml: .*{message}"):
        kg(KgConfig(input=str(write_graph_input(tmp_path / "in", ontology=ontology)), out=str(tmp_path / "g")))
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(("heldout", "message"), [
    ({"用要": {"near": ["{h}？"]}}, "unknown key '用要'"), ({"用药": {"close": ["{h}？"]}}, "unknown key 'close'"),
    ({"用药": {"near": ["谁？"]}}, "must hold {h} once"), ({"用药": ["{h}？"]}, "must be a mapping of near and far")])
def test_held_out_wordings_are_read_strictly(tmp_path, heldout, message):
    with pytest.raises(DataError, match=f"heldout.yaml: .*{message}"):
        kg(KgConfig(input=str(write_graph_input(tmp_path / "in", heldout=heldout)), out=str(tmp_path / "g")))


def test_a_file_is_read_alone_whatever_lies_beside_it(tmp_path):
    """What changes the output is part of the identity: an ontology beside a single file is no input, so it has no effect."""
    folder = write_graph_input(tmp_path / "in")
    made = kg(KgConfig(input=str(folder / "triples.jsonl"), out=str(tmp_path / "g")))
    assert made.manifest["resolved"] == {"ontology": "drafted from the triples"} and not (made.path / "heldout.yaml").exists()
    given = kg(KgConfig(input=str(folder / "triples.jsonl"), ontology=str(folder / "ontology.yaml"), out=str(tmp_path / "g2")))
    assert "ontology" in given.manifest["identity"]["inputs"] and given.manifest["resolved"] == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_json_lines_in_chinese_encodings(tmp_path, encoding):
    (tmp_path / "t.jsonl").write_bytes('{"head":"感冒","relation":"用药","tail":"甲药"}\r\n'.encode(encoding))
    assert triples(kg(KgConfig(input=str(tmp_path / "t.jsonl"), out=str(tmp_path / "g"))).path) == [("感冒", "用药", "甲药")]


def test_a_draft_takes_relations_between_several_types(tmp_path):
    rows = ("head,relation,tail,head_type,tail_type", "感冒,相关,甲药,病,药", "甲药,相关,感冒,药,病")
    (tmp_path / "t.csv").write_text("\n".join(rows), "utf-8")
    made = kg(KgConfig(input=str(tmp_path / "t.csv"), out=str(tmp_path / "g")))
    assert triples(made.path) == [("感冒", "相关", "甲药"), ("甲药", "相关", "感冒")]


def test_a_header_that_names_a_column_twice_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("head,relation,tail,tail\n甲,乙,丙,丁\n", "utf-8")
    with pytest.raises(DataError, match="t.csv:1: the header names 'tail' twice"):
        kg(KgConfig(input=str(tmp_path / "t.csv"), out=str(tmp_path / "g")))
