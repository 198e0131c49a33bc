import re
from dataclasses import replace

import numpy as np
import pytest

from onnxfim.record.sample import KLCurve, KLPoint
from onnxfim.report import render_html
from onnxfim.report.charts.kl_charts import kl_panel, reach, share_flipped, share_holding
from onnxfim.report.numbers import number, percent, short
from onnxfim.report.page.audit_page import build_page
from onnxfim.report.page.directions import MOST_COORDINATES, feature
from tests.support.audits import REPLAYS, make_audit, with_replay, with_tokens
from tests.support.pages import read


def view_of(audit):
    return build_page(audit, lambda name, png: f"{name}.png").replay


def section(html, name="replay"):
    return next((e for e in read(html).elements if e.attributes.get("id") == name), None)


def point(epsilon, value, *, quadratic=None):
    return KLPoint(epsilon, value, value, value / 10, value if quadratic is None else quadratic)


def test_no_replay_no_section():
    html = render_html(make_audit(10))
    assert section(html) is None
    assert "#replay" not in html


def test_without_curves_the_directions_stand_alone():
    audit = with_replay(make_audit(20))
    bare = replace(audit, samples=tuple(replace(s, kl_curve=None) for s in audit.samples))
    view = view_of(bare)
    assert (view.answer, view.panels, view.reach, len(view.directions)) == ("", (), None, 3)
    assert "The change that moves the prediction most" in section(render_html(bare)).text


def test_without_directions_the_curves_stand_alone():
    audit = replace(with_replay(make_audit(50)), directions=())
    view = view_of(audit)
    assert [p.role for p in view.panels] == ["Most sensitive", "In the middle", "Least sensitive"]
    values = {s.index: s.lambda_max_calibrated.value for s in audit.samples if s.kl_curve}
    ranked = sorted(values, key=values.get)
    assert [view.panels[0].index, view.panels[-1].index] == [ranked[-1], ranked[0]]
    assert "The change that moves" not in section(render_html(audit)).text


def test_panels_are_the_samples_of_the_pictures():
    audit = with_replay(make_audit(200))
    view = view_of(audit)
    assert [p.index for p in view.panels] == [d.index for d in audit.directions] == [d.index for d in view.directions]


@pytest.mark.parametrize("name", sorted(REPLAYS))
def test_numbers_are_the_curves(name):
    audit = REPLAYS[name]()
    samples = {s.index: s for s in audit.samples}
    view = view_of(audit)
    for panel in view.panels:
        curve = samples[panel.index].kl_curve
        facts = {f.name: f.value for f in panel.facts}
        assert facts["Raw λ_max"] == number(samples[panel.index].lambda_max.value)
        assert facts["Within 10 %"] == ("nowhere on the ladder" if curve.holds_to is None else f"up to ε = {short(curve.holds_to)}")
        assert facts["Prediction flips"] == ("not on the ladder" if curve.flips_at is None else f"at ε = {short(curve.flips_at)}")
        lines = [p for p in view.points if p.sample == panel.index]
        assert [(p.epsilon, p.along, p.against, p.random, p.quadratic) for p in lines] == [
            (short(p.epsilon), number(p.along), number(p.against), number(p.random), number(p.quadratic)) for p in curve.points
        ]


def test_shares_count_the_samples():
    audit = with_replay(make_audit(200))
    curves = [s.kl_curve for s in audit.samples if s.kl_curve]
    distance = audit.aggregates["boundary_distance"].median.value / 10
    view = view_of(audit)
    held = sum((c.holds_to or 0) >= distance for c in curves)
    flipped = sum(c.flips_at is not None and c.flips_at <= distance for c in curves)
    assert len(curves) == 64
    assert view.reach_lines[0].holds == percent(held / 64)
    assert view.reach_lines[0].flipped == percent(flipped / 64)
    assert f"on {held} of 64 replayed samples" in view.answer
    tiles = {t.label: t.quantity.text for t in view.tiles}
    assert tiles["Median distance it holds to"] == number(float(np.median([c.holds_to or 0 for c in curves])))
    assert tiles["Median distance of the flip"] == number(float(np.median([c.flips_at for c in curves if c.flips_at])))


@pytest.mark.parametrize(
    ("share", "words"), [(1.0, "Yes, for small"), (0.7, "For most samples"), (0.2, "Only for smaller changes")]
)
def test_the_answer_follows_the_share(share, words):
    audit = with_replay(make_audit(10))
    good = KLCurve(tuple(point(e, e**2) for e in (0.001, 1.0, 10.0)), 10.0, None)
    bad = replace(good, holds_to=None)
    samples = tuple(replace(s, kl_curve=good if i < 10 * share else bad) for i, s in enumerate(audit.samples))
    assert view_of(replace(audit, samples=samples)).answer.startswith(words)


def test_without_a_boundary_distance_the_ladder_gives_the_distances():
    audit = with_replay(make_audit(30))
    missing = replace(audit.samples[0].boundary_distance, value=None, low=None, high=None, reason="a regression has none")
    samples = tuple(replace(s, boundary_distance=missing) for s in audit.samples)
    kept = {k: a for k, a in audit.aggregates.items() if k != "boundary_distance"}
    view = view_of(replace(audit, samples=samples, aggregates=kept))
    assert {line.why for line in view.reach_lines} == {"a rung of the ladder"}
    assert "Flip / boundary distance" not in [t.label for t in view.tiles]


def test_shares_at_a_distance():
    curves = [KLCurve((), h, f) for h, f in [(1.0, None), (0.1, 0.5), (None, 2.0), (2.0, 1.0)]]
    assert share_holding(curves, 1.0) == 0.5
    assert share_holding(curves, 0.1) == 0.75
    assert share_flipped(curves, 1.0) == 0.5
    assert share_flipped(curves, 0.4) == 0.0


def test_the_band_ends_where_the_form_does_and_the_line_stands_at_the_flip():
    curve = KLCurve(tuple(point(e, e**2) for e in (0.01, 0.1, 1.0, 10.0)), 0.1, 1.0)
    chart = kl_panel(curve, name="c", title="a title", span=None, width=700)
    markers = {p.tip: p for p in chart.paths if p.tip}
    (band,) = [b for b in chart.bars if b.series == "holds"]
    (flip,) = [r for r in chart.segments if r.role == "flips"]
    marker = markers["along +v, ε = 0.1: 0.0100 nats"]
    left = float(re.match(r"M([\d.]+)", marker.data)[1]) + 3.2  # the path of a circle starts one radius to the left
    assert band.x + band.width == pytest.approx(left, abs=0.2)
    ticks = {label.text: label.x for label in chart.labels if label.role == "tick" and label.anchor == "middle"}
    assert flip.x1 == ticks["1"]
    assert "within 10 % up to ε = 0.1; the prediction flips at ε = 1" in chart.description


def test_what_is_too_small_to_draw_is_counted():
    curve = KLCurve((point(0.1, 0.0, quadratic=0.005), point(1.0, 0.5), point(2.0, 2.0)), None, None)
    chart = kl_panel(curve, name="c", title="a title", span=None, width=360)
    assert "3 values are too close to zero to be drawn" in chart.description
    assert not [b for b in chart.bars if b.series == "holds"]
    flat = KLCurve((point(0.1, 0.0), point(1.0, 0.0)), None, None)
    assert kl_panel(flat, name="c", title="a title", span=None, width=360) is None


def test_reach_needs_three_samples():
    curve = KLCurve((point(0.1, 0.01), point(1.0, 1.0)), 1.0, None)
    assert reach([curve] * 2, boundary=1.0, width=700) is None
    assert reach([curve] * 3, boundary=None, width=700) is not None


def test_a_sample_whose_curve_cannot_be_drawn_says_so():
    audit = with_replay(make_audit(1))
    flat = KLCurve((point(0.1, 0.0), point(1.0, 0.0)), None, None)
    audit = replace(audit, samples=tuple(replace(s, kl_curve=flat) for s in audit.samples))
    assert "Too few values above zero to draw a curve" in section(render_html(audit)).text


def test_pictures_of_directions_have_names_captions_and_classes():
    html = render_html(with_replay(make_audit(30)))
    page = read(html)
    pictures = [e for e in page.elements if e.tag == "img" and "figure" in e.inside]
    assert len(pictures) == 9
    assert len({e.attributes["alt"] for e in pictures}) == 9
    assert sum("Signed map of the worst direction" in e.attributes["alt"] for e in pictures) == 3
    text = section(html).text
    assert "grey is zero" in text
    assert "it becomes" in text
    assert "it stays" in text


def test_coordinates_stand_for_pictures_where_the_input_is_no_image():
    audit = REPLAYS["replay-coordinates"]()
    for card, d in zip(view_of(audit).directions, audit.directions, strict=True):
        assert card.pictures == ()
        largest = sorted(d.largest, key=lambda pair: -abs(pair[1]))[:MOST_COORDINATES]
        assert [b.tip for b in card.figures[0].wide.bars] == [f"{feature(i, audit)}: {number(v)}" for i, v in largest]
        assert [b.series for b in card.figures[0].wide.bars] == ["share" if v >= 0 else "loss" for _, v in largest]


def test_pictures_of_directions_are_saved_beside_the_page(tmp_path):
    html = render_html(with_replay(make_audit(30)), assets_dir=tmp_path / "files")
    used = {e.attributes["src"] for e in read(html).elements if e.tag == "img"}
    assert {u.split("/")[1] for u in used} | {"report.css", "report.js"} == {p.name for p in (tmp_path / "files").iterdir()}
    assert "files/direction-0-moved.png" in used


def test_gradient_facts():
    def facts(audit):
        groups = build_page(audit, lambda name, png: "").run
        return {f.name: f.value for g in groups if g.title == "Gradients" for f in g.facts}

    audit = with_replay(make_audit(5))
    assert facts(make_audit(5)) == {}
    told = facts(audit)
    assert told["Used"] == "yes"
    assert told["⟨u, Jv⟩ = ⟨Jᵀu, v⟩"] == "relative error 3.10×10⁻⁷"
    assert told["Cross-checked"] == "4 samples; sketch of the file / gradient = 1.03"
    assert "surrogate" in facts(replace(audit, gradient=replace(audit.gradient, surrogate=True)))["Differentiated"]
    refused = replace(audit.gradient, used=False, reason="node 'q': QuantizeLinear has no derivative", cross_checked=0)
    told = facts(replace(audit, gradient=refused))
    assert told["Used"].startswith("no")
    assert told["Reason"] == "node 'q': QuantizeLinear has no derivative"
    assert "Differentiated" not in told


class TestTokens:
    audit = with_tokens(with_replay(make_audit(40), images=False))

    def test_a_bar_for_each_position_of_the_sequence(self):
        for card, direction in zip(view_of(self.audit).directions, self.audit.directions, strict=True):
            tips = [bar.tip for bar in card.figures[0].wide.bars]
            assert tips == [f"position {k}, token {p.token}: {percent(p.share)}" for k, p in enumerate(direction.positions)]

    def test_units_and_place_are_told(self):
        shown = text_of_page(self.audit)
        assert "nats per squared unit of the embedding" in shown
        assert "model input unit" not in shown
        assert "Audited from" in shown
        assert "before it: Gather (node 'embedding') of the table 'embedding' (50 rows) by 'embedding'" in shown
        assert "In its map grey is zero" not in section(render_html(self.audit)).text


def text_of_page(audit):
    return next(e for e in read(render_html(audit)).elements if e.tag == "body").text
