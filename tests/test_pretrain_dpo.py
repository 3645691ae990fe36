"""Continued pretraining (isolated documents, replay, forgetting) and preference losses against hand calculation."""

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest

from zhtune.corpus.tokens import block_positions, read_blocks, write_tokens
from zhtune.errors import ConfigError, DataError
from zhtune.records import read_preferences, write_jsonl

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from zhtune.models.load import load_model
from zhtune.models.shapes import write_shape
from zhtune.stages.clean import CleanConfig, clean
from zhtune.stages.dpo import DpoConfig, _warn, dpo
from zhtune.stages.pack import PackConfig, pack
from zhtune.stages.pretrain import PretrainConfig, _joined, only_rows, pretrain
from zhtune.templates.encode import ChatEncoder
from zhtune.train.loss import answer_loss
from zhtune.train.preference import COLLAPSE, Pair, _rewards, compared, log_probabilities
from zhtune.train.schedule import Schedule, Validation

SCHEDULE = Schedule(learning_rate=3e-3, batch_size=4, precision="fp32", checkpoints=2)


def test_positions_begin_anew_at_documents_and_blocks(tmp_path):
    write_tokens(tmp_path, [[1] * 3, [2] * 6, [3], [4] * 4], 10)
    assert block_positions(tmp_path, 4, [0, 1, 2]).tolist() == [[0, 1, 2, 0], [0, 1, 2, 3], [0, 0, 0, 1]]
    assert block_positions(tmp_path, 4, [2]).tolist() == [[0, 0, 0, 1]]
    assert read_blocks(tmp_path, 4)[2].tolist() == [2, 3, 4, 4]


def make_tokens(tmp_path, name, text):
    folder = tmp_path / f"{name}_text"
    folder.mkdir()
    for n in range(30):
        (folder / f"{n}.txt").write_text("".join(f"{text}{n}号记录，第{i}句说{text}很好。" for i in range(12)), "utf-8")
    corpus = clean(CleanConfig(input=[str(folder)], out=str(tmp_path / name), heldout=0.2))
    return str(corpus.path), str(pack(PackConfig(corpus=str(corpus.path), model="new:llama-tiny", out=str(tmp_path / f"{name}_tokens"))).path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return make_tokens(folder, "domain", "病房"), make_tokens(folder, "general", "天气")


def test_replay_keeps_what_domain_text_alone_makes_worse(tmp_path, data):
    (corpus, tokens), (general, replay) = data
    common = dict(tokens=tokens, corpus=corpus, general=general, block=64, blocks=48, windows=4, schedule=SCHEDULE)
    base = pretrain(PretrainConfig(model="new:llama-tiny", tokens=replay, block=64, blocks=48, windows=4, schedule=SCHEDULE, out=str(tmp_path / "base")))
    made = {}
    for name, more in (("alone", {}), ("replayed", {"replay": replay, "replay_ratio": 0.25})):
        made[name] = pretrain(PretrainConfig(model=str(base.path), out=str(tmp_path / name), **common, **more)).manifest["metrics"]
    assert made["replayed"]["replay_blocks"] == 16 and made["replayed"]["steps"] == 16 and made["alone"]["steps"] == 12
    assert made["replayed"]["forgetting"] < made["alone"]["forgetting"]
    for metrics in made.values():
        assert metrics["bits_per_character_after"] < metrics["bits_per_character_before"]
        ratio = metrics["general_bits_per_character_after"] / metrics["general_bits_per_character_before"]
        assert metrics["forgetting"] == pytest.approx(ratio - 1)
    page = (tmp_path / "alone" / "report.html").read_text()
    assert "每字比特数" in page
    with pytest.raises(DataError, match="--replay_ratio 0.99 needs 4752; add text or lower the ratio"):
        pretrain(PretrainConfig(model=str(base.path), out=str(tmp_path / "more"), replay=replay, replay_ratio=0.99, **common))


def test_the_figures_of_both_phases_add_up(tmp_path, data):
    rows = {"losses": [[2, 5.0]], "history": [{"step": 2, "loss": 5.0}], "steps": 2, "tokens": 10, "seconds": 1.5, "weights": {"old": 1}}
    then = {"losses": [[1, 4.0]], "history": [{"step": 1, "eval_bits_per_character": 9.0}], "steps": 3, "tokens": 20, "seconds": 2.0, "weights": {}}
    assert _joined(rows, then) == {"losses": [[2, 5.0], [3, 4.0]], "history": [{"step": 2, "loss": 5.0}, {"step": 3, "eval_bits_per_character": 9.0}],
                                   "steps": 5, "tokens": 30, "seconds": 3.5, "weights": {}}
    write_shape("llama-tiny", tmp_path / "m")
    (tmp_path / "m" / "extension.json").write_text('{"new_ids": [250, 258]}', "utf-8")
    made = pretrain(PretrainConfig(model=str(tmp_path / "m"), tokens=data[0][1], block=64, blocks=16, new_rows=0.25, schedule=SCHEDULE, out=str(tmp_path / "o")))
    assert (made.manifest["metrics"]["steps"], made.manifest["metrics"]["tokens"]) == (4, 16 * 64)
    assert [step for step, _ in json.loads((made.path / "report.json").read_text("utf-8"))["losses"]] == [1, 2, 3, 4]


def test_tokens_of_another_tokenizer_are_refused(tmp_path, data):
    write_shape("llama-tiny", tmp_path / "m")
    definition = json.loads((tmp_path / "m" / "tokenizer.json").read_text("utf-8"))
    first, second = list(definition["model"]["vocab"])[200:202]
    swapped = {first: definition["model"]["vocab"][second], second: definition["model"]["vocab"][first]}
    definition["model"]["vocab"] |= swapped
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    with pytest.raises(DataError, match="domain_tokens: was packed with another tokenizer than this model's"):
        pretrain(PretrainConfig(model=str(tmp_path / "m"), tokens=data[0][1], block=64, schedule=SCHEDULE, out=str(tmp_path / "o")))


def test_rows_alone_are_masked_wherever_the_model_lies(tmp_path):
    write_shape("llama-tiny", tmp_path / "m")
    model = load_model(tmp_path / "m")
    ids = torch.tensor([[1, 3, 4, 7]])
    with only_rows(model, range(3, 5)):
        moved = model.to(torch.bfloat16)                    # as when it goes to a card: the hook stays, the data is another
        moved(input_ids=ids, labels=ids).loss.backward()
    gradient = moved.get_input_embeddings().weight.grad
    assert gradient[3:5].abs().sum() > 0 and gradient[:3].abs().sum() == gradient[5:].abs().sum() == 0
    moved(input_ids=ids, labels=ids).loss.backward()
    assert gradient[7].abs().sum() > 0 and all(weight.grad is not None for weight in moved.parameters())


def test_isolated_documents_train_as_each_alone(tmp_path):
    write_shape("llama-tiny", tmp_path)
    model = load_model(tmp_path)
    documents = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]
    write_tokens(tmp_path, documents, 259)
    ids, positions = read_blocks(tmp_path, 12), block_positions(tmp_path, 12, [0])
    ids = ids.astype(np.int64)
    batch = {"input_ids": torch.tensor(ids), "position_ids": torch.tensor(positions)}
    together = answer_loss(model, model, batch, torch.tensor(np.where(positions > 0, ids, -100)), nullcontext()).item()
    alone = sum(answer_loss(model, model, {"input_ids": torch.tensor([d])}, torch.tensor([d]), nullcontext()).item() for d in documents)
    assert math.isclose(together, alone, rel_tol=1e-6)


@pytest.fixture
def pairs(tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", ({"prompt": [{"role": "user", "content": f"问{q}？"}], "chosen": [{"role": "assistant", "content": f"答{q}"}],
                                            "rejected": [{"role": "assistant", "content": f"不知{q}"}]} for q in "甲乙丙丁戊己庚辛"))
    return str(tmp_path / "pairs.jsonl")


def tune(tmp_path, pairs, name="dpo", schedule=None, **fields):
    schedule = Schedule(**{"learning_rate": 1e-2, "epochs": 6, "batch_size": 8, "precision": "fp32", **(schedule or {})})
    return dpo(DpoConfig(**{"model": "new:llama-tiny", "preferences": pairs, "out": str(tmp_path / name), "schedule": schedule, **fields}))


@pytest.mark.parametrize("loss", ["ipo", "kto"])
def test_the_margin_widens(tmp_path, pairs, loss):
    made = tune(tmp_path, pairs, loss=loss)
    rewards, metrics = json.loads((made.path / "report.json").read_text())["rewards"], made.manifest["metrics"]
    assert rewards["margins"][1] > rewards["margins"][0] and metrics["preferred_after"] >= metrics["preferred_before"]
    assert metrics["answer_tokens_before"] > 0 and metrics["answer_tokens_after"] > 0


def test_rewards_are_those_of_the_last_epoch():
    history = [{"step": s, "rewards/margins": m, "rewards/accuracies": a} for s, m, a in ((1, 1.0, .5), (2, 2.0, 1.0), (3, 3.0, 1.0), (4, 9.0, 0.0))]
    history.insert(2, {"step": 2, "eval_loss": 1.0})
    once = _rewards(history, Schedule(batch_size=8), 25)        # 8, 8, 8 rows and one
    assert once == {"margins": [1.0, (8 * 1 + 8 * 2 + 8 * 3 + 9) / 25], "accuracies": [.5, 20 / 25]}
    assert _rewards(history, Schedule(batch_size=8, epochs=2), 32)["margins"] == [1.0, 6.0]
    assert _rewards(history, Schedule(batch_size=8, epochs=4), 64)["margins"] == [1.0, 6.0]      # stopped early: an epoch's rows before that


def test_first_losses_are_the_formulas(tmp_path, pairs):
    write_shape("llama-tiny", tmp_path / "m")
    encoder, model, beta = ChatEncoder(tmp_path / "m"), load_model(tmp_path / "m"), 0.1
    encoded = [Pair(encoder.prompt(r["prompt"]), *([*encoder.text_ids(r[k][0]["content"]), encoder.end_id] for k in ("chosen", "rejected")))
               for _, r in read_preferences(pairs)]
    sums = log_probabilities(model, encoded)
    ratios = [chosen - rejected for chosen, rejected in sums]   # without a reference, the model's own log-probabilities are what is compared
    wide, narrow = ([math.log1p(math.exp(-sign * beta * r)) for r in ratios] for sign in (1, -1))
    expected = {
        "sigmoid": wide, "hinge": [max(0.0, 1 - beta * r) for r in ratios], "robust": [(0.8 * w - 0.2 * n) / 0.6 for w, n in zip(wide, narrow)],
        "ipo": [(c / len(p.chosen_ids) - r / len(p.rejected_ids) - 1 / (2 * beta)) ** 2 for p, (c, r) in zip(encoded, sums)]}
    for name, values in expected.items():
        fields = {"label_smoothing": 0.2} if name == "robust" else {"loss": name}
        made = tune(tmp_path, pairs, name, schedule={"epochs": 1}, reference_free=True, **fields)
        assert json.loads((made.path / "report.json").read_text())["losses"][0][1] == pytest.approx(sum(values) / 8, rel=1e-4), name


def test_a_collapse_of_the_chosen_answers_is_said(caplog):
    pairs = [Pair([1], [2, 3], [4]), Pair([1], [2, 3, 4, 5], [4])]
    metrics = compared(pairs, [(-2.0, -1.0), (-4.0, -5.0)], [(-4.0, -9.0), (-5.0, -9.0)])
    assert metrics == {"preferred_before": 0.5, "preferred_after": 1.0, "chosen_drift": (-1.0 - 0.25) / 2}
    _warn({**metrics, "answer_tokens_before": 3.0, "answer_tokens_after": 4.0}, COLLAPSE)
    assert "log-probability collapsed, -0.62 nats a token" in caplog.messages[-1]


def test_held_out_pairs_are_measured(tmp_path, pairs):
    made = tune(tmp_path, pairs, validation=Validation(share=0.4))
    assert 0 < made.manifest["metrics"]["validation_pairs"] < 8 and "best_step" in made.manifest["metrics"]


def test_preference_settings_that_cannot_be_are_refused(tmp_path, pairs):
    with pytest.raises(ConfigError, match="--loss kto needs an even number of at least 4 answers at once, found 2"):
        tune(tmp_path, pairs, "kto", loss="kto", schedule={"batch_size": 2})
    assert not (tmp_path / "kto").exists()
    for fields, words in (({"schedule": Schedule(micro_batch="auto")}, "micro_batch auto is for sft and pretrain"),
                          ({"validation": Validation(patience=2)}, "--validation.patience needs a --validation.share")):
        with pytest.raises(ConfigError, match=words):
            DpoConfig(model="m", preferences="p", out="o", **fields)
    with pytest.raises(DataError, match="--validation.share 0.001 holds out none of"):
        tune(tmp_path, pairs, "none", validation=Validation(share=0.001))
    with pytest.raises(ConfigError, match="--label_smoothing is a share"):
        DpoConfig(model="m", preferences="p", out="o", loss="ipo", label_smoothing=0.1)
