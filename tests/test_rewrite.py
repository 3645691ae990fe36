"""Records in a teacher's words: only what the graph supports stays; a rejected draft goes back with what is wrong in it."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from zhtune.graph.graph import Graph
from zhtune.synthesis.instruct import record
from zhtune.synthesis.rewrite import PROMPTS, Rewriter
from zhtune.synthesis.teachers.asking import Asking, Prompt
from zhtune.synthesis.teachers.joblog import Outcome
from zhtune.synthesis.teachers.teacher import job_id


class Scripted:
    """Answers by the number of the request."""

    name = "scripted"

    def __init__(self, *replies: str):
        self.replies, self.asked = list(replies), []

    def ask(self, jobs) -> list[Outcome]:
        found = []
        for job in jobs:
            self.asked.append(job.messages[0]["content"])
            text = self.replies.pop(0) if self.replies else ""
            found.append(Outcome(job_id(self.name, job), text, "stop", {"prompt_tokens": 7, "completion_tokens": 9}, "" if text else "gone", Decimal("0.1")))
        return found


def line(question: str, answer: str) -> str:
    return json.dumps({"question": question, "answer": answer}, ensure_ascii=False)


def rewrite(toy_graph, fact, count, *replies, retries=2):
    """(rows, counts, refused, requests) of `count` template records of one fact and a record of another task."""
    graph, teacher, refused = Graph.open(toy_graph.path), Scripted(*replies), []
    prompts = {name: Prompt("|".join(f"{p}={{{{{p}}}}}" for p in needed), name * 2) for name, needed in PROMPTS.items()}
    rewriter = Rewriter(graph, Asking(teacher, 100, 0.5, 3), prompts, lambda reason, **what: refused.append((reason, what)), retries)
    rows = [record("one_hop", f"{fact[0]}模板{i}？", "模板", graph.facts[fact], 3, wording=i) for i in range(count)]
    rows = rewriter.rewrite([*rows, record("yes_no", "感冒吃甲药吗？", "是。", graph.facts[fact], 3)])
    assert rows.pop()["source"]["task"] == "yes_no"
    return rows, dict(rewriter.counts), refused, teacher.asked


def texts(rows):
    return [(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows]


def test_right_drafts_stay_and_wrong_ones_go_back_with_what_is_wrong(toy_graph):
    rows, counts, refused, asked = rewrite(
        toy_graph, ("感冒", "用药"), 2, "\n".join([line("感冒了吃什么？", "可以吃乙药，也可以吃甲药。"), line("感冒咋治？", "感冒的药有甲药、丙药。")]),
        "\n".join([line("感冒该备哪些药？", "备上甲药和乙药。"), line("感冒要哪些药？", "甲药和乙药。")]))
    assert texts(rows) == [("感冒了吃什么？", "可以吃乙药，也可以吃甲药。"), ("感冒该备哪些药？", "备上甲药和乙药。")]
    assert asked[0] == "head=感冒|relation=药|facts=1. 感冒　药　甲药\n2. 感冒　药　乙药|count=2"
    assert asked[1].endswith("drafts=问：感冒咋治？\n答：感冒的药有甲药、丙药。\n错处：“丙药”资料里没有；漏了乙药|count=1")
    assert [(reason, what["fact"]) for reason, what in refused] == [("not_in_graph", ["感冒", "用药"]), ("surplus", ["感冒", "用药"])]
    assert counts == {"accepted": 1, "accepted_after_retry": 1, "fell_back": 0, "facts_retried": 1}
    source = rows[1]["source"]
    assert source == {"producer": "teacher", "task": "one_hop", "triples": source["triples"], "teacher": "scripted", "prompt": "retryretry",
                      "job": refused[1][1]["job"], "seed": 3, "usage": {"prompt_tokens": 7, "completion_tokens": 9}, "cost": "0.1", "call_tasks": 2}
    assert len(source["triples"]) == 2 and rows[0]["source"]["prompt"] == "rewriterewrite"


def test_what_stays_wrong_is_the_templates_record(toy_graph):
    rows, counts, refused, asked = rewrite(toy_graph, ("感冒", "用药"), 1, *[line("吃什么药？", "吃甲药、乙药。")] * 3)
    assert texts(rows) == [("感冒模板0？", "模板")] and rows[0]["source"]["producer"] == "template"
    assert [reason for reason, _ in refused] == ["head_not_asked"] * 3 and len(asked) == 3
    assert counts == {"accepted": 0, "accepted_after_retry": 0, "fell_back": 1, "facts_retried": 1}


def test_silence_repeats_and_heldout_wordings(toy_graph):
    rows, counts, refused, asked = rewrite(
        toy_graph, ("感冒", "用药"), 3, "", "\n".join([line("感冒开什么方子？", "甲药、乙药。"), line("感冒模板2？", "甲药、乙药。"), line("感冒模板2？", "乙药、甲药。")]), "<think>嗯")
    assert [reason for reason, _ in refused] == ["no_reply", "heldout_wording", "same_question", "only_thinking"]
    assert counts == {"accepted": 0, "accepted_after_retry": 1, "fell_back": 2, "facts_retried": 1}
    # the template's record of the same question makes room, so none stands twice; nothing was rejected before, so nothing goes back
    assert texts(rows) == [("感冒模板0？", "模板"), ("感冒模板1？", "模板"), ("感冒模板2？", "甲药、乙药。")] and rows[2]["source"]["prompt"] == "rewriterewrite"
    assert "drafts=" not in asked[1] and "错处：换一种问法" in asked[2]


@pytest.mark.parametrize(("question", "answer", "reason"), [
    ("感冒和咳嗽吃什么药？", "感冒吃甲药、乙药。", "other_head_asked"), ("感冒吃甲药还有什么药？", "感冒吃甲药、乙药。", "gives_away"),
    ("感冒喝白粥以外吃什么药？", "感冒吃甲药、乙药。", "gives_away"), ("感冒吃甲药吗？", "感冒吃甲药、乙药。", "same_question"), ("感冒忌吃什么东西？", "感冒吃甲药、乙药。", "other_relation_asked"),
    ("感冒吃什么药？", "作为一个人工智能助手，我建议吃甲药、乙药。", "speaks_as_model"), ("感冒吃什么药？", "吃甲药、乙药，每天3次。", "number"),
    ("感冒吃什么药？", "不能吃甲药、乙药。", "polarity"), ("感冒吃什么药？", "甲药、乙药、板蓝根。", "unknown_item"), ("感冒吃什么药？", "甲药。", "missing")])
def test_each_way_of_being_wrong_is_named(toy_graph, question, answer, reason):
    _, counts, refused, _ = rewrite(toy_graph, ("感冒", "用药"), 1, line(question, answer), retries=0)
    assert [reason for reason, _ in refused] == [reason] and counts["fell_back"] == 1
