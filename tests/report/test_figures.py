"""The charts of a report alone: files that any reader of SVG shows, and the same drawn with matplotlib."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.errors import OutputError
from onnxfim.report.figures import charts_of
from onnxfim.report.html import render_html
from onnxfim.report.plotting import _path
from onnxfim.verdict.compare import compare
from tests.support.audits import make_audit, with_flips
from tests.support.places import DEV

SVG = "{http://www.w3.org/2000/svg}"


def test_every_figure_is_a_file_of_its_own(audit):
    for name, text in audit.figures.items():
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg"
        assert root.find(f"{SVG}title").text
        assert root.find(f"{SVG}desc").text
        assert "var(" not in text, f"{name}: not all readers know CSS variables"
        assert "prefers-color-scheme: dark" in text
        assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {
            "svg",
            "title",
            "desc",
            "style",
            "rect",
            "line",
            "path",
            "text",
            "tspan",
        }
        assert not [key for e in root.iter() for key in e.attrib if "href" in key or key.startswith("on")]


def test_they_are_the_charts_of_the_report():
    audit = make_audit(30)
    page = render_html(audit)
    assert {"distribution", "scatter"} <= set(audit.figures)
    for name, text in audit.figures.items():
        drawn = re.findall(r"<(?:line|rect|path|text) [^>]*>", text.split('class="ground"')[1].partition("/>")[2])
        assert len(drawn) > 5
        title = re.search(r"<title[^>]*>[^<]+</title>", text).group().partition(">")[2]
        assert title in page, name
        small = f'id="{re.sub(r"-[0-9]+$", "", name)}-small' in page  # several side by side are drawn narrow alone
        assert small or all(line in page for line in drawn), name


def test_a_comparison_has_figures():
    pair = compare([make_audit(30, seed=1), make_audit(30, seed=2)])
    assert pair.figures
    for text in pair.figures.values():
        ElementTree.fromstring(text)


@pytest.mark.slow
def test_a_chart_is_drawn_with_matplotlib():
    matplotlib = DEV.load("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    audit = make_audit(30)
    for name, chart in charts_of(audit).items():
        ax = audit.plot(name)
        assert len(ax.texts) == len(chart.labels)
        assert len(ax.lines) == len(chart.segments)
        assert len(ax.patches) == len(chart.bars) + len(chart.paths)
        bars = [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in ax.patches[: len(chart.bars)]]
        assert bars == [(b.x, b.y, b.width, b.height) for b in chart.bars]
        assert (ax.get_xlim(), ax.get_ylim()) == ((0, chart.width), (chart.height, 0))
        ax.figure.canvas.draw()
        pyplot.close(ax.figure)
    _, ax = pyplot.subplots()
    assert audit.plot(ax=ax) is ax
    pyplot.close(ax.figure)


def test_words_are_no_formulas():
    DEV.load("matplotlib").use("agg")
    from matplotlib import pyplot

    from onnxfim.report.plotting import _words

    _, ax = pyplot.subplots()
    ax.text(0, 0, _words("λ_max of $x$ and $ alone"))
    ax.figure.canvas.draw()
    pyplot.close(ax.figure)


@pytest.mark.parametrize(
    ("data", "points"),
    [
        ("M1 2L3 4H5V6", [(1, 2), (3, 4), (5, 4), (5, 6)]),
        ("M1 2l3 4h-5v6z", [(1, 2), (4, 6), (-1, 6), (-1, 12), (1, 2)]),
        ("M1.5 -2h1e-1M0 0l1 1 1 1", [(1.5, -2), (1.6, -2), (0, 0), (1, 1), (2, 2)]),
    ],
)
def test_paths_are_svgs(data, points):
    DEV.load("matplotlib")
    assert_allclose(_path(data).vertices, points)


def test_half_circles_are_round():
    DEV.load("matplotlib")
    path = _path("M1.0 5.0a4.0 4.0 0 1 0 8.0 0a4.0 4.0 0 1 0 -8.0 0z")
    away = np.hypot(*(path.vertices - (5, 5)).T)
    assert_allclose(away, 4, rtol=1e-9)
    middles = np.hypot(*((path.vertices[1:] + path.vertices[:-1]) / 2 - (5, 5)).T)
    assert middles.min() > 4 * 0.998, "32 lines a half circle: cos(π/64)"
    assert (path.vertices[:, 1].min(), path.vertices[:, 1].max()) == pytest.approx((1, 9))


def test_a_band_is_filled_and_has_no_edge():
    DEV.load("matplotlib")
    import matplotlib

    matplotlib.use("agg")
    axes = with_flips(make_audit(20)).plot("survival")
    bands = [p for p in axes.patches if p.get_alpha() == 0.15]
    assert len(bands) == 1
    assert bands[0].get_edgecolor()[3] == 0
    assert bands[0].get_facecolor()[3] == pytest.approx(0.15)


def test_bars_let_through_what_the_reports_own_do():
    DEV.load("matplotlib").use("agg")
    from matplotlib import pyplot

    several = compare([make_audit(30, seed=seed) for seed in (1, 2, 3)])
    chart = charts_of(several)["matrix"]
    axes = several.plot("matrix")
    drawn = ElementTree.fromstring(several.figures["matrix"]).findall(f"{SVG}rect")[1:]  # the first one is the ground
    assert [p.get_alpha() for p in axes.patches[: len(chart.bars)]] == [float(r.get("fill-opacity", "1")) for r in drawn]
    assert min(p.get_alpha() for p in axes.patches) < 0.5, "signs stand on the cells"
    marks = [t for t, label in zip(axes.texts, chart.labels, strict=True) if label.role == "mark"]
    assert marks
    assert {t.get_fontweight() for t in marks} == {700}
    pyplot.close(axes.figure)


def test_a_chart_that_is_not_there(told):
    DEV.load("matplotlib")
    with pytest.raises(OutputError, match=told("no chart 'x'", "'distribution'")):
        make_audit(5).plot("x")


@pytest.mark.parametrize(("method", "package"), [("plot", "matplotlib"), ("to_frame", "pandas")])
def test_without_the_package(method, package, uninstalled, told):
    uninstalled(package)
    with pytest.raises(OutputError, match=told(f"{package} is not installed", "pip install 'onnxfim[notebook]'")):
        getattr(make_audit(5), method)()
