"""Every operator's rule against the dense Jacobian of small graphs."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import tests.spectral.cases_picks  # noqa: F401 - enters its cases
from onnxfim.graph.lower import LOWERINGS
from onnxfim.spectral import RULES
from tests.spectral.cases import CASES, REFUSED
from tests.spectral.dense import bound_of, largest_norm
from tests.support.tracing import at_first

REPEATS = 200
TRACED = 25  # of them, which take every way through a rule that the others take


def test_every_rule_has_cases():
    """What has cases and no rule is written out, or upgraded, into operators that have one."""
    drawn = set(CASES) | set(REFUSED)
    assert set(RULES) <= drawn
    assert drawn - set(RULES) <= set(LOWERINGS) | {"Upsample"}
    assert not set(CASES) & set(REFUSED)


@pytest.mark.slow
@pytest.mark.traced
@pytest.mark.parametrize("op", sorted(CASES))
def test_bound_is_never_below_the_jacobian(op):  # 1e-4: differences in float32 of linear maps, kinks and curvature elsewhere
    rng = np.random.default_rng(zlib.crc32(op.encode()))
    seen = 0
    for k in at_first(range(REPEATS), TRACED):
        case = CASES[op](rng)
        bound = bound_of(case)
        if not bound.available and "has no rule" in bound.reason:
            continue
        assert bound.available, (k, bound.reason)
        seen += 1
        norm = largest_norm(case, rng)
        upper = 10**bound.log10_lipschitz
        assert upper >= norm * (1 - 1e-4) - 1e-6, (k, case)
        if case.within is not None and norm > 1e-3:
            assert upper <= norm * (1 + case.within), (k, case)
    assert seen >= REPEATS * 0.9


@pytest.mark.parametrize("op", sorted(REFUSED))
def test_operators_without_a_lipschitz_constant_are_refused_by_name(op):
    bound = bound_of(REFUSED[op](np.random.default_rng(0)))
    assert not bound.available
    assert bound.log10_lipschitz is None
    assert f"op {op}" in bound.reason
    assert "Lipschitz" in bound.reason or "whole numbers" in bound.reason
