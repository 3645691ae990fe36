"""The fertility report as a page and as a table for the terminal. Measures nothing: it shows what `compare.compare` returns."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zhtune.page import Page, bar_plot, table

_ALL = "（全部）all"
_COLOURS = 6                                                # of a plot; more tokenizers could not be told apart
_LISTED = 12                                                # most useful pieces on the page; figures.json has more


def write_page(path: Path, figures: dict[str, Any]) -> None:
    """Write one self-contained HTML file."""
    names = list(figures["tokenizers"])
    sheet = Page(("分词效率", "Fertility"), " · ".join(names))
    sheet.figures([(name, _value(row["all"]["tokens_per_character"])) for name, row in figures["tokenizers"].items()])
    sheet.text("每个字符需要多少词元，越少越好：同样的上下文能装下更多文字，同样的文字生成得更快。",
               "Tokens per character; fewer is better: a context holds more text, and text is generated faster.")
    _tokens(sheet, figures)
    _contexts(sheet, figures)
    _quality(sheet, figures)
    for extension in figures["extensions"]:
        _extension(sheet, extension)
    _texts(sheet, figures)
    path.write_text(sheet.html(), "utf-8")


def terminal(figures: dict[str, Any]) -> str:
    """Two plain tables: the tokenizers over all text, and tokens per character by domain; then a line for each extension."""
    last = str(figures["contexts"][-1]) if figures["contexts"] else ""
    rows = [["tokenizer", "vocabulary", "tokens/char", "bytes/token", "partial", "cut words", *([f"{last} tokens hold"] if last else [])]]
    for name, row in figures["tokenizers"].items():
        every = row["all"]
        rows.append([name, f"{row['vocabulary']:,}", _value(every["tokens_per_character"]), _value(every["bytes_per_token"]),
                     _percent(every["partial_share"]), _percent(every["cut_words_share"]),
                     *([f"{every['context_characters'][last]:,} chars"] if last and every["tokens"] else ["–"] if last else [])])
    tokens = _rows(figures, lambda found: _value(found["tokens_per_character"]))
    lines = [*_aligned(rows), "", *_aligned([["tokens/char", *figures["tokenizers"]], *tokens])]
    for e in figures["extensions"]:
        grown = f", {e['added_parameters']:,} parameters more" if e["added_parameters"] is not None else ""
        lines += ["", f"{e['extended']} extends {e['base']}: {e['new_rows']:,} new rows, {e['never_used']:,} never used here; "
                      f"{_value(e['speed_up'])} times as fast per character{grown}; "
                      f"{e['drift']['changed']:,} of {e['drift']['lines']:,} lines without Chinese have other ids"]
    return "\n".join(lines)


def _tokens(sheet: Page, figures: dict[str, Any]) -> None:
    sheet.section("每字符词元数", "Tokens per character")
    domains, rows, label = list(figures["domains"]), figures["tokenizers"], "每字符词元数 tokens per character"
    if len(rows) <= _COLOURS:
        sheet.plot(bar_plot(domains, {name: [_bar(row["domains"][d]["tokens_per_character"]) for d in domains] for name, row in rows.items()},
                            label))
    else:
        sheet.plot(bar_plot(list(rows), {"all": [_bar(row["all"]["tokens_per_character"]) for row in rows.values()]}, label))
    _domain_table(sheet, figures, "tokens_per_character", _value, "")
    sheet.details(("每词元字节数", "bytes per token"), table(_headers(figures), _rows(figures, lambda found: _value(found["bytes_per_token"]))))


def _contexts(sheet: Page, figures: dict[str, Any]) -> None:
    if not figures["contexts"]:
        return
    sheet.section("上下文能装多少字", "Context length in characters")
    for n in figures["contexts"]:
        rows = _rows(figures, lambda found, n=n: found["context_characters"][str(n)])
        caption = (f"{n:,} 个词元能装的字符", f"characters that {n:,} tokens hold")
        if n == figures["contexts"][-1]:
            sheet.table(_headers(figures), rows, caption)
        else:
            sheet.details(caption, table(_headers(figures), rows))


def _quality(sheet: Page, figures: dict[str, Any]) -> None:
    sheet.section("切法", "How text is cut")
    _domain_table(sheet, figures, "partial_share", _percent, ("不成字的词元所占比例（字节回退、半个字）", "tokens that are no whole character"))
    overall = [row["all"] for row in figures["tokenizers"].values()]
    if any(found["unknown_share"] for found in overall):
        _domain_table(sheet, figures, "unknown_share", _percent, ("未知词元所占比例：这些文字丢失了，上面的数字因此偏低",
                                                                  "unknown tokens: their text is lost, and the numbers above flatter"))
    if not any(found["words"] for found in overall):
        return
    sheet.text("词由 jieba 切出，两个汉字以上的才算。词元含有一个词的一部分而又越出这个词，就是切坏了它；词内再分不算。",
               "Words of two and more Han characters, as jieba finds them. A token cuts a word if it holds a part of it and something "
               "beyond; dividing a word within itself does not count.")
    _domain_table(sheet, figures, "cut_words_share", _percent, ("被切坏的词", "words that are cut"))
    _domain_table(sheet, figures, "cutting_share", _percent, ("切坏词的词元", "tokens that cut a word"))


def _extension(sheet: Page, e: dict[str, Any]) -> None:
    sheet.section(f"扩充：{e['base']} → {e['extended']}", "Extension")
    changed = e["drift"]
    grown = [] if e["added_parameters"] is None else [(("新增参数", "parameters added"), e["added_parameters"])]
    sheet.figures([(("新增行", "new rows"), e["new_rows"]), (("样本中未用到的行", "rows never used here"), e["never_used"]),
                   (("其占比", "their share"), _percent(e["never_used_share"])),
                   (("每字生成速度（倍）", "speed per character"), _value(e["speed_up"])), *grown,
                   (("有变动的无汉字行", "changed lines"), changed["changed"])])
    sheet.text(f"速度是词元数之比，假定每步用时不变；更大的输出层会吃掉其中一小部分。不含汉字和中文标点的行共查了 {changed['lines']:,} 行。",
               "Speed is the ratio of tokens, as if a step took the same time; the larger output layer costs a little of it. "
               f"{changed['lines']:,} lines without Han characters and full-width marks were checked for change.")
    domains = list(e["speed_up_by_domain"])
    if len(domains) > 1:
        sheet.plot(bar_plot(domains, {"speed": [_bar(e["speed_up_by_domain"][d]) for d in domains]}, "每字生成速度（倍）speed per character"))
    if e["useful"]:
        sheet.table([("最有用的新词元", "most useful new pieces"), ("次数", "uses"), ("共省词元", "tokens saved")],
                    [[p["piece"], p["uses"], p["tokens_saved"]] for p in e["useful"][:_LISTED]])
    sheet.details(("最长的新词元", "longest new pieces"), table([("词元", "piece"), ("字符", "characters"), ("次数", "uses")],
                                                          [[p["piece"], p["characters"], p["uses"]] for p in e["longest"]]))
    if changed["examples"]:
        sheet.details(("变动的行，举例", "changed lines, examples"), "\n".join(map(repr, changed["examples"])))


def _texts(sheet: Page, figures: dict[str, Any]) -> None:
    sheet.section("所用文本", "Texts")
    sheet.table([("领域", "domain"), ("篇数", "texts"), ("字符", "characters"), ("字节", "bytes")],
                [[name, d["texts"], d["characters"], d["bytes"]] for name, d in figures["domains"].items()])
    sheet.table([("分词器", "tokenizer"), ("词表", "vocabulary"), ("词元", "tokens")],
                [[name, row["vocabulary"], row["all"]["tokens"]] for name, row in figures["tokenizers"].items()])


def _domain_table(sheet: Page, figures: dict[str, Any], key: str, shown: Any, caption: Any) -> None:
    sheet.table(_headers(figures), _rows(figures, lambda found: shown(found[key])), caption)


def _headers(figures: dict[str, Any]) -> list[Any]:
    return [("领域", "domain"), *figures["tokenizers"]]


def _rows(figures: dict[str, Any], cell: Callable[[dict[str, Any]], Any]) -> list[list[Any]]:
    """Rows: all text, then each domain; columns: its name, then a cell of each tokenizer's figures there."""
    tokenizers = figures["tokenizers"].values()
    return [[_ALL, *(cell(row["all"]) for row in tokenizers)], *([d, *(cell(row["domains"][d]) for row in tokenizers)] for d in figures["domains"])]


def _bar(value: float | None) -> float:
    return math.nan if value is None else value


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Columns of equal width, the first to the left; Han characters are two wide."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0] + gaps[0], *(gap + cell for gap, cell in zip(gaps[1:], row[1:], strict=True))]).rstrip())
    return lines


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
