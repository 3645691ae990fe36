"""Adapters on tiny models of each family: gradients, padding, checkpointing, save and load, merging, what is refused."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from shared_cases import CASES, make

from zhtune import references
from zhtune.errors import ArtifactError, ConfigError, DataError
from zhtune.records import read_jsonl, write_jsonl
from zhtune.references import Source

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from zhtune.models.engine import Sampling
from zhtune.models.families import family_of
from zhtune.models.load import load_chain, load_model
from zhtune.models.open import open_engine
from zhtune.models.prefix import Prefix, key_shape, published_tensors
from zhtune.models.shapes import SHAPES, write_shape
from zhtune.stages.generate import GenerateConfig, generate
from zhtune.stages.merge import MergeConfig, merge
from zhtune.stages.quantize import QuantizeConfig, quantize
from zhtune.stages.sft import SftConfig, sft
from zhtune.train import adapter as adapters
from zhtune.train.adapter import Lora, Tuning
from zhtune.train.adapter import Prefix as PrefixOptions
from zhtune.train.parallel import divides_weights
from zhtune.train.schedule import Launch, Schedule

FAMILIES = sorted(name.removesuffix("-tiny") for name in SHAPES if name.endswith("-tiny"))
IDS = torch.tensor([[9, 200, 7, 31, 90, 5, 77, 60], [50, 51, 52, 53, 54, 55, 56, 57]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0], [1] * 8])
SMALL = Tuning(prefix=PrefixOptions(tokens=5, dropout=0.0), prompt_tokens=3, bottleneck=6, layers=1)
METHODS = ("lora", "rslora", "dora", "ia3", "p-tuning-v2", "projection", "p-tuning", "prompt-tuning", "bottleneck", "freeze")
# Every family with every method, but what the table of families refuses (ChatGLM reads positions from ids).
PAIRS = [(f, m) for f in FAMILIES for m in METHODS if (f, m) not in (("chatglm", "p-tuning"), ("chatglm", "prompt-tuning"))]


@cache
def folder_of(family: str) -> Path:
    import tempfile
    folder = Path(tempfile.mkdtemp(prefix="zhtune-test-"))
    write_shape(f"{family}-tiny", folder)
    return folder


@cache
def pristine(family: str) -> Any:
    return load_model(folder_of(family))


@cache
def bare_logits(family: str) -> Any:
    return logits(pristine(family))


def fresh(family: str, quantized: str = "") -> Any:
    """A model of its own to change; a copy takes a third of the time of loading."""
    return load_model(folder_of(family), quantized=quantized) if quantized else copy.deepcopy(pristine(family))


def adapted(family: str, method: str, model: Any = None, tuning: Tuning = SMALL) -> Any:
    """A tiny model with an adapter whose weights have been moved off their start (zeros) by two steps."""
    model = model or fresh(family)
    lora = Lora(rank=4, rslora=method == "rslora", dora=method == "dora")
    if method == "projection":
        tuning = Tuning(prefix=PrefixOptions(tokens=5, projection=True, dropout=0.0))
    if method == "freeze":
        model = adapters.last_layers(model, 1)
    else:
        real = {"dora": "lora", "rslora": "lora", "projection": "p-tuning-v2"}.get(method, method)
        model = adapters.adapt(model, family_of(folder_of(family)), real, lora, tuning, seed=1)
    step(model)
    step(model)
    return model.eval()


def step(model: Any, rate: float = .02) -> dict[str, Any]:
    """One step of training; returns the gradients of everything that is trained."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    model.zero_grad()
    model.train()(input_ids=IDS, attention_mask=MASK, labels=IDS.masked_fill(MASK == 0, -100)).loss.backward()
    gradients = {name: weight.grad for name, weight in trained.items()}
    with torch.no_grad():
        for name, weight in trained.items():
            weight -= rate * gradients[name].sign() if rate else 0
    return gradients


def logits(model: Any, ids: Any = IDS, mask: Any = MASK, **more: Any) -> Any:
    with torch.inference_mode():
        return model.eval()(input_ids=ids, attention_mask=mask, **more).logits


def saved(model: Any, family: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    adapters.save_adapter(model, folder, folder, Source("base", "file", "", folder_of(family)))
    return folder


def loaded(folder: Path, scratch: Path) -> Any:
    return load_chain(references.resolve(str(folder)), scratch)[0]


@pytest.mark.parametrize(("family", "method"), PAIRS)
def test_gradients_padding_and_reload(family: str, method: str, tmp_path: Path):
    model = adapted(family, method)
    before = bare_logits(family)
    gradients = step(model)
    assert gradients and all(g is not None and g.abs().sum() > 0 for g in gradients.values()), [n for n, g in gradients.items() if g is None]
    expected = logits(model)
    assert not torch.allclose(expected[0, :5], before[0, :5], atol=1e-3)
    left = torch.tensor([[0, 0, 0, *IDS[0, :5]], IDS[1].tolist()])
    mask = MASK.flip(1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    if family != "chatglm":                                 # see its own test: its positions are two
        padded = logits(model, left, mask, position_ids=positions)
        assert torch.allclose(padded[0, 3:], expected[0, :5], atol=2e-5) and torch.allclose(padded[1], expected[1], atol=2e-5)
    if method != "freeze":
        again = loaded(saved(model, family, tmp_path / "adapter"), tmp_path / "scratch")
        assert torch.allclose(logits(again)[MASK == 1], expected[MASK == 1], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["p-tuning-v2", "projection", "p-tuning", "bottleneck"])
def test_checkpointing_of_both_kinds_changes_no_gradient(family: str, method: str):
    if family == "chatglm" and method == "p-tuning":
        pytest.skip("refused: ChatGLM reads positions from ids")
    model = adapted(family, method)
    expected = step(model, rate=0)
    for reentrant in (True, False):
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        found = step(model, rate=0)
        assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("bloom", "chatglm")])
def test_a_prefix_is_keys_and_values_in_front_and_positions_stay(family: str):
    """Against transformers' own cache, filled with the same keys and values, and the tokens still at 0, 1, 2 …"""
    model = adapted(family, "p-tuning-v2")
    plain, cache = fresh(family), transformers.DynamicCache()
    for index in range(model.config.num_hidden_layers):
        cache.update(*model.part.layer(index, 1, torch.zeros(1)), index)
    positions = torch.arange(8)[None]
    expected = logits(plain, IDS[1:], torch.ones(1, 13), position_ids=positions, cache=cache)
    assert torch.allclose(logits(model, IDS[1:], torch.ones(1, 8)), expected, atol=1e-5)


def test_blooms_prefix_is_pefts():
    model = adapted("bloom", "p-tuning-v2")
    theirs = peft.get_peft_model(fresh("bloom"), peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"))
    theirs.prompt_encoder.default.embedding.weight.data.copy_(model.part.embedding.weight)
    assert torch.allclose(logits(model)[MASK == 1], logits(theirs)[MASK == 1], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["p-tuning-v2", "prompt-tuning", "bottleneck"])
def test_generate_with_and_without_cache_and_one_by_one(family: str, method: str):
    if family == "chatglm" and method == "prompt-tuning":
        pytest.skip("refused: ChatGLM reads positions from ids")
    model = adapted(family, method)
    ids, mask = (torch.tensor([[2, 2, 9, 200, 3], [50, 51, 52, 53, 3]]), torch.tensor([[0, 0, 1, 1, 1], [1] * 5]))
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    together = model.generate(input_ids=ids, attention_mask=mask, **settings)[:, 5:]
    assert torch.equal(model.generate(input_ids=ids, attention_mask=mask, use_cache=False, **settings)[:, 5:], together)
    for row in range(2):
        one = ids[row:row + 1, mask[row] == 1]
        assert torch.equal(model.generate(input_ids=one, attention_mask=torch.ones_like(one), **settings)[0, one.shape[1]:], together[row])
    with model.disable_adapter():
        bare = model.generate(input_ids=ids, attention_mask=mask, **settings)[:, 5:]
    assert torch.equal(bare, fresh(family).generate(input_ids=ids, attention_mask=mask, **settings)[:, 5:])


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize(("file", "names"), [("pytorch_model.bin", "transformer.prefix_encoder."), ("model.safetensors", "")])
def test_thudms_checkpoints_are_read_and_resumed(projected: bool, file: str, names: str, tmp_path: Path):
    """embedding alone, or ChatGLM2's embedding (keys wide) -> trans.0 -> tanh -> trans.2, worked out by hand."""
    torch.manual_seed(3)
    model = fresh("glm")
    layers, heads, width = key_shape(model.config)
    size = 2 * layers * heads * width
    tensors = {"embedding.weight": torch.randn(4, size)}
    whole = tensors["embedding.weight"]
    if projected:
        tensors |= {"trans.0.weight": torch.randn(20, size), "trans.0.bias": torch.randn(20), "trans.2.weight": torch.randn(size, 20),
                    "trans.2.bias": torch.randn(size)}
        whole = torch.tanh(whole @ tensors["trans.0.weight"].T + tensors["trans.0.bias"]) @ tensors["trans.2.weight"].T + tensors["trans.2.bias"]
    tensors = {names + name: tensor.half() for name, tensor in tensors.items()}
    if file.endswith(".bin"):
        torch.save(tensors, tmp_path / file)
    else:
        from safetensors.torch import save_file
        save_file(tensors, tmp_path / file)
    part = Prefix.from_tensors(model, published_tensors(tmp_path))
    key, value = part.layer(1, 2, torch.zeros(1))
    expected = whole.view(4, layers, 2, heads, width)
    assert torch.allclose(key[1], expected[:, 1, 0].transpose(0, 1), atol=.1) and torch.allclose(value[0], expected[:, 1, 1].transpose(0, 1), atol=.1)
    with pytest.raises(ConfigError, match=r"its prefix holds 128 numbers a token, this model's 2 layers of 4 heads of 16 need 256"):
        Prefix.from_tensors(fresh("bloom"), published_tensors(tmp_path))


def test_a_checkpoint_that_would_run_code_is_not_read(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)
    torch.save({"embedding.weight": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model.bin: "):
        published_tensors(tmp_path)
    with pytest.raises(ConfigError, match="no prefix among its tensors"):
        Prefix.from_tensors(fresh("llama"), {"lm_head.weight": torch.ones(1)})


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_peft_reads_a_prompt_of_ours_and_we_read_peft(family: str, tmp_path: Path):
    model = adapted(family, "p-tuning")
    folder = saved(model, family, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(fresh(family), str(folder))
    ones = torch.ones_like(IDS)
    assert torch.allclose(logits(theirs, mask=ones)[:, 3:], logits(model, mask=ones), atol=1e-5)
    tuned = peft.get_peft_model(fresh(family), peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    tuned.peft_config["default"].base_model_name_or_path = str(folder_of(family))
    tuned.save_pretrained(tmp_path / "theirs")
    assert torch.allclose(logits(loaded(tmp_path / "theirs", tmp_path / "scratch"), mask=ones), logits(tuned, mask=ones)[:, 4:], atol=1e-5)


@pytest.mark.parametrize(("family", "method"), [("llama", "lora"), ("bloom", "lora"), ("glm", "rslora"), ("qwen3", "dora"), ("gemma", "ia3")])
def test_merged_equals_unmerged(family: str, method: str, tmp_path: Path):
    model = adapted(family, method)
    made = merge(MergeConfig(adapter=str(saved(model, family, tmp_path / "adapter")), out=str(tmp_path / "merged")))
    assert torch.allclose(logits(load_model(made.path))[MASK == 1], logits(model)[MASK == 1], atol=1e-4)
    assert made.manifest["metrics"]["adapters"] == 1 and (made.path / "tokenizer.json").exists()
    targets = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert len(targets) > 2 and targets == sorted(targets)  # PEFT writes a set: in another order in another process


@pytest.mark.parametrize("method", ["p-tuning-v2", "prompt-tuning", "bottleneck"])
def test_what_cannot_be_merged_is_refused_before_weights_are_loaded(method: str, tmp_path: Path, talks: str):
    folder = saved(adapted("llama", method), "llama", tmp_path / "adapter")
    (folder / "adapter_model.safetensors").write_bytes(b"never read")
    for verb in (lambda out: merge(MergeConfig(adapter=str(folder), out=out)), lambda out: quantize(QuantizeConfig(model=str(folder), out=out)),
                 lambda out: sft(SftConfig(model=str(folder), records=talks, out=out))):
        with pytest.raises(ConfigError, match="cannot be folded into its weights, so neither merge, quantize nor further training"):
            verb(str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("fields", "says"), [
    ({"method": "full", "tuning": Tuning(quantize="nf4")}, "--method full trains the weights themselves, which must not be quantized"),
    ({"method": "freeze", "tuning": Tuning(layers=9)}, "--tuning.layers 9: the model has 2"),
    ({"lora": Lora(new_rows=True)}, "--lora.new_rows: the model was not extended by zhtune"),
    ({"method": "p-tuning-v2", "start": "EMPTY"}, r"holds no weights: expected \*.safetensors or pytorch_model\*.bin")])
def test_impossible_settings_are_refused_in_words(fields: dict[str, Any], says: str, tmp_path: Path, talks: str):
    if "start" in fields:
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "readme").write_text("no weights")
        fields = {**fields, "start": str(tmp_path / "empty")}
    with pytest.raises(ConfigError, match=says):
        sft(SftConfig(model="new:llama-tiny", records=talks, out=str(tmp_path / "out"), **fields))
    with pytest.raises(ConfigError, match="--start is a prefix for --method p-tuning-v2, not for lora"):
        SftConfig(model="x", records="y", out="z", start="w")


@pytest.mark.parametrize(("method", "strategy", "variables", "engine"), [
    ("p-tuning-v2", "zero3", {}, "ZeRO-3"), ("bottleneck", "zero3_offload", {}, "ZeRO-3"), ("p-tuning", "fsdp2", {}, "FSDP"),
    ("prompt-tuning", "", {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "ZeRO-3"),
    ("bottleneck", "", {"ACCELERATE_USE_FSDP": "true"}, "FSDP")])
def test_divided_weights_are_refused_before_any_are_loaded(method: str, strategy: str, variables: dict[str, str], engine: str, tmp_path: Path,
                                                           talks: str, monkeypatch: Any):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(folder_of("llama"), tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(ConfigError, match=f"--method {method} with {engine}, which leaves each process a part .* take --launch.strategy zero2"):
        sft(SftConfig(model=str(tmp_path / "base"), records=talks, method=method, launch=Launch(strategy=strategy), out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists() and not divides_weights("zero2")


@pytest.mark.parametrize(("family", "method", "says"), [
    ("bloom", "lora", "packing of a bloom model: its ALiBi counts positions across the documents of a block; leave out --packing"),
    ("chatglm", "lora", "packing of a chatglm-6b model: its mask and positions belong to one conversation"),
    ("chatglm", "p-tuning", "p-tuning of a chatglm-6b model: it reads mask and positions from token ids"),
    ("llama", "p-tuning", "p-tuning puts its prompt in front of a row, not of each document in it; leave out --packing")])
def test_packing_and_prompts_are_refused_where_they_cannot_be(family: str, method: str, says: str, tmp_path: Path, talks: str):
    with pytest.raises(ConfigError, match=says):
        sft(SftConfig(model=f"new:{family}-tiny", records=talks, method=method, packing=True, max_length=96, out=str(tmp_path / "out")))


def test_the_trainer_leaves_a_prefix_its_attention(monkeypatch: Any):
    from zhtune.train.trainer import _set_attention
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    plain, model = fresh("llama"), adapted("llama", "p-tuning-v2")
    _set_attention(plain, "bf16")
    _set_attention(model, "bf16")
    assert (plain.config._attn_implementation, model.config._attn_implementation) == ("sdpa", "zhtune_prefix")


def test_memory_savers_packing_and_validation_with_a_prefix(tmp_path: Path, talks: str):
    def run(name: str, rows: str = talks, **fields: Any) -> dict[str, Any]:
        schedule = Schedule(**{"learning_rate": 3e-2, "epochs": 6, "batch_size": 3, "checkpoints": 3, "precision": "fp32", **fields.pop("schedule", {})})
        made = sft(SftConfig(model="new:llama-tiny", records=rows, method="p-tuning-v2", out=str(tmp_path / name), schedule=schedule, max_length=96,
                             tuning=Tuning(prefix=PrefixOptions(tokens=4, dropout=0.0)), **fields))
        return json.loads((made.path / "report.json").read_text()) | {"path": made.path, "metrics": made.manifest["metrics"]}
    whole = run("whole")                                     # three samples a step; packed they are two rows
    for name, fields in {"saved": {"schedule": {"gradient_checkpointing": True, "micro_batch": 1}}, "packed": {"packing": True, "schedule": {"batch_size": 2}}}.items():
        assert [loss for _, loss in run(name, **fields)["losses"]] == pytest.approx([loss for _, loss in whole["losses"]], rel=1e-4)
    best = run("best", validation_records=talks_of(tmp_path / "v.jsonl", [("云？", "白")]))
    assert best["metrics"]["best_validation_loss"] == min(loss for _, loss in best["validation"])


def test_an_adapter_that_does_not_fit_says_so(tmp_path: Path):
    folder = saved(adapted("llama", "p-tuning-v2"), "llama", tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(folder_of("bloom"))}))
    with pytest.raises(ArtifactError, match="does not fit its base: its prefix holds 128 numbers a token"):
        loaded(folder, tmp_path / "scratch")
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "../gone"}))
    with pytest.raises(ArtifactError, match=r"says that its base is '../gone', and no model lies there; say where it is with --base"):
        loaded(folder, tmp_path / "scratch")
    (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "XLORA"}))
    with pytest.raises(ConfigError, match="is a XLORA adapter, which zhtune does not read"):
        loaded(folder, tmp_path / "scratch")


def talks_of(path: Path, rows: list[tuple[str, str]]) -> str:
    write_jsonl(path, ({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in rows))
    return str(path)


@pytest.fixture
def talks(tmp_path: Path) -> str:
    return talks_of(tmp_path / "talks.jsonl", [("一加一？", "二"), ("二加二？", "四"), ("天？", "蓝")])


def test_a_prefix_trains_resumes_answers_and_can_be_switched_off_for_one_request(tmp_path: Path, talks: str, monkeypatch: Any):
    """Through the stage: an interrupted run ends with the same bytes, the artifact names its base, engines read it."""
    def run(name: str) -> Any:
        return sft(SftConfig(model="new:llama-tiny", records=talks, method="p-tuning-v2", out=str(tmp_path / name),
                             tuning=Tuning(prefix=PrefixOptions(tokens=8, projection=True)),
                             schedule=Schedule(learning_rate=2e-2, epochs=24, batch_size=3, checkpoints=3, precision="fp32")))
    whole = run("whole")
    assert whole.kind == "adapter" and whole.manifest["resolved"]["base"] == "new:llama-tiny"
    assert whole.manifest["metrics"]["last_loss"] < .95 * whole.manifest["metrics"]["first_loss"]
    from zhtune.train import finetune

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    newest = max((tmp_path / "cut.partial" / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    assert (newest / "model.safetensors").stat().st_size < 2**20  # the prefix alone, with its projection
    (newest / "model.safetensors").write_bytes(b"torn")
    assert run("cut").digest == whole.digest
    engine, base = (open_engine(references.resolve(r)) for r in (str(whole.path), "new:llama-tiny"))
    ask = [[{"role": "user", "content": "天？"}]]
    on, off, on_again = (engine.generate(ask, Sampling(max_tokens=8, adapter=a)) for a in (True, False, True))
    assert on == on_again != off == base.generate(ask, Sampling(max_tokens=8))
    with pytest.raises(ConfigError, match="new:llama-tiny has no adapter of its own beside its weights that an answer could leave out"):
        base.generate(ask, Sampling(adapter=False))


@pytest.mark.parametrize("method", ["lora", "ia3", "p-tuning-v2", "prompt-tuning", "bottleneck"])
def test_a_prompt_is_answered_without_the_adapter_where_it_says_so(method: str, tmp_path: Path):
    taught = adapted("qwen3", method)
    for _ in range(8):                                      # until its answers are others than the base's
        step(taught, rate=.2)
    model = str(saved(taught.eval(), "qwen3", tmp_path / "adapter"))
    write_jsonl(tmp_path / "p.jsonl", [{"id": "as said", "prompt": "天？"}, {"id": "with", "prompt": "天？", "adapter": True},
                                       {"id": "without", "prompt": "天？", "adapter": False}])
    answers = []
    for reference in (model, str(folder_of("qwen3"))):
        with closing(open_engine(references.resolve(reference))) as engine:
            answers += [reply.text for reply in engine.generate([[{"role": "user", "content": "天？"}]], Sampling(max_tokens=8))]
    with_it, bare = answers
    for flag in (False, True):
        made = generate(GenerateConfig(model=model, prompts=str(tmp_path / "p.jsonl"), max_tokens=8, without_adapter=flag, out=str(tmp_path / f"out{flag}")))
        rows = {row["id"]: row for _, row in read_jsonl(made.path / "records.jsonl")}
        assert [rows[i]["messages"][1]["content"] for i in ("as said", "with", "without")] == [bare if flag else with_it, with_it, bare] != [bare] * 3
        assert rows["without"]["source"]["adapter"] is False and "adapter" not in rows["with"]["source"]


def test_what_holds_one_set_of_weights_refuses_to_leave_an_adapter_out(tmp_path: Path):
    (tmp_path / "p.txt").write_text("天？", "utf-8")
    (tmp_path / "model.gguf").write_bytes(b"never read")
    shutil.copytree(folder_of("llama"), tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"never read")
    for name in ("model.gguf", "base"):
        with pytest.raises(ConfigError, match=f"{name} has no adapter of its own beside its weights that an answer could leave out"):
            generate(GenerateConfig(model=str(tmp_path / name), prompts=str(tmp_path / "p.txt"), without_adapter=True, out=str(tmp_path / "out")))
        assert not (tmp_path / "out").exists()
    merged = saved(adapted("llama", "lora"), "llama", tmp_path / "adapter")
    ask = [{"role": "user", "content": "天？"}]
    with closing(open_engine(references.resolve(str(merged)))) as engine, pytest.raises(ConfigError, match="keep a LoRA there with --apart true"):
        engine.generate([ask], Sampling(adapter=False))
    with closing(open_engine(references.resolve(str(merged)), apart=True)) as engine:
        *_, whole = engine.stream(ask, Sampling(max_tokens=8, adapter=False))
        assert whole == engine.generate([ask], Sampling(max_tokens=8, adapter=False))[0] != engine.generate([ask], Sampling(max_tokens=8))[0]


def test_a_prompt_takes_room_of_the_context(tmp_path: Path, talks: str):
    def run(length: int) -> Any:
        return sft(SftConfig(model="new:llama-tiny", records=talks, method="prompt-tuning", out=str(tmp_path / "prompt"), max_length=length))
    with pytest.raises(ConfigError, match="--max_length with the prompt 513 is beyond the model's context of 512 tokens"):
        run(493)
    assert open_engine(references.resolve(str(run(492).path))).context == 492


@pytest.mark.parametrize("method", ["qlora", "ia3"])
def test_dpo_on_a_quantized_base_and_by_ia3(method: str, tmp_path: Path):
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    from zhtune.stages.dpo import DpoConfig, dpo
    pairs = tmp_path / "pairs.jsonl"
    write_jsonl(pairs, ({"prompt": [{"role": "user", "content": q}], "chosen": [{"role": "assistant", "content": a}],
                         "rejected": [{"role": "assistant", "content": "错"}]} for q, a in (("一加一？", "二"), ("天？", "蓝"))))
    made = dpo(DpoConfig(model="new:llama-tiny", preferences=str(pairs), method=method, out=str(tmp_path / "dpo"),
                         schedule=Schedule(learning_rate=2e-2, epochs=15, batch_size=2, precision="fp32")))
    assert made.manifest["metrics"]["accuracy"] == 1.0 and made.manifest["metrics"]["margin"] > 0
    assert merge(MergeConfig(adapter=str(made.path), out=str(tmp_path / "merged"))).kind == "model"


def test_a_finished_prefix_is_a_start(tmp_path: Path, talks: str):
    def run(name: str, start: str = "") -> Any:
        return sft(SftConfig(model="new:qwen3-tiny", records=talks, method="p-tuning-v2", out=str(tmp_path / name), start=start,
                             tuning=Tuning(prefix=PrefixOptions(tokens=4, dropout=0.0)),
                             schedule=Schedule(learning_rate=1e-1, epochs=40, batch_size=3, precision="fp32")))
    first = run("first")
    second = run("second", str(first.path))
    before, after = first.manifest["metrics"], second.manifest["metrics"]
    assert after["first_loss"] == pytest.approx(before["last_loss"], rel=.05) and before["last_loss"] < .9 * before["first_loss"]


@pytest.mark.parametrize(("family", "quantized", "method"), [*((f, "nf4", "lora") for f in FAMILIES), ("glm", "int8", "ia3"),
                                                             ("qwen3", "nf4", "p-tuning-v2"), ("bloom", "int8", "p-tuning-v2"), ("llama", "nf4", "dora")])
def test_a_quantized_base_trains_again_after_it_was_evaluated(family: str, quantized: str, method: str, tmp_path: Path):
    """bitsandbytes on AVX512-BF16: after one evaluation layer 0 would get no gradient, or its bias an in-place error."""
    pytest.importorskip("bitsandbytes")
    base = fresh(family, quantized)
    kinds = {type(m).__name__ for m in base.modules()}
    assert ("Linear4bit" if quantized == "nf4" else "Linear8bitLt") in kinds
    model = adapted(family, method, base)
    logits(model)
    gradients = step(model)
    assert all(g is not None and g.abs().sum() > 0 for g in gradients.values())
    # the adapter is read on the full-precision base: near what it was trained on
    again = loaded(saved(model, family, tmp_path / "adapter"), tmp_path / "scratch")
    assert (logits(again) - logits(model))[MASK == 1].abs().mean() < .3 * logits(model)[MASK == 1].std()


def test_a_prefix_answers_on_the_base_it_was_trained_on(tmp_path: Path, talks: str):
    """THUDM's recipe on one small card: what was trained on 4 bits must answer on them, 16 would not fit."""
    pytest.importorskip("bitsandbytes")
    made = sft(SftConfig(model="new:chatglm-tiny", records=talks, method="p-tuning-v2", out=str(tmp_path / "prefix"),
                         tuning=Tuning(quantize="nf4", prefix=PrefixOptions(tokens=5)), schedule=Schedule(learning_rate=2e-2, precision="fp32")))
    engine = open_engine(references.resolve(str(made.path)))
    assert "Linear4bit" in {type(m).__name__ for m in engine.model.modules()}
    assert engine.generate([[{"role": "user", "content": "天？"}]], Sampling(max_tokens=4))[0].completion_tokens > 0


def test_qlora_trains_through_the_stage_with_float_adapters(tmp_path: Path, talks: str):
    pytest.importorskip("bitsandbytes")
    made = sft(SftConfig(model="new:llama-tiny", records=talks, method="qlora", out=str(tmp_path / "qlora"),
                         schedule=Schedule(learning_rate=2e-2, epochs=25, batch_size=3, precision="fp32")))
    assert made.manifest["metrics"]["last_loss"] < .85 * made.manifest["metrics"]["first_loss"]
    from safetensors.torch import load_file
    assert {t.dtype for t in load_file(made.path / "adapter_model.safetensors").values()} == {torch.float32}
    merged = merge(MergeConfig(adapter=str(made.path), out=str(tmp_path / "merged")))
    assert "quantization_config" not in json.loads((merged.path / "config.json").read_text())
    # What answers on a card leaves it beside a base of 4 bits: in 16 the base may not fit there.
    model, _ = load_chain(references.resolve(str(made.path)), tmp_path / "scratch", as_trained=True)
    assert {"Linear4bit", "PeftModelForCausalLM"} <= {type(m).__name__ for m in model.modules()}
    whole, _ = load_chain(references.resolve(str(made.path)), tmp_path / "scratch2")
    assert not {"Linear4bit", "PeftModelForCausalLM"} & {type(m).__name__ for m in whole.modules()}


def test_an_adapter_of_a_model_on_a_hub_names_it_as_the_hub_does(tmp_path: Path, talks: str, monkeypatch: Any):
    import huggingface_hub
    snapshot = tmp_path / "cache" / "0a1b2c"
    write_shape("llama-tiny", snapshot)
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, revision, **_: asked.append((name, revision)) or str(snapshot))
    made = sft(SftConfig(model="hf:org/name", records=talks, out=str(tmp_path / "a"), schedule=Schedule(precision="fp32")))
    assert made.manifest["resolved"]["base"] == "hf:org/name@0a1b2c"
    load_chain(references.resolve(str(made.path)), tmp_path)
    assert asked[0] == ("org/name", None) and asked[-1] == ("org/name", "0a1b2c")


def test_a_folder_that_lacks_weights_is_refused(tmp_path: Path):
    from safetensors.torch import load_file, save_file
    write_shape("llama-tiny", tmp_path)
    file = next(tmp_path.glob("*.safetensors"))
    tensors = load_file(file)
    name = next(name for name in tensors if "q_proj" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=f"lacks 1 weights of a causal language model, such as {name}"):
        load_model(tmp_path)


@pytest.mark.skipif(not CASES.exists(), reason="shared cases are not here")
def test_merge_keeps_stop_tokens_of_a_plain_peft_folder(tmp_path: Path):
    expected = json.loads((make("11-merge-keeps-stop-tokens", tmp_path) / "expected.json").read_text())
    made = merge(MergeConfig(adapter=str(tmp_path / "adapter"), out=str(tmp_path / "merged")))
    settings = json.loads((made.path / "generation_config.json").read_text())
    assert {k: settings[k] for k in expected["generation_config.json"]} == expected["generation_config.json"]
    assert json.loads((made.path / "config.json").read_text())["dtype"] == "bfloat16"
    for name in ("tokenizer.json", "tokenizer.model"):
        assert (made.path / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    code = ("import sys; from zhtune import references; from zhtune.models.engine import Sampling; from zhtune.models.open import open_engine\n"
            "engine = open_engine(references.resolve(sys.argv[1])); print(sorted(engine.encoder.stop_ids))\n"
            "engine.generate([[{'role': 'user', 'content': '你好'}]], Sampling(max_tokens=4))")
    out = subprocess.run([sys.executable, "-c", code, str(made.path)], check=True, capture_output=True, text=True).stdout
    assert {2, 7} <= set(json.loads(out.strip().splitlines()[-1]))
