"""What is bounded is the prepared graph: endings, functions, old operator sets, hostile files."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxfim.auditing.run import audit
from onnxfim.graph.graph import Graph
from onnxfim.graph.load import load_model
from onnxfim.spectral import spectral_bound
from onnxfim.spectral.architecture import infer_architecture
from onnxfim.spectral.reading import read_graph
from tests.support import models
from tests.support.models import Linear

LINEAR = Linear.draw(10, 6)
info = helper.make_tensor_value_info
make = helper.make_node


def network(nodes, weights, *, functions=(), opset=17, shape=("N", 4), output="y"):
    tensors = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", [info("x", 1, shape)], [info(output, 1, None)], tensors)
    domains = {n.domain for n in [*nodes, *(n for f in functions for n in f.node)]} - {""}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in sorted(domains))]
    return helper.make_model(graph, opset_imports=imports, ir_version=9, functions=list(functions))


# endings


@pytest.mark.parametrize("end", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_the_bound_is_that_of_the_value_before_the_end(end):
    bound = spectral_bound(Graph(LINEAR.onnx(end=end)))
    assert bound.log10_lipschitz == spectral_bound(Graph(LINEAR.onnx())).log10_lipschitz
    assert "The logits are 'logits'" in " ".join(bound.assumptions)


@pytest.mark.parametrize("end", [None, "Softmax", "LogSoftmax"])
def test_audit_and_bounds_give_one_bound(saved, cpu, end):
    path = saved(LINEAR.onnx(end=end))
    file = load_model(path)
    alone = read_graph(file.graph).bound
    audited = audit(path, LINEAR.samples(4), settings=cpu()).bound
    assert audited.log10_fisher == alone.log10_fisher


def test_an_output_read_as_it_is_keeps_its_last_activation():
    """A regression's slopes are those of the output itself: √K times those before a LogSoftmax."""
    graph = Graph(LINEAR.onnx(end="LogSoftmax"))
    before, whole = spectral_bound(graph), spectral_bound(graph, logits=False)
    assert whole.log10_lipschitz == pytest.approx(before.log10_lipschitz + np.log10(np.sqrt(10)), abs=1e-6)


# functions


def dense(name="Dense", *, opset=17, activation="Relu"):
    nodes = [make("MatMul", ["t", "w"], ["m"]), make(activation, ["m"], ["r"])]
    return helper.make_function("my", name, ["t", "w"], ["r"], nodes, [helper.make_opsetid("", opset)])


@pytest.mark.parametrize("opset", [12, 17, 18])
def test_local_functions_are_seen_through(opset):
    rng = np.random.default_rng(0)
    weights = {"a": rng.standard_normal((4, 5)), "b": rng.standard_normal((5, 3))}
    calls = [make("Dense", ["x", "a"], ["h"], domain="my", name="first"), make("MatMul", ["h", "b"], ["y"], name="last")]
    plain = [make("MatMul", ["x", "a"], ["m"]), make("Relu", ["m"], ["h"]), make("MatMul", ["h", "b"], ["y"])]
    graph = Graph(network(calls, weights, functions=[dense(opset=opset)]))
    bound = spectral_bound(graph)
    assert bound.log10_lipschitz == spectral_bound(Graph(network(plain, weights))).log10_lipschitz
    assert [f.node for f in bound.factors] == ["first/MatMul", "last"]
    found = infer_architecture(graph)
    assert found.family == "mlp"
    assert found.evidence[0] == "2 dense layers: 'first/MatMul' … 'last'."


def test_a_softmax_inside_a_function_is_the_end():
    W = np.random.default_rng(0).standard_normal((4, 3))
    ended = network([make("Dense", ["x", "a"], ["y"], domain="my")], {"a": W}, functions=[dense(activation="Softmax")])
    assert 10 ** spectral_bound(Graph(ended)).log10_lipschitz == pytest.approx(np.linalg.norm(W, 2), rel=1e-6)


def test_functions_without_end_are_refused_and_the_rest_is_still_read():
    again = helper.make_function(
        "my", "Again", ["t"], ["r"], [make("Again", ["t"], ["r"], domain="my")], [helper.make_opsetid("my", 1)]
    )
    nodes = [make("Again", ["x"], ["h"], domain="my", name="call"), make("MatMul", ["h", "a"], ["y"], name="layer")]
    graph = Graph(network(nodes, {"a": np.eye(4)}, functions=[again]))
    bound = spectral_bound(graph)
    assert not bound.available
    assert bound.reason.startswith("function 'my.Again': calls itself")
    assert infer_architecture(graph).family == "mlp"


def test_functions_that_multiply_are_refused(monkeypatch):
    monkeypatch.setattr("onnxfim.graph.expand._MOST", 1000)
    ops = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    made = [helper.make_function("my", "F0", ["t"], ["r"], [make("Relu", ["t"], ["r"])], ops)]
    for k in range(1, 20):
        twice = [make(f"F{k - 1}", ["t"], ["s"], domain="my"), make(f"F{k - 1}", ["s"], ["r"], domain="my")]
        made.append(helper.make_function("my", f"F{k}", ["t"], ["r"], twice, ops))
    bound = spectral_bound(Graph(network([make("F19", ["x"], ["y"], domain="my", name="bomb")], {}, functions=made)))
    assert not bound.available
    assert "functions expand to over 1,000 nodes" in bound.reason
    assert "bomb" in bound.reason


# operator sets and unknown forms


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18])
def test_operator_sets_agree(opset):
    W = np.random.default_rng(0).standard_normal((3, 5))
    sums = (
        make("ReduceSum", ["x"], ["s"], axes=[2], keepdims=0) if opset < 13 else make("ReduceSum", ["x", "axes"], ["s"], keepdims=0)
    )
    model = network(
        [sums, make("MatMul", ["s", "W"], ["z"]), make("Softmax", ["z"], ["y"], axis=1)], {"W": W}, opset=opset, shape=("N", 3, 4)
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "axes"))
    bound = spectral_bound(Graph(model))
    assert 10**bound.log10_lipschitz == pytest.approx(2 * np.linalg.norm(W, 2), rel=1e-6)
    assert "The logits are 'z'" in " ".join(bound.assumptions)


def test_a_set_before_7_is_refused_and_the_family_is_still_read():
    graph = Graph(network([make("MatMul", ["x", "W"], ["y"])], {"W": np.eye(4)}, opset=6))
    bound = spectral_bound(graph)
    assert not bound.available
    assert bound.reason == "the model uses operator set 6; expected at least 7. Re-export it with a newer one."
    assert infer_architecture(graph).family == "mlp"


def test_a_fused_activation_without_a_rule_is_named_as_in_the_file():
    nodes = [make("FusedGemm", ["x", "W"], ["y"], domain="com.microsoft", name="fused", activation="Strange")]
    bound = spectral_bound(Graph(network(nodes, {"W": np.eye(4)})))
    assert not bound.available
    assert bound.reason == "node 'fused': FusedGemm cannot be written out: its activation 'Strange' has no rule."


def test_open_sizes_stay_open():
    nodes = [make("Conv", ["x", "W"], ["c"]), make("GlobalAveragePool", ["c"], ["y"])]
    graph = Graph(network(nodes, {"W": np.ones((2, 3, 1, 1))}, shape=("N", 3, "H", "W")))
    assert spectral_bound(graph).log10_lipschitz == pytest.approx(np.log10(np.sqrt(6)), abs=1e-6)
    assert infer_architecture(graph).family == "vgg"


def test_sparse_weights_have_no_bound():
    model = network([make("MatMul", ["x", "W"], ["y"], name="n")], {})
    values, where = numpy_helper.from_array(np.ones(1, np.float32), "W"), numpy_helper.from_array(np.zeros(1, np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [4, 4]))
    bound = spectral_bound(Graph(model))
    assert not bound.available
    assert "'n'" in bound.reason


def test_weights_outside_the_file_are_read(tmp_path):
    file = load_model(models.external(LINEAR.W, LINEAR.b, tmp_path))
    assert 10 ** spectral_bound(file.graph).log10_lipschitz == pytest.approx(np.linalg.norm(LINEAR.W, 2), rel=1e-6)


@pytest.mark.parametrize(
    "node",
    [
        make("Pad", ["x"], ["y"]),
        make("TopK", ["x"], ["y"]),
        make("Split", ["x"], ["y"], split="wrong"),
        make("FusedMatMul", ["x"], ["y"], domain="com.microsoft"),
        make("GroupNormalization", ["x"], ["y"]),
        make("Softmax", ["x"], ["y"], axis="one"),
        make("AveragePool", ["x"], ["y"], ceil_mode=1),
        make("Constant", [], ["y"]),
        make("Shape", [], ["y"]),
        make("Slice", ["x"], ["y"], starts=[0]),
        make("BatchNormalization", ["x"], ["y"], spatial=0),
    ],
    ids=lambda n: n.op_type,
)
@pytest.mark.parametrize("opset", [7, 12, 18])
def test_malformed_nodes_end_in_a_reason(node, opset):
    node.name = "bad"
    bound = spectral_bound(Graph(network([node, make("Add", ["x", "y"], ["z"])], {}, opset=opset, output="z")))
    assert bound.available or "bad" in bound.reason
    if node.op_type in ("TopK", "FusedMatMul", "GroupNormalization", "BatchNormalization", "AveragePool"):
        assert not bound.available


class TestClassicalModels:
    W = np.random.default_rng(5).standard_normal((3, 4)).astype(np.float32)

    def bound(self, *nodes):
        return spectral_bound(Graph(network(list(nodes), {}, output="y")), output_name="y")

    def classifier(self, x, y):
        given = {"coefficients": self.W.ravel().tolist(), "intercepts": [0.0] * 3, "classlabels_ints": [0, 1, 2]}
        return make("LinearClassifier", [x], ["l", y], domain="ai.onnx.ml", post_transform="SOFTMAX", **given)

    def test_the_scores_before_a_softmax_and_its_normaliser_are_bounded(self):
        """As for any softmax: the largest singular value of the weights."""
        found = self.bound(self.classifier("x", "p"), make("Normalizer", ["p"], ["y"], domain="ai.onnx.ml", norm="L1"))
        assert found.available
        assert np.isclose(10**found.log10_lipschitz, np.linalg.norm(self.W.astype(float), 2), rtol=1e-6)

    @pytest.mark.parametrize("norm", ["L1", "L2", "MAX"])
    def test_rows_that_may_be_zero_have_no_bound(self, norm):
        found = self.bound(make("Normalizer", ["x"], ["n"], domain="ai.onnx.ml", norm=norm), self.classifier("n", "y"))
        assert not found.available
        assert "divides by a norm that may be zero" in found.reason

    def test_a_number_that_is_replaced_has_no_bound(self):
        fill = make("Imputer", ["x"], ["f"], domain="ai.onnx.ml", imputed_value_floats=[1.0], replaced_value_float=-1.0)
        found = self.bound(fill, self.classifier("f", "y"))
        assert not found.available
        assert "replaces one number by another" in found.reason
