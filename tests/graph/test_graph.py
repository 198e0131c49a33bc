"""The graph as a view: order, readers, constants, and what is broken."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from onnxfim.errors import ModelError
from onnxfim.graph.graph import Graph
from tests.support import models


def chain(*links):
    """A model of unary nodes ``(op, input, output)`` in file order."""
    return models.model([(op, [i], [o], {}) for op, i, o in links], {}, shape=(4,), out=(4,))


def test_nodes_come_in_topological_order():
    graph = Graph(chain(("Relu", "b", "z"), ("Tanh", "a", "b"), ("Neg", "x", "a")))
    assert [n.op for n in graph.nodes] == ["Neg", "Tanh", "Relu"]
    assert [n.index for n in graph.nodes] == [2, 1, 0], "the index is the place in the file"


def test_producers_and_consumers():
    graph = Graph(models.model([("Add", ["x", "x"], ["a"], {}), ("Mul", ["a", "x"], ["z"], {})], {}, shape=(4,), out=(4,)))
    assert graph.producers["z"].inputs == ("a", "x")
    assert [n.op for n in graph.consumers["x"]] == ["Add", "Mul"]
    assert "z" not in graph.consumers


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ([("Relu", "b", "a"), ("Tanh", "a", "b"), ("Neg", "x", "z")], "cycle"),
        ([("Relu", "x", "z"), ("Tanh", "x", "z")], "written twice"),
        ([("Relu", "x", "x")], "written twice"),
        ([("Relu", "nowhere", "z")], "reads 'nowhere', which nothing provides"),
    ],
)
def test_broken_graphs(links, words, told):
    with pytest.raises(ModelError, match=told(words, "Re-export")):
        Graph(chain(*links))


def test_constants_from_weights_and_nodes():
    value = np.arange(4, dtype=np.float32)
    made = models.model([("Add", ["x", "w"], ["a"], {}), ("Add", ["a", "c"], ["z"], {})], {"w": value}, shape=(4,), out=(4,))
    made.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(2 * value)))
    graph = Graph(made)
    assert_array_equal(graph.constant("w"), value)
    assert_array_equal(graph.constant("c"), 2 * value)
    assert graph.constant("a") is None


def test_weights_that_are_inputs_too_are_no_inputs():
    made = models.model([("Add", ["x", "w"], ["z"], {})], {"w": np.ones(4, np.float32)}, shape=(4,), out=(4,), ir=3)
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]))
    assert [i.name for i in Graph(made).inputs] == ["x"]


def test_external_data_stays_in_the_models_folder(tmp_path, told):
    (tmp_path / "secret").write_bytes(bytes(100))
    folder = tmp_path / "model"
    folder.mkdir()
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "../secret"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    made = models.model([("Add", ["x", "w"], ["z"], {})], {}, shape=(4,), out=(4,))
    made.graph.initializer.append(tensor)
    with pytest.raises(ModelError, match=told("weight 'w': cannot be read")):
        Graph(made, base_dir=folder).constant("w")


def test_shapes_and_types():
    graph = Graph(models.conv(K=3, channels=2, size=5)[0])
    assert graph.inputs[0].shape == ("N", 2, 5, 5)
    assert graph.inputs[0].dtype == "float32"
    assert graph.shapes["W"] == (3, 2, 1, 1)
    assert graph.shapes["z"][1:] == (3, 5, 5)
