"""The table of families against transformers' own models, and the two families that become LLaMA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zhtune import references
from zhtune.errors import ConfigError
from zhtune.models.families import FAMILIES, family, family_of, refuse
from zhtune.models.shapes import SHAPES, write_shape

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer

from zhtune.models.load import load_model, materialise, open_encoder
from zhtune.models.to_llama import llama_config, llama_tensors
from zhtune.stages.convert import ConvertConfig, convert
from zhtune.tokenizers.spm import SpPiece, write_spm

TINY = sorted(name for name in SHAPES if name.endswith("-tiny"))


@pytest.mark.parametrize("shape", TINY)
def test_the_table_names_every_linear_layer_and_the_right_outputs(shape: str, tmp_path: Path):
    write_shape(shape, tmp_path)
    found, model = family_of(tmp_path), load_model(tmp_path)
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
    assert set(found.linear) == linear and set(found.scaled) <= linear
    assert sum(name.endswith(found.outputs) for name, _ in model.named_modules()) == 2 * model.config.num_hidden_layers


def test_gguf_names_are_llama_cpps():
    gguf = pytest.importorskip("gguf")
    assert {f.gguf for f in FAMILIES.values()} - {""} <= set(gguf.MODEL_ARCH_NAMES.values())


def test_a_type_that_is_not_in_the_table_can_do_the_general_things_only():
    found = family({"model_type": "phi9"})
    assert (found.name, found.linear) == ("phi9", "all-linear")
    refuse(found, "lora")
    with pytest.raises(ConfigError, match="p-tuning-v2 of a phi9 model: nobody has tried it on this family; take lora"):
        refuse(found, "p-tuning-v2")
    with pytest.raises(ConfigError, match="packing of a bloom model: its ALiBi counts positions across the documents"):
        refuse(FAMILIES["bloom"], "packing")


def test_what_needs_remote_code_is_refused_before_weights_are_looked_at(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "baichuan"}))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="loading of a baichuan model: .* make it a LLaMA folder with zhtune convert"):
        materialise(references.resolve(str(tmp_path)), tmp_path / "scratch")


@pytest.mark.parametrize("kind", ["baichuan", "internlm", "internlm2"])
def test_a_fused_checkpoint_becomes_the_llama_it_was_made_of(kind: str, tmp_path: Path):
    """Fuse a LLaMA's matrices row by row as the published layouts say, convert, and find every weight in its place again."""
    theirs = {"model_type": kind, "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
              "num_attention_heads": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "bias": kind == "internlm"}
    theirs |= {"num_key_value_heads": 2, "rope_theta": 1e6, "rope_scaling": {"type": "dynamic", "factor": 2.0}} if kind == "internlm2" else {}
    ours = llama_config(theirs)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**ours, attn_implementation="eager"))
    assert model.config.attention_bias is (kind == "internlm")
    weights, fused = model.state_dict(), {}
    for layer in range(2):
        name = f"model.layers.{layer}.self_attn."
        q, k, v = (weights[f"{name}{p}_proj.weight"] for p in "qkv")
        if kind == "baichuan":
            fused[name + "W_pack.weight"] = torch.cat([q, k, v])
        elif kind == "internlm2":                           # 4 heads of 4 rows, 2 groups: head 0, 1, key 0, value 0, head 2, 3, key 1, value 1
            fused[f"model.layers.{layer}.attention.wqkv.weight"] = torch.cat([q[:8], k[:4], v[:4], q[8:], k[4:], v[4:]])
    back = {"model.embed_tokens": "model.tok_embeddings", "lm_head": "output", "self_attn.o_proj": "attention.wo", "mlp.gate_proj":
            "feed_forward.w1", "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm",
            "post_attention_layernorm": "ffn_norm"} if kind == "internlm2" else {}
    for name, weight in weights.items():
        if kind != "internlm" and any(f".{p}_proj." in name for p in "qkv"):
            continue
        for new, old in back.items():
            name = name.replace(new, old)
        fused[name] = weight
    fused["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    made = dict(pair for name, tensor in fused.items() for pair in llama_tensors(theirs, name, tensor))
    assert made.keys() == weights.keys() and all(torch.equal(made[name], weights[name]) for name in weights)
    convert_folder(theirs, fused, model, tmp_path)


def convert_folder(theirs: dict[str, Any], fused: dict[str, Any], model: Any, folder: Path) -> None:
    """The same through the verb: a folder that loads, answers as the LLaMA did, and tokenizes as its SentencePiece model."""
    from safetensors.torch import save_file
    published = folder / "published"
    published.mkdir()
    save_file(fused, published / "model.safetensors")
    (published / "config.json").write_text(json.dumps({**theirs, "auto_map": {"AutoModel": "modeling.Model"}}))
    (published / "tokenizer.model").write_bytes(write_spm([SpPiece("▁", 0.0), SpPiece("医", -1.0), SpPiece("生", -2.0), SpPiece("医生", -3.0)]))
    (published / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["tok.Tok", None]}, "eos_token": "</s>"}))
    made = convert(ConvertConfig(model=str(published), out=str(folder / "converted")))
    assert "auto_map" not in (made.path / "config.json").read_text() + (made.path / "tokenizer_config.json").read_text()
    ids = torch.tensor([[3, 9, 12, 30]])
    with torch.inference_mode():
        assert torch.equal(load_model(made.path)(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    assert Tokenizer.from_file(str(made.path / "tokenizer.json")).encode("医生生", add_special_tokens=False).tokens == ["医生", "生"]


def test_baichuan2_has_a_normalised_output_and_baichuan_13b_no_rope():
    theirs = {"model_type": "baichuan", "vocab_size": 125696}
    (_, head), = llama_tensors(theirs, "lm_head.weight", torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    assert head.tolist() == [[pytest.approx(.6), pytest.approx(.8)], [0.0, 1.0]]
    with pytest.raises(ConfigError, match="ALiBi in the place of RoPE"):
        llama_config({"model_type": "baichuan", "hidden_size": 5120, "model_max_length": 4096})


@pytest.mark.parametrize(("shape", "template", "stops"), [
    ("qwen2-tiny", "chatml", ["<|endoftext|>", "<|im_end|>"]), ("qwen3-tiny", "qwen3", ["<|endoftext|>", "<|im_end|>"]),
    ("llama-tiny", "llama2", ["<|im_end|>"]), ("gemma-tiny", "chatml", ["<|im_end|>"])])
def test_answers_end_where_the_family_ends_them_and_its_template_is_suggested(shape: str, template: str, stops: list[str], tmp_path: Path):
    """The files of these shapes name <|im_end|> alone; tokens that a tokenizer lacks, such as Gemma's <end_of_turn>, stop nothing."""
    write_shape(shape, tmp_path)
    encoder, _ = open_encoder(references.resolve(str(tmp_path)), tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [tokenizer.id_to_token(i) for i in encoder.stop_ids] == stops
    documents, _ = open_encoder(references.resolve(str(tmp_path)), tmp_path, chat=False)
    assert documents.end_id == tokenizer.token_to_id("<|im_end|>")
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=f"has no chat template; name one with --template, such as --template {template}$"):
        open_encoder(references.resolve(str(tmp_path)), tmp_path)


def test_templates_are_shipped():
    from zhtune.templates.render import named_template
    assert all(named_template(found.template) for found in FAMILIES.values() if found.template)
