"""The sentences of the first screen against an independent attack and ascent on the files: none says more than is so.

The attack is this module's own: it knows the files alone, by ONNX Runtime, and slopes by differences over all 64 inputs.
What a sentence states as reached (so many flip within ε, so many nats) must be reached by it; what is stated as impossible must not.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import onnxruntime as ort
import pytest

import onnxfim
from onnxfim.report.human import human_lines, rung
from onnxfim.report.numbers import number
from tests.support.places import SAMPLES

NAMES = ("mlp", "vgg", "resnet", "resnet_adv", "resnet_fp16", "resnet_int8", "densenet", "vit")
N = 60
#: Files that round give no slope at small steps; their parent's slopes are good enough to attack them with.
_SLOPES = {"resnet_int8": "resnet", "resnet_fp16": "resnet"}
_STEP, _STEPS, _REPLAYED = 2e-3, 20, 24


class Model:
    """Logits of a file, and slopes of functions of them."""

    def __init__(self, name):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(SAMPLES / f"digits_{name}.onnx", options, providers=["CPUExecutionProvider"])

    def logits(self, X):
        rows = X.reshape(-1, 1, 8, 8).astype(np.float32)
        parts = [self.session.run(None, {"images": rows[i : i + 4096]})[0] for i in range(0, len(rows), 4096)]
        return np.concatenate(parts).astype(np.float64)

    def slopes(self, X, function):
        """Gradients (n, d) of ``function(logits, which)`` of single rows, by forward differences."""
        n, d = X.shape
        moves = np.concatenate([np.zeros((1, d)), _STEP * np.eye(d)])
        z = self.logits((X[:, None] + moves).reshape(-1, d))
        values = function(z, np.repeat(np.arange(n), d + 1)).reshape(n, d + 1)
        return (values[:, 1:] - values[:, :1]) / _STEP


def log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def margins(z, labels):
    own = np.arange(z.shape[1]) == labels[:, None]
    return z[own] - np.where(own, -np.inf, z).max(axis=1)


def onto_ball(delta, radius):
    size = np.linalg.norm(delta, axis=1, keepdims=True)
    return delta * np.minimum(1.0, radius[:, None] / np.maximum(size, 1e-12))


def nearest_in_box(X, g, wanted):
    """The shortest moves with ``g·δ = wanted`` (< 0) that stay within 0 to 1: ``P(−t·g)``, with t by bisection."""
    low, high = np.zeros(len(X)), np.full(len(X), 100.0)
    for _ in range(40):
        t = (low + high) / 2
        short = (g * (np.clip(X - t[:, None] * g, 0, 1) - X)).sum(axis=1) > wanted
        low, high = np.where(short, t, low), np.where(short, high, t)
    return np.clip(X - high[:, None] * g, 0, 1) - X


def smallest_flips(model, slopes, X, labels):
    """Lengths of the shortest moves within 0 to 1 that an attack of its own finds, (n,): projected steps, and the line back."""
    best = np.full(len(X), np.inf)
    delta = np.zeros_like(X)
    for _ in range(_STEPS):
        g = slopes.slopes(X + delta, lambda z, of: margins(z, labels[of]))
        m = margins(slopes.logits(X + delta), labels)
        # Until it flips towards the boundary as the slope has it; then to the boundary's point of the box nearest to the sample.
        towards = -(m + 0.3 + 0.1 * np.abs(m))[:, None] * g / np.maximum((g**2).sum(axis=1, keepdims=True), 1e-12)
        nearest = nearest_in_box(X, g, (g * delta).sum(axis=1) - m - 0.05) - delta
        step = np.where(np.isfinite(best)[:, None], 0.7 * nearest, towards)
        size = np.linalg.norm(step, axis=1, keepdims=True)
        delta = np.clip(X + delta + step * np.minimum(1.0, 0.25 / np.maximum(size, 1e-12)), 0, 1) - X
        for part in (1.0, 0.97, 0.94, 0.9, 0.85, 0.8, 0.7):  # and on the line back to the sample
            flips = margins(model.logits(X + part * delta), labels) < 0
            best[flips] = np.minimum(best[flips], part * np.linalg.norm(delta[flips], axis=1))
    return best


def ascended(slopes, X, base, radius, rounds=4):
    """The largest KL(p(x) ‖ p(x + δ)) with ‖δ‖ ≤ radius that ascent finds, (n,), and that at the start: the top of F, both ways."""
    P, n, d = np.exp(base), len(X), X.shape[1]
    moves = np.concatenate([_STEP * np.eye(d), -_STEP * np.eye(d)])
    lp = log_softmax(slopes.logits((X[:, None] + moves).reshape(-1, d))).reshape(n, 2, d, -1)
    J = (lp[:, 0] - lp[:, 1]) / (2 * _STEP)  # (n, d, K): of log p
    F = np.einsum("ndk,nk,nek->nde", J, P, J)
    v = np.linalg.eigh(F)[1][:, :, -1]
    found = np.zeros(n)

    def divergence(z, of):
        return (P[of] * (base[of] - log_softmax(z))).sum(axis=1)

    for sign in (1, -1):
        delta = sign * radius[:, None] * v
        for k in range(rounds):
            found = np.maximum(found, divergence(slopes.logits(X + delta), np.arange(n)))
            g = slopes.slopes(X + delta, divergence)
            size = np.linalg.norm(g, axis=1, keepdims=True)
            delta = onto_ball(delta + radius[:, None] * (0.5 / (1 + k / 3)) * g / np.maximum(size, 1e-12), radius)
    return found


@cache
def audited(name):
    data = onnxfim.load_samples(SAMPLES / "digits.npz", SAMPLES / f"digits_{name}.onnx", limit=N)
    return onnxfim.audit(SAMPLES / f"digits_{name}.onnx", data, settings=onnxfim.Settings(samples=N, temperature=1.0)), data


@cache
def attacked(name):
    """The distances that the attack finds on the rightly classified samples, and their positions."""
    audit, data = audited(name)
    right = np.array([s.index for s in audit.samples if s.label == s.prediction])
    X = data.inputs[right].reshape(len(right), -1).astype(np.float64)
    labels = np.asarray(data.labels)[right]
    return smallest_flips(Model(name), Model(_SLOPES.get(name, name)), X, labels), right


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_as_many_flip_as_is_said(name):
    """Within ε of 10, 50 and 90 % an attack of its own flips as many, and the interval's upper end is not passed.

    The attack need not find each sample's shortest way: 2 samples of 60 may be missed.
    """
    audit, _ = audited(name)
    found, right = attacked(name)
    curve = audit.robustness.curve("flip_radius")
    assert curve.standing == len(right)
    for r in curve.reached:
        if r.epsilon is not None:
            assert (found <= r.epsilon * (1 + 1e-6)).sum() >= r.share * len(right) - 2, (name, r)
    half = curve.reached[1]
    assert np.median(found) <= half.high
    first = human_lines(audit)[0]
    stated = re.match(
        r"A change of ε = ([\d.]+) .*flips half of the (\d+) rightly classified samples \(95 % interval: at most ([\d.]+)\)", first
    )
    assert stated is not None, first
    assert (stated[1], int(stated[2]), stated[3]) == (number(half.epsilon), len(right), number(half.high))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_flips_within_what_the_weights_guarantee(name):
    """Sample by sample, whether or not the page shows it: ``ln p/(1 − p) / (√2 L)`` is never passed by the attack."""
    audit, _ = audited(name)
    if not audit.bound.available:
        assert audit.robustness.curve("certified") is None
        assert "guarantee nothing" in audit.robustness.certified
        return
    found, right = attacked(name)
    confidence = np.array([s.confidence for s in audit.samples if s.index in set(right.tolist())])
    certified = np.maximum(np.log(confidence / np.maximum(1 - confidence, 1e-12)), 0) / np.sqrt(2) / 10**audit.bound.log10_lipschitz
    assert (found >= certified).all()
    curve = audit.robustness.curve("certified")
    assert curve is None or np.median(found) >= curve.reached[1].epsilon


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("resnet_int8", "resnet_fp16")])
def test_the_distribution_can_move_as_far_as_is_said(name):
    """Ascent from the top of F at the replay's own distances: never below what the replay measured, by float32's rounding (2 %)."""
    audit, data = audited(name)
    replayed = [(s, p) for s in audit.samples if s.kl_curve and (p := rung(s, s.kl_curve, 1.0)) is not None]
    assert len(replayed) >= N // 2
    replayed = replayed[:: max(1, len(replayed) // _REPLAYED)]
    X = data.inputs[[s.index for s, _ in replayed]].reshape(len(replayed), -1).astype(np.float64)
    model = Model(name)
    reached = ascended(model, X, log_softmax(model.logits(X)), np.array([p.epsilon for _, p in replayed]))
    measured = np.array([max(p.along, p.against) for _, p in replayed])
    assert (reached >= 0.98 * measured - 1e-5).all(), np.min(reached / np.maximum(measured, 1e-12))
    line = next(line for line in human_lines(audit) if line.startswith("Moved by"))
    stated = float(re.search(r"distribution by ([\d.,]+) nats or more", line)[1].replace(",", ""))
    everyone = sorted(max(p.along, p.against) for s in audit.samples if s.kl_curve and (p := rung(s, s.kl_curve, 1.0)) is not None)
    assert sum(kl >= 0.995 * stated for kl in everyone) >= len(everyone) / 2  # as it is rounded in print
    assert (reached >= 0.98 * stated).mean() >= 0.5 - 2 / len(replayed), "of every second or third of them"
    at_least = re.search(r"at least ([\d.]+)", line)
    assert float(at_least[1]) <= stated
