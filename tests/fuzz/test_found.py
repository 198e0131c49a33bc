"""Small constructions of what the fuzzer found, or its kind, further in than the reading of a file: none may be a traceback."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxfim.auditing.description import describe
from onnxfim.auditing.run import audit
from onnxfim.auditing.stages import by_differences
from onnxfim.errors import InputError, ModelError, OnnxFimError, OutputError, SettingsError, UnsupportedOperator
from onnxfim.gradients import derivative_graph
from onnxfim.gradients.nodewise import NodeTests
from onnxfim.graph.ends import ending, normalisation
from onnxfim.graph.graph import Graph
from onnxfim.graph.load import load_model
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from onnxfim.runtime.row_counts import filled
from onnxfim.spectral.reading import read_graph
from tests.support import models
from tests.support.audits import make_audit


def _constant(W):
    """A product with a weight that does not fit the one before it."""
    nodes = [("MatMul", ["x", "A"], ["h"], {}), ("Mul", ["h", "s"], ["g"], {}), ("MatMul", ["g", "B"], ["z"], {})]
    weights = {"A": np.eye(4, dtype=np.float32), "s": np.float32(2), "B": W.astype(np.float32)}
    return models.model(nodes, weights, shape=(4,), out=(3,))


def test_bounds_of_products_that_do_not_fit(saved):
    reading = read_graph(load_model(saved(_constant(np.ones((5, 3))))).graph)
    assert not reading.bound.available
    assert "fit" in reading.bound.reason


def test_a_softmax_over_a_value_without_axes(saved):
    nodes = [("ReduceSum", ["x"], ["s"], {"keepdims": 0}), ("Softmax", ["s"], ["z"], {"axis": 0})]
    made = models.model(nodes, {}, shape=(4,), out=())
    del made.graph.output[0].type.tensor_type.shape.dim[:]
    file = load_model(saved(made))
    assert ending(file.graph, "z") is not None
    describe(file)


@pytest.mark.parametrize("keepdims", [-(1 << 63), 2])
def test_odd_keepdims(saved, keepdims):
    nodes = [("ReduceMean", ["x"], ["m"], {"axes": [1], "keepdims": keepdims}), ("MatMul", ["m", "W"], ["z"], {})]
    file = load_model(saved(models.model(nodes, {"W": np.ones((1, 3), np.float32)}, shape=(4,), out=(3,))))
    read_graph(file.graph)
    describe(file)


@pytest.mark.parametrize("keepdims", [-1, 0, 2])
def test_keepdims_is_read_as_the_runtime_does(saved, keepdims):
    nodes = [("ReduceMax", ["x"], ["m"], {"axes": [2], "keepdims": keepdims}), ("MatMul", ["m", "W"], ["z"], {})]
    made = models.model(nodes, {"W": np.arange(12, dtype=np.float32).reshape(4, 3) + 1}, shape=(4, 5), out=(3,))
    found = audit(saved(made), np.random.default_rng(0).standard_normal((6, 4, 5)).astype(np.float32))
    assert found.run.failed_stages == ()
    assert found.run.method == "gradient"


@pytest.mark.parametrize("what", ["input", "weight"])
def test_an_output_that_nothing_computes(saved, what):
    made = _constant(np.ones((4, 3)))
    name, shape = ("x", ["N", 4]) if what == "input" else ("A", [4, 4])
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    file = load_model(saved(made))
    read_graph(file.graph)
    describe(file)
    with pytest.raises(OnnxFimError):
        derivative_graph(file.proto, input_name="x", output_name="A" if what == "weight" else "nothing", kind="vjp")


def test_a_graph_that_does_not_fit_has_no_derivative():
    made = models.model(
        [("Transpose", ["x"], ["t"], {"perm": [0, 5]}), ("MatMul", ["t", "W"], ["z"], {})],
        {"W": np.ones((4, 3), np.float32)},
        shape=(4,),
        out=(3,),
    )
    with pytest.raises((UnsupportedOperator, OnnxFimError), match=r"^[^\n]+$"):
        derivative_graph(made, input_name="x", output_name="z", kind="vjp")


def _chain(size):
    nodes = [("Tanh", [f"v{k - 1}" if k else "x"], [f"v{k}"], {}) for k in range(size)]
    return models.model(
        [*nodes, ("MatMul", [f"v{size - 1}", "W"], ["z"], {})], {"W": np.ones((4, 3), np.float32)}, shape=(4,), out=(3,)
    )


@pytest.mark.parametrize("size", [10, 300, 600])
def test_rules_are_tested_in_models_of_bounded_size(size):
    """A session's cost grows with the square of its nodes, so no model may grow with the chain, nor a model be opened for every node."""
    import onnxruntime

    opened = []

    def evaluate(model, feeds):
        opened.append(len(model.graph.node))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run([o.name for o in model.graph.output], dict(feeds))

    tests = NodeTests(_chain(size), input_name="x", output_name="z", sample_shape=(4,))
    X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    w, found = tests(evaluate, X, X)
    assert w.shape == (2, 3)
    assert len(found) == size + 1
    assert max(float(n.errors.max()) for n in found) < 0.05
    assert max(opened) <= 400
    assert len(opened) <= 2 + size / 25


def test_an_output_without_numbers(saved, cpu, told):
    nodes = [("Slice", ["x", "from", "to", "axis"], ["s"], {}), ("Relu", ["s"], ["z"], {})]
    weights = {"from": np.int64([3]), "to": np.int64([1]), "axis": np.int64([1])}
    path = saved(models.model(nodes, weights, shape=(4,), out=(0,)))
    with pytest.raises(OnnxFimError, match=told("output has shape (2, 0) and holds no numbers", "a class at least", "Export")):
        audit(path, np.ones((2, 4), np.float32), settings=cpu())


def test_a_batch_that_no_memory_holds(told):
    with pytest.raises(OnnxFimError, match=told("takes 1,152,921,504,606,846,976 rows at once", "smaller batch axis")):
        filled(np.ones((2, 4), np.float32), 1 << 60)


def test_a_scale_without_values(saved):
    nodes = [
        ("MatMul", ["x", "W"], ["q"], {}),
        ("Cast", ["q"], ["i"], {"to": TensorProto.INT8}),
        ("DequantizeLinear", ["i", "s"], ["z"], {}),
    ]
    weights = {"W": np.ones((4, 3), np.float32), "s": np.zeros(0, np.float32)}
    file = load_model(saved(models.model(nodes, weights, shape=(4,), out=(3,))))
    assert ending(file.graph, "z").rounding == 0.0
    describe(file)


def test_outputs_too_large_to_square(saved):
    made = models.model([("MatMul", ["x", "W"], ["z"], {})], {"W": np.full((4, 3), 1e200)}, shape=(4,), out=(3,), dtype="float64")
    found = audit(saved(made), np.ones((3, 4)), settings=Settings(method="sketch", budget=12))
    assert found.run.failed_stages == ()
    assert {s.reason for s in found.skipped} == {by_differences._BREAKS}


def test_text_in_an_attribute_that_is_no_utf_8(saved):
    made = models.model([("Gemm", ["x", "W"], ["z"], {})], {"W": np.ones((4, 3), np.float32)}, shape=(4,), out=(3,))
    tensor = TensorProto(data_type=TensorProto.STRING, dims=[1], string_data=[b"\xff"])
    made.graph.node[0].attribute.append(helper.make_attribute("axis", tensor))
    with pytest.raises(ModelError, match="holds text that is no UTF-8"):
        load_model(saved(made))


def test_a_schema_version_of_one_number_is_refused():
    record = json.loads(make_audit().to_json()) | {"schema_version": "2"}
    with pytest.raises(OutputError, match="schema_version is 2, expected"):
        Audit.from_json(json.dumps(record))


def test_channel_constants_that_do_not_fit_each_other_are_no_normalisation():
    nodes = [("Sub", ["x", "mean"], ["h"], {}), ("Mul", ["h", "scale"], ["z"], {})]
    for mean, scale in ((np.zeros((2, 1)), np.zeros((0, 1))), (np.zeros((2, 1)), np.ones((3, 1)))):
        weights = {"mean": mean.astype(np.float32), "scale": scale.astype(np.float32)}
        made = models.model(nodes, weights, shape=(2, 4), out=(2, 4))
        found = normalisation(Graph(made), "x")
        assert found is None or len(found.mean) == 2


def test_labels_of_a_softmax_over_one_number(saved, cpu):
    made = models.model([("MatMul", ["x", "W"], ["z"], {})], {"W": np.ones((3, 1), np.float32)}, shape=(3,), out=(1,))
    X = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    with pytest.raises(InputError, match=r"label 1 of sample 1, expected 0 for 1 output\. Check the labels"):
        audit(saved(made), X, np.arange(8) % 2, cpu(output_kind="probabilities", replay=0))


def test_a_step_that_leads_beyond_the_numbers_of_the_input(saved, cpu, told):
    path = saved(
        models.model(
            [("MatMul", ["x", "W"], ["z"], {})], {"W": np.eye(4, 3, dtype=np.float16)}, shape=(4,), out=(3,), dtype="float16"
        )
    )
    with pytest.raises(SettingsError, match=told("step: 5e+03 leads beyond the numbers of float16", "at most 4.09e", "Give less")):
        audit(path, np.ones((2, 4), np.float16), settings=cpu(step=5e3))
