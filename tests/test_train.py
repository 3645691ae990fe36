"""Training on tiny models: masks, order, resume, adapters, merging, preference, generation."""

import json
import shutil

import pytest
from conftest import write_graph_input

from zhtune.errors import ArtifactError, DataError
from zhtune.records import read_jsonl, write_jsonl
from zhtune.train.samples import order

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from zhtune import references
from zhtune.models.engine import Sampling
from zhtune.models.open import open_engine
from zhtune.stages.dpo import DpoConfig, dpo
from zhtune.stages.merge import MergeConfig, merge
from zhtune.stages.sft import SftConfig, sft
from zhtune.train.adapter import Lora
from zhtune.train.schedule import Schedule

TALKS = [("一加一？", "二"), ("二加二？", "四"), ("三加三？", "六"), ("天？", "蓝")]


@pytest.fixture
def talks(tmp_path):
    path = tmp_path / "talks.jsonl"
    write_jsonl(path, ({"id": f"r{i}", "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
                       for i, (q, a) in enumerate(TALKS)))
    return str(path)


def train(tmp_path, talks, name="sft", epochs=2, **fields):
    schedule = Schedule(learning_rate=5e-3, epochs=epochs, batch_size=2, checkpoints=3, precision="fp32")
    return sft(SftConfig(**{"model": "new:llama-tiny", "records": talks, "method": "full", "schedule": schedule, "out": str(tmp_path / name), **fields}))


def test_order_is_a_permutation_an_epoch_and_groups_by_length():
    lengths = [5, 50, 5, 50, 5, 50]
    rows = order(lengths, 2, 3, seed=1)
    assert rows == order(lengths, 2, 3, seed=1) and all(sorted(rows[i:i + 6]) == list(range(6)) for i in (0, 6, 12))
    assert sum(lengths[rows[i]] != lengths[rows[i + 1]] for i in range(0, 18, 2)) == 3      # one mixed batch an epoch


def test_samples_only_shows_ids_and_mask_and_trains_nothing(tmp_path, talks):
    made = train(tmp_path, talks, samples_only=True)
    rows = [row for _, row in read_jsonl(made.path / "samples.jsonl")]
    assert made.kind == "records" and [r["id"] for r in rows] == ["r0", "r1", "r2", "r3"]
    for row, (_, answer) in zip(rows, TALKS):
        trained = [i for i, m in zip(row["input_ids"], row["loss_mask"]) if m]
        assert len(trained) == len(answer.encode("utf-8")) + 1 and trained[-1] == 2         # its bytes and <|im_end|>


def test_too_long_and_answerless_records_are_dropped_and_counted(tmp_path):
    path = tmp_path / "mixed.jsonl"
    write_jsonl(path, [{"id": "good", "messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]},
                       {"id": "long", "messages": [{"role": "user", "content": "问" * 99}, {"role": "assistant", "content": "答"}]},
                       {"id": "mute", "messages": [{"role": "user", "content": "问"}]}])
    made = train(tmp_path, str(path), samples_only=True, max_length=96)
    assert made.manifest["counts"] == {"in": 3, "kept": 1, "dropped": {"no_answer": 1, "too_long": 1}}


def test_learns_to_answer_and_to_stop(tmp_path, talks):
    made = train(tmp_path, talks, epochs=150)
    engine = open_engine(references.resolve(str(made.path)))
    replies = engine.generate([[{"role": "user", "content": q}] for q, _ in TALKS], Sampling(max_tokens=32))
    assert [(r.text, r.finish) for r in replies] == [(a, "stop") for _, a in TALKS]
    for (q, a), reply in zip(TALKS, replies):
        *pieces, last = engine.stream([{"role": "user", "content": q}], Sampling(max_tokens=32))
        assert "".join(pieces) == a and last == reply


def test_an_interrupted_run_resumes_with_equal_losses(tmp_path, talks, monkeypatch):
    whole = train(tmp_path, talks, "whole", epochs=8)
    from zhtune.train import finetune

    def stop(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "save", stop)               # killed after training, before anything is written
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, talks, "cut", epochs=8)
    partial = tmp_path / "cut.partial"
    assert not (tmp_path / "cut").exists()
    checkpoints = sorted((partial / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    (checkpoints[-1] / "model.safetensors").write_bytes(b"torn")    # the newest checkpoint is broken: the one before counts
    resumed = train(tmp_path, talks, "cut", epochs=8)
    assert json.loads((resumed.path / "report.json").read_text())["losses"] == json.loads((whole.path / "report.json").read_text())["losses"]
    assert resumed.digest == whole.digest


def test_adapter_merges_to_what_it_answers_and_chains_with_dpo(tmp_path, talks):
    base = train(tmp_path, talks, "base", epochs=2)
    adapter = train(tmp_path, talks, "lora", epochs=20, model=str(base.path), method="lora", lora=Lora(rank=4, alpha=8))
    assert adapter.kind == "adapter" and adapter.manifest["resolved"]["base"] == "../base"
    pairs = tmp_path / "pairs.jsonl"
    write_jsonl(pairs, ({"prompt": [{"role": "user", "content": q}], "chosen": [{"role": "assistant", "content": a}],
                         "rejected": [{"role": "assistant", "content": "错"}]} for q, a in TALKS))
    tuned = dpo(DpoConfig(model=str(adapter.path), preferences=str(pairs), out=str(tmp_path / "dpo"),
                          schedule=Schedule(learning_rate=1e-2, epochs=10, batch_size=4, precision="fp32")))
    assert tuned.manifest["metrics"]["accuracy"] == 1.0 and tuned.manifest["metrics"]["margin"] > 0
    merged = merge(MergeConfig(adapter=str(tuned.path), out=str(tmp_path / "merged")))
    assert merged.manifest["metrics"]["adapters"] == 2
    for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja"):
        assert (merged.path / name).read_bytes() == (base.path / name).read_bytes()
    ids = torch.tensor([[1, 50, 60, 70, 2]])
    with torch.inference_mode():
        left, right = (open_engine(references.resolve(str(p))).model(input_ids=ids).logits for p in (tuned.path, merged.path))
    assert torch.allclose(left, right, atol=1e-4)
    shutil.rmtree(base.path)
    with pytest.raises(ArtifactError, match="its base ../base does not exist, seen from its own folder; put it back, or zhtune merge --base WHERE_IT_IS"):
        open_engine(references.resolve(str(adapter.path)))


def test_an_adapter_on_a_changed_base_is_refused(tmp_path, talks):
    base = train(tmp_path, talks, "base")
    adapter = train(tmp_path, talks, "lora", model=str(base.path), method="lora")
    train(tmp_path, talks, "base", epochs=3, rebuild=True)
    with pytest.raises(ArtifactError, match="was trained on another ../base"):
        open_engine(references.resolve(str(adapter.path)))


def test_an_empty_record_file_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty.jsonl: no record is left to train on: the file is empty"):
        train(tmp_path, str(tmp_path / "empty.jsonl"))
    assert not (tmp_path / "sft").exists()


def test_a_recipe_reruns_what_changed_and_nothing_else(tmp_path):
    from zhtune.stages.run import RunConfig, run
    source = write_graph_input(tmp_path / "toy")
    recipe = tmp_path / "r.yaml"
    text = (f"workspace: {tmp_path / 'w'}\nkg:\n  input: {source}\nkg-instruct:\n  graph: kg\n  records_per_fact: 2\n"
            "sft:\n  model: new:llama-tiny\n  records: kg-instruct\n  method: full\n  schedule: {learning_rate: RATE, batch_size: 8}\n"
            "evaluate:\n  model: sft\n  graph: kg\n  questions: 2\n  max_tokens: 4\n")
    recipe.write_text(text.replace("RATE", "1.0e-3"))
    config = RunConfig(recipe=str(recipe))
    out = run(config)
    assert "evaluate" in out and (tmp_path / "w" / "report.html").exists() and (tmp_path / "w" / "report.json").exists()
    fresh = run(RunConfig(recipe=str(recipe), dry_run=True))
    assert [line.split()[1] for line in fresh.splitlines()] == ["fresh"] * 4
    recipe.write_text(text.replace("RATE", "2.0e-3"))
    lines = run(RunConfig(recipe=str(recipe), dry_run=True)).splitlines()
    assert [line.split()[1] for line in lines] == ["fresh", "fresh", "stale", "stale"] and "schedule.learning_rate was 0.001, is now 0.002" in lines[2]
    run(config)
    assert (tmp_path / "w" / "sft.stale-1").exists() and not (tmp_path / "w" / "kg.stale-1").exists()
