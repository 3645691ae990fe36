"""Harder tasks from a graph, worked out by hand on nine triples."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from conftest import ONTOLOGY, write_graph_input

from zhtune import assets
from zhtune.errors import ConfigError, DataError
from zhtune.graph.graph import Graph
from zhtune.records import read_jsonl
from zhtune.stages.kg import KgConfig, kg
from zhtune.stages.kg_instruct import KgInstructConfig, kg_instruct
from zhtune.stages.prefer import PreferConfig, prefer
from zhtune.synthesis.flaws import flawed_pairs
from zhtune.synthesis.instruct import choose_heads, read_taught, rows_of
from zhtune.synthesis.questions import heldout_questions, recorded_questions, score
from zhtune.synthesis.splits import leaks
from zhtune.synthesis.tasks import MAKERS, read_wordings, task_jobs

# What prompts/tasks/zh.yaml holds: task (or flaw) -> form -> placeholders that every wording of it needs.
FORMS = {
    "counting": {"ask": {"h", "l"}, "say": {"h", "l", "n", "ts"}}, "choice": {"ask": {"h", "l", "o"}, "say": {"t"}},
    "exclude": {"ask": {"h", "l", "o"}, "say": {"t"}}, "common": {"ask": {"a", "b", "l"}, "say": {"l", "ts"}},
    "difference": {"ask": {"a", "b", "l"}, "say": {"l", "ts"}}, "comparison": {"ask": {"a", "b", "l"}, "say": {"a", "b", "x", "y"}},
    "multi_hop": {"ask": {"k", "l", "t", "m"}, "say": {"h", "m", "ts"}}, "summary": {"ask": {"h"}},
    "dialogue": {"follow": {"l"}, "correct": {"h", "l"}},
    "attribute": {"ask": {"h", "l"}, "ask_number": {"h", "l"}, "say": {"h", "l", "v"}, "say_number": {"h", "l", "v"}},
    "consultation": {"ask": {"fs", "k"}, "advise": {"fs", "k"}, "feature": {"l", "ts"}, "candidate": {"h", "fs"}, "say": {"cs"}},
    "missing_disclaimer": {"instead": set()},
}
PLAIN = {task: {form: ["|".join(sorted(f"{name}={{{name}}}" for name in names))] for form, names in forms.items()} for task, forms in FORMS.items()}


def made(toy_graph, task: str, wanted: int = 50) -> list[dict]:
    graph = Graph.open(toy_graph.path)
    return rows_of(task_jobs(graph, choose_heads(graph, 0, 0), {task: wanted}, 0, PLAIN))


def said(rows: list[dict]) -> set[tuple[str, str]]:
    return {(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows}


def test_counting(toy_graph):
    # 感冒 用药 has two tails; no other fact has more than one. The same fact comes again until there are enough.
    assert said(made(toy_graph, "counting", 3)) == {("h=感冒|l=药", "h=感冒|l=药|n=2|ts=甲药、乙药")}


def test_common_difference_and_comparison(toy_graph):
    # 感冒 and 咳嗽 share 辣椒 under 忌吃 and nothing else; neither has another tail there.
    assert said(made(toy_graph, "common")) <= {("a=感冒|b=咳嗽|l=忌吃", "l=忌吃|ts=辣椒"), ("a=咳嗽|b=感冒|l=忌吃", "l=忌吃|ts=辣椒")}
    assert made(toy_graph, "common") and made(toy_graph, "difference") == []
    assert made(toy_graph, "comparison") == []              # nothing to compare: both avoid the same


def test_multi_hop_goes_through_names_of_one_head_only(toy_graph):
    rows = made(toy_graph, "multi_hop")
    graph = Graph.open(toy_graph.path)
    assert ("k=病|l=药|m=宜吃|t=丁药", "h=头痛|m=宜吃|ts=绿茶") in said(rows)
    assert not any("t=辣椒" in question for question, _ in said(rows))               # two heads avoid it
    by_id = {t.id: t for t in graph.triples}
    for row in rows:
        triples = [by_id[i] for i in row["source"]["triples"]]
        assert len({t.head for t in triples}) == 1 and f"h={triples[0].head}" in row["messages"][1]["content"]


@pytest.mark.parametrize(("task", "true"), [("choice", True), ("exclude", False)])
def test_choices_have_one_right_option(task: str, true: bool, tmp_path):
    from conftest import ROWS, write_graph_input

    rows = [*ROWS, ("感冒", "用药", "戊药"), *((f"病{i}", "用药", f"药{i}") for i in range(5))]
    graph = Graph.open(kg(KgConfig(input=str(write_graph_input(tmp_path / "in", rows)), out=str(tmp_path / "g"))).path)
    found = rows_of(task_jobs(graph, choose_heads(graph, 0, 0), {task: 20}, 0, PLAIN))
    assert len(found) == 20
    for row in found:
        head = row["messages"][0]["content"].split("|")[0].removeprefix("h=")
        options = {line.removeprefix("o=")[0]: line.removeprefix("o=")[3:] for line in row["messages"][0]["content"].split("|", 2)[2].split("\n")}
        label = row["messages"][0]["content"].split("|")[1].removeprefix("l=")
        truth = [letter for letter, name in options.items() if name in graph.tails(head, "用药" if label == "药" else label)]
        right = row["messages"][1]["content"].removeprefix("t=")
        letter = truth[0] if true else next(iter(set(options) - set(truth)))
        assert len(truth) == (1 if true else 3) and right == f"{letter}. {options[letter]}。"


def test_summary_and_dialogue(toy_graph):
    assert ("h=头痛", "头痛的药有丁药。头痛宜吃绿茶。") in said(made(toy_graph, "summary"))
    rows = made(toy_graph, "dialogue")
    assert rows and all([m["role"] for m in row["messages"]] == ["user", "assistant"] * 3 for row in rows)
    graph = Graph.open(toy_graph.path)
    for row in rows:
        heads = {t.head for t in graph.triples if t.id in row["source"]["triples"]}
        assert len(heads) == 2 and any(row["messages"][4]["content"].startswith(f"h={head}|") for head in heads)


def test_the_stage_covers_and_says_so(toy_graph, tmp_path):
    config = KgInstructConfig(graph=str(toy_graph.path), records_per_fact=1, tasks={"summary": 3, "counting": 1}, out=str(tmp_path / "r"))
    artifact = kg_instruct(config)
    metrics, report = artifact.manifest["metrics"], json.loads((artifact.path / "report.json").read_text("utf-8"))
    assert (metrics["summary"], metrics["counting"], metrics["one_hop"]) == (3, 1, 8)
    assert report["coverage_by_type"] == {"药": {"triples": 4, "taught": 4, "covered": 4}, "食": {"triples": 5, "taught": 5, "covered": 5}}
    assert report["coverage_by_degree"] == {"up to 1": {"triples": 7, "taught": 7, "covered": 7}, "up to 2": {"triples": 2, "taught": 2, "covered": 2}}
    with pytest.raises(ConfigError, match="--tasks: 'riddle': 1; there are: counting"):
        KgInstructConfig(graph="x", tasks={"riddle": 1}, out="y")


def flawed(toy_graph, flaw: str, wanted: int = 40, unknown: set[str] = frozenset()) -> list[dict]:
    graph = Graph.open(toy_graph.path)
    facts = {key: fact for key, fact in graph.facts.items() if key[0] not in unknown}
    return flawed_pairs(graph, facts, set(unknown), (flaw,), wanted, 0, PLAIN)


def sides(rows: list[dict]) -> set[tuple[str, str]]:
    return {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows}


def test_flaws_of_lists(toy_graph):
    # 感冒 用药 is the one fact with two tails.
    assert sides(flawed(toy_graph, "omission")) == {("感冒的药有甲药、乙药。", "感冒的药有甲药。"), ("感冒的药有甲药、乙药。", "感冒的药有乙药。")}
    added = {wrong for _, wrong in sides(flawed(toy_graph, "over_claim"))}
    names = [set(wrong.removeprefix("感冒的药有").removesuffix("。").split("、")) for wrong in added]
    assert names and all({"甲药", "乙药"} < some and (some - {"甲药", "乙药"}) <= {"丙药", "丁药"} for some in names)
    # 宜吃 excludes 忌吃: what to avoid is given as what to eat, and the reverse.
    assert ("感冒宜吃白粥。", "感冒宜吃辣椒。") in sides(flawed(toy_graph, "relation_swap"))
    assert ("感冒忌吃辣椒。", "感冒忌吃白粥。") in sides(flawed(toy_graph, "relation_swap"))


def test_flaws_that_balance(toy_graph):
    rows = flawed(toy_graph, "polarity")
    yes = sum(row["chosen"][0]["content"].startswith("是") for row in rows)
    assert yes == len(rows) / 2 == 20 and all(row["chosen"][0]["content"][:1] != row["rejected"][0]["content"][:1] for row in rows)
    assert sides(flawed(toy_graph, "count")) <= {("h=感冒|l=药|n=2|ts=甲药、乙药", f"h=感冒|l=药|n={n}|ts=甲药、乙药") for n in (1, 3)}
    rows = flawed(toy_graph, "false_refusal", unknown={"头痛"})
    refused = [row["source"]["triples"] == [] for row in rows]
    assert sum(refused) == len(refused) / 2 and all(("没有头痛的资料" in row["chosen"][0]["content"]) == new for row, new in zip(rows, refused, strict=True))


def test_the_stage_counts_flaws(toy_graph, tmp_path):
    made = prefer(PreferConfig(graph=str(toy_graph.path), pairs=2, flaws=["omission", "relation_swap"], flaw_pairs=2, out=str(tmp_path / "p")))
    assert made.manifest["metrics"] == {"pairs": 6, "omission": 2, "relation_swap": 2}
    alone = prefer(PreferConfig(graph=str(toy_graph.path), flaws=["omission"], flaw_pairs=2, out=str(tmp_path / "alone")))
    assert alone.manifest["metrics"] == {"pairs": 2, "omission": 2}     # no swap that nobody asked for
    assert (PreferConfig(graph="x", out="y").wanted, PreferConfig(graph="x", model="m", flaws=["count"], out="y").wanted) == (200, 200)
    with pytest.raises(DataError, match="gives no pair of missing_disclaimer: missing_disclaimer needs safety: in the ontology"):
        prefer(PreferConfig(graph=str(toy_graph.path), flaws=["missing_disclaimer"], out=str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match="at least one pair must be asked for"):
        PreferConfig(graph="x", pairs=0, out="y")
    with pytest.raises(ConfigError, match="--flaws: 'rude' is none; there are: omission"):
        PreferConfig(graph="x", flaws=["rude"], out="y")


# Held-out splits

def test_relations_that_share_a_wording_ask_no_held_out_question(tmp_path):
    shared = {name: {**ONTOLOGY["relations"][name], "ask": ["{h}吃什么？"]} for name in ("用药", "宜吃")}
    source = write_graph_input(tmp_path / "in", ontology=ONTOLOGY | {"relations": ONTOLOGY["relations"] | shared}, heldout=None)
    graph = kg(KgConfig(input=str(source), out=str(tmp_path / "g"))).path
    made = kg_instruct(KgInstructConfig(graph=str(graph), records_per_fact=2, noise=False, seed=5, holdout={"triple": .5}, out=str(tmp_path / "r")))
    train, heldout = ([json.loads(line) for line in open(made.path / f"{name}.jsonl", encoding="utf-8")] for name in ("records", "heldout"))
    asked = {row["messages"][0]["content"] for row in heldout}
    assert made.manifest["counts"] == {"in": 18, "kept": 10, "dropped": {"asks_heldout_question": 4, "heldout_triple": 4}} and len(train) == 10
    assert not asked & {row["messages"][0]["content"] for row in train}


def test_splits_do_not_leak(tmp_path):
    graph_at = kg(KgConfig(input=str(assets.shipped("medical")), out=str(tmp_path / "g"))).path
    made = kg_instruct(KgInstructConfig(graph=str(graph_at), records_per_fact=2, yes_no=.2, inverse=.2, tasks={"common": 100, "multi_hop": 100},
                                        holdout={"triple": .05, "entity": .05, "composition": .2}, out=str(tmp_path / "r")))
    train, heldout = ([json.loads(line) for line in open(made.path / f"{name}.jsonl", encoding="utf-8")] for name in ("records", "heldout"))
    report, counts = json.loads((made.path / "report.json").read_text("utf-8")), made.manifest["counts"]
    assert min(report["heldout"].values()) > 20 and set(report["heldout"]) == {"triple", "entity", "composition"}
    assert report["leaks"] == {"question": 0, "pair": 0, "entity": 0, "combination": 0}
    assert counts["in"] == len(train) + sum(counts["dropped"].values()) and counts["kept"] == len(train)
    # The same in other words: by plain strings.
    triples = {t.id: t for t in Graph.open(graph_at).triples}
    text = "\n".join(m["content"] for row in train for m in row["messages"])
    for row in heldout:
        stated = [triples[i] for i in row["source"]["triples"]]
        if row["source"]["split"] == "entity":
            assert stated[0].head not in text
        if row["source"]["split"] == "triple":
            said = [r for r in train if all({t.head, t.tail} <= {x for i in r["source"]["triples"] for x in (triples[i].head, triples[i].tail)}
                                            for t in stated)]
            assert not [r for r in said if r["source"]["task"] == "one_hop"]


def test_pairs_and_questions_know_what_is_held_out(tmp_path):
    graph_at = kg(KgConfig(input=str(assets.shipped("medical")), out=str(tmp_path / "g"))).path
    records = kg_instruct(KgInstructConfig(graph=str(graph_at), heads=60, records_per_fact=2, tasks={"common": 50}, out=str(tmp_path / "r"),
                                           holdout={"triple": .1, "entity": .1}))
    heldout = [row for _, row in read_jsonl(records.path / "heldout.jsonl")]
    made = prefer(PreferConfig(graph=str(graph_at), records=str(records.path), pairs=200, flaw_pairs=60, out=str(tmp_path / "p"),
                               flaws=["omission", "over_claim", "relation_swap", "polarity", "count", "false_refusal"]))
    rows = [row for _, row in read_jsonl(made.path / "preferences.jsonl")]
    triples, ids = {t.id: t for t in Graph.open(graph_at).triples}, {i for row in heldout for i in row["source"]["triples"]}
    names = {triples[i].head for row in heldout if row["source"]["split"] == "entity" for i in row["source"]["triples"]}
    stated = {i for row in rows for i in row["source"]["triples"]}
    counts = made.manifest["counts"]
    assert names and ids and len(rows) > 400 and not stated & ids and counts["in"] == counts["kept"] + sum(counts["dropped"].values())
    refused = [row["reason"] for _, row in read_jsonl(made.path / "dropped.jsonl")]
    assert refused == ["names_heldout_entity"] * counts["dropped"]["names_heldout_entity"]
    assert not [name for name in names for row in rows if name in json.dumps([row["prompt"], row["chosen"], row["rejected"]], ensure_ascii=False)]
    # a taught fact whose answer nothing in training says is none: evaluation asks for no such fact
    taught = read_taught(records.path, Graph.open(graph_at))
    said = {(triples[i].head, triples[i].relation) for _, row in read_jsonl(records.path / "records.jsonl") for i in row["source"]["triples"]}
    assert set(taught.facts(Graph.open(graph_at))) == said and {head for head, _ in said} == set(taught.heads)
    asked = heldout_questions(Graph.open(graph_at), taught.heads, "near", 0, 0, taught.heldout_facts)
    assert asked and {(q.head, q.relation) for q in asked} <= said
    # the held-out records are asked as splits of their own: a right answer is exact, another is not
    graph = Graph.open(graph_at)
    questions = recorded_questions(graph, heldout, 9, 0)
    own = [q for q in questions if q.wording == "one_hop"]
    assert {q.split for q in questions} == {"entity", "triple"} and len(questions) == 18 and own and all(q.head in q.text for q in own)
    right = {row["messages"][0]["content"]: row["messages"][-1]["content"] for row in heldout}
    assert all(score(right[q.text], q, graph).exact and not score("不清楚。", q, graph).exact for q in questions)
    with pytest.raises(DataError, match=r"states what the graph does not hold; give the graph that the records were made from, or --heldout 0"):
        recorded_questions(Graph(graph.triples[1:], graph.ontology), [{"source": {"triples": [graph.triples[0].id]}}], 9, 0)
    # what mixes held-out things with others stands in dropped.jsonl
    mixed = Counter(row["reason"] for _, row in read_jsonl(records.path / "dropped.jsonl"))
    assert mixed == {k: n for k, n in records.manifest["counts"]["dropped"].items() if not k.startswith("heldout_")} and mixed["mixes_heldout_triple"]


def test_a_holdout_that_leaves_nothing_to_train_on_is_refused(tmp_path):
    graph = kg(KgConfig(input=str(write_graph_input(tmp_path / "in")), out=str(tmp_path / "g"))).path
    with pytest.raises(DataError, match="gives 144 records, of which --holdout leaves none to train on; lower its shares"):
        kg_instruct(KgInstructConfig(graph=graph, holdout={"entity": .9999}, inverse=0, yes_no=0, unanswerable=0, out=tmp_path / "r"))


def test_joined_facts_are_judged_by_their_names(toy_graph):
    graph = Graph.open(toy_graph.path)
    [row] = made(toy_graph, "multi_hop", 1)
    [question] = recorded_questions(graph, [{**row, "source": {**row["source"], "split": "composition"}}], 5, 0)
    first, *rest = (graph.by_id[i] for i in row["source"]["triples"])
    assert (question.relation, question.split, set(question.expected)) == ("multi_hop", "composition", {first.head, *(t.tail for t in rest)})
    verdict = score(f"那就是{first.head}，答案：{'和'.join(t.tail for t in rest)}！", question, graph)
    assert verdict.exact and not score(f"{first.head}，{rest[0].tail}，还有白粥和雪梨和绿茶", question, graph).exact
    assert recorded_questions(graph, [{**row, "source": {**row["source"], "split": "composition", "task": "consultation"}}], 5, 0) == []


def test_a_leak_is_seen(toy_graph):
    graph = Graph.open(toy_graph.path)
    rows = made(toy_graph, "summary", 3)
    held = [{**rows[0], "source": {**rows[0]["source"], "split": "entity"}}]
    assert leaks(graph, rows[1:], held)["entity"] == 0 and leaks(graph, rows, held) == {"question": 1, "pair": 0, "entity": 1, "combination": 0}
    with pytest.raises(ConfigError, match="--holdout: 'luck': 0.1; there are: entity"):
        KgInstructConfig(graph="x", holdout={"luck": .1}, out="y")


def test_every_shipped_wording_has_its_placeholders():
    shipped = read_wordings()
    assert set(shipped) == set(FORMS) == {*MAKERS, "missing_disclaimer"}
    assert all(len(forms["ask"]) >= 5 for forms in shipped.values() if "ask" in forms)
    for task, forms in FORMS.items():
        assert set(shipped[task]) == set(forms)
        for form, needed in forms.items():
            lacking = [text for text in shipped[task][form] if not needed <= set(re.findall(r"\{(\w+)\}", text))]
            assert shipped[task][form] and not lacking, (task, form)
