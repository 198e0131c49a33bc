"""Where files of whole numbers are audited: the value that is found, and why there is none."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxfim.graph.float_front import with_float_front
from onnxfim.graph.graph import Graph
from onnxfim.graph.inner import Place, Unplaced, moved_on, named_place, place_of, token_input
from tests.support import models
from tests.support.whole_nets import Bag, Levels

BAG, IMAGE = Bag.draw(), Levels.draw()
INT64, FLOAT, FLOAT16 = TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT16
whole = np.array
QUANTISED = np.clip(np.rint(BAG.E / 0.03), -128, 127).astype(np.int8)
INFO = helper.make_tensor_value_info


def found(made, output="z"):
    graph = Graph(made)
    return place_of(graph, graph.inputs[0], output)


#: (nodes from the ids to the embeddings, weights that they read, the value that is audited)
FRONTS = {
    "Gather": ([("Gather", ["E", "x"], ["e"], {})], {}, "e"),
    "Cast": ([("Cast", ["x"], ["i"], {"to": INT64}), ("Gather", ["E", "i"], ["e"], {})], {}, "e"),
    "Identity": ([("Identity", ["x"], ["i"], {}), ("Gather", ["E", "i"], ["e"], {})], {}, "e"),
    "Clip": ([("Clip", ["x", "lo", "hi"], ["i"], {}), ("Gather", ["E", "i"], ["e"], {})], {"lo": whole(0), "hi": whole(19)}, "e"),
    "Min": ([("Min", ["x", "hi"], ["i"], {}), ("Gather", ["E", "i"], ["e"], {})], {"hi": whole(19)}, "e"),
    "hashed": ([("Mod", ["x", "n"], ["i"], {}), ("Gather", ["E", "i"], ["e"], {})], {"n": whole(20)}, "e"),
    "Unsqueeze": (
        [("Unsqueeze", ["x", "k"], ["u"], {}), ("Squeeze", ["u", "k"], ["i"], {}), ("Gather", ["E", "i"], ["e"], {})],
        {"k": whole([2])}, "e",
    ),
    "other ids": ([("Gather", ["map", "x"], ["i"], {}), ("Gather", ["E", "i"], ["e"], {})], {"map": np.arange(20)[::-1].copy()}, "e"),
    "OneHot": (
        [("OneHot", ["x", "n", "v"], ["c"], {}), ("MatMul", ["c", "E"], ["e"], {})],
        {"n": whole(20), "v": np.array([0, 1], np.float32)}, "e",
    ),
    "OneHot of whole numbers": (
        [("OneHot", ["x", "n", "v"], ["w"], {}), ("Cast", ["w"], ["c"], {"to": FLOAT}), ("MatMul", ["c", "E"], ["e"], {})],
        {"n": whole(20), "v": whole([0, 1])}, "e",
    ),
    "half table": ([("Gather", ["H", "x"], ["he"], {}), ("Cast", ["he"], ["e"], {"to": FLOAT})], {"H": BAG.E.astype(np.float16)}, "e"),
    "int8 table": (
        [("Gather", ["Q", "x"], ["q"], {}), ("DequantizeLinear", ["q", "s"], ["e"], {})], {"Q": QUANTISED, "s": np.float32(0.03)}, "e",
    ),
    "int8 table, dequantised whole": (
        [("DequantizeLinear", ["Q", "s"], ["d"], {}), ("Gather", ["d", "x"], ["e"], {})], {"Q": QUANTISED, "s": np.float32(0.03)}, "e",
    ),
}  # fmt: skip


@pytest.mark.parametrize("front", FRONTS)
def test_tokens(front):
    nodes, weights, value = FRONTS[front]
    place = found(BAG.onnx(nodes, weights=weights))
    assert isinstance(place, Place)
    assert (place.tensor, place.kind, place.unit, place.limits) == (value, "tokens", "unit of the embedding", None)
    assert place.rows == 20
    assert "'x'" in place.front


def test_a_code_that_no_matrix_multiplies_is_audited_itself():
    nodes = [("OneHot", ["x", "n", "v"], ["c"], {}), ("Tanh", ["c"], ["e"], {})]
    wide = Bag.draw(width=20)
    place = found(wide.onnx(nodes, weights={"n": whole(20), "v": np.array([0, 1], np.float32)}))
    assert (place.tensor, place.unit, place.rows) == ("c", "unit of the one-hot code", 20)


def two_tables(join):
    """Two columns of ids, a table for each, and what becomes of both."""
    nodes = [
        ("Split", ["x", "sizes"], ["a", "b"], {"axis": 1}), ("Gather", ["E", "a"], ["ea"], {}), ("Gather", ["F", "b"], ["eb"], {}), *join,
    ]  # fmt: skip
    return BAG.onnx(nodes, weights={"sizes": whole([2, 3]), "F": BAG.E[::-1].copy()})


def test_several_tables_side_by_side_are_one_value():
    place = found(two_tables([("Concat", ["ea", "eb"], ["e"], {"axis": 1})]))
    assert (place.tensor, place.kind, place.rows) == ("e", "tokens", 40)
    assert "2 tables looked up by 'x', joined in 'e'" in place.front


def test_several_tables_that_go_different_ways_are_not():
    apart = [
        ("Tanh", ["ea"], ["ta"], {}), ("Sigmoid", ["eb"], ["sb"], {}), ("Concat", ["ta", "sb"], ["e"], {"axis": 1}),
    ]  # fmt: skip
    place = found(two_tables(apart))
    assert isinstance(place, Unplaced)
    assert place.words == "and 2 tables of it go different ways. Name the float value to audit from: --at 'ea' or 'eb'."


def test_what_no_output_needs_is_no_place():
    made = BAG.onnx()
    made.graph.node.append(helper.make_node("Gather", ["A", "x"], ["unread"]))
    made.graph.output.append(INFO("unread", FLOAT, None))
    assert found(made).tensor == "e"
    assert isinstance(found(made, None), Unplaced)


#: (nodes from the image to the floats, type of the input, weights, the value, its unit, its limits)
IMAGES = {
    "Cast": ([("Cast", ["x"], ["f"], {"to": FLOAT})], "uint8", {}, "f", "level of the input", (0.0, 255.0)),
    "int8": ([("Cast", ["x"], ["f"], {"to": FLOAT})], "int8", {}, "f", "level of the input", (-128.0, 127.0)),
    "moved": (
        [("Transpose", ["x"], ["y"], {"perm": [0, 1, 3, 2]}), ("Cast", ["y"], ["f"], {"to": FLOAT})],
        "uint8", {}, "f", "level of the input", (0.0, 255.0),
    ),
    "twice cast": (
        [("Cast", ["x"], ["i"], {"to": TensorProto.INT32}), ("Cast", ["i"], ["hf"], {"to": FLOAT16}), ("Cast", ["hf"], ["f"], {"to": FLOAT})],
        "uint8", {}, "f", "level of the input", (0.0, 255.0),
    ),
    "shifted": (
        [("Cast", ["x"], ["i"], {"to": INT64}), ("Sub", ["i", "n"], ["j"], {}), ("Cast", ["j"], ["f"], {"to": FLOAT})],
        "uint8", {"n": whole(128)}, "f", "unit of the whole numbers", None,
    ),
    "DequantizeLinear": (
        [("DequantizeLinear", ["x", "scale", "zero"], ["f"], {})],
        "uint8", {"scale": np.float32(0.5), "zero": np.uint8(128)}, "f", "unit of the dequantised input", (-64.0, 63.5),
    ),
    "whole numbers": ([("Cast", ["x"], ["f"], {"to": FLOAT})], "int64", {}, "f", "unit of the whole numbers", None),
}  # fmt: skip


@pytest.mark.parametrize("front", IMAGES)
def test_levels(front):
    nodes, dtype, weights, value, unit, limits = IMAGES[front]
    place = found(IMAGE.onnx(nodes, dtype=dtype, weights=weights))
    assert (place.tensor, place.kind, place.unit, place.limits) == (value, "levels", unit, limits)


def test_numbers_that_are_only_compared_have_no_place():
    nodes = [
        ("Greater", ["x", "n"], ["b"], {}),
        ("Where", ["b", "W", "V"], ["m"], {}),
        ("ReduceSum", ["m", "k"], ["z"], {"keepdims": 0}),
    ]
    weights = {"n": whole(3), "W": np.ones((1, 4, 3), np.float32), "V": np.zeros((1, 4, 3), np.float32), "k": whole([1])}
    made = models.model(nodes, weights, shape=(4, 1), out=(3,), dtype="int64", out_dtype="float32")
    place = found(made)
    assert isinstance(place, Unplaced)
    assert "no float value is found behind it" in place.words
    assert "--at 'm'" in place.words


class TestNames:
    graph = Graph(BAG.onnx())

    def named(self, name, output="z"):
        return named_place(self.graph, self.graph.inputs[0], name, output)

    def test_the_embedding_is_what_it_is_without_its_name(self):
        assert self.named("e") == place_of(self.graph, self.graph.inputs[0], "z")

    def test_any_other_value(self):
        place = self.named("h")
        assert (place.tensor, place.kind, place.unit, place.limits) == ("h", "inner", "unit of 'h'", None)
        assert place.front == "3 nodes, the last of them Gemm (node 'Gemm_2')"

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("hh", "no node writes a value called 'hh'. Did you mean 'h'?"),
            ("nothing", "no node writes a value called 'nothing'. Name the float value to audit from: --at 'e', 'm', 'h' or 't'."),
            ("x", "'x' is an input of the file, expected a value that one of its nodes writes."),
        ],
    )
    def test_no_such_value(self, name, words):
        assert self.named(name).words.startswith(words)

    def test_values_that_do_not_lie_between(self):
        made = BAG.onnx()
        made.graph.node.extend([helper.make_node("Neg", ["A"], ["n"]), helper.make_node("Neg", ["t"], ["unread"])])
        self.graph = Graph(made)
        assert self.named("n").words.startswith("'n' does not depend on the input")
        assert self.named("unread").words.startswith("no output that is audited depends on 'unread'")


@pytest.mark.parametrize(("second", "tokens"), [(2, "x"), (15, None)])
def test_of_several_inputs_the_one_with_by_far_the_largest_table_holds_the_tokens(second, tokens):
    nodes = [("Gather", ["E", "x"], ["a"], {}), ("Gather", ["S", "y"], ["b"], {}), ("Add", ["a", "b"], ["e"], {})]
    made = BAG.onnx(nodes, weights={"S": BAG.E[:second]})
    made.graph.input.append(INFO("y", INT64, ["N", BAG.length]))
    told = token_input(Graph(made), "z")
    assert (None if told is None else told.name) == tokens


def test_a_value_is_followed_through_one_node_that_moves_it():
    nodes = [("Gather", ["E", "x"], ["a"], {}), ("Reshape", ["a", "s"], ["b"], {}), ("Tanh", ["b"], ["e"], {})]
    graph = Graph(BAG.onnx(nodes, weights={"s": whole([-1, 5, 6])}))
    first = place_of(graph, graph.inputs[0], "z")
    assert moved_on(graph, first).tensor == "b"
    assert moved_on(graph, moved_on(graph, first)) is None


def test_the_tokens_of_an_embed_layer_normalization():
    nodes = [("Cast", ["x"], ["i"], {"to": TensorProto.INT32}), ("Cast", ["y"], ["k"], {"to": TensorProto.INT32})]
    nodes += [("EmbedLayerNormalization", ["i", "k", "E", "P", "S", "g", "b"], ["e", ""], {})]
    row = np.ones(6, np.float32)
    made = BAG.onnx(nodes, weights={"P": BAG.E[:5], "S": BAG.E[:2], "g": row, "b": row})
    made.graph.node[2].domain = "com.microsoft"
    made.graph.input.append(INFO("y", INT64, ["N", BAG.length]))
    assert token_input(Graph(made), "z").name == "x"
    written = Graph(with_float_front(made, "x"))
    assert place_of(written, written.inputs[0], "z").rows == 20
    assert with_float_front(BAG.onnx(), "x") is None
