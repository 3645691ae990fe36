"""Near duplicates, repeated sentences: exact Jaccard against plain Python sets, whatever the order and the batches."""

import itertools
import random

import numpy as np
import pytest

from zhtune.corpus import near as near_module
from zhtune.corpus.contamination import Benchmark, Item
from zhtune.corpus.distinct import Distinct
from zhtune.corpus.minhash import BINS, rows_a_band, sketch
from zhtune.corpus.near import NearIndex
from zhtune.corpus.sentences import RepeatedSpans
from zhtune.corpus.units import fold_units, segment_hashes, shingles
from zhtune.records import Document


def folded(text):
    return "".join(map(chr, fold_units([text])[0]))


def grams(text, n=5):
    return {text[i:i + n] for i in range(len(text) - n + 1)}


def jaccard(left, right):
    a, b = grams(folded(left)), grams(folded(right))
    return len(a & b) / len(a | b)


def changed(text, count, rng):
    chars = list(text)
    for at in rng.sample(range(len(chars)), count):
        chars[at] = chr(rng.randrange(0x4E00, 0x9000))
    return "".join(chars)


def collection(families=60, copies=4, length=(40, 400)):
    """Texts in families: an original and copies with ever more characters changed."""
    rng = random.Random(0)
    texts = {}
    for family in range(families):
        size = rng.randrange(*length)
        text = "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(size))
        for copy in range(copies):
            texts[f"{family}-{copy}"] = changed(text, copy * size // 60, rng)
    return texts


def removed(texts, folder, threshold=0.7, batch=50, quality=len, fixed=0):
    """{name: (name of the one kept, Jaccard)} of the texts that go; the better is the higher quality, then the lower name."""
    folder.mkdir()
    index = NearIndex(folder, threshold)
    names = list(texts)
    for start in range(0, len(names), batch):
        index.add(sketch([texts[n] for n in names[start:start + batch]], index.rows))
    order = sorted(range(len(names)), key=lambda i: (i >= fixed, -quality(texts[names[i]]), names[i]))
    found = {names[number]: (names[kept], jaccard) for number, kept, jaccard in index.find(np.array(order, dtype=np.int64), fixed)}
    assert list(folder.iterdir()) == []
    return found


def test_folding():
    assert folded("Ａ國語，abc 12。（三）\u200b") == "a国语abc12三"
    assert folded("，。！ \n") == "" and fold_units(["", "字", ""])[1].tolist() == [0, 0, 1, 1]
    assert len(fold_units(["𠮷"])[0]) == 2                   # two code units


def test_shingles_are_equal_for_equal_5_grams_only():
    text = "甲乙丙丁戊甲乙丙丁戊甲"
    hashes = shingles(fold_units([text])[0])
    assert len(hashes) == 7 and len(set(hashes.tolist())) == 5 and hashes[0] == hashes[5]
    short = [shingles(fold_units([text])[0]).tolist() for text in ("四个字啊", "四个字，啊", "四个字", "四个字呢")]
    assert [len(hashes) for hashes in short] == [1] * 4 and short[0] == short[1] and len({hashes[0] for hashes in short}) == 3
    units = np.array([5, 0, 6, 7, 5, 6, 0, 0], np.uint16)
    a, b = segment_hashes(units, np.array([0, 4]))
    assert b == segment_hashes(np.array([5, 6], np.uint16), np.array([0]))[0] and a != b


def test_bands_let_999_of_1000_pairs_at_the_threshold_through():
    for threshold in (0.5, 0.7, 0.8, 0.9):
        rows = rows_a_band(threshold)
        assert (1 - threshold**rows) ** (BINS // rows) <= 0.001 < (1 - threshold**(2 * rows)) ** (BINS // (2 * rows))
    assert rows_a_band(0.7) == rows_a_band(0.8) == 4


def test_the_sketch_estimates_the_jaccard():
    rng = random.Random(1)
    text = "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(3000))
    errors = []
    for _ in range(40):
        other = changed(text, 100, rng)
        bins = sketch([text, other], 4).bins
        errors.append((bins[0] == bins[1]).mean() - jaccard(text, other))
    assert abs(np.mean(errors)) < 0.02 and np.std(errors) < 0.06     # the standard error of 128 bins at .72 is .04


def test_what_goes_is_near_to_what_stays_and_no_near_pair_is_left(tmp_path):
    texts = collection()
    found = removed(texts, tmp_path / "a")
    for name, (kept, share) in found.items():
        assert kept not in found and share == pytest.approx(jaccard(texts[name], texts[kept]), abs=1e-12) and share >= 0.7
    near = [(a, b) for f in range(60) for a, b in itertools.combinations([f"{f}-{c}" for c in range(4)], 2) if jaccard(texts[a], texts[b]) >= 0.7]
    assert len(near) > 100
    assert [pair for pair in near if pair[0] not in found and pair[1] not in found] == []


def test_order_and_batches_change_nothing(tmp_path, monkeypatch):
    texts = collection(30)
    found = removed(texts, tmp_path / "a")
    names = list(texts)
    random.Random(5).shuffle(names)
    assert removed({n: texts[n] for n in names}, tmp_path / "b", batch=7) == found
    monkeypatch.setattr(near_module, "_SORTED", 16)         # many parts of each band
    assert removed(texts, tmp_path / "c") == found


def test_the_best_copy_stays_and_what_is_fixed_always_does(tmp_path):
    text = "".join(chr(0x4E00 + i) for i in range(100))
    texts = {"c": text + "。", "a": text, "b": text + "尾巴", "d": "完全不同的一篇短文，讲的是别的事情。"}
    assert {n: k for n, (k, _) in removed(texts, tmp_path / "a").items()} == {"a": "b", "c": "b"}
    assert {n: k for n, (k, _) in removed(texts, tmp_path / "b", fixed=1).items()} == {"a": "c", "b": "c"}
    assert removed({"x": text, "y": text}, tmp_path / "c", fixed=2) == {}
    assert removed({"y": text, "x": text}, tmp_path / "d") == {"y": ("x", 1.0)}      # the lower name, not the first


def test_texts_without_a_5_gram_go_if_they_are_equal(tmp_path):
    texts = {"a": "很好吃！", "b": "很好吃。", "c": "", "d": "，", "e": "很好", "f": "很好吃" * 20, "g": "好很吃"}
    assert removed(texts, tmp_path / "a") == removed(texts, tmp_path / "b", batch=1) == {"b": ("a", 1.0)} and removed({}, tmp_path / "c") == {}


def test_a_large_family_is_one(tmp_path):
    rng = random.Random(2)
    text = "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(500))
    found = removed({str(i): changed(text, 2, rng) for i in range(300)}, tmp_path / "a", threshold=0.8)
    assert len(found) == 299


SENTENCES = ["第一句话说的是天气很好。", "“第二句话说的是门诊时间！”", "第三句话说的是病历本……", "第四句。\n", "第五句讲的是完全别的事情。"]


def spans(texts, folder, order, span=3):
    folder.mkdir()
    index = RepeatedSpans(folder, span)
    for text in texts:
        index.add(text)
    index.find(np.array(order))
    assert list(folder.iterdir()) == []
    return [index.remove(i, text) for i, text in enumerate(texts)]


def test_repeated_sentences_stay_in_the_best_document(tmp_path):
    first = "".join(SENTENCES)
    second = "开头不一样。第二句话说的是门诊时间。第三句话说的是病历本；第四句！结尾也不一样。"
    assert spans([first, second], tmp_path / "a", [0, 1]) == [first, "开头不一样。结尾也不一样。"]
    assert spans([first, second], tmp_path / "b", [1, 0]) == [SENTENCES[0] + SENTENCES[4], second]
    assert spans([first, second], tmp_path / "c", [1, 0], span=4) == [first, second]           # no four in a row
    assert spans([first + "\n" + first], tmp_path / "d", [0]) == [first]                       # a second time in the same


def test_short_sentences_that_anybody_says_stay(tmp_path):
    text = "你好。谢谢医生。不客气。"
    assert spans([text, text], tmp_path / "a", [0, 1]) == [text, text]
    assert spans(["", "一句"], tmp_path / "b", [0, 1]) == ["", "一句"]


def test_no_sentence_is_lost_everywhere(tmp_path):
    rng = random.Random(3)
    pool = ["".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(12)) + "。" for _ in range(30)]
    texts = ["".join(rng.choice(pool) for _ in range(rng.randrange(3, 40))) for _ in range(40)]
    order = rng.sample(range(40), 40)
    left = spans(texts, tmp_path / "a", order)
    assert left[order[0]] != "" and sum(map(len, left)) < sum(map(len, texts))
    for sentence in {s for text in texts for s in text.split("。") if s}:
        assert any(sentence in text for text in left)


def distinct(tmp_path, name, documents, others=(), **options):
    """(what stays, what goes by id)."""
    gone = {}
    scratch = tmp_path / name
    scratch.mkdir()
    stay = list(Distinct(**options)(iter(documents), iter(others), scratch, lambda reason, document, **more: gone.__setitem__(document.id, (reason, more))))
    assert list(scratch.iterdir()) == []
    return [(d.id, d.text, d.metadata) for d in stay], gone


def test_copies_in_other_data_sets_and_benchmark_items_go(tmp_path):
    a, b = ("".join(chr(first + i) for i in range(60)) for first in (0x4E00, 0x5E00))
    question = "患者反复上腹痛三年餐后加重最可能的诊断是下列哪一种疾病"
    documents = [Document("1", a, {"n": 1}), Document("2", b + "尾"), Document("3", a + "长"), Document("4", "前言。" + question + "？后记。")]
    stay, gone = distinct(tmp_path, "a", documents, [("other/x", b)], near=0.8, benchmark=Benchmark([Item("t:1", (question,))]))
    assert stay == [("3", a + "长", {})]
    assert gone == {"1": ("near_duplicate", {"same_as": "3", "jaccard": round(56 / 57, 4)}), "2": ("near_duplicate", {"same_as": "other/x", "jaccard": round(56 / 57, 4)}),
                    "4": ("benchmark", {"item": "t:1", "share": 1.0, "text": question})}
    assert distinct(tmp_path, "b", documents) == ([(d.id, d.text, d.metadata) for d in documents], {})


def test_reversed_input_gives_the_same_documents(tmp_path):
    texts = collection(20)
    documents = [Document(name, text) for name, text in texts.items()]
    one, two = (distinct(tmp_path, name, order, near=0.7) for name, order in (("a", documents), ("b", documents[::-1])))
    assert sorted(one[0]) == sorted(two[0]) and one[1] == two[1] and one[0] == sorted(one[0], key=lambda row: list(texts).index(row[0]))


def test_sentences_of_other_documents_go_and_what_is_left_of_nothing(tmp_path):
    first, second = "".join(SENTENCES), "开头不一样。第二句话说的是门诊时间。第三句话说的是病历本；第四句！结尾也不一样。"
    stay, gone = distinct(tmp_path, "a", [Document("1", first), Document("2", second)], [("o", first + "更长的一篇。")], span=3, shortest=5)
    assert stay == [("2", "开头不一样。结尾也不一样。", {})] and gone == {"1": ("repeated_sentences", {"text": first})}
