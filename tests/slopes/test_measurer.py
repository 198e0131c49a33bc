"""What a measurer makes of directions in groups of like scale, against a dense float64 reference written from the definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax

from onnxfim.record.statistics import Z95
from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.runtime.rows import GroupedRademacher, Rademacher
from onnxfim.slopes.differences import DifferenceJacobian, Request, Sample
from onnxfim.slopes.kinds import SoftmaxLogits
from onnxfim.slopes.measurer import Measurer
from tests.support.models import Linear

D, K, M = 9, 5, 12
LENGTHS = np.array([1e-3, 1.0, 300.0])  # of three features: incomes beside rates
GROUPS = np.arange(D) % 3
TEMPERATURE, LOG_ERROR = 1.4, 0.25


def plain_top(slopes, z, temperature):
    """Top eigenvalue of ``YᵀY``, Y the rows ``y(v) = A v`` with ``AᵀA = Jᵀ (diag p − ppᵀ) J / T²``, from slopes ``Jv`` (m, K)."""
    p = softmax(z / temperature)
    Y = np.sqrt(p) * (slopes - (slopes @ p)[:, None]) / temperature
    return np.linalg.eigvalsh(Y.T @ Y)[-1]


@pytest.mark.parametrize("scheme", ["forward", "central"])
def test_at_the_temperatures_ends_whole_directions_are_compared(scheme):
    # 1e-6: the model is linear, so that differences are off by the rounding of float64 outputs over a step alone.
    model = Linear.draw(K, D)
    X = model.samples(1).astype(np.float64)
    z = model.logits(X)[0]
    jacobian = DifferenceJacobian(
        CallableForward(model.logits, (D,), K, dtype="float64", batch=16), GroupedRademacher(0, GROUPS), scheme=scheme, step=1e-2,
        field=LENGTHS[GROUPS], lengths=LENGTHS,
    )  # fmt: skip
    ends = list(jacobian.ends(X, z[None, :, None], [Request(Sample(0, 0), 0, M * len(LENGTHS))]))
    measure = Measurer(
        reader=SoftmaxLogits(), scheme=scheme, exact=False, gradient=False, temperature=TEMPERATURE, temperature_reason=None,
        temperature_error=LOG_ERROR, step_error=0.0, parts=len(LENGTHS),
    )  # fmt: skip
    found = measure(Sample(0, 0), z[:, None], ends).lambda_max_calibrated

    V = Rademacher(0).block(0, 0, M, D).astype(np.float64)
    slopes = V @ model.W.T  # of whole directions, in the inputs' own units
    middle = plain_top(slopes, z, TEMPERATURE)
    expected = [plain_top(slopes, z, TEMPERATURE * np.exp(sign * Z95 * LOG_ERROR)) / middle for sign in (-1, 1)]
    assert found.plain == pytest.approx(middle / M, rel=1e-6)
    assert_allclose(found.at_temperatures, expected, rtol=1e-6)

    # Directions of one group at a time would tell otherwise.
    parts = [(V * (GROUPS == g)) @ model.W.T for g in range(len(LENGTHS))]
    apart = np.concatenate(parts)
    wrong = [
        plain_top(apart, z, TEMPERATURE * np.exp(sign * Z95 * LOG_ERROR)) / plain_top(apart, z, TEMPERATURE) for sign in (-1, 1)
    ]
    assert np.abs(np.array(wrong) / expected - 1).min() > 1e-3
