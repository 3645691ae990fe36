"""Attributes and consultations as tasks, and the verifier of answers that state several things."""

from __future__ import annotations

import json

import pytest
from conftest import ONTOLOGY, ROWS, write_graph_input
from test_tasks import PLAIN, said

from zhtune.errors import DataError
from zhtune.graph.graph import Graph
from zhtune.records import read_jsonl
from zhtune.stages.kg import KgConfig, kg
from zhtune.stages.kg_instruct import KgInstructConfig, kg_instruct
from zhtune.synthesis.instruct import Taught, choose_heads, rows_of
from zhtune.synthesis.link import Linker
from zhtune.synthesis.statements import verify_statements
from zhtune.synthesis.tasks import read_wordings, task_jobs

SYMPTOMS = {"感冒": ["发热", "流涕", "咽痛"], "咳嗽": ["发热", "流涕"], "头痛": ["发热", "恶心"]}
VALUES = [("感冒", "治愈率", "98%"), ("感冒", "周期", "5-7天"), ("咳嗽", "医保", "否"), ("甲药", "规格", "每片0.5克"), ("3号药", "规格", "每片1克"), ("头痛", "治愈率", "90%")]
ATTRIBUTES = {"治愈率": {"kind": "percent", "ask": ["{h}能治好吗？"], "say": "{h}的治愈率约为{v}。"}, "周期": {"kind": "range"}, "医保": {}, "规格": {}}


@pytest.fixture
def graph_at(tmp_path):
    """The toy graph with symptoms of the diseases and values of attributes, of a medicine too."""
    relation = {"head": "病", "tail": "症", "ask": ["{h}有啥症状？"], "say": "{h}的症状有{ts}。", "ask_inverse": ["{t}是啥病？"], "say_inverse": "有{t}的病是{hs}。"}
    ontology = {**ONTOLOGY, "types": [*ONTOLOGY["types"], "症"], "relations": {**ONTOLOGY["relations"], "症状": relation}, "attributes": ATTRIBUTES,
                "consult": {"features": ["症状"], "advice": ["用药"]}}
    rows = [*ROWS, *((head, "症状", tail) for head, tails in SYMPTOMS.items() for tail in tails), *VALUES]
    return kg(KgConfig(input=str(write_graph_input(tmp_path / "in", rows, ontology)), out=str(tmp_path / "g"))).path


def made(graph: Graph, task: str, wanted: int, taught: Taught | None = None, wordings=PLAIN) -> list[dict]:
    return rows_of(task_jobs(graph, taught or choose_heads(graph, 0, 0), {task: wanted}, 0, wordings))


def test_attributes_are_asked_in_the_ontologys_words_or_in_plain_ones(graph_at):
    graph = Graph.open(graph_at)
    assert said(made(graph, "attribute", 6)) == {
        ("感冒能治好吗？", "感冒的治愈率约为98%。"), ("头痛能治好吗？", "头痛的治愈率约为90%。"), ("h=感冒|l=周期", "h=感冒|l=周期|v=5-7天"),
        ("h=咳嗽|l=医保", "h=咳嗽|l=医保|v=否"), ("h=甲药|l=规格", "h=甲药|l=规格|v=每片0.5克"),
        ("h=3号药|l=规格", "h=3号药|l=规格|v=每片1克")}
    untaught = Taught(["咳嗽"], ["感冒"], ["头痛"])
    assert {row["messages"][0]["content"][2:4] for row in made(graph, "attribute", 9, untaught)} == {"咳嗽", "甲药", "3号"}     # no value of a stranger


def test_consultations_list_whatever_has_two_of_the_features(graph_at):
    graph, facts = Graph.open(graph_at), {head: set(tails) for head, tails in SYMPTOMS.items()}
    rows, sizes = made(graph, "consultation", 60, wordings=read_wordings()), set()
    assert len(rows) == 60
    for row in rows:
        asked, answered = (message["content"] for message in row["messages"])
        told = {name for names in facts.values() for name in names if name in asked}
        listed = answered.split("仅凭")[0].split("这只是")[0].split("是不是")[0]
        expected = {head: tails & told for head, tails in facts.items() if len(tails & told) >= 2}
        assert {head for head in facts if head in listed} == set(expected) and not any(head in asked for head in facts)
        best = [head for head, tails in expected.items() if tails == told]
        drugs = {tail for head, relation, tail in ROWS if relation == "用药" and head in best}
        assert {tail for _, relation, tail in ROWS if relation == "用药" and tail in answered} == drugs
        stated = {(graph.by_id[i].head, graph.by_id[i].tail) for i in row["source"]["triples"]}
        assert stated == {(h, t) for h, tails in expected.items() for t in tails} | {(h, t) for h, r, t in ROWS if r == "用药" and h in best}
        sizes.add(len(expected))
    assert sizes == {1, 2}                                  # 发热 and 流涕: two; with 咽痛, or 发热 and 恶心: one or two


def test_too_many_candidates_are_not_listed(tmp_path):
    rows = [(f"病{i}", "症状", name) for i in range(4) for name in ("发热", "流涕")]
    ontology = {"types": ["病", "症"], "relations": {"症状": {"head": "病", "tail": "症", "ask": ["{h}？"], "say": "{h}有{ts}。",
                                                          "ask_inverse": ["{t}？"], "say_inverse": "{t}：{hs}。"}}}
    graph = Graph.open(kg(KgConfig(input=str(write_graph_input(tmp_path / "in", rows, ontology, None)), out=str(tmp_path / "g"))).path)
    assert made(graph, "consultation", 5) == []


def flagged(graph: Graph, text: str, ids: list[str]) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    found = verify_statements(graph, Linker(graph.types), text, [graph.by_id[i] for i in ids])
    return [(claim.text, claim.reason) for claim in found.flagged], found.missing


def ids(graph: Graph, *names: tuple[str, str]) -> list[str]:
    return [i for i, t in graph.by_id.items() if (t.head, t.relation) in names]


def test_each_tail_is_judged_by_the_head_before_it(graph_at):
    graph = Graph.open(graph_at)
    both = ids(graph, ("感冒", "宜吃"), ("咳嗽", "宜吃"), ("感冒", "忌吃"), ("咳嗽", "忌吃"))
    assert flagged(graph, "感冒宜吃白粥；咳嗽宜吃雪梨。感冒和咳嗽都忌吃辣椒。", both) == ([], ())
    assert flagged(graph, "感冒宜吃雪梨；咳嗽宜吃白粥。感冒和咳嗽都忌吃辣椒。", both) == ([("雪梨", "not_in_graph"), ("白粥", "not_in_graph")], ("白粥", "雪梨"))
    assert flagged(graph, "感冒宜吃白粥；咳嗽不宜吃雪梨。感冒和咳嗽都可以吃辣椒。", both)[0] == [("雪梨", "polarity"), ("辣椒", "polarity")]
    assert flagged(graph, "感冒宜吃白粥，也可用甲药；咳嗽宜吃雪梨。感冒和咳嗽都忌吃辣椒。", both)[0] == [("甲药", "other_fact")]


def test_values_are_found_however_they_are_written(graph_at):
    graph = Graph.open(graph_at)
    cure, cycle, insured = (ids(graph, key) for key in (("感冒", "治愈率"), ("感冒", "周期"), ("咳嗽", "医保")))
    for text in ("感冒的治愈率约为98%。", "治愈率有９８％。", "大约 98 %能治好。"):
        assert flagged(graph, text, cure) == ([], ()), text
    assert flagged(graph, "感冒要5至7天。", cycle) == flagged(graph, "5 ～ 7 天", cycle) == ([], ())
    assert flagged(graph, "感冒的治愈率约为89%。", cure) == ([("89%", "number")], ("98%",))
    assert flagged(graph, "治愈率是198%。", cure) == ([("198%", "number")], ("98%",))
    assert flagged(graph, "感冒的治愈率是98%，头痛是90%。", cure) == ([("头痛", "not_in_graph"), ("90%", "number")], ())
    assert flagged(graph, "治愈率不是98%。", cure)[0] == [("98%", "polarity")]
    assert flagged(graph, "感冒的周期是5-7天，分2次。", cycle)[0] == [("2", "number")]
    assert flagged(graph, "咳嗽是否医保：否。", insured) == ([], ())
    assert flagged(graph, "咳嗽是否医保：是。", insured) == ([], ("否",))       # the 否 of 是否 is no answer


def test_the_stage_covers_verifies_and_holds_out_values(graph_at, tmp_path):
    config = KgInstructConfig(graph=str(graph_at), records_per_fact=1, tasks={"attribute": 6, "consultation": 20, "summary": 3, "comparison": 9},
                              out=str(tmp_path / "r"))
    report = json.loads((kg_instruct(config).path / "report.json").read_text("utf-8"))
    assert report["coverage_of_attributes"] == {"治愈率": {"triples": 2, "taught": 2, "covered": 2}, "周期": {"triples": 1, "taught": 1, "covered": 1},
                                                "医保": {"triples": 1, "taught": 1, "covered": 1}, "规格": {"triples": 2, "taught": 0, "covered": 2}}
    assert report["verified"]["answers"].keys() == {"one_hop", "attribute", "consultation", "summary", "comparison"} and report["verified"]["flagged"] == {}
    held = KgInstructConfig(graph=str(graph_at), records_per_fact=1, tasks={"attribute": 6, "consultation": 20}, holdout={"triple": .4, "composition": .4},
                            out=str(tmp_path / "h"))
    path = kg_instruct(held).path
    train, heldout = ([row for _, row in read_jsonl(path / f"{name}.jsonl")] for name in ("records", "heldout"))
    values = {i for i, t in Graph.open(graph_at).by_id.items() if t.relation in ATTRIBUTES}
    taught, kept = ({i for row in rows if row["source"]["task"] == "attribute" for i in row["source"]["triples"]} for rows in (train, heldout))
    assert kept and taught and not kept & taught and kept | taught == values
    joined = {frozenset(row["source"]["triples"]) for row in heldout if row["source"]["split"] == "composition"}
    assert joined and not joined & {frozenset(row["source"]["triples"]) for row in train if row["source"]["task"] == "consultation"}


def test_consult_is_read_strictly(tmp_path):
    for consult, message in (({"features": ["体征"]}, "consult: '体征' is not declared in the ontology"), ({"feature": []}, "consult has an unknown key 'feature'"),
                             ({"ask": ["我{h}？"]}, "consult.ask: '我{h}？' must hold {ts} once")):
        source = write_graph_input(tmp_path / message[:9], ontology={**ONTOLOGY, "consult": consult})
        with pytest.raises(DataError, match=message.replace("{", r"\{").replace("?", r"\?")):
            kg(KgConfig(input=str(source), out=str(tmp_path / "g")))
        assert not (tmp_path / "g").exists()
