"""What becomes of records before a model sees them: sources by weight, held-out questions, cutting, packing. No torch."""

import json
import re

import pytest
from shared_cases import CASES, make

from zhtune.errors import ConfigError, DataError
from zhtune.records import read_jsonl, read_preferences, read_records, write_jsonl
from zhtune.templates.encode import ChatEncoder
from zhtune.train.cutting import cut
from zhtune.train.mixing import held_out, leaks, questions, weighted
from zhtune.train.samples import Sample, dataset, pack
from zhtune.train.schedule import Schedule, Validation


def sample(name, size):
    return Sample(name, list(range(size)), [True] * size)


def test_packing_is_best_fit_longest_first_and_restarts_positions():
    rows = pack([sample(str(n), n) for n in (1, 3, 5, 2, 4, 3)], 6)
    assert [r.id for r in rows] == ["5+1", "4+2", "3+3"]
    assert rows[1].positions == [0, 1, 2, 3, 0, 1] and rows[1].loss_mask == [False, True, True, True, False, True]
    assert rows[1].input_ids == [0, 1, 2, 3, 0, 1]


def test_packing_keeps_every_sample_once():
    samples = [sample(str(i), 1 + i * 7 % 13) for i in range(60)]
    rows = pack(samples, 16)
    assert sorted(name for r in rows for name in r.id.split("+")) == sorted(s.id for s in samples)
    assert max(len(r.input_ids) for r in rows) <= 16 and len(rows) <= 1 + sum(len(s.input_ids) for s in samples) // 15


def test_rows_for_several_processes_are_filled_with_samples_that_train_nothing():
    pytest.importorskip("datasets")
    rows = dataset([sample("a", 3), sample("b", 2)], [0, 1, 0], multiple=4).to_list()
    assert rows[3] == {"input_ids": [0, 1], "labels": [-100, -100]} and rows[0]["labels"] == [0, 1, 2]


def test_a_weight_is_whole_copies_and_a_seeded_part():
    items = list("abcd")
    mixed = weighted(items, 2.5, "0:1")
    assert mixed[:8] == items * 2 and len(mixed) == 10 and mixed[8:] == sorted(mixed[8:]) and mixed == weighted(items, 2.5, "0:1")
    assert weighted(items, 1.0, "x") == items


def test_equal_questions_are_on_one_side_and_growth_moves_none():
    asked = [[f"问题{i % 40}"] for i in range(80)]
    out = held_out(asked, 0.2, seed=0)
    assert out[:40] == out[40:] and 3 <= sum(out[:40]) <= 14
    assert held_out([*asked, ["新"]], 0.2, seed=0)[:80] == out and held_out(asked, 0.0, 0) == [False] * 80


@pytest.mark.parametrize(("reader", "text", "message"), [
    (read_records, '[{"instruction": "甲"}]', "expected a JSON object, found list; zhtune lint --records FILE --out FOLDER makes records of"),
    (read_records, '{"instruction": "甲", "output": "乙"}', "has no 'messages', only instruction, output; zhtune lint --records FILE"),
    (read_records, '[\n{}]', "not valid JSON (unexpected end of data: line 2 column 1 (char 2)); zhtune lint --records FILE"),
    (read_preferences, '{"prompt": [], "chosen": "乙"}', "has no 'rejected', only prompt, chosen; zhtune lint --preferences FILE"),
])
def test_data_in_another_format_is_told_the_way(tmp_path, reader, text, message):
    (tmp_path / "a.jsonl").write_text(text, "utf-8")
    with pytest.raises(DataError, match=re.escape(f"a.jsonl:1: {message}")):
        list(reader(tmp_path / "a.jsonl"))


def test_a_question_that_training_sees_in_any_turn_leaks():
    talk = [{"role": "user", "content": "Ａ 吗？"}, {"role": "assistant", "content": "是"}, {"role": "user", "content": "继续"}]
    assert questions(talk) == ["a吗？", "继续"]
    assert leaks([["继续"], ["新"]], [["a吗？", "继续"]]) == [True, False]


@pytest.fixture
def encoder(tmp_path):
    pytest.importorskip("transformers")
    from zhtune.models.shapes import write_byte_tokenizer
    write_byte_tokenizer(tmp_path / "bytes")
    return ChatEncoder(tmp_path / "bytes")


def talk(*texts):
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def trained(encoder, made):
    return encoder.decode([i for i, m in zip(made.input_ids, made.loss_mask) if m])


def test_a_cut_prompt_loses_its_middle_and_keeps_the_answer(encoder):
    made = cut("x", talk("a" * 60 + "b" * 60, "answer"), encoder, 64)
    assert made.cut == "prompt" and len(made.input_ids) == 64 and trained(encoder, made) == "answer"
    assert made.input_ids[-2:] == encoder.sample(talk("q", "answer")).ids[-2:] and made.loss_mask[-2]       # the end token is trained
    text = encoder.decode(made.input_ids)
    assert abs(text.count("a" * 10) - text.count("b" * 10)) <= 1


def test_a_cut_answer_has_no_end_token(encoder):
    made = cut("x", talk("q", "y" * 200), encoder, 64)
    assert made.cut == "answer" and len(made.input_ids) == 64 and made.loss_mask[-1]
    assert trained(encoder, made) == "y" * sum(made.loss_mask) and encoder.end_id not in [i for i, m in zip(made.input_ids, made.loss_mask) if m]


def test_later_turns_go_before_anything_is_cut(encoder):
    made = cut("x", talk("q", "one", "again", "z" * 100), encoder, 64)
    assert made.cut == "turns" and trained(encoder, made) == "one" and encoder.sample(talk("q", "one")).ids == made.input_ids
    both = cut("x", talk("a" * 99, "y" * 99, "q", "z"), encoder, 64)
    assert both.cut == "turns+prompt+answer" and len(both.input_ids) == 64


def test_nothing_is_left_of_a_template_that_does_not_fit(encoder):
    assert cut("x", talk("question", "y"), encoder, 8) is None


def test_sources_by_weight_with_their_shares(tmp_path):
    pytest.importorskip("trl")
    from zhtune.stages.sft import SftConfig, sft
    for name, count in (("a", 4), ("b", 2)):
        write_jsonl(tmp_path / f"{name}.jsonl", ({"id": f"r{i}", "messages": talk(f"{name}{i}", "ok")} for i in range(count)))
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    made = sft(SftConfig(model="new:llama-tiny", records=files, weights=[0.5, 2.0], samples_only=True, out=str(tmp_path / "s")))
    rows = [row["id"] for _, row in read_jsonl(made.path / "samples.jsonl")]
    assert len(rows) == 6 and rows[2:] == ["1:r0", "1:r1"] * 2 and {r[:3] for r in rows[:2]} == {"0:r"}
    shares = json.loads((made.path / "report.json").read_text())["sources"]
    assert [(s["samples"], s["trained_tokens"], round(s["share"], 3)) for s in shares] == [(2, 6, 0.333), (4, 12, 0.667)]
    with pytest.raises(ConfigError, match="--weights needs one number above 0 for each of the 2 --records"):
        SftConfig(model="new:llama-tiny", records=files, weights=[1.0], out="x")


def test_schedules_that_cannot_be_are_refused_in_flag_words():
    with pytest.raises(ConfigError, match="--schedule.micro_batch 3 does not divide --schedule.batch_size 16"):
        Schedule(micro_batch=3)
    with pytest.raises(ConfigError, match="--validation.share is a share"):
        Validation(share=0.9)


def case_samples(tmp_path, name, **fields):
    pytest.importorskip("trl")
    from zhtune.stages.sft import SftConfig, sft
    base = tmp_path / "base"
    case = make(name, base)
    made = sft(SftConfig(model=str(base), records=str(case / "records.jsonl"), samples_only=True, out=str(tmp_path / "s"), **fields))
    return base, made, {row["id"]: row for _, row in read_jsonl(made.path / "samples.jsonl")}


def kept_ids(row):
    return [i for i, m in zip(row["input_ids"], row["loss_mask"]) if m]


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
def test_shared_case_every_answer_is_trained_with_its_end_and_no_padding(tmp_path):
    base, _, rows = case_samples(tmp_path, "08-learns-to-stop")
    expected, encoder = json.loads((CASES / "08-learns-to-stop" / "expected.json").read_text("utf-8")), ChatEncoder(base)
    turns = [turn for row in rows.values() for turn in " ".join(map(str, kept_ids(row))).split(" 7") if turn]
    assert [encoder.decode([int(i) for i in turn.split()]) for turn in turns] == expected["answers"]
    assert sum(kept_ids(row).count(7) for row in rows.values()) == expected["trained_end_tokens"]


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
def test_shared_case_what_is_cut_is_counted_and_a_cut_answer_has_no_end(tmp_path):
    _, made, rows = case_samples(tmp_path, "09-answer-cut-away", max_length=96, too_long="cut")
    assert made.manifest["counts"] == {"in": 6, "kept": 6, "dropped": {}} and made.manifest["metrics"]["cut"] == {"answer": 1, "prompt": 2, "turns": 1}
    assert all(kept_ids(row) and len(row["input_ids"]) <= 96 for row in rows.values()) and 7 not in kept_ids(rows["long-answer"])
    assert [kept_ids(rows[name])[-1] for name in ("long-question", "long-system", "second-turn-too-long")] == [7] * 3


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
def test_shared_case_one_beginning(tmp_path):
    _, _, rows = case_samples(tmp_path, "10-one-beginning")
    assert [row["input_ids"][0] for row in rows.values()] == [1] * 3 and sum(row["input_ids"].count(1) for row in rows.values()) == 3
