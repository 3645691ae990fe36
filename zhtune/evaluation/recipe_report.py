"""The report of a whole recipe: one HTML page, the same as JSON, and a table for the terminal. Reads artifacts only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from zhtune.artifact import Artifact
from zhtune.page import Page, bar_plot, line_plot, table
from zhtune.records import read_jsonl, write_json

_SHOWN = 10                                                 # sample answers side by side


def write(workspace: Path, name: str, done: list[tuple[str, Artifact]], seconds: float) -> str:
    """Write report.json and report.html into the workspace; returns the terminal table."""
    figures = collect(name, done, seconds)
    write_json(workspace / "report.json", figures)
    (workspace / "report.html").write_text(page(figures, dict(done)), "utf-8")
    return terminal(figures)


def collect(name: str, done: list[tuple[str, Artifact]], seconds: float) -> dict[str, Any]:
    """Everything the report shows, as plain data."""
    stages = [{
        "label": label, "kind": made.kind, "digest": made.digest, "counts": made.manifest["counts"], "metrics": made.manifest["metrics"],
        "seconds": made.manifest["environment"]["seconds"], "peak_rss_mib": made.manifest["environment"]["peak_rss_mib"],
        "seed": made.manifest["seed"], "licences": made.manifest["licences"], "inputs": made.manifest["inputs"],
        "bytes": sum(f["bytes"] for f in made.manifest["files"])} for label, made in done]
    evaluations = {label: orjson.loads((made.path / "figures.json").read_bytes()) for label, made in done if made.manifest["stage"] == "evaluate"}
    versions = {k: v for k, v in done[-1][1].manifest["environment"].items() if k not in ("seconds", "peak_rss_mib")}
    return {"recipe": name, "run_seconds": round(seconds, 1), "stage_seconds": round(sum(s["seconds"] for s in stages), 1),
            "peak_rss_mib": max(s["peak_rss_mib"] for s in stages), "stages": stages, "evaluations": evaluations,
            "licences": sorted({x for s in stages for x in s["licences"]}), "environment": versions}


def terminal(figures: dict[str, Any]) -> str:
    """The stages and the evaluations as two plain tables."""
    lines = [f"{'stage':<18}{'kept':>9}{'of':>9}{'seconds':>9}  figures"]
    for s in figures["stages"]:
        shown = "  ".join(f"{k} {_short(v)}" for k, v in list(s["metrics"].items())[:4])
        lines.append(f"{s['label']:<18}{s['counts']['kept']:>9,}{s['counts']['in']:>9,}{s['seconds']:>9.1f}  {shown}")
    rows = [row for label, e in figures["evaluations"].items() for row in _fact_rows(label, e)]
    if rows:
        lines += ["", f"{'evaluation':<20}{'split':<12}{'exact':>8}{'95 % interval':>18}{'n':>7}{'majority':>10}{'refusals':>10}"]
        lines += [f"{label:<20}{split:<12}{exact:>8.3f}{f'{low:.3f}–{high:.3f}':>18}{n:>7}{_percent(most):>10}{_percent(refused):>10}"
                  for label, split, exact, low, high, n, most, refused in rows]
    if bits := _bits(figures):
        lines += ["", "bits per character of held-out text: " + ", ".join(f"{label} {value:.3f}" for label, value in bits)]
    lines += ["", f"{figures['stage_seconds']:.0f} s in all stages, peak memory {figures['peak_rss_mib']:,} MiB"]
    return "\n".join(lines)


def page(figures: dict[str, Any], made: dict[str, Artifact]) -> str:
    """The HTML page."""
    sheet = Page(("zhtune 报告", "report"), figures["recipe"])
    _summary(sheet, figures)
    _stages(sheet, figures)
    _vocabulary(sheet, made)
    _training(sheet, made)
    _facts(sheet, figures)
    _quantized(sheet, made)
    _answers(sheet, made)
    sheet.section("来历", "Lineage")
    sheet.table([("阶段", "stage"), ("输入", "inputs"), ("摘要", "digest"), ("种子", "seed")],
                [[s["label"], "，".join(i["path"] for i in s["inputs"]), s["digest"][:12], str(s["seed"])] for s in figures["stages"]])
    sheet.table([("库", "library"), ("版本", "version")], [[k, str(v)] for k, v in figures["environment"].items()])
    sheet.text("许可证：" + "，".join(figures["licences"]), "Licences: " + ", ".join(figures["licences"]))
    return sheet.html()


def _summary(sheet: Page, figures: dict[str, Any]) -> None:
    numbers: list[tuple[Any, Any]] = [(("用时（秒）", "seconds"), round(figures["stage_seconds"])),
                                      (("内存峰值（MiB）", "peak memory"), figures["peak_rss_mib"])]
    for label, e in figures["evaluations"].items():
        for split, row in e.get("facts", {}).items():
            if "exact" in row:
                numbers.append((f"{label} {split}", _percent(row["exact"])))
    sheet.figures(numbers)


def _stages(sheet: Page, figures: dict[str, Any]) -> None:
    sheet.section("各阶段", "Stages")
    sheet.table(
        [("阶段", "stage"), ("产物", "kind"), ("保留", "kept"), ("输入", "in"), ("丢弃原因", "dropped"), ("秒", "seconds"), ("MB", "MB")],
        [[s["label"], s["kind"], s["counts"]["kept"], s["counts"]["in"], "，".join(f"{k} {v}" for k, v in s["counts"]["dropped"].items()) or None,
          round(s["seconds"], 1), round(s["bytes"] / 1e6, 1)] for s in figures["stages"]])


def _vocabulary(sheet: Page, made: dict[str, Artifact]) -> None:
    for label, a in made.items():
        metrics = a.manifest["metrics"]
        if a.manifest["stage"] != "extend" or "new_tokens" not in metrics:      # a longer context has none
            continue
        sheet.section("词表扩充", "Vocabulary extension")
        before, after = metrics["tokens_per_character_before"], metrics["tokens_per_character_after"]
        sheet.text(f"{label}：新增 {metrics['new_tokens']} 个词元；每个字符所需词元由 {before:.3f} 降到 {after:.3f}。",
                   f"{label}: {metrics['new_tokens']} new tokens; tokens per character {before:.3f} before, {after:.3f} after.")
        sheet.plot(bar_plot([label], {"before": [before], "after": [after]}, "tokens per character"))


def _training(sheet: Page, made: dict[str, Artifact]) -> None:
    losses = {label: orjson.loads((a.path / "report.json").read_bytes()).get("losses") for label, a in made.items()}
    if any(losses.values()):
        sheet.section("训练损失", "Training loss")
    for label, points in losses.items():
        if points:
            sheet.plot(line_plot({label: [(x, y) for x, y in points]}, "step", "loss"), label)


def _facts(sheet: Page, figures: dict[str, Any]) -> None:
    rows = [row for label, e in figures["evaluations"].items() for row in _fact_rows(label, e)]
    bits = _bits(figures)
    if bits:
        sheet.section("留出文本每字比特数", "Bits per character of held-out text")
        sheet.plot(bar_plot([label for label, _ in bits], {"bits per character": [b for _, b in bits]}, "bits per character"))
    if not rows:
        return
    sheet.section("事实准确率", "Fact accuracy")
    sheet.text("问题用训练中从未出现的问法；答案的实体集合完全一致才算对。"
               "near 是常见问法，far 是用词迥异的问法，unknown 问的是没有教过的实体（看是否拒答），triple、entity、composition 是留出的记录。",
               "Questions use wordings never seen in training; an answer counts when its entity set is exactly right.")
    sheet.table([("评测", "evaluation"), ("问法", "split"), ("准确率", "exact"), ("95% 区间", "interval"), "n", ("多数答案", "majority"),
                 ("拒答率", "refusals")],
                [[label, split, _percent(exact), f"{100 * low:.1f}–{100 * high:.1f}", n, _percent(most), _percent(refused)]
                 for label, split, exact, low, high, n, most, refused in rows])
    for label, e in figures["evaluations"].items():
        for split in ("near", "far"):
            row = e.get("facts", {}).get(split)
            if not row or not row["exact"]:
                continue
            wordings = [(w["wording"], w) for w in row["worst_wordings"]]
            for title, what, shares in ((f"{label} · {split}", ("关系", "relation"), row["by_relation"].items()),
                                        ((f"{label} · {split}：最差问法", "worst wordings"), ("问法", "wording"), wordings)):
                sheet.details(title, table([what, ("准确率", "exact"), "n"], [[name, _percent(r["exact"]), r["n"]] for name, r in shares]))


def _quantized(sheet: Page, made: dict[str, Artifact]) -> None:
    rows = [(label, a) for label, a in made.items() if a.kind == "quantized"]
    if not rows:
        return
    sheet.section("量化", "Quantized files")
    sheet.table([("文件", "file"), ("类型", "type"), "MB", ("每权重比特", "bits per weight")],
                [[label, a.manifest["metrics"].get("type"), a.manifest["metrics"]["megabytes"], a.manifest["metrics"]["bits_per_weight"]]
                 for label, a in rows])
    for label, a in rows:
        types = orjson.loads((a.path / "report.json").read_bytes()).get("tensors")
        if types:
            sheet.table(list(types[0]), [list(t.values()) for t in types], label)


def _answers(sheet: Page, made: dict[str, Artifact]) -> None:
    answers = {label: {row["id"]: row for _, row in read_jsonl(a.path / "answers.jsonl")}
               for label, a in made.items() if a.manifest["stage"] == "evaluate"}
    answers = {label: rows for label, rows in answers.items() if rows}
    if not answers:
        return
    shared = [i for i in next(iter(answers.values())) if all(i in rows for rows in answers.values())]
    step = max(1, len(shared) // _SHOWN)
    sheet.section("样例回答", "Sample answers")
    first = next(iter(answers.values()))
    for name in shared[::step][:_SHOWN]:
        expected = "、".join(first[name]["expected"]) or "（未教过 not taught）"
        sheet.table([("问题", "question"), first[name]["text"]],
                    [["应答 expected", expected], *[[label, rows[name]["answer"][:200]] for label, rows in answers.items()]])


def _bits(figures: dict[str, Any]) -> list[tuple[str, float]]:
    """(what, bits per character) of every stage that measured it, in the order of the recipe."""
    names = {"bits_per_character": "", "bits_per_character_before": " before", "bits_per_character_after": " after"}
    return [(s["label"] + suffix, s["metrics"][key]) for s in figures["stages"] for key, suffix in names.items() if key in s["metrics"]]


def _fact_rows(label: str, evaluation: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows = []
    for split, row in evaluation.get("facts", {}).items():
        value = row["exact"] if "exact" in row else row["refused"]
        rows.append((label, split, value, row["low"], row["high"], row["n"], row.get("majority"), row.get("false_refusals")))
    return rows


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
