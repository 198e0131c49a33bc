"""What a comparison decided as charts: every pair, accuracy against robustness, and each model against one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxfim.record.decision import Aggregate
from onnxfim.report.charts.axes import LogScale, Tick, fitting, frame, linear_ticks, log_scale, log_ticks
from onnxfim.report.charts.marks import LETTER, NARROW, Bar, Chart, Label, Segment, SvgPath, marker
from onnxfim.report.comparison_words import (
    names_of,
    pair_words,
    ranking_label,
    ranking_units,
    shortened,
    sign_of,
    standings,
    test_label,
    test_words,
)
from onnxfim.report.numbers import count, known_ends, number, percent
from onnxfim.verdict.comparison import Comparison

_SERIES = {"+": "better", "−": "worse", "≠": "torn", "·": "open", "": "self"}
_CELL = 34  # pixels, at most
_LEAST_ROW = 16
_ROW = 22
_NEAR = 12  # pixels between markers whose numbers would touch
_FARTHEST = 30.0  # times: where the axis of ratios ends, at most


def decision_matrix(comparison: Comparison, *, width: int) -> Chart:
    """Every pair as a cell: whether the row's model is decided to be more robust than the column's, by colour and by sign."""
    order, names = comparison.order, names_of(comparison)
    k = len(order)
    room = min(max(len(n) for n in names) * LETTER + 34, 0.42 * width)
    across = min(_CELL, (width - room - 8) / k)
    down = max(across, _LEAST_ROW)
    left, top = round(room, 1), 26
    every = 1 if across >= 2 * LETTER else 2 if across >= LETTER else 5  # numbers above that do not touch
    bars, labels = [], []
    for r, i in enumerate(order):
        y = top + r * down
        labels.append(Label(left - 6, round(y + down / 2 + 4, 1), f"{clip(names[i], left - 30)} {r + 1}", "end", role="value"))
        if r % every == 0:
            labels.append(Label(round(left + (r + 0.5) * across, 1), top - 8, f"{r + 1}", "middle"))
        for c, j in enumerate(order):
            sign = sign_of(comparison, i, j)
            pair = comparison.pair(i, j)
            tip = f"{names[i]} and {names[j]}: {pair_words(pair, names)}" if pair is not None else names[i]
            x = left + c * across
            bars.append(Bar(round(x + 0.5, 1), round(y + 0.5, 1), round(across - 1, 1), round(down - 1, 1), _SERIES[sign], tip))
            if sign:
                labels.append(Label(round(x + across / 2, 1), round(y + down / 2 + 4, 1), sign, "middle", role="mark"))
    return Chart(
        "matrix",
        "Which models are decided to be more robust than which",
        f"{comparison.told} of {count(len(comparison.pairs), 'pair')} decided; "
        f"from the most robust on: {', '.join(names[i] for i in order)}.",
        width,
        math.ceil(top + k * down + 6),
        bars=tuple(bars),
        labels=tuple(labels),
    )


def accuracy_scatter(comparison: Comparison, *, width: int) -> Chart | None:
    """Accuracy against what ranks, one numbered marker a model, with both intervals; None where fewer than two have both."""
    rows = [
        (r, comparison.entries[r.position], r.distance.value)
        for r in standings(comparison)
        if r.distance is not None and (r.distance.value or 0) > 0 and comparison.entries[r.position].accuracy is not None
    ]
    if len(rows) < 2:
        return None
    left, right, top, height = 62, width - 22, 26, 342  # a number stands above the highest marker
    bottom = height - 56
    x = log_scale([v for r, _, _ in rows for v in _ends(r.distance) if v is not None and v > 0], left, right)
    shares = [v for _, e, _ in rows for v in (e.accuracy, e.accuracy_low, e.accuracy_high) if v is not None]
    least, most = max(0.0, min(shares) - 0.005), min(1.0, max(shares) + 0.005)

    def y(share: float) -> float:
        return round(bottom - (share - least) / max(most - least, 1e-9) * (bottom - top), 1)

    xticks = fitting(log_ticks(x, most=7 if width > NARROW else 5), x)
    yticks = [Tick(t.value / 100, f"{t.text} %") for t in linear_ticks(100 * least, 100 * most, most=6)]
    segments, labels = frame(x, y, (xticks, yticks), (left, right, top, bottom))
    units = ranking_units(comparison)
    name = ranking_label(comparison)
    shown = f"{name}, {units} (log)" if width > NARROW else f"{name} (log)"
    labels.append(Label((left + right) / 2, bottom + 40, shown, "middle", role="note"))
    labels.append(Label(12, (top + bottom) / 2, "accuracy", "middle", role="note", turned=True))
    paths: list[SvgPath] = []
    placed: list[tuple[float, float, int]] = []
    for r, e, value in rows:
        at, up = x(value or x.low), y(e.accuracy or 0.0)
        low, _, high = _ends(r.distance)
        segments.append(Segment(x(low) if low else left, up, x(high) if high is not None else right, up, "raw"))
        if e.accuracy_low is not None and e.accuracy_high is not None:
            segments.append(Segment(at, y(e.accuracy_low), at, y(e.accuracy_high), "raw"))
        tip = f"{e.rank}. {r.name}: {number(value)} ({known_ends(low, high) or 'no interval'}), accuracy {percent(e.accuracy)}"
        paths.append(SvgPath(marker("circle", at, up, radius=4.5), "raw", filled=True, tip=tip))
        placed.append((at, up, e.rank))
    labels += _numbers(placed)
    told = "; ".join(f"{e.rank}. {r.name}: {number(v)}, {percent(e.accuracy)}" for r, e, v in rows)
    return Chart(
        "accuracy", f"Accuracy against {name}", f"In {units}. {told}.", width, height,
        tuple(segments), paths=tuple(paths), labels=tuple(labels),
    )  # fmt: skip


def forest(comparison: Comparison, against: int, *, width: int) -> Chart | None:
    """Each model against one, measure by measure, with intervals: to the right of 1 it is the more robust.

    Ratios of λ_max are turned over, so that all measures point one way: ``times as low``.
    """
    names = names_of(comparison)
    rows: list[tuple[str, str, tuple[float | None, ...], bool, bool]] = []
    for i in comparison.order:
        pair = comparison.pair(i, against)
        if pair is None or pair.decided is None:
            continue
        rows.append((names[i], "", (), False, False))
        for t in pair.decided.measures:
            ends = _robustness(t.ratio, invert=(pair.second == against) != (t.question in ("log_lambda", "mean_lambda")))
            rows.append((test_label(t), test_words(t), ends, t.significant, t.decides))
    if not rows:
        return None
    left, right, top = 16, width - 16, 10
    values = [v for _, _, span, _, _ in rows for v in span if v and math.isfinite(v)]
    reach = min(max([max(v, 1 / v) for v in values] + [1.2]), _FARTHEST)
    x = LogScale(1 / reach / 1.05, reach * 1.05, width * 0.46 if width > NARROW else width * 0.5, right)
    bottom = top + _ROW * len(rows) + 8
    ticks = fitting(log_ticks(x, most=7 if width > NARROW else 4), x)
    segments = [Segment(x(t.value), top, x(t.value), bottom, "grid") for t in ticks]
    segments += [Segment(x(1.0), top, x(1.0), bottom, "chosen"), Segment(x.start, bottom, right, bottom, "axis")]
    labels = [Label(x(t.value), bottom + 18, t.text, "middle") for t in ticks]
    labels.append(
        Label(
            right, bottom + 38, f"times as robust as {clip(names[against], right - left - 26 * LETTER)} (log)", "end", role="note"
        )
    )
    paths = []
    for k, (name, tip, span, significant, decides) in enumerate(rows):
        y = top + _ROW * k + 16
        labels.append(Label(left + (0 if not tip else 14), y + 4, clip(name, x.start - left), role="tick" if tip else "value"))
        if not tip or len(span) < 3 or span[1] is None:
            continue
        least, value, most = span
        series = "raw" if significant else "quiet"
        segments.append(Segment(x(least or x.low), y, x(most if most is not None else x.high), y, series))
        shape = "circle" if decides else "diamond"
        paths.append(SvgPath(marker(shape, x(value or x.low), y, radius=4.0), series, filled=significant, tip=tip))
    told = "; ".join(f"{name}: {tip}" if tip else name for name, tip, *_ in rows)
    return Chart(
        "forest", f"Each model against {names[against]}", told + ".", width, bottom + 46, tuple(segments), paths=tuple(paths),
        labels=tuple(labels),
    )  # fmt: skip


def _numbers(placed: Sequence[tuple[float, float, int]]) -> list[Label]:
    """The markers' numbers; of markers that lie on one another, all of theirs at the first."""
    groups: list[list[tuple[float, float, int]]] = []
    for mark in placed:
        near = next((g for g in groups if abs(g[0][0] - mark[0]) < _NEAR and abs(g[0][1] - mark[1]) < _NEAR), None)
        if near is None:
            groups.append([mark])
        else:
            near.append(mark)
    return [Label(g[0][0] + 8, g[0][1] - 7, ", ".join(str(rank) for _, _, rank in g), role="value") for g in groups]


def _robustness(ratio: Aggregate, *, invert: bool) -> tuple[float | None, float | None, float | None]:
    """Low, value and high of the ratio, or of one over it."""
    if not invert:
        return ratio.low, ratio.value, ratio.high
    turned = [None if v is None else 1 / v if v > 0 else None for v in (ratio.high, ratio.value, ratio.low)]
    return turned[0], turned[1], turned[2]


def _ends(a: Aggregate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if a is None else (a.low, a.value, a.high)


def clip(text: str, width: float) -> str:
    """The text as far as it fits into so many pixels."""
    return shortened(text, max(6, int(width / LETTER)))
