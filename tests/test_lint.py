"""Lint: every format and kind of file, every rule by name, repairs, refusals, leaks, the cases from bug reports."""

import gzip
import json
import zipfile
from datetime import date, datetime, time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zhtune.cli import main
from zhtune.corpus.pii import is_bank_card, is_resident_id, mask, personal
from zhtune.corpus.sheets import cell_text
from zhtune.corpus.tabular import Refusal
from zhtune.errors import ConfigError, DataError
from zhtune.records import read_preferences, read_records
from zhtune.stages.lint import LintConfig, lint
from zhtune.synthesis.formats import read_pairs, read_record
from zhtune.synthesis.linting.checks import check_pair, check_record
from zhtune.synthesis.linting.identity import foreign_self
from zhtune.synthesis.linting.names import CURES, Problem
from zhtune.synthesis.linting.repairs import repair
from zhtune.synthesis.linting.rules import mend, strip_marks
from zhtune.synthesis.rows import Row, read_rows

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
U, A = "user", "assistant"
PAIR = [(U, "感冒吃什么？"), (A, "吃清淡的。")]
TOOL = [{"type": "function", "function": {"name": "天气", "parameters": {}}}]


def turns(messages):
    return [(m["role"], m["content"]) for m in messages]


def talk(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def record(row):
    item = read_record(Row("f", 1, row))
    return (item.reason, item.detail) if isinstance(item, Refusal) else turns(item.value["messages"])


def found(*pairs, tools=None):
    messages = [pair if isinstance(pair, dict) else {"role": pair[0], "content": pair[1]} for pair in pairs]
    return [p.name for p in check_record({"messages": messages, **({"tools": tools} if tools else {})}, {}, [])]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode() if isinstance(content, str)
                     else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content).encode())
    return str(path)


def made(tmp_path, rows, name="in.jsonl", out="o", **fields):
    kind = "preferences" if fields.pop("preferences", False) else "records"
    return lint(LintConfig(**{kind: write(tmp_path / name, rows)}, out=str(tmp_path / out), **{"near": 0.0, **fields}))


def kept(artifact):
    file = artifact.path / "records.jsonl"
    return [turns(row["messages"]) for _, row in read_records(file)]


def dropped(artifact):
    file = artifact.path / "dropped.jsonl"
    return [(d["id"], d["reason"]) for d in map(json.loads, file.read_text("utf-8").split("\n")[:-1])] if file.exists() else []


@pytest.mark.parametrize(("row", "expected"), [
    ({"instruction": "感冒吃什么？", "input": "", "output": "吃清淡的。"}, PAIR),
    ({"instruction": "翻译", "input": "你好", "output": "Hello", "system": "你是译员", "history": [["甲", "乙"]]},
     [("system", "你是译员"), (U, "甲"), (A, "乙"), (U, "翻译\n你好"), (A, "Hello")]),
    ({"instruction": "Human:你好\nAssistant:您好\nHuman:感冒吃什么？\nAssistant:", "input": "", "output": "吃清淡的。"}, [(U, "你好"), (A, "您好"), *PAIR]),
    ({"instruction": "<user>: 你好 <bot>: 您好 <user>: 感冒吃什么？", "output": "吃清淡的。"}, [(U, "你好"), (A, "您好"), *PAIR]),
    ({"instruction": "User: 你好\nAssistant: 您好", "input": "User: 感冒吃什么？", "output": "吃清淡的。"}, [(U, "你好"), (A, "您好"), *PAIR]),
    ({"text": "### Human: 感冒吃什么？### Assistant: 吃清淡的。"}, PAIR),
    ({"input": "感冒吃什么？", "target": "吃清淡的。", "answer_choices": ["吃"], "type": "mrc"}, PAIR),
    ({"conversations": [{"from": "human", "value": "感冒吃什么？"}, {"from": "gpt", "value": "吃清淡的。"}]}, PAIR),
    ({"conversations": json.dumps([{"from": "human", "value": "感冒吃什么？"}, {"from": "gpt", "value": "吃清淡的。"}])}, PAIR),
    ({"conversation": [{"human": "感冒吃什么？", "assistant": "吃清淡的。"}]}, PAIR),
    ({"messages": [{"role": "developer", "content": "短"}, {"role": "user", "content": [{"type": "text", "text": "感冒"}, {"type": "text", "text": "吃什么？"}]},
                   {"role": "assistant", "content": "吃清淡的。"}]}, [("system", "短"), *PAIR]),
    ({"prompt": "感冒吃什么？", "completion": "吃清淡的。"}, PAIR),
    ({"prompt": talk(PAIR[0]), "completion": talk(PAIR[1])}, PAIR),
    ({"query": "感冒吃什么？", "response": "吃清淡的。"}, PAIR), ({"问": "感冒吃什么？", "答": "吃清淡的。"}, PAIR),
    ({"question": "几", "answer": 7}, [(U, "几"), (A, "7")]), ({"question": "几", "answer": None}, [(U, "几"), (A, "")]),
    ({"instruction": "给出 JSON", "output": '[{"role": "user"}]'}, [(U, "给出 JSON"), (A, '[{"role": "user"}]')]),
    ({"instruction": "翻译这句话", "input": float("nan"), "output": "好的。", "system": float("nan"), "history": float("nan"), "tools": float("nan")},
     [(U, "翻译这句话"), (A, "好的。")]),
    ({"question": "几", "answer": float("nan")}, [(U, "几"), (A, "")]), ({"messages": [{"role": U, "content": float("nan"), "tool_calls": float("nan")}]}, [(U, "")]),
    ({"messages": [{"role": U, "content": "问", "input": 1, "output": 2}]}, [(U, "问")]),
    ({"question": "几", "answer": float("inf")}, ("not_text", "answer: expected text, found inf")),
    ({"a": 1, "b": 2}, ("unknown_keys", "keys: a, b")),
    ({"messages": [{"role": "narrator", "content": "x"}]}, None),
    ({"instruction": "排", "output": ["好", "坏"]}, ("not_text", "output: a list of answers: for preferences give the file to --preferences")),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, ("not_text", "messages[0].content: a part of the message is no text; images and sound are not read")),
    ({"prompt": "x", "completion": True}, ("not_text", "completion: expected text, found bool")),
])
def test_each_record_format_is_known_by_its_keys(row, expected):
    assert record(row) == expected if expected else record(row)[0] == "unknown_role"


def test_tools_of_both_kinds_become_one_form():
    call = {"type": "function", "function": {"name": "天气", "arguments": {"城市": "北京"}}}
    sharegpt = {"conversations": [{"from": "human", "value": "北京热吗"}, {"from": "function_call", "value": '{"name": "天气", "arguments": {"城市": "北京"}}'},
                                  {"from": "observation", "value": "35 度"}, {"from": "gpt", "value": "热。"}], "tools": '[{"name": "天气", "parameters": {}}]'}
    openai = {"messages": [{"role": "user", "content": "北京热吗"},
                           {"role": "assistant", "content": None, "tool_calls": [{**call, "function": {"name": "天气", "arguments": '{"城市": "北京"}'}}]},
                           {"role": "tool", "content": "35 度"}, {"role": "assistant", "content": "热。"}], "tools": TOOL}
    for row in (sharegpt, openai):
        item = read_record(Row("f", 1, row))
        assert item.value["tools"] == TOOL
        assert item.value["messages"] == [{"role": "user", "content": "北京热吗"}, {"role": "assistant", "content": "", "tool_calls": [call]},
                                          {"role": "tool", "content": "35 度"}, {"role": "assistant", "content": "热。"}]
        assert check_record(item.value, item.fields, []) == []
    assert record({**openai, "tools": "not json"}) == ("bad_tools", "tools: expected a JSON list of functions with names")


Q, GOOD, BAD, SYSTEM = talk((U, "问")), talk((A, "好")), talk((A, "坏")), talk(("system", "你是助手。"))


@pytest.mark.parametrize(("row", "expected"), [
    ({"prompt": "问", "chosen": "好", "rejected": "坏"}, [(Q, GOOD, BAD)]),
    ({"conversations": [{"from": "human", "value": "问"}], "chosen": {"from": "gpt", "value": "好"}, "rejected": {"from": "gpt", "value": "坏"}}, [(Q, GOOD, BAD)]),
    ({"prompt": Q, "chosen": GOOD, "rejected": BAD}, [(Q, GOOD, BAD)]),
    ({"prompt": json.dumps(Q), "chosen": json.dumps(GOOD), "rejected": json.dumps(BAD)}, [(Q, GOOD, BAD)]),
    ({"chosen": [*Q, *GOOD], "rejected": [*Q, *BAD]}, [(Q, GOOD, BAD)]),
    ({"prompt": "问", "chosen": [*Q, *GOOD], "rejected": [*Q, *BAD]}, [(Q, GOOD, BAD)]),
    ({"chosen": "\n\nHuman: 问\n\nAssistant: 好", "rejected": "\n\nHuman: 问\n\nAssistant: 坏"}, [(Q, GOOD, BAD)]),
    ({"messages": [*Q, *GOOD], "rejected_response": "坏"}, [(Q, GOOD, BAD)]),
    ({"question": "问", "response_chosen": "好", "response_rejected": "坏"}, [(Q, GOOD, BAD)]),
    ({"instruction": "问", "input": "", "output": ["好", "坏", "更坏"]}, [(Q, GOOD, BAD), (Q, GOOD, talk((A, "更坏")))]),
    ({"prompt": "问", "responses": ["坏", "好"], "scores": [1, 5.5]}, [(Q, GOOD, BAD)]),
    ({"prompt": "问", "prompt_id": "1", "chosen": [*Q, *GOOD], "rejected": [*Q, *BAD], "messages": [*Q, *GOOD], "score_chosen": 8.0, "score_rejected": 8.0},
     [(Q, GOOD, BAD)]),                                     # UltraFeedback binarized
    ({"messages": [*Q, *BAD, *Q, *GOOD], "chosen": [*Q, *BAD, *Q, *GOOD], "rejected": [*Q, *BAD, *Q, *BAD]}, [([*Q, *BAD, *Q], GOOD, BAD)]),
    ({"prompt": "问", "chosen": [*Q, *BAD, *Q, *GOOD], "rejected": [*Q, *BAD, *Q, *BAD]}, [([*Q, *BAD, *Q], GOOD, BAD)]),
    ({"messages": [*Q, *GOOD], "chosen": "好", "rejected": "坏"}, [(Q, GOOD, BAD)]), ({"messages": [*Q, *BAD, *Q], "chosen": "好", "rejected": "坏"}, [([*Q, *BAD, *Q], GOOD, BAD)]),
    ({"messages": [*Q, *BAD, *Q], "chosen": [*Q, *GOOD], "rejected": [*Q, *BAD]}, [([*Q, *BAD, *Q], GOOD, BAD)]),
    ({"system": "短", "prompt": "问", "chosen": [*Q, *GOOD], "rejected": [*Q, *BAD]}, [([*talk(("system", "短")), *Q], GOOD, BAD)]),
    ({"instruction": "问", "models": ["a", "b", "c"], "completions": [{"model": "a", "response": "坏", "overall_score": 2.0}, {"model": "b", "response": "好", "overall_score": 7.5},
                                                                   {"model": "c", "response": "更坏", "overall_score": 1}]}, [(Q, GOOD, BAD), (Q, GOOD, talk((A, "更坏")))]),
    ({"instruction": "问", "completions": [{"response": "坏", "rating": 2}, {"response": "好"}]}, "not_text"),
    ({"prompt": "问", "responses": ["坏", "好"], "scores": [1, float("nan")]}, "not_text"), ({"prompt": "问", "responses": ["坏", "好"], "scores": [3, 3.0]}, "equal_scores"),
    ({"prompt": "问", "chosen": '["a", "b"]', "rejected": "坏"}, [(Q, talk((A, '["a", "b"]')), BAD)]),
    ({"prompt": "问", "chosen": [*SYSTEM, *Q, *GOOD], "rejected": [*SYSTEM, *Q, *BAD]}, [([*SYSTEM, *Q], GOOD, BAD)]),
    ({"prompt": "问", "chosen": [*talk((U, "先问")), *BAD, *Q, *GOOD], "rejected": [*talk((U, "先问")), *BAD, *Q, *BAD]}, [([*talk((U, "先问")), *BAD, *Q], GOOD, BAD)]),
    ({"conversation": [{"input": "问", "output": "旧"}], "chosen": [*Q, *GOOD], "rejected": [*Q, *BAD]}, [(Q, GOOD, BAD)]),      # Capybara
    ({"instruction": "问", "chosen_response": "好", "rejected_response": "坏"}, [(Q, GOOD, BAD)]),                               # Argilla
    ({"prompt": "\n\nHuman: 问\n\nAssistant: ", "answers": [{"answer": "坏", "rank": 2.0}, {"answer": "好", "rank": 1.0}]}, [(Q, GOOD, BAD)]),      # Nectar
    ({"prompt": "问", "answers": [{"body": "好"}, {"body": "坏"}]}, "not_text"),
    ({"prompt": "问", "chosen": "好"}, "unknown_keys"), ({"instruction": "问", "output": ["好"]}, "one_answer"), ({"chosen": "好", "rejected": "坏"}, "no_prompt"),
])
def test_each_preference_format_is_known_by_its_keys(row, expected):
    items = read_pairs(Row("f", 1, row))
    if isinstance(expected, str):
        assert [item.reason for item in items] == [expected]
    else:
        assert [(i.value["prompt"], i.value["chosen"], i.value["rejected"]) for i in items] == expected


def xlsx(path, rows):
    """A workbook of one sheet, without a library: inline strings, and (number, style) cells."""
    def cell(value):
        return (f'<c t="inlineStr"><is><t>{value}</t></is></c>' if isinstance(value, str) else f'<c s="{value[1]}"><v>{value[0]}</v></c>')
    main_ns = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    sheet = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    parts = {"_rels/.rels": f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="{rel}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
             "xl/workbook.xml": f'<workbook {main_ns} xmlns:r="{rel}"><sheets><sheet name="一" sheetId="1" r:id="r1"/></sheets></workbook>',
             "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="{rel}/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="r2" Type="{rel}/styles" Target="styles.xml"/></Relationships>',
             "xl/styles.xml": f'<styleSheet {main_ns}><cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>',
             "xl/worksheets/sheet1.xml": f"<worksheet {main_ns}><sheetData>{sheet}</sheetData></worksheet>"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    rows = [{"问": "编号，几位？", "答": "007"}, {"问": '引"号', "答": "两行\n文字"}]
    write(tmp_path / "a.jsonl", rows)
    write(tmp_path / "b.json", json.dumps(rows, ensure_ascii=False, indent=1))
    write(tmp_path / "c.json", json.dumps({"data": rows}))
    write(tmp_path / "d.csv", '问,答\r\n"编号，几位？",007\r\n"引""号","两行\n文字"\r\n'.encode("gb18030"))
    write(tmp_path / "e.tsv", "\ufeff问\t答\n编号，几位？\t007\n\"引\"\"号\"\t\"两行\n文字\"\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    write(tmp_path / "g.json", rows)                        # JSON Lines under .json
    xlsx(tmp_path / "h.xlsx", [["问", "答"], ["编号，几位？", "007"], ['引"号', "两行\n文字"]])
    write(tmp_path / "i.csv", "问,答\n编号，几位？,007\n引\"\"号,x\n".replace('引""号,x', '"引""号","两行\n文字"').encode("utf-16"))
    write(tmp_path / "j.jsonl", json.dumps(rows, ensure_ascii=False, indent=1))      # JSON under .jsonl
    write(tmp_path / "k.jsonl.gz", gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    write(tmp_path / "l.csv.gz", gzip.compress((tmp_path / "d.csv").read_bytes()))
    for path in sorted(tmp_path.iterdir()):
        assert [row.value for row in read_rows([path])] == rows, path.name
    assert [row.number for row in read_rows([tmp_path / "d.csv"])] == [2, 3] and [row.number for row in read_rows([tmp_path / "b.json"])] == [1, 2]


def test_cells_of_a_workbook_stay_what_they_show(tmp_path):
    xlsx(tmp_path / "a.xlsx", [["问", "答"], [("3", 0), ("45000", 1)], [("0.5", 0), "NA"]])
    assert [row.value for row in read_rows([tmp_path / "a.xlsx"])] == [{"问": "3", "答": "2023-03-15"}, {"问": "0.5", "答": "NA"}]
    assert [cell_text(c) for c in (None, True, 2.0, 2.5, 7, "007")] == ["", "TRUE", "2", "2.5", "7", "007"]
    assert [cell_text(c) for c in (0.04049999999999999, 0.1 + 0.2, 1234.5678, -0.5)] == ["0.0405", "0.3", "1234.5678", "-0.5"]
    days = [date(2023, 3, 1), datetime(2023, 3, 1), datetime(2023, 3, 1, 8, 30), time(8, 30)]
    assert [cell_text(day) for day in days] == ["2023-03-01", "2023-03-01", "2023-03-01 08:30:00", "08:30:00"]


def test_a_broken_row_does_not_stop_the_good_ones(tmp_path):
    good = '{"问": "甲甲", "答": "乙乙"}'
    artifact = made(tmp_path, f'{good}\n{{broken\n[1]\n{{"x": 1}}\n\n{{"问": "half \\ud83d", "答": "x"}}\n{{"问": "丙", "答": "{"丁" * 3}"}}\n{{"id": "\\ud83d", "问": "戊", "答": "己"}}\n')
    assert kept(artifact) == [[(U, "甲甲"), (A, "乙乙")], [(U, "丙"), (A, "丁丁丁")]]
    assert dropped(artifact) == [("in.jsonl:2", "bad_json"), ("in.jsonl:3", "not_an_object"), ("in.jsonl:4", "unknown_keys"), ("in.jsonl:6", "half_character"), ("in.jsonl:8", "unwritable")]
    assert artifact.manifest["counts"] == {"in": 7, "kept": 2, "dropped": {"bad_json": 1, "half_character": 1, "not_an_object": 1, "unknown_keys": 1, "unwritable": 1}}
    ragged = made(tmp_path, "问,答\n甲,乙\n甲,乙,丙\n", name="r.csv", out="r")
    assert dropped(ragged) == [("r.csv:3", "ragged_row")]
    quote = made(tmp_path, '问,答\n甲,乙\n丙,"没有结尾\n丁,戊\n', name="q.csv", out="q")
    assert kept(quote) == [[(U, "甲"), (A, "乙")], [(U, "丁"), (A, "戊")]] and dropped(quote) == [("q.csv:3", "bad_csv")]
    lost = made(tmp_path, f"{good}\n".encode() + '{"问": "'.encode() + b'\xff"}\n' + good.replace("甲甲", "丙丙").encode(), name="u.jsonl", out="u")
    assert len(kept(lost)) == 2 and dropped(lost) == [("u.jsonl:2", "undecodable")]


def test_odd_files_cost_no_other_row_and_no_text(tmp_path):
    good = '{"问": "甲甲", "答": "乙乙"}'
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "a.jsonl", good + "\n")
    write(tmp_path / "d" / "LICENSE", "MIT")
    both = lint(LintConfig(records=[str(tmp_path / "d" / "a.jsonl"), str(tmp_path / "d" / "LICENSE")], out=str(tmp_path / "both")))
    assert len(kept(both)) == 1 and dropped(both) == [("LICENSE", "unknown_file")]
    key = made(tmp_path, json.dumps({"问": "甲丙", "答": "乙乙", "\ud800": "x"}), out="key")
    assert len(kept(key)) == 1 and json.loads((key.path / "report.json").read_text("utf-8"))["ignored_fields"] == {"\\ud800": 1}
    deep = made(tmp_path, "[" * 1000 + "]" * 1000 + f"\n{good}\n", out="deep")
    assert len(kept(deep)) == 1 and dropped(deep)[0][0] == "in.jsonl:1"
    alone = made(tmp_path, json.dumps({"instruction": "写", "output": "好的。", "test": ["assert a"]}), name="one.json", out="one")
    assert kept(alone) == [[(U, "写"), (A, "好的。")]]
    ends = made(tmp_path, '问,答\r\n甲,"一\r\n二\r三"\r\n', name="cr.csv", out="cr")
    assert kept(ends) == [[(U, "甲"), (A, "一\r\n二\r三")]]
    assert kept(made(tmp_path, "问,答\n今天好\0,明天也很好\n", name="nul.csv", out="nul")) == [[(U, "今天好\0"), (A, "明天也很好")]]
    assert kept(made(tmp_path, "问,答\n甲,乙\n", name="commas.tsv", out="tsv")) == [[(U, "甲"), (A, "乙")]]
    assert kept(made(tmp_path, json.dumps({"data": [json.loads(good)]}), name="d.txt", out="txt")) == [[(U, "甲甲"), (A, "乙乙")]]
    cut = made(tmp_path, '{"messages": [{"role": "user", "content": "甲"},\n' + f"{good}\n", out="cut")
    assert len(kept(cut)) == 1 and dropped(cut) == [("in.jsonl:1", "bad_json")]


def test_rows_that_differ_in_thought_or_tools_are_no_duplicates(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "几？"}, {"role": "assistant", "content": f"<think>{thought}</think>42。"}]} for thought in ("甲", "乙", "甲")]
    assert made(tmp_path, rows, fix=True).manifest["counts"] == {"in": 3, "kept": 2, "dropped": {"duplicate": 1}}
    tool = {"type": "function", "function": {"name": "天气", "parameters": {"type": "object", "properties": {}}}}
    rows = [{"messages": talk((U, "几？"), (A, "42。")), "tools": tools} for tools in ([], [tool], [tool])]
    assert made(tmp_path, rows, out="t", fix=True).manifest["counts"]["dropped"] == {"duplicate": 1}


def test_personal_data_stays_where_it_is_what_the_answers_state(tmp_path):
    given = [{"instruction": "城东支行的电话？\u200b", "output": "城东支行的电话是0571-88001000。"},
             {"instruction": "客服？", "output": "<think>查</think>客服手机13812345678。"}]
    for way, said in (("mask", ["城东支行的电话是【电话】。", "客服手机【手机号】。"]), ("keep", ["城东支行的电话是0571-88001000。", "客服手机13812345678。"])):
        artifact = made(tmp_path, given, fix=True, personal=way, out=way)
        assert kept(artifact) == [[(U, "城东支行的电话？"), (A, said[0])], [(U, "客服？"), (A, said[1])]]
        found = json.loads((artifact.path / "report.json").read_text("utf-8"))["by_name"]
        assert [found[name]["repaired"] for name in ("landline", "mobile_phone")] == ([1, 1] if way == "mask" else [0, 0])
        assert [found[name]["found"] for name in ("landline", "mobile_phone", "invisible", "thinking")] == [1, 1, 1, 1]


def test_personal_data_of_a_rejected_answer_is_masked_too(tmp_path):
    artifact = made(tmp_path, [{"prompt": "怎么联系？", "chosen": "打总机。", "rejected": "加微信号：abc12345"}], preferences=True, fix=True)
    assert [row["rejected"][0]["content"] for _, row in read_preferences(artifact.path / "preferences.jsonl")] == ["加微信号：【账号】"]


def test_a_file_of_several_lists_is_refused_and_none_is_lost(tmp_path):
    row = {"问": "甲", "答": "乙"}
    assert kept(made(tmp_path, json.dumps({"train": [row], "version": 1}), name="a.json")) == [[(U, "甲"), (A, "乙")]]
    assert kept(made(tmp_path, json.dumps({"data": [row], "licenses": [{"id": 1}]}), name="c.json", out="c")) == [[(U, "甲"), (A, "乙")]]
    assert kept(made(tmp_path, json.dumps({"train": [row], "validation": []}), name="d.json", out="d")) == [[(U, "甲"), (A, "乙")]]
    with pytest.raises(DataError, match="several_lists 1; first b.json: several_lists: holds several lists of rows, train and test; make a file of each"):
        made(tmp_path, json.dumps({"train": [row], "test": [row]}), name="b.json", out="b")


def test_equal_scores_are_no_preference_and_counted(tmp_path):
    scored = [{"response": text, "score": score} for text, score in (("甲答", 7.5), ("乙答", 7.5), ("丙答", 3))]
    artifact = made(tmp_path, [{"prompt": "问", "completions": scored}, {"prompt": "问二", "responses": ["甲", "乙"], "scores": [1, 1]}], preferences=True, fix=True)
    assert artifact.manifest["counts"] == {"in": 3, "kept": 1, "dropped": {"equal_scores": 2}}
    assert dropped(artifact) == [("in.jsonl:1#1", "equal_scores"), ("in.jsonl:2", "equal_scores")]
    assert [(r["chosen"], r["rejected"]) for _, r in read_preferences(artifact.path / "preferences.jsonl")] == [(talk((A, "甲答")), talk((A, "丙答")))]


def test_ultrafeedback_binarized_loses_no_row(tmp_path):
    talks = [[talk((U, f"问{n}")), talk((A, f"答案{n}")), talk((A, f"另答{n}"))] for n in (1, 2)]
    rows = [{"prompt": ask[0]["content"], "prompt_id": "x", "chosen": [*ask, *good], "rejected": [*ask, *bad], "messages": [*ask, *good], "score_chosen": 8.0,
             "score_rejected": 7.5} for ask, good, bad in talks]
    artifact = made(tmp_path, rows, preferences=True, fix=True)
    assert artifact.manifest["counts"] == {"in": 2, "kept": 2, "dropped": {}} and artifact.manifest["metrics"]["problems"] == 0
    assert [[r["prompt"], r["chosen"], r["rejected"]] for _, r in read_preferences(artifact.path / "preferences.jsonl")] == talks


def test_nan_is_a_missing_text_and_no_argument(tmp_path):
    good = '{"instruction": "翻译这句话", "input": NaN, "output": "好的。"}'
    call = '{"messages": [{"role": "user", "content": "热吗"}, {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "天气", "arguments": %s}}]}]}'
    lines = [good, '{"instruction": "写诗", "output": NaN}', call % '{"度": NaN}', call % '{"度": [-Infinity]}', call % '"{\\"度\\": NaN}"', call % '{"度": [null]}']
    artifact = made(tmp_path, "\n".join(lines) + "\n")
    assert kept(artifact) == [[(U, "翻译这句话"), (A, "好的。")], [(U, "热吗"), (A, "")]]
    assert dropped(artifact) == [("in.jsonl:2", "empty_answer"), *((f"in.jsonl:{n}", "unwritable") for n in (3, 4, 5))]
    told = json.loads((artifact.path / "report.json").read_text("utf-8"))
    assert told["ignored_fields"] == {} and [p["detail"] for p in told["problems"]][1:] == ["NaN or Infinity, for which JSON has no number"] * 3


def moss(human, answer, command="None"):
    return {"Human": f"<|Human|>: {human}<eoh>\n", "Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n", "Commands": f"<|Commands|>: {command}<eoc>\n",
            "Tool Responses": "<|Results|>: None<eor>\n", "MOSS": f"<|MOSS|>: {answer}<eom>\n"}


def test_the_turns_of_moss_are_read_by_number_and_its_plugins_refused(tmp_path):
    chat = {f"turn_{n}": moss(f"问{n}", f"答{n}") for n in (1, 10, 2)}
    row = {"conversation_id": "7", "meta_instruction": "你是助手。", "num_turns": 3, "chat": chat}
    asked = [(role, f"{word}{n}") for n in (1, 2, 10) for role, word in ((U, "问"), (A, "答"))]
    assert record(row) == [("system", "你是助手。"), *asked]
    assert record({"meta_instruction": "", "chat": json.dumps({"turn_1": moss("问1", "答1"), "turn_2": None, "turn_3": dict.fromkeys(("Human", "MOSS"))})}) == asked[:2]
    assert record({"chat": {"turn_1": moss("问1", "答1", 'Search("天气")')}}) == ("plugin_call", 'chat.turn_1.Commands: Search("天气")')
    assert record({"chat": {"turn_1": {"Human": "问"}}}) == ("not_text", "chat.turn_1: expected a turn with Human and MOSS")
    artifact = made(tmp_path, [row, {"chat": {"turn_1": moss("问", "答", "Solve(1)")}}])
    assert artifact.manifest["counts"] == {"in": 2, "kept": 1, "dropped": {"plugin_call": 1}} and artifact.manifest["metrics"]["problems"] == 1


def test_marks_of_moss_and_baize_are_taken_out_whole(tmp_path):
    rows = [{"instruction": "<|Human|>: 你好<eoh>\n", "output": "<|MOSS|>: 您好，请讲。<eom>\n"}, {"instruction": "[|Human|]再见", "output": "[|AI|]： 再会。<eot>"},
            {"instruction": "<|Human|>：几点<eoc>\n<|MOSS|>:", "output": "三点。"}, {"instruction": "问完", "output": "答完。<eom>\n<|Human|>: 再问<eoh>"}]
    artifact = made(tmp_path, rows, fix=True)
    assert kept(artifact) == [[(U, "你好"), (A, "您好，请讲。")], [(U, "再见"), (A, "再会。")], [(U, "几点"), (A, "三点。")]]
    assert dropped(artifact) == [("in.jsonl:4", "marker_inside")]
    assert found((U, "F# 的 f <| x |> g"), (A, "用 [|1; 2|] 表示数组。")) == []


@pytest.mark.parametrize(("name", "content", "message"), [
    ("b.csv", "问,答,答\n甲,乙,丙\n", r"no row is left of 1: bad_header 1; first b.csv:1: bad_header: the header names '答' twice"),
    ("a.json", '[{"问": "甲",\n "答": }]', r"no row is left of 1: bad_json 1; first a.json:1: bad_json: Expecting value: line 2 column 7"),
    ("a.csv", '问,答\n丙,"没有结尾\n', r"no row is left of 1: truncated 1; first a.csv:2: truncated: unexpected end of data"),
    ("a.jsonl", b'{"a": "\x81\xff\xff"}\n', r"no row is left of 1: undecodable 1; first a.jsonl: undecodable: in no encoding that is known"),
    ("a.xlsx", "no zip", r"first a.xlsx:1: unreadable: a.xlsx: is no spreadsheet"), ("a.parquet", "no parquet", r"first a.parquet:1: unreadable: is no parquet file"),
    ("a.jsonl", '{"text": "只是一段话"}\n', r"no row is left of 1: unknown_keys 1; first a.jsonl:1: unknown_keys: keys: text"),
    ("a.jsonl", "", "no row is left of 0: there was no row"),
    ("a.docx", "x", "no row is left of 1: unknown_file 1"),
])
def test_a_file_that_cannot_be_read_stops_with_its_place(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        made(tmp_path, content, name=name)
    assert not (tmp_path / "o").exists()


def test_wrong_settings_are_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match="either --records, --preferences or --corpus"):
        LintConfig(out="o")
    with pytest.raises(ConfigError, match="a corpus is repaired by zhtune clean"):
        LintConfig(corpus="x", fix=True, out="o")
    with pytest.raises(ConfigError, match="are for --corpus"):
        LintConfig(records="x", preset="shipped:web", out="o")
    with pytest.raises(ConfigError, match="--near is a share"):
        LintConfig(records="x", out="o", near=1.0)
    with pytest.raises(ConfigError, match="--preset web is no preset and no YAML file; presets are: shipped:classical"):
        lint(LintConfig(corpus="x", preset="web", out=str(tmp_path / "o")))
    assert main(["lint", "--records", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "o")]) == 1
    assert "none.jsonl does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(("messages", "expected"), [
    (PAIR, []), ([], ["empty_record"]), ([(U, "在吗")], ["no_answer"]), ([(A, "您好，请问")], ["no_question", "agent_first"]),
    ([(U, " "), (A, "x")], ["empty_question"]), ([(U, "x"), (A, "\n")], ["empty_answer"]),
    ([(U, "请重复这句话"), (A, "请重复 这句话")], ["echo"]), ([(U, "你好"), (A, "你好")], []),
    ([(U, "你是谁"), (A, "我是ChatGPT。")], ["identity"]), ([("system", "扮演ChatGPT"), (U, "你是谁"), (A, "我是ChatGPT。")], []),
    ([(U, "x"), (A, "我叫{{name}}。")], ["placeholder"]), ([(U, "x"), (A, "第一，")], ["cut_answer"]), ([(U, "x"), (A, "```py\na")], ["cut_answer"]),
    ([(U, "x"), (A, "好的。<|im_end|>")], ["marker_at_end"]), ([(U, "x"), (A, "答：好的。")], ["marker_at_end"]), ([(U, "问：好吗？\n答："), (A, "好。")], ["marker_at_end"]),
    ([(U, "问：一？\n答：1\n问：二？\n答："), (A, "2")], []), ([(U, "x"), (A, "甲<|im_end|>\n<|im_start|>user\n乙")], ["marker_inside"]),
    ([(U, "x"), (A, "用 `<|im_end|>` 结束。")], []), ([(U, "x"), (A, "好。\n问：再来？\n答：再来。")], ["marker_inside"]), ([(U, "写一段问答"), (A, "问：来？\n答：来。")], []),
    ([(U, "x"), (A, "<think>想</think>好。")], ["thinking"]), ([(U, "x"), (A, "<think>想")], ["marker_inside"]),
    ([(U, "a"), (U, "b"), (A, "c")], ["same_speaker"]), ([(A, "您好"), *PAIR], ["agent_first"]), ([*PAIR, (U, "还有？")], ["unanswered_end"]),
    ([*PAIR, ("system", "新规")], ["unanswered_end", "late_system"]), ([("system", ""), *PAIR], ["empty_system"]),
    ([(U, "x"), (A, "甲\ufffd乙")], ["replacement_character"]), ([(U, "x"), (A, "甲乙\ufffd\ufffd")], ["cut_character"]), ([(U, "x"), (A, "甲\u200b乙")], ["invisible"]),
    ([(U, "x"), (A, "甲\ue123乙")], ["private_use"]), ([(U, "锟斤拷什么"), (A, "x")], ["garbled"]), ([(U, "x"), (A, "你好世界".encode().decode("gb18030"))], ["mojibake"]),
    ([(U, "我的身份证是11010519491231002X"), (A, "好")], ["resident_id"]), ([(U, "电话13812345678"), (A, "好")], ["mobile_phone"]),
])
def test_each_rule_names_its_problem_and_leaves_good_data_alone(messages, expected):
    assert found(*messages) == expected and all(name in CURES for name in expected)


def call(arguments, name="天气"):
    return {"role": A, "content": "", "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}]}


def test_tool_calls_are_checked():
    result, end = ("tool", "35 度"), (A, "热。")
    assert found((U, "热吗"), call({}), result, end, tools=TOOL) == [] == found((U, "热吗"), call({}), tools=TOOL)
    assert found((U, "热吗"), call({}), result, result, end, tools=TOOL) == []
    assert found((U, "热吗"), call("{城市"), result, end, tools=TOOL) == ["broken_arguments"]
    assert found((U, "热吗"), call("{'城市': '北京'}"), result, end, tools=TOOL) == ["loose_arguments"]
    assert found((U, "热吗"), call({}, "时间"), result, end, tools=TOOL) == ["unknown_tool"] and found((U, "热吗"), call({}, ""), result, end) == ["unknown_tool"]
    assert found((U, "热吗"), result, end, tools=TOOL) == ["result_without_call"] == found((U, "x"), call({}), result, end, result, end, tools=TOOL)
    assert found((U, "热吗"), call({}), (U, "快点"), end, tools=TOOL) == ["call_without_result"]


def test_pairs_are_checked_and_a_rejected_answer_may_be_bad():
    def names(prompt, chosen, rejected):
        return [p.name for p in check_pair({"prompt": talk(*prompt), "chosen": talk(*chosen), "rejected": talk(*rejected)}, {}, [])]
    assert names([(U, "你是谁")], [(A, "我是小助手。")], [(A, "我是ChatGPT，")]) == []
    assert names([(U, "你是谁")], [(A, "我是ChatGPT。")], [(A, "哦")]) == ["identity"]
    assert names([(U, "x")], [(A, "好")], [(A, "好 ")]) == ["same_answers"] and names([(U, "x")], [(A, "好")], [(A, "")]) == ["empty_answer"]
    assert names([(U, "x"), (A, "y")], [(A, "好")], [(A, "坏")]) == ["prompt_is_answered", "same_speaker"] and names([], [(A, "好")], [(A, "坏")]) == ["no_prompt", "agent_first"]
    assert names([(U, "x")], [(A, "好")], [(A, "坏\ufffd坏")]) == ["replacement_character"]


def test_mojibake_is_read_back_only_where_it_is_exact():
    for text in ("感冒了，多喝水。", "你好", "Café 与“引号”"):
        assert mend(text) == text
    assert mend("你好世界".encode().decode("gb18030")) == "你好世界" and mend("感冒了，多喝水".encode().decode("latin-1")) == "感冒了，多喝水"
    assert mend("caf\u00c3\u00a9 好") == "café 好" and mend("3×“重”，é—") == "3×“重”，é—" and mend("it\u00e2\u20ac\u2122s 好") == "it’s 好"


def test_personal_numbers_are_checked_by_their_own_digits():
    assert is_resident_id("11010519491231002X") and is_resident_id("11010519491231002x") and not is_resident_id("110105194912310021")
    assert not is_resident_id("11010519491331002X")         # month 13
    assert is_bank_card("4111111111111111") and not is_bank_card("4111111111111112") and not is_bank_card("9111111111111111")
    assert is_bank_card("6200000000000005") and not is_bank_card("1111111111111117")
    text = "联系张三 138-1234-5678，zhang.san@example.com，卡 4111 1111 1111 1111，编号 20231381234567890。"
    assert [(f.name, f.masked) for f in personal(text)] == [("mobile_phone", "13…78"), ("e_mail", "zh…om"), ("bank_card", "41…11")]
    assert mask(mask(text, "mobile_phone"), "bank_card") == "联系张三 【手机号】，zhang.san@example.com，卡 【银行卡号】，编号 20231381234567890。"


@pytest.mark.parametrize("text", ["我是由OpenAI训练的语言模型", "作为一个由百度开发的AI助手，", "我的名字是文心一言", "I am Claude, made to help.", "I'm an AI model developed by OpenAI.",
                                  "作为OpenAI的语言模型，我不能", "我是阿里云自主研发的大模型"])
def test_other_products_as_self(text):
    assert foreign_self(text, "", []) and not foreign_self(text, text, []) and not foreign_self("GPT-4是OpenAI的模型。我用过百度搜索，我是在百度工作的。", "", [])
    for said in ("我是OpenAI开发的ChatGPT", "作为OpenAI的ChatGPT，我不能", "我是百度的文心一言", "我是ChatGPT的中文版"):
        assert foreign_self(f"{said}。", "", []).startswith(said[:9]) and not foreign_self(f"{said}。", "", ["ChatGPT", "文心一言"])
    for said in ("我是通义千问的忠实用户。", "我是ChatGLM用户", "我是OpenAI开发的ChatGPT的用户之一。"):
        assert foreign_self(said, "", []) == "" and foreign_self(f"{said}\n我是ChatGPT。", "", []) == "我是ChatGPT"
    assert foreign_self("我是通义千问的用户助手。", "", []) == "我是通义千问"
    for own in ("腾讯混元", "讯飞星火", "Google Bard"):
        assert foreign_self(f"我是{own}。", "", []) == f"我是{own}" and foreign_self(f"我是{own}。", "", [own]) == ""
    assert foreign_self("我是小智", "", []) == "" and foreign_self("我是豆包", "", ["豆包"]) == ""


def test_repairs_are_the_one_right_repair():
    assert turns(repair(talk((U, "a"), (U, "b"), (A, "c"), (A, "d")), {"same_speaker"})) == [(U, "a\nb"), (A, "c\nd")]
    assert repair([{**talk((A, "x"))[0], "train": False}, *talk((A, "y"))], {"same_speaker"})[1]["content"] == "y"
    assert repair(talk((U, "q"), (A, "<think> 想 </think>\n好")), {"thinking"})[1] == {"role": A, "content": "好", "reasoning": "想"}
    assert repair([call("{'城市': '北京'}")], {"loose_arguments"}) == [call({"城市": "北京"})]
    joined = repair([*talk((A, "我查一下。")), call({}), call({"a": 1})], {"same_speaker"})
    assert len(joined) == 1 and joined[0]["content"] == "我查一下。" and [c["function"]["arguments"] for c in joined[0]["tool_calls"]] == [{}, {"a": 1}]
    assert strip_marks("<|im_start|>assistant\n好。<|im_end|>\n", A) == "好。" and strip_marks("### Response: 好</s>", A) == "好" and strip_marks("[INST] 问 [/INST]", U) == "问"


ROWS = [
    {"id": "ok", "instruction": "感冒吃什么？", "output": "吃清淡的，多喝水。", "laws": ["x"]},
    {"id": "dup", "instruction": "感冒 吃什么？", "output": "吃清淡的，多喝水。"},
    {"id": "other", "instruction": "感冒吃什么？", "output": "喝白粥。"},
    {"id": "mark", "instruction": "一加一？", "output": "二。<|im_end|>"},
    {"id": "only", "instruction": "二加二？", "output": "<think>四</think>"},
    {"id": "name", "instruction": "你是谁？", "output": "我是ChatGPT。"},
    {"id": "mail", "instruction": "邮箱？", "output": "写信到 a.b@c.cn。"},
]


def test_without_fix_all_that_can_be_trained_on_is_kept_and_every_problem_told(tmp_path):
    artifact = made(tmp_path, ROWS)
    report = json.loads((artifact.path / "report.json").read_text("utf-8"))
    assert artifact.kind == "records" and artifact.manifest["counts"] == {"in": 7, "kept": 7, "dropped": {}} and dropped(artifact) == []
    assert kept(artifact)[3] == [(U, "一加一？"), (A, "二。<|im_end|>")] and report["formats"] == {"instruction/output": 7} and report["ignored_fields"] == {"laws": 1}
    assert [(p["row"], p["field"], p["problem"], p["detail"]) for p in report["problems"]] == [
        ("in.jsonl:2", "", "duplicate", "same as in.jsonl:1"), ("in.jsonl:3", "", "same_question", "same question as in.jsonl:1"),
        ("in.jsonl:4", "output", "marker_at_end", "二。<|im_end|>"), ("in.jsonl:5", "output", "thinking", "<think>四</think>"),
        ("in.jsonl:6", "output", "identity", "我是ChatGPT"), ("in.jsonl:7", "output", "e_mail", "a.…cn")]
    first = next(row for _, row in read_records(artifact.path / "records.jsonl"))
    assert first["id"] == "ok" and first["source"] == {"file": "in.jsonl", "row": 1, "form": "instruction/output"}


def test_fix_repairs_and_drops_and_counts_each_by_name(tmp_path):
    artifact = made(tmp_path, ROWS, fix=True)
    assert artifact.manifest["counts"] == {"in": 7, "kept": 4, "dropped": {"duplicate": 1, "empty_answer": 1, "identity": 1}}
    assert dropped(artifact) == [("in.jsonl:2", "duplicate"), ("in.jsonl:5", "empty_answer"), ("in.jsonl:6", "identity")]
    assert [t[1][1] for t in kept(artifact)] == ["吃清淡的，多喝水。", "喝白粥。", "二。", "写信到 【邮箱】。"]
    by_name = json.loads((artifact.path / "report.json").read_text("utf-8"))["by_name"]
    assert by_name["marker_at_end"] == {"cure": "repair", "found": 1, "rows": 1, "repaired": 1, "dropped": 0}
    assert by_name["thinking"]["repaired"] == 0 and by_name["empty_answer"]["dropped"] == 1
    page = (artifact.path / "report.html").read_text("utf-8")
    assert "marker_at_end" in page and CURES["identity"].chinese in page and "a.b@c.cn" not in page
    again = lint(LintConfig(records=str(artifact.path), out=str(tmp_path / "again"), fix=True, near=0.0))
    assert again.digest != "" and (again.path / "records.jsonl").read_bytes() == (artifact.path / "records.jsonl").read_bytes()
    twin = made(tmp_path, ROWS, out="twin", fix=True, workers=5)
    assert twin.digest == artifact.digest


def test_near_duplicates_are_told_and_kept(tmp_path):
    rows = [{"问": "肺炎有哪些症状，要去哪个科室看？", "答": "咳嗽、发热、胸痛，去呼吸内科看。"}, {"问": "肺炎有哪些症状，要去哪个科室看呢？", "答": "咳嗽、发热、胸痛，去呼吸内科看。"}]
    artifact = made(tmp_path, rows, near=0.9, fix=True)
    report = json.loads((artifact.path / "report.json").read_text("utf-8"))
    assert len(kept(artifact)) == 2 and [(p["row"], p["problem"]) for p in report["problems"]] == [("in.jsonl:2", "near_duplicate")]


def test_questions_of_test_files_and_13_characters_of_them_are_found(tmp_path):
    test = "被告人在缓刑考验期内又犯新罪的应当撤销缓刑"       # 21 characters
    write(tmp_path / "test.csv", f"Question,A,B,Answer\n{test},对,错,A\n短题,甲,乙,A\n首都在哪,上海,北京,B\n")
    rows = [{"问": "首都在哪 ", "答": "北京。"}, {"问": "说说缓刑", "答": "缓刑" + test[:13] + "。"}, {"问": "说说累犯", "答": "缓刑" + test[1:13] + "。"}, {"问": "短题", "答": "甲"}]
    artifact = made(tmp_path, rows, against=str(tmp_path / "test.csv"))
    report = json.loads((artifact.path / "report.json").read_text("utf-8"))
    assert [(p["row"], p["field"], p["problem"], p["detail"]) for p in report["problems"]] == [
        ("in.jsonl:1", "问", "test_question", "test.csv:4: 首都在哪 "), ("in.jsonl:2", "答", "test_overlap", f"test.csv:2: {test[:13]}")]
    assert report["test_items"] == {"items": 3, "common_grams": 0} and len(kept(made(tmp_path, rows, out="f", fix=True, against=str(tmp_path / "test.csv")))) == 2


def test_preferences_are_written_in_messages_form(tmp_path):
    artifact = made(tmp_path, [{"instruction": "问一问", "output": ["好。<|im_end|>", "坏", "好。<|im_end|>"]}, {"prompt": "问二", "chosen": "对", "rejected": "错"}], preferences=True, fix=True)
    assert artifact.kind == "preferences" and artifact.manifest["counts"] == {"in": 3, "kept": 2, "dropped": {"same_answers": 1}}
    rows = [row for _, row in read_preferences(artifact.path / "preferences.jsonl")]
    assert [(r["prompt"], r["chosen"], r["rejected"]) for r in rows] == [
        (talk((U, "问一问")), talk((A, "好。")), talk((A, "坏"))), (talk((U, "问二")), talk((A, "对")), talk((A, "错")))]
    assert dropped(artifact) == [("in.jsonl:1#2", "same_answers")]


def test_a_damaged_byte_in_a_utf8_file_is_told_and_costs_one_row(tmp_path):
    line = '{"问": "甲%d甲", "答": "乙乙"}\n'
    artifact = made(tmp_path, (line % 1).encode() + (line % 2).encode().replace("甲2".encode(), b"\xe7\x942") + (line % 3).encode(), fix=True)
    assert [t[0][1] for t in kept(artifact)] == ["甲1甲", "甲3甲"] and dropped(artifact) == [("in.jsonl:2", "undecodable")]


def test_every_problem_has_a_cure_in_both_languages():
    assert all(cure.chinese and cure.english for cure in CURES.values()) and Problem("echo", "x", "y").name in CURES


needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the cases from bug reports are not here")


@needs_cases
@pytest.mark.parametrize("fix", [False, True])
def test_case_turns_in_a_row(tmp_path, fix):
    source = CASES / "01-turns-in-a-row"
    expected = json.loads((source / "expected.json").read_text("utf-8"))
    texts = {row["id"]: [m["value"] for m in row["conversations"]] for row in map(json.loads, (source / "dialogues.jsonl").read_text("utf-8").split("\n")[:-1])}
    artifact = lint(LintConfig(records=str(source / "dialogues.jsonl"), out=str(tmp_path / "o"), fix=fix))
    rows = {row["id"]: row["messages"] for _, row in read_records(artifact.path / "records.jsonl")}
    for name, roles in expected["must_be_kept"].items():
        assert [m["role"] for m in rows[name]] == roles and [m["content"] for m in rows[name]] == texts[name]
    for name in expected["must_be_kept_with_all_texts_in_order"]:
        assert "\n".join(m["content"] for m in rows[name]) == "\n".join(texts[name])
    assert rows["d5"][-1]["role"] == (A if fix else U)
    assert dropped(artifact) == [("dialogues.jsonl:7", "no_answer"), ("dialogues.jsonl:8", "empty_record")]
    counts = artifact.manifest["counts"]
    assert counts["in"] == expected["in"] == counts["kept"] + sum(counts["dropped"].values())


@needs_cases
@pytest.mark.parametrize(("name", "file"), [("02-words-that-look-empty", "qa.csv"), ("03-line-separators-in-strings", "records.jsonl")])
@pytest.mark.parametrize("fix", [False, True])
def test_cases_of_reading(tmp_path, name, file, fix):
    expected = json.loads((CASES / name / "expected.json").read_text("utf-8"))
    artifact = lint(LintConfig(records=str(CASES / name / file), out=str(tmp_path / "o"), fix=fix))
    assert kept(artifact) == [[(U, row["user"]), (A, row["assistant"])] for row in expected["kept"]]
    assert len(dropped(artifact)) == expected.get("dropped", 0) and artifact.manifest["counts"]["in"] == expected["in"]
