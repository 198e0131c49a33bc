"""A library of custom operators that break the process which runs them, built where there is a compiler, and models that use them."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

_SOURCE = Path(__file__).with_name("crashing_operators.c")
DOMAIN = "test.crashes"
#: A row whose first value is above this breaks the process.
LIMIT = 100.0


@functools.cache
def library():
    """Path of the library; skips where it cannot be built."""
    if sys.platform == "win32" or (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        pytest.skip("no C compiler builds the operators that crash")
    folder = Path(tempfile.mkdtemp(prefix="onnxfim-crashing-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "libcrashing.so"
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", path, _SOURCE], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"the operators that crash were not built: {done.stderr.splitlines()[-1]}")
    return path


def model(operator, *, features=6, classes=3, smooth=True):
    """A small network behind the operator, which gives rows back as they are: (N, features) to logits; smooth or not."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(features, 8)) / 4, rng.normal(size=(8, classes))
    weights = [numpy_helper.from_array(w.astype(np.float32), n) for w, n in ((first, "first"), (second, "second"))]
    nodes = [
        helper.make_node(operator, ["x"], ["same"], name="breaks", domain=DOMAIN),
        helper.make_node("MatMul", ["same", "first"], ["a"]),
        helper.make_node("Tanh" if smooth else "Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["logits"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", features), ("logits", classes))]
    graph = helper.make_graph(nodes, "crashing", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)])
    made.ir_version = 8
    return made


def samples(count=24, bad=(), features=6, value=2 * LIMIT):
    """Samples (count, features) float32, labels, of which those at ``bad`` break the process."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(count, features)).astype(np.float32)
    X[list(bad), 0] = value
    return X, rng.integers(0, 3, count)
