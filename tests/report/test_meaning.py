"""The plain words say what was measured, and claim nothing beyond it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from onnxfim.report import render_html
from onnxfim.report.human import human_lines
from onnxfim.report.markdown import render_summary
from onnxfim.report.meaning import flip_tile, meaning
from onnxfim.report.numbers import number
from onnxfim.report.page.audit_page import build_page
from tests.support.audits import VARIANTS, make_audit, with_replay
from tests.support.pages import read
from tests.support.small_audits import flipped

CLAIMS = re.compile(r"at most|no more than|no probability|Pinsker|guarantee")


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
        turned = sum(c.flips_at is not None and c.flips_at <= p.epsilon * (1 + 1e-9) for c, p in points)
        assert f"a median of {number(float(np.median(kl)))} and a maximum of {number(max(kl))} nats" in text
        assert f"{turned:,} of {len(points):,} predictions had flipped" in text
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


def test_every_format_that_has_words_has_these():
    audit = flipped(with_replay(make_audit(50)), np.linspace(0.5, 1.5, 50))
    right = sum(s.label == s.prediction for s in audit.samples)
    page = build_page(audit, lambda name, png: f"{name}.png")
    tile = next(t for t in page.tiles if t.label == "Median flip radius")
    assert (tile.quantity, tile.note) == flip_tile(audit)
    assert tile.quantity.text == number(
        sorted(s.flip_radius.value for s in audit.samples if s.label == s.prediction)[(right - 1) // 2]
    )
    html = next(e for e in read(render_html(audit)).elements if e.tag == "body").text
    assert meaning(audit).split(". ")[1] in html
    first = human_lines(audit)[0].replace("_", "")
    assert first.split("(")[0] in render_summary(audit).replace("\\", "")
    assert "Pinsker" not in html
    assert "Flip radius, upper bound" in [c.head for c in page.sample_columns]
