"""Copies cut at an inner value: both parts together do what the file does, and the file stays as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper

from onnxfim.errors import ModelError
from onnxfim.graph.cutting import part_before, part_behind, without_functions
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.session import open_session, run
from tests.support.whole_nets import Bag

BAG = Bag.draw()
IDS = BAG.ids(4)


def outputs(made, name, feeds):
    return run(open_session(made.SerializeToString(), Hardware(("cpu",)))[0], [name], feeds)[0]


@pytest.mark.parametrize("value", ["e", "m", "h", "t"])
def test_both_parts_together_are_the_file(value):
    made = BAG.onnx()
    bytes_before = made.SerializeToString()
    inner = outputs(part_before(made, value), value, {"x": IDS})
    behind = part_behind(made, value, TensorProto.FLOAT, ("N", *inner.shape[1:]))
    onnx.checker.check_model(behind, full_check=True)
    assert_array_equal(outputs(behind, "z", {value: inner}), outputs(made, "z", {"x": IDS}))
    assert [i.name for i in behind.graph.input] == [value]
    assert "E" not in {t.name for t in behind.graph.initializer}, "the table is not held twice"
    assert made.SerializeToString() == bytes_before, "the file's own model is not changed"


def test_the_batch_on_another_axis_comes_first():
    nodes = [
        ("Transpose", ["x"], ["turned"], {"perm": [1, 0]}), ("Gather", ["E", "turned"], ["time"], {}),
        ("Transpose", ["time"], ["e"], {"perm": [1, 0, 2]}),
    ]  # fmt: skip
    made = BAG.onnx(nodes)
    inner = outputs(part_before(made, "time"), "time", {"x": IDS})
    behind = part_behind(made, "time", TensorProto.FLOAT, ("N", 5, 6), batch_axis=1)
    assert_array_equal(outputs(behind, "z", {"time__by_sample": np.moveaxis(inner, 1, 0)}), outputs(made, "z", {"x": IDS}))


def test_what_else_is_read_of_the_input_stays_an_input():
    nodes = [("Gather", ["E", "x"], ["a"], {}), ("Cast", ["x"], ["f"], {"to": TensorProto.FLOAT})]
    nodes += [("Unsqueeze", ["f", "k"], ["u"], {}), ("Mul", ["a", "u"], ["e"], {})]
    made = BAG.onnx(nodes, weights={"k": np.array([2])})
    inner = outputs(part_before(made, "a"), "a", {"x": IDS})
    behind = part_behind(made, "a", TensorProto.FLOAT, ("N", 5, 6))
    assert [i.name for i in behind.graph.input] == ["a", "x"]
    assert_array_equal(outputs(behind, "z", {"a": inner, "x": IDS}), outputs(made, "z", {"x": IDS}))


def test_a_node_whose_other_results_are_read_stays():
    nodes = [("Gather", ["E", "x"], ["a"], {}), ("Split", ["a", "s"], ["first", "rest"], {"axis": 1})]
    nodes += [("Concat", ["rest", "first"], ["e"], {"axis": 1})]
    made = BAG.onnx(nodes, weights={"s": np.array([2, 3])})
    inner = outputs(part_before(made, "first"), "first", {"x": IDS})
    behind = part_behind(made, "first", TensorProto.FLOAT, ("N", 2, 6))
    assert_array_equal(outputs(behind, "z", {"first": inner, "x": IDS}), outputs(made, "z", {"x": IDS}))


def test_an_output_that_is_the_value_itself_is_left_out():
    made = BAG.onnx()
    made.graph.output.append(helper.make_tensor_value_info("e", TensorProto.FLOAT, ["N", 5, 6]))
    behind = part_behind(made, "e", TensorProto.FLOAT, ("N", 5, 6))
    assert [o.name for o in behind.graph.output] == ["z"]


def test_values_that_a_branch_reads_are_kept():
    made = BAG.onnx([("Gather", ["E", "x"], ["a"], {}), ("Identity", ["a"], ["e"], {})])
    branch = helper.make_graph([helper.make_node("Neg", ["a"], ["n"])], "b", [], [helper.make_tensor_value_info("n", 1, None)])
    made.graph.node[1].CopyFrom(helper.make_node("If", ["yes"], ["e"], then_branch=branch, else_branch=branch))
    made.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    inner = outputs(part_before(made, "a"), "a", {"x": IDS})
    assert_array_equal(
        outputs(part_behind(made, "a", TensorProto.FLOAT, ("N", 5, 6)), "z", {"a": inner}), outputs(made, "z", {"x": IDS})
    )


def test_values_inside_functions_get_names():
    made = BAG.onnx()
    gather = helper.make_function(
        "own", "Embed", ["i", "t"], ["o"], [helper.make_node("Gather", ["t", "i"], ["o"])], made.opset_import
    )
    made.functions.append(gather)
    made.opset_import.append(helper.make_opsetid("own", 1))
    made.graph.node[0].CopyFrom(helper.make_node("Embed", ["x", "E"], ["e"], domain="own"))
    written = without_functions(made)
    assert written.graph.node[0].op_type == "Gather"
    assert_array_equal(outputs(written, "z", {"x": IDS}), outputs(made, "z", {"x": IDS}))
    assert without_functions(BAG.onnx()).functions == []


def test_functions_that_do_not_fit_their_calls_are_told_in_one_line():
    body = onnx.helper.make_function(
        "local", "F", ["a"], ["b"], [onnx.helper.make_node("Relu", ["a"], ["b"])], [onnx.helper.make_opsetid("", 18)]
    )
    call = onnx.helper.make_node("F", ["x", "x", "x"], ["y"], domain="local")
    values = [onnx.helper.make_tensor_value_info(name, 1, ["N", 3]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([call], "g", values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("local", 1)]
    with pytest.raises(ModelError, match="its functions cannot be written out"):
        without_functions(onnx.helper.make_model(graph, functions=[body], opset_imports=opsets))
