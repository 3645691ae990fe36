"""Packing: ids against the tokenizer, no token lost, special strings stay text, mixes, equal bytes for any workers."""

import json
import random

import numpy as np
import pytest

from zhtune.config import parse
from zhtune.corpus.mixing import draw, plan
from zhtune.corpus.tokens import TokenFile, read_blocks
from zhtune.errors import ConfigError, DataError
from zhtune.models.shapes import SPECIAL, write_byte_tokenizer
from zhtune.stages.pack import PackConfig, _encoded, pack
from zhtune.templates.encode import ChatEncoder
from zhtune.tokenizers.texts import faster_encoder

END = SPECIAL.index("<|im_end|>")


def write(folder, name, texts):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts), "utf-8")
    return str(folder / f"{name}.jsonl")


@pytest.fixture
def model(tmp_path):
    write_byte_tokenizer(tmp_path / "model")
    return str(tmp_path / "model")


def made(tmp_path, model, corpus, out="o", **fields):
    return pack(PackConfig(corpus=corpus, model=model, out=str(tmp_path / out), **fields))


def decoded(artifact):
    """The documents of an artifact of the byte tokenizer, as text; each must end with the end token."""
    tokenizer = ChatEncoder(artifact.path.parent / "model").texts_ids
    file = TokenFile(artifact.path)
    byte = {tokenizer([chr(i)])[0][0]: i for i in range(128)}
    documents = [file[i].tolist() for i in range(len(file.offsets) - 1)]
    assert all(ids[-1] == END for ids in documents)
    return ["".join(chr(byte[i]) for i in ids[:-1]) for ids in documents]


def test_every_token_is_kept_with_its_document(tmp_path, model):
    texts = ["abc", "<|im_end|>x<|endoftext|>", "", "d" * 700]
    artifact = made(tmp_path, model, write(tmp_path / "c", "c", texts))
    assert decoded(artifact) == texts                       # special strings are text, byte by byte
    offsets = np.load(artifact.path / "offsets.npy")
    assert offsets.tolist() == [0, 4, 29, 30, 731] and (artifact.path / "tokens.bin").stat().st_size == 2 * 731
    assert artifact.manifest["metrics"] == {"tokens": 731, "tokens_per_character": 731 / 727}
    assert read_blocks(artifact.path, 100).shape == (7, 100)


def test_workers_change_no_byte(tmp_path, model):
    rng = random.Random(0)
    texts = ["".join(rng.choice("abc 中文，。\n") for _ in range(rng.randrange(40))) for _ in range(2600)]
    corpus = write(tmp_path / "c", "c", texts)
    digests = {made(tmp_path, model, corpus, f"o{workers}", workers=workers).digest for workers in (1, 2, 7)}
    mixed = {made(tmp_path, model, [corpus, corpus], f"m{workers}", workers=workers, weights=[1, 2]).digest for workers in (1, 5)}
    assert len(digests) == 1 and len(mixed) == 1
    file = TokenFile(tmp_path / "o1")
    encode = ChatEncoder(tmp_path / "model").text_ids
    assert [file[i].tolist() for i in range(len(texts))] == [[*ids, END] for ids in map(encode, texts)]


def test_a_mix_reaches_its_shares_and_says_so(tmp_path, model):
    corpora = [write(tmp_path / "c", "a", [f"a{i:08d}" for i in range(100)]), write(tmp_path / "c", "b", [f"b{i:08d}" for i in range(900)])]
    natural = made(tmp_path, model, corpora, "n")
    texts = decoded(natural)
    assert len(texts) == 1000 == len(set(texts)) and texts != sorted(texts)      # all of them, mixed
    assert natural.manifest["counts"] == {"in": 1000, "kept": 1000, "dropped": {}}
    even = made(tmp_path, model, corpora, "e", weights=[1, 1])
    rows = even.manifest["metrics"]["mix"]
    texts = decoded(even)
    a = [t for t in texts if t[0] == "a"]
    assert len(a) == 400 and all(a.count(t) == 4 for t in a)                     # four epochs are the cap
    assert [(r["corpus"], r["wanted"], r["epochs"], r["documents"]) for r in rows] == [("a.jsonl", 0.5, 4.0, 400), ("b.jsonl", 0.5, 0.666666667, len(texts) - 400)]
    assert rows[0]["reached"] == pytest.approx(400 / len(texts)) and abs(len(texts) - 1000) < 50
    assert even.manifest["counts"]["dropped"] == {"not_drawn": 1300 - len(texts)} and even.manifest["metrics"]["tokens"] == 10 * len(texts)
    assert not list(even.path.glob("checkpoints"))
    assert decoded(made(tmp_path, model, corpora, "s", weights=[1, 1], seed=1)) != texts
    few = made(tmp_path, model, corpora[1], "f", total_tokens=900)
    assert 60 < len(decoded(few)) < 120


def test_plans_worked_out_by_hand():
    def epochs(**fields):
        return [p.epochs for p in plan(["a", "b"], [100, 900], **{"weights": [], "temperature": 1, "max_epochs": 4, "total": 0, **fields})]
    assert epochs() == [1, 1]
    assert epochs(weights=[1, 1]) == [4, pytest.approx(600 / 900)]               # 500 wanted, 400 allowed, 600 from the other
    assert epochs(weights=[1, 1], max_epochs=5) == [5, pytest.approx(500 / 900)]
    assert epochs(temperature=2) == [2.5, pytest.approx(750 / 900)]              # square roots: 10 to 30
    assert epochs(total=100) == [0.1, 0.1]
    corpora, numbers = draw([3, 2], [2, 1], 0)
    assert sorted(zip(corpora.tolist(), numbers.tolist())) == [(0, 0), (0, 0), (0, 1), (0, 1), (0, 2), (0, 2), (1, 0), (1, 1)]
    drawn = draw([10000], [0.25], 0)[1]
    assert len(set(drawn.tolist())) == len(drawn) and abs(len(drawn) - 2500) < 150


@pytest.mark.parametrize(("fields", "message"), [
    ({"weights": [1]}, "--weights holds 1 numbers for 2 corpora"),
    ({"weights": [1, 0]}, "--weights are above 0, found 0"),
    ({"weights": [1, 1], "temperature": 2}, "give it or --weights, not both"),
    ({"total_tokens": 10**9}, "is more than 4 epochs of all corpora"),
    ({"temperature": 0.5}, "^--temperature is at least 1, found 0.5$"),
    ({"max_epochs": 0.0}, "^--max_epochs is above 0, found 0.0$"),
    ({"total_tokens": -1}, "^--total_tokens is 0 or more, found -1$"),
])
def test_mixes_that_cannot_be(tmp_path, model, fields, message):
    corpora = [write(tmp_path / "c", name, ["abc", "def"]) for name in "ab"]
    with pytest.raises(ConfigError, match=message):
        made(tmp_path, model, corpora, **fields)
    assert not (tmp_path / "o").exists()


def test_a_corpus_without_a_character_is_refused(tmp_path, model):
    (tmp_path / "empty.txt").write_text("", "utf-8")
    with pytest.raises(DataError, match=r"empty.txt: holds no (text|document)$"):
        made(tmp_path, model, [str(tmp_path / "empty.txt")])
    assert not (tmp_path / "o").exists()


def test_weights_of_one_corpus_and_the_command_line(tmp_path, model):
    corpus = write(tmp_path / "c", "a", ["abc"])
    with pytest.raises(ConfigError, match="--weights are for several corpora"):
        made(tmp_path, model, corpus, weights=[1])
    config = parse(PackConfig, "pack", ["--corpus", "a", "b", "--weights", "2", "1.5", "--model", "m", "--out", "o"])
    assert config.corpus == ["a", "b"] and config.weights == [2, 1.5]


@pytest.mark.parametrize(("given", "weights"), [(["2"], [2]), (["[2]"], [2]), (["[2, 3]"], [2, 3])])
def test_one_value_of_a_list_is_a_list_of_one(given, weights):
    assert parse(PackConfig, "pack", ["--corpus", "a", "--weights", *given, "--model", "m", "--out", "o"]).weights == weights


def bpe(texts, split=True, **model):
    """A trained byte-level BPE with Qwen2's pattern (or GPT-2's)."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE(**model))
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), level]) if split else level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=["<|end|>"], show_progress=False,
                                                             initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(tokenizer.to_str())


def plain_encoder(definition):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_str(json.dumps({**definition, "added_tokens": []}))
    return lambda texts: [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def test_the_faster_way_is_taken_only_where_it_gives_the_same():
    pytest.importorskip("tiktoken")
    rng = random.Random(0)
    texts = ["".join(rng.choice("今天门诊时间 abc12<|end|>，。\n") for _ in range(80)) for _ in range(300)]
    for split in (True, False):
        definition = bpe(texts, split)
        ids = plain_encoder(definition)(texts)
        fast = faster_encoder(definition, texts, ids)
        assert fast is not None and fast(texts) == ids and fast(["<|end|>"]) == plain_encoder(definition)(["<|end|>"])
        assert faster_encoder(definition, texts, [[0], *ids[1:]]) is None         # the sample differs
        swapped = json.loads(json.dumps(definition))
        merges = swapped["model"]["merges"]
        merges[0], merges[-1] = merges[-1], merges[0]       # joins in another order than the ids
        assert faster_encoder(swapped, texts, plain_encoder(swapped)(texts)) is None
        digits = json.loads(json.dumps(definition))
        digits["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, definition["pre_tokenizer"]]}
        assert faster_encoder(digits, texts, ids) is None
        runs = {"id": 700, "content": "  ", "special": False, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        assert faster_encoder({**definition, "added_tokens": [runs]}, texts, ids) is None


def test_cutting_and_filling_that_a_tokenizer_asks_for_are_not_done(tmp_path, model):
    file = tmp_path / "model" / "tokenizer.json"
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "truncation": cut}), "utf-8")
    assert decoded(made(tmp_path, model, write(tmp_path / "c", "c", ["abcdef"]))) == ["abcdef"]


def test_a_large_corpus_changes_to_the_faster_way_and_no_id_changes():
    tiktoken = pytest.importorskip("tiktoken")
    rng = random.Random(1)
    texts = ["".join(rng.choice("今天门诊时间 abc12<|end|>，。\n") for _ in range(30)) for _ in range(2600)]
    definition = bpe(texts[:200])
    expected = plain_encoder(definition)(texts)
    assert isinstance(faster_encoder(definition, texts[:9], expected[:9]).args[0], tiktoken.Encoding)
    for given, workers in ((None, 1), (definition, 1), (definition, 3)):
        assert list(_encoded(iter(texts), plain_encoder(definition), given, workers)) == expected
