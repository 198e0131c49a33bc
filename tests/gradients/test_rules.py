"""Every rule against differences and the adjoint identity, over random geometries."""

from __future__ import annotations

import zlib

import cases
import cases_shape
import cases_tensor
import numpy as np
import pytest
from nets import check_laws

from onnxfim.gradients import rules  # noqa: F401 - fills the registry
from onnxfim.gradients.inline import SCHEMA_FUNCTIONS
from onnxfim.gradients.lower import LOWERINGS
from onnxfim.gradients.registry import RULES

ALL = [*cases.CASES, *cases_shape.CASES, *cases_tensor.CASES]
DRAWS = [pytest.param(c, i, id=f"{c.name}-{i}") for c in ALL for i in range(c.repeats)]


@pytest.mark.parametrize(("case", "index"), DRAWS)
def test_rule_keeps_the_laws(case, index):
    rng = np.random.default_rng([zlib.crc32(case.name.encode()), index])
    net, output = case.make(rng)
    check_laws(net, output, rng)


def test_every_registry_entry_has_a_case():
    tested = {op for c in ALL for op in c.ops}
    assert {*RULES, *LOWERINGS, *SCHEMA_FUNCTIONS} <= tested
