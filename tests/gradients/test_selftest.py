"""The self-test passes right derivatives and names what is wrong with others."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.gradients import derivative_graph, self_test
from tests.support.gradient_nets import Net, session

X = np.random.default_rng(1).standard_normal((8, 6)).astype(np.float32)


def parts(*, head=None):
    """A small network's own outputs, and its derivatives as callables."""
    rng = np.random.default_rng(0)
    net = Net((6,))
    z = net.op("Gemm", net.op("Relu", net.op("Gemm", "x", rng.standard_normal((6, 16)))), rng.standard_normal((16, 4)))
    model = net.model(net.op(head, z) if head else z)
    run = session(model)
    vjp = session(derivative_graph(model, input_name="x", output_name=z, kind="vjp"))
    jvp = session(derivative_graph(model, input_name="x", output_name=z, kind="jvp"))
    return (
        lambda rows: run.run(None, {"x": rows})[0],
        lambda rows, u: tuple(vjp.run(["z", "g"], {"x": rows, "u": u})),
        lambda rows, v: tuple(jvp.run(["z", "w"], {"x": rows, "v": v})),
    )


def judged(original, vjp, jvp, **options):
    return self_test(original, vjp, jvp, X, rng=np.random.default_rng(2), **options)


@pytest.mark.parametrize(
    ("head", "activation"), [(None, "none"), ("Softmax", "softmax"), ("LogSoftmax", "log_softmax"), ("Sigmoid", "sigmoid")]
)
def test_right_derivatives_pass(head, activation):
    original, vjp, jvp = parts(head=head)
    result = judged(original, vjp, jvp, activation=activation)
    assert result.passed, result
    assert result.adjoint_error < 1e-5
    assert result.difference_error < 1e-2


def test_other_outputs_fail():
    original, vjp, jvp = parts()
    result = judged(lambda rows: original(rows) + 1, vjp, jvp)
    assert not result.passed
    assert "outputs differ" in result.reason


def test_another_number_of_outputs_fails():
    original, vjp, jvp = parts()
    assert "returns 4 values per sample, the model 3" in judged(lambda rows: original(rows)[:, :3], vjp, jvp).reason


def test_a_wrong_adjoint_fails():
    original, vjp, jvp = parts()

    def wrong(rows, u):
        z, g = vjp(rows, u)
        return z, g * np.linspace(0.9, 1.1, 6, dtype=np.float32)

    result = judged(original, wrong, jvp)
    assert not result.passed
    assert "⟨u, Jv⟩ and ⟨Jᵀu, v⟩ differ" in result.reason


def test_consistently_wrong_derivatives_fail():
    original, vjp, jvp = parts()
    result = judged(original, lambda r, u: (vjp(r, u)[0], 2 * vjp(r, u)[1]), lambda r, v: (jvp(r, v)[0], 2 * jvp(r, v)[1]))
    assert not result.passed
    assert "central differences" in result.reason


@pytest.mark.parametrize(("value", "words"), [(0.0, "zero for every sample"), (np.nan, "not finite")])
def test_empty_derivatives_fail(value, words):
    original, vjp, jvp = parts()
    result = judged(original, lambda r, u: (vjp(r, u)[0], np.full((2, *r.shape), value, np.float32)), jvp)
    assert not result.passed
    assert words in result.reason


def by_chance(w, rows, size, *, seed):
    """Tangents of rows of which some are off by ``size``: which, the last bits of the rows decide, as for kinks within rounding."""
    bits = np.frombuffer(np.ascontiguousarray(rows).tobytes(), np.uint32).reshape(len(rows), -1).sum(axis=1, dtype=np.uint64)
    return w * (1 + size * ((bits * 2654435761 + seed) % 7 < 3)).astype(w.dtype)[:, None]


@pytest.mark.parametrize(("chance", "always", "passes"), [(0.02, 0.0, True), (0.0, 0.02, False), (0.002, 0.05, False)])
def test_slopes_that_rounding_changes_are_told_from_another_derivative(chance, always, passes):
    original, vjp, jvp = parts()

    def chancy(rows, v):
        z, w = jvp(rows, v)
        # ⟨u, Jv⟩ is asked with two tangents, where nothing is by chance here
        return z, (np.stack([by_chance(one, rows, chance, seed=0) for one in w]) if len(v) == 1 else w)

    def rules(rows, v):
        return by_chance(jvp(rows, v[None])[1][0], rows, chance, seed=3) * (1 + always), []

    result = judged(original, vjp, chancy, rules=rules)
    assert result.passed is passes, result
    assert passes or "Jv of the tested graph differs from the one that is used" in result.reason


@pytest.mark.parametrize("noisy", [1, 8])
def test_a_row_that_rounding_changes_excuses_no_others(noisy):
    """All rows of the tested graph are a fifth off; of one row, or of all, rounding changes the slopes by as much."""
    original, vjp, jvp = parts()

    def chancy(rows, v):
        z, w = jvp(rows, v)
        if len(v) == 1:
            w = w.copy()
            w[0, :noisy] = by_chance(w[0, :noisy], rows[:noisy], 0.3, seed=0)
        return z, w

    def rules(rows, v):
        return jvp(rows, v[None])[1][0] * np.float32(1.2), []

    assert judged(original, vjp, chancy, rules=rules).passed is (noisy == 8)


def test_a_derivative_that_is_far_off_is_another_whatever_rounding_does():
    original, vjp, jvp = parts()

    def chancy(rows, v):
        z, w = jvp(rows, v)
        return z, (np.stack([by_chance(one, rows, 1.0, seed=0) for one in w]) if len(v) == 1 else w)

    result = judged(original, vjp, chancy, rules=lambda rows, v: (2 * jvp(rows, v[None])[1][0], []))
    assert "Jv of the tested graph differs from the one that is used" in result.reason
