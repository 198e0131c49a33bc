"""What layers cost beside one another, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfim.graph.graph import Graph
from onnxfim.spectral.costs import _LEAST, Weighed, layer_costs


@pytest.fixture
def graph():
    weights = {"k": np.ones((8, 3, 3, 3), np.float32), "one": np.ones((16, 8, 1, 1), np.float32), "m": np.ones((16, 5), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["a"], "kernel", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "one"], ["c"], "reshaped"),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "m"], ["y"], "matrix"),
    ]
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 7, 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )  # fmt: skip
    return Graph(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]))


def test_a_matrix_costs_its_singular_values_and_a_kernel_as_much_at_each_point(graph):
    costs = {name: cost - _LEAST for name, cost in layer_costs(graph).items()}
    assert costs == {"kernel": 10 * 32 * 8 * 3 * 3, "reshaped": 16 * 8 * 8, "matrix": 16 * 5 * 5}


def test_the_share_is_that_of_the_layers_before(graph):
    weighed, costs = Weighed(graph), layer_costs(graph)
    total = sum(costs.values())
    assert weighed.begins("kernel") == 0.0
    assert weighed.begins("Relu@0") == costs["kernel"] / total  # what is no layer costs nothing
    assert weighed.begins("reshaped") == costs["kernel"] / total
    assert weighed.begins("reshaped") == (costs["kernel"] + costs["reshaped"]) / total
    assert weighed.begins("matrix") == (costs["kernel"] + costs["reshaped"]) / total
