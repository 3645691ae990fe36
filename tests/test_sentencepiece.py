"""SentencePiece BPE tokenizers: the file, its exact tokenizer.json, the extension and its gates."""

from __future__ import annotations

import io
import json
from pathlib import Path

import orjson
import pytest
import sentencepiece

from zhtune.errors import ConfigError, DataError
from zhtune.records import write_jsonl
from zhtune.stages.extend import ExtendConfig, extend
from zhtune.tokenizers.load import BaseTokenizer, read_tokenizer
from zhtune.tokenizers.spm import BPE, BYTE, CONTROL, NORMAL, UNKNOWN, SpPiece, append_pieces, is_spm, parse_spm, read_spm, write_spm
from zhtune.tokenizers.spm_definition import spm_definition
from zhtune.vocabulary import gates
from zhtune.vocabulary.extend import extend_tokenizer
from zhtune.vocabulary.pieces import Piece, write_pieces

SHARED = Path(__file__).parents[2] / "shared" / "data" / "tokenizers"
TEXT = ["the cat sat on the mat.", "  def f(x):", "\treturn x  # the end", "那人说的是 the cat", "医生，病人。医生", "a ▁b", "", " ", "x" * 9]


def trained(algorithm: str = "bpe") -> bytes:
    """A tiny LLaMA-like model: dummy prefix, byte fallback, no normalisation."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat and the other cat", "那人说的是那人的", "def f(x): return x"] * 20), model_writer=out,
        model_type=algorithm, vocab_size=320, byte_fallback=True, character_coverage=1.0, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True, hard_vocab_limit=False, minloglevel=2)
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    (folder / "tokenizer.model").write_bytes(trained())
    return folder


PIECES = [*(Piece(c, "atom", 5) for c in "医生病人"), Piece("医生", "word", 3, "医", "生"), Piece("病人", "word", 3, "病", "人"),
          Piece("医生病人", "word", 2, "医生", "病人")]


def encode(tokenizer: BaseTokenizer, lines: list[str]) -> list[list[int]]:
    return [e.ids for e in gates.load(tokenizer.definition).encode_batch(lines, add_special_tokens=False)]


def all_gates(base: BaseTokenizer, new: BaseTokenizer, extension, folder: Path) -> dict[str, gates.Gate]:
    (folder / "tokenizer.json").write_bytes(orjson.dumps(new.definition))
    if new.model is not None:
        (folder / "tokenizer.model").write_bytes(new.model.data)
    return {g.name: g for g in gates.run_gates(base, new, extension, TEXT, folder / "tokenizer.json")}


# The file

def test_a_model_is_read_and_grows_behind_its_own_bytes():
    model = parse_spm(write_spm([SpPiece("▁", 0.0), SpPiece("医", -1.0)]))
    assert (model.algorithm, model.byte_fallback, model.bos, model.eos, model.space_prefix) == (BPE, True, 1, 2, False)
    assert model.pieces[0] == SpPiece("<unk>", 0.0, UNKNOWN) and model.pieces[1].type == CONTROL and model.pieces[3] == SpPiece("<0x00>", 0.0, BYTE)
    assert model.pieces[259:] == [SpPiece("▁", 0.0, NORMAL), SpPiece("医", -1.0, NORMAL)]
    more = append_pieces(model, [SpPiece("生", -2.0), SpPiece("医生", -3.0)])
    assert more.data.startswith(model.data) and more.pieces == [*model.pieces, SpPiece("生", -2.0), SpPiece("医生", -3.0)]
    processor = sentencepiece.SentencePieceProcessor(model_proto=more.data)
    assert processor.get_piece_size() == 263 and processor.encode("医生x", out_type=str) == ["医生", "<0x78>"]


@pytest.mark.parametrize("data", [b"", b"\x0a\x05ab", b"PK\x03\x04", b"\x0a\x02\x0a\x00", bytes(50), trained()[:-3]])
def test_what_is_no_model_is_said_to_be_none(data: bytes, tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises((DataError, ConfigError), match="tokenizer.model.*is no(ne| SentencePiece model)|is neither a SentencePiece"):
        read_tokenizer(tmp_path)


def test_tokenizer_json_equals_the_model(folder: Path):
    base = read_tokenizer(folder)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    lines = [*TEXT, *gates.plain_lines()]
    assert encode(base, lines) == processor.encode(lines) and is_spm(folder / "tokenizer.model")
    begin = gates.load(base.definition).encode("a").ids
    assert begin[0] == 1 and begin[1:] == processor.encode("a")


def test_unigram_is_refused_with_the_reason(tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(trained("unigram"))
    base = read_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="unigram tokenizer .* a new piece with any score changes how old text is cut"):
        extend_tokenizer(base, PIECES)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert encode(base, TEXT) == processor.encode(TEXT)     # it can be measured


# The extension

def test_new_pieces_have_falling_scores_below_the_base(folder: Path, tmp_path: Path):
    base = read_tokenizer(folder)
    new, extension = extend_tokenizer(base, PIECES)
    size, lowest = len(base.model.pieces), min(p.score for p in base.model.pieces if p.type == NORMAL)
    # 人 is a piece of the base; its occurrences are 5 of 20.
    assert extension.skipped == {"known": 1} and extension.one_token_share == .25
    assert [(t.id, t.text, t.kind) for t in extension.tokens] == [
        (size, "医", "atom"), (size + 1, "生", "atom"), (size + 2, "病", "atom"), (size + 3, "医生", "word"), (size + 4, "病人", "word"),
        (size + 5, "医生病人", "word")]
    assert [p.score for p in new.model.pieces[size:]] == [lowest - 1 - i for i in range(6)]
    assert encode(new, ["\n医生病人"])[0][-1] == size + 5
    found = all_gates(base, new, extension, tmp_path)
    gates.require_passed(found.values())
    assert list(found) == ["ids", "pieces", "order", "parity", "dead", "context", "drift", "chinese", "round_trip", "reload"]


def test_an_extended_tokenizer_can_be_extended_and_size_is_a_limit(folder: Path, tmp_path: Path):
    first, extension = extend_tokenizer(read_tokenizer(folder), PIECES, size=4)
    assert [t.text for t in extension.tokens] == ["医", "生", "病", "医生"] and extension.skipped == {"known": 1, "over_size": 1, "no_two_parts": 1}
    (tmp_path / "tokenizer.model").write_bytes(first.model.data)
    again, more = extend_tokenizer(read_tokenizer(tmp_path), PIECES)
    assert [t.text for t in more.tokens] == ["病人", "医生病人"] and more.base_size == extension.base_size + 4
    assert again.model.data.startswith(first.model.data)
    with pytest.raises(ConfigError, match="need 4 new tokens; --size must be at least that"):
        extend_tokenizer(read_tokenizer(folder), [*PIECES[:4], Piece("生人", "term", 1, "生", "人")], size=3)


def test_ids_begin_behind_added_tokens(folder: Path, tmp_path: Path):
    size = len(read_spm(folder / "tokenizer.model").pieces)
    (tmp_path / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"add_bos_token": False, "added_tokens_decoder": {str(size + 1): {"content": "<|im_end|>", "special": True}}}), "utf-8")
    base = read_tokenizer(tmp_path)
    new, extension = extend_tokenizer(base, PIECES)
    assert extension.base_size == size + 2 and base.definition["post_processor"] is None
    assert new.model.pieces[size:size + 2] == [SpPiece(f"[PAD{size}]", 0.0, CONTROL), SpPiece("<|im_end|>", 0.0, CONTROL)]
    gates.require_passed(all_gates(base, new, extension, tmp_path).values())


def test_a_tokenizer_json_of_this_family_is_extended_without_a_model(folder: Path, tmp_path: Path):
    (tmp_path / "tokenizer.json").write_bytes(orjson.dumps(read_tokenizer(folder).definition))
    base = read_tokenizer(tmp_path)
    assert base.family == "sentencepiece" and base.model is None
    new, extension = extend_tokenizer(base, PIECES)
    assert new.definition["model"]["merges"][-3:] == [["医", "生"], ["病", "人"], ["医生", "病人"]]
    found = all_gates(base, new, extension, tmp_path)
    gates.require_passed(found.values())
    assert "order" not in found


def test_planted_faults_fail_their_gate_in_words(folder: Path, tmp_path: Path):
    base = read_tokenizer(folder)
    new, extension = extend_tokenizer(base, PIECES)
    size = len(base.model.pieces)

    def with_pieces(pieces: list[SpPiece]) -> BaseTokenizer:
        model = append_pieces(base.model, pieces)
        return BaseTokenizer("sentencepiece", spm_definition(model), model)

    def failures(faulty: BaseTokenizer) -> dict[str, list[str]]:
        return {name: gate.examples for name, gate in all_gates(base, faulty, extension, tmp_path).items() if not gate.passed}
    scores = [p.score for p in new.model.pieces[size:]]
    texts = [t.text for t in extension.tokens]
    tied = failures(with_pieces([SpPiece(text, scores[0]) for text in texts]))
    assert "'生' has score" in tied["order"][0] and f"expected one below {scores[0]}" in tied["order"][0]
    latin = with_pieces([SpPiece(text, score) for text, score in zip(["he c", *texts[1:]], scores, strict=True)])
    assert "new piece 0 is 'he c', recorded is '医'" in failures(latin)["order"]
    outranking = failures(with_pieces([SpPiece(text, 0.0) for text in ["at on", *texts]]))
    assert "order" in outranking and "ids" in outranking
    unreachable = with_pieces([SpPiece(text, score) for text, score in zip([*texts[:5], "医生人"], scores, strict=True)])
    assert failures(unreachable)["dead"] == [f"'医生病人' (id {size + 5}) is encoded to [{size + 3}, {size + 4}]"]
    shifted = with_pieces([SpPiece(text, score) for text, score in zip([texts[1], texts[0], *texts[2:]], scores, strict=True)])
    assert failures(shifted)["dead"][0].startswith(f"'医' (id {size}) is encoded to [{size + 1}]")


def test_the_stage_writes_both_files_and_a_class_that_reads_them(folder: Path, tmp_path: Path):
    vocabulary = tmp_path / "vocab"
    vocabulary.mkdir()
    write_pieces(vocabulary / "pieces.jsonl", PIECES)
    write_jsonl(vocabulary / "sample.jsonl", [{"id": str(i), "text": text} for i, text in enumerate(TEXT) if text])
    artifact = extend(ExtendConfig(model=str(folder), vocab=str(vocabulary), tokenizer_only=True, out=str(tmp_path / "out")))
    settings = json.loads((artifact.path / "tokenizer_config.json").read_text("utf-8"))
    assert settings == {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    processor = sentencepiece.SentencePieceProcessor(model_file=str(artifact.path / "tokenizer.model"))
    assert encode(read_tokenizer(artifact.path), TEXT) == processor.encode(TEXT)
    assert artifact.manifest["resolved"]["family"] == "sentencepiece"


# Real tokenizers

@pytest.mark.parametrize(("name", "first"), [("llama", 32003), ("chatglm3", 64797)])
def test_real_tokenizers(name: str, first: int, tmp_path: Path):
    if not (SHARED / name / "tokenizer.model").exists():
        pytest.skip(f"no {name} tokenizer beside the checkout")
    base = read_tokenizer(SHARED / name)
    words = [Piece("龘龘", "word", 2, "龘", "龘"), Piece("饕餮", "word", 2, "饕", "餮")]
    new, extension = extend_tokenizer(base, [*(Piece(c, "atom", 1) for c in "龘饕餮"), *words])
    assert extension.base_size == first                     # behind the added tokens
    found = all_gates(base, new, extension, tmp_path)
    gates.require_passed(found.values())
    assert found["parity"].numbers["lines"] > 8000 and found["parity"].numbers["differ"] == 0


def test_the_historical_merge_has_its_ids_and_shows_its_faults(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    other = tmp_path / "chinese_sp.model"
    other.write_bytes(write_spm([SpPiece(text, -float(i)) for i, text in enumerate(["▁", "医", "医生", "国务院", "cat s", "人"])]))
    artifact = extend(ExtendConfig(model=str(folder), vocab=str(other), reproduce="chinese-llama", tokenizer_only=True, out=str(tmp_path / "out")))
    base, merged = read_spm(folder / "tokenizer.model"), read_spm(artifact.path / "tokenizer.model")
    assert merged.pieces == [*base.pieces, *(SpPiece(text, 0.0) for text in ("医", "医生", "国务院", "cat s"))]
    failed = {g["name"]: g for g in json.loads((artifact.path / "report.json").read_text("utf-8"))["gates"] if not g["passed"]}
    # Scores that do not fall; a piece with a space; 医生 lacks 生, 国务院 has no parts; of the Latin piece the base has parts.
    assert set(failed) >= {"order", "pieces", "dead"} and failed["pieces"]["numbers"]["wrong"] == 1
    assert [example.split()[0] for example in failed["dead"]["examples"]] == ["'医生'", "'国务院'", "'cat"]
    assert "the historical merge fails the gate dead" in caplog.text
    with pytest.raises(ConfigError, match="is no SentencePiece model"):
        extend(ExtendConfig(model=str(folder), vocab=str(tmp_path), reproduce="chinese-llama", tokenizer_only=True, out=str(tmp_path / "no")))


@pytest.mark.slow
def test_the_published_merge(tmp_path: Path):
    if not (SHARED / "chinese_sp" / "chinese_sp.model").exists():
        pytest.skip("no chinese_sp.model beside the checkout")
    artifact = extend(ExtendConfig(model=str(SHARED / "llama"), vocab=str(SHARED / "chinese_sp" / "chinese_sp.model"), reproduce="chinese-llama",
                                   tokenizer_only=True, out=str(tmp_path / "out")))
    assert len(read_spm(artifact.path / "tokenizer.model").pieces) == 49953
    failed = {g["name"]: g["numbers"] for g in json.loads((artifact.path / "report.json").read_text("utf-8"))["gates"] if not g["passed"]}
    assert failed["dead"]["dead"] > 300 and failed["drift"]["changed"] > 1000
