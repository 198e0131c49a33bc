"""Ties are found where they are kinks of the function, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.gradients.kinks import KinkFinder
from tests.support.gradient_nets import Net, session

RNG = np.random.default_rng(0)


def shares(net, output, X, *, move=1e-3):
    finder = KinkFinder(net.model(output), input_name="x", output_name=output)
    run = session(finder.model)
    outputs = [o.name for o in finder.model.graph.output]
    beside = X + np.float32(move) * np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)
    found = finder.shares(run.run(outputs, {"x": X}), lambda: run.run(outputs, {"x": beside}))
    return {n.op: found[k] for k, n in enumerate(finder.nodes)}


def logits(net, h, size):
    return net.op("Gemm", net.op("Flatten", h), RNG.normal(0, 0.3, (size, 3)))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "points"),
    [
        ("Relu", (), {}, [0]),
        ("Abs", (), {}, [0]),
        ("LeakyRelu", (), {}, [0]),
        ("Elu", (), {"alpha": 0.5}, [0]),
        ("Selu", (), {}, [0]),
        ("ThresholdedRelu", (), {"alpha": 0.75}, [0.75]),
        ("Clip", (np.float32(-1), np.float32(0.5)), {}, [-1, 0.5]),
        ("HardSwish", (), {}, [-3, 3]),
        ("HardSigmoid", (), {"alpha": 0.25, "beta": 0.5}, [-2, 2]),
        ("Max", (np.float32(0.25),), {}, [0.25]),
        ("Min", (np.float32(0.25),), {}, [0.25]),
    ],
)
def test_elements_at_the_kink_are_counted(op, inputs, attributes, points):
    net = Net((8,))
    h = net.op(op, "x", *inputs, **attributes)
    X = np.full((2, 8), 0.1, np.float32)
    X[1, :3] = points[0]
    X[1, 3] = points[-1]
    assert_allclose(shares(net, logits(net, h, 8), X)[op], [0, 0.5], atol=1e-7)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "tied"),
    [
        ("Relu", (), {}, 0.0),
        ("Clip", (np.float32(-9), np.float32(4)), {}, 4.0),
        ("Max", (np.float32(0.25),), {}, 0.25),
        ("MaxPool", (), {"kernel_shape": [1, 8]}, 20.0),
        ("ReduceMax", (np.int64([3]),), {"keepdims": 0}, 20.0),
    ],
)
def test_points_beside_are_asked_for_only_where_something_may_be_tied(op, inputs, attributes, tied):
    net = Net((1, 2, 8))
    finder = KinkFinder(net.model(net.op(op, "x", *inputs, **attributes)), input_name="x", output_name="v0_0")
    model, outputs = session(finder.model), [o.name for o in finder.model.graph.output]
    asked = []

    def there():
        asked.append(1)
        return model.run(outputs, {"x": X + np.float32(0.01) * RNG.random(X.shape).astype(np.float32)})

    X = np.arange(1.5, 17, dtype=np.float32).reshape(1, 1, 2, 8)
    assert_allclose(finder.shares(model.run(outputs, {"x": X}), there), 0)
    assert not asked
    X[0, 0, 0, :2] = tied
    assert finder.shares(model.run(outputs, {"x": X}), there).min() > 0
    assert asked == [1]


def test_rows_of_one_sample_are_taken_together():
    net = Net((8,))
    h = net.op("Relu", net.op("Reshape", "x", np.int64([-1, 4])))
    X = np.full((3, 8), 0.1, np.float32)
    X[1, :2], X[2] = 0, 0
    assert_allclose(shares(net, logits(net, net.op("Reshape", h, np.int64([-1, 8])), 8), X)["Relu"], [0, 0.25, 1], atol=1e-7)


def test_values_whose_rows_are_no_samples_are_left_out():
    net = Net((4,))
    wide = net.op("Relu", net.op("Add", "x", np.zeros((3, 1, 4), np.float32)))  # (3, N, 4)
    h = net.op("Add", net.op("Relu", "x"), net.op("ReduceSum", wide, np.int64([0]), keepdims=0))
    X = np.zeros((2, 4), np.float32)
    assert_allclose(shares(net, logits(net, h, 4), X)["Relu"], [1, 1])


def test_a_smooth_elu_has_no_kink():
    net = Net((8,))
    assert shares(net, logits(net, net.op("Elu", "x"), 8), np.zeros((2, 8), np.float32))["Elu"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [2, 2], "dilations": [2, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    ],
    ids=str,
)
def test_windows_with_two_maxima(geometry):
    """Against a count of the windows by another way: the position of the first maximum, and of the last one."""
    net = Net((2, 6, 6))
    h = net.op("MaxPool", "x", **geometry)
    X = RNG.integers(0, 3, (4, 2, 6, 6)).astype(np.float32)
    probe = Net((2, 6, 6))
    _, first = probe.ops("MaxPool", "x", outputs=2, **geometry)
    model = probe.model("v0_0")
    del model.graph.output[:]
    model.graph.output.add().name = first
    run = session(model)
    index = [run.run(None, {"x": (X + 1e-3 * t).astype(np.float32)})[0] for t in np.random.default_rng(3).random((40, *X.shape))]
    tied = (np.array(index) != index[0]).any(axis=0).reshape(4, -1).mean(axis=1)  # the winner is chance
    model = net.model(h)
    size = int(np.prod(session(model).run(None, {"x": X})[0].shape[1:]))
    assert_allclose(shares(net, logits(net, h, size), X)["MaxPool"], tied, atol=0.03)  # 40 draws miss few ties


def test_equal_zeros_that_stay_equal_are_no_kink():
    net = Net((1, 6, 6))
    h = net.op("Relu", net.op("Sub", "x", np.float32(1)))  # far below zero everywhere
    h = net.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    found = shares(net, logits(net, h, 9), np.zeros((2, 1, 6, 6), np.float32))
    assert found["MaxPool"].tolist() == [0, 0]
    assert found["Relu"].tolist() == [0, 0]


def test_a_reduced_maximum():
    net = Net((5, 4))
    h = net.op("ReduceMax", "x", np.array([1]), keepdims=0)
    X = RNG.standard_normal((3, 5, 4)).astype(np.float32)
    X[1, :, 0] = 7
    assert_allclose(shares(net, logits(net, h, 4), X)["ReduceMax"], [0, 0.25, 0])


@pytest.mark.parametrize(("k", "tied"), [(3, [0, 2 / 3, 1 / 3]), (2, [0, 1, 1 / 2])])
def test_equal_values_in_order(k, tied):
    """Two of the first in order, and the last chosen against what is left out."""
    net = Net((5,))
    h = net.ops("TopK", "x", np.array([k]), outputs=2)[0]
    X = np.array([[5, 4, 3, 2, 1], [5, 5, 5, 2, 1], [5, 4, 4, 2, 1]], np.float32)
    assert_allclose(shares(net, logits(net, h, k), X)["TopK"], tied)


@pytest.mark.parametrize("align", [0, 1])
def test_a_grid_on_the_centres_of_cells(align):
    net = Net((2, 2, 2))
    image = net.op(
        "Expand",
        RNG.standard_normal((1, 1, 4, 4)).astype(np.float32),
        net.op("Concat", net.op("Shape", "x", end=1), np.int64([1, 4, 4]), axis=0),
    )
    h = net.op("GridSample", image, "x", align_corners=align)
    X = RNG.uniform(0.05, 0.2, (2, 2, 2, 2)).astype(np.float32)  # between two cells
    X[1, 0, 0, 0] = 1 / 3 if align else 0.25
    assert_allclose(shares(net, logits(net, h, 4), X)["GridSample"], [0, 1 / 8])


@pytest.mark.parametrize("reduction", ["max", "min"])
@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_values_placed_on_one_another(op, reduction):
    net = Net((4,))
    rows, news = net.op("Shape", "x", end=1), net.op("Mul", "x", np.float32(2))
    index = net.op("Expand", np.int64([[0, 0, 1, 2]]), net.op("Concat", rows, np.int64([4]), axis=0))
    if op == "ScatterElements":
        h = net.op(op, "x", index, news, axis=1, reduction=reduction)
    else:
        number = net.op("Range", np.int64(0), net.op("Squeeze", rows), np.int64(1))
        number = net.op("Mul", net.op("Unsqueeze", number, np.int64([1])), np.ones((1, 4), np.int64))
        places = net.op("Concat", *(net.op("Unsqueeze", t, np.int64([2])) for t in (number, index)), axis=2)
        h = net.op(op, "x", places, news, reduction=reduction)
    X = np.array([[1, 1.5, 2, 7], [1, 1.5, 0.75, 7], [3, 3, 9, 1]], np.float32)
    X[1, 1] = X[1, 2] * 2  # what goes there against what is there
    found = shares(net, logits(net, h, 4), X if reduction == "max" else -X)[op]
    assert_allclose(found, [0, 1 / 4, 1 / 4])  # the third row: two at one place


def test_placing_without_a_largest_has_no_kink():
    net = Net((4,))
    index = net.op("Expand", np.int64([[0, 0]]), net.op("Concat", net.op("Shape", "x", end=1), np.int64([2]), axis=0))
    h = net.op(
        "ScatterElements", "x", index, net.op("Slice", "x", np.int64([0]), np.int64([2]), np.int64([1])), axis=1, reduction="add"
    )
    assert not shares(net, logits(net, h, 4), np.ones((2, 4), np.float32))["ScatterElements"].any()


def test_files_that_round_are_not_looked_at():
    net = Net((4,))
    h = net.op("DequantizeLinear", net.op("QuantizeLinear", "x", np.float32(0.1), np.uint8(3)), np.float32(0.1), np.uint8(3))
    output = logits(net, net.op("Relu", h), 4)
    assert KinkFinder(net.model(output), input_name="x", output_name=output).rounds
