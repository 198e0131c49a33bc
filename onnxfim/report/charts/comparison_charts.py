"""Charts of a comparison: one audit's values against another's, and the means with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfim.record.decision import Aggregate
from onnxfim.record.foreign_text import visible
from onnxfim.report.charts.axes import frame, log_scale, log_ticks
from onnxfim.report.charts.marks import LETTER, NARROW, Chart, Label, Segment, SvgPath, marker
from onnxfim.report.numbers import count, inline_label, known_ends, number
from onnxfim.verdict.comparison import Comparison

_ROW = 34


def against(comparison: Comparison, first: int, second: int, *, width: int) -> Chart | None:
    """Each sample's value in ``second`` against that in ``first``, with the line of equal values; None below three samples."""
    points = [(s.values[first], s.values[second]) for s in comparison.samples]
    points = [(a, b) for a, b in points if a > 0 and b > 0]
    if len(points) < 3:
        return None
    names = [visible(comparison.entries[i].name) for i in (first, second)]
    symbol = inline_label(comparison.measure)
    left, right, top, height = 66, width - 16, 12, 400 if width > NARROW else 340
    bottom = height - 50
    every = [v for p in points for v in p]
    x, y = log_scale(every, left, right), log_scale(every, bottom, top)
    xticks, yticks = log_ticks(x, most=7 if width > NARROW else 4), log_ticks(y, most=8)
    segments, labels = frame(x, y, (xticks, yticks), (left, right, top, bottom))
    segments.append(Segment(x(x.low), y(x.low), x(x.high), y(x.high), "chosen"))
    labels.append(Label((left + right) / 2, height - 10, f"{symbol} in {_clip(names[0], width)} (log)", "middle", role="note"))
    labels.append(
        Label(13, (top + bottom) / 2, f"{symbol} in {_clip(names[1], bottom - top)} (log)", "middle", role="note", turned=True)
    )
    worse = [p for p in points if p[1] > p[0]]
    rest = [p for p in points if p[1] <= p[0]]
    # One path per kind keeps a thousand samples small.
    paths = tuple(
        SvgPath("".join(marker(shape, x(a), y(b), radius=2.5) for a, b in chosen), series, filled=True)
        for chosen, shape, series in ((rest, "circle", "right"), (worse, "diamond", "wrong"))
        if chosen
    )
    return Chart(
        f"against-{first}-{second}",
        f"{symbol[0].upper()}{symbol[1:]} of each sample in {names[1]} against {names[0]}",
        f"{count(len(points), 'sample')}; {len(worse)} lie above the line of equal values.",
        width,
        height,
        tuple(segments),
        paths=paths,
        labels=tuple(labels),
    )


def means(comparison: Comparison, *, width: int) -> Chart | None:
    """The means in the order of the ranking, with their intervals, on one logarithmic axis."""
    entries = [comparison.entries[i] for i in comparison.order if (comparison.entries[i].mean.value or 0) > 0]
    if not entries:
        return None
    left, right, top = 14, width - 14, 8
    x = log_scale([v for e in entries for v in _ends(e.mean) if v is not None and v > 0], left, right)
    bottom = top + _ROW * len(entries) + 6
    ticks = log_ticks(x, most=8 if width > NARROW else 4)
    segments = [Segment(x(t.value), top, x(t.value), bottom, "grid") for t in ticks]
    segments.append(Segment(left, bottom, right, bottom, "axis"))
    labels = [Label(x(t.value), bottom + 18, t.text, "middle") for t in ticks]
    labels.append(Label((left + right) / 2, bottom + 40, f"mean {inline_label(comparison.measure)} (log)", "middle", role="note"))
    labels.append(Label((left + right) / 2, bottom + 56, visible(comparison.units), "middle", role="note"))
    paths = []
    for row, entry in enumerate(entries):
        y = top + _ROW * row + 26
        low, value, high = _ends(entry.mean)
        if low is not None or high is not None:
            start = x(low) if low is not None and low > 0 else left
            end = x(high) if high is not None else right
            segments += [
                Segment(start, y, end, y, "raw"),
                Segment(start, y - 4, start, y + 4, "raw"),
                Segment(end, y - 4, end, y + 4, "raw"),
            ]
        tip = f"{visible(entry.name)}: {_words(entry.mean)}"
        paths.append(SvgPath(marker("circle", x(value or x.low), y), "raw", filled=True, tip=tip))
        labels.append(Label(left, y - 10, f"{entry.rank}. {_clip(visible(entry.name), width)}", role="value"))
    words = "; ".join(f"{visible(e.name)} {_words(e.mean)}" for e in entries)
    return Chart(
        "means", "Mean λ_max of each audit", words + ".", width, bottom + 66, tuple(segments), (), tuple(paths), tuple(labels)
    )


def _words(a: Aggregate) -> str:
    return f"{number(a.value)} ({known_ends(a.low, a.high) or 'no interval'})"


def _ends(a: Aggregate) -> Sequence[float | None]:
    return a.low, a.value, a.high


def _clip(text: str, width: float) -> str:
    most = int(width / LETTER / 2)
    return text if len(text) <= most else text[: most - 1] + "…"
