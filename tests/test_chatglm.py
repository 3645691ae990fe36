"""ChatGLM-6B (v1): equal to the published code's outputs, and to a second implementation at other sizes."""

import json
from pathlib import Path

import numpy as np
import pytest
from chatglm_reference import reference_logits

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from zhtune import references
from zhtune.errors import ConfigError
from zhtune.models.chatglm.configuration import ChatGLMConfig
from zhtune.models.chatglm.modeling import ChatGLMForCausalLM, rotary_table, two_positions
from zhtune.models.engine import Sampling
from zhtune.models.load import load_model, materialise
from zhtune.models.open import open_engine
from zhtune.models.shapes import write_shape

DATA = Path(__file__).parent / "data" / "chatglm"
NEAR = {"atol": 2e-4, "rtol": 0}
PAD, MASK, GMASK, SOP, EOP = 3, 120, 121, 124, 125
FIXTURE = np.load(DATA / "tiny3.npz")


def fixture(name: str) -> torch.Tensor:
    return torch.from_numpy(FIXTURE[name])


def close(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 2e-4) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def tiny3(request: pytest.FixtureRequest) -> ChatGLMForCausalLM:
    published = json.loads((DATA / "tiny3.config.json").read_text("utf-8"))
    fields = {key: value for key, value in published.items() if key in ChatGLMConfig.__annotations__}
    model = ChatGLMForCausalLM._from_config(ChatGLMConfig(**fields, residual_scale=6**.5), attn_implementation=request.param)
    model.load_state_dict(load_file(DATA / "tiny3.safetensors"))
    return model.eval()


def random_model(**fields) -> ChatGLMForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 130, "hidden_size": 48, "num_layers": 2, "num_attention_heads": 3, "inner_hidden_size": 80, **fields}
    model = ChatGLMForCausalLM(ChatGLMConfig(**sizes, pad_token_id=PAD, mask_token_id=MASK, gmask_token_id=GMASK, bos_token_id=SOP, eos_token_id=EOP))
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn_like(value) * (.3 if value.dim() > 1 else .5) + (value.dim() == 1))
    return model.eval()


def padded(rows: list[list[int]], left: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    gaps = [[PAD] * (width - len(row)) for row in rows]
    ids = torch.tensor([gap + row if left else row + gap for gap, row in zip(gaps, rows)])
    real = torch.tensor([[0] * len(gap) + [1] * len(row) if left else [1] * len(row) + [0] * len(gap) for gap, row in zip(gaps, rows)])
    return ids, real


PROMPTS = [[10, 11, 12, 13, 14, GMASK, SOP], [20, GMASK, SOP], [30, 31, MASK, 32, 33, SOP], [40, 41, GMASK, SOP]]


# The published code's outputs

@pytest.mark.parametrize("case", ["single_gmask", "single_mask", "leftpad_nomask"])
def test_logits_are_those_of_the_published_code(tiny3, case):
    with torch.inference_mode():
        close(tiny3(input_ids=fixture(f"{case}.input_ids")).logits, fixture(f"{case}.logits"))


def test_hidden_states_positions_keys_and_values(tiny3):
    ids = fixture("single_gmask.input_ids")
    with torch.inference_mode():
        out = tiny3(input_ids=ids, output_hidden_states=True, use_cache=True)
    close(torch.stack(out.hidden_states), fixture("single_gmask.hidden_states"), 2e-3)
    close(out.cache.layers[0].keys.permute(2, 0, 1, 3), fixture("single_gmask.key_0"))
    close(out.cache.layers[-1].values.permute(2, 0, 1, 3), fixture("single_gmask.value_last"))
    assert torch.equal(two_positions(ids, None, tiny3.config).transpose(0, 1), fixture("single_gmask.position_ids"))


def test_left_padding_moves_nothing(tiny3):
    ids = fixture("leftpad.input_ids")
    real = (ids != PAD).long()
    assert torch.equal(two_positions(ids, real, tiny3.config).transpose(0, 1), fixture("leftpad.position_ids"))
    with torch.inference_mode():
        logits = tiny3(input_ids=ids, attention_mask=real).logits
    close(logits[real.bool()], fixture("leftpad.logits")[real.bool()])


def test_decoding_with_the_cache(tiny3):
    ids, forced = fixture("decode.input_ids"), fixture("decode.forced")
    rows, real, new, cache, steps = ids, (ids != PAD).long(), ids, None, []
    for step in range(7):
        positions = two_positions(rows, real, tiny3.config)[..., -new.shape[1]:]
        with torch.inference_mode():
            out = tiny3(input_ids=new, attention_mask=real, position_ids=positions, cache=cache, use_cache=True, logits_to_keep=1)
        steps.append(out.logits[:, -1])
        if step < 6:
            cache, new = out.cache, forced[:, step:step + 1]
            rows, real = torch.cat([rows, new], 1), torch.cat([real, torch.ones_like(new)], 1)
    close(torch.stack(steps, 1), fixture("decode.step_logits"))
    assert torch.equal(positions.transpose(0, 1), fixture("decode.last_position_ids"))


@pytest.mark.parametrize("cached", [True, False])
def test_generate_greedy_and_with_beams(tiny3, cached):
    ids = fixture("greedy.input_ids")
    given = {"attention_mask": (ids != PAD).long(), "use_cache": cached}
    greedy, beams = fixture("greedy.output_ids"), fixture("beam3.output_ids")
    assert torch.equal(tiny3.generate(ids, max_new_tokens=greedy.shape[1] - ids.shape[1], **given), greedy)
    assert torch.equal(tiny3.generate(ids, max_new_tokens=beams.shape[1] - ids.shape[1], num_beams=3, **given), beams)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients(tiny3, checkpointing):
    if checkpointing:
        tiny3.gradient_checkpointing_enable()
    tiny3.train()
    out = tiny3(input_ids=fixture("sft.input_ids"), labels=fixture("sft.labels"), use_cache=False)
    out.loss.backward()
    close(out.logits, fixture("sft.logits"))
    close(out.loss, fixture("sft.loss").squeeze(), 1e-5)
    gradients = {name: p.grad for name, p in tiny3.named_parameters()}
    for name in FIXTURE.files:
        if name.startswith("sft.grad."):
            close(gradients[name.removeprefix("sft.grad.")], fixture(name), 2e-5)
        elif name.startswith("sft.gradnorm."):
            close(gradients[name.removeprefix("sft.gradnorm.")].norm(), fixture(name).squeeze(), 2e-4)
    tiny3.zero_grad()
    tiny3.gradient_checkpointing_disable()
    tiny3.eval()


# A second implementation, at other sizes

@pytest.mark.parametrize(("layers", "heads", "hidden", "inner", "scale"), [
    (1, 3, 48, 80, 56**.5), (2, 1, 16, 24, 56**.5), (5, 4, 32, 128, 10**.5), (5, 2, 80, 40, 56**.5)])
def test_other_depths_and_heads_equal_the_reference(layers, heads, hidden, inner, scale):
    model = random_model(num_layers=layers, num_attention_heads=heads, hidden_size=hidden, inner_hidden_size=inner, residual_scale=scale)
    rows = [[*prompt, 50 + i, 60, 61, EOP] for i, prompt in enumerate(PROMPTS)]
    ids, real = padded(rows)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=real).logits
    assert set(weights) == {"lm_head.weight", *load_names(layers)}
    for row, ours in zip(rows, logits):
        theirs = torch.from_numpy(reference_logits(weights, row, layers, heads, scale, SOP, (GMASK, MASK))).float()
        assert theirs.abs().max() > 1
        close(ours[-len(row):], theirs)


def load_names(layers: int) -> set[str]:
    parts = ["input_layernorm", "post_attention_layernorm", "attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]
    names = [f"layers.{i}.{part}" for i in range(layers) for part in parts] + ["final_layernorm"]
    return {f"transformer.{name}.{kind}" for name in names for kind in ("weight", "bias")} | {"transformer.word_embeddings.weight"}


def test_angles_in_float16_are_those_of_the_training():
    model = random_model(hidden_size=64, num_attention_heads=1, rotary_float16=True)
    row = [*range(4, 100)] * 8 + [GMASK, SOP, 7, 8]
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        ours = model(input_ids=torch.tensor([row[700:]])).logits[0]
        close(ours, torch.from_numpy(reference_logits(weights, row[700:], 2, 1, 56**.5, SOP, (GMASK,), half_angles=True)).float())
    at = torch.tensor([[[1001]], [[3]]])                    # float16 cannot tell 1001 · 0.75 from its neighbours
    exact, half = (rotary_table(at, ChatGLMConfig(rotary_float16=on), torch.float32)[0] for on in (False, True))
    assert torch.equal(rotary_table(at, ChatGLMConfig(), torch.float16)[0], half.half())
    assert .05 < (exact - half).abs().max() < .5 and torch.equal(exact[..., 1, 0], half[..., 1, 0])


# Batches, caches and beams against one row at a time

def test_batches_with_padding_equal_rows_one_by_one_without_a_cache():
    model = random_model()
    ids, real = padded(PROMPTS)
    for beams in (1, 3):
        settings = {"max_new_tokens": 8, "num_beams": beams, "eos_token_id": None}
        batched = model.generate(ids, attention_mask=real, **settings)[:, ids.shape[1]:]
        for row, answer in zip(PROMPTS, batched):
            alone = model.generate(torch.tensor([row]), use_cache=False, **settings)[0, len(row):]
            assert torch.equal(alone, answer)


def test_right_padding_changes_no_logits():
    model = random_model()
    rows = [[*prompt, 50, 51, EOP] for prompt in PROMPTS]
    ids, real = padded(rows, left=False)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=real).logits
        for row, ours in zip(rows, logits):
            close(ours[:len(row)], model(input_ids=torch.tensor([row])).logits[0], 1e-4)


def test_a_row_without_sop_is_causal():
    model = random_model()
    row = [9, 10, 11, 12, 13]
    with torch.inference_mode():
        whole, shorter = (model(input_ids=torch.tensor([r])).logits[0] for r in (row, row[:3]))
        close(whole[:3], shorter, 1e-4)
        context = [model(input_ids=torch.tensor([[9, 10, last, GMASK, SOP]])).logits[0, 0] for last in (11, 12)]
    assert (context[0] - context[1]).abs().max() > .1       # a context is not
    assert two_positions(torch.tensor([row]), None, model.config)[:, 0].tolist() == [[0] * 5, [1, 2, 3, 4, 5]]


def test_mask_tokens_of_an_answer_do_not_move_positions():
    model = random_model()
    ids = torch.tensor([[9, MASK, 10, SOP, GMASK, 11]])
    assert two_positions(ids, None, model.config)[:, 0].tolist() == [[0, 1, 2, 1, 1, 1], [0, 0, 0, 1, 2, 3]]


# What cannot be

def test_one_channel_of_positions_or_none_in_an_answer_is_refused():
    model = random_model()
    ids = torch.tensor([PROMPTS[0]])
    with pytest.raises(ValueError, match="must be \\(2, batch, sequence\\)"):
        model(input_ids=ids, position_ids=torch.arange(7)[None])
    cache = model(input_ids=ids, use_cache=True).cache
    with pytest.raises(ValueError, match="pass position_ids of two_positions"):
        model(input_ids=torch.tensor([[5]]), cache=cache)
    with pytest.raises(ValueError, match="cannot be cut into 3 heads of a multiple of 4"):
        ChatGLMConfig(hidden_size=50, num_attention_heads=3)


def test_an_original_checkpoint_is_sent_to_convert(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "chatglm"}', "utf-8")
    with pytest.raises(ConfigError, match="an original ChatGLM checkpoint.*zhtune convert --model"):
        materialise(references.resolve(str(tmp_path)), tmp_path / "scratch")


# In zhtune

def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = random_model()
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    ids = torch.tensor([PROMPTS[0]])
    with torch.inference_mode():
        close(again(input_ids=ids).logits, model(input_ids=ids).logits, 1e-4)
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["model_type"] == "chatglm-6b"
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path), ChatGLMForCausalLM)
    assert again.get_input_embeddings().weight is again.get_output_embeddings().weight


def test_the_engine_answers_as_generate_does(tmp_path):
    write_shape("chatglm-tiny", tmp_path)
    engine = open_engine(references.resolve(str(tmp_path)))
    talks = [[{"role": "user", "content": text}] for text in ("你好", "今天天气怎么样？", "hi")]
    replies = engine.generate(talks, Sampling(max_tokens=12))
    for talk, reply in zip(talks, replies):
        prompt = engine.encoder.prompt(talk)
        assert prompt[-2:] == [2, 3]                        # [gMASK] <sop>
        ids = engine.model.generate(torch.tensor([prompt]), max_new_tokens=12, use_cache=False)[0, len(prompt):].tolist()
        assert reply.completion_tokens == len(ids)
        assert reply.text == engine.encoder.decode([i for i in ids if i != 4]).rstrip("\ufffd")
        assert "".join(piece for piece in list(engine.stream(talk, Sampling(max_tokens=12)))[:-1]) == reply.text


# P-tuning v2: the published code's outputs with a prefix, which never entered its positions

PREFIXED = np.load(DATA / "tiny3_prefix.npz")


def prefixed(name: str) -> torch.Tensor:
    return torch.from_numpy(PREFIXED[name])


@pytest.fixture(scope="module")
def tiny3_prefix():
    from zhtune.models.attached import Attached
    from zhtune.models.prefix import Prefix
    published = json.loads((DATA / "tiny3.config.json").read_text("utf-8"))
    model = ChatGLMForCausalLM(ChatGLMConfig(**{k: v for k, v in published.items() if k in ChatGLMConfig.__annotations__}, residual_scale=6**.5))
    model.load_state_dict(load_file(DATA / "tiny3.safetensors"))
    return Attached(model, Prefix.from_tensors(model, load_file(DATA / "tiny3_prefix.safetensors"))).eval()


@pytest.mark.parametrize("case", ["single_gmask", "single_mask", "leftpad_nomask", "leftpad"])
def test_logits_with_a_prefix_are_those_of_the_published_code(tiny3_prefix, case):
    ids = prefixed(f"{case}.input_ids")
    real = (ids != PAD) if case == "leftpad" else torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode():
        logits = tiny3_prefix(input_ids=ids, attention_mask=real.long() if case == "leftpad" else None).logits
    close(logits[real], prefixed(f"{case}.logits")[real])
    with tiny3_prefix.disable_adapter(), torch.inference_mode():
        close(tiny3_prefix(input_ids=fixture("single_gmask.input_ids")).logits, fixture("single_gmask.logits"))


def test_hidden_states_keys_and_decoding_with_a_prefix(tiny3_prefix):
    with torch.inference_mode():
        out = tiny3_prefix(input_ids=prefixed("single_gmask.input_ids"), output_hidden_states=True, use_cache=True)
    close(torch.stack(out.hidden_states), prefixed("single_gmask.hidden_states"), 2e-3)
    key, value = tiny3_prefix.part.layer(0, 1, out.logits)[0], tiny3_prefix.part.layer(2, 1, out.logits)[1]
    close(torch.cat([key, out.cache.layers[0].keys], 2).permute(2, 0, 1, 3), prefixed("single_gmask.key_0"))
    close(torch.cat([value, out.cache.layers[-1].values], 2).permute(2, 0, 1, 3), prefixed("single_gmask.value_last"))
    ids, forced = prefixed("decode.input_ids"), prefixed("decode.forced")
    rows, real, new, cache, steps = ids, (ids != PAD).long(), ids, None, []
    for step in range(7):
        positions = two_positions(rows, real, tiny3_prefix.config)[..., -new.shape[1]:]
        with torch.inference_mode():
            out = tiny3_prefix(input_ids=new, attention_mask=real, position_ids=positions, cache=cache, use_cache=True, logits_to_keep=1)
        steps.append(out.logits[:, -1])
        if step < 6:
            cache, new = out.cache, forced[:, step:step + 1]
            rows, real = torch.cat([rows, new], 1), torch.cat([real, torch.ones_like(new)], 1)
    close(torch.stack(steps, 1), prefixed("decode.step_logits"))


@pytest.mark.parametrize("cached", [True, False])
def test_generate_with_a_prefix(tiny3_prefix, cached):
    ids, greedy, beams = prefixed("greedy.input_ids"), prefixed("greedy.output_ids"), prefixed("beam3.output_ids")
    given = {"attention_mask": (ids != PAD).long(), "use_cache": cached}
    assert torch.equal(tiny3_prefix.generate(ids, max_new_tokens=greedy.shape[1] - ids.shape[1], **given), greedy)
    assert torch.equal(tiny3_prefix.generate(ids, max_new_tokens=beams.shape[1] - ids.shape[1], num_beams=3, **given), beams)


@pytest.mark.parametrize("checkpointing", [None, True, False])
def test_loss_and_gradient_of_a_prefix(tiny3_prefix, checkpointing):
    """Without checkpointing, and with both kinds of it (reentrant or not)."""
    if checkpointing is not None:
        tiny3_prefix.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        tiny3_prefix.enable_input_require_grads()
    tiny3_prefix.train()
    tiny3_prefix.zero_grad()
    out = tiny3_prefix(input_ids=prefixed("sft.input_ids"), labels=prefixed("sft.labels"), use_cache=False)
    out.loss.backward()
    close(out.logits, prefixed("sft.logits"))
    close(out.loss, prefixed("sft.loss").squeeze(), 1e-5)
    gradient = tiny3_prefix.part.embedding.weight.grad
    close(gradient, prefixed("sft.grad.transformer.prefix_encoder.embedding.weight"), 2e-5)
    close(gradient.norm(), prefixed("sft.gradnorm.transformer.prefix_encoder.embedding.weight").squeeze(), 2e-4)
    tiny3_prefix.gradient_checkpointing_disable()
    tiny3_prefix.eval()
