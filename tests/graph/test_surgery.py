"""Rewritten copies: they do what the file does, and the file stays as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto

from onnxfim.graph.surgery import free_batch, read_from
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.session import open_session, run
from tests.support import models
from tests.support.models import Linear

LINEAR = Linear.draw(3, 4)


def outputs(made, X, name="z"):
    session, _ = open_session(made.SerializeToString(), Hardware(("cpu",)))
    return run(session, [name], {"x": X})[0]


@pytest.mark.parametrize("target", [[1, 4], [1, -1], [1, 2, 2]])
def test_a_reshape_that_repeats_the_batch_is_freed_too(target):  # float32
    nodes = [("Reshape", ["x", "t"], ["r"], {}), ("Flatten", ["r"], ["f"], {"axis": 1}), ("Gemm", ["f", "W"], ["z"], {"transB": 1})]
    weights = {"t": np.array(target, np.int64), "W": LINEAR.W.astype(np.float32)}
    made = models.model(nodes, weights, shape=(2, 2), out=(3,), batch=1)
    before = made.SerializeToString()
    free = free_batch(made, 1)
    X = np.random.default_rng(0).standard_normal((7, 2, 2)).astype(np.float32)
    assert_allclose(outputs(free, X), np.concatenate([outputs(made, x[None]) for x in X]), atol=1e-6)
    assert made.SerializeToString() == before, "the file's own model is not changed"
    onnx.checker.check_model(free)


def test_an_inner_value_becomes_the_first_output():  # float32
    made = LINEAR.onnx(end="Softmax")
    copy = read_from(made, "logits", TensorProto.FLOAT)
    X = LINEAR.samples(3)
    assert [o.name for o in copy.graph.output] == ["logits", "z"]
    assert_allclose(outputs(copy, X, "logits"), LINEAR.logits(X), atol=1e-5)
    assert [o.name for o in made.graph.output] == ["z"]


@pytest.mark.parametrize("fixed", [1, 8])
def test_a_recurrent_node_of_zero_states_is_freed_too(fixed):  # float32
    rng = np.random.default_rng(0)
    nodes = [("Transpose", ["x"], ["t"], {"perm": [1, 0, 2]}),
             ("LSTM", ["t", "W", "R", "", "", "zero", "zero"], ["", "h"], {"hidden_size": 3}), ("Squeeze", ["h", "a"], ["z"], {})]  # fmt: skip
    weights = {"W": rng.standard_normal((1, 12, 2)).astype(np.float32), "R": rng.standard_normal((1, 12, 3)).astype(np.float32),
               "zero": np.zeros((1, fixed, 3), np.float32), "a": np.array([0])}  # fmt: skip
    made = models.model(nodes, weights, shape=(4, 2), out=(3,), batch=fixed)
    X = rng.standard_normal((2 * fixed, 4, 2)).astype(np.float32)
    alone = np.concatenate([outputs(made, X[:fixed]), outputs(made, X[fixed:])])
    assert_allclose(outputs(free_batch(made, fixed), X), alone, atol=1e-6)
    assert list(made.graph.node[1].input)[5:] == ["zero", "zero"], "the file's own model is not changed"
