"""Jumps and kinks within a step are told from slopes, however steep or curved these are."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.slopes.differences import Ends, Request, Sample
from onnxfim.slopes.kinds import SoftmaxLogits
from onnxfim.slopes.oddness import has_no_slope
from onnxfim.slopes.scored import Scored

D, K, M, STEP = 40, 4, 88, 1e-3  # as many directions as the default budget has
READER = SoftmaxLogits()


def told(function, seed, scheme="forward"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(D)
    V = rng.choice([-1.0, 1.0], (M, D))
    base = function(x)[:, None]
    plus = np.array([function(x + STEP * v) for v in V])[:, :, None]
    if scheme == "forward":
        return has_no_slope(Scored(READER, base, Ends(Request(Sample(0, 0), 0, M), plus, base[None], STEP)))
    minus = np.array([function(x - STEP * v) for v in V])[:, :, None]
    return has_no_slope(Scored(READER, base, Ends(Request(Sample(0, 0), 0, M), plus, minus, 2 * STEP)))


def network(seed, act=np.tanh):
    rng = np.random.default_rng([seed, 1])
    A, B = rng.standard_normal((30, D)) / 6, rng.standard_normal((K, 30))
    return lambda x: B @ act(A @ x)


@pytest.mark.parametrize("scheme", ["forward", "central"])
def test_smooth_and_piecewise_linear_nets_have_slopes(scheme):
    """200 samples of nets with and without kinks elsewhere: by chance none of them is called one-sided."""
    relu = lambda a: np.maximum(a, 0)  # noqa: E731 - an activation
    assert not any(told(network(seed, act), seed, scheme) for seed in range(100) for act in (np.tanh, relu))


@pytest.mark.parametrize("scheme", ["forward", "central"])
def test_a_jump_next_to_the_sample_is_found(scheme):
    """A step of 0.1 in one logit where x_0 passes the sample's own value."""

    def jumping(seed):
        smooth, at = network(seed), np.random.default_rng(seed).standard_normal(D)[0]
        return lambda x: smooth(x) + 0.1 * (x[0] > at) * np.eye(K)[0]

    # Of one in fifty the likeliest classes hardly know the jump.
    assert sum(told(jumping(seed), seed, scheme) for seed in range(50)) >= 48


@pytest.mark.parametrize("scheme", ["forward", "central"])
def test_a_sample_on_a_kink_is_found(scheme):
    """``b·relu(a·(x' − x))`` at x: one side has the slope ``b aᵀ``, the other none."""

    def kinked(seed):
        rng = np.random.default_rng(seed)
        x, a, b = rng.standard_normal(D), rng.standard_normal(D), rng.standard_normal(K)
        return lambda y: b * np.maximum(a @ (y - x), 0)

    assert sum(told(kinked(seed), seed, scheme) for seed in range(50)) >= 45


def test_few_directions_tell_nothing():
    base = np.zeros((K, 1))
    assert not has_no_slope(Scored(READER, base, Ends(Request(Sample(0, 0), 0, 4), np.ones((4, K, 1)), base[None], STEP)))
