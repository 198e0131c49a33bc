"""What a verifier proves in exact arithmetic need not hold of a file that rounds: such a certificate is refused where a move shows it."""

from __future__ import annotations

import shlex
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfim.auditing.run import audit
from onnxfim.record.settings import Settings

LARGE = np.float32(2**25)  # float32 holds multiples of 4 there: x + LARGE − LARGE is 0, not x


@pytest.fixture
def rounding(saved):
    """Scores (1, 4 (x − ((x + c) − c))): in exact arithmetic (1, 0), in float32 (1, 4 x)."""
    weights = {
        "W1": [[1.0, 1.0]], "b1": [LARGE, 0.0], "W2": np.eye(2), "b2": [-LARGE, 0.0], "W3": [[0.0, -4.0], [0.0, 4.0]], "b3": [1.0, 0.0],
    }  # fmt: skip
    layers = [("x", "1", "a"), ("r", "2", "s"), ("t", "3", "y")]
    gemms = [helper.make_node("Gemm", [i, f"W{k}", f"b{k}"], [o]) for i, k, o in layers]
    relus = [helper.make_node("Relu", [i], [o]) for i, o in (("a", "r"), ("s", "t"))]
    nodes = [gemms[0], relus[0], gemms[1], relus[1], gemms[2]]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 1), ("y", 2)))
    constants = [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return saved(model)


def test_a_proof_in_exact_arithmetic_does_not_certify_a_file_that_rounds(rounding):
    # "unsat" is right of the function in exact arithmetic: the second score is 0 everywhere. The file's flips at x = 1/4.
    exact = f"""{shlex.quote(sys.executable)} -c "print('unsat')" {{onnx}} {{vnnlib}}"""
    settings = Settings(
        verifier=exact, verifier_timeout=20.0, providers=("cpu",), method="sketch", replay=0, bounds=False, attack="linf",
        attack_range=(0.0, 1.0),
    )  # fmt: skip
    found = audit(rounding, np.array([[0.05], [0.125]], np.float32), np.zeros(2, np.int64), settings)
    asked = [s for s in found.samples if s.verified]
    assert [s.index for s in asked] == [0, 1]
    for s in asked:
        assert [b.answer for b in s.verified] == ["unsat"]  # of the box that holds the move; no more is asked
        assert s.certified_radius_linf.value == 0.0  # our own bounds count the file's rounding
    assert found.verifier.contradictions == 2
    assert "verifier-contradiction" in {f.id for f in found.findings}
