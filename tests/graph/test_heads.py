"""What a file's outputs are among one another, boxes beside scores, and copies that hold one value."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper

from onnxfim.errors import InputError
from onnxfim.graph.before_sigmoid import logits_of
from onnxfim.graph.choosing_heads import choose_heads
from onnxfim.graph.detections import boxes_beside_scores, boxes_by_shape, is_boxes, is_scores, located_scores, suppression
from onnxfim.graph.ends import ending
from onnxfim.graph.graph import Graph
from onnxfim.graph.head_copies import FAR_BELOW, Pen, of_length_1, widened, yes_or_no
from onnxfim.graph.heads import heads, main_head
from onnxfim.graph.load import load_model
from tests.support import headed
from tests.support.headed import H, info, net, weights

RNG = np.random.default_rng(0)


def roles(made):
    return {h.name: (h.role, h.of, h.kind) for h in heads(Graph(made))}


class TestRoles:
    def test_a_mean_of_members_is_a_head_beside_them(self):  # it follows from several, not from one
        nodes = [
            ("MatMul", ["h", "A0"], ["m"], {}), ("MatMul", ["h", "A1"], ["b"], {}), ("Add", ["m", "b"], ["both"], {})
        ]  # fmt: skip
        made = net(nodes, {"A0": weights(H, 3), "A1": weights(H, 3, seed=1)}, [info(n, "N", 3) for n in ("m", "b", "both")])
        assert roles(made) == dict.fromkeys(("m", "b", "both"), ("head", None, "logits")) | dict.fromkeys(
            ("m", "b"), ("features", "both", "logits")
        )

    def test_what_a_later_call_takes_is_a_state(self):
        nodes = [("MatMul", ["h", "U"], ["z"], {}), ("Tanh", ["c"], ["cn"], {}), ("Add", ["state", "cn"], ["stateN"], {})]
        outputs = [info("stateN", 2, "M", H), info("z", "N", 3), info("cn", "N", H)]
        made = net(nodes, {"U": weights(H, 3)}, outputs)
        made.graph.input.extend([info("state", 2, "N", H), info("c", "N", H)])
        assert roles(made) == {"stateN": ("state", "state", None), "z": ("head", None, "logits"), "cn": ("state", "c", None)}
        assert main_head(heads(Graph(made))).name == "z"
        made.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 3
        assert roles(made)["stateN"][0] == "head", "no input takes it"

    def test_boxes_whose_sizes_the_file_leaves_open(self):
        nodes = [("MatMul", ["h", "U"], ["boxes"], {}), ("MatMul", ["h", "U"], ["b"], {}), ("Sigmoid", ["b"], ["scores"], {})]
        made = net(nodes, {"U": weights(H, 3)}, [info("boxes", "N", "M", "four"), info("scores", "N", "M", "K")])
        assert [roles(made)[name][0] for name in ("boxes", "scores")] == ["boxes", "head"]
        plain = net(nodes, {"U": weights(H, 3)}, [info("boxes", "N", "M", 7), info("scores", "N", "M", "K")])
        assert roles(plain)["boxes"][0] == "head", "seven numbers are no box"

    def test_logits_before_their_softmax_through_a_temperature(self):
        nodes = [("MatMul", ["h", "W"], ["z"], {}), ("Div", ["z", "t"], ["s"], {}), ("Softmax", ["s"], ["p"], {"axis": 1})]
        made = net(nodes, {"W": weights(H, 3), "t": np.array(2.0, np.float32)}, [info("p", "N", 3), info("z", "N", 3)])
        assert roles(made) == {"p": ("derived", "z", "probabilities"), "z": ("head", None, "logits")}

    @pytest.mark.parametrize("names", [("aux", "y"), ("out.aux_logits", "y"), ("auxiliary", "y"), ("y", "aux2"), ("y", "z")])
    def test_which_leads(self, names):
        nodes = [("MatMul", ["h", f"W{k}"], [n], {}) for k, n in enumerate(names)]
        made = net(nodes, {f"W{k}": weights(H, 3, seed=k) for k in (0, 1)}, [info(n, "N", 3) for n in names])
        assert main_head(heads(Graph(made))).name == "y"

    def test_one_number_that_may_be_anything_comes_last(self):
        nodes = [("MatMul", ["h", "W0"], ["age"], {}), ("MatMul", ["h", "W1"], ["y"], {})]
        made = net(nodes, {"W0": weights(H, 1), "W1": weights(H, 3)}, [info("age", "N", 1), info("y", "N", 3)])
        assert main_head(heads(Graph(made))).name == "y"

    def test_very_many_outputs_are_for_debugging(self):  # no roles are sought among them: that takes their square
        nodes = [("MatMul", ["h", "W"], ["y"], {}), *(("Identity", ["y"], [f"i{k}"], {}) for k in range(70))]
        made = net(nodes, {"W": weights(H, 3)}, [info("y", "N", 3), *(info(f"i{k}", "N", 3) for k in range(70))])
        assert {h.role for h in heads(Graph(made))} == {"head"}

    def test_columns_of_a_layer_are_heads_of_their_own(self):  # two numbers may be two regressions: no labels, no softmax
        nodes = [("MatMul", ["h", "W"], ["z"], {}), ("Split", ["z"], ["m", "b"], {"axis": 1})]
        made = net(nodes, {"W": weights(H, 2)}, [info("m", "N", 1), info("b", "N", 1)])
        assert [h.name for h in heads(Graph(made))] == ["m", "b"]

    def test_pieces_of_a_sequence(self):
        nodes = [("MatMul", ["h", "W"], ["z"], {}), ("SplitToSequence", ["z", "one"], ["s"], {"axis": 1})]
        sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        made = net(nodes, {"W": weights(H, 3), "one": np.array(1)}, [helper.make_value_info("s", sequence)])
        (head,) = heads(Graph(made))
        assert (head.form, head.value.name, head.axis) == ("pieces", "z", 1)


class TestChoosing:
    def test_labels_are_refused(self, saved, told):
        file = load_model(saved(headed.zipped()))
        with pytest.raises(InputError, match=told("class labels", "Name 'probabilities'")):
            choose_heads(file, "label")

    def test_all(self, saved):
        file = load_model(saved(headed.captcha((3, 4))))
        assert [h.name for h in choose_heads(file, "all")] == ["letter0", "letter1"]
        assert [h.name for h in choose_heads(file, "letter1, letter0, letter1")] == ["letter1", "letter0"]


class TestDetections:
    @pytest.mark.parametrize(
        ("layout", "axis"), [("channels", 1), ("last", 2), ("two scales", 1)]
    )  # fmt: skip
    def test_boxes_beside_scores(self, layout, axis):
        found = boxes_beside_scores(Graph(headed.detector(layout)), "out")
        assert (found.axis, found.scores, [p.scores for p in found.parts]) == (axis, (4, 7), [False, True])

    @pytest.mark.parametrize(
        ("op", "attributes"), [("Sigmoid", {}), ("HardSigmoid", {}), ("Softmax", {"axis": 1})]
    )  # fmt: skip
    def test_whatever_bounds_the_scores(self, op, attributes):
        nodes = [
            ("MatMul", ["h", "W"], ["z"], {}), (op, ["z"], ["p"], attributes), ("Mul", ["p", "p"], ["q"], {}),
            ("Concat", ["z", "q"], ["y"], {"axis": 1}),
        ]  # fmt: skip
        assert boxes_beside_scores(Graph(net(nodes, {"W": weights(H, 3)}, [info("y", "N", 6)])), "y").scores == (3, 6)

    def test_suppression_is_seen_through_what_follows(self):
        graph = Graph(headed.detector("suppressed"))
        assert suppression(graph, "out").op == "NonMaxSuppression"
        assert suppression(graph, "boxes") is None

    @pytest.mark.parametrize("axis", [1, 2])
    @pytest.mark.parametrize("numbers", [False, True])
    def test_by_values(self, axis, numbers):
        z = np.concatenate(
            [RNG.normal(20, 30, (3, 4, 9)), RNG.random((3, 2, 9))] + [RNG.integers(0, 5, (3, 1, 9))] * numbers, axis=1
        )
        assert located_scores(np.moveaxis(z, 1, axis)) == (axis, 4, 6)

    @pytest.mark.parametrize("z", [
        RNG.standard_normal((4, 9, 30)), RNG.random((4, 9, 30)), RNG.normal(20, 30, (8, 12)), RNG.standard_normal((1, 6, 1)),
        np.abs(RNG.standard_normal((4, 9, 30))),
    ])  # fmt: skip
    def test_scores_of_classes_are_none(self, z):
        assert located_scores(z) is None

    def test_by_names_and_shapes(self):
        good = ["boxes", "pred_boxes", "bbox", "detection_boxes", "head/loc", "dets"]
        assert all(is_boxes(n, ("N", 100, 4)) for n in good)
        assert not any(is_boxes(n, ("N", 100, 4)) for n in ("logits", "boxing_scores", "output", "local"))
        assert not is_boxes("boxes", ("N", 10))
        assert all(map(is_scores, ("scores", "pred_logits", "conf", "detection_scores", "class_prob")))
        assert boxes_by_shape({"a": (2, 16, 4), "b": (2, 16, 3), "c": (2, 3)}) == ["a"]
        assert boxes_by_shape({"a": (2, 16, 4), "b": (2, 3, 16)}) == ["a"]
        assert boxes_by_shape({"a": ("N", "T", 4), "b": ("N", "T", 3)}) == []  # tags of words
        assert boxes_by_shape({"a": (2, 16, 4), "b": (2, 16, 4)}) == boxes_by_shape({"a": (2, 16, 4), "b": (2, 8, 3)}) == []


class TestLogitsOfScores:
    @pytest.mark.parametrize("layout", ["channels", "two scales", "decoded", "last"])
    @pytest.mark.parametrize(("start", "stop"), [(4, 7), (4, None), (5, 6)])
    def test_their_sigmoid_is_what_the_output_holds(self, layout, start, stop):  # float32
        made = headed.detector(layout)
        axis = 2 if layout in ("last", "decoded") else 1
        pen = Pen(made)
        value = logits_of(pen, Graph(made), "out", axis, start, stop)
        z, p = run(pen.alone(value, TensorProto.FLOAT), headed.X), run(made, headed.X)
        assert_allclose(1 / (1 + np.exp(-z)), np.take(p, range(p.shape[axis])[start:stop], axis), rtol=1e-5)

    def test_boxes_have_none(self):
        made = headed.detector("decoded")
        assert logits_of(Pen(made), Graph(made), "out", 2, 0, 7) is None
        assert logits_of(Pen(made), Graph(made), "out", 2, 3, 5) is None


class TestEnds:
    @pytest.mark.parametrize("form", ["torch", "keras", "lp"])
    def test_a_division_by_the_length(self, form):
        assert ending(Graph(headed.embedder(form)), "out").normalised

    @pytest.mark.parametrize("nodes", [
        [("ReduceL2", ["z"], ["n"], {"axes": [1]}), ("Div", ["h", "n"], ["y"], {})],
        [("ReduceL1", ["z"], ["n"], {"axes": [1]}), ("Div", ["z", "n"], ["y"], {})],
        [("ReduceL2", ["z"], ["n"], {"axes": [1]}), ("Mul", ["z", "n"], ["y"], {})],
        [("LpNormalization", ["z"], ["y"], {"p": 1})],
    ])  # fmt: skip
    def test_another_division_is_none(self, nodes):
        made = net([("MatMul", ["h", "W"], ["z"], {}), *nodes], {"W": weights(H, H)}, [info("y", "N", H)])
        assert ending(Graph(made), "y").normalised is None


def run(model, z):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": z})[0]


def identity(opset, *shape, kind=TensorProto.FLOAT):
    value = helper.make_tensor_value_info("x", kind, ["N", *shape])
    other = helper.make_tensor_value_info("y", kind, ["N", *shape])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 7
    return made


class TestCopies:
    @pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 18])
    def test_a_cut_a_length_and_further_classes(self, opset):  # float32
        z = RNG.standard_normal((3, 4, 2)).astype(np.float32)
        made = identity(opset, 4, 2)
        pen = Pen(made)
        assert_allclose(run(pen.alone(pen.cut("y", 1, 1, 3), TensorProto.FLOAT), z), z[:, 1:3])
        pen = Pen(made)
        unit = run(pen.alone(of_length_1(pen, "y", "float32", 1), TensorProto.FLOAT), z)
        assert_allclose(unit, z / np.linalg.norm(z, axis=1, keepdims=True), rtol=1e-6)
        pen = Pen(made)
        wide = run(pen.alone(widened(pen, "y", 4, 6, "float32"), TensorProto.FLOAT), z)
        assert_allclose(wide[:, :4], z)
        assert_allclose(wide[:, 4:], np.repeat(z.mean(axis=1, keepdims=True) - FAR_BELOW, 2, axis=1), rtol=1e-6)

    def test_an_embedding_of_nothing_stays(self):
        pen = Pen(identity(17, 4))
        assert not run(pen.alone(of_length_1(pen, "y", "float32", 1), TensorProto.FLOAT), np.zeros((2, 4), np.float32)).any()

    def test_yes_or_no(self):
        pen, z = Pen(identity(17, 3)), RNG.standard_normal((2, 3)).astype(np.float32)
        both = run(pen.alone(yes_or_no(pen, "y", "float32"), TensorProto.FLOAT), z)
        assert_allclose(both, np.stack([0 * z, z], axis=1))

    def test_it_computes_nothing_else(self):
        made = headed.captcha((3, 4))
        pen = Pen(made)
        copy = pen.alone(pen.reshaped("letter0", 0, 3, 1), TensorProto.FLOAT)
        assert [n.op_type for n in copy.graph.node] == ["MatMul", "Tanh", "MatMul", "Reshape"]
        assert made == headed.captcha((3, 4)), "the model is not changed"
