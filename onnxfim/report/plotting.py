"""The charts of a report drawn with matplotlib: the same lines, marks and words. Its only home."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from onnxfim.errors import OutputError
from onnxfim.record.audit import Audit
from onnxfim.report.charts.marks import Chart
from onnxfim.report.figures import charts_of
from onnxfim.report.html import environment
from onnxfim.verdict.comparison import Comparison

Axes: TypeAlias = Any

_DOTS = 72  # per inch: a pixel of the chart is a point
_TOKEN = re.compile(r"[A-Za-z]|-?\d+(?:\.\d+)?(?:e-?\d+)?")
_NUMBERS = {"M": 2, "L": 2, "H": 1, "V": 1, "A": 7, "Z": 0}
_BAND = 0.15  # how much of a band's colour is seen
_SIZE = 12  # of letters, in pixels
_ANCHORS = {"start": "left", "middle": "center", "end": "right"}


def plot(result: Audit | Comparison, name: str | None = None, ax: Axes = None) -> Axes:
    """Draw a chart of ``result``'s report.

    Args:
        result: An audit or a comparison.
        name: The chart; the first one by default.
        ax: Axes to draw into; new ones, as large as the chart, by default.

    Raises:
        OutputError: matplotlib is not installed, or there is no such chart.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise OutputError(
            "plot: matplotlib is not installed, expected to draw with. Run: pip install 'onnxfim[notebook]'."
        ) from error
    charts = charts_of(result)
    if not charts:
        raise OutputError("plot: there is no chart, for nothing was measured. See the findings.")
    if name is not None and name not in charts:
        raise OutputError(f"plot: has no chart {name!r}, expected one of {', '.join(map(repr, charts))}. Name one of them.")
    chart = charts[name or next(iter(charts))]
    if ax is None:
        _, ax = pyplot.subplots(figsize=(chart.width / _DOTS, chart.height / _DOTS), layout="constrained")
    return _draw(chart, ax)


def _draw(chart: Chart, ax: Axes) -> Axes:
    from matplotlib.patches import PathPatch, Rectangle

    colours: Any = environment().get_template("charts.html.j2").module
    ink, text_ink, weight, thin_bars = colours.ink, colours.colour, colours.weight, colours.thin
    thin = ("grid", "axis")
    for s in chart.segments:
        style = (0, (5, 3)) if s.role == "chosen" else "-"
        ax.plot((s.x1, s.x2), (s.y1, s.y2), color=ink[s.role], linewidth=1 if s.role in thin else 1.6, linestyle=style, zorder=1)
    for b in chart.bars:
        alpha = float(thin_bars.get(b.series, 1))
        ax.add_patch(Rectangle((b.x, b.y), b.width, b.height, facecolor=ink[b.series], edgecolor="none", alpha=alpha, zorder=2))
    for p in chart.paths:
        dash = tuple(float(n) for n in re.split(r"[ ,]+", p.dash.strip())) if p.dash else ()
        ax.add_patch(PathPatch(
            _path(p.data), facecolor=ink[p.series] if p.filled or p.soft else "none", edgecolor="none" if p.soft else ink[p.series],
            linewidth=1 if p.filled else 1.8, linestyle=(0, dash) if dash else "-",
            alpha=_BAND if p.soft else 0.55 if p.series in ("right", "wrong") else 1, zorder=3,
        ))  # fmt: skip
    for label in chart.labels:
        ax.text(
            label.x, label.y, _words(label.text), color=text_ink[label.role], fontsize=_SIZE * 0.8, va="baseline",
            ha=_ANCHORS[label.anchor], fontweight=int(weight[label.role]), rotation=90 if label.turned else 0,
            rotation_mode="anchor", zorder=4,
        )  # fmt: skip
    ax.set_xlim(0, chart.width)
    ax.set_ylim(chart.height, 0)  # SVG counts downwards
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_gid(chart.name)
    return ax


def _words(text: str) -> str:
    """A label as matplotlib prints it: λ_max with its subscript, and nothing else read as a formula."""
    return text.replace("$", r"\$").replace("λ_max", r"$\lambda_{\mathrm{max}}$")


def _path(data: str) -> Any:
    """SVG path data as a matplotlib path: lines, and the two half circles that round marks are made of.

    Source: SVG 1.1, section 8.3, for the commands; a half circle is drawn by 32 short lines, within 0.2 % of its radius.
    """
    import numpy as np
    from matplotlib.path import Path

    tokens = _TOKEN.findall(data)
    points: list[tuple[float, float]] = []
    codes: list[int] = []
    at, start = np.zeros(2), np.zeros(2)
    i, command = 0, "M"
    while i < len(tokens):
        if tokens[i].isalpha():
            command = tokens[i]
            i += 1
        count = _NUMBERS[command.upper()]
        numbers = np.array([float(t) for t in tokens[i : i + count]])
        i += count
        origin = at if command.islower() else np.zeros(2)
        match command.upper():
            case "Z":
                points.append((float(start[0]), float(start[1])))
                codes.append(int(Path.CLOSEPOLY))
                at = start
                continue
            case "H":
                ends = [np.array((origin[0] + numbers[0], at[1]))]
            case "V":
                ends = [np.array((at[0], origin[1] + numbers[0]))]
            case "A":
                ends = _half_circle(at, origin + numbers[5:], sweep=bool(numbers[4]))
            case _:
                ends = [origin + numbers]
        for end in ends:
            points.append((float(end[0]), float(end[1])))
            codes.append(int(Path.MOVETO if command.upper() == "M" else Path.LINETO))
        at = ends[-1]
        if command.upper() == "M":
            start, command = at, "l" if command == "m" else "L"
    return Path(points, codes)


def _half_circle(start: Any, end: Any, *, sweep: bool) -> list[Any]:
    """Points on the half circle between two ends of a diameter."""
    import numpy as np

    centre, radius = (start + end) / 2, (start - end) / 2
    angles = np.linspace(0, np.pi if sweep else -np.pi, 33)[1:]
    return [
        centre + np.array((radius[0] * np.cos(a) - radius[1] * np.sin(a), radius[0] * np.sin(a) + radius[1] * np.cos(a)))
        for a in angles
    ]
