"""Records in a teacher's words: only what the graph supports stays; a rejected draft goes back with what is wrong in it."""

from __future__ import annotations

import json
from decimal import Decimal

from zhtune.graph.graph import Graph
from zhtune.synthesis.rewrite import PROMPTS, Rewriter
from zhtune.synthesis.self_instruct import Asking, Prompt
from zhtune.synthesis.teacher import Job, Outcome, job_id


class Scripted:
    """Answers by the number of the request."""

    name = "scripted"

    def __init__(self, *replies: str):
        self.replies, self.asked = list(replies), []

    def job_id(self, job: Job) -> str:
        return job_id(self.name, job)

    def ask(self, jobs) -> list[Outcome]:
        found = []
        for job in jobs:
            self.asked.append(job.messages[0]["content"])
            text = self.replies.pop(0) if self.replies else ""
            found.append(Outcome(self.job_id(job), text, "stop", {}, 1, "" if text else "gone", Decimal("0.1")))
        return found


def line(question: str, answer: str) -> str:
    return json.dumps({"question": question, "answer": answer}, ensure_ascii=False)


def rewriter(toy_graph, teacher: Scripted, refused: list) -> Rewriter:
    prompts = {name: Prompt("|".join(f"{p}={{{{{p}}}}}" for p in needed), name * 2) for name, needed in PROMPTS.items()}
    return Rewriter(Graph.open(toy_graph.path), Asking(teacher, 100, 0.5, 0), prompts, lambda reason, **what: refused.append((reason, what)), 2, 0)


def test_right_drafts_stay_and_wrong_ones_go_back_with_what_is_wrong(toy_graph):
    teacher = Scripted("\n".join([line("感冒了吃什么？", "可以吃乙药，也可以吃甲药。"), line("感冒咋治？", "感冒的药有甲药、丙药。")]),
                       line("感冒该备哪些药？", "备上甲药和乙药。"))
    refused: list = []
    found = rewriter(toy_graph, teacher, refused).rewrite([("感冒", "用药")], 2)
    assert [(r["messages"][0]["content"], r["messages"][1]["content"]) for r in found.rows] == [
        ("感冒了吃什么？", "可以吃乙药，也可以吃甲药。"), ("感冒该备哪些药？", "备上甲药和乙药。")]
    assert teacher.asked[0] == "head=感冒|relation=药|facts=1. 感冒　药　甲药\n2. 感冒　药　乙药|count=2"
    assert teacher.asked[1].endswith("drafts=问：感冒咋治？\n答：感冒的药有甲药、丙药。\n错处：“丙药”资料里没有；漏了乙药|count=1")
    assert [(reason, what["fact"]) for reason, what in refused] == [("not_in_graph", ["感冒", "用药"])]
    assert found.verdicts == {"accepted": 1, "not_in_graph": 1, "accepted_after_retry": 1}
    source = found.rows[1]["source"]
    assert (source["producer"], source["prompt"], source["cost"], len(source["triples"])) == ("teacher", "retryretry", "0.1", 2)


def test_what_stays_wrong_becomes_the_template(toy_graph):
    teacher = Scripted(*[line("吃什么药？", "吃甲药、乙药。")] * 3)             # never names the head
    refused: list = []
    found = rewriter(toy_graph, teacher, refused).rewrite([("感冒", "用药")], 1)
    assert [r["messages"][1]["content"] for r in found.rows] == ["感冒的药有甲药、乙药。"] and found.rows[0]["source"]["producer"] == "template"
    assert found.verdicts == {"head_not_asked": 3, "template": 1} and len(teacher.asked) == 3


def test_silence_repeats_and_heldout_wordings(toy_graph):
    teacher = Scripted("", "\n".join([line("感冒开什么方子？", "甲药、乙药。"), line("感冒用啥药好？", "甲药、乙药。"), line("感冒用啥药好？", "乙药、甲药。")]))
    refused: list = []
    found = rewriter(toy_graph, teacher, refused).rewrite([("感冒", "用药")], 2)
    assert found.verdicts == {"no_draft": 2, "heldout_wording": 1, "accepted_after_retry": 1, "same_question": 1, "template": 1}
    assert [r["source"]["producer"] for r in found.rows] == ["teacher", "template"]
