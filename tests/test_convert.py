"""zhtune convert: published ChatGLM folders -> folders that load without their code."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from glm_reference import reference_logits
from test_glm_tokenizers import small_chatglm3, small_chatglm6b

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from transformers import GlmForCausalLM

from zhtune import references
from zhtune.errors import ConfigError, DataError
from zhtune.models.chatglm.checkpoint import Checkpoint, dequantise, write_shards
from zhtune.models.chatglm.configuration import ChatGLMConfig
from zhtune.models.chatglm.modeling import ChatGLMForCausalLM
from zhtune.models.chatglm.originals import generation_of, native_config, native_tensors
from zhtune.models.engine import Sampling
from zhtune.models.load import load_model
from zhtune.models.open import open_engine
from zhtune.stages.convert import ConvertConfig, convert
from zhtune.tokenizers.spm import parse_spm

DATA = Path(__file__).parent / "data" / "chatglm"
FIXTURE = np.load(DATA / "chatglm2.npz")
V1 = {"model_type": "chatglm", "architectures": ["ChatGLMModel"], "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
      "hidden_size": 16, "num_layers": 2, "num_attention_heads": 2, "inner_hidden_size": 24, "max_sequence_length": 64, "layernorm_epsilon": 1e-5,
      "position_encoding_2d": True, "bos_token_id": 150004, "gmask_token_id": 130001, "torch_dtype": "float16"}
V2 = {"model_type": "chatglm", "hidden_size": 16, "num_layers": 2, "num_attention_heads": 4, "multi_query_group_num": 2, "kv_channels": 8,
      "ffn_hidden_size": 12, "seq_length": 128, "layernorm_epsilon": 1e-5, "add_qkv_bias": True, "multi_query_attention": True, "rmsnorm": True}
TALK = [{"role": "user", "content": "你好"}]


def fixture(name: str) -> torch.Tensor:
    return torch.from_numpy(FIXTURE[name])


def write_config(folder: Path, config: dict, **fields) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, **fields}), "utf-8")
    return folder


def chatglm6b(folder: Path, rows: int = 0, **fields) -> ChatGLMForCausalLM:
    """A published folder with random weights but for its weights; returns the model that they are to be."""
    data = small_chatglm6b()
    pieces = {piece.text: i for i, piece in enumerate(parse_spm(data).pieces)}
    write_config(folder, V1, vocab_size=rows or len(pieces) + 10, **fields)
    (folder / "ice_text.model").write_bytes(data)
    torch.manual_seed(0)
    return ChatGLMForCausalLM(ChatGLMConfig(
        vocab_size=rows or len(pieces) + 10, hidden_size=16, num_layers=2, num_attention_heads=2, inner_hidden_size=24, max_sequence_length=64,
        pad_token_id=3, mask_token_id=pieces["[MASK]"], gmask_token_id=pieces["[gMASK]"], bos_token_id=pieces["<sop>"],
        eos_token_id=pieces["<eop>"], initializer_range=.3)).eval()


def published_tensors(model: ChatGLMForCausalLM) -> dict[str, torch.Tensor]:
    return {**model.state_dict(), **{f"transformer.layers.{i}.attention.rotary_emb.inv_freq": torch.ones(2).half() for i in range(2)}}


def write_bin(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Two files and their index."""
    names = sorted(tensors)
    files = {name: f"pytorch_model-0000{1 + (i > len(names) // 2)}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({name: tensors[name].clone() for name in names if files[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}), "utf-8")


def logits_of(model, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0]


def glm_tensors(config: dict, rows: int) -> dict[str, torch.Tensor]:
    """Random weights under the names of ChatGLM2 and later."""
    torch.manual_seed(0)
    hidden, inner = config["hidden_size"], config["ffn_hidden_size"]
    joint = (config["num_attention_heads"] + 2 * config["multi_query_group_num"]) * config["kv_channels"]
    shapes = {"embedding.word_embeddings.weight": (rows, hidden), "output_layer.weight": (rows, hidden), "encoder.final_layernorm.weight": (hidden,),
              "rotary_pos_emb.inv_freq": (2,)}
    for i in range(config["num_layers"]):
        shapes |= {f"encoder.layers.{i}.{name}": shape for name, shape in (
            ("input_layernorm.weight", (hidden,)), ("post_attention_layernorm.weight", (hidden,)),
            ("self_attention.query_key_value.weight", (joint, hidden)), ("self_attention.query_key_value.bias", (joint,)),
            ("self_attention.dense.weight", (hidden, config["num_attention_heads"] * config["kv_channels"])),
            ("mlp.dense_h_to_4h.weight", (2 * inner, hidden)), ("mlp.dense_4h_to_h.weight", (hidden, inner)))}
    return {f"transformer.{name}": torch.randn(shape) * .4 for name, shape in shapes.items()}


# ChatGLM-6B

@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_chatglm6b_keeps_its_logits_and_its_text(tmp_path, form):
    model = chatglm6b(tmp_path / "published")
    tensors = published_tensors(model)
    if form == "bin":
        write_bin(tmp_path / "published", tensors)
    else:
        save_file({name: value.clone() for name, value in tensors.items()}, tmp_path / "published" / "model.safetensors")
    made = convert(ConvertConfig(model=str(tmp_path / "published"), out=str(tmp_path / "out")))
    assert {p.name for p in made.path.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer.model", "chat_template.jinja",
                                                     "tokenizer_config.json", "generation_config.json"}
    assert set(load_file(made.path / "model.safetensors")) == {n for n in tensors if "inv_freq" not in n and n != "lm_head.weight"}
    ours = load_model(made.path)
    assert isinstance(ours, ChatGLMForCausalLM) and made.manifest["resolved"]["generation"] == "chatglm"
    ids = [10, 11, 12, ours.config.gmask_token_id, ours.config.bos_token_id, 13, 14]
    torch.testing.assert_close(logits_of(ours, ids), logits_of(model, ids), atol=2e-5, rtol=0)
    engine = open_engine(references.resolve(str(made.path)))
    assert engine.encoder.prompt(TALK)[-2:] == ids[3:5] and engine.encoder.end_id == ours.config.eos_token_id
    assert engine.generate([TALK], Sampling(max_tokens=3))[0].completion_tokens > 0


def test_image_rows_of_march_2023_go_and_ids_are_those_of_the_tokenizer(tmp_path):
    model = chatglm6b(tmp_path / "published", rows=150528)
    write_bin(tmp_path / "published", published_tensors(model))
    ours = load_model(convert(ConvertConfig(model=str(tmp_path / "published"), out=str(tmp_path / "out"))).path)
    assert ours.config.vocab_size == 130528
    assert torch.equal(ours.get_input_embeddings().weight, model.get_input_embeddings().weight[20000:])
    assert (ours.config.bos_token_id, ours.config.gmask_token_id) == (model.config.bos_token_id, model.config.gmask_token_id)


@pytest.mark.parametrize("bits", [8, 4])
def test_official_integers_become_16_bits(tmp_path, bits):
    model = chatglm6b(tmp_path / "published", quantization_bit=bits).half()
    tensors, expected = published_tensors(model), dict(model.state_dict())
    for name in list(model.state_dict()):
        if ".layers." in name and name.endswith("weight") and "layernorm" not in name:
            weight, most = tensors[name].float(), 2 ** (bits - 1) - 1
            scale = (weight.abs().amax(1) / most).half()
            levels = (weight / scale.float()[:, None]).round().clamp(-most, most).to(torch.int8)
            expected[name] = levels.half() * scale[:, None]
            packed = (levels[:, ::2].int() * 16 + (levels[:, 1::2].int() & 15)).to(torch.int8)
            tensors |= {name: levels if bits == 8 else packed, name + "_scale": scale}
    write_bin(tmp_path / "published", tensors)
    made = convert(ConvertConfig(model=str(tmp_path / "published"), out=str(tmp_path / "out")))
    written = load_file(made.path / "model.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in written.items()) and made.manifest["resolved"]["quantization_bit"] == bits
    assert load_model(made.path, "auto").dtype == torch.float16
    assert json.loads((made.path / "config.json").read_text("utf-8"))["rotary_float16"] is True


def test_packed_int4_by_hand():
    packed = torch.tensor([[0x1F, -0x80]], dtype=torch.int8)    # 1, -1; -8, 0
    assert dequantise(packed, torch.tensor([.5]), 4).tolist() == [[.5, -.5, -4, 0]]
    with pytest.raises(DataError, match="quantization_bit 0; expected 8 or 4"):
        dequantise(packed, torch.tensor([.5]), 0)


# ChatGLM2, ChatGLM3, GLM-4

@pytest.fixture(scope="module", params=[("sdpa", 2e-5), ("eager", 2e-5)], ids=["sdpa", "eager"])
def chatglm2(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chatglm2")
    published = json.loads((DATA / "chatglm2.config.json").read_text("utf-8"))
    (folder / "model.safetensors").write_bytes((DATA / "chatglm2.safetensors").read_bytes())
    model = GlmForCausalLM._from_config(native_config(published, "chatglm2", {"pad_token_id": 0, "eos_token_id": 2}), attn_implementation=request.param[0])
    found = dict(native_tensors(Checkpoint(folder), model.config))
    assert not model.load_state_dict(found, strict=True).missing_keys
    return model.eval(), request.param[1]


def test_chatglm2_equals_the_published_code(chatglm2):
    model, near = chatglm2
    with torch.inference_mode():
        out = model(input_ids=fixture("single.input_ids"), output_hidden_states=True, use_cache=True)
        left = model(input_ids=fixture("leftpad.input_ids"), attention_mask=fixture("leftpad.attention_mask"),
                     position_ids=fixture("leftpad.position_ids")).logits
    torch.testing.assert_close(out.logits, fixture("single.logits"), atol=near, rtol=0)
    theirs = fixture("single.hidden_states")                # the last one stands before the final norm there
    theirs = torch.cat([theirs[:-1], model.model.norm(theirs[-1:]).detach()])
    torch.testing.assert_close(torch.stack(out.hidden_states), theirs, atol=10 * near, rtol=0)
    torch.testing.assert_close(out.cache.layers[0].keys.permute(2, 0, 1, 3), fixture("single.key_0"), atol=near, rtol=0)
    torch.testing.assert_close(out.cache.layers[-1].values.permute(2, 0, 1, 3), fixture("single.value_last"), atol=near, rtol=0)
    real = fixture("leftpad.attention_mask").bool()
    torch.testing.assert_close(left[real], fixture("leftpad.logits")[real], atol=near, rtol=0)


def test_chatglm2_decodes_generates_and_learns_as_published(chatglm2):
    model, near = chatglm2
    rows, real, forced = fixture("leftpad.input_ids"), fixture("leftpad.attention_mask"), fixture("decode.forced")
    greedy = fixture("greedy.output_ids")
    assert torch.equal(model.generate(rows, attention_mask=real, max_new_tokens=greedy.shape[1] - rows.shape[1], do_sample=False), greedy)
    new, cache, steps = rows, None, []
    for step in range(7):
        positions = (real.cumsum(-1) - 1).clamp(min=0)[:, -new.shape[1]:]
        with torch.inference_mode():
            out = model(input_ids=new, attention_mask=real, position_ids=positions, cache=cache, use_cache=True)
        steps.append(out.logits[:, -1])
        if step < 6:
            new, cache, real = forced[:, step:step + 1], out.cache, torch.cat([real, torch.ones_like(forced[:, :1])], 1)
    torch.testing.assert_close(torch.stack(steps, 1), fixture("decode.step_logits"), atol=near, rtol=0)
    loss = model(input_ids=fixture("sft.input_ids"), labels=fixture("sft.labels")).loss
    torch.testing.assert_close(loss.detach(), fixture("sft.loss").squeeze(), atol=near, rtol=0)


@pytest.mark.parametrize(("generation", "ratio", "base", "divisor"), [
    ("chatglm2", 1, 1e4, 1), ("chatglm2", 50, 1e4, 50), ("chatglm3", 50, 5e5, 1), ("glm-4", 500, 5e6, 1)])
@pytest.mark.parametrize(("layers", "heads", "groups"), [(1, 2, 1), (5, 4, 2), (2, 6, 2)])
def test_other_sizes_and_rope_ratios_equal_the_reference(tmp_path, generation, ratio, base, divisor, layers, heads, groups):
    config = {**V2, "num_layers": layers, "num_attention_heads": heads, "multi_query_group_num": groups, "rope_ratio": ratio, "padded_vocab_size": 40}
    tensors = glm_tensors(config, 40)
    save_file(tensors, tmp_path / "model.safetensors")
    model = GlmForCausalLM(native_config(config, generation, {"pad_token_id": 0, "eos_token_id": 2})).eval()
    model.load_state_dict(dict(native_tensors(Checkpoint(tmp_path), model.config)))
    ids = [*range(3, 40)]
    theirs = torch.from_numpy(reference_logits({n: t.numpy() for n, t in tensors.items()}, config, ids, base, divisor)).float()
    torch.testing.assert_close(logits_of(model, ids), theirs, atol=2e-4, rtol=2e-5)


@pytest.mark.parametrize("generation", ["chatglm2", "chatglm3"])
def test_the_stage_converts_chatglm2_and_3(tmp_path, generation):
    folder = write_config(tmp_path / "published", V2, padded_vocab_size=65024)
    (folder / "tokenizer.model").write_bytes(small_chatglm3())
    (folder / "tokenization_chatglm.py").write_text('role = ["<|assistant|>"]' if generation == "chatglm3" else "# none", "utf-8")
    save_file(glm_tensors(V2, 65024), folder / "model.safetensors")
    made = convert(ConvertConfig(model=str(folder), out=str(tmp_path / "out")))
    engine = open_engine(references.resolve(str(made.path)))
    ids = engine.encoder.prompt(TALK)
    assert made.manifest["resolved"]["generation"] == generation and isinstance(engine.model, GlmForCausalLM)
    assert ids[:2] == [64790, 64792] and (generation == "chatglm2" or ids[-1] == 64796)
    assert engine.generate([TALK], Sampling(max_tokens=2))[0].completion_tokens > 0
    stops = {"chatglm2": [2], "chatglm3": [2, 64795, 64797]}[generation]
    assert set(stops) <= set(engine.encoder.stop_ids) and model_config(made.path)["eos_token_id"] in (stops, stops[0])


def model_config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text("utf-8"))


@pytest.mark.slow
def test_the_stage_converts_glm4(tmp_path):
    config = {**V2, "rope_ratio": 500, "layernorm_epsilon": 1.5625e-07, "padded_vocab_size": 151552, "hidden_size": 8}
    folder = write_config(tmp_path / "published", config)
    tokens = [bytes([i]) for i in range(256)] + [bytes([i // 256, i % 256]) for i in range(65536)] + [b"\xe4" + bytes([i // 256, i % 256]) for i in range(65536)]
    tokens += [b"\xe5" + bytes([i // 256, i % 256]) for i in range(151329 - len(tokens))]
    (folder / "tokenizer.model").write_bytes(b"".join(base64.b64encode(t) + f" {i}\n".encode() for i, t in enumerate(tokens)))
    save_file(glm_tensors(config, 151552), folder / "model.safetensors")
    made = convert(ConvertConfig(model=str(folder), out=str(tmp_path / "out")))
    engine = open_engine(references.resolve(str(made.path)))
    ids = engine.encoder.prompt(TALK)
    assert ids[:4] == [151331, 151333, 151336, 10] and ids[-1] == 151337 and {151329, 151336, 151338} <= set(engine.encoder.stop_ids)
    assert model_config(made.path)["rope_parameters"]["rope_theta"] == 5e6


# Files

def test_shards_have_an_index_and_load_as_one(tmp_path):
    model = chatglm6b(tmp_path / "published")
    tensors = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    assert write_shards(tensors.items(), tmp_path, shard=10_000) == sum(t.nbytes for t in tensors.values())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text("utf-8"))
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2 and sorted(p.name for p in tmp_path.glob("*.safetensors")) == files and not list(tmp_path.glob("part-*"))
    model.config.save_pretrained(tmp_path)
    torch.testing.assert_close(logits_of(load_model(tmp_path), [5, 6, 7]), logits_of(model, [5, 6, 7]), atol=2e-5, rtol=0)
    again = Checkpoint(tmp_path)
    assert again.names == set(tensors) and all(torch.equal(again.read(name), value) for name, value in tensors.items())


class Evil:
    def __reduce__(self):
        return print, ("code of a checkpoint was run",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    chatglm6b(tmp_path / "published")
    torch.save({"transformer.final_layernorm.weight": Evil()}, tmp_path / "published" / "pytorch_model.bin")
    with pytest.raises(DataError, match="pytorch_model.bin: holds more than tensors"):
        convert(ConvertConfig(model=str(tmp_path / "published"), out=str(tmp_path / "out")))
    assert "was run" not in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_cut_missing_and_foreign_files_are_named(tmp_path):
    folder = tmp_path / "published"
    model = chatglm6b(folder)
    run = lambda: convert(ConvertConfig(model=str(folder), out=str(tmp_path / "out")))  # noqa: E731
    with pytest.raises(ConfigError, match="holds no weights: expected"):
        run()
    tensors = published_tensors(model)
    write_bin(folder, tensors)
    second = folder / "pytorch_model-00002-of-00002.bin"
    whole = second.read_bytes()
    second.write_bytes(whole[:-300])
    with pytest.raises(DataError, match="00002-of-00002.bin: (cannot be read|holds more than tensors, or is cut)"):
        run()
    second.unlink()
    with pytest.raises(DataError, match="index.json: names 1 files that are not there, such as pytorch_model-00002"):
        run()
    tensors.pop("transformer.layers.1.mlp.dense_4h_to_h.bias")
    write_bin(folder, {**tensors, "transformer.extra.weight": torch.ones(1)})
    with pytest.raises(DataError, match="1 tensors are missing, such as transformer.layers.1.mlp.dense_4h_to_h.bias, 1 are unknown, such as transformer.extra"):
        run()
    write_config(folder, V1, vocab_size=model.config.vocab_size, inner_hidden_size=40)
    write_bin(folder, published_tensors(model))
    with pytest.raises(DataError, match=r"has the shape \(24, 16\), by config.json \(40, 16\) is expected"):
        run()
    (folder / "ice_text.model").unlink()
    with pytest.raises(ConfigError, match="has no ice_text.model"):
        run()
    assert not (tmp_path / "out").exists()


def test_a_prefix_in_the_checkpoint_is_left_out_with_a_word(tmp_path, caplog):
    model = chatglm6b(tmp_path / "published")
    write_bin(tmp_path / "published", {**published_tensors(model), "transformer.prefix_encoder.embedding.weight": torch.ones(3, 64)})
    convert(ConvertConfig(model=str(tmp_path / "published"), out=str(tmp_path / "out")))
    assert "1 tensors of a P-tuning v2 prefix are left out" in caplog.text


@pytest.mark.parametrize(("config", "message"), [
    ({"model_type": "llama"}, "is a model of type 'llama'; convert reads original ChatGLM"),
    ({"model_type": "glm"}, "Models in Hugging Face's own form need no conversion"),
    ({**V2, "vision_config": {}}, "a model of text and images"),
    ({"model_type": "chatglm"}, "of no known generation of ChatGLM"),
    (V2, "the configs of ChatGLM2 and ChatGLM3 are alike.*--generation chatglm2 or chatglm3"),
])
def test_what_is_not_converted_is_refused_in_words(tmp_path, config, message):
    with pytest.raises(ConfigError, match=message):
        generation_of(write_config(tmp_path / "m", config))


def test_settings_that_no_published_model_has_are_refused(tmp_path):
    assert generation_of(write_config(tmp_path / "m", V2), "chatglm2") == "chatglm2"
    with pytest.raises(ConfigError, match="has no config.json"):
        generation_of(tmp_path)
    with pytest.raises(ConfigError, match="says rmsnorm False; all published models have True"):
        native_config({**V2, "rmsnorm": False, "padded_vocab_size": 40}, "chatglm2", {})
    with pytest.raises(ConfigError, match="says position_encoding_2d False"):
        native_config({**V1, "position_encoding_2d": False}, "chatglm", {})
    folder = write_config(tmp_path / "small", V2, padded_vocab_size=64000)
    (folder / "tokenizer.model").write_bytes(small_chatglm3())
    with pytest.raises(ConfigError, match="ids up to 64793, the model 64000 rows"):
        convert(ConvertConfig(model=str(folder), generation="chatglm2", out=str(tmp_path / "out")))
