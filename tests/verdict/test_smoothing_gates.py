"""Smoothed classifiers over all samples, and gates on them: shares and intervals, what may be named, what is foreseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from onnxfim.errors import SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.guarantees import Smoothed
from onnxfim.record.smoothing_terms import ALPHA
from onnxfim.report.gate_words import gate_words, units_of
from onnxfim.slopes.smoothed import certificate
from onnxfim.verdict import judge, parse_gate
from onnxfim.verdict.expect import expect
from onnxfim.verdict.foreseen import Planned, obstacle
from onnxfim.verdict.smoothed_shares import largest_radius, round_radii
from tests.support.audits import make_audit

BUDGET = 1000


def certified(kept, *, labelled=True, sigmas=(0.25,), given=None, scale=None):
    """An audit whose samples' own classes were kept so often; a class beside it where ``given`` says so."""
    audit = make_audit(n=len(kept))
    texts = tuple(f"smoothing:{s}" for s in sigmas)
    settings = replace(audit.settings, certify=texts, certify_budget=BUDGET, input_scale=scale)
    samples = []
    for k, (s, count) in enumerate(zip(audit.samples, kept, strict=True)):
        own = s.label if labelled else s.prediction
        own = own if given is None or not given[k] else own + 1
        found = tuple(certificate(sigma, own, int(count), BUDGET, BUDGET) for sigma in sigmas)
        samples.append(replace(s, label=s.label if labelled else None, smoothed=found))
    data = replace(audit.data, labels=labelled)
    return judge(replace(audit, samples=tuple(samples), settings=settings, data=data))


KEPT = np.linspace(400, 1000, 60).astype(int)


def test_the_curve_is_the_share_that_is_right_and_certified():
    given = np.arange(60) % 6 == 0
    audit = certified(KEPT, given=given)
    summary = audit.smoothing[0]
    radii = np.array([s.smoothed[0].radius for s in audit.samples])
    right = np.array([s.smoothed[0].prediction == s.label for s in audit.samples])
    assert summary.samples == 60
    assert summary.abstained == (radii == 0).sum() > 5
    assert summary.accuracy == pytest.approx(right.mean())
    assert summary.curve[0].radius == 0.0
    assert summary.curve[0].share == summary.accuracy
    for point in summary.curve:
        count = (right & (radii >= point.radius)).sum()
        assert point.share == pytest.approx(count / 60)
        interval = stats.binomtest(int(count), 60).proportion_ci(0.95, "exact")
        # rtol: two implementations of the incomplete beta function; a certificate is wrong with a chance of ALPHA at most
        assert_allclose([point.low, point.high], [max(interval.low - ALPHA, 0), interval.high], rtol=1e-8, atol=1e-9)
    shares = [p.share for p in summary.curve]
    assert shares == sorted(shares, reverse=True)
    assert {0.25, 0.5} <= {p.radius for p in summary.curve}
    assert summary.average == pytest.approx(np.where(right, radii, 0).mean())
    assert summary.median.value == pytest.approx(np.median(np.where(right, radii, 0)))
    assert Audit.from_json(audit.to_json()) == audit


def test_without_labels_it_is_the_files_own_prediction_that_counts():
    summary = certified(KEPT, labelled=False).smoothing[0]
    assert not summary.labelled
    assert summary.accuracy is None
    assert summary.clean_accuracy is None
    assert summary.curve[0].share == summary.agrees / 60


def test_the_interval_holds_the_populations_share_as_often_as_it_says():
    """400 draws of 60 samples: radii at which 30, 60 and 90 % are certified; a 95 % interval may miss in 5 %, 33 or more of 400
    come with a chance of 0.5 %."""
    from onnxfim.verdict.smoothed_shares import Certified

    rng = np.random.default_rng(0)
    for share in (0.3, 0.6, 0.9):
        missed = 0
        for _ in range(400):
            radii = tuple(np.where(rng.random(60) < share, 0.5, 0.0))
            point = Certified((), radii, True, 60, 60).share(0.25)
            missed += not point.low <= share <= point.high
        assert missed < 33


@pytest.mark.parametrize("largest", [0.003, 0.12 * 2.46, 0.25 * 2.46, 0.615, 2.46, 3.2, 9.9, 200.0])
def test_radii_are_round_and_few(largest):
    radii = round_radii(largest)
    assert radii[0] == 0.0
    assert 30 <= len(radii) <= 101
    assert radii[-1] <= largest * (1 + 1e-8)
    assert largest - radii[-1] < radii[1] * (1 + 1e-6)
    assert all(len(f"{r:.6g}".replace(".", "").lstrip("0").rstrip("0")) <= 5 for r in radii)


def test_units_are_raw_ones_where_these_are_known():
    assert certified(KEPT).smoothing[0].units == "model input units"
    audit = certified(KEPT, scale=(2.0, 3.0))
    assert audit.smoothing[0].units == "raw input units"
    assert units_of(audit, "smoothing.radius.median") == "raw input units"
    assert units_of(audit, "smoothing.certified_accuracy@0.25") == ""


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("smoothing.certified_accuracy@0.25 < 5%", "pass"),
        ("smoothing.certified_accuracy@1/4 < 99 %", "fail"),
        ("smoothing[0.25].certified_accuracy@0.25 < 0.25", "inconclusive"),
        ("smoothing[1/4].accuracy < 50%", "pass"),
        ("smoothing.abstained > 50%", "pass"),
        ("smoothing.abstained > 1%", "fail"),
        ("smoothing.radius.median < 0.01", "pass"),
        ("smoothing.radius.median < 0.6", "fail"),
        ("smoothing.certified_accuracy@2 < 10%", "fail"),
    ],
)
def test_gates_are_decided_on_intervals(text, verdict):
    audit = certified(KEPT)
    gate = judge(audit, [parse_gate(text)]).gates[0]
    assert gate.verdict == verdict, gate.comparison
    words = gate_words(gate, units_of(audit, gate.name))
    assert ("model input units" in words) == ("radius" in text)
    assert ("%" in words.split(":", 1)[1]) or "radius" in text
    opposite = text.replace("<", ">=") if "<" in text else text.replace(">", "<=")
    assert expect(audit, opposite).verdict == verdict


def test_an_open_gate_says_how_many_samples_would_settle_it():
    gate = judge(certified(KEPT), [parse_gate("smoothing.certified_accuracy@0.25 < 0.25")]).gates[0]
    assert "more samples" in gate.advice


@pytest.mark.parametrize(
    ("sigmas", "name", "why"),
    [
        ((0.25, 0.5), "smoothing.radius.median", "which of the smoothed classifiers (0.25, 0.5)"),
        ((0.25,), "smoothing[0.5].radius.median", "noise of 0.5 is not asked for (asked: 0.25). Give --certify smoothing:0.5 too"),
        ((), "smoothing.accuracy", "no smoothing certificate is asked for. Give --certify smoothing:SIGMA"),
    ],
)
def test_what_was_not_asked_for_is_not_decided(sigmas, name, why):
    audit = certified(KEPT, sigmas=sigmas)
    gate = judge(audit, [parse_gate(f"{name} < 0.5")]).gates[0]
    assert gate.verdict == "inconclusive"
    assert why in gate.comparison
    found = obstacle(parse_gate(f"{name} < 0.5"), Planned(samples=60, labelled=60, smoothing=sigmas))
    assert found.never
    assert why in found.message
    assert "\n" not in found.message


def test_several_classifiers_are_told_apart():
    audit = certified(KEPT, sigmas=(0.25, 0.5))
    first, second = (judge(audit, [parse_gate(f"smoothing[{s}].radius.median > 9")]).gates[0].value for s in ("1/4", "0.5"))
    assert second == pytest.approx(2 * first)


def test_outputs_that_could_not_be_smoothed_leave_it_open():
    audit = certified(KEPT)
    none = Smoothed(0.25, None, 0, 0, 0.0, 0.0, "a reason")
    audit = judge(replace(audit, samples=tuple(replace(s, smoothed=(none,)) for s in audit.samples)))
    assert audit.smoothing[0].reason == "a reason"
    gate = judge(audit, [parse_gate("smoothing.radius.median < 0.1")]).gates[0]
    assert gate.verdict == "inconclusive"
    assert gate.advice == "Not measured: a reason."


@pytest.mark.parametrize(
    "text",
    [
        "smoothing.certified_accuracy < 1", "smoothing.certified_accuracy@x < 1", "smoothing.certified_accuracy@0 < 1",
        "smoothing[x].accuracy < 1", "smoothing[0].accuracy < 1", "smoothing.accuracy@1 < 1", "smoothing.mean < 1",
        "lambda_max[1].mean < 1", "smoothing.accuracy[0.25] < 1",
    ],
)  # fmt: skip
def test_names_that_are_none_are_refused_in_a_line(text, told):
    with pytest.raises(SettingsError, match=told("gate")):
        parse_gate(text)


def test_what_cannot_be_is_foreseen():
    planned = Planned(samples=60, labelled=60, smoothing=(0.25,), certify_budget=1000)
    most = largest_radius(0.25, 1000)
    assert most == pytest.approx(0.25 * stats.norm.ppf(ALPHA ** (1 / 1000)), rel=1e-9)
    found = obstacle(parse_gate("smoothing.certified_accuracy@0.75 < 10%"), planned)
    assert not found.never
    assert "no radius is above 0.616. Give a larger SIGMA or --certify-budget" in found.message
    assert obstacle(parse_gate("smoothing.certified_accuracy@0.5 < 10%"), planned) is None
    assert obstacle(parse_gate("smoothing.certified_accuracy@0.75 > 10%"), planned) is None
    assert "there are no labels" in obstacle(parse_gate("smoothing.accuracy < 10%"), replace(planned, labelled=0)).message
    assert obstacle(parse_gate("smoothing.certified_accuracy@0.1 < 10%"), replace(planned, labelled=0)) is None
    assert obstacle(parse_gate("smoothing.radius.median < 1"), replace(planned, samples=3)).never
