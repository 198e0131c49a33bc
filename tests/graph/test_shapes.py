"""The walk tells the shapes that the runtime makes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxfim.graph.flow import flow
from onnxfim.graph.graph import Graph
from onnxfim.graph.prepare import prepare
from tests.support import models, nets
from tests.support.nets import Net
from tests.support.places import MODELS, SAMPLES


def runtime_shapes(model):
    """Shape of every inner value that ONNX Runtime makes of one sample."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    there = {o.name for o in copy.graph.output}
    names = [o for n in model.graph.node for o in n.output if o]
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in there)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    shape = [d if isinstance(d, int) else 1 if i == 0 else 32 for i, d in enumerate(given.shape)]
    dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}[given.type]
    found = session.run(names, {given.name: np.ones(shape, dtype)})
    return {n: np.shape(v) for n, v in zip(names, found, strict=True)}


def check(model):
    """The shapes at one sample are the runtime's, of every value that the file names; a size that the file leaves open stays so."""
    want = runtime_shapes(model)
    graph = Graph(model)
    got = flow(graph).shapes
    if all(isinstance(d, int) for d in graph.inputs[0].shape[1:]):
        assert {n: got.get(n) for n in want} == want
    for name, shape in want.items():
        assert [b if a is None else a for a, b in zip(got[name], shape, strict=True)] == list(shape), name


def pool(rng, op):
    """A pool of a random geometry that rounds its size up."""
    rank = int(rng.integers(1, 3))
    k, s = rng.integers(1, 5, rank).tolist(), rng.integers(1, 5, rank).tolist()
    pads = [int(rng.integers(0, v)) for v in k * 2]
    attributes = {"kernel_shape": k, "strides": s, "pads": pads, "ceil_mode": 1}
    if op == "AveragePool":
        attributes["count_include_pad"] = int(rng.integers(0, 2))
    elif rng.random() < 0.4:
        attributes["dilations"] = rng.integers(1, 3, rank).tolist()
    size = [int(v) + 8 for v in rng.integers(0, 6, rank)]
    return models.model([(op, ["x"], ["z"], attributes)], {}, shape=(2, *size), out=(2, *[None] * rank))


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_that_round_their_size_up(op, seed):
    model = pool(np.random.default_rng([seed, len(op)]), op)
    want = runtime_shapes(model)["z"]
    assert flow(Graph(model)).shape("z") == want
    trace = prepare(model, input_name="x", output_name="z").trace
    assert trace.shapes["z"][1:] == want[1:]


@pytest.mark.parametrize("manner", ["dynamo", "torchscript", "tf", "ort"])
@pytest.mark.parametrize("make", nets.FAMILIES, ids=lambda m: m.__name__)
@pytest.mark.slow
def test_networks_in_the_manner_of_exporters(make, manner):
    check(make(Net(manner)))


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.onnx")), ids=lambda p: p.stem)
def test_sample_models(path):
    check(onnx.load(path))


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")) or [None], ids=lambda p: p.stem if p else "none")
def test_trained_models(path):
    if path is None:
        pytest.skip("the folder of trained models is absent")
    check(onnx.load(path))
