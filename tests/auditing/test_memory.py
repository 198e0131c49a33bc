"""Memory: blocks of the gradient route keep a stated bound, and what does not fit is measured by the sketch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfim.auditing.run import audit
from onnxfim.errors import ModelError
from onnxfim.gradients import differentiable
from onnxfim.record.settings import Settings
from onnxfim.runtime import call_memory
from onnxfim.runtime.available_memory import resident_memory
from onnxfim.runtime.failures import OutOfMemory, RowsFailed, run_error
from tests.support.models import Mlp

MODEL = Mlp.draw(4, 12)
X = MODEL.samples(9)
SETTINGS = {"providers": ("cpu",), "bounds": False, "flip": False, "replay": 0}
MB = 10**6


@pytest.mark.parametrize("batch", [1, 2])
def test_the_batch_bounds_calls_of_derivative_graphs_too(monkeypatch, saved, batch):
    real, rows = differentiable.run, []

    def run(session, outputs, feeds, along=None):
        rows.append(len(feeds["x"]) if "u" in feeds else 1)
        return real(session, outputs, feeds)

    monkeypatch.setattr(differentiable, "run", run)
    found = audit(saved(MODEL.onnx()), X, settings=Settings(method="gradient", batch=batch, **SETTINGS))
    assert found.run.method == "gradient"
    assert max(rows) == batch


def test_less_memory_changes_no_value(monkeypatch, saved):
    path, settings = saved(MODEL.onnx()), Settings(method="gradient", **SETTINGS)
    before = audit(path, X, settings=settings)
    monkeypatch.setattr(call_memory, "_FIRST", 500)
    monkeypatch.setattr(call_memory, "MOST", 700)
    after = audit(path, X, settings=settings)
    # Matrix products of other numbers of rows round differently.
    assert [s.lambda_max.value for s in after.samples] == pytest.approx([s.lambda_max.value for s in before.samples], rel=1e-6)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("Failed to allocate memory")])
def test_a_failed_allocation_is_known_whoever_tells_of_it(error):
    assert isinstance(run_error(error), OutOfMemory)
    assert isinstance(run_error(RuntimeError("indices element out of data bounds")), RowsFailed)


@pytest.mark.parametrize("late", [False, True], ids=["in the self-test", "while measuring"])
def test_where_one_sample_with_one_seed_does_not_fit_the_sketch_measures(monkeypatch, saved, late):
    path, real, calls = saved(MODEL.onnx()), differentiable.run, [0]

    def run(session, outputs, feeds, along=None):
        calls[0] += 1
        if not late or ("u" in feeds and len(feeds["u"]) == 4) or calls[0] > 1000:
            raise OutOfMemory("model: ONNX Runtime ran out of memory (bad_alloc). Use a smaller --batch.")
        return real(session, outputs, feeds)

    if late:  # each Jacobian needs more than there is, whatever it is cut to
        monkeypatch.setattr(
            "onnxfim.gradients.differentiable.DifferentiableModel.jacobian", lambda *a: run(None, (), {"u": "four"})
        )
    else:
        monkeypatch.setattr(differentiable, "run", run)
    found = audit(path, X, settings=Settings(budget=24, **SETTINGS))
    assert found.run.method != "gradient"
    assert len(found.samples) == 9
    assert not found.run.partial
    assert not found.gradient.used
    assert "ran out of memory" in found.gradient.reason
    assert "no-gradient" in {f.id for f in found.findings}
    with pytest.raises(ModelError, match=r"no gradients \(.*ran out of memory.*Use --method sketch"):
        audit(path, X, settings=Settings(method="gradient", **SETTINGS))


def test_what_cannot_fit_is_not_tried(monkeypatch, saved):
    monkeypatch.setattr(call_memory, "available_memory", lambda: 10)
    found = audit(saved(MODEL.onnx()), X, settings=Settings(budget=24, **SETTINGS))
    assert "one sample with one seed needs about 0 MB, and 0 MB are available" in (found.gradient.reason or "")
    assert len(found.samples) == 9


def wide(path: Path) -> Path:
    """A net of 6 MB with 100,000 activations behind its convolutions."""
    rng = np.random.default_rng(0)
    nodes, weights, name, channels = [], {}, "x", 3
    for i, width in enumerate((16, 16, 32, 32)):
        weights[f"w{i}"] = rng.standard_normal((width, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        nodes += [
            helper.make_node("Conv", [name, f"w{i}"], [f"c{i}"], kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
        ]
        name, channels = f"r{i}", width
    weights["hidden"] = rng.standard_normal((32 * 16, 2800)) / 25
    weights["head"] = rng.standard_normal((2800, 10)) / 10
    nodes += [
        helper.make_node("AveragePool", [name], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "hidden"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "head"], ["z"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "wide", [info("x", TensorProto.FLOAT, ["N", 3, 32, 32])], [info("z", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


_CHILD = """
import json, sys
from pathlib import Path
import numpy as np, onnx
from onnxfim import Settings
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.runtime import call_memory
from onnxfim.runtime.available_memory import highest_memory, resident_memory
from onnxfim.runtime.hardware import Hardware
X = np.random.default_rng(0).standard_normal((40, 3, 32, 32)).astype(np.float32)
call_memory.CACHED = 2**40  # the bound of memory alone
most, found = call_memory.MOST, []
for call_memory.MOST, call_memory._FIRST in ((2**24, 2**24), (most, most)):
    model = DifferentiableModel(
        onnx.load(sys.argv[1]), input_name="x", output_name="z", shape=X.shape[1:], num_outputs=10, settings=Settings(),
        base_dir=Path(), hardware=Hardware(("cpu",)),
    )
    model.jacobian(X[:1])
    before = resident_memory()
    J = model.jacobian(X)
    found.append(highest_memory() - before)
print(json.dumps(found))
"""


@pytest.mark.skipif(resident_memory() is None, reason="the system does not tell a process's memory")
def test_a_net_of_many_activations_keeps_the_bound(tmp_path):
    """Jacobians of 40 samples: with a bound of 16 MiB the process grows by a fraction of what one call would take."""
    path = str(wide(tmp_path / "wide.onnx"))
    ran = subprocess.run([sys.executable, "-c", _CHILD, path], capture_output=True, text=True, timeout=120, check=True)
    bounded, whole = json.loads(ran.stdout)
    assert bounded < 40 * MB  # the bound, the Jacobians themselves, and what the arena rounds up
    assert whole > 2 * bounded
