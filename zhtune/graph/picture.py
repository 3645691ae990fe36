"""report.html of a graph: numbers, bars, hygiene, and a drawing of the neighbourhood of its largest hub."""

from __future__ import annotations

import html
import math
from typing import Any

from zhtune.graph.graph import Triple
from zhtune.page import Html, Page, bar_plot

_MOST_BARS = 20
_MOST_NEIGHBOURS = 24
_LONGEST = 12
_FLAWS = {"duplicate": "重复", "self_loop": "自环", "contradiction": "矛盾", "cut": "截断的值", "sentinel": "占位值", "shared_name": "同名节点",
          "not_of_kind": "与种类不符的属性值", "duplicate_alias": "重复别名", "one_character": "单字名称", "several_types": "多类型名称",
          "alias_of_several": "指向多个实体的别名", "blank_node": "无名空节点", "edge_property": "未保留的边属性"}
_WIDTH, _HEIGHT, _RADIUS = 640, 480, 180


def report_page(report: dict[str, Any], triples: list[Triple], metrics: dict[str, int], dropped: dict[str, int]) -> str:
    """The page as HTML.

    Args:
        report: `hygiene` and `statistics` of report.json.
        triples: those of the graph.
        metrics, dropped: of the manifest.
    """
    numbers, page = report["statistics"], Page(("知识图谱", "Knowledge graph"))
    names = {"entities": "实体", "triples": "三元组", "relations": "关系", "facts": "事实", "attributes": "属性值", "aliases": "别名"}
    page.figures([((names[key], key), value) for key, value in metrics.items()])
    page.section("关系与类型", "Relations and types")
    for title, values in ((("各关系的三元组", "triples by relation"), {n: r["triples"] for n, r in numbers["relations"].items()}),
                          (("各类型的实体", "entities by type"), numbers["types"]),
                          (("各属性的值", "values by attribute"), {n: a["values"] for n, a in numbers["attributes"].items()})):
        if values:
            shown = dict(list(values.items())[:_MOST_BARS])
            page.plot(bar_plot(list(shown), {title[0]: list(shown.values())}, " ".join(title)))
    page.section("度", "Degrees")
    _degrees(page, numbers)
    if numbers["hubs"]:
        page.section("最大枢纽的邻域", "The largest hub")
        page.plot(neighbourhood(triples, numbers["hubs"][0]["name"]), ("点在边的尾端", "the dot is at the tail of an edge"))
    page.section("数据卫生", "Hygiene")
    rows = [(_FLAWS.get(name, name), name, found, dropped.get(name, 0)) for name, found in report["hygiene"].items()]
    page.table([("问题", "finding"), "id", ("发现", "found"), ("剔除", "dropped")], rows)
    return page.html()


def _degrees(page: Page, numbers: dict[str, Any]) -> None:
    degrees = numbers["degrees"]
    labels = max((list(degrees["out"]), list(degrees["in"])), key=len)
    if labels:
        groups = {name: [degrees[side].get(label, 0) for label in labels] for name, side in (("出度 out", "out"), ("入度 in", "in"))}
        page.plot(bar_plot(labels, groups, "实体数（按边数） entities, by their number of edges"))
    page.table([("枢纽", "hub"), ("类型", "type"), ("出", "out"), ("入", "in")], [(h["name"], h["type"], h["out"], h["in"]) for h in numbers["hubs"]])
    parts = numbers["components"]
    page.text(f"弱连通分量 {parts['number']:,} 个，最大的有 {parts['largest']:,} 个实体；没有边的实体 {degrees['without']:,} 个。",
              f"{parts['number']:,} weakly connected components, the largest of {parts['largest']:,} entities; "
              f"{degrees['without']:,} entities without an edge.")


def neighbourhood(triples: list[Triple], hub: str) -> Html:
    """A drawing of a hub and its first neighbours: arrows go from head to tail, a colour is a relation.

    Args:
        triples: those of the graph.
        hub: the name in the middle.
    """
    near = [t for t in triples if hub in (t.head, t.tail)]
    by_relation: dict[str, list[Triple]] = {}
    for t in near:
        by_relation.setdefault(t.relation, []).append(t)
    share = max(1, _MOST_NEIGHBOURS // max(1, len(by_relation)))
    shown = [(i, t) for i, group in enumerate(by_relation.values()) for t in group[:share]][:_MOST_NEIGHBOURS]
    parts = [_spoke(n, len(shown), t, hub, colour) for n, (colour, t) in enumerate(shown)]
    parts.append(f'<circle cx="{_WIDTH // 2}" cy="{_HEIGHT // 2}" r="7" fill="var(--ink)"/>')
    drawn = {colour for colour, _ in shown}
    dots = ((f'<svg width="12" height="12" aria-hidden="true"><circle cx="6" cy="6" r="5" fill="{_colour(i)}"/></svg>', name)
            for i, name in enumerate(by_relation) if i in drawn)
    legend = "".join(f"<span>{dot} {_text(name)}</span>" for dot, name in dots)
    return Html(f'<div class="plot"><div class="legend"><b>{_text(hub)} {len(shown)} / {len(near)}</b>{legend}</div><div class="scroll">'
                f'<svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="12">{"".join(parts)}</svg></div></div>')


def _spoke(number: int, of: int, t: Triple, hub: str, colour: int) -> str:
    angle = 2 * math.pi * number / of - math.pi / 2
    x, y = _WIDTH / 2 + _RADIUS * math.cos(angle) * 1.15, _HEIGHT / 2 + _RADIUS * math.sin(angle)
    inner = _WIDTH / 2 + 10 * math.cos(angle), _HEIGHT / 2 + 10 * math.sin(angle)
    tip, other = ((x, y), t.tail) if t.head == hub else (inner, t.head)
    anchor = "start" if math.cos(angle) > 0.2 else "end" if math.cos(angle) < -0.2 else "middle"
    dx, dy = (8 if anchor == "start" else -8 if anchor == "end" else 0), 4 if anchor != "middle" else 16 * math.copysign(1, math.sin(angle)) + 4
    return (f'<line x1="{inner[0]:.1f}" y1="{inner[1]:.1f}" x2="{x:.1f}" y2="{y:.1f}" stroke="{_colour(colour)}" stroke-width="1.4"/>'
            f'<circle cx="{tip[0]:.1f}" cy="{tip[1]:.1f}" r="4" fill="{_colour(colour)}"/>'
            f'<text x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}" fill="var(--ink)">{_text(other)}</text>')


def _colour(index: int) -> str:
    return f"var(--c{index % 6 + 1})"


def _text(name: str) -> str:
    return html.escape(name if len(name) <= _LONGEST else name[:_LONGEST - 1] + "…")
