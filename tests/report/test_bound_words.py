"""What the words about the bound claim holds on models whose outputs are computed here."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from onnxfim.record.bound import LOG10_ZERO, Bound
from onnxfim.report.bound_words import bound_lines, lower
from onnxfim.report.page.bound_section import upper
from tests.support.models import softmax

NUMBER = r"(\d[\d,]*(?:\.\d+)?(?:×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?)"


def of(lipschitz, *, assumptions=("A",), **others):
    """The bound of a map with this Lipschitz constant."""
    log10 = math.log10(lipschitz)
    return Bound(True, "", log10, 2 * log10 - math.log10(2), (), assumptions, **others)


def value(text):
    mantissa, _, exponent = text.replace(",", "").partition("×10")
    return float(mantissa) * 10.0 ** int(exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)


def claims(bound):
    """What is claimed: the constant of the logits, that of the KL divergence before ε²/2, and the change that is safe at a lead of 1."""
    answer, meaning, safe = bound_lines(bound)
    constant = value(re.search(rf"more than {NUMBER}·ε, nor", meaning)[1])
    divergence = value(re.search(rf"½·{NUMBER}·ε² nats \(KL\)", meaning)[1])
    radius = value(re.search(rf"below {NUMBER}", safe)[1])
    assert value(re.search(rf"logits {NUMBER} \(L2\)", answer)[1]) == constant
    return constant, divergence, radius


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 7.0, 300.0])
def test_the_claims_hold_on_linear_models(scale):
    """Directions are drawn, and the worst ones taken: right singular vectors, and the difference of two rows."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        W = scale * rng.standard_normal((5, 8))
        constant, divergence, radius = claims(of(np.linalg.norm(W, 2)))
        x = rng.standard_normal(8)
        directions = [*rng.standard_normal((30, 8)), np.linalg.svd(W)[2][0], W[0] - W[1]]
        for v in directions:
            for epsilon in (1e-3, 0.1, 1.0, 10.0):
                moved = x + epsilon * v / np.linalg.norm(v)
                z, w = W @ x, W @ moved
                assert np.linalg.norm(w - z) <= constant * epsilon * (1 + 1e-12)
                p, q = softmax(z[None])[0], softmax(w[None])[0]
                logs = z - w - (np.logaddexp.reduce(z) - np.logaddexp.reduce(w))  # ln p − ln q, without a logarithm of zero
                assert float(p @ logs) <= 0.5 * divergence * epsilon**2 * (1 + 1e-9) + 1e-12
                assert float(q @ -logs) <= 0.5 * divergence * epsilon**2 * (1 + 1e-9) + 1e-12
        z = W @ x
        b = np.zeros(5)
        b[int(z.argmax())] = 1.0 - np.sort(z)[-1] + np.sort(z)[-2]  # the lead is 1
        for v in directions:
            moved = x + 0.999999 * radius * v / np.linalg.norm(v)
            assert (W @ moved + b).argmax() == (z + b).argmax()


def test_the_safe_change_is_tight():
    """Two classes whose logits move apart: at the change that is named, up to its digits, the prediction flips."""
    W = np.array([[1.0], [-1.0]])
    _, _, radius = claims(of(np.linalg.norm(W, 2)))
    assert radius == pytest.approx(0.5, rel=1e-2)  # three digits, rounded down
    assert radius <= 0.5


@pytest.mark.parametrize("log10", [-300.0, -7.3, -3.0, -1.0, 0.0, 0.5, 2.0, 5.999, 6.0, 40.2, 290.0])
def test_rounded_down(log10):
    told = value(lower(log10))
    assert math.log10(told) <= log10 + 1e-12
    assert math.log10(told) >= log10 + math.log10(0.99)
    assert math.log10(value(upper(log10))) >= log10 - 1e-12


def test_a_bound_that_says_nothing_is_told_so():
    assert "promises nothing of use" in bound_lines(of(1e9))[2]
    assert "promises nothing of use" not in bound_lines(of(1e4))[2]
    assert bound_lines(of(2.0, assumptions=()))[1].startswith("meaning: no change")
    assert bound_lines(of(2.0))[1].startswith("meaning: under what is assumed below, no change")


def test_no_bound_and_a_constant():
    none = Bound(False, "Conv 'x\x1b[31m' has weights that are inputs", None, None, (), ())
    assert bound_lines(none, "Say them.") == ("bound not available: Conv 'x\\u001b[31m' has weights that are inputs. Say them.",)
    assert bound_lines(none) == ("bound not available: Conv 'x\\u001b[31m' has weights that are inputs",)
    constant = Bound(True, "", LOG10_ZERO, LOG10_ZERO, (), ())
    assert bound_lines(constant) == ("upper bound: 0. The logits do not depend on the input: no change of it moves them.",)
