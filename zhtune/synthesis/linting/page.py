"""What lint found, as a page and as a table for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from zhtune.page import Page, table
from zhtune.synthesis.linting.names import CURES

_SHOWN = 20                                                 # examples a problem on the page; report.json has them all
_CURES = {"refuse": ("拒收", "refused"), "drop": ("无法修复", "no repair"), "repair": ("可修复", "repairable"), "keep": ("仅提示", "remark")}

_FIX = {"refuse": "–", "drop": "drops", "repair": "repairs", "keep": "keeps"}


def write_page(path: Path, kind: str, fix: bool, counts: dict[str, int], report: dict[str, Any]) -> None:
    """Write the page of one lint run.

    Args:
        path: the file to write.
        kind: "records" or "preferences".
        fix: whether rows were repaired and dropped.
        counts: in, kept, dropped, repaired.
        report: by_name, formats, ignored_fields, problems, as in report.json.
    """
    title = ("指令数据检查", "Records checked") if kind == "records" else ("偏好数据检查", "Preferences checked")
    page = Page(title, ("已修复，无法修复的已剔除", "repaired; what has no repair is out") if fix else
                ("只剔除不能训练的；--fix true 可修复", "refused only what cannot be trained on; --fix true repairs"))
    page.figures([(("读入", "in"), counts["in"]), (("保留", "kept"), counts["kept"]), (("剔除", "dropped"), counts["dropped"]),
                  (("修复", "repaired"), counts["repaired"]), (("问题", "problems"), len(report["problems"]))])
    page.section("问题", "Problems")
    if not report["by_name"]:
        page.text("没有发现问题。", "No problem was found.")
    else:
        page.table([("名称", "name"), ("处理", "cure"), ("条数", "rows"), ("次数", "found"), ("已修复", "repaired"), ("已剔除", "dropped"),
                    ("含义与做法", "what it is, what to do")],
                   [[name, _CURES[row["cure"]], row["rows"], row["found"], row["repaired"], row["dropped"],
                     (CURES[name].chinese, CURES[name].english)] for name, row in report["by_name"].items()])
    page.section("例子", "Examples")
    for name in report["by_name"]:
        found = [p for p in report["problems"] if p["problem"] == name]
        rows = [[p["row"], p["field"], p["detail"]] for p in found[:_SHOWN]]
        more = f"（前 {_SHOWN} 处，全部在 report.json）" if len(found) > _SHOWN else ""
        page.details(f"{name} · {len(found)}{more}", table([("位置", "row"), ("字段", "field"), ("内容", "detail")], rows))
    page.section("格式", "Formats")
    page.table([("按字段认出", "recognised by"), ("条数", "rows")], list(report["formats"].items()))
    if report["ignored_fields"]:
        page.table([("没有用到的字段", "fields without a place"), ("条数", "rows")], list(report["ignored_fields"].items()))
    path.write_text(page.html(), "utf-8")


def terminal(report: Path) -> str:
    """The problems by name, one a line, for people at a terminal."""
    by_name = orjson.loads(report.read_bytes())["by_name"]
    if not by_name:
        return "no problem was found"
    wide = max(map(len, by_name))
    lines = [f"{'problem':<{wide}}  {'rows':>7} {'repaired':>8} {'dropped':>7}  {'--fix':<7} what it is"]
    lines += [f"{name:<{wide}}  {row['rows']:>7,} {row['repaired']:>8,} {row['dropped']:>7,}  {_FIX[row['cure']]:<7} {CURES[name].english}"
              for name, row in by_name.items()]
    return "\n".join([*lines, f"every problem by row and field: {report}, and {report.with_suffix('.html').name} beside it"])
