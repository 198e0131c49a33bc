"""The plain words say what was measured, and claim nothing beyond it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from onnxfim.report.charts.flip_curve import flip_curve

from onnxfim.record.sample import Estimate
from onnxfim.report import render_html
from onnxfim.report.markdown import render_summary
from onnxfim.report.meaning import flip_median, meaning
from onnxfim.report.numbers import number, percent
from onnxfim.report.page.audit_page import build_page
from tests.support.audits import VARIANTS, make_audit, with_replay
from tests.support.pages import read

CLAIMS = re.compile(r"at most|no more than|no probability|Pinsker|guarantee")


def with_flips(audit, radii):
    """The audit with these flip radii; NaN for a sample that did not flip."""
    estimates = [
        Estimate(None, kind="upper bound", evaluations=20, reason="no flip")
        if np.isnan(r)
        else Estimate(r, None, r, "upper bound", "", 20)
        for r in radii
    ]
    return replace(audit, samples=tuple(replace(s, flip_radius=e) for s, e in zip(audit.samples, estimates, strict=True)))


def test_it_quotes_the_replay():
    audit = with_replay(make_audit(50))
    curves = [(s, s.kl_curve) for s in audit.samples if s.kl_curve]
    text = meaning(audit)
    at = {}
    for part in (0.1, 1.0):
        points = [(c, p) for s, c in curves for p in c.points if abs(p.epsilon / (part * s.boundary_distance.value) - 1) < 0.05]
        if points:
            at[part] = points
    assert at, "the ladder is one of boundary distances"
    for points in at.values():
        kl = [max(p.along, p.against) for _, p in points]
        flipped = sum(c.flips_at is not None and c.flips_at <= p.epsilon * (1 + 1e-9) for c, p in points)
        assert f"a median of {number(float(np.median(kl)))} and a maximum of {number(max(kl))} nats" in text
        assert f"{flipped:,} of {len(points):,} predictions had flipped" in text
    nowhere = sum(c.holds_to is None for _, c in curves)
    assert f"on {nowhere:,} of {len(curves):,} it held nowhere" in text
    assert "Other directions, and other samples, may move further" in text


@pytest.mark.parametrize("made", [with_replay(make_audit(50)), make_audit(50), make_audit(1)], ids=["replay", "none", "one"])
def test_it_claims_no_limit(made):
    text = meaning(made)
    assert not CLAIMS.search(text)
    assert "It is not an upper limit" in text
    assert "along the worst direction" in text


def test_without_a_replay_there_is_no_number_of_a_change():
    text = meaning(make_audit(50))
    assert "was not measured here" in text
    assert not re.search(r"\d+(\.\d+)? nats", text)


def test_nothing_measured_means_nothing():
    assert meaning(VARIANTS["nulls"]()) is None


def test_the_median_is_of_the_rightly_classified():
    audit = make_audit(40)
    wrong = np.array([s.label != s.prediction for s in audit.samples])
    wrong[:3] = True
    audit = replace(
        audit,
        samples=tuple(
            replace(s, prediction=(s.label + 1) % 10 if w else s.label) for s, w in zip(audit.samples, wrong, strict=True)
        ),
    )
    radii = np.where(wrong, 1e-6, np.linspace(1, 2, 40))
    found = flip_median(with_flips(audit, radii))
    assert found.samples == (~wrong).sum()
    assert found.value == pytest.approx(np.median(radii[~wrong]))
    assert found.low < found.value < found.high


def test_what_did_not_flip_is_farther_than_all_that_did():
    audit = make_audit(9, labels=False)
    few = flip_median(with_flips(audit, [1.0] * 4 + [2.0] + [np.nan] * 4))
    assert (few.value, few.unflipped) == (2.0, 4)
    most = flip_median(with_flips(audit, [1.0] * 4 + [np.nan] * 5))
    assert (most.value, most.unflipped) == (None, 5)


def test_every_format_that_has_words_has_these():
    audit = with_flips(with_replay(make_audit(50)), np.linspace(0.5, 1.5, 50))
    page = build_page(audit, lambda name, png: f"{name}.png")
    tile = next(t for t in page.tiles if t.label == "Median flip radius")
    assert tile.quantity.text == number(flip_median(audit).value)
    html = next(e for e in read(render_html(audit)).elements if e.tag == "body").text
    assert meaning(audit).split(". ")[1] in html
    for text in (html, render_summary(audit)):
        assert "changed the prediction within" in text
        assert "Pinsker" not in text
    assert "Flip radius, upper bound" in [c.head for c in page.sample_columns]


def test_one_sample_is_not_half_of_them():
    audit = with_flips(make_audit(1, labels=False), [0.7])
    assert "half" not in meaning(audit).split("Flip radius")[1]


def test_the_curve_counts_what_is_left():
    audit = make_audit(40)
    right = np.array([s.label == s.prediction for s in audit.samples])
    audit = with_flips(audit, [np.nan, *np.linspace(0.5, 1.5, 39)])
    chart = flip_curve(audit.samples, labelled=True, width=640)
    assert chart.description.startswith(
        f"40 samples: {percent(right.mean())} are right without a move, and {percent(right[0] / 40)}"
    )
    line = chart.paths[0].data
    assert line.count("H") == line.count("V") == right[1:].sum()
    heights = [float(v) for v in re.findall(r"V([\d.]+)", line)]
    assert heights == sorted(heights), "fewer are left further away"
    assert flip_curve(make_audit(40).samples, labelled=True, width=640) is None
    assert "are unchanged without a move" in flip_curve(audit.samples, labelled=False, width=640).description
