"""Benchmark items in texts: altered forms are found, what anybody writes is not."""

import pytest

from zhtune.corpus.contamination import Benchmark, Item

QUESTION = "患者，男，56岁，反复上腹痛3年，餐后加重，最可能的诊断是下列哪一种疾病？"
OPTIONS = ("胃溃疡伴有幽门螺杆菌感染", "十二指肠球部溃疡的活动期", "慢性浅表性胃炎", "功能性消化不良")
ITEMS = [Item("t.csv:2", (QUESTION,), OPTIONS), Item("t.csv:3", ("首都在哪",), ("北京", "上海"))]


@pytest.mark.parametrize("text", [
    QUESTION,
    "前言。" + QUESTION + "答案是胃溃疡。" + "后记很长。" * 200,
    "患者,男,５６岁,反復上腹痛3年,餐後加重,最可能的診斷是下列哪一種疾病?",                          # width, traditional
    "患者，男，56岁，反复上腹\n痛3年，餐后 加重，最可能的诊断是下列哪一种疾病",                      # line broken
    QUESTION.replace("后", "前"),                                                                    # one character
    "下面哪个对？D " + OPTIONS[3] + " B " + OPTIONS[1] + " A " + OPTIONS[0] + " C " + OPTIONS[2] + QUESTION[9:],   # shuffled options
])
def test_altered_items_are_found(text):
    hit = Benchmark(ITEMS).find([text])[0]
    assert hit.held and hit.place == "t.csv:2"


@pytest.mark.parametrize("text", [
    "", "短", "今天的门诊时间是上午八点到十一点，请带好病历本，谢谢您的配合。",
    "患者，男，60岁，反复胸痛3年，活动后加重，建议尽快到心内科就诊。",
    "血压 130/80 mmHg，心率 72 次，体温 36.5，血糖 5.6，体重 60，身高 170，56，3，100，200",
])
def test_what_anybody_writes_is_not(text):
    hit = Benchmark(ITEMS).find([text])[0]
    assert hit is None or not hit.held


def test_words_in_a_row_and_where_they_stand():
    test = "被告人在缓刑考验期内又犯新罪的应当撤销缓刑"
    hits = Benchmark([Item("a:1", (test,))]).find(["缓刑" + test[:13] + "。", test[1:13], "x" + test[3:9], "缓刑，" + test[4:] + "！"])
    assert [(h.words, h.text, h.held) for h in hits if h] == [(13, test[:13], True), (17, test[4:], True)]
    assert hits[0].share == 13 / 21 and hits[1] is hits[2] is None


SHORT = "人类制作熟肉食品最早采用的方法是"                # 16 words: one changed in the middle leaves no 13 of them in a row


@pytest.mark.parametrize(("text", "share"), [
    (SHORT[:7] + "袭" + SHORT[8:], 15 / 16), (SHORT[:6] + "袭" + SHORT[6:], 1.0), (SHORT[:7] + SHORT[8:], 15 / 16), ("袭" + SHORT[1:], 15 / 16),
])
def test_a_short_question_but_for_one_word_is_found(text, share):
    hits = Benchmark([Item("s:1", (SHORT,), ("烤", "蒸", "煮"))]).find(["前言。" + text + "？烤", text, "完全无关的一句话，说的是别的事情。"])
    assert [(h.held, h.share, h.place) for h in hits[:2]] == [(True, share, "s:1")] * 2 and hits[2] is None


@pytest.mark.parametrize("text", [
    "人类制作熟肉食品最早的历史可以追溯到很久以前。",                                               # the same beginning
    SHORT[:3] + "火" + SHORT[4:9] + "初" + SHORT[10:], SHORT[4:12], SHORT[9:] + SHORT[:9],           # two words, a part, another order
])
def test_what_is_only_like_a_short_question_is_not(text):
    assert Benchmark([Item("s:1", (SHORT,)), Item("s:2", ("最早采用的方法是",))]).find([text]) == [None]


def test_letters_are_no_words_but_words_are():
    english = "The quick brown fox jumps over the lazy dog and then sleeps in the sun"
    benchmark = Benchmark([Item("e:1", (english,)), Item("e:2", ("internationalization of 中文",))])
    assert benchmark.find(["internationalization"])[0] is None
    assert benchmark.find(["the QUICK brown fox — jumps over the lazy dog, and then sleeps in the sun"])[0].held


def test_a_form_that_many_items_share_is_no_item():
    stem = "下列关于这个问题的说法当中正确的是哪一个选项"
    benchmark = Benchmark(Item(f"f:{i}", (stem,), (f"这是第{chr(0x4E00 + i * 7)}个完全不同的选项内容{chr(0x5E00 + i)}号说法",)) for i in range(11))
    assert benchmark.find([stem])[0] is None and benchmark.common_grams >= len(stem) - 7


def test_short_questions_are_compared_whole():
    benchmark = Benchmark(ITEMS)
    assert benchmark.asks("首都 在哪？") == "t.csv:3" and benchmark.asks("首都在哪里") is None and benchmark.asks("") is None
    assert benchmark.items == 2


def test_many_texts_at_once_and_none():
    benchmark = Benchmark(ITEMS)
    texts = ["无关的一句话，说的是今天天气不错，可以出去走走。", QUESTION, "", QUESTION[:10], QUESTION]
    assert [bool(h and h.held) for h in benchmark.find(texts)] == [False, True, False, False, True]
    assert benchmark.find([]) == [] and Benchmark([]).find(["字" * 20]) == [None]
    assert benchmark.find([QUESTION[:14], QUESTION[14:26], QUESTION[26:]]) == [None] * 3         # no gram of two texts
