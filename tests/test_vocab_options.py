"""What `zhtune vocab` can be asked for: terms, seeds, SentencePiece training, word bounds, domains, and the size it suggests."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from zhtune.errors import ConfigError, DataError
from zhtune.records import write_jsonl
from zhtune.stages.extend import ExtendConfig, extend
from zhtune.stages.vocab import VocabConfig, vocab
from zhtune.tokenizers.load import read_tokenizer
from zhtune.tokenizers.spm import SpPiece, write_spm
from zhtune.vocabulary import gates
from zhtune.vocabulary.curve import suggest
from zhtune.vocabulary.pieces import Piece, read_pieces
from zhtune.vocabulary.train import Plan, TextCounts, continue_words, train_pieces
from zhtune.vocabulary.words import merge_words, read_terms, read_vocabulary_words, sentencepiece_words

CASES = Path(__file__).parents[2] / "shared" / "cases"
TEXT = "阿莫西林，阿莫西林。头孢，头孢，头孢。阿司匹林。阿莫"


def count(text: str) -> TextCounts:
    counts = TextCounts()
    counts.add(text)
    return counts


def words(pieces: list[Piece]) -> list[tuple[str, str]]:
    return [(p.text, p.kind) for p in pieces if p.kind in ("word", "term")]


# Words from elsewhere

def test_words_without_two_parts_get_the_missing_ones():
    merged = merge_words(["国务院", "务院", "国务", "院", "GPU", "国务院", "囍事"], set("国务院事"), [("务", "院")], limit=10)
    # 国务院 is 国 + 务院 already; then 国务 is new.
    assert merged.merges == [("国", "务院"), ("国", "务")]
    assert merged.refused == {"known": ["务院", "国务院"], "one_character": ["院"], "not_han": ["GPU"], "rare_character": ["囍事"]}
    chain = merge_words(["甲乙丙丁"], set("甲乙丙丁"), [], limit=3)
    assert chain.merges == [("甲", "乙"), ("甲乙", "丙"), ("甲乙丙", "丁")]
    assert merge_words(["甲乙丙丁"], set("甲乙丙丁"), [], limit=2).refused == {"over_size": ["甲乙丙丁"]}


def test_words_go_on_from_the_seeds():
    runs = Counter({"高血压病": 5, "高血脂": 3})
    atoms = list("高血压病脂")
    # With 高血 given: 压+病 and 高血+压 5 times (a tie goes to what is first in the list), then 高血+压病, 高血+脂 3 times.
    assert continue_words(runs, atoms, [("高", "血")], 3, 5) == [("压", "病"), ("高血", "压病"), ("高血", "脂")]
    assert continue_words(runs, atoms, [("高", "血")], 3, 3) == [("压", "病"), ("高血", "脂")]
    assert continue_words(runs, atoms, [("高", "血")], 1, 5) == [("压", "病")]


def test_sentencepiece_finds_words():
    runs = Counter({"头孢": 50, "阿莫西林": 50})
    assert set(sentencepiece_words(runs, "bpe", 4, 4)) == {"头孢", "莫西", "莫西林", "阿莫西林"}
    assert "阿莫西林" in sentencepiece_words(runs, "unigram", 10, 4)
    with pytest.raises(DataError, match="SentencePiece cannot train"):
        sentencepiece_words(Counter(), "bpe", 4, 4)


def test_vocabularies_of_all_kinds_are_read(tmp_path: Path):
    (tmp_path / "a.model").write_bytes(write_spm([SpPiece("▁高血", 0.0), SpPiece("a", -1.0)]))
    (tmp_path / "a.txt").write_text("▁高血\t-3\nab\n\n", "utf-8")
    assert read_vocabulary_words(tmp_path / "a.model") == ["高血", "a"] and read_vocabulary_words(tmp_path / "a.txt") == ["高血", "ab"]
    with pytest.raises(ConfigError, match="is no vocabulary: expected a SentencePiece .model"):
        read_vocabulary_words(tmp_path / "none")
    (tmp_path / "broken.model").write_bytes(b"\x00\x01")
    with pytest.raises(DataError, match="broken.model.*is no SentencePiece model"):
        read_vocabulary_words(tmp_path / "broken.model")


def test_terms_are_one_a_line_in_any_encoding(tmp_path: Path):
    (tmp_path / "terms.csv").write_bytes("阿莫西林,抗生素\n 头孢 \n\n阿莫西林\n".encode("gb18030"))
    assert read_terms(tmp_path / "terms.csv") == ["阿莫西林", "头孢"]
    (tmp_path / "empty.txt").write_text("\n", "utf-8")
    with pytest.raises(DataError, match="empty.txt: holds no term"):
        read_terms(tmp_path / "empty.txt")


# Training

def test_terms_take_the_place_of_the_last_words():
    counts = count(TEXT * 2)
    plain = train_pieces(counts, Plan(size=10, coverage=1.0)).pieces
    assert words(plain) == [("头孢", "word"), ("阿莫", "word")]
    forced = train_pieces(counts, Plan(size=12, coverage=1.0, terms=("阿司匹林", "PD-1", "头孢")))
    # 8 characters; 阿司匹林 needs three merges and 头孢 is a word already, so of the other words none is left.
    assert words(forced.pieces) == [("头孢", "term"), ("阿司", "word"), ("阿司匹", "word"), ("阿司匹林", "term")]
    assert forced.refused == {"not_han": ["PD-1"]}
    assert words(train_pieces(counts, Plan(size=13, coverage=1.0, terms=("阿司匹林",))).pieces)[:2] == [("头孢", "word"), ("阿莫", "word")]
    with pytest.raises(ConfigError, match="--size must be at least"):
        train_pieces(counts, Plan(size=10, coverage=1.0, terms=("阿司匹林",)))


def test_jieba_bounds(tmp_path: Path):
    (tmp_path / "in.txt").write_text("患者需要休息。" * 30, "utf-8")
    free, bounded = (vocab(VocabConfig(input=str(tmp_path / "in.txt"), size=20, jieba=jieba, coverage=1.0, out=str(tmp_path / str(jieba))))
                     for jieba in (False, True))
    assert any(len(w) > 2 for w, _ in words(read_pieces(free.path / "pieces.jsonl")))
    assert [w for w, _ in words(read_pieces(bounded.path / "pieces.jsonl"))] == ["休息", "患者", "需要"]


@pytest.mark.parametrize("algorithm", ["sentencepiece-bpe", "sentencepiece-unigram"])
def test_sentencepiece_algorithms_give_a_vocabulary_without_paths(algorithm: str, tmp_path: Path):
    (tmp_path / "in.txt").write_text("头孢，阿莫西林。" * 50, "utf-8")
    artifact = vocab(VocabConfig(input=str(tmp_path / "in.txt"), size=12, algorithm=algorithm, coverage=1.0, out=str(tmp_path / "v")))
    assert "头孢" in {p.text for p in read_pieces(artifact.path / "pieces.jsonl")}
    assert str(tmp_path).encode() not in (artifact.path / "vocab.model").read_bytes()


def test_domains_and_their_weights(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_jsonl(folder / "law.jsonl", [{"text": "合同合同"}, {"text": "合同"}])
    write_jsonl(folder / "drug.jsonl", [{"text": "头孢头孢"}])
    artifact = vocab(VocabConfig(input=str(folder), size=6, coverage=1.0, weights={"drug": 3}, out=str(tmp_path / "v")))
    assert {p.text: p.count for p in read_pieces(artifact.path / "pieces.jsonl")} == {"头": 6, "孢": 6, "合": 3, "同": 3, "头孢": 6, "合同": 3}
    report = json.loads((artifact.path / "report.json").read_text("utf-8"))
    assert report["curves"] == {"drug": [[0, 3.0], [4, 1.0], [5, .5], [6, .5]], "law": [[0, 3.0], [4, 1.0], [5, 1.0], [6, .5]]}
    assert {row["domain"] for row in map(json.loads, (artifact.path / "sample.jsonl").read_text("utf-8").splitlines())} == {"drug", "law"}
    with pytest.raises(ConfigError, match="--weights names no domain laws; the text has: drug, law"):
        vocab(VocabConfig(input=str(folder), size=6, weights={"laws": 2}, out=str(tmp_path / "w")))
    assert not (tmp_path / "w").exists()
    both = vocab(VocabConfig(input=[str(folder), str(folder / "law.jsonl")], size=6, coverage=1.0, weights={"in": 2}, out=str(tmp_path / "x")))
    assert list(json.loads((both.path / "report.json").read_text("utf-8"))["curves"]) == ["in", "law"]


def test_a_vocabulary_is_taken_over_without_text(tmp_path: Path):
    (tmp_path / "a.model").write_bytes(write_spm([SpPiece(text, -float(i)) for i, text in enumerate(["高血压", "高血", "the"])]))
    artifact = vocab(VocabConfig(seed_vocab=str(tmp_path / "a.model"), size=20, coverage=1.0, out=str(tmp_path / "v")))
    assert words(read_pieces(artifact.path / "pieces.jsonl")) == [("高血", "word"), ("高血压", "word")]
    assert artifact.manifest["counts"]["dropped"] == {"seed_or_term_not_han": 1}


def test_the_suggested_size_follows_the_curve():
    # From 2 to 1,002 pieces half of the tokens go, then a tenth; 2,500 to 3,500 pieces save 1.3 %, 3,000 to 4,000 0.5 %.
    points = [[0, 3.0], [2, 1.0], [1002, .5], [2002, .45], [3002, .44], [4000, .438]]

    def pieces(well_used: int) -> list[Piece]:
        return [*(Piece(c, "atom", 9) for c in "医生"), *(Piece("医生", "word", 100 if i < well_used else 10, "医", "生") for i in range(3998))]
    assert suggest(points, pieces(3998)) == {"general": 3000, "small": 2500, "used": 4000}
    assert suggest(points, pieces(2000)) == {"general": 2002, "small": 2002, "used": 2002}
    assert suggest([[0, 3.0], [2, 1.0], [4000, .1]], pieces(3998))["general"] is None          # more would still save much


# Cases of public bug reports

def extended(case: str, tmp_path: Path, size: int) -> Path:
    if not (CASES / case).exists():
        pytest.skip("no cases beside the checkout")
    base = tmp_path / "base"
    base.mkdir()
    import test_sentencepiece
    (base / "tokenizer.model").write_bytes(test_sentencepiece.trained())
    made = vocab(VocabConfig(input=str(CASES / case / "corpus.jsonl"), size=size, coverage=1.0, out=str(tmp_path / "vocab")))
    return extend(ExtendConfig(model=str(base), vocab=str(made.path), tokenizer_only=True, out=str(tmp_path / "out"))).path


def test_case_06_punctuation_and_indents_survive(tmp_path: Path):
    from sentencepiece import SentencePieceProcessor
    folder = extended("06-punctuation-and-indents-survive", tmp_path, 600)
    lines = json.loads((CASES / "06-punctuation-and-indents-survive" / "lines.json").read_text("utf-8"))
    lines = lines if isinstance(lines, list) else lines["lines"]
    tokenizer, processor = gates.load(read_tokenizer(folder).definition), SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ids = [e.ids for e in tokenizer.encode_batch(lines, add_special_tokens=False)]
    assert ids == processor.encode(lines)
    assert tokenizer.decode_batch(ids) == lines and processor.decode(ids) == lines
    plain = next(line for line in lines if line.startswith("def "))
    before = gates.load(read_tokenizer(tmp_path / "base").definition)
    assert tokenizer.encode(plain).ids == before.encode(plain).ids


def test_case_07_long_lines_count(tmp_path: Path):
    folder = extended("07-long-lines-count", tmp_path, 400)
    terms = json.loads((CASES / "07-long-lines-count" / "terms.json").read_text("utf-8"))
    tokenizer = gates.load(read_tokenizer(folder).definition)
    for term in terms["terms"]:
        tokens = tokenizer.encode(term, add_special_tokens=False).tokens
        assert len(tokens) <= 3 and not any(token.startswith("<0x") for token in tokens)
    manifest = json.loads((tmp_path / "vocab" / "manifest.json").read_text("utf-8"))
    assert (manifest["counts"]["in"], manifest["counts"]["kept"]) == (terms["documents"], terms["documents"])
