"""Shared small inputs: a toy graph and its ontology, threads kept to one."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import yaml

from zhtune.log import logger
from zhtune.records import write_jsonl

ONTOLOGY = {
    "domain": "toy", "title": "玩具", "licence": "CC0-1.0", "types": ["病", "药", "食"],
    "relations": {
        "用药": {"head": "病", "tail": "药", "labels": ["药", "用药"], "ask": ["{h}吃什么药？", "治{h}用啥？", "{h}的药有哪些？"],
                 "say": "{h}的药有{ts}。", "ask_inverse": ["{t}治什么？"], "say_inverse": "{t}治{hs}。", "ask_confirm": ["{h}吃{t}吗？"],
                 "say_yes": "是，{h}的药有{ts}。", "say_no": "不是，{h}的药有{ts}。"},
        "宜吃": {"head": "病", "tail": "食", "ask": ["{h}宜吃什么？", "{h}吃啥好？"], "say": "{h}宜吃{ts}。"},
        "忌吃": {"head": "病", "tail": "食", "ask": ["{h}忌吃什么？", "{h}别吃啥？"], "say": "{h}忌吃{ts}。"},
    },
    "contradictions": [["宜吃", "忌吃"]], "refuse": ["我没有{h}的资料。"], "filler_before": ["请问，"], "filler_after": ["谢谢。"],
}
ROWS = [("感冒", "用药", "甲药"), ("感冒", "用药", "乙药"), ("感冒", "宜吃", "白粥"), ("感冒", "忌吃", "辣椒"),
        ("咳嗽", "用药", "丙药"), ("咳嗽", "宜吃", "雪梨"), ("咳嗽", "忌吃", "辣椒"), ("头痛", "用药", "丁药"), ("头痛", "宜吃", "绿茶")]
HELDOUT = {"用药": {"near": ["{h}用什么药？"], "far": ["{h}开什么方子？"]}, "宜吃": {"near": ["{h}该吃什么？"], "far": ["{h}餐桌上摆啥？"]}}


def write_graph_input(folder, rows=ROWS, ontology=ONTOLOGY, heldout=HELDOUT):
    """A folder that `zhtune kg --input` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "triples.jsonl", ({"head": h, "relation": r, "tail": t} for h, r, t in rows))
    (folder / "ontology.yaml").write_text(yaml.safe_dump(ontology, allow_unicode=True, sort_keys=False), "utf-8")
    if heldout:
        (folder / "heldout.yaml").write_text(yaml.safe_dump(heldout, allow_unicode=True), "utf-8")
    return folder


@pytest.fixture
def toy_graph(tmp_path):
    """A finished graph artifact of nine triples."""
    from zhtune.stages.kg import KgConfig, kg
    return kg(KgConfig(input=str(write_graph_input(tmp_path / "toy")), out=str(tmp_path / "graph")))


@pytest.fixture(autouse=True)
def own_log():
    """What the CLI sets for its process ends with the test: pytest closes the stream that it logs to."""
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
