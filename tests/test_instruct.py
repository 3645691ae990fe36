"""Records, preferences, held-out questions and their scoring."""

import json
import os
import random
import subprocess
import sys

import pytest
import yaml
from conftest import HELDOUT, ROWS, write_graph_input

from zhtune import assets
from zhtune.errors import DataError
from zhtune.graph.graph import Graph, Triple
from zhtune.graph.ontology import Ontology, Relation, fill
from zhtune.records import read_jsonl
from zhtune.stages.kg import KgConfig, kg
from zhtune.stages.kg_instruct import KgInstructConfig, kg_instruct
from zhtune.stages.prefer import PreferConfig, prefer
from zhtune.synthesis.instruct import Taught, choose_heads, read_taught, record_jobs, rows_of
from zhtune.synthesis.preferences import pairs
from zhtune.synthesis.questions import Question, heldout_questions, majority, mentioned, score, wilson
from zhtune.synthesis.reword import reword


def make(toy_graph, tmp_path, **fields):
    return kg_instruct(KgInstructConfig(graph=str(toy_graph.path), out=str(tmp_path / "records"), **fields))


def test_every_fact_gets_its_records_and_the_answers_are_the_facts(toy_graph, tmp_path):
    made = make(toy_graph, tmp_path, records_per_fact=6, inverse=0, yes_no=0, unanswerable=0)
    rows = [row for _, row in read_jsonl(made.path / "records.jsonl")]
    assert len(rows) == 8 * 6
    answers = {row["messages"][1]["content"] for row in rows}
    assert answers == {"感冒的药有甲药、乙药。", "感冒宜吃白粥。", "感冒忌吃辣椒。", "咳嗽的药有丙药。", "咳嗽宜吃雪梨。", "咳嗽忌吃辣椒。", "头痛的药有丁药。", "头痛宜吃绿茶。"}
    by_fact = [row["source"]["wording"] for row in rows if row["messages"][1]["content"] == "感冒的药有甲药、乙药。"]
    assert sorted(by_fact) == [0, 0, 1, 1, 2, 2]            # every wording before any comes again
    report = json.loads((made.path / "report.json").read_text("utf-8"))
    assert report["coverage"]["用药"] == {"triples": 4, "taught": 4, "covered": 4}


def test_untaught_heads_are_refused_and_never_both_trained_and_measured(toy_graph, tmp_path):
    made = make(toy_graph, tmp_path, heads=1, records_per_fact=20, unanswerable=0.5, yes_no=0.2, inverse=0.2)
    taught = json.loads((made.path / "taught.json").read_text("utf-8"))
    parts = [set(taught[k]) for k in ("heads", "unknown_train", "unknown_eval")]
    assert [len(p) for p in parts] == [1, 1, 1] and len(set.union(*parts)) == 3
    rows = [row for _, row in read_jsonl(made.path / "records.jsonl")]
    refusals = [row for row in rows if row["source"]["task"] == "unanswerable"]
    assert {r["messages"][1]["content"] for r in refusals} == {f"我没有{taught['unknown_train'][0]}的资料。"}
    assert not any(taught["unknown_eval"][0] in json.dumps(row, ensure_ascii=False) for row in rows)
    confirmed = [r["source"] for r in rows if r["source"]["task"] == "yes_no"]
    facts = {(h, t) for h, _, t in ROWS}
    assert all((taught["heads"][0], s["stated"]) in facts if s["true"] else (taught["heads"][0], s["stated"]) not in facts for s in confirmed)
    assert abs(sum(s["true"] for s in confirmed) * 2 - len(confirmed)) <= 1


def test_a_heldout_wording_among_the_training_wordings_is_refused(tmp_path):
    heldout = {**HELDOUT, "忌吃": {"near": ["{h}忌吃什么？"], "far": []}}
    graph = kg(KgConfig(input=str(write_graph_input(tmp_path / "in", heldout=heldout)), out=str(tmp_path / "g")))
    with pytest.raises(DataError, match="held-out wording '{h}忌吃什么？' of 忌吃 is also a training wording"):
        kg_instruct(KgInstructConfig(graph=str(graph.path), out=str(tmp_path / "r")))
    assert not (tmp_path / "r").exists()


def test_equal_bytes_whatever_the_hash_seed(toy_graph, tmp_path):
    digests = set()
    for seed in ("0", "1"):
        out = tmp_path / f"r{seed}"
        subprocess.run([sys.executable, "-m", "zhtune", "kg-instruct", "--graph", str(toy_graph.path), "--heads", "2", "--out", str(out)],
                       check=True, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
        digests.add(json.dumps(json.loads((out / "manifest.json").read_text("utf-8"))["files"]))
    assert len(digests) == 1


@pytest.mark.parametrize("holdout", [{}, {"triple": 0.3}])
def test_equal_bytes_with_several_processes(toy_graph, tmp_path, holdout):
    config = {"graph": str(toy_graph.path), "records_per_fact": 1300, "tasks": {"counting": 2, "dialogue": 3}, "holdout": holdout, "noise": False}
    one, three = (kg_instruct(KgInstructConfig(**config, workers=n, out=str(tmp_path / str(n)))) for n in (1, 3))
    assert one.digest == three.digest
    assert one.manifest["counts"]["in"] == 8 * 1300 + 208 + 416 + 624 + 5       # facts, 2, 4 and 6 % of them, tasks


def test_no_rejected_answer_is_true_in_the_graph(toy_graph, tmp_path):
    made = prefer(PreferConfig(graph=str(toy_graph.path), pairs=40, out=str(tmp_path / "p")))
    rows = [row for _, row in read_jsonl(made.path / "preferences.jsonl")]
    true = {(h, t) for h, _, t in ROWS}
    assert rows
    for row in rows:
        old, new = row["source"]["swapped"]
        head = next(h for h, _, _ in ROWS if row["chosen"][0]["content"].startswith(h))
        assert abs(len(old) - len(new)) <= 1 and (head, old) in true and (head, new) not in true
        assert row["rejected"][0]["content"] == row["chosen"][0]["content"].replace(old, new)


def question(toy_graph):
    return Question("q", "感冒用什么药？", "感冒", "用药", ("甲药", "乙药"), "near", "{h}用什么药？"), Graph.open(toy_graph.path)


@pytest.mark.parametrize(("answer", "exact", "refused"), [
    ("感冒的药有甲药、乙药。", True, False), ("感冒的药有乙药、甲药。", True, False), ("感冒的药有甲药。", False, False),
    ("感冒的药有甲药、乙药、丙药。", False, False), ("感冒的药有甲药、乙药、神药。", False, False), ("咳嗽的药有甲药、乙药。", False, False),
    ("感冒可以用乙药和甲药", True, False), ("用乙药和甲药", False, False), ("我没有感冒的资料。", False, True), ("", False, False)])
def test_exact_means_the_head_and_the_whole_set_and_nothing_else(toy_graph, answer, exact, refused):
    asked, graph = question(toy_graph)
    verdict = score(answer, asked, graph)
    assert (verdict.exact, verdict.refused) == (exact, refused)


def scored(answer, head, relation, triples, say="{h}有{ts}"):
    """The verdict on an answer to the fact (head, relation) of a graph made of (head, relation, tail) triples."""
    form = Relation(relation, ("病",), ("病",), False, (), ("{h}？",), say)
    graph = Graph([Triple(h, r, t, "病", "病") for h, r, t in triples], Ontology("toy", "", "", ("病",), {relation: form}))
    return score(answer, Question("q", "", head, relation, tuple(graph.tails(head, relation)), "near", "{h}？"), graph)


@pytest.mark.parametrize(("answer", "exact"), [
    ("糖尿病容易发展成糖尿病足", True), ("可能是糖尿病足", False), ("糖尿病有糖尿病足", True), ("糖尿病有糖尿病足、肾病", False)])
def test_a_head_inside_its_own_tail_is_told_from_it(answer, exact):
    assert scored(answer, "糖尿病", "并发", [("糖尿病", "并发", "糖尿病足")]).exact is exact


@pytest.mark.parametrize(("answer", "exact"), [("甲有一、二、三、四", True), ("甲有三、四、一、二", True), ("甲有一、二、三", False), ("甲有一、二、三、四、五", False)])
def test_names_that_hold_the_list_mark_and_forms_that_end_with_the_list(answer, exact):
    assert scored(answer, "甲", "有", [("甲", "有", "一、二"), ("甲", "有", "三、四")]).exact is exact


def test_an_answer_of_several_lines_keeps_its_form():
    assert scored("甲的步骤：1. 洗\n2. 切。", "甲", "步骤", [("甲", "步骤", "1. 洗\n2. 切")], "{h}的步骤：{ts}。").exact


def test_a_name_of_two_types_counts_under_both(toy_graph):
    graph = Graph([Triple("甲", "症", "乙", "病", "症状"), Triple("丙", "并", "乙", "病", "病")], Graph.open(toy_graph.path).ontology)
    assert (graph.of_type("症状"), graph.of_type("病"), graph.of_type("症状", "病")) == (["乙"], ["丙", "乙", "甲"], ["乙", "丙", "甲"])


def test_names_that_look_like_placeholders_stay_names():
    assert fill("{h}的药有{ts}。", h="{ts}", ts="{h}、丙") == "{ts}的药有{h}、丙。"


def test_records_that_are_not_of_this_graph_are_refused(toy_graph, tmp_path):
    other = kg(KgConfig(input=str(write_graph_input(tmp_path / "o", [("癣", "用药", "戊药")])), out=str(tmp_path / "og")))
    made = make(other, tmp_path)
    with pytest.raises(DataError, match="teaches '癣', which is no head of the graph"):
        prefer(PreferConfig(graph=str(toy_graph.path), records=str(made.path), out=str(tmp_path / "p")))
    with pytest.raises(DataError, match="taught.json: is missing"):
        read_taught(tmp_path, Graph.open(toy_graph.path))


def test_a_small_sample_asks_every_relation_before_a_second_wording_of_one():
    graph = Graph.open(assets.shipped("medical"))
    taught = choose_heads(graph, 50, 0)
    for split, heads in (("near", taught.heads), ("unknown", taught.unknown_eval)):
        asked = heldout_questions(graph, heads, split, 10, 0)
        assert sorted(q.relation for q in asked) == sorted(graph.ontology.relations)
    assert len({q.relation for q in heldout_questions(graph, taught.unknown_eval, "unknown", 50, 0)}) == 10


def test_a_dropped_character_never_turns_the_question_round():
    graph = Graph.open(assets.shipped("medical"))
    for name, relation in graph.ontology.relations.items():
        for number, wording in enumerate(relation.ask * 10):
            asked, form = reword(wording, "甲", relation, graph.ontology, random.Random(f"{name}:{number}"))
            if form == "wording":
                assert all(asked.count(c) >= wording.count(c) for c in "不没别忌禁避少"), (wording, asked)


def test_rewording_has_the_measured_shares():
    graph = Graph.open(assets.shipped("medical"))
    relation = graph.ontology.relations["症状"]
    made = [reword("{h}有哪些症状？", "甲", relation, graph.ontology, random.Random(str(i))) for i in range(2000)]
    assert abs(sum(form == "keywords" for _, form in made) / 2000 - 0.25) < 0.03
    plain = [text for text, form in made if form == "wording"]
    filled = [t for t in plain if t.startswith(graph.ontology.filler_before) or t.endswith(graph.ontology.filler_after)]
    assert abs(len(filled) / len(plain) - 0.5) < 0.03


def test_a_rewording_that_becomes_a_held_out_wording_is_drawn_again(toy_graph):
    graph = Graph.open(toy_graph.path)
    graph.heldout["用药"]["far"] = [form.replace("{l}", label) for form in ("{h} {l}", "{h}{l}", "{h}的{l}", "{l} {h}") for label in ("药", "用药")]
    rows = rows_of(record_jobs(graph, choose_heads(graph, 0, 0), 40, {}, 0))
    held = {w.replace("{h}", h) for w in graph.heldout["用药"]["far"] for h in graph.heads}
    assert len(rows) == 8 * 40 and not held & {row["messages"][0]["content"] for row in rows}


def test_where_every_head_is_taught_composed_names_are_refused():
    graph = Graph.open(assets.shipped("medical"))
    taught = choose_heads(graph, 0, 0)
    made = {*taught.unknown_train, *taught.unknown_eval}
    assert len(taught.heads) == 100 and len(made) == 60 and not set(taught.unknown_train) & set(taught.unknown_eval)
    assert not any(name in known or known in name for name in made for known in graph.types)
    assert {q.head for q in heldout_questions(graph, taught.unknown_eval, "unknown", 0, 0)} == set(taught.unknown_eval)


def test_unknown_heads_are_in_no_taught_statement_and_no_swap():
    graph = Graph.open(assets.shipped("medical"))
    for seed in range(3):
        taught = choose_heads(graph, 50, seed)
        unknown = {*taught.unknown_train, *taught.unknown_eval}
        rows = rows_of(record_jobs(graph, taught, 2, {"inverse": 0.2, "yes_no": 1.0}, seed))
        texts = [m["content"] for row in rows for m in row["messages"]]
        texts += [row["rejected"][0]["content"] for row in pairs(graph, taught.facts(graph), 300, unknown, seed)]
        assert not [text for text in texts for name in unknown if name in text]


def test_a_new_fact_moves_no_other_record(toy_graph):
    graph = Graph.open(toy_graph.path)
    wider = Graph([*graph.triples, Triple("癣", "用药", "戊药", "病", "药")], graph.ontology, graph.heldout)
    old, new = ({json.dumps(r, ensure_ascii=False) for r in rows_of(record_jobs(g, Taught(graph.heads, [], []), 5, {}, 0))} for g in (graph, wider))
    assert old == new


def test_longest_match_wins():
    assert mentioned("用流感病毒疫苗", ["流感", "流感病毒", "病毒"]) == ("流感病毒",)


def test_questions_are_balanced_over_wordings_and_the_majority_is_counted(toy_graph):
    graph = Graph.open(toy_graph.path)
    all_ = heldout_questions(graph, graph.heads, "near", 0, 0)
    assert len(all_) == 6 and {q.wording for q in all_} == {"{h}用什么药？", "{h}该吃什么？"}
    some = heldout_questions(graph, graph.heads, "near", 2, 0)
    assert {q.wording for q in some} == {"{h}用什么药？", "{h}该吃什么？"}
    assert majority(graph, all_) == 2 / 6
    assert [round(x, 4) for x in wilson(8, 10)] == [0.4902, 0.9433]


def test_head_choice_is_stable_and_disjoint():
    graph = Graph.open(assets.shipped("medical"))
    taught = choose_heads(graph, 50, 0)
    assert len(taught.heads) == 50 and taught == choose_heads(graph, 50, 0)
    assert not set(taught.heads) & {*taught.unknown_train, *taught.unknown_eval}


def bigram_dice(left, right):
    """Dice coefficient of two texts' sets of character bigrams."""
    a, b = ({text[i:i + 2] for i in range(len(text) - 1)} for text in (left, right))
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0


def test_far_wordings_are_far_from_every_training_wording():
    folder = assets.shipped("medical")
    ontology = yaml.safe_load((folder / "ontology.yaml").read_text("utf-8"))
    heldout = yaml.safe_load((folder / "heldout.yaml").read_text("utf-8"))
    assert set(heldout) == set(ontology["relations"])
    for name, relation in ontology["relations"].items():
        asks = [ask.replace("{h}", "") for ask in relation["ask"]]
        assert len(asks) >= 16 and all(len(heldout[name][k]) == 5 for k in ("near", "far"))
        for kind, most in (("near", 0.70), ("far", 0.35)):
            assert max(bigram_dice(w.replace("{h}", ""), a) for w in heldout[name][kind] for a in asks) <= most
