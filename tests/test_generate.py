"""zhtune generate and the engines: batches equal to one by one, streams equal to whole texts, kills, stop strings, adapters, endpoints."""

import json
import random
import re
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from chat_tokenizers import byte_tokenizer, spelling_tokenizer
from fake_engine import FakeEngine

from zhtune import references
from zhtune.errors import ConfigError, DataError, ZhtuneError
from zhtune.models.engine import Reply, Sampling, Whole
from zhtune.models.open import open_engine
from zhtune.models.shapes import write_shape
from zhtune.records import read_jsonl, write_jsonl
from zhtune.stages.generate import GenerateConfig, generate
from zhtune.templates.encode import ChatEncoder, named_template

torch = pytest.importorskip("torch")

WORDS = ["感冒", "挂", "呼吸内科", "龘", "🩺", "👨‍👩‍👧", "🌿", "aspirin", " 100 mg", "，", "？", ", ok?", "é", "한국", "ありがとう", "\n", "𠮷", "e\u0301"]
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "tokenizers"


def mixed(count, seed=0):
    """Texts in Chinese, emoji and mixed scripts."""
    chance = random.Random(seed)
    return ["".join(chance.choices(WORDS, k=chance.randint(1, 12))) for _ in range(count)]


def ask(text):
    return [{"role": "user", "content": text}]


def babbler(folder, tokenizer):
    """Random weights whose answers are bytes and characters in any order: much of it no UTF-8."""
    from transformers import LlamaConfig, LlamaForCausalLM
    tokenizer(folder, ("<s>", "<|im_end|>"))
    (folder / "chat_template.jinja").write_text(named_template("chatml"))
    encoder = ChatEncoder(folder)
    torch.manual_seed(3)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=encoder.size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, initializer_range=0.3, bos_token_id=None, eos_token_id=encoder.end_id)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return babbler(tmp_path_factory.mktemp("model"), byte_tokenizer)


@pytest.fixture(scope="module", params=[byte_tokenizer, spelling_tokenizer])
def engine(request, tmp_path_factory):
    folder = babbler(tmp_path_factory.mktemp("engine"), request.param)
    with closing(open_engine(references.resolve(str(folder)))) as opened:
        yield opened


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    write_jsonl(path, ({"id": f"p{i}", "messages": ask(text)} for i, text in enumerate(mixed(12, 1))))
    return str(path)


def test_batched_equals_one_by_one_and_streamed_equals_whole_on_200_prompts(engine):
    conversations = [ask(text) for text in mixed(200)]
    sampling = Sampling(max_tokens=8)
    replies = engine.generate(conversations, sampling)
    assert len({r.text for r in replies}) > 100 and sum("\ufffd" in r.text for r in replies) > 20, replies[:5]
    for messages, reply in zip(conversations, replies):
        *pieces, last = engine.stream(messages, sampling)
        assert "".join(pieces) == last.text and last == reply         # a stream is one row: batched equals one by one


@pytest.mark.parametrize("made", ["bytes", "spelt", "qwen2_5", "chatglm3", "llama"])
def test_streams_give_200_real_texts_byte_for_byte(tmp_path, made):
    if made in ("bytes", "spelt"):
        {"bytes": byte_tokenizer, "spelt": spelling_tokenizer}[made](tmp_path)
    elif not REAL.exists():
        pytest.skip("../shared is not here")
    else:
        (tmp_path / "tokenizer.json").write_text((REAL / made / "tokenizer.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>" if made == "qwen2_5" else "</s>"}))
    encoder = ChatEncoder(tmp_path, chat=False)
    composed = [text.replace("e\u0301", "é") for text in mixed(200, 5)]     # Qwen normalises
    for text in composed:
        whole = Whole(encoder.decode)
        pieces = [whole.push(i) for i in encoder.text_ids(text)]
        assert "".join(pieces) + whole.rest() == text and not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_are_no_text_change_nothing_before_them(tmp_path):
    spelling_tokenizer(tmp_path)
    encoder = ChatEncoder(tmp_path, chat=False)
    byte = {b: encoder._control.token_to_id(f"<0x{b:02X}>") for b in range(256)}
    leaf, a = [byte[b] for b in "🌿".encode()], encoder._control.token_to_id("a")
    assert encoder.decode([*leaf, byte[0xE4]]) == "🌿\ufffd"              # the decoder of tokenizers gives five U+FFFD
    assert encoder.decode([*leaf, byte[0xE4], byte[0xBD], a, *leaf[:2]]) == "🌿\ufffda\ufffd"
    whole = Whole(encoder.decode)
    assert [whole.push(i) for i in (*leaf, byte[0xE4], a)] == ["", "", "", "🌿", "", "\ufffda"]


def test_stop_strings_end_whole_and_streamed_answers_alike(engine):
    conversations = [ask(text) for text in mixed(8, 2)]
    free = engine.generate(conversations, Sampling(max_tokens=24))
    stop = tuple(sorted({found[0] for reply in free if (found := re.search("[!-~]{2}|[你好]", reply.text[3:]))})[:3])
    assert stop, [r.text for r in free]
    cut = engine.generate(conversations, Sampling(max_tokens=24, stop=stop))
    ends = [min((r.text.find(s) for s in stop if s in r.text), default=-1) for r in free]
    assert [r.text for r in cut] == [r.text[:end] if end >= 0 else r.text for r, end in zip(free, ends)]
    assert all(r.finish == "stop" and r.completion_tokens <= f.completion_tokens for r, f, end in zip(cut, free, ends) if end >= 0)
    for messages, reply in zip(conversations, cut):
        *pieces, last = engine.stream(messages, Sampling(max_tokens=24, stop=stop))
        assert "".join(pieces) == last.text == reply.text and last.finish == reply.finish


def test_sampling_repeats_with_its_seed(engine):
    def texts(seed):
        return [r.text for r in engine.generate([ask(t) for t in mixed(4)], Sampling(max_tokens=8, temperature=1.0, top_p=0.9, seed=seed))]
    assert texts(1) == texts(1) != texts(2)


def test_records_with_answers_in_order(tmp_path, model, prompts):
    made = generate(GenerateConfig(model=str(model), prompts=prompts, max_tokens=6, batch=5, out=str(tmp_path / "out")))
    rows = [row for _, row in read_jsonl(made.path / "records.jsonl")]
    with closing(open_engine(references.resolve(str(model)))) as one:
        expected = one.generate([ask(t) for t in mixed(12, 1)], Sampling(max_tokens=6))
    assert [(r["id"], r["messages"][1]["content"]) for r in rows] == [(f"p{i}", e.text) for i, e in enumerate(expected)]
    assert rows[0]["source"] == {"model": f"{model.name}@{references.resolve(str(model)).digest[:12]}", "finish": expected[0].finish}
    assert made.kind == "records" and made.manifest["counts"] == {"in": 12, "kept": 12, "dropped": {}}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, model, prompts, monkeypatch, temperature):
    from zhtune.models.generation import TransformersEngine
    settings = {"model": str(model), "prompts": prompts, "max_tokens": 6, "batch": 3, "temperature": temperature}
    whole = generate(GenerateConfig(**settings, out=str(tmp_path / "whole")))
    calls, real = [], TransformersEngine.generate

    def dies(self, conversations, sampling):
        calls.append(len(conversations))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, conversations, sampling)
    monkeypatch.setattr(TransformersEngine, "generate", dies)
    with pytest.raises(KeyboardInterrupt):
        generate(GenerateConfig(**settings, out=str(tmp_path / "cut")))
    again = generate(GenerateConfig(**settings, out=str(tmp_path / "cut")))
    assert calls == [3, 3, 3, 3, 3]                         # two batches before the kill, the broken one and the last after it
    assert again.digest == whole.digest


def test_prompts_of_every_form(tmp_path, model):
    (tmp_path / "a.txt").write_text("\ufeff感冒？\n\n  咳嗽？ \n", "utf-8")
    write_jsonl(tmp_path / "b.jsonl", [{"prompt": "甲"}, {"prompt": ask("乙")}, {"instruction": "丙", "input": "丁"}, {"instruction": "戊", "input": ""},
                                       {"messages": [*ask("己"), {"role": "assistant", "content": "旧"}]}, {"messages": [{"role": "assistant", "content": "旧"}]},
                                       {"id": "long", "prompt": "长" * 400}])

    def asked(name):
        made = generate(GenerateConfig(model=str(model), prompts=str(tmp_path / name), max_tokens=2, out=str(tmp_path / f"{name}.out")))
        return [row["messages"][0]["content"] for _, row in read_jsonl(made.path / "records.jsonl")], made.manifest["counts"]
    assert asked("a.txt") == (["感冒？", "咳嗽？"], {"in": 2, "kept": 2, "dropped": {}})
    assert asked("b.jsonl") == (["甲", "乙", "丙\n丁", "戊", "己"], {"in": 7, "kept": 5, "dropped": {"no_question": 1, "refused": 1}})
    dropped = (tmp_path / "b.jsonl.out" / "dropped.jsonl").read_text()
    assert re.search(r"the conversation has 12\d\d tokens, the model's context is 512", dropped)


def test_a_blank_prompt_is_counted_and_the_others_are_answered(tmp_path, model):
    write_jsonl(tmp_path / "b.jsonl", [{"prompt": "甲"}, {"prompt": " \n"}, {"instruction": "", "input": "丙"},
                                      {"instruction": "", "input": " "}, {"prompt": "乙"}])
    made = generate(GenerateConfig(model=str(model), prompts=str(tmp_path / "b.jsonl"), max_tokens=2, out=str(tmp_path / "o")))
    assert made.manifest["counts"] == {"in": 5, "kept": 3, "dropped": {"no_question": 2}}
    assert [row["messages"][0]["content"] for _, row in read_jsonl(made.path / "records.jsonl")] == ["甲", "丙", "乙"]     # as lint reads them
    assert [row for _, row in read_jsonl(made.path / "dropped.jsonl")] == [{"reason": "no_question", "id": "2"}, {"reason": "no_question", "id": "4"}]


@pytest.mark.parametrize("row, words", [
    ({"question": "x"}, r'p.jsonl:1: expected "messages", "prompt" or "instruction", found question'),
    ({"prompt": "x", "adapter": "style"}, r"p.jsonl:1: no adapter 'style'; --adapters has: none"),
    ({"prompt": "x", "adapter": ["a"]}, r"p.jsonl:1: no adapter \['a'\]; --adapters has: none")])
def test_a_bad_prompt_is_named_and_nothing_is_written(tmp_path, model, row, words):
    write_jsonl(tmp_path / "p.jsonl", [row])
    with pytest.raises(DataError, match=words):
        generate(GenerateConfig(model=str(model), prompts=str(tmp_path / "p.jsonl"), out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_several_adapters_on_one_base_answer_by_name(tmp_path, model):
    pytest.importorskip("trl")
    from zhtune.stages.sft import SftConfig, sft
    from zhtune.train.schedule import Schedule
    write_jsonl(tmp_path / "r.jsonl", [{"messages": [*ask("一？"), {"role": "assistant", "content": "二"}]}])
    for name, epochs in (("a", 3), ("b", 6)):
        sft(SftConfig(model=str(model), records=str(tmp_path / "r.jsonl"), out=str(tmp_path / name),
                      schedule=Schedule(learning_rate=2e-2, epochs=epochs, batch_size=1, precision="fp32", checkpoints=0)))
    texts = mixed(4, 3)
    write_jsonl(tmp_path / "p.jsonl", [{"id": f"{by}{i}", "prompt": t, "adapter": by} for i, t in enumerate(texts) for by in ("", "a", "b")])
    adapters = [str(tmp_path / name) for name in "ab"]
    made = generate(GenerateConfig(model=str(model), prompts=str(tmp_path / "p.jsonl"), adapters=adapters, max_tokens=6, out=str(tmp_path / "out")))
    rows = {row["id"]: row for _, row in read_jsonl(made.path / "records.jsonl")}
    for by, path in (("", model), ("a", adapters[0]), ("b", adapters[1])):
        with closing(open_engine(references.resolve(str(path)))) as alone:
            said = [r.text for r in alone.generate([ask(t) for t in texts], Sampling(max_tokens=6))]
        assert [rows[f"{by}{i}"]["messages"][1]["content"] for i in range(4)] == said
    assert rows["b0"]["source"]["adapter"] == "b" and "adapter" not in rows["0"]["source"]
    assert len({tuple(rows[f"{by}{i}"]["messages"][1]["content"] for i in range(4)) for by in ("", "a", "b")}) == 3
    write_shape("llama-tiny", tmp_path / "other", seed=9)
    with pytest.raises(ConfigError, match="was trained on another model than"):
        generate(GenerateConfig(model=str(tmp_path / "other"), prompts=str(tmp_path / "p.jsonl"), adapters=adapters, out=str(tmp_path / "no")))
    with pytest.raises(ConfigError, match='with --adapters a prompt without the field "adapter" is answered by the model itself'):
        generate(GenerateConfig(model=str(model), prompts=str(tmp_path / "p.jsonl"), adapters=adapters, without_adapter=True, out=str(tmp_path / "no")))
    with pytest.raises(ConfigError, match="takes no adapters"):
        open_engine(references.resolve("http://127.0.0.1:1/v1#m"), adapters={"a": references.resolve(adapters[0])})


@contextmanager
def served(engine, name="medical"):
    """A real server of zhtune's own on a loopback socket; yields its address."""
    pytest.importorskip("fastapi"), pytest.importorskip("openai")
    import uvicorn

    from zhtune.serving.api import create_app
    from zhtune.stages.serve import bind
    with closing(bind("127.0.0.1", 0)) as listener:
        listener.listen(16)
        server = uvicorn.Server(uvicorn.Config(create_app(engine, name), log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


def test_an_endpoint_answers_like_any_engine(tmp_path, prompts):
    behind = FakeEngine()
    with served(behind) as address, closing(open_engine(references.resolve(address))) as engine:
        assert engine.model == "medical"                    # its only one
        whole = Reply("感冒挂呼吸内科🩺👨‍👩‍👧。", 2, 5, "stop")
        assert engine.generate([ask("甲乙"), ask("丙丁")], Sampling(seed=3)) == [whole] * 2
        *pieces, last = engine.stream(ask("甲乙"), Sampling(max_tokens=2))
        assert pieces == ["感冒", "挂"] and last == Reply("感冒挂", 2, 2, "length")
        assert engine.generate([ask("甲乙")], Sampling(stop=("呼吸",)))[0].text == "感冒挂"
        with pytest.raises(DataError, match=r"the endpoint refuses the conversation: the conversation has 1000 tokens"):
            engine.generate([ask("长" * 1000)], Sampling())
        with pytest.raises(ConfigError, match=r"127.0.0.1:\d+/v1 has no adapter of its own beside its weights"):
            engine.generate([ask("甲")], Sampling(adapter=False))
        made = generate(GenerateConfig(model=f"{address}#medical", prompts=prompts, out=str(tmp_path / "out")))
        rows = [row for _, row in read_jsonl(made.path / "records.jsonl")]
        assert {r["messages"][1]["content"] for r in rows} == {whole.text} and rows[0]["source"] == {"model": "medical", "finish": "stop"}
        with closing(open_engine(references.resolve(f"{address}#nosuch"))) as other, pytest.raises(ZhtuneError, match="does not answer: the model 'nosuch'"):
            other.generate([ask("甲")], Sampling())


def test_an_endpoint_elsewhere_needs_a_key_and_has_its_own_template(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        open_engine(references.resolve("https://example.invalid/v1#m"))
    with pytest.raises(ConfigError, match="an endpoint has its own chat template"):
        open_engine(references.resolve("http://127.0.0.1:1/v1#m"), template="chatml")


def test_a_template_chosen_for_training_travels_to_whatever_answers(tmp_path):
    """sft, dpo, merge, pretrain, quantize, generate: --template is named once."""
    pytest.importorskip("trl")
    from zhtune.stages.dpo import DpoConfig, dpo
    from zhtune.stages.merge import MergeConfig, merge
    from zhtune.stages.sft import SftConfig, sft
    from zhtune.train.schedule import Schedule
    base, fast = tmp_path / "base", Schedule(epochs=1, batch_size=1, precision="fp32", checkpoints=0)
    write_shape("llama-tiny", base)
    (base / "chat_template.jinja").unlink()
    write_jsonl(tmp_path / "r.jsonl", [{"messages": [*ask("一？"), {"role": "assistant", "content": "二"}]}])
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": ask("一？"), "chosen": [{"role": "assistant", "content": "二"}], "rejected": [{"role": "assistant", "content": "错"}]}])
    bare = {"model": str(base), "records": str(tmp_path / "r.jsonl"), "schedule": fast}
    for verb in (lambda: sft(SftConfig(**bare, out=str(tmp_path / "no"))), lambda: open_engine(references.resolve(str(base)))):
        with pytest.raises(ConfigError, match="has no chat template; name one with --template"):
            verb()
    tuned = sft(SftConfig(**bare, template="plain", out=str(tmp_path / "sft")))
    # <|im_end|> is this tokenizer's end of text
    prefer = {"preferences": str(tmp_path / "d.jsonl"), "schedule": fast}
    second = dpo(DpoConfig(model=str(tuned.path), **prefer, out=str(tmp_path / "dpo")))
    first = dpo(DpoConfig(model=str(base), **prefer, template="plain", out=str(tmp_path / "dpo1")))
    merged = merge(MergeConfig(adapter=str(second.path), out=str(tmp_path / "merged")))
    plain = ChatEncoder(base, "plain")
    for made in (tuned, second, first, merged):
        with closing(open_engine(references.resolve(str(made.path)))) as engine:
            assert engine.encoder.template_text == plain.template_text and engine.encoder.prompt(ask("一？")) == plain.prompt(ask("一？"))
    with closing(open_engine(references.resolve(str(base)), template="chatml")) as engine:
        assert engine.encoder.end_id == 2


def test_sft_makes_a_sample_of_every_answer_where_only_the_last_can_be_trained(tmp_path):
    pytest.importorskip("trl")
    from zhtune.stages.sft import SftConfig, sft
    write_shape("llama-tiny", tmp_path / "base")
    talk = [*ask("一？"), {"role": "assistant", "content": "二"}, *ask("三？"), {"role": "assistant", "content": "四", "reasoning": "想"}]
    write_jsonl(tmp_path / "r.jsonl", [{"id": "t", "messages": talk}])
    made = sft(SftConfig(model=str(tmp_path / "base"), records=str(tmp_path / "r.jsonl"), template="qwen3", samples_only=True, out=str(tmp_path / "out")))
    rows = [row for _, row in read_jsonl(made.path / "samples.jsonl")]
    encoder = ChatEncoder(tmp_path / "base", "qwen3")
    trained = [encoder.decode([i for i, m in zip(r["input_ids"], r["loss_mask"]) if m]) for r in rows]
    assert [r["id"] for r in rows] == ["t#0", "t#1"] and trained == ["<think>\n\n</think>\n\n二", "<think>\n想\n</think>\n\n四"]
    assert made.manifest["counts"] == {"in": 2, "kept": 2, "dropped": {}}
