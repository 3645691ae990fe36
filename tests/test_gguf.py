"""`zhtune quantize` and the llama.cpp engine, on models of two layers made here."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from zhtune import references
from zhtune.errors import ArtifactError, ConfigError, DataError
from zhtune.models.engine import Reply, Sampling
from zhtune.models.open import open_engine
from zhtune.models.shapes import write_byte_tokenizer
from zhtune.stages.quantize import QuantizeConfig, check_tokens, quantize
from zhtune.templates.encode import ChatEncoder
from zhtune.vocabulary.gates import GateFailed
from zhtune.vocabulary.symbols import to_symbols

torch = pytest.importorskip("torch")
pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

ANSWER = "你好，🌿医生龘。"                                  # 🌿 and 龘 are four and three byte tokens in both tokenizers
KNOWN = "你好，医生。"
ASK = [{"role": "user", "content": "你是谁？"}]
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 256, "bos_token_id": None}


def byte_tokenizer(folder: Path) -> None:
    """256 bytes, chat marks, and every character of KNOWN as a token."""
    write_byte_tokenizer(folder)
    file = folder / "tokenizer.json"
    definition = json.loads(file.read_text("utf-8"))
    for char in KNOWN:
        a, b, c = to_symbols(char)
        for left, right in ((a, b), (a + b, c)):
            if left + right not in definition["model"]["vocab"]:
                definition["model"]["vocab"][left + right] = len(definition["model"]["vocab"])
                definition["model"]["merges"].append([left, right])
    file.write_text(json.dumps(definition), "utf-8")


def sentencepiece_tokenizer(folder: Path) -> None:
    """What LLaMA has: ▁ in front, byte fallback, a token of the beginning; 医生 is merged before 生 could be with anything."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *KNOWN, *"abcdehlor", "▁▁", "ll", "医生", "▁h", "ell", "▁hell"]
    merges = [("▁", "▁"), ("l", "l"), ("医", "生"), ("▁", "h"), ("e", "ll"), ("▁h", "ell")]
    added = [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, token in enumerate(special)]
    beginning = [{"SpecialToken": {"id": "<s>", "type_id": 0}}]
    definition = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "pre_tokenizer": None,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                           {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "post_processor": {"type": "TemplateProcessing", "single": [*beginning, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [*beginning, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "vocab": {p: i for i, p in enumerate(pieces)}, "merges": merges},
    }
    (folder / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}), "utf-8")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}", "utf-8")


def parrot(folder: Path, padding: int = 0, answer: list[int] | None = None) -> None:
    """A model beside a tokenizer that answers everything with ANSWER (or ids): attention and MLP give nothing, every token of the answer
    has an axis of its own in the embedding, and the head of that axis points to the next token. Padded rows are the loudest."""
    encoder = ChatEncoder(folder)
    answer = answer or encoder.text_ids(ANSWER)
    assert len(set(answer)) == len(answer) < 120
    model = LlamaForCausalLM(LlamaConfig(**{**SMALL, "hidden_size": 128}, vocab_size=encoder.size + padding))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding, head = model.model.embed_tokens.weight.zero_(), model.lm_head.weight.zero_()
        embedding[:, 0] = 1.0
        for axis, token in enumerate(answer, 1):
            embedding[token, 0], embedding[token, axis] = 0.0, 1.0
        for axis, token in enumerate([*answer, encoder.end_id]):
            head[token, axis] = 10.0
        head[encoder.size:] = 20.0
    model.save_pretrained(folder)


@pytest.fixture(scope="module", params=["byte", "sentencepiece"])
def bird(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parrot's folder, with five padded rows."""
    folder = tmp_path_factory.mktemp(request.param)
    {"byte": byte_tokenizer, "sentencepiece": sentencepiece_tokenizer}[request.param](folder)
    parrot(folder, padding=5)
    return folder


def convert(model: Path | str, out: Path, type: str = "int8", **options: str) -> Path:
    return quantize(QuantizeConfig(model=str(model), type=type, out=str(out), **options)).path


@pytest.mark.parametrize("type", ["int8", "int4", "f16"])
def test_a_parrot_says_its_sentence(bird: Path, tmp_path: Path, type: str):
    out = convert(bird, tmp_path / "q", type)
    assert json.loads((out / "report.json").read_text("utf-8"))["gate"]["texts"] == 14 + 14 * 14 + 2
    encoder = ChatEncoder(out)
    counts = len(encoder.prompt(ASK)), len(encoder.text_ids(ANSWER)) + 1        # the end of turn counts
    spaced = len(encoder.text_ids("a")) == 2                # the one where ▁ comes first
    whole, cut = Reply(ANSWER, *counts, "stop"), 5 + spaced      # 你好， and two of the four bytes of 🌿, which are no character
    with closing(open_engine(references.resolve(str(out)))) as engine:
        assert engine.context == 256
        assert engine.generate([ASK] * 6, Sampling(max_tokens=64)) == [whole] * 6
        *pieces, last = engine.stream(ASK, Sampling(max_tokens=64))
        assert pieces == ["你", "好", "，", "🌿", *(["医生"] if spaced else ["医", "生"]), "龘", "。"] and last == whole
        [short] = engine.generate([ASK], Sampling(max_tokens=cut))
        assert (short.text, short.finish, short.completion_tokens) == ("你好，", "length", cut)
        assert [*engine.stream(ASK, Sampling(max_tokens=cut))] == ["你", "好", "，", short]


def test_a_bare_file_answers_through_the_template_inside(tmp_path: Path):
    byte_tokenizer(tmp_path / "model")
    parrot(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "q")
    shutil.copyfile(tmp_path / "q" / "model.gguf", tmp_path / "bird.gguf")
    with closing(open_engine(references.resolve(str(tmp_path / "bird.gguf")))) as engine:
        assert engine.encoder is None
        *pieces, last = engine.stream(ASK, Sampling(max_tokens=64))
        [reply] = engine.generate([ASK], Sampling(max_tokens=64))
        for answer in (lambda m: engine.generate([m], Sampling()), lambda m: next(engine.stream(m, Sampling()))):
            with pytest.raises(DataError, match=r"has \d+ tokens, the context is 256"):
                answer([{"role": "user", "content": "龘" * 200}])
        with pytest.raises(ConfigError, match=r"bird.gguf has no adapter of its own beside its weights that an answer could leave out"):
            engine.generate([ASK], Sampling(adapter=False))
    assert pieces == [*ANSWER]
    assert last == reply == Reply(ANSWER, len(ChatEncoder(tmp_path / "model").prompt(ASK)), 14, "stop")


def test_a_broken_character_within_an_answer_stays_one_at_its_end_is_dropped(tmp_path: Path):
    byte_tokenizer(tmp_path / "model")
    vocabulary = json.loads((tmp_path / "model" / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    you, good, life = (vocabulary[to_symbols(char)] for char in "你好生")
    a, b = (vocabulary[char] for char in to_symbols("🌿")[:2])
    parrot(tmp_path / "model", answer=[you, a, good, life, b])
    with closing(open_engine(references.resolve(str(convert(tmp_path / "model", tmp_path / "q"))))) as engine:
        [reply] = engine.generate([ASK], Sampling(max_tokens=64))
        *pieces, last = engine.stream(ASK, Sampling(max_tokens=64))
    assert reply.text == "你\ufffd好生" and last == reply and "".join(pieces) == reply.text


def test_a_conversation_longer_than_the_context(bird: Path, tmp_path: Path):
    with closing(open_engine(references.resolve(str(convert(bird, tmp_path / "q"))))) as engine:
        for answer in (lambda m: engine.generate([ASK, m], Sampling()), lambda m: next(engine.stream(m, Sampling()))):
            with pytest.raises(DataError, match=r"has \d+ tokens, the context is 256"):
                answer([{"role": "user", "content": "龘" * 200}])
        stream = engine.stream(ASK, Sampling())
        assert next(stream) == "你"
        stream.close()                                      # ends the generation; the engine goes on
        assert engine.generate([ASK], Sampling())[0].text == ANSWER


ROPES = {
    "default": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    "llama3": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                                   "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "bias": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "head_dim": {"head_dim": 32, "num_key_value_heads": 1},
    "mistral": {"model_type": "mistral", "sliding_window": 128},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
}


@pytest.mark.parametrize("changes", ROPES.values(), ids=ROPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_probabilities_equal_those_of_transformers(tmp_path: Path, changes: dict, dtype: str):
    byte_tokenizer(tmp_path / "model")
    rows = ChatEncoder(tmp_path / "model").size
    torch.manual_seed(1)
    settings = {"model_type": "llama", **SMALL, **changes}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings, vocab_size=rows, initializer_range=0.1))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "_norm." in name:
                weight.normal_(0.5, 0.3)
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path / "model", max_shard_size="60KB")
    assert len([*(tmp_path / "model").glob("*.safetensors")]) > 1
    encoder, model = ChatEncoder(tmp_path / "model"), model.float().eval()
    for number in range(50):                                # llama.cpp tells no probabilities of a first token that is half a character
        ids = encoder.prompt([{"role": "user", "content": f"高血压要挂什么科？ head {number}"}])
        with torch.no_grad():
            expected = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], -1)
        if encoder.decode([int(expected.argmax())]).isascii():
            break
    with closing(open_engine(references.resolve(str(convert(tmp_path / "model", tmp_path / "q", "f16"))))) as engine:
        assert engine.context == changes.get("sliding_window", 256)
        answer = engine.ask("POST", "/completion", {"prompt": ids, "n_predict": 1, "n_probs": 50, "temperature": 0})
    found = {p["id"]: p["logprob"] for p in answer["completion_probabilities"][0]["top_logprobs"]}
    assert len(ids) > 40 and len(found) == 50
    assert max(abs(expected[i].item() - value) for i, value in found.items()) < 2e-2


def test_bits_per_weight_by_hand(tmp_path: Path):
    """llama-tiny: embedding 259 x 64; a layer 64 x 64 (q, o), 32 x 64 (k, v), 128 x 64 (gate, up, down); 5 norms of 64."""
    out = convert("new:llama-tiny", tmp_path / "q", "int4")
    report = json.loads((out / "report.json").read_text("utf-8"))
    shares = {row["type"]: (row["tensors"], row["weights"], row["bits_per_weight"]) for row in report["tensors"]}
    assert shares == {"Q8_0": (1, 16_576, 8.5), "Q4_1": (14, 73_728, 5.0), "F32": (5, 320, 32.0)}
    size = 16_576 // 32 * 34 + 73_728 // 32 * 20 + 320 * 4
    assert size == 64_972 and report["metrics"]["bits_per_weight"] == round(8 * size / 90_624, 3) == 5.736
    assert (out / "model.gguf").stat().st_size > size
    again = convert("new:llama-tiny", tmp_path / "again", "int4")
    assert (out / "model.gguf").read_bytes() == (again / "model.gguf").read_bytes()


@pytest.mark.parametrize("type", ["int8", "int4"])
def test_rounding_stays_within_half_a_step(tmp_path: Path, type: str):
    import gguf
    from safetensors.numpy import load_file

    from zhtune.export.gguf import permute
    from zhtune.models.shapes import write_shape
    write_shape("llama-tiny", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    reader = gguf.GGUFReader(convert(tmp_path / "model", tmp_path / "q", type) / "model.gguf")
    tensors = {t.name: t for t in reader.tensors}
    assert "output.weight" not in tensors                   # tied
    for name, source, heads in (("blk.1.attn_q", "model.layers.1.self_attn.q_proj", 4), ("blk.0.attn_k", "model.layers.0.self_attn.k_proj", 2),
                                ("blk.1.ffn_down", "model.layers.1.mlp.down_proj", 0), ("token_embd", "model.embed_tokens", 0)):
        tensor, exact = tensors[f"{name}.weight"], weights[f"{source}.weight"]
        exact = (permute(exact, heads) if heads else exact).reshape(-1, 32)
        error = np.abs(gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(-1, 32) - exact).max(1)
        assert tensor.tensor_type.name == ("Q8_0" if type == "int8" or name == "token_embd" else "Q4_1")
        step = np.abs(exact).max(1) / 127 if tensor.tensor_type.name == "Q8_0" else (exact.max(1) - exact.min(1)) / 15
        assert (error <= step * 0.57).all() and error.max() > 0     # 127 x float16's error of the scale: 1/16 step


def test_rope_pairs_by_hand():
    from zhtune.export.gguf import permute
    assert permute(np.arange(12), 2).tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_a_width_that_holds_no_blocks_stays_in_16_bits(tmp_path: Path):
    byte_tokenizer(tmp_path / "model")
    changes = {"hidden_size": 80, "intermediate_size": 64}  # 80 is no multiple of 32: only down_proj (64) is quantized
    LlamaForCausalLM(LlamaConfig(**{**SMALL, **changes}, vocab_size=ChatEncoder(tmp_path / "model").size)).save_pretrained(tmp_path / "model")
    report = json.loads((convert(tmp_path / "model", tmp_path / "q", "int4") / "report.json").read_text("utf-8"))
    assert {row["type"]: row["tensors"] for row in report["tensors"]} == {"F16": 14, "Q4_1": 2, "F32": 5}


def test_the_gate_catches_another_tokenizer(tmp_path: Path):
    byte_tokenizer(tmp_path / "model")
    parrot(tmp_path / "model")
    out = convert(tmp_path / "model", tmp_path / "q")
    shutil.copytree(out, tmp_path / "other")
    definition = json.loads((out / "tokenizer.json").read_text("utf-8"))
    definition["pre_tokenizer"]["pretokenizers"] = definition["pre_tokenizer"]["pretokenizers"][1:]
    definition["model"]["merges"].append(["1", "2"])
    definition["model"]["vocab"]["12"] = definition["model"]["vocab"].pop("z")
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    with pytest.raises(GateFailed, match=r"other token ids than tokenizer\.json to \d+ of 212 texts, such as: "):
        check_tokens(tmp_path / "other", ChatEncoder(tmp_path / "other"))


def spoil(folder: Path, file: str, change) -> None:
    value = json.loads((folder / file).read_text("utf-8"))
    change(value)
    (folder / file).write_text(json.dumps(value), "utf-8")


@pytest.mark.parametrize("file, change, words", [
    ("config.json", lambda c: c.update(model_type="bloom"), "is a bloom model; GGUF files are written of llama, mistral, qwen2, qwen3 so far"),
    ("config.json", lambda c: c.update(model_type="phi9"), "is a phi9 model; GGUF files are written of llama, mistral, qwen2, qwen3 so far"),
    ("config.json", lambda c: c.update(vocab_size=100), "ids up to .* the embedding has 100 rows"),
    ("config.json", lambda c: c.update(num_hidden_layers=1), "which a llama of 1 layers has not"),
    ("config.json", lambda c: c.update(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}), "RoPE of type yarn"),
    ("tokenizer.json", lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "no name for the pre-tokenizer"),
])
def test_what_cannot_be_written_is_refused(tmp_path: Path, file: str, change, words: str):
    byte_tokenizer(tmp_path / "model")
    parrot(tmp_path / "model")
    spoil(tmp_path / "model", file, change)
    with pytest.raises(ConfigError, match=words):
        convert(tmp_path / "model", tmp_path / "q")
    assert not (tmp_path / "q").exists()


def test_an_adapter_is_to_be_merged_first(tmp_path: Path):
    manifest = {"kind": "adapter", "format": 1, "identity": {}, "inputs": [], "counts": {}, "metrics": {}, "licences": [], "files": []}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}', "utf-8")
    with pytest.raises(ConfigError, match="merge it first: zhtune merge"):
        convert(tmp_path / "adapter", tmp_path / "q")


def test_a_full_disk_is_said_in_one_line(bird: Path, tmp_path: Path):
    import resource
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(ArtifactError, match="the disk is full"):
            convert(bird, tmp_path / "q")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "q").exists()
    assert (convert(bird, tmp_path / "q") / "manifest.json").exists()


def test_a_file_that_is_cut_or_no_gguf(bird: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    whole = (convert(bird, tmp_path / "q") / "model.gguf").read_bytes()
    with pytest.raises(ConfigError, match="is quantized already"):
        convert(tmp_path / "q", tmp_path / "q2")
    for name, content, words in (("cut", whole[:-5000], "cannot be loaded: it is cut or corrupt"), ("header", whole[:200], "cannot be loaded"),
                                 ("text", b"hello", "no GGUF file"), ("empty", b"", "no GGUF file")):
        file = tmp_path / f"{name}.gguf"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            open_engine(references.resolve(str(file)))
    assert capfd.readouterr() == ("", "")                   # llama.cpp's own log stays out of the terminal


def test_stop_strings_end_the_content_not_what_the_template_puts_before_it(bird: Path, tmp_path: Path):
    out = convert(bird, tmp_path / "q", "f16")
    for folder in (bird, out):
        with closing(open_engine(references.resolve(str(folder)))) as engine:
            engine.encoder._lead = ANSWER[:2]               # as a line break or an empty thinking block
            for stop, said, finish in ((ANSWER[0], ANSWER[2:], "stop"), (ANSWER[1] + ANSWER[2], ANSWER[2:], "stop"), (ANSWER[-2:], ANSWER[2:-2], "stop")):
                if hasattr(engine, "_cuts"):
                    engine._cuts = engine.encoder.leads
                sampling = Sampling(max_tokens=64, stop=(stop,))
                [reply] = engine.generate([ASK], sampling)
                *pieces, last = engine.stream(ASK, sampling)
                assert (reply.text, reply.finish) == (said, finish) and "".join(pieces) == last.text == said and last.finish == finish
