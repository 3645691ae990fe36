"""Training: what must not change the loss (packing, padding, micro batches, chunks), validation, memory, precision."""

import json
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from zhtune.errors import ConfigError, DataError
from zhtune.records import read_jsonl, write_jsonl

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from zhtune.models.load import load_model
from zhtune.models.shapes import write_shape
from zhtune.stages.dpo import DpoConfig, dpo
from zhtune.stages.sft import SftConfig, sft
from zhtune.templates.encode import ChatEncoder
from zhtune.train import memory, parallel, precision
from zhtune.train.batches import Collator, require_isolation
from zhtune.train.loss import answer_loss
from zhtune.train.samples import Sample, dataset, pack
from zhtune.train.schedule import Launch, Schedule, Validation

TALKS = [("一加一？", "二"), ("二加二？", "四"), ("三加三？", "六"), ("天？", "蓝"), ("海？", "也蓝"), ("草？", "绿的")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_shape("llama-tiny", folder)
    return load_model(folder)


@pytest.fixture
def talks(tmp_path):
    return write_talks(tmp_path / "talks.jsonl", TALKS)


def write_talks(path, talks):
    write_jsonl(path, ({"id": f"r{i}", "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
                       for i, (q, a) in enumerate(talks)))
    return str(path)


def train(tmp_path, records, name, epochs=3, schedule=None, **fields):
    schedule = Schedule(**{"learning_rate": 5e-3, "epochs": epochs, "batch_size": 6, "precision": "fp32", **(schedule or {})})
    return sft(SftConfig(**{"model": "new:llama-tiny", "records": records, "method": "full", "schedule": schedule, "out": str(tmp_path / name), **fields}))


def losses(made, key="losses"):
    return [loss for _, loss in json.loads((made.path / "report.json").read_text())[key]]


def samples():
    generator = torch.Generator().manual_seed(0)
    made = []
    for n in range(5):
        ids = torch.randint(3, 250, (6 + 3 * n,), generator=generator).tolist()
        made.append(Sample(str(n), ids, [i > 2 for i in range(len(ids))]))
    return made


def summed(model, rows, collator=None, most=1 << 26):
    batch = (collator or Collator(0))(dataset(rows, list(range(len(rows)))).to_list())
    return answer_loss(model, model, batch, batch.pop("labels"), nullcontext(), most)


def test_packed_padded_and_chunked_losses_are_the_same(tiny):
    rows = samples()
    one_by_one = sum(summed(tiny, [row]).item() for row in rows)
    assert math.isclose(summed(tiny, rows).item(), one_by_one, rel_tol=1e-6)
    packed = pack(rows, 32)
    assert len(packed) == 2
    for collator in (Collator(0), Collator(0, flat=True)):
        assert math.isclose(summed(tiny, packed, collator).item(), one_by_one, rel_tol=1e-6)
    tiny.zero_grad()
    summed(tiny, rows).backward()
    whole = tiny.model.embed_tokens.weight.grad.clone()
    tiny.zero_grad()
    chunked = summed(tiny, rows, most=7 * tiny.config.vocab_size)       # seven positions at once
    chunked.backward()
    assert math.isclose(chunked.item(), one_by_one, rel_tol=1e-6) and torch.allclose(tiny.model.embed_tokens.weight.grad, whole, atol=1e-6)


def test_batches_have_few_lengths_and_the_model_s_own_loss(tiny):
    row = samples()[1]
    size = len(row.input_ids)
    batch = Collator(0)(dataset([row], [0]).to_list())
    assert size == 9 and batch["input_ids"].tolist() == [row.input_ids + [0] * 7]
    assert batch["attention_mask"].tolist() == [[1] * 9 + [0] * 7] and batch["labels"].tolist() == [[-100] * 3 + row.input_ids[3:] + [-100] * 7]
    own = tiny(input_ids=torch.tensor([row.input_ids]), labels=batch["labels"][:, :size]).loss.item() * (size - 3)
    assert math.isclose(summed(tiny, [row]).item(), own, rel_tol=1e-6)


def test_packed_losses_are_the_same_on_sdpa(tiny):
    rows, before = samples(), tiny.config._attn_implementation
    tiny.set_attn_implementation("sdpa")
    try:
        assert math.isclose(summed(tiny, pack(rows, 32)).item(), summed(tiny, rows).item(), rel_tol=1e-6)
    finally:
        tiny.set_attn_implementation(before)


def test_long_rows_take_fused_attention_and_learn_the_same(tmp_path, talks, monkeypatch):
    from zhtune.train import trainer
    seen, loss = [], trainer.answer_loss
    monkeypatch.setattr(trainer, "answer_loss", lambda model, causal, *rest: seen.append(causal.config._attn_implementation) or loss(model, causal, *rest))
    plain = train(tmp_path, talks, "plain")
    monkeypatch.setattr(trainer, "_FUSED", 8)
    fused = train(tmp_path, talks, "fused")
    assert seen == ["eager"] * (len(seen) // 2) + ["sdpa"] * (len(seen) // 2) and len(seen) >= 4
    assert losses(plain) == pytest.approx(losses(fused), rel=1e-4)


def test_padding_on_the_left_gives_the_same_loss(tiny):
    right = Collator(0)(dataset(samples(), [0, 3, 4]).to_list())
    width = right["input_ids"].shape[1]
    left = {name: torch.stack([row.roll(width - int(mask.sum())) for row, mask in zip(values, right["attention_mask"])]) for name, values in right.items()}
    assert left["attention_mask"][0, 0] == 0
    sums = [answer_loss(tiny, tiny, {k: v for k, v in b.items() if k != "labels"}, b["labels"], nullcontext()).item() for b in (right, left)]
    assert math.isclose(*sums, rel_tol=1e-5)


def test_bloom_cannot_be_packed():
    from transformers import BloomConfig, BloomForCausalLM
    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4)).eval()
    with pytest.raises(ConfigError, match="packed documents see each other in this model .bloom"):
        require_isolation(model)


def test_packed_training_learns_what_unpacked_training_learns(tmp_path, talks):
    apart = train(tmp_path, talks, "apart")
    packed = train(tmp_path, talks, "packed", schedule={"batch_size": 3}, packing=True, max_length=96)      # all samples in a step, either way
    assert packed.manifest["metrics"]["packed_rows"] == 3 and apart.manifest["metrics"]["tokens"] == packed.manifest["metrics"]["tokens"]
    assert losses(apart) == pytest.approx(losses(packed), rel=1e-4)


def test_memory_savers_change_no_loss(tmp_path, talks):
    whole = losses(train(tmp_path, talks, "whole"))
    for number, change in enumerate(({"micro_batch": 2, "gradient_checkpointing": True}, {"micro_batch": "auto"})):
        assert losses(train(tmp_path, talks, f"saved{number}", schedule=change)) == pytest.approx(whole, rel=1e-5)


def test_lora_learns_with_gradient_checkpointing(tmp_path, talks):
    made = losses(train(tmp_path, talks, "lora", epochs=6, method="lora", schedule={"gradient_checkpointing": True, "learning_rate": 2e-2}))
    assert made[-1] < made[0] - 0.2


def test_the_checkpoint_with_the_lowest_validation_loss_is_kept_and_training_stops(tmp_path, talks):
    made = train(tmp_path, talks, "best", epochs=40, schedule={"learning_rate": 2e-2, "checkpoints": 13}, validation=Validation(patience=2),
                 validation_records=write_talks(tmp_path / "v.jsonl", [("云？", "白的")]))
    metrics, curve = made.manifest["metrics"], json.loads((made.path / "report.json").read_text())["validation"]
    best = min(curve, key=lambda point: point[1])
    assert [metrics["best_step"], metrics["best_validation_loss"]] == best and metrics["steps"] == curve[-1][0] < 40
    assert len(curve) - 1 - curve.index(best) == 2 and not (made.path / "checkpoints").exists()     # two measurements without a better one
    encoded = ChatEncoder(made.path).sample([{"role": "user", "content": "云？"}, {"role": "assistant", "content": "白的"}])
    row = Sample("v", encoded.ids, encoded.mask)            # what is saved is that checkpoint
    assert summed(load_model(made.path), [row]).item() / sum(row.loss_mask) == pytest.approx(metrics["best_validation_loss"], rel=1e-5)


def test_a_validation_set_that_is_the_training_set_is_refused(tmp_path, talks):
    with pytest.raises(DataError, match="all 6 validation records ask what the training records ask"):
        train(tmp_path, talks, "same", validation_records=talks)
    assert not (tmp_path / "same").exists()
    mixed = train(tmp_path, talks, "mixed", samples_only=True, validation_records=write_talks(tmp_path / "v.jsonl", [*TALKS[:2], ("云？", "白")]))
    assert mixed.manifest["counts"] == {"in": 9, "kept": 7, "dropped": {"validation_in_training": 2}}
    shared = train(tmp_path, talks, "shared", samples_only=True, validation=Validation(share=0.5))
    rows = [row["id"] for _, row in read_jsonl(shared.path / "samples.jsonl")]
    assert len(rows) + shared.manifest["metrics"]["validation_records"] == 6 and 0 < len(rows) < 6


def test_a_run_shows_its_first_batch_and_leaves_a_page_and_a_log(tmp_path, talks, caplog):
    with caplog.at_level("INFO", logger="zhtune"):
        made = train(tmp_path, talks, "page", neftune=5.0)
    assert any("first of the first batch" in message and "【二<|im_end|>】" in message for message in caplog.messages)
    page = (made.path / "report.html").read_text()
    assert "第一批样本" in page and "【也蓝&lt;|im_end|&gt;】" in page and "<svg" in page
    steps = [row for _, row in read_jsonl(made.path / "logs" / "steps.jsonl")]
    assert [row["step"] for row in steps if "loss" in row] == [1, 2, 3]
    assert losses(made) != losses(train(tmp_path, talks, "still"))      # the noise is there


def test_noise_resumes_exactly(tmp_path, talks, monkeypatch):
    from zhtune.train import finetune
    whole = train(tmp_path, talks, "whole", epochs=8, neftune=5.0)
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, talks, "cut", epochs=8, neftune=5.0)
    last = max((tmp_path / "cut.partial" / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    (last / "whole.json").unlink()
    assert losses(train(tmp_path, talks, "cut", epochs=8, neftune=5.0)) == losses(whole)


def test_precision_follows_the_card():
    turing, ampere, old, new = (precision.Device(*d) for d in (
        (True, False, "NVIDIA GeForce RTX 2080 Ti (capability 7.5)"), (True, True, "A100"), (False, False, "cpu"), (False, True, "cpu")))
    assert [precision.choose("auto", d) for d in (turing, ampere, old, new)] == ["fp16", "bf16", "fp32", "bf16"]
    with pytest.raises(ConfigError, match="RTX 2080 Ti .capability 7.5. has no bf16; use fp16"):
        precision.choose("bf16", turing)
    with pytest.raises(ConfigError, match="fp16 needs a CUDA card"):
        precision.choose("fp16", new)


def test_frozen_matrices_are_halved_and_what_is_trained_or_a_norm_is_not(tmp_path):
    from peft import LoraConfig, get_peft_model
    write_shape("llama-tiny", tmp_path)
    model = get_peft_model(load_model(tmp_path), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    precision.halve_frozen(model, "fp16")
    kinds = {name: p.dtype for name, p in model.named_parameters()}
    assert all(kind == torch.float32 for name, kind in kinds.items() if "lora_" in name or "norm" in name)
    assert all(kind == torch.float16 for name, kind in kinds.items() if "base_layer" in name or "embed_tokens" in name)
    full = load_model(tmp_path)
    precision.halve_frozen(full, "fp16")
    assert all(p.dtype == torch.float32 for p in full.parameters())


@pytest.fixture
def as_on_a_card(monkeypatch):
    """Weights are stored and computed as on a card with bf16, on the processor."""
    from zhtune.train import trainer
    monkeypatch.setattr(trainer, "this_device", lambda: precision.Device(True, True, "a card"))
    monkeypatch.setattr(trainer, "_set_attention", lambda model, precision: trainer.fuse_attention(model))
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)


def test_adapters_over_halved_weights_pack_and_prefer_as_on_a_card(tmp_path, talks, as_on_a_card):
    made = train(tmp_path, talks, "packed", method="lora", packing=True, max_length=64, schedule={"precision": "auto"})
    assert made.manifest["metrics"]["packed_rows"] == 5 and made.manifest["metrics"]["last_loss"] < made.manifest["metrics"]["first_loss"]
    write_jsonl(tmp_path / "pairs.jsonl", ({"prompt": [{"role": "user", "content": q}], "chosen": [{"role": "assistant", "content": a}],
                                            "rejected": [{"role": "assistant", "content": "不知道"}]} for q, a in TALKS))
    schedule = Schedule(learning_rate=1e-2, epochs=4, batch_size=6)
    made = dpo(DpoConfig(model="new:llama-tiny", preferences=str(tmp_path / "pairs.jsonl"), schedule=schedule, out=str(tmp_path / "dpo")))
    assert made.manifest["metrics"]["margin"] > 0 and made.manifest["metrics"]["answer_tokens_after"] > 0
    assert sorted(p.name for p in made.path.iterdir() if p.is_dir()) == ["logs"]       # no copy of an untrained adapter


def test_one_process_trains_on_one_card_and_tells_nobody(tmp_path, talks, monkeypatch):
    from huggingface_hub.utils import _telemetry
    from transformers import TrainingArguments

    from zhtune.train import trainer
    monkeypatch.setattr(_telemetry, "_start_telemetry_thread", lambda: pytest.fail("a library tells its makers"))
    count = [4]                                             # a machine with four cards
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: count[0]))
    monkeypatch.setattr(TrainingArguments, "_n_gpu", property(lambda self: count[0], lambda self, cards: count.__setitem__(0, cards or count[0])), raising=False)
    seen, arguments = [], trainer.arguments
    monkeypatch.setattr(trainer, "arguments", lambda *given: seen.append((arguments(*given), count[0])) or seen[-1][0])
    train(tmp_path, talks, "o", epochs=1)
    assert [(args.n_gpu, args.train_batch_size, cards) for args, cards in seen] == [(1, 6, 1)]


def test_the_micro_batch_is_measured_with_checkpointing_and_leaves_no_autocast_behind(tmp_path, talks, monkeypatch):
    from zhtune.train import loss, trainer
    found = {}
    for checkpointing in (False, True):
        monkeypatch.setattr(trainer, "find_micro_batch", lambda loss_of, model, *_, key=checkpointing: found.setdefault(
            key, memory._saved_bytes(loss_of, model, 6)) and 6)
        train(tmp_path, talks, f"o{checkpointing}", epochs=1, schedule={"micro_batch": "auto", "gradient_checkpointing": checkpointing})
    assert found[True] < found[False] / 2
    monkeypatch.setattr(loss, "LOGITS", 1)                  # every answer in chunks
    monkeypatch.setattr(loss.answer_loss, "__defaults__", (1,))
    train(tmp_path, talks, "chunks", epochs=1, schedule={"micro_batch": "auto", "precision": "auto"})
    assert not torch.is_autocast_enabled("cpu")


def test_the_micro_batch_that_fits_and_what_to_do_when_none_does(tiny):
    row = samples()[4]

    def loss_of(count):
        return summed(tiny, [row] * count)
    one, two, three = (memory._saved_bytes(loss_of, tiny, n) for n in (1, 2, 3))
    assert one > 0 and three - two == pytest.approx(two - one, rel=0.01)
    fixed = memory.state_bytes(tiny, "adamw")
    assert fixed == 12 * sum(p.numel() for p in tiny.parameters())
    assert memory.find_micro_batch(loss_of, tiny, "adamw", 12, 1 << 40) == 12
    assert memory.find_micro_batch(loss_of, tiny, "adamw", 12, fixed + int(5.5 * 1.25 * (two - one))) == 4      # of 1, 2, 3, 4, 6, 12
    def only_one(count):
        return loss_of(count) if count == 1 else (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
    assert memory.find_micro_batch(only_one, tiny, "adamw", 12, 1 << 40) == 1
    with pytest.raises(ConfigError, match=r"one sample needs .* GiB, 0.00 GiB are free.*a shorter --max_length.*--method lora"):
        memory.find_micro_batch(loss_of, tiny, "adamw", 12, 1)


def test_running_out_of_memory_is_answered_with_numbers(tiny):
    with pytest.raises(ConfigError, match="out of memory at 8 samples at once: .*allocate.*--schedule.micro_batch 4, --schedule.gradient_checkpointing true"):
        with memory.in_words(tiny, "adamw", 8):
            torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="must match the size"):
        with memory.in_words(tiny, "adamw", 8):
            torch.zeros(2) + torch.zeros(3)


def test_an_engine_that_was_not_asked_for_is_refused(monkeypatch):
    def accelerator(kind, processes=1, stage=None):
        plugin = SimpleNamespace(zero_stage=stage)
        return SimpleNamespace(distributed_type=SimpleNamespace(name=kind), num_processes=processes, state=SimpleNamespace(deepspeed_plugin=plugin))
    parallel.require_strategy(accelerator("NO"), "")
    with pytest.raises(ConfigError, match="DEEPSPEED was asked for and MULTI_CPU runs"):
        parallel.require_strategy(accelerator("MULTI_CPU"), "zero3")
    with pytest.raises(ConfigError, match="FSDP was asked for and NO runs"):
        parallel.require_strategy(accelerator("NO"), "fsdp2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="DEEPSPEED was asked for and NO runs"):
        parallel.require_strategy(accelerator("NO"), "")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes were started and DEEPSPEED knows of 1"):
        parallel.require_strategy(accelerator("DEEPSPEED", 1, 2), "")
    with pytest.raises(ConfigError, match="--schedule.batch_size 3 is over all processes and 2 of them do not divide it"):
        parallel.share_of_batch(Schedule(batch_size=3))
    assert parallel.share_of_batch(Schedule(batch_size=12, micro_batch=3)) == (6, 3)


def test_strategies_are_the_shipped_files_or_a_file(tmp_path):
    assert parallel.settings("") == {} and parallel.settings("fsdp2")["fsdp_config"]["version"] == 2
    with pytest.raises(ConfigError, match="--launch.strategy zero9: no such file; shipped are fsdp2, zero2, zero3, zero3_offload"):
        parallel.settings("zero9")


def test_an_engine_that_the_machine_drops_is_refused_before_training(tmp_path, talks):
    with pytest.raises(ConfigError, match="FSDP was asked for with 1 process without CUDA cards"):
        train(tmp_path, talks, "fsdp", launch=Launch(strategy="fsdp2"))
    assert not (tmp_path / "fsdp").exists()
