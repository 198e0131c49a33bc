"""One bad row is one NaN row: the others of its batch are those that the model gives alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from onnxfim.auditing.run import audit
from onnxfim.errors import ModelError
from onnxfim.record.settings import Settings
from onnxfim.runtime.forgiving import ForgivingForward, rows_that_run, why_not
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.rows import Rows

W = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)


def looking_up(path):
    """``z = x W + table[int(x_0 / 10)]``: x_0 of 100 and more are out of the table's bounds."""
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one", "one"], ["first"]),
        helper.make_node("Mul", ["first", "tenth"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["found"], axis=0),
        helper.make_node("Reshape", ["found", "shape"], ["row"]),
        helper.make_node("MatMul", ["x", "W"], ["xW"]),
        helper.make_node("Add", ["xW", "row"], ["z"]),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "tenth": np.array(0.1, np.float32), "table": np.ones((10, 2), np.float32),
        "shape": np.array([-1, 2]), "W": W,
    }  # fmt: skip
    constants["zero"], constants["one"] = np.array([0, 0]), np.array([2**31, 1])
    nodes[0] = helper.make_node("Slice", ["x", "zero", "one"], ["first"])
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def forward(tmp_path):
    path = looking_up(tmp_path / "m.onnx")
    return OnnxForward(
        path, input_name="x", output_name="z", shape=(3,), dtype=np.dtype(np.float32), hardware=Hardware(("cpu",)), batch=4
    )


X = np.random.default_rng(1).uniform(1, 8, (11, 3)).astype(np.float32)
BAD = X.copy()
BAD[[2, 7, 8], 0] = 500


def test_rows_that_fail_are_nan_and_the_others_are_as_they_are_alone(forward):
    z = ForgivingForward(forward, (2, 1)).outputs(BAD)
    good = np.setdiff1d(np.arange(11), [2, 7, 8])
    assert np.isnan(z[[2, 7, 8]]).all()
    assert_array_equal(z[good], np.concatenate([forward.outputs(BAD[i : i + 1]) for i in good]))


def test_moved_rows_that_fail_are_nan_and_no_batch_is_lost(forward):
    """Three batches; in the first and the last one row is moved out of bounds."""
    scale = np.full(11, 0.5)
    scale[[1, 9]] = 1000.0
    rows = Rows(np.arange(11), np.ones((11, 3), np.int8), scale)
    batches = [Rows(rows.sample[i : i + 4], rows.v[i : i + 4], rows.scale[i : i + 4]) for i in range(0, 11, 4)]
    z = np.concatenate(list(ForgivingForward(forward, (2, 1)).stream(X, batches)))
    assert np.flatnonzero(np.isnan(z).any(axis=(1, 2))).tolist() == [1, 9]
    moved = (X + scale[:, None]).astype(np.float32)
    assert_array_equal(z[[0, 10]], forward.outputs(moved[[0, 10]]))


def test_a_model_that_takes_no_row_says_why(forward):
    none = np.full((5, 3), 500, np.float32)
    assert np.isnan(ForgivingForward(forward, (2, 1)).outputs(none)).all()
    with pytest.raises(ModelError, match="out of data bounds"):
        rows_that_run(forward.outputs, none, 3)
    assert "out of data bounds" in (why_not(forward.outputs, none[:1]) or "")
    assert_array_equal(rows_that_run(forward.outputs, BAD, 4), [0, 1, 3, 4])


def test_an_audit_skips_the_sample_with_the_runtimes_reason_and_measures_the_others(tmp_path):
    found = audit(looking_up(tmp_path / "m.onnx"), BAD, None, Settings(providers=("cpu",), bounds=False))
    assert [s.index for s in found.skipped] == [2, 7, 8]
    assert "runtime fails on it" in found.skipped[0].reason
    assert "out of data bounds" in found.skipped[0].reason
    assert len(found.samples) == 8


def test_a_first_sample_that_fails_is_skipped_like_any_other(tmp_path):
    X = BAD.copy()
    X[0, 0] = 500
    found = audit(looking_up(tmp_path / "m.onnx"), X, None, Settings(providers=("cpu",), bounds=False))
    assert [s.index for s in found.skipped] == [0, 2, 7, 8]
    assert len(found.samples) == 7
