"""Rows of new tokens: inits by hand, both kinds of spelling, the gate, padded rows, and one size through adapter, merge and GGUF."""

from __future__ import annotations

import json
import math
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from zhtune import references
from zhtune.errors import ConfigError
from zhtune.models.engine import Sampling
from zhtune.models.open import open_engine
from zhtune.models.shapes import write_byte_tokenizer
from zhtune.records import write_jsonl
from zhtune.templates.encode import ChatEncoder
from zhtune.vocabulary.bytelevel import extend_bytelevel
from zhtune.vocabulary.gates import GateFailed, require_passed
from zhtune.vocabulary.pieces import Piece
from zhtune.vocabulary.symbols import to_symbols

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from zhtune.models.bits import bits_per_character
from zhtune.models.extend import base_rows, check_rows, extend_rows, spell, token_indices
from zhtune.models.load import load_model

ASK = [{"role": "user", "content": "医"}]
SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 128}


def letters(*new: str) -> tuple[dict[str, Any], dict[str, Any], range]:
    """A base of the tokens a, b, c, d without merges, and the same with new tokens at 4, 5, …"""
    base = {"model": {"type": "BPE", "vocab": {t: i for i, t in enumerate("abcd")}, "merges": []}}
    return base, {"model": {"vocab": {t: i for i, t in enumerate([*"abcd", *new])}}}, range(4, 4 + len(new))


def small_model(rows: int = 4, tied: bool = False, bias: bool = False, dtype: Any = torch.float32) -> Any:
    """Rows are 1, 2, 4, 8 … in the embedding, and 3 times that in an untied head; biases are the row's number."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, vocab_size=rows, tie_word_embeddings=tied))
    if bias:
        model.lm_head = torch.nn.Linear(8, rows, bias=True)
    with torch.no_grad():
        values = 2.0 ** torch.arange(rows)[:, None].expand(rows, 8)
        model.get_input_embeddings().weight.copy_(values)
        if not tied:
            model.lm_head.weight.copy_(3 * values)
        if bias:
            model.lm_head.bias.copy_(torch.arange(rows))
    return model.to(dtype)


def column(weight: Any) -> list[float]:
    assert weight.dim() == 1 or torch.equal(weight, weight[:, :1].expand_as(weight))
    return (weight[:, 0] if weight.dim() == 2 else weight).tolist()


def test_means_by_hand_in_input_output_and_bias():
    model = small_model(bias=True)
    assert extend_rows(model, *letters("ab", "bcd")) == {"rows": 6, "new_rows": 2, "equal_rows": 0}
    assert column(model.get_input_embeddings().weight) == pytest.approx([1, 2, 4, 8, 1.5, 14 / 3])
    assert column(model.lm_head.weight) == pytest.approx([3, 6, 12, 24, 4.5, 14])
    assert column(model.lm_head.bias) == pytest.approx([0, 1, 2, 3, .5, 2])
    model = small_model(bias=True)
    extend_rows(model, *letters("ab", "bcd"), init="weighted-mean")
    second, third = math.exp(-.7), math.exp(-1.4)
    rows = [(1 + 2 * second) / (1 + second), (2 + 4 * second + 8 * third) / (1 + second + third)]
    assert column(model.get_input_embeddings().weight[4:]) == pytest.approx(rows)
    assert column(model.lm_head.weight[4:]) == pytest.approx([3 * row for row in rows])
    assert column(model.lm_head.bias[4:]) == pytest.approx([second / (1 + second), (1 + 2 * second + 3 * third) / (1 + second + third)])
    model = small_model(bias=True)
    assert extend_rows(model, *letters("ab", "bcd"), init="mean")["equal_rows"] == 1
    assert column(model.lm_head.weight[4:]) == [11.25, 11.25] and column(model.lm_head.bias[4:]) == [1.5, 1.5]


def test_a_tied_model_stays_tied():
    for init in ("subtoken-mean", "weighted-mean", "mean", "random"):
        model = small_model(tied=True)
        extend_rows(model, *letters("ab"), init=init)
        assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr() and model.lm_head.weight.shape == (5, 8)
        assert model.config.vocab_size == 5 and column(model.lm_head.weight[:4]) == [1, 2, 4, 8]


def test_random_rows_have_the_base_rows_mean_and_deviation_and_a_seed():
    names = [a + b + c for a in "abcd" for b in "abcd" for c in "abcd"]
    made = []
    for seed in (0, 0, 1):
        model = small_model()
        extend_rows(model, *letters(*names), init="random", seed=seed)
        made.append(model.get_input_embeddings().weight[4:].detach())
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    # 1, 2, 4, 8: mean 3.75, mean square 21.25, deviation sqrt(21.25 - 14.0625) = 2.68; 512 draws
    assert made[0].mean().item() == pytest.approx(3.75, abs=.4) and made[0].std().item() == pytest.approx(2.681, abs=.3)
    with pytest.raises(ConfigError, match="no initialisation 'zero' of new rows; there are: subtoken-mean, weighted-mean, mean, random"):
        extend_rows(small_model(), *letters("ab"), init="zero")


def test_tokens_of_the_same_parts_in_another_order_get_other_rows():
    names = ["bcd", "bdc", "cbd", "cdb", "dbc", "dcb", "bcdbcd", "aa", "aaa"]
    model = small_model(dtype=torch.bfloat16)
    torch.manual_seed(0)
    a, b, c, d = torch.nn.init.normal_(model.get_input_embeddings().weight).detach().float()
    before = base_rows(model, range(4, 13))
    assert extend_rows(model, *letters(*names))["equal_rows"] == 0
    rows = model.get_input_embeddings().weight[4:].detach()
    first, second, third = (math.exp(-.02 * k) / 3 for k in range(3))
    assert torch.equal(rows[0], ((b + c + d) / 3).bfloat16())    # the plain mean
    assert torch.allclose(rows[1].float(), first * b + second * d + third * c, rtol=2**-8)  # 8 bits of mantissa
    assert torch.allclose(rows[7].float(), a * (1 + math.exp(-.02)) / 2, rtol=2**-8)
    assert check_rows(model, before, *letters(*names)).passed
    extend_rows(model, *letters(*names), init="weighted-mean")
    gate = check_rows(model, before, *letters(*names))
    assert gate.passed and gate.numbers["equal_rows"] == 0


def byte_fallback_definition() -> dict[str, Any]:
    """<unk>, 256 bytes at 1 to 256, ▁ 257, 患 258, 者 259, 患者 260; a normalizer and a pre-tokenizer that would get in the way."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "患", "者", "患者"]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "post_processor": None, "decoder": None,
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": {p: i for i, p in enumerate(pieces)},
                      "merges": [["患", "者"]]}}


def test_spelling_by_byte_fallback():
    base = byte_fallback_definition()
    new = {"model": {"vocab": {**base["model"]["vocab"], "医": 261, "患者们": 262, "▁患": 263}}}
    # 医 is E5 8C BB, 们 is E4 BB AC; the byte b has the id b + 1.
    assert spell(base, new, range(261, 264)) == [[0xE6, 0x8D, 0xBC], [260, 0xE5, 0xBC, 0xAD], [257, 258]]
    model = small_model(rows=261, bias=True)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.arange(261)[:, None].expand(261, 8))
        model.lm_head.weight.copy_(-torch.arange(261)[:, None].expand(261, 8))
    assert extend_rows(model, base, new, range(261, 264))["rows"] == 264
    rows = [(0xE6 + 0x8D + 0xBC) / 3, (260 + 0xE5 + 0xBC + 0xAD) / 4, 257.5]
    assert column(model.get_input_embeddings().weight[261:]) == pytest.approx(rows)
    assert column(model.lm_head.weight[261:]) == pytest.approx([-row for row in rows])
    assert column(model.lm_head.bias[261:]) == pytest.approx(rows)


def test_spelling_by_bytes(tmp_path: Path):
    write_byte_tokenizer(tmp_path)
    base = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    a, b, c = to_symbols("医")
    base["model"]["vocab"][a + b], base["model"]["merges"] = 259, [[a, b]]
    new = {"model": {"vocab": {**base["model"]["vocab"], a + b + c: 260, to_symbols("医生"): 261}}}
    ids = base["model"]["vocab"]
    assert spell(base, new, range(260, 262)) == [[259, ids[c]], [259, ids[c], *(ids[s] for s in to_symbols("生"))]]


def test_what_the_base_cannot_spell_is_refused_and_the_model_left_alone():
    base = byte_fallback_definition()
    del base["model"]["vocab"]["<0xBB>"]
    new = {"model": {"vocab": {**base["model"]["vocab"], "医": 261, "者患": 262}}}
    model = small_model(rows=261)
    with pytest.raises(ConfigError, match="no tokens for the bytes of 1 new ones, such as '医'"):
        extend_rows(model, base, new, range(261, 263))
    assert model.get_input_embeddings().weight.shape[0] == 261
    with pytest.raises(ConfigError, match="no tokens for the bytes of 1 new ones, such as 'ax'"):
        extend_rows(model, *letters("ax"))
    with pytest.raises(ConfigError, match="the model has 3 embedding rows, its tokenizer ids up to 3"):
        extend_rows(small_model(rows=3), *letters("ab"))


def test_the_gate_passes_and_says_how_long_rows_are():
    model = small_model(rows=7)
    before = base_rows(model, range(4, 6))
    extend_rows(model, *letters("ab", "cd"))
    gate = check_rows(model, before, *letters("ab", "cd"))
    root = math.sqrt(8)                                     # a row of eight equal numbers is √8 of them long
    assert gate.passed and gate.examples == []
    # base 1, 2, 4, 8: quartiles 1.75 and 5; new 1.5 and 6: torch's median is the lower one. Row 6 stays padding.
    assert gate.numbers == {
        "rows": 7, "new_rows": 2, "padded_rows": 1, "norm": round(1.5 * root, 4), "base_norm_low": round(1.75 * root, 4),
        "base_norm_high": round(5 * root, 4), "norm_within": 0, "output_norm": round(4.5 * root, 4),
        "output_base_norm_low": round(5.25 * root, 4), "output_base_norm_high": round(15 * root, 4), "output_norm_within": 0,
        "not_finite": 0, "equal_rows": 0, "base_matrices_changed": 0}
    assert column(model.get_input_embeddings().weight[6:]) == [64]


@pytest.mark.parametrize(("fault", "says"), [
    ("base", "1 matrices of the base's rows have changed"), ("padding", "1 matrices of the base's rows have changed"),
    ("finite", "8 new weights are not finite"), ("equal", "rows 4 and 5 are equal"), ("config", "sizes of embedding, output and config differ"),
    ("short", "7 rows, 9 are needed")])
def test_the_gate_fails_in_words(fault: str, says: str):
    model, (old, new, ids) = small_model(rows=7), letters("ab", "cd")
    before = base_rows(model, ids)
    extend_rows(model, old, new, ids)
    embedding, head = model.get_input_embeddings().weight.data, model.lm_head.weight.data
    if fault == "base":
        head[3, 5] = torch.nextafter(head[3, 5], torch.tensor(99.0))    # one bit
    elif fault == "padding":
        embedding[6, 0] = 63
    elif fault == "finite":
        head[5] = torch.nan
    elif fault == "equal":
        embedding[5] = embedding[4]
    elif fault == "config":
        model.config.vocab_size = 8
    else:
        new["model"]["vocab"]["abcd"] = 8
    gate = check_rows(model, before, old, new, ids)
    assert not gate.passed and says in "; ".join(gate.examples)


def test_equal_rows_are_no_fault_of_the_plain_mean():
    model = small_model()
    before = base_rows(model, range(4, 6))
    extend_rows(model, *letters("ab", "cd"), init="mean")
    assert check_rows(model, before, *letters("ab", "cd"), "mean").passed
    assert not check_rows(model, before, *letters("ab", "cd")).passed
    model = small_model()
    model.get_input_embeddings().weight.data[1] = torch.inf
    before = base_rows(model, range(4, 5))
    extend_rows(model, *letters("ab"))
    with pytest.raises(GateFailed, match="8 new weights are not finite: the base's hold infinities or are no numbers"):
        require_passed([check_rows(model, before, *letters("ab"))])


@pytest.fixture
def padded(tmp_path: Path) -> Path:
    """new:llama-tiny with a gap (id 259) between its tokens, 4 padded rows behind them, and these 5 rows the loudest of all."""
    folder = tmp_path / "padded"
    write_byte_tokenizer(folder)
    definition = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    definition["model"]["vocab"][to_symbols("医")[:2]] = 260
    (folder / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    config = transformers.LlamaConfig(**SMALL, vocab_size=265, tie_word_embeddings=False, bos_token_id=None, eos_token_id=2)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.get_input_embeddings().weight.fill_(1.0)      # the last state is 1 … 1 whatever stood before
        head = model.lm_head.weight.zero_()
        head[[259, 261, 262, 263, 264]] = 5.0
        head[260] = .2
    model.save_pretrained(folder)
    return folder


def test_rows_without_a_token_are_never_generated(padded: Path):
    encoder = ChatEncoder(padded)
    assert encoder.size == 261 and encoder.unused(265) == [259, 261, 262, 263, 264]
    engine = open_engine(references.resolve(str(padded)))
    prompt = encoder.prompt(ASK)
    greedy = [token for (token,) in engine._decode([prompt], Sampling(max_tokens=4))]
    assert greedy == [260] * 4                              # the last token, behind the gap, is the best of those that are tokens
    sampled = [token for step in engine._decode([prompt] * 8, Sampling(max_tokens=40, temperature=1.0, seed=3)) for token in step
               if token is not None]
    assert len(sampled) > 40 and len(set(sampled)) > 1 and not set(sampled) & {259, 261, 262, 263, 264}


def test_bits_count_rows_without_a_token(padded: Path):
    model, encoder = load_model(padded), ChatEncoder(padded)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    # "医a" has 4 bytes, each 1 of 265 equally likely rows: 4 log2(265) bits for two characters, not 4 log2(260).
    assert bits_per_character(model, encoder, ["医a"]) == pytest.approx(2 * math.log2(265), rel=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_peft_trains_the_new_rows_only(tied: bool, tmp_path: Path):
    peft = pytest.importorskip("peft")
    model = small_model(rows=8, tied=tied)
    torch.nn.init.normal_(model.get_input_embeddings().weight)
    indices = token_indices(model, range(4, 6))
    assert indices == ({"embed_tokens": [4, 5]} if tied else {"embed_tokens": [4, 5], "lm_head": [4, 5]})
    old = {name: weight.clone() for name, weight in model.state_dict().items()}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM",
                                                         trainable_token_indices=indices))
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=.05, weight_decay=0.0)
    ids = torch.tensor([[0, 4, 5, 1, 4, 5, 2]])
    for _ in range(3):
        adapted(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    fresh = small_model(rows=8, tied=tied)
    fresh.load_state_dict(old)
    merged = peft.PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).merge_and_unload()
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=ids).logits, expected, atol=1e-4)
    assert (merged.lm_head.weight.data_ptr() == merged.get_input_embeddings().weight.data_ptr()) == tied
    for now, before in ((merged.get_input_embeddings().weight, old["model.embed_tokens.weight"]), (merged.lm_head.weight, old["lm_head.weight"])):
        assert (now != before).any(dim=1).nonzero()[:, 0].tolist() == [4, 5]


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """new:llama-tiny extended by three characters and a word (two of its helpers are shared by none)."""
    from zhtune.models.load import copy_tokenizer, materialise
    base, folder = materialise(references.resolve("new:llama-tiny"), tmp_path / "base"), tmp_path / "extended"
    pieces = [*(Piece(c, "atom", 5) for c in "医生病"), Piece("医生", "word", 3, "医", "生")]
    old = json.loads((base / "tokenizer.json").read_text("utf-8"))
    new, extension = extend_bytelevel(old, pieces)
    model = load_model(base)
    extend_rows(model, old, new, range(extension.base_size, extension.base_size + len(extension.tokens)))
    model.save_pretrained(folder)
    copy_tokenizer(base, folder)
    (folder / "tokenizer.json").write_text(json.dumps(new), "utf-8")
    (folder / "extension.json").write_text(json.dumps(extension.summary()), "utf-8")
    return folder


def test_one_size_and_the_same_ids_from_extension_to_gguf(extended: Path, tmp_path: Path):
    pytest.importorskip("trl")
    from zhtune.stages.merge import MergeConfig, merge
    from zhtune.stages.sft import SftConfig, sft
    from zhtune.train.adapter import Lora
    from zhtune.train.schedule import Schedule
    text = " 医生说：病 a1"
    # 259 base rows, 3 helpers, 3 characters, 1 word; 医生 and 病 are one token, 说 and ： three bytes each.
    expected = ChatEncoder(extended).text_ids(text)
    assert len(expected) == 1 + 1 + 3 + 3 + 1 + 3 and max(expected) == 265
    write_jsonl(tmp_path / "talks.jsonl", [{"id": "0", "messages": [{"role": "user", "content": "病"}, {"role": "assistant", "content": "医生"}]}])
    adapter = sft(SftConfig(model=str(extended), records=str(tmp_path / "talks.jsonl"), method="lora", lora=Lora(rank=2, alpha=4),
                            schedule=Schedule(learning_rate=1e-2, epochs=2, batch_size=1, precision="fp32"), out=str(tmp_path / "adapter")))
    merged = merge(MergeConfig(adapter=str(adapter.path), out=str(tmp_path / "merged"))).path
    for folder in (extended, merged):
        model = load_model(folder)
        assert {model.get_input_embeddings().weight.shape[0], model.lm_head.weight.shape[0], model.config.vocab_size} == {266}
        assert ChatEncoder(folder).text_ids(text) == expected
    assert (merged / "extension.json").read_bytes() == (extended / "extension.json").read_bytes()
    with torch.inference_mode():
        ids = torch.tensor([expected])
        left, right = open_engine(references.resolve(str(adapter.path))).model(input_ids=ids).logits, model(input_ids=ids).logits
    assert left.shape[-1] == 266 and torch.allclose(left, right, atol=1e-4)
    if find_spec("gguf") is None or find_spec("xllamacpp") is None:
        return
    from zhtune.stages.quantize import QuantizeConfig, quantize
    quantized = quantize(QuantizeConfig(model=str(merged), out=str(tmp_path / "quantized"))).path
    with closing(open_engine(references.resolve(str(quantized)))) as engine:
        assert engine.ask("GET", "/v1/models")["data"][0]["meta"]["n_vocab"] == 266
        assert engine.tokenize(text) == engine.encoder.text_ids(text) == expected


def test_lora_trains_the_new_rows_where_it_is_asked_to(extended: Path, tmp_path: Path):
    pytest.importorskip("trl")
    from zhtune.stages.merge import MergeConfig, merge
    from zhtune.stages.sft import SftConfig, sft
    from zhtune.train.adapter import Lora
    from zhtune.train.schedule import Schedule
    write_jsonl(tmp_path / "talks.jsonl", [{"id": "0", "messages": [{"role": "user", "content": "病"}, {"role": "assistant", "content": "医生"}]}])

    def config(model: str, out: str) -> SftConfig:
        return SftConfig(model=model, records=str(tmp_path / "talks.jsonl"), method="lora", lora=Lora(rank=2, alpha=4, new_rows=True),
                         schedule=Schedule(learning_rate=1e-2, epochs=2, batch_size=1, precision="fp32"), out=str(tmp_path / out))
    merged = merge(MergeConfig(adapter=str(sft(config(str(extended), "adapter")).path), out=str(tmp_path / "merged"))).path
    before, after = (load_model(folder).get_input_embeddings().weight for folder in (extended, merged))
    changed = (before != after).any(dim=1).nonzero()[:, 0]
    assert set(changed.tolist()) <= set(range(259, 266)) and {264, 265} <= set(changed.tolist())     # 病 and 医生 were seen
    with pytest.raises(ConfigError, match="--lora.new_rows: the model was not extended"):
        sft(config("new:llama-tiny", "other"))
    assert not (tmp_path / "other").exists()
