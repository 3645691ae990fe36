"""Exact ROUGE-L novelty: decisions of the plain definition, ties included."""

import random

import pytest

from zhtune.synthesis.novelty import NoveltyIndex, Twin, rouge_l, words


def lcs(a, b):
    """Longest common subsequence by the textbook table."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def greedy(token_lists, threshold):
    """Keep what is not above the threshold to anything kept; the plain loop."""
    kept, decisions = [], []
    for tokens in token_lists:
        novel = all(not tokens or not old or rouge_l(lcs(tokens, old), len(tokens), len(old)) <= threshold for old in kept)
        decisions.append(novel)
        if novel:
            kept.append(tokens)
    return decisions


def near_texts(count, alphabet, seed):
    """Texts of which most are variants of earlier ones: deletions, swaps, additions."""
    generator, texts = random.Random(seed), []
    for _ in range(count):
        if texts and generator.random() < 0.7:
            text = list(generator.choice(texts))
            for _ in range(generator.randrange(6)):
                place = generator.randrange(len(text) + 1)
                text[place:place + generator.randrange(2)] = generator.choice(alphabet) * generator.randrange(3)
        else:
            text = generator.choices(alphabet, k=generator.randrange(1, 40))
        texts.append("".join(text))
    return texts


def test_rouge_l_has_rouge_scores_rounding():
    assert rouge_l(7, 7, 13) == 0.7000000000000001 > 0.7   # 14/20, a tie that counts as above
    assert rouge_l(3, 4, 5) == pytest.approx(2 / 3) and rouge_l(0, 3, 4) == 0.0
    ties = [rouge_l(7 * (m + n) // 20, m, n) for m in range(1, 400) for n in range(1, 401 - m)
            if 7 * (m + n) % 20 == 0 and 7 * (m + n) // 20 <= min(m, n)]
    assert (len(ties), sum(f > 0.7 for f in ties), sum(f < 0.7 for f in ties)) == (1280, 612, 52)



@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("alphabet", ["甲乙丙", "".join(map(chr, range(0x4E00, 0x4E00 + 300)))])
def test_decisions_are_those_of_the_plain_loop(threshold, alphabet):
    texts = near_texts(250, alphabet, 7)
    wanted = greedy(list(map(list, texts)), threshold)
    assert 3 < sum(wanted) < 250
    together, one_by_one = NoveltyIndex(threshold, list), NoveltyIndex(threshold, list)
    assert [twin is None for twin in together.admit_all(texts)] == wanted
    assert [one_by_one.admit(text) is None for text in texts] == wanted
    assert len(together) == len(one_by_one) == sum(wanted)


def test_decisions_are_those_of_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    texts = near_texts(120, ["写一首", "关于", "春天", "的", "诗", "解释", "什么", "是", "复利", "，", "请", "列出", "三种"], 3)
    kept, wanted = [], []
    for tokens in map(words, texts):
        wanted.append(all(scorer._score_lcs(tokens, old).fmeasure <= 0.7 for old in kept))
        if wanted[-1]:
            kept.append(tokens)
    assert [twin is None for twin in NoveltyIndex().admit_all(texts)] == wanted


def test_the_nearest_text_is_named_and_what_is_near_is_not_accepted():
    index = NoveltyIndex(0.7, list)
    assert index.admit("一二三四五六七八九十") is None and index.admit("甲乙丙丁") is None
    assert index.admit("一二三四五六七八九") == Twin(0, 2 * 0.9 * 1.0 / 1.9)
    assert index.admit("甲乙丙戊") == Twin(1, 0.75) and len(index) == 2
    assert index.admit("甲乙丙丁") == Twin(1, 1.0) and len(index) == 2
    assert index.admit("子丑寅卯") is None and len(index) == 3


def test_chinese_is_compared_by_words_and_blank_text_is_like_nothing():
    assert words("写一首关于春天的诗。") == ["写", "一首", "关于", "春天", "的", "诗", "。"]
    index = NoveltyIndex()
    assert index.admit("写一首关于春天的诗。") is None and index.admit("写一首关于 春天的诗。").score == 1.0
    assert index.admit("") is None and index.admit(" \n") is None


def test_bits_of_token_numbers_beyond_128_and_beyond_the_surrogates_collide_without_harm():
    tokens = [chr(c) for c in range(0x4E00, 0x4E00 + 600)]
    index = NoveltyIndex(0.7, list)
    index.admit("".join(tokens))                            # numbers 0 to 599: 0 and 128 share a bit
    assert index.admit("".join(tokens[:30])) is None
    assert index.admit("".join(tokens[128:158])) is None    # the same bits, other tokens
    assert index.admit("".join(tokens[128:157])).number == 2
    index._numbers.update({f"#{n}": n for n in range(600, 0xD800)})
    assert index.admit("鿿鿾鿽鿼") is None and index.admit("鿿鿾鿽").number == 3
