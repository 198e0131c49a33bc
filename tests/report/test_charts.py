import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxfim.report.charts.axes import linear_ticks, log_scale, log_ticks
from onnxfim.report.charts.histograms import Histogram, _edges, distribution
from onnxfim.report.charts.marks import NARROW, WIDE
from onnxfim.report.charts.scatter import scatter
from onnxfim.report.charts.step_curve import step_curve
from onnxfim.report.page.audit_page import build_page
from tests.support.audits import make_audit, make_step

POSITIVE = st.floats(1e-300, 1e300)


def test_what_has_no_logarithm_stands_at_the_end():
    scale = log_scale([1.0, 100.0], 0, 200)
    assert [scale(value) for value in (0.0, -1.0, -1e308)] == [0, 0, 0]


@given(st.lists(POSITIVE, min_size=1, max_size=8), st.integers(3, 10))
def test_log_axis_holds_its_values_and_has_few_ticks(values, most):
    scale = log_scale(values, 10, 500)
    places = [scale(v) for v in sorted(values)]
    assert places == sorted(places)
    assert all(10 <= p <= 500 for p in places)
    ticks = log_ticks(scale, most=most)
    assert 0 < len(ticks) <= most
    assert all(scale.low * (1 - 1e-9) <= t.value <= scale.high * (1 + 1e-9) for t in ticks)
    assert len({t.text for t in ticks}) == len(ticks)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 9))
def test_linear_ticks_are_few_and_inside(low, width, most):
    ticks = linear_ticks(low, low + width, most=most)
    slack = 1e-6 * max(width, abs(low))  # rounding of multiples
    assert len(ticks) <= most
    assert all(low - slack <= t.value <= low + width + slack for t in ticks)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.slow
def test_nothing_leaves_the_drawing_and_labels_do_not_touch(audit, width):
    page = build_page(audit, lambda index, png: "")
    figures = [page.distribution, page.curve, page.scatter]
    if page.replay:
        figures += [
            page.replay.reach,
            *(p.figure for p in page.replay.panels),
            *(f for d in page.replay.directions for f in d.figures),
        ]
    if page.bound:
        figures.append(page.bound.shares)
    for figure in figures:
        if figure is None:
            continue
        chart = figure.wide if width == WIDE else figure.narrow
        for bar in chart.bars:
            assert bar.x >= 0
            assert bar.x + bar.width <= chart.width
            assert bar.y + bar.height <= chart.height
        boxes = []
        for label in chart.labels:
            wide, tall = (12, 6.2 * len(label.text)) if label.turned else (6.2 * len(label.text), 12)  # 6.2 px: a 12 px letter
            shift = {"start": 0, "middle": 0.5, "end": 1}[label.anchor]
            left = label.x - (6 if label.turned else shift * wide)
            top = label.y - (shift * tall if label.turned else 10)
            assert left >= -2
            assert left + wide <= chart.width + 2
            assert top >= -2
            assert top + tall <= chart.height + 2
            boxes.append((left, top, left + wide, top + tall, label.text))
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                assert a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 1 or b[3] <= a[1] + 1, (a, b)


def test_the_histogram_counts_every_positive_value():
    audit = make_audit(200)
    page = build_page(audit, lambda index, png: "")
    for series in ("raw", "calibrated"):
        tips = [b.tip for b in page.distribution.wide.bars if b.series == series]
        assert sum(int(re.search(r": ([\d,]+) sample", tip)[1]) for tip in tips) == 200


def test_zeros_are_counted_in_words():
    chart = distribution([Histogram("raw", "raw", (0.0, 0.0, 1.0), None)], units="u", width=700)
    assert "raw · 2 at zero, not drawn" in [label.text for label in chart.labels]


def test_statistics_are_drawn_at_their_values():
    audit = make_audit(100)
    values = tuple(s.lambda_max.value for s in audit.samples)
    chart = distribution([Histogram("raw", "raw", values, audit.aggregates["lambda_max"])], units="u", width=700)
    row = [r for r in chart.segments if r.role == "raw" and r.y1 == r.y2]
    assert len(row) == 4
    assert all(r.x1 < r.x2 for r in row)
    assert [label.text for label in chart.labels if label.role == "value"][
        1
    ] == f"mean {audit.aggregates['lambda_max'].mean.value:.3g}"


def test_the_curve_marks_the_step_and_draws_what_is_missing_open():
    step = make_step(dithered=True)
    chart = step_curve(step, units="u", width=700)
    chosen = [r for r in chart.segments if r.role == "chosen"]
    assert len(chosen) == 1
    assert "chosen: r = 0.1, dithered" in [label.text for label in chart.labels]
    markers = [p for p in chart.paths if p.tip]
    assert sum(not p.filled for p in markers) == 3  # three steps at which no direction changed any output
    assert {p.series for p in markers} == {"forward", "central", "cross", "axis"}
    assert "none" in [label.text for label in chart.labels]
    assert "no usable value at r = 10⁻⁴, 3×10⁻⁴, 0.001" in chart.description
    assert "dithered scheme" in chart.description


def test_no_curve_no_chart():
    assert step_curve(replace(make_step(), curve=()), units="u", width=700) is None


def test_scatter_needs_three_samples():
    audit = make_audit(2)
    assert scatter(audit.samples, {0: 1.0, 1: 2.0}, series_title="raw λ_max", width=700) is None


@pytest.mark.parametrize("decades", [0.01, 1, 6, 40, 300])
def test_bins_cover_the_axis(decades):
    values = np.logspace(-decades / 2, decades / 2, 50)
    edges = _edges(log_scale(values, 0, 600), most=36)
    assert edges[0] <= values[0]
    assert edges[-1] >= values[-1]
    assert len(edges) <= 40
    assert all(math.isfinite(e) and e > 0 for e in edges)
