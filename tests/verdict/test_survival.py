"""Curves and quantiles of distances, against counting by hand, and their intervals by their coverage."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from onnxfim.record.audit import Audit
from onnxfim.record.bound import Bound
from onnxfim.record.sample import FlipLengths
from onnxfim.verdict.judge import judge
from onnxfim.verdict.ladders import reached
from onnxfim.verdict.survival import robustness
from tests.support.audits import VARIANTS, make_audit, with_bound, with_flips, with_replay, with_tokens
from tests.support.small_audits import flipped


def with_wrong(audit, wrong):
    """The audit whose samples are right but for these."""
    return replace(
        audit,
        samples=tuple(
            replace(s, prediction=(s.label + 1) % 10 if w else s.label) for s, w in zip(audit.samples, wrong, strict=True)
        ),
    )


def test_the_curve_is_robust_accuracy():
    """Against a count of its own, at every step and between two: wrong samples are lost at 0, unflipped ones never."""
    rng = np.random.default_rng(3)
    wrong = rng.random(60) < 0.2
    radii = np.where(rng.random(60) < 0.1, np.nan, rng.lognormal(0, 1, 60))
    curve = robustness(flipped(with_wrong(make_audit(60), wrong), radii)).curve("flip_radius")
    assert (curve.samples, curve.standing, curve.unreached) == (60, (~wrong).sum(), (np.isnan(radii) & ~wrong).sum())
    assert curve.kind == "upper bound"
    for p in (*curve.points, *curve.ladder):
        left = sum(not w and not r <= p.epsilon for w, r in zip(wrong, radii, strict=True))
        assert p.left == left / 60
        assert p.low <= p.left <= p.high
    assert curve.points[0].epsilon == 0.0
    assert curve.points[0].left == pytest.approx((~wrong).mean())
    assert [p.left for p in curve.points] == sorted((p.left for p in curve.points), reverse=True)


def test_the_middle_is_where_the_accuracy_halves():
    wrong = np.arange(41) % 7 == 0
    curve = robustness(flipped(with_wrong(make_audit(41), wrong), np.linspace(0.5, 1.5, 41))).curve("flip_radius")
    clean = (~wrong).mean()
    for r in curve.reached:
        at = next(p for p in curve.points if p.epsilon == r.epsilon)
        before = max((p for p in curve.points if p.epsilon < r.epsilon), key=lambda p: p.epsilon)
        assert at.left <= (1 - r.share) * clean + 1e-12 < before.left


def test_many_samples_make_a_hundred_steps_that_are_true():
    radii = np.random.default_rng(0).lognormal(0, 1, 1000)
    curve = robustness(flipped(make_audit(1000, labels=False), radii)).curve("flip_radius")
    assert 100 <= len(curve.points) <= 101
    for p in curve.points:
        assert p.left == (radii > p.epsilon).mean()
    assert curve.points[-1].epsilon == radii.max()


def test_those_that_an_interrupt_left_out_are_not_counted():
    radii = [*np.linspace(1, 2, 10), *[None] * 10]
    told = robustness(flipped(make_audit(20, labels=False), radii))
    assert told.curve("flip_radius").samples == 10
    assert robustness(flipped(make_audit(5, labels=False), [None] * 5)).curve("flip_radius") is None


def test_fewer_than_half_is_no_number():
    half = robustness(flipped(make_audit(9, labels=False), [1.0] * 4 + [np.nan] * 5)).curve("flip_radius").reached[1]
    assert half.epsilon is None
    just = robustness(flipped(make_audit(9, labels=False), [1.0] * 4 + [2.0] + [np.nan] * 4)).curve("flip_radius").reached[1]
    assert (just.epsilon, just.high) == (2.0, None)


@pytest.mark.parametrize("n", [1, 2, 9, 10, 60])
def test_the_middle_is_the_median_that_the_statistics_have(n):
    """One audit has one median: numpy's, as the statistics over the samples print it; and that share has fallen there."""
    distances = np.sort(np.random.default_rng(n).lognormal(0, 1, n))
    assert reached(list(distances), 0.5).epsilon == pytest.approx(np.median(distances))
    for share in (0.1, 0.5, 0.9):
        fallen = (distances <= reached(list(distances), share).epsilon * (1 + 1e-12)).sum()
        assert fallen == math.ceil(share * n - 1e-9)
    assert reached([1.0, math.inf], 0.5).epsilon == 1.0, "no middle lies between a distance and none"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("n", [30, 100])
def test_intervals_of_quantiles_cover(share, n):
    """2000 draws of a log-normal with a twentieth beyond all: 95 % intervals hold the true quantile in 95 % at least, less 3 standard
    errors of the count (1.5 %); on neither side are they missed in more than 2.5 % plus as much."""
    rng = np.random.default_rng(n)
    draws = np.sort(np.where(rng.random((2000, n)) < 0.05, np.inf, np.exp(rng.standard_normal((2000, n)))), axis=1)
    truth = math.exp(NormalDist().inv_cdf(share / 0.95))
    found = [reached(list(d), share) for d in draws]
    below = np.mean([r.high is not None and r.high < truth for r in found])
    above = np.mean([r.low is not None and r.low > truth for r in found])
    assert below <= 0.025 + 3 * math.sqrt(0.025 / 2000)
    assert above <= 0.025 + 3 * math.sqrt(0.025 / 2000)


def test_pointwise_intervals_cover():
    """200 audits of 40 samples: at a distance where 62 % are left, the interval holds that in 95 % at least (less 3 errors)."""
    rng = np.random.default_rng(1)
    epsilon, truth = 1.0, 0.5 * math.erfc(-0.3 / math.sqrt(2))
    audit, held = make_audit(40, labels=False), 0
    for _ in range(200):
        radii = np.exp(rng.standard_normal(40) + 0.3)
        points = robustness(flipped(audit, radii)).curve("flip_radius").points
        at = max((p for p in points if p.epsilon <= epsilon), key=lambda p: p.epsilon)
        held += at.low <= truth <= at.high
    assert held / 200 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200)


def test_raw_units_are_the_moves_own():
    audit = make_audit(12, labels=False)
    audit = replace(audit, settings=replace(audit.settings, input_scale=(4.0, 5.0, 4.5)))
    radii, lengths = np.linspace(1, 2, 12), [FlipLengths(raw=r / 4.4) for r in np.linspace(1, 2, 12)]
    told = robustness(flipped(audit, radii, lengths))
    assert (told.unit, told.units) == ("raw", "raw input units")
    assert told.curve("flip_radius").reached[1].epsilon == pytest.approx(np.median(radii) / 4.4)
    without = robustness(flipped(audit, radii)).curve("flip_radius")
    assert without.reached[1].epsilon == pytest.approx(np.median(radii) / 4.0), "the longest that the move can be"
    near = told.curve("boundary_distance").reached[1].epsilon
    middle = np.median([s.boundary_distance.value for s in audit.samples])
    assert near == pytest.approx(middle / math.sqrt(20))
    wide = replace(audit, settings=replace(audit.settings, input_scale=(1.0, 5.0, 4.5)))
    assert robustness(wide).curve("boundary_distance") is None, "first-order distances in raw units are not known there"


def test_features_that_differ_in_scale_are_told_in_deviations():
    audit = replace(make_audit(12, labels=False), step=replace(make_audit(12).step, per_coordinate=True))
    radii = np.linspace(100, 200, 12)
    told = robustness(flipped(audit, radii, [FlipLengths(standardised=r / 100) for r in radii]))
    assert (told.unit, told.level, told.deviation) == ("deviations", None, None)
    assert told.curve("flip_radius").reached[1].epsilon == pytest.approx(np.median(radii) / 100)
    assert told.curve("boundary_distance") is None
    assert robustness(flipped(audit, radii)).curve("flip_radius") is None, "lengths that are not known are not invented"


def test_tokens_are_in_units_of_their_embedding():
    told = robustness(with_tokens(with_flips(with_replay(make_audit(40)))))
    assert (told.unit, told.units, told.level) == ("inner", "units of the embedding", None)
    assert (told.place, told.no_place) == (None, None)


def test_the_attack_has_a_ladder_of_round_distances():
    told = robustness(with_replay(make_audit(60)))
    curve = told.curve("attack")
    assert len(curve.ladder) >= 3
    assert all(f"{p.epsilon:.0e}"[0] in "125" for p in curve.ladder)
    audit = with_replay(make_audit(60))
    linf = replace(audit, attack=replace(audit.attack, norm="linf"), settings=replace(audit.settings, epsilon=0.3, attack="linf"))
    steps = [p.epsilon * 255 for p in robustness(linf).curve("attack").ladder]
    assert set(np.round(steps, 9)) <= {0.5, 1, 2, 4, 8, 16, 32, 76.5}
    assert 76.5 in np.round(steps, 9), "what was asked for is among them"


def test_the_weights_guarantee_what_the_margin_allows():
    """``ln p/(1 − p) / (√2 L)``, written out here."""
    audit = flipped(with_bound(make_audit(30, labels=False)), np.full(30, 0.01))
    bound = replace(audit.bound, log10_lipschitz=math.log10(50.0))
    audit = replace(audit, bound=bound)
    curve = robustness(audit).curve("certified")
    assert curve.kind == "lower bound"
    expected = sorted(
        max(math.log(s.confidence / (1 - s.confidence)), 0) / (math.sqrt(2) * 50) if 0 < s.confidence < 1 else math.inf
        for s in audit.samples
    )
    assert curve.reached[1].epsilon == pytest.approx(np.median(expected), rel=1e-3)  # float32's rounding of p is taken off
    assert curve.reached[1].epsilon <= np.median(expected)


def test_a_guarantee_that_says_nothing_is_not_drawn():
    audit = flipped(with_bound(make_audit(30, labels=False)), np.full(30, 0.5))
    told = robustness(replace(audit, bound=replace(audit.bound, log10_lipschitz=9.0)))
    assert told.curve("certified") is None
    assert "say nothing at these distances" in told.certified
    none = robustness(with_bound(make_audit(30), available=False))
    assert none.curve("certified") is None
    assert "the weights guarantee nothing: node '/attn/MatMul'" in none.certified


def test_a_certain_sample_is_not_certified_for_ever():
    audit = flipped(with_bound(make_audit(4, labels=False)), [0.01] * 4)
    audit = replace(audit, samples=tuple(replace(s, confidence=1.0) for s in audit.samples))
    curve = robustness(replace(audit, bound=replace(audit.bound, log10_lipschitz=0.0))).curve("certified")
    assert curve.reached[2].epsilon < 10.0  # float32 knows a probability to 1e-7, so margins of 14 nats at most


def test_it_is_in_the_record_and_read_back():
    audit = judge(with_flips(with_replay(make_audit(50))))
    assert audit.robustness == robustness(audit)
    assert Audit.from_json(audit.to_json()) == audit
    older = json.loads(audit.to_json())
    del older["robustness"]
    assert Audit.from_json(json.dumps(older)).robustness is None


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_kind_of_audit_has_one(name):
    told = robustness(VARIANTS[name]())
    for curve in told.curves:
        assert curve.samples >= curve.standing >= curve.unreached
        assert all(math.isfinite(p.epsilon) for p in (*curve.points, *curve.ladder))
    assert isinstance(told.dimension, int)


def test_a_bound_of_another_kind_is_left_out():
    bound = Bound(True, "", 1.0, 2.0, (), ())
    audit = replace(make_audit(20), bound=bound, model=replace(make_audit(20).model, output_kind="sigmoid"))
    assert robustness(audit).curve("certified") is None
