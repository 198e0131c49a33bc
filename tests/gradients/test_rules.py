"""Every rule against differences and the adjoint identity, over random geometries."""

from __future__ import annotations

import zlib
from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest

import onnxfim.gradients.rules  # noqa: F401 - fills the registry
from onnxfim.gradients.derivative_rules import RULES
from onnxfim.graph.inline import SCHEMA_FUNCTIONS
from onnxfim.graph.lower import LOWERINGS, op_name
from tests.gradients import (
    cases,
    cases_fused,
    cases_indexed,
    cases_ml,
    cases_recurrent,
    cases_sampling,
    cases_shape,
    cases_tensor,
)
from tests.support.gradient_nets import Net, check_laws
from tests.support.tracing import untraced

TRACED = 5  # draws of each case; the others take the same ways through the rule
_MODULES = (cases, cases_shape, cases_tensor, cases_indexed, cases_sampling, cases_ml, cases_fused, cases_recurrent)
ALL = [c for module in _MODULES for c in module.CASES]
DRAWS = [pytest.param(c, i, id=f"{c.name}-{i}") for c in ALL for i in range(c.repeats)]


@pytest.mark.parametrize(("case", "index"), DRAWS)
@pytest.mark.slow
@pytest.mark.traced
def test_rule_keeps_the_laws(case, index):
    rng = np.random.default_rng([zlib.crc32(case.name.encode()), index])
    with untraced() if index >= TRACED else nullcontext():
        net, output = case.make(rng)
        check_laws(net, output, rng)


GEOMETRIC = [
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "Resize", "Slice", "Pad", "Gather", "Concat", "Split", "Transpose"),
    *("MatMul", "Gemm", "Einsum", "Reshape", "GridSample", "ScatterElements", "ScatterND"),
]


@pytest.fixture(scope="module")
def drawn():
    """How many tested graphs hold each operator."""
    counts: Counter[str] = Counter()
    for case in ALL:
        for index in range(case.repeats):
            net, _ = case.make(np.random.default_rng([zlib.crc32(case.name.encode()), index]))
            counts.update({op_name(n) for n in net.nodes})
    return counts


def test_every_registry_entry_is_drawn(drawn):
    assert {*RULES, *LOWERINGS, *SCHEMA_FUNCTIONS} - set(drawn) == set()


@pytest.mark.parametrize("op", GEOMETRIC)
def test_operators_with_a_geometry_are_drawn_often(drawn, op):
    assert drawn[op] >= 50


def test_cases_hold_what_they_name(drawn):
    assert {op for c in ALL for op in c.ops} <= set(drawn)


@pytest.mark.parametrize("p", [1, 2])
def test_rows_of_zeros_are_normalised_to_zeros(p):
    """As ONNX Runtime has it: rows that a Pad wrote are divided by a norm of zero."""
    net = Net((2, 3))
    check_laws(
        net, net.op("LpNormalization", net.op("Pad", "x", np.array([0, 1, 0, 0, 0, 0])), axis=2, p=p), np.random.default_rng(0)
    )
