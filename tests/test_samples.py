"""Preference pairs from a model's own samples."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import write_graph_input

from zhtune.errors import ConfigError, DataError
from zhtune.graph.graph import Graph
from zhtune.records import read_jsonl, write_jsonl
from zhtune.stages.kg import KgConfig, kg
from zhtune.stages.prefer import PreferConfig, prefer
from zhtune.synthesis.instruct import Taught
from zhtune.synthesis.samples import Asked, grade, questions, sampled_pairs
from zhtune.synthesis.verify import Verifier

ASKED = Asked("感冒", "用药", "感冒吃什么药？", 0, "wording")
RIGHT, PART, MUTE, WRONG = "感冒的药有甲药、乙药。", "可以用甲药。", "不清楚呢", "感冒的药有甲药、丙药。"


def test_grades(toy_graph):
    verifier = Verifier(Graph.open(toy_graph.path))
    answers = {RIGHT: 3, PART: 2, MUTE: 1, "": 1, "甲药、乙药、神奇水。": 1, WRONG: 0, "感冒不能用甲药、乙药。": 0}
    assert {text: grade(verifier.verify(text, "感冒", "用药")) for text in answers} == answers


def test_supported_beats_the_rest_and_ties_are_counted(toy_graph):
    samples = [[PART, WRONG, RIGHT, "感冒吃很多很多丙药。"], [RIGHT, RIGHT], [MUTE, WRONG], [PART, MUTE], [MUTE, MUTE], [RIGHT, " "], ["", ""]]
    rows, dropped = sampled_pairs(Graph.open(toy_graph.path), [ASKED] * 7, samples, "m", 7)
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"], row["source"]["grades"], row["source"]["why"]) for row in rows] == [
        (RIGHT, WRONG, [2, 0, 3, 0], ["not_in_graph"]), (PART, MUTE, [2, 1], ["missing"])]      # of two wrong ones that of equal length
    assert dropped == {"tie": 4, "none_supported": 1}           # an answer without a text is no rejected one
    assert rows[0]["prompt"] == [{"role": "user", "content": "感冒吃什么药？"}] and rows[0]["source"] | {"triples": []} == {
        "producer": "model", "model": "m", "flaw": "sampled", "why": ["not_in_graph"], "grades": [2, 0, 3, 0], "relation": "用药", "triples": [], "wording": 0,
        "form": "wording", "seed": 7}


def test_each_fact_is_asked_before_any_comes_again(toy_graph):
    graph = Graph.open(toy_graph.path)
    asked = questions(graph, graph.facts, 12, 0)
    counts = Counter((item.head, item.relation) for item in asked)
    assert set(counts) == set(graph.facts) and sorted(counts.values()) == [1, 1, 1, 1, 2, 2, 2, 2]
    assert {item.head for item in questions(graph, Taught(["咳嗽"]).facts(graph), 9, 0)} == {"咳嗽"} and asked == questions(graph, graph.facts, 12, 0)


def test_a_model_that_says_nothing_true_gives_no_pair(toy_graph, tmp_path):
    pytest.importorskip("torch")
    config = PreferConfig(graph=str(toy_graph.path), model="new:llama-tiny", pairs=3, samples=2, max_tokens=4, out=str(tmp_path / "p"))
    with pytest.raises(DataError, match=r"the model's samples give no pair: \{'tie': 3\}"):
        prefer(config)
    assert not (tmp_path / "p").exists()
    with pytest.raises(ConfigError, match="--samples must be at least 2"):
        PreferConfig(graph="g", model="m", samples=1, out="o")


@pytest.mark.slow
def test_a_model_that_is_right_half_the_time(tmp_path):
    """Trained to answer 乙药 and 丁药 equally often, whatever is asked; only 乙药 is in the graph."""
    pytest.importorskip("trl")
    from zhtune.stages.sft import SftConfig, sft
    from zhtune.train.schedule import Schedule
    source = write_graph_input(tmp_path / "in", [("甲", "用药", "乙药"), ("丙", "用药", "丁药")])
    graph = kg(KgConfig(input=str(source), out=str(tmp_path / "g"))).path
    asked = [item.text for item in questions(Graph.open(graph), Graph.open(graph).facts, 16, 0)]
    write_jsonl(tmp_path / "talks.jsonl", ({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}
                                           for text in asked for answer in ("乙药", "丁药")))
    schedule = Schedule(learning_rate=5e-3, epochs=12, batch_size=8, checkpoints=1, precision="fp32")
    model = sft(SftConfig(model="new:llama-tiny", records=str(tmp_path / "talks.jsonl"), method="full", schedule=schedule, out=str(tmp_path / "m"))).path
    made = [prefer(PreferConfig(graph=str(graph), model=str(model), pairs=8, samples=6, temperature=1.0, max_tokens=12, out=str(tmp_path / name)))
            for name in ("p", "again")]
    rows = [row for _, row in read_jsonl(made[0].path / "preferences.jsonl")]
    counts = made[0].manifest["counts"]
    assert made[0].digest == made[1].digest and len(rows) >= 4 and counts["in"] == 8 == counts["kept"] + sum(counts["dropped"].values())
    truth = {"甲": "乙药", "丙": "丁药"}
    for row in rows:
        head = next(name for name in truth if name in row["prompt"][0]["content"])
        assert truth[head] in row["chosen"][0]["content"] and truth[head] not in row["rejected"][0]["content"]
        assert row["source"]["producer"] == "model" and len(row["source"]["grades"]) == 6
