"""What cleaning refused and why, as a page and for a terminal: each reason with what it means, how often, and examples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from zhtune.page import Page, table

REASONS = {
    "empty": ("没有文字", "no text"),
    "too_short": ("太短", "too short"),
    "few_han": ("汉字太少", "few Han characters"),
    "garbled": ("有 U+FFFD 或私用区字符", "U+FFFD or private-use characters"),
    "mojibake": ("编码读错了，还原不了", "read in a wrong encoding, beyond repair"),
    "other_script": ("假名或谚文太多", "kana or hangul: another language"),
    "many_digits": ("数字太多", "mostly digits"),
    "many_symbols": ("符号太多", "many symbols"),
    "unfinished_lines": ("很少有行以句末标点结束", "hardly a line ends a sentence"),
    "short_lines": ("短行太多：目录、导航", "mostly short lines: navigation, lists"),
    "repeated_lines": ("重复的行太多", "lines that repeat"),
    "repetitive": ("重复的片段太多", "passages that repeat"),
    "adverts": ("广告、博彩用语太密", "dense words of advertising or gambling"),
    "unlike_good": ("不像给出的好文本", "unlike the good text given"),
    "personal": ("含个人信息", "personal data"),
    "duplicate": ("与前面某篇相同", "the same as an earlier one"),
    "near_duplicate": ("与更长的一篇相近", "near to a longer one"),
    "repeated_sentences": ("去掉别篇也有的句子后太短", "too short without the sentences that others have"),
    "benchmark": ("含测试题", "holds a benchmark item"),
    "truncated": ("文件被截断", "the file is cut there"),
    "undecodable": ("字节不属于其编码", "bytes of no known encoding"),
    "unreadable": ("文件损坏", "a damaged file"),
    "scanned": ("扫描件，没有文字层", "a scan without a text layer"),
    "locked": ("有密码", "locked by a password"),
    "unknown_format": ("不认识的文件类型", "an unknown kind of file"),
    "bad_json": ("不是 JSON", "no JSON"),
    "bad_csv": ("引号不配对", "broken quoting"),
    "bad_header": ("表头有同名的列，或坏了", "two columns of one name, or a broken header"),
    "several_lists": ("一个文件里有几个数据列表", "several lists of rows in one file"),
    "ragged_row": ("单元格数与表头不符", "another number of cells than columns"),
    "no_text_field": ("没有文本字段（用 --fields 指定）", "no field with text: name it with --fields"),
}
_SHOWN = 120                                                # characters of an example
_FILES = 1000                                               # files on the page; report.json has all


def terminal(report: Path) -> str:
    """The reasons, most frequent first, with an example each, for people at a terminal."""
    read = orjson.loads(report.read_bytes())
    counts = read["counts"]
    lines = [f"of {counts['in']:,} documents {counts['kept']:,} would be kept"]
    for reason, found in read["reasons"].items():
        lines.append(f"{reason:<17} {found['documents']:>9,}  {REASONS.get(reason, ('', ''))[1]}")
        lines += [f"{'':<19}{_example(example)}" for example in found["examples"][:1]]
    if also := sum(map(Counter, read["notes"].values()), Counter()):
        lines.append(f"also found: {_counts(also)}")
    return "\n".join([*lines, f"more examples, signals and files: {report.with_suffix('.html')}"])


def write_page(path: Path, report: dict[str, Any], counted: int, kept: int) -> None:
    """Write the report page."""
    page = Page(("清洗报告", "Cleaning"))
    page.figures([(("读入", "in"), counted), (("保留", "kept"), kept), (("去掉", "dropped"), counted - kept)])
    page.section("去掉的原因", "Reasons")
    page.table([("原因", "reason"), ("含义", "what it means"), ("篇数", "documents")],
               [[reason, REASONS.get(reason, ""), found["documents"]] for reason, found in report["reasons"].items()])
    for reason, found in report["reasons"].items():
        page.details(reason, "\n".join(map(_example, found["examples"])))
    if report["signals"]:
        page.section("信号的分布", "Distribution of the signals")
        rows = list(report["signals"].items())
        page.table([("信号", "signal"), *rows[0][1]], [[name, *quantiles.values()] for name, quantiles in rows])
    page.section("各文件", "Files")
    page.details(("逐个文件", "file by file"), table(
        [("文件", "file"), ("读入", "in"), ("保留", "kept"), ("去掉", "dropped"), ("另见", "also found")],
        [[name, row["in"], row["kept"], _counts(row), _counts(report["notes"].get(name, {}))]
        for name, row in sorted(report["files"].items())[:_FILES]]))
    path.write_text(page.html(), "utf-8")


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in found.items() if name not in ("in", "kept"))


def _example(example: dict[str, Any]) -> str:
    text = str(example.get("text") or example.get("detail") or example.get("same_as", "")).removeprefix(f"{example['id']}: ")
    value = f" ({example['value']})" if "value" in example else ""
    return f"{example['id']}{value}: {' '.join(text.split())[:_SHOWN]}"
