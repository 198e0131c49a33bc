"""Brackets from finished records: where their ends are from, what one norm knows of the other, contradictions, and shares."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.record.guarantee_summaries import DecidedAt, VerifierSummary
from onnxfim.record.guarantees import PredictedDistance, VerifiedBox
from onnxfim.record.sample import Estimate, FlipLengths
from onnxfim.report.human import human_lines
from onnxfim.verdict.bracketing import allowance, brackets
from onnxfim.verdict.findings import findings
from onnxfim.verdict.judge import judge
from tests.support import models
from tests.support.audits import make_attack, make_audit, with_bound
from tests.support.small_audits import flipped

D = 64  # numbers of a sample of these audits
ROOT = 8.0


def certified(value, method="local bounds"):
    return Estimate(value, value, None, "lower bound", method)


def found(value):
    return Estimate(value, None, value, "upper bound", "", 10)


def of(audit, norm, k=0):
    """The bracket of a sample in a norm."""
    return next(b for b in audit.samples[k].bracket if b.norm == norm)


def ends(bracket):
    return bracket.low, bracket.low_from, bracket.high, bracket.high_from


def plain(n=4, **fields):
    """An audit of samples without flips, attacks and bounds, with these fields on each sample."""
    audit = make_audit(n, labels=False)
    assert math.prod(audit.data.shape) == D
    return replace(audit, samples=tuple(replace(s, **fields) for s in audit.samples), attack=None, bound=None)


def ids(audit):
    return {f.id: f for f in findings(brackets(audit))}


def test_nothing_known_is_nothing_said():
    told = brackets(plain())
    assert ends(of(told, "l2")) == ends(of(told, "linf")) == (0.0, "", None, "")
    for b in told.bracket:
        assert (b.low.value, b.high.value, b.width, b.decided, b.contradictions) == (0.0, None, None, (), 0)
        assert b.samples == 4


def test_each_end_is_the_best_that_is_known_and_each_norm_takes_from_the_other():
    """``‖δ‖∞ ≤ ‖δ‖₂ ≤ √d ‖δ‖∞``: balls inside balls from below, moves within moves from above."""
    told = brackets(plain(certified_radius=certified(0.1), flip_radius=found(2.0)))
    assert ends(of(told, "l2")) == (0.1, "local bounds", 2.0, "flip")
    assert ends(of(told, "linf")) == (0.1 / ROOT, "local bounds in L2", 2.0, "flip in L2")
    told = brackets(plain(certified_radius_linf=certified(0.1, "verifier vibecheck"), flip_radius_linf=found(0.5)))
    assert ends(of(told, "linf")) == (0.1, "verifier", 0.5, "flip")
    assert ends(of(told, "l2")) == (0.1, "verifier in L∞", 0.5 * ROOT, "flip in L∞")
    both = {"certified_radius": certified(0.1), "certified_radius_linf": certified(0.05), "flip_radius": found(2.0)}
    told = brackets(plain(**both, flip_radius_linf=found(0.1)))
    assert ends(of(told, "l2")) == (0.1, "local bounds", 0.1 * ROOT, "flip in L∞")
    assert ends(of(told, "linf")) == (0.05, "local bounds", 0.1, "flip")
    nothing = Estimate(None, kind="lower bound", reason="nothing was certified")
    assert ends(of(brackets(plain(certified_radius=nothing)), "l2")) == (0.0, "", None, "")


def test_the_weights_guarantee_what_they_do_in_the_curve():
    audit = with_bound(flipped(make_audit(30, labels=False), np.full(30, 0.01)))
    audit = replace(audit, bound=replace(audit.bound, log10_lipschitz=math.log10(50.0)))
    told = judge(audit)
    expected = np.median([max(math.log(s.confidence / (1 - s.confidence)), 0) / (math.sqrt(2) * 50) for s in audit.samples])
    assert told.bracket[0].low.value == pytest.approx(expected, rel=1e-3)  # float32's rounding of p is taken off
    assert {of(told, "l2", k).low_from for k in range(30)} <= {"weights", ""}
    curve = told.robustness.curve("certified")
    assert curve.reached[1].epsilon == pytest.approx(told.bracket[0].low.value)
    assert told.robustness.guaranteed_by == ("weights",)
    told = judge(flipped(told, np.full(30, 1.0)))  # beyond what is guaranteed: else the two contradict one another
    certain = replace(told, samples=tuple(replace(s, certified_radius=certified(0.05)) for s in told.samples))
    told = judge(certain)
    assert told.robustness.curve("certified").reached[1].epsilon == pytest.approx(max(0.05, told.bracket[0].low.value))
    assert set(told.robustness.guaranteed_by) == {"local bounds", "weights"}
    lines = [line for line in human_lines(told) if "cannot flip within" in line]
    assert len(lines) == 1
    assert lines[0].startswith("The weights and the local bounds guarantee that half of the")


@pytest.mark.parametrize(
    ("label", "by_prediction", "expected"), [(None, True, 0.3), ("right", False, 0.3), ("wrong", False, None), ("wrong", True, 0.3)]
)
def test_an_attack_is_of_the_prediction_only_where_it_was_the_label(label, by_prediction, expected):
    """A sample that is wrong without a move has an attack distance of 0, which changes no prediction."""
    audit = plain()
    labels = {None: None, "right": audit.samples[0].prediction, "wrong": audit.samples[0].prediction + 1}
    value = 0.0 if label == "wrong" and not by_prediction else 0.3
    attacked = replace(audit.samples[0], label=labels[label], attack_distance=found(value))
    audit = replace(audit, samples=(attacked,), attack=replace(make_attack(1), by_prediction=by_prediction))
    told = brackets(audit)
    assert of(told, "l2").high == expected
    assert of(told, "linf").high == expected
    linf = brackets(replace(audit, attack=replace(audit.attack, norm="linf")))
    assert of(linf, "l2").high == (None if expected is None else pytest.approx(expected * ROOT))


def test_counterexamples_count_where_the_file_follows_them():
    boxes = (
        VerifiedBox(0.4, "sat", 1.0, replay=True, distance=0.35),
        VerifiedBox(0.2, "sat", 1.0, replay=False, distance=0.15),
        VerifiedBox(0.1, "unsat", 1.0),
    )
    summary = VerifierSummary("v", "linf", "model input units", 4, 12, 8, 4, 0, 0, 0, 4, 0, 30.0, 1.0)
    told = brackets(replace(plain(verified=boxes), verifier=summary))
    assert ends(of(told, "linf")) == (0.0, "", 0.35, "counterexample")


def test_lengths_are_in_raw_units_where_these_are_known():
    scale = (2.0, 4.0)
    fields = {"flip_radius": found(2.0), "flip_lengths": FlipLengths(raw=0.7)}
    audit = plain(**fields)
    audit = replace(audit, settings=replace(audit.settings, input_scale=scale))
    told = brackets(audit)
    assert of(told, "l2").high == 0.7
    assert told.bracket[0].units == "raw input units"
    unknown = brackets(replace(audit, samples=tuple(replace(s, flip_lengths=None) for s in audit.samples)))
    assert of(unknown, "l2").high == 1.0, "an upper bound: as if all of it were where the scale is least"
    bound = replace(with_bound(audit).bound, log10_lipschitz=0.0)
    weights = of(brackets(replace(audit, bound=bound)), "l2").low
    own = of(brackets(replace(audit, bound=bound, settings=replace(audit.settings, input_scale=None))), "l2").low
    assert weights == pytest.approx(own / 4.0), "as if all of it were where the scale is most"


def test_samples_without_a_prediction_have_none():
    audit = plain()
    audit = replace(audit, samples=(replace(audit.samples[0], prediction=None), *audit.samples[1:]))
    told = brackets(audit)
    assert told.samples[0].bracket == ()
    assert told.bracket[0].samples == 3
    none = replace(audit, samples=tuple(replace(s, prediction=None) for s in told.samples))
    assert brackets(none).bracket == ()
    assert all(s.bracket == () for s in brackets(none).samples)


def test_a_lying_guarantee_is_an_error():
    audit = plain(certified_radius=certified(0.4), flip_radius=found(0.2))
    finding = ids(audit)["bracket-contradicted"]
    assert finding.level == "error"
    assert "the local bounds guarantee 0.4 (L2) and the search for flips changed the prediction at 0.2" in finding.message
    assert "trust no guarantee" in finding.message
    assert "bracket-contradicted" not in ids(plain(certified_radius=certified(0.19), flip_radius=found(0.2)))
    told = brackets(audit).bracket[0]
    assert told.contradictions == 4
    lying = ids(plain(certified_radius_linf=certified(0.4, "verifier v"), flip_radius_linf=found(0.2)))
    assert "the verifier guarantees" in lying["bracket-contradicted"].message
    assert judge(audit).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("confidence", "excess", "contradicted"), [(0.99, 1e-5, False), (0.99, 1e-3, True), (0.5, 0.05, False), (0.5, 0.2, True)]
)
def test_rounding_explains_a_little(confidence, excess, contradicted):
    audit = plain(certified_radius=certified(0.2 * (1 + excess)), flip_radius=found(0.2), confidence=confidence)
    assert ("bracket-contradicted" in ids(audit)) is contradicted
    coarse = replace(audit, model=replace(audit.model, input_dtype="float16"))
    assert allowance(coarse, audit.samples[0]) >= allowance(audit, audit.samples[0])


def test_estimates_outside_are_counted_and_told():
    inside, outside = PredictedDistance("l2", 0.15, 0.11), PredictedDistance("l2", 0.25, 0.05)
    audit = plain(8, certified_radius=certified(0.1), flip_radius=found(0.2), predicted=(inside,))
    told = brackets(audit).bracket[0]
    assert (told.first_order_outside, told.first_order_tried, told.fisher_outside, told.fisher_tried) == (0, 8, 0, 8)
    assert "estimate-outside-bracket" not in ids(audit)
    audit = replace(audit, samples=(*audit.samples[:6], *(replace(s, predicted=(outside,)) for s in audit.samples[6:])))
    told = brackets(audit).bracket[0]
    assert (told.first_order_outside, told.fisher_outside) == (2, 2)
    finding = ids(audit)["estimate-outside-bracket"]
    assert finding.level == "note"
    assert "the first-order distance on 2 of 8 (L2), λ's prediction on 2 of 8 (L2)" in finding.message
    open_ended = brackets(plain(flip_radius=found(0.2), predicted=(outside,))).bracket[0]
    assert open_ended.first_order_tried == 0, "nothing is guaranteed there"


def test_shares_are_counted_from_both_sides():
    radii = [(0.1, 0.3), (0.2, 0.4), (0.5, 1.0), (0.0, None)]
    audit = plain()
    none = Estimate(None, kind="upper bound", evaluations=10, reason="no flip")
    samples = tuple(
        replace(s, certified_radius=certified(low), flip_radius=none if high is None else found(high))
        for s, (low, high) in zip(audit.samples, radii, strict=True)
    )
    told = brackets(replace(audit, samples=samples, settings=replace(audit.settings, epsilon=0.35))).bracket[0]
    assert told.low.value == pytest.approx(0.15)
    assert told.high.value == pytest.approx(0.7)
    assert told.width == pytest.approx(2.5)
    by = {d.epsilon: d for d in told.decided}
    assert by[0.2] == DecidedAt(0.2, kept=2, lost=0, open=2)
    assert by[0.35] == DecidedAt(0.35, kept=1, lost=1, open=2)
    assert by[1.0] == DecidedAt(1.0, kept=0, lost=3, open=1)
    assert all(d.kept + d.lost + d.open == 4 for d in told.decided)


def test_an_older_record_gets_them_and_keeps_them():
    told = judge(plain(certified_radius=certified(0.1), flip_radius=found(0.2)))
    assert Audit.from_json(told.to_json()) == told
    older = json.loads(told.to_json())
    del older["bracket"]
    for sample in older["samples"]:
        del sample["bracket"]
    read = Audit.from_json(json.dumps(older))
    assert read.bracket == ()
    assert judge(read).bracket == told.bracket


class Relu:
    """A ReLU net of two inputs, whose distances a fine grid tells."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.A, self.a = rng.standard_normal((8, 2)), 0.3 * rng.standard_normal(8)
        self.B, self.b = rng.standard_normal((3, 8)), 0.2 * rng.standard_normal(3)

    def onnx(self):
        nodes = [
            ("Gemm", ["x", "A", "a"], ["h"], {"transB": 1}), ("Relu", ["h"], ["r"], {}), ("Gemm", ["r", "B", "b"], ["z"], {"transB": 1}),
        ]  # fmt: skip
        weights = {n: v.astype(np.float32) for n, v in (("A", self.A), ("a", self.a), ("B", self.B), ("b", self.b))}
        return models.model(nodes, weights, shape=(2,), out=(3,))

    def classes(self, X):
        return (np.maximum(X @ self.A.T + self.a, 0) @ self.B.T + self.b).argmax(axis=1)


def test_of_a_net_whose_distances_are_known_both_sides_hold(saved, cpu):
    """Against the nearest of 4 million grid points with another class, which is too far by a step of the grid at most."""
    net, step = Relu(), 0.003
    X = np.random.default_rng(0).uniform(-1.5, 1.5, (12, 2)).astype(np.float32)
    told = audit(saved(net.onnx()), X, settings=cpu(bracket=True, replay=0, attack_range=(-3, 3)))
    axis = np.arange(-3, 3 + step / 2, step)
    grid = np.array(list(product(axis, axis)))
    classes = net.classes(grid)
    assert {b.contradictions for b in told.bracket} == {0}
    for k, x in enumerate(X.astype(np.float64)):
        other = grid[classes != told.samples[k].prediction] - x
        truth = {"l2": np.sqrt((other**2).sum(axis=1)).min(), "linf": np.abs(other).max(axis=1).min()}
        for norm, distance in truth.items():
            b = of(told, norm, k)
            assert b.low <= distance
            assert b.low > 0 or told.samples[k].confidence <= 0.5, "where it is the likelier than all others together"
            assert b.high >= distance - 1.5 * step
            assert b.high <= 4 * distance
    assert told.bracket[0].low.value > 0
    assert told.bracket[0].width < 30
