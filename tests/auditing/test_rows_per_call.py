"""Files that take a number of rows which they do not declare."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.rows_per_call import telling_rows
from onnxfim.errors import OnnxFimError
from tests.support import models
from tests.support.models import Linear

LINEAR = Linear.draw(3, 4)
X = LINEAR.samples(9)


def holding(batch: int):
    """The linear model behind a Reshape that says a batch, which the input leaves open."""
    nodes = [("Reshape", ["x", "t"], ["r"], {}), ("Gemm", ["r", "W", "b"], ["z"], {"transB": 1})]
    weights = {"t": np.array([batch, 4], np.int64), "W": LINEAR.W.astype(np.float32), "b": LINEAR.b.astype(np.float32)}
    return models.model(nodes, weights, shape=(4,), out=(3,))


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_batch_that_is_not_declared_is_found_and_freed(saved, cpu, batch):  # float32
    opened = open_subject(saved(holding(batch)), X, cpu())
    rows = "1 row" if batch == 1 else f"{batch} rows"
    assert opened.info.rewritten == (f"batch axis freed (the file fails with other than {rows} in a call, though it declares none)")
    assert opened.differentiable is not None
    assert_allclose(opened.forward.outputs(X)[..., 0], LINEAR.logits(X), atol=1e-5)


def test_a_file_that_cannot_be_freed_is_called_with_its_rows(saved, cpu):  # float32
    each = np.arange(6, dtype=np.float32).reshape(2, 3)
    nodes = [("Gemm", ["x", "W"], ["g"], {"transB": 1}), ("Add", ["g", "c"], ["a"], {}), ("Reshape", ["a", "t"], ["z"], {})]
    weights = {"W": LINEAR.W.astype(np.float32), "c": each, "t": np.array([2, 3], np.int64)}
    opened = open_subject(saved(models.model(nodes, weights, shape=(4,), out=(3,))), X, cpu())
    assert opened.info.rewritten == (
        "nothing: called with 2 at a time, for the file fails with other than 2 rows in a call, though it declares none"
    )
    assert opened.forward.batch == 2
    assert_allclose(opened.forward.outputs(X)[..., 0], LINEAR.logits(X) - LINEAR.b + each[np.arange(9) % 2], atol=1e-5)


def test_what_runs_with_no_number_of_rows_tells_what_it_said_at_first(saved, cpu, told):
    nodes = [("Reshape", ["x", "t"], ["r"], {}), ("Gemm", ["r", "W"], ["z"], {"transB": 1})]
    weights = {"t": np.array([7, 5], np.int64), "W": np.ones((3, 5), np.float32)}
    with pytest.raises(OnnxFimError, match=told("ONNX Runtime failed", "Reshape")):
        open_subject(saved(models.model(nodes, weights, shape=(4,), out=(3,))), X, cpu())


@pytest.mark.parametrize(("few", "fixed"), [(8, 8), (8, 1), (1, 1), (8, 4), (3, 32), (8, 3)])
def test_rows_that_tell_are_no_multiple_of_the_batch(few, fixed):
    rows = telling_rows(X[:few], fixed)
    assert len(rows) > 1
    assert fixed == 1 or len(rows) % fixed
    assert len(np.unique(rows, axis=0)) == len(rows)
