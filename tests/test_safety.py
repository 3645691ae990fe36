"""What the ontology says must go with an answer: in records, in the report, in preference pairs."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import ONTOLOGY, write_graph_input

from zhtune import assets
from zhtune.errors import DataError
from zhtune.graph.graph import Graph
from zhtune.records import read_jsonl
from zhtune.stages.kg import KgConfig, kg
from zhtune.stages.kg_instruct import KgInstructConfig, kg_instruct
from zhtune.stages.prefer import PreferConfig, prefer
from zhtune.synthesis.audit import Auditor, figures
from zhtune.synthesis.questions import recorded_questions, score
from zhtune.synthesis.safety import Safety

SAFETY = {"disclaimers": [{"relations": ["用药"], "say": "用药请遵医嘱。"}, {"types": ["食"]}], "red_flags": [{"names": ["丁药", "辣椒"], "say": "碰到{ts}要当心。"}]}
GENERAL = "仅供参考。"


@pytest.fixture
def safe_at(tmp_path):
    """The toy graph with safety rules; the second disclaimer is the ontology's general one."""
    source = write_graph_input(tmp_path / "safe", ontology={**ONTOLOGY, "disclaimer": GENERAL, "safety": SAFETY})
    return kg(KgConfig(input=str(source), out=str(tmp_path / "safe-graph"))).path


def test_what_is_required(safe_at):
    graph = Graph.open(safe_at)
    wanted = {("感冒", "用药"): ["用药请遵医嘱。"], ("头痛", "用药"): ["碰到丁药要当心。", "用药请遵医嘱。"], ("感冒", "忌吃"): ["碰到辣椒要当心。", GENERAL], ("感冒", "宜吃"): [GENERAL]}
    assert {fact: Safety(graph).required([t.id for t in graph.facts[fact]]) for fact in wanted} == wanted


def test_records_say_it_and_a_missing_one_is_counted(safe_at, tmp_path):
    made = kg_instruct(KgInstructConfig(graph=str(safe_at), records_per_fact=1, yes_no=1, unanswerable=.5, heads=2, tasks={"dialogue": 4}, out=str(tmp_path / "r")))
    graph, rows = Graph.open(safe_at), [row for _, row in read_jsonl(made.path / "records.jsonl")]
    for row in rows:
        facts = {(graph.by_id[i].head, graph.by_id[i].relation) for i in row["source"]["triples"]}
        answer = row["messages"][-1]["content"]
        assert ("用药请遵医嘱。" in answer) == any(relation == "用药" for _, relation in facts)
        assert (GENERAL in answer) == any(relation in ("宜吃", "忌吃") for _, relation in facts)
        assert all(text not in message["content"] for message in row["messages"][:-1] for text in ("用药请遵医嘱。", GENERAL))
        assert all(answer.count(text) <= 1 for text in ("用药请遵医嘱。", GENERAL))
    touched = sum(bool(row["source"]["triples"]) for row in rows)
    report = json.loads((made.path / "report.json").read_text("utf-8"))["verified"]
    assert touched < len(rows) and report["safety"] == {"required": touched, "missing": 0} and report["flagged"] == {}
    rows[0] = next(row for row in rows if row["source"]["triples"])
    bare = {**rows[0], "messages": [*rows[0]["messages"][:-1], {"role": "assistant", "content": "好。"}]}
    assert Safety(graph).missing(bare) == Safety(graph).required(bare["source"]["triples"]) != []
    assert figures([Auditor(graph).audit([bare, Safety(graph).add(bare)])])["safety"] == {"required": 2, "missing": 1}


def test_pairs_that_lack_it_and_no_others(safe_at, tmp_path):
    made = prefer(PreferConfig(graph=str(safe_at), pairs=8, flaws=["missing_disclaimer", "polarity"], flaw_pairs=8, out=str(tmp_path / "p")))
    rows = [row for _, row in read_jsonl(made.path / "preferences.jsonl")]
    assert made.manifest["metrics"]["missing_disclaimer"] == 8
    graph = Graph.open(safe_at)
    for row in rows:
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        needed = Safety(graph).required(row["source"]["triples"])
        assert needed and all(text in chosen for text in needed)
        if row["source"]["flaw"] == "missing_disclaimer":
            assert not any(text in rejected for text in needed) and chosen[:2] == rejected[:2]
        else:
            assert all(text in rejected for text in needed)     # what both say tells nothing


def test_without_a_disclaimer_there_is_no_such_pair(toy_graph, tmp_path):
    made = prefer(PreferConfig(graph=str(toy_graph.path), pairs=1, flaws=["missing_disclaimer"], flaw_pairs=5, out=str(tmp_path / "p")))
    assert made.manifest["metrics"] == {"pairs": 1, "missing_disclaimer": 0} and made.manifest["counts"]["dropped"] == {"no_more_missing_disclaimer": 5}


def test_the_shipped_additions(tmp_path):
    made = kg(KgConfig(input=str(assets.shipped("medical")), additions=str(assets.shipped("medical-safety")), out=str(tmp_path / "g")))
    plain = kg(KgConfig(input=str(assets.shipped("medical")), out=str(tmp_path / "plain")))
    graph = Graph.open(made.path)
    named = {name for rule in graph.ontology.safety for name in rule.names}
    assert named and named <= set(graph.types) and graph.ontology.consult.features == ("症状",)
    assert (made.path / "triples.jsonl").read_bytes() == (plain.path / "triples.jsonl").read_bytes() and not Graph.open(plain.path).ontology.safety
    assert (plain.path / "ontology.yaml").read_bytes() == (assets.shipped("medical") / "ontology.yaml").read_bytes()


@pytest.mark.parametrize(("safety", "message"), [
    ({"disclaimer": []}, "safety has an unknown key 'disclaimer'"), ({"disclaimers": {}}, ""), ({"red_flags": "胸痛"}, "safety.red_flags must be a list of rules"),
    ({"disclaimers": [{"relations": ["服法"], "say": "好。"}]}, "safety.disclaimers, rule 1: '服法' is not declared in the ontology"),
    ({"disclaimers": [{"types": ["药"]}]}, "safety.disclaimers, rule 1 needs a text `say`"), ({"red_flags": [{"say": "好。"}]}, "rule 1 needs a text `say` and at least"),
    ({"red_flags": [{"names": ["甲药"], "say": "{h}危险"}]}, r"may hold \{ts\} and no \{h\}")])
def test_rules_are_read_strictly(tmp_path, safety, message):
    config = KgConfig(input=str(write_graph_input(tmp_path / "in", ontology={**ONTOLOGY, "safety": safety})), out=str(tmp_path / "g"))
    if not message:
        assert kg(config).path.exists()                     # an empty section is none
        return
    with pytest.raises(DataError, match=message):
        kg(config)
    assert not (tmp_path / "g").exists()


def test_additions_add_and_never_replace(tmp_path):
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"refuse": ["不知道{h}。"]}, allow_unicode=True), "utf-8")
    with pytest.raises(DataError, match="more.yaml: 'refuse' is in the ontology already"):
        kg(KgConfig(input=str(write_graph_input(tmp_path / "in")), additions=str(tmp_path / "more.yaml"), out=str(tmp_path / "g")))
    assert not (tmp_path / "g").exists()


def test_what_safety_adds_is_no_part_of_a_held_out_answer(tmp_path):
    rows = [("感冒", "用药", "甲药"), ("感冒", "用药", "丁药"), ("咳嗽", "用药", "甲药"), ("咳嗽", "用药", "丙药")]
    safety = {"red_flags": [{"names": ["丁药"], "say": "碰到{ts}要当心。"}]}
    graph = Graph.open(kg(KgConfig(input=str(write_graph_input(tmp_path / "in", rows, ONTOLOGY | {"safety": safety})), out=str(tmp_path / "g"))).path)
    said = Safety(graph).add({"messages": [{"role": "user", "content": "感冒和咳嗽都用什么药？"}, {"role": "assistant", "content": "都用甲药。"}],
                              "source": {"task": "common", "split": "composition", "triples": [t.id for t in graph.triples]}})
    assert said["messages"][1]["content"] == "都用甲药。碰到丁药要当心。"
    [question] = recorded_questions(graph, [said], 1, 0)
    assert question.expected == ("甲药",)
    assert [score(text, question, graph).exact for text in ("都用甲药。碰到丁药要当心。", "甲药", "碰到甲药、丁药要当心。", "甲药、丁药")] == [True, True, False, False]
