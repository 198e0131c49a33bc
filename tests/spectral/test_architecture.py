"""The family is read from the topology, whichever exporter wrote the graph."""

from __future__ import annotations

import json

import onnx
import pytest

from onnxfim.errors import OutputError
from onnxfim.graph.graph import Graph
from onnxfim.spectral.architecture import Architecture, infer_architecture
from tests.support import trained
from tests.support.nets import FAMILIES, Net, bert, resnet, vit


@pytest.mark.parametrize("folded", [False, True], ids=["bn", "folded"])
@pytest.mark.parametrize("manner", ["dynamo", "torchscript", "tf", "ort"])
@pytest.mark.parametrize("make", FAMILIES, ids=lambda m: m.__name__)
@pytest.mark.slow
def test_family_of_known_networks(make, manner, folded):
    model = make(Net(manner, folded=folded))
    got = infer_architecture(Graph(model))
    assert got.family == FAMILIES[make], got.evidence


def test_evidence_counts_blocks_heads_and_skips():
    got = infer_architecture(Graph(vit(Net(), depth=5)))
    text = " ".join(got.evidence)
    assert "5 attention blocks: " in text
    assert "heads per block: 3." in text
    assert "10 sums of a value" in text
    fused = infer_architecture(Graph(bert(Net("ort"))))
    assert "3 attention blocks: " in " ".join(fused.evidence)
    net = infer_architecture(Graph(resnet(Net())))
    assert "5 sums of a value" in " ".join(net.evidence)
    assert "3 sums of two branches" in " ".join(net.evidence)


def test_quantise_nodes_between_layers_change_nothing():
    model = resnet(Net(folded=True))
    nodes = []
    for k, node in enumerate(model.graph.node):
        nodes.append(node)
        if node.op_type in ("Conv", "Relu", "Add"):
            out = node.output[0]
            node.output[0] = f"{out}_f"
            nodes.append(onnx.helper.make_node("QuantizeLinear", [f"{out}_f", "s"], [f"{out}_q{k}"]))
            nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{out}_q{k}", "s"], [out]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, [], [0.1]))
    assert infer_architecture(Graph(model)).family == "resnet"


def test_names_play_no_part():
    model = resnet(Net())
    for k, node in enumerate(model.graph.node):
        node.name = f"vgg_attention_{k}"
    assert infer_architecture(Graph(model)).family == "resnet"


def test_a_graph_without_layers_is_unknown():
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["N", 3])], [onnx.helper.make_tensor_value_info("y", 1, ["N", 3])],
    )  # fmt: skip
    got = infer_architecture(Graph(onnx.helper.make_model(graph)))
    assert got == Architecture("unknown", ("No convolution, dense layer or attention was found between input and output.",))


def test_json_round_trip():
    got = infer_architecture(Graph(vit(Net(), depth=1)))
    assert Architecture.from_json(json.loads(json.dumps(got.to_json()))) == got
    with pytest.raises(OutputError, match="a family and sentences were expected"):
        Architecture.from_json({"family": "alexnet", "evidence": []})


@pytest.mark.parametrize("name", trained.each(lambda m: True))
def test_family_of_trained_models(name):
    found = trained.ALL[name]
    assert infer_architecture(Graph(onnx.load(found.path))).family == found.family
