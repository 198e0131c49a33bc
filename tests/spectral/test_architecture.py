"""The family is read from the topology, whichever exporter wrote the graph."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from onnxfim.errors import OutputError
from onnxfim.graph.graph import Graph
from onnxfim.record.bound import FAMILIES as FAMILIES_KNOWN
from onnxfim.report.vocabulary import FAMILY_WORDS
from onnxfim.spectral.architecture import Architecture, infer_architecture
from tests.support import trained
from tests.support.gradient_nets import Net as GradientNet
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


def _conv(net, x, channels, k, *, stride=1, group=1, of=None):
    w = np.ones((channels, (of or channels) // group, k, k), np.float32)
    return net.op("Conv", x, w, kernel_shape=[k, k], strides=[stride, stride], pads=[k // 2] * 4, group=group)


def _told(net, value):
    got = infer_architecture(Graph(net.model(value)))
    return got.family, " ".join(got.evidence)


@pytest.mark.parametrize("up", ["ConvTranspose", "Resize"])
def test_a_u_net_is_no_densenet(up):
    net = GradientNet((1, 8, 8))
    h = net.op("Relu", _conv(net, "x", 4, 3, of=1))
    low = net.op("Relu", _conv(net, h, 4, 3, stride=2))
    if up == "Resize":
        back = net.op("Resize", low, "", np.array([1, 1, 2, 2], np.float32), mode="nearest")
    else:
        back = net.op("ConvTranspose", low, np.ones((4, 4, 2, 2), np.float32), strides=[2, 2])
    family, evidence = _told(net, _conv(net, net.op("Concat", h, back, axis=1), 3, 1, of=8))
    assert family == "hybrid"
    assert "1 concatenation of a value with what came back from a coarser resolution (U-Net skip)" in evidence


def test_a_half_of_the_channels_that_is_joined_with_what_the_other_made_is_no_growth():
    net = GradientNet((4, 4, 4))
    h = net.op("Relu", _conv(net, "x", 4, 1))
    for _ in range(3):
        left, right = (net.op("Slice", h, [a], [a + 2], [1]) for a in (0, 2))
        right = _conv(net, _conv(net, right, 2, 3, group=2), 2, 1)
        h = net.op("Concat", left, right, axis=1)
        h = net.op("Reshape", net.op("Transpose", net.op("Reshape", h, [0, 2, 2, 4, 4]), perm=[0, 2, 1, 3, 4]), [0, 4, 4, 4])
    family, evidence = _told(net, h)
    assert family == "hybrid"
    assert "3 shuffles of groups of channels (channel shuffle)" in evidence
    assert "3 depthwise-separable pairs (depthwise, then 1 × 1)" in evidence
    assert "concatenations of parallel branches" in evidence


@pytest.mark.parametrize(("steps", "family"), [(2, "resnet"), (5, "recurrent")])
def test_layers_above_each_other_with_the_same_weights_are_recurrent(steps, family):
    net = GradientNet((8,))
    shared = net.weight(np.ones((8, 8), np.float32))
    h = net.op("MatMul", "x", np.ones((8, 8), np.float32))
    for _ in range(steps):
        h = net.op("Tanh", net.op("Add", net.op("MatMul", h, shared), net.op("MatMul", "x", np.ones((8, 8), np.float32))))
    found, evidence = _told(net, h)
    assert found == family
    assert ("5 steps of a loop or of layers that share their weights (recurrent)" in evidence) is (family == "recurrent")


def test_recurrent_operators_are_told():
    net = GradientNet((5, 3))
    time_first = net.op("Transpose", "x", perm=[1, 0, 2])
    h = net.op("LSTM", time_first, np.ones((1, 16, 3), np.float32), np.ones((1, 16, 4), np.float32), hidden_size=4)
    family, evidence = _told(net, net.op("Transpose", net.op("Squeeze", h, [1]), perm=[1, 0, 2]))
    assert family == "recurrent"
    assert "1 recurrent layer: " in evidence


def test_attention_of_quantised_operators_is_seen():
    net = GradientNet((4, 8))
    scale, zero = net.weight(np.array(0.1, np.float32)), net.weight(np.array(128, np.uint8))
    q = net.op("QuantizeLinear", "x", scale, zero)
    weights = [net.weight(np.ones((8, 8), np.uint8)) for _ in range(3)]
    query, key, value = (net.op("QLinearMatMul", q, scale, zero, w, scale, zero, scale, zero) for w in weights)
    scores = net.op("QLinearMatMul", query, scale, zero, net.op("Transpose", key, perm=[0, 2, 1]), scale, zero, scale, zero)
    share = net.op("QLinearSoftmax", scores, scale, zero, scale, zero, domain="com.microsoft", axis=-1, opset=13)
    out = net.op("QLinearMatMul", share, scale, zero, value, scale, zero, scale, zero)
    family, evidence = _told(net, net.op("DequantizeLinear", out, scale, zero))
    assert family == "transformer", evidence
    assert "1 attention block" in evidence


def test_every_class_has_a_word_on_the_page():
    assert set(FAMILY_WORDS) == set(FAMILIES_KNOWN)
