"""Self-contained HTML pages for reports: headings in Chinese and English, tables, plots; nothing comes from a network.

Everything given to a page is escaped; only `Html` (what this module makes) goes in as it is. The same calls give the same
bytes: no date, no random id. Plots are SVG whose text stays text, so that Chinese needs no font here, and whose colours
follow the reader's light or dark mode. It does not know what the numbers mean.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import unicodedata
import warnings
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

Label = str | tuple[str, str]
"""A text, or the same in Chinese and English."""


class Html(str):
    """Markup that is safe already. Every other string is escaped."""

    __slots__ = ()


class Page:
    """One report page, filled from top to bottom.

    Args:
        title: of the page, as in its tab.
        subtitle: one line under it.
    """

    def __init__(self, title: Label, subtitle: Label = ""):
        self._title, self._subtitle = title, subtitle
        self._parts: list[str] = []
        self._sections: list[Label] = []

    def section(self, title_zh: str, title_en: str = "") -> None:
        """Begin a section; sections are numbered and listed at the top of the page."""
        title = (title_zh, title_en) if title_en else title_zh
        self._sections.append(title)
        self._parts.append(f'<h2 id="s{len(self._sections)}">{_label(title)}</h2>')

    def text(self, text: str, english: str = "") -> None:
        """A paragraph, and the same in English under it."""
        self._parts.append(f"<p>{escape(text)}</p>")
        if english:
            self._parts.append(f'<p class="en" lang="en">{escape(english)}</p>')

    def figures(self, values: Sequence[tuple[Label, Any]]) -> None:
        """A row of key numbers with their names."""
        cells = (f"<div><dt>{_label(name)}</dt><dd>{_cell(value)}</dd></div>" for name, value in values)
        self._parts.append(f'<dl class="figures">{"".join(cells)}</dl>')

    def table(self, headers: Sequence[Label], rows: Sequence[Sequence[Any]], caption: Label = "") -> None:
        """A table; see the function `table`."""
        self._parts.append(table(headers, rows, caption))

    def plot(self, plot: Html, caption: Label = "") -> None:
        """What `line_plot` or `bar_plot` made."""
        self._parts.append(f"<figure>{_cell(plot)}{f'<figcaption>{_label(caption)}</figcaption>' if caption else ''}</figure>")

    def code(self, text: str) -> None:
        """Text in a fixed-width font, such as a command."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def details(self, summary: Label, content: str) -> None:
        """A part that is folded away: `Html` (a table, a plot), or a string, which is shown as it is."""
        inner = content if isinstance(content, Html) else f"<pre>{escape(content)}</pre>"
        self._parts.append(f"<details><summary>{_label(summary)}</summary>{inner}</details>")

    def html(self) -> str:
        """The whole page."""
        title = " · ".join(self._title) if isinstance(self._title, tuple) else self._title
        links = "".join(f'<li><a href="#s{n}">{_label(name)}</a></li>' for n, name in enumerate(self._sections, 1))
        return "".join([
            '<!DOCTYPE html>\n<html lang="zh-CN">\n<head>\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n', f"<title>{escape(title)}</title>\n",
            f"<style>\n{Path(__file__).with_suffix('.css').read_text('utf-8')}</style>\n</head>\n<body>\n",
            f"<header><h1>{_label(self._title)}</h1>",
            f'<p class="subtitle">{_label(self._subtitle)}</p>' if self._subtitle else "", "</header>\n",
            f"<nav><ol>{links}</ol></nav>\n" if len(self._sections) > 2 else "",
            "<main>\n", "\n".join(self._parts), "\n</main>\n</body>\n</html>\n"])


def table(headers: Sequence[Label], rows: Sequence[Sequence[Any]], caption: Label = "") -> Html:
    """A table as markup. Columns of numbers stand right; None shows as –; a float shows four significant digits.

    Args:
        headers: one a column.
        rows: each as long as `headers`.
        caption: above the table.

    Raises:
        ValueError: a row has another number of cells than there are headers.
    """
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(f"a row has {len(row)} cells, the table {len(headers)} columns: {row!r}")
    right = [' class="n"' if rows and all(_is_number(row[i]) for row in rows) else "" for i in range(len(headers))]
    head = "".join(f"<th{side}>{_label(name)}</th>" for name, side in zip(headers, right, strict=True))
    cells = ("".join(f"<td{side}>{_cell(value)}</td>" for value, side in zip(row, right, strict=True)) for row in rows)
    body = "".join(f"<tr>{row}</tr>\n" for row in cells)
    top = f"<caption>{_label(caption)}</caption>" if caption else ""
    return Html(f'<div class="scroll"><table>{top}<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>')


def _label(value: Label) -> str:
    if isinstance(value, tuple):
        return f'{escape(value[0])} <span class="en" lang="en">{escape(value[1])}</span>'
    return escape(value)


def _cell(value: Any) -> str:
    if isinstance(value, Html):
        return value
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return _label(value) if isinstance(value, tuple) else escape(str(value))


def number(value: float) -> str:
    """Four significant digits without an exponent where that stays short: 0.9375, 12.5, 1,234."""
    if not math.isfinite(value):
        return "–"
    if value and not 1e-4 <= abs(value) < 1e9:
        return f"{value:.3g}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _is_number(value: Any) -> bool:
    """Numbers, and strings that read as one: 93.1 %, ±0.4, 1/3, 12 MB, –."""
    if value is None or isinstance(value, int | float):
        return not isinstance(value, bool)
    return isinstance(value, str) and re.fullmatch(r"[–-]|[-+±≤≥<>~]?\d[\d.,:/–±\s]*\s?(%|[A-Za-z]{1,3})?", value) is not None


# Plots. Colours are drawn as marks that stand for CSS variables of the page, which know light and dark.

_INK, _MUTED, _GRID = "#0a0b01", "#0a0b02", "#0a0b03"
_SERIES = [f"#0a0c0{n}" for n in range(1, 7)]
_VARIABLES = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--line)",
              **{colour: f"var(--c{n})" for n, colour in enumerate(_SERIES, 1)}}
_DASHES = ["", "6 3", "2 2.5", "9 3 2 3"]                   # so that lines differ without colour, too
_WIDTH, _DPI = 640, 72                                      # pixels: at 72 dpi a point is a pixel


def line_plot(series: dict[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> Html:
    """Lines over a common x axis.

    Args:
        series: name -> points (x, y); a point that is not finite is a gap.
        x_label, y_label: names of the axes, with units.
    """
    drawn = {name: points for name, points in series.items() if any(math.isfinite(y) for _, y in points)}
    if not drawn:
        return _no_data(y_label)

    def draw(axes: Any) -> None:
        for i, (_, points) in enumerate(drawn.items()):
            dash = [float(d) for d in _DASHES[i % 4].split()]
            lone = sum(math.isfinite(y) for _, y in points) < 25
            axes.plot([x for x, _ in points], [y if math.isfinite(y) else math.nan for _, y in points], color=_SERIES[i % 6],
                      linewidth=1.6, linestyle=(0, dash) if dash else "-", marker="o" if lone else "", markersize=3.2)
        axes.grid(axis="y", color=_GRID, linewidth=0.7)
        axes.set_xlabel(x_label, color=_MUTED, labelpad=6)
    return _plot(draw, 280, drawn, y_label, dashed=True, seed=repr(drawn))


def bar_plot(labels: Sequence[str], groups: dict[str, Sequence[float]], y_label: str) -> Html:
    """Bars side by side, upright for a few short labels and lying for many or long ones.

    Args:
        labels: one a group of bars.
        groups: name -> one value a label; a value that is not finite draws no bar.
        y_label: what the bars measure, with its unit.

    Raises:
        ValueError: a group has another length than `labels`.
    """
    for name, values in groups.items():
        if len(values) != len(labels):
            raise ValueError(f"{name!r} has {len(values)} values for {len(labels)} labels")
    if not any(math.isfinite(v) for values in groups.values() for v in values):
        return _no_data(y_label)
    lying = len(labels) > 8 or max(map(_width, labels)) * len(labels) > 44
    thickness = 0.76 / len(groups)

    def draw(axes: Any) -> None:
        for i, values in enumerate(groups.values()):
            places = [n + (i - (len(groups) - 1) / 2) * thickness for n in range(len(labels))]
            heights = [v if math.isfinite(v) else math.nan for v in values]
            (axes.barh if lying else axes.bar)(places, heights, thickness * 0.92, color=_SERIES[i % 6])
        _label_bars(axes, labels, lying)
    return _plot(draw, 60 + len(labels) * max(20, 13 * len(groups)) if lying else 260, groups, y_label, dashed=False,
                 seed=repr((labels, groups)))


def _label_bars(axes: Any, labels: Sequence[str], lying: bool) -> None:
    if lying:
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)              # the first label on top
    else:
        axes.set_xticks(range(len(labels)), labels)
    axes.grid(axis="x" if lying else "y", color=_GRID, linewidth=0.7)


def _plot(draw: Any, height: int, names: dict[str, Any], y_label: str, dashed: bool, seed: str) -> Html:
    """Draw into bare axes of fixed margins and put the y label and the legend above, as text of the page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    salt = hashlib.sha256(seed.encode("utf-8")).hexdigest()
    style = {"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 11, "axes.edgecolor": _GRID, "xtick.color": _GRID,
             "ytick.color": _GRID, "xtick.labelcolor": _MUTED, "ytick.labelcolor": _MUTED, "axes.axisbelow": True,
             "axes.formatter.use_mathtext": False, "axes.unicode_minus": True}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")   # the reader's fonts draw the text, not ours
        figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        draw(axes)
        axes.tick_params(length=0, pad=6)
        for axis in (axes.xaxis, axes.yaxis):
            _plain_numbers(axis)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        left = 14 + 11 * max((_width(t.get_text()) for t in axes.get_yticklabels()), default=0)
        bottom = 46 if axes.get_xlabel() else 28
        axes.set_position((left / _WIDTH, bottom / height, 1 - (left + 18) / _WIDTH, 1 - (bottom + 10) / height))
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        out = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    legend = "".join(f"<span>{_swatch(i, dashed)}{escape(name)}</span>" for i, name in enumerate(names)) if len(names) > 1 else ""
    return Html(f'<div class="plot"><div class="legend"><b>{escape(y_label)}</b>{legend}</div>'
                f'<div class="scroll">{_inline(out.getvalue().decode("utf-8"))}</div></div>')


def _plain_numbers(axis: Any) -> None:
    """Tick labels without an offset or exponent in a corner: 0.25, 1500, 2.5 M."""
    from matplotlib.ticker import EngFormatter, ScalarFormatter
    if not isinstance(axis.get_major_formatter(), ScalarFormatter):
        return                                              # names of bars
    if max(map(abs, axis.get_view_interval())) >= 1e5:
        axis.set_major_formatter(EngFormatter())
        return
    axis.get_major_formatter().set_useOffset(False)
    axis.get_major_formatter().set_scientific(False)


def _swatch(index: int, dashed: bool) -> str:
    colour = f"var(--c{index % 6 + 1})"
    shape = (f'<path d="M0 6h22" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{_DASHES[index % 4]}"/>'
             if dashed else f'<path d="M5 1h11v10h-11z" fill="{colour}"/>')
    return f'<svg width="22" height="12" viewBox="0 0 22 12" aria-hidden="true">{shape}</svg>'


def _inline(svg: str) -> str:
    """matplotlib's SVG file as part of a page: no prolog, metadata, page-wide style or fixed font."""
    svg = svg[svg.index("<svg"):].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]+;?\s*", "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r'\1 role="img"', svg, count=1)
    return re.sub("|".join(_VARIABLES), lambda mark: _VARIABLES[mark[0]], svg)


def _no_data(y_label: str) -> Html:
    return Html(f'<div class="plot"><div class="legend"><b>{escape(y_label)}</b></div><p class="en">没有数据 no data</p></div>')


def _width(text: str) -> float:
    """About how wide a text is, in em: Han 1, others 0.58."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.58 for c in text)
