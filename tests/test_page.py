"""Report pages: escaping, equal bytes, nothing from a network, plots whose text stays text."""

from __future__ import annotations

import math
import re

import pytest

from zhtune import page
from zhtune.page import Html, Page, bar_plot, line_plot, number, table


def _sample() -> str:
    sample = Page(("报告", "report"), "a < b")
    for zh, en in (("概览", "Summary"), ("曲线", "Curves"), ("附录", "Appendix")):
        sample.section(zh, en)
    sample.figures([(("准确率", "accuracy"), 0.9375)])
    sample.text("中文 <script>alert(1)</script>", "English & more")
    sample.table(["name", "n"], [["<b>x</b>", 12044]], "caption")
    lines = {"训练 <train>": [(0, 1.0), (1, math.nan), (2, 0.5)], "base": [(0, 2.0), (2, 2.0)]}
    sample.plot(line_plot(lines, "步数 step", "损失 loss"))
    sample.plot(bar_plot(["症状", "科室"], {"before": [1, 2], "after": [3, 4]}, "%"))
    sample.code("zhtune chat <model>")
    sample.details(("样例", "samples"), "<i>raw</i>")
    sample.details("表", table(["a"], [[1]]))
    return sample.html()


def test_everything_is_escaped():
    text = _sample()
    assert "<script" not in text and "<b>x" not in text and "<i>" not in text and "<train>" not in text
    assert "中文 &lt;script&gt;alert(1)&lt;/script&gt;" in text and "<p class=\"subtitle\">a &lt; b</p>" in text
    assert "<pre>&lt;i&gt;raw&lt;/i&gt;</pre>" in text and "<details><summary>表</summary><div" in text


def test_same_calls_give_the_same_bytes():
    assert _sample() == _sample()


def test_nothing_comes_from_a_network():
    text = _sample()
    addresses = set(re.findall(r"\w+://[^\"'\s)]+", text))
    assert addresses == {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}      # namespaces, not resources
    assert not re.search(r"<link|<img|@import|url\((?!#)|\ssrc=", text)


def test_plot_text_stays_text_and_ids_differ():
    text = _sample()
    assert ">步数 step</text>" in text and "训练 &lt;train&gt;" in text and "font-family" not in text.partition("</style>")[2]
    assert "#0a0" not in text and "var(--c1)" in text and "var(--muted)" in text
    clips = re.findall(r'<clipPath id="(\w+)"', text)
    assert len(clips) == len(set(clips))


def test_headings_are_numbered_and_listed():
    text = _sample()
    assert '<h2 id="s2">曲线 <span class="en" lang="en">Curves</span></h2>' in text
    assert text.count("<li><a href=") == 3 and "<title>报告 · report</title>" in text


def test_table_aligns_numbers():
    text = table(["name", "share", "words"], [["a", "93.1 %", "x"], ["b", None, "3"]], ("表", "table"))
    assert '<tr><td>a</td><td class="n">93.1 %</td><td>x</td></tr>' in text
    assert '<tr><td>b</td><td class="n">–</td><td>3</td></tr>' in text
    assert '<th class="n">share</th>' in text and text.startswith('<div class="scroll"><table><caption>表 <span')


def test_table_refuses_a_ragged_row():
    with pytest.raises(ValueError, match="a row has 1 cells, the table 2 columns"):
        table(["a", "b"], [["x"]])


@pytest.mark.parametrize("value, shown", [(0.9375, "0.9375"), (12.5, "12.5"), (1234.5, "1,234"), (372.125, "372.1"), (3.0, "3"),
                                          (0.0, "0"), (0.00123, "0.00123"), (2e-5, "2e-05"), (-0.5, "-0.5"), (math.nan, "–")])
def test_number(value, shown):
    assert number(value) == shown


def test_cells():
    assert [page._cell(v) for v in (True, 12044, None, Html("<b>x</b>"), "<b>")] == ["yes", "12,044", "–", "<b>x</b>", "&lt;b&gt;"]


def test_plots_without_data_say_so():
    assert "没有数据" in line_plot({"a": []}, "x", "y") and "没有数据" in bar_plot(["a"], {"g": [math.nan]}, "y")


def test_bars_refuse_other_lengths():
    with pytest.raises(ValueError, match="'g' has 1 values for 2 labels"):
        bar_plot(["a", "b"], {"g": [1]}, "y")


def test_many_bars_lie():
    labels = [f"第{n}个关系" for n in range(12)]
    svg = bar_plot(labels, {"g": [0.5] * 12}, "y")
    height = lambda text: float(re.search(r'viewBox="0 0 640 ([\d.]+)"', text)[1])      # noqa: E731
    assert height(svg) == 60 + 12 * 20 and height(bar_plot(["a"], {"g": [1]}, "y")) == 260
