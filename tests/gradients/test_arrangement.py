"""How cotangents are arranged: what is written once for all seeds, side by side, or as one matrix product, and that it is right."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxfim.gradients import derivative_graph
from tests.support.gradient_nets import Net, run

SEEDS = 3


def pulled_back(net, output, x, u):
    """``Jᵀu`` (S, N, *shape) for u (S, N, *out), and how often each operator is in the graph."""
    graph = derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp")
    (g,) = run(graph, {"x": x, "u": u.reshape(*u.shape[:2], -1)}, ["g"])
    return g, Counter(n.op_type for n in graph.graph.node)


def of_linear(net, output, x, u):
    """``Jᵀu`` of a linear function by its definition: the function itself of every unit vector, in float64."""
    units = np.eye(x[0].size, dtype=np.float32).reshape(-1, *x.shape[1:])
    (J,) = run(net.model(output), {"x": units})  # (d, *out)
    return (u.reshape(*u.shape[:2], -1).astype(np.float64) @ J.reshape(len(units), -1).T.astype(np.float64)).reshape(-1, *x.shape)


POOLS = {
    "tiles": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "cells left over": {"kernel_shape": [3, 2], "strides": [3, 2]},
    "gaps between": {"kernel_shape": [1, 2], "strides": [2, 3]},
    "padded": {"kernel_shape": [3, 2], "strides": [3, 2], "pads": [1, 1, 1, 0]},
    "past the end": {"kernel_shape": [3, 3], "strides": [3, 3], "ceil_mode": 1},
    "dilated": {"kernel_shape": [2, 2], "strides": [3, 3], "dilations": [2, 2]},
    "single cells": {"kernel_shape": [1, 1]},
}


@pytest.mark.parametrize("geometry", POOLS.values(), ids=list(POOLS))
def test_pools_without_overlap_hand_each_cotangent_to_the_first_maximum(geometry):
    """Of few different values, so that most windows hold ties; 0 and -1, so that padding would win if it counted."""
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 1, (2, 3, 7, 8)).astype(np.float32)
    net = Net(x.shape[1:])
    output = net.op("MaxPool", "x", **geometry)
    (y,) = run(net.model(output), {"x": x})
    u = rng.standard_normal((SEEDS, *y.shape)).astype(np.float32)
    g, ops = pulled_back(net, output, x, u)
    (k, m), (s, t) = geometry["kernel_shape"], geometry.get("strides", (1, 1))
    (d, e), (top, left) = geometry.get("dilations", (1, 1)), geometry.get("pads", (0, 0))[:2]
    want = np.zeros_like(g)
    for n, c, i, j in np.ndindex(*y.shape):
        cells = [(i * s - top + a * d, j * t - left + b * e) for a in range(k) for b in range(m)]
        inside = [(h, w) for h, w in cells if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]]
        h, w = next((h, w) for h, w in inside if x[n, c, h, w] == y[n, c, i, j])
        want[:, n, c, h, w] = u[:, n, c, i, j]
    assert_array_equal(g, want)  # moved, never computed with
    assert ops["ScatterElements"] == 1


def test_the_place_of_a_maximum_is_looked_up_once_for_all_seeds():
    net = Net((3, 8, 8))
    output = net.op("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])
    graph = derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp")
    scatter = next(n for n in graph.graph.node if n.op_type == "ScatterElements")
    graph.graph.output.add().name = scatter.output[0]
    x, u = np.ones((2, 3, 8, 8), np.float32), np.ones((SEEDS, 2, 3 * 16), np.float32)
    (won,) = run(graph, {"x": x, "u": u}, [scatter.output[0]])
    assert won.shape == (2, 3, 64)  # samples, not seeds times samples


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [3, 2], "pads": [1, 1, 1, 0]},
        {"kernel_shape": [3, 2], "strides": [3, 2], "pads": [1, 1, 1, 0], "count_include_pad": 1},
        {"kernel_shape": [3, 3], "strides": [3, 3], "ceil_mode": 1},
        {"kernel_shape": [1, 1], "strides": [1, 1]},
    ],
)
def test_averages_without_overlap_hand_each_cotangent_to_their_cells(geometry):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3, 7, 8)).astype(np.float32)
    net = Net(x.shape[1:])
    output = net.op("AveragePool", "x", **geometry)
    (y,) = run(net.model(output), {"x": x})
    u = rng.standard_normal((SEEDS, *y.shape)).astype(np.float32)
    g, ops = pulled_back(net, output, x, u)
    assert_allclose(g, of_linear(net, output, x, u), rtol=1e-6)  # one product of float32 a cell
    assert ops["ConvTranspose"] == 0


CUTS = {
    "tiles": [(0, 4), (4, 8), (8, 12)],
    "out of order": [(8, 12), (0, 4), (4, 8)],
    "gaps": [(1, 3), (5, 6), (9, 11)],
    "overlaps": [(0, 6), (4, 12), (6, 8)],
    "the same twice": [(2, 5), (2, 5)],
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=list(CUTS))
@pytest.mark.parametrize("whole", [False, True])
def test_cotangents_of_stretches_are_joined_end_to_end(cuts, whole):
    rng = np.random.default_rng(1)
    net = Net((2, 12))
    parts = [net.op("Slice", "x", np.asarray([a]), np.asarray([b]), np.asarray([2])) for a, b in cuts]
    if whole:
        parts.append("x")
    output = net.op("Concat", *parts, axis=2)
    x = rng.standard_normal((2, 2, 12)).astype(np.float32)
    u = rng.standard_normal((SEEDS, 2, 2 * sum(b - a for a, b in cuts) + 24 * whole)).astype(np.float32)
    g, _ = pulled_back(net, output, x, u)
    assert_allclose(g, of_linear(net, output, x, u), rtol=1e-6, atol=1e-6)  # sums of up to four float32


@pytest.mark.parametrize("cut", ["Gather", "Slice"])
def test_queries_keys_and_values_give_back_one_concatenation(cut):
    """Of one fused projection, as attention takes them: neither padded nor summed."""
    rng = np.random.default_rng(2)
    net = Net((5, 6))
    fused = net.op("MatMul", "x", rng.standard_normal((6, 3 * 6)) / 3)
    if cut == "Gather":
        axes = net.op("Transpose", net.op("Reshape", fused, np.asarray([0, 5, 3, 6])), perm=[2, 0, 1, 3])
        q, k, v = (net.op("Gather", axes, np.asarray(i), axis=0) for i in range(3))
    else:
        q, k, v = (net.op("Slice", fused, np.asarray([a]), np.asarray([a + 6]), np.asarray([2])) for a in (0, 6, 12))
    weights = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    output = net.op("MatMul", weights, v)
    x = rng.standard_normal((2, 5, 6)).astype(np.float32)
    u = rng.standard_normal((SEEDS, 2, 5, 6)).astype(np.float32)
    g, ops = pulled_back(net, output, x, u)
    h = np.float32(1e-2)
    t = rng.standard_normal(x.shape).astype(np.float32)
    ahead, behind = (run(net.model(output), {"x": x + sign * h * t})[0].astype(np.float64) for sign in (1, -1))
    slopes = (u * (ahead - behind) / (2 * h)).sum(axis=(2, 3))
    assert_allclose((g * t).sum(axis=(2, 3)), slopes, rtol=5e-3, atol=5e-3)  # central differences of float32 outputs
    assert ops["Pad"] == 0
    assert ops["Sum"] == 0


WINDOWS = {
    "three taps on two cells": ((2, 2), (3, 3), {"pads": [1, 1, 1, 1]}, True),
    "all of the input": ((3, 4), (3, 4), {}, True),
    "one cell": ((1, 1), (3, 3), {"pads": [1, 1, 1, 1]}, True),
    "one cell, dilated": ((1, 1), (3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}, True),
    "strided": ((2, 2), (3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}, True),
    "strided, two positions": ((2, 1), (4, 1), {"pads": [2, 0, 2, 0], "strides": [2, 1]}, True),
    "taps too few": ((3, 3), (3, 3), {"pads": [1, 1, 1, 1]}, False),
    "taps apart": ((2, 2), (3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}, False),
    "weights would grow": ((5, 5), (9, 9), {"pads": [4, 4, 4, 4]}, False),
    "groups": ((2, 2), (3, 3), {"pads": [1, 1, 1, 1], "group": 2}, False),
}


@pytest.mark.parametrize(("size", "kernel", "geometry", "dense"), WINDOWS.values(), ids=list(WINDOWS))
def test_convolutions_whose_window_reaches_all_are_matrix_products(size, kernel, geometry, dense):
    rng = np.random.default_rng(3)
    net = Net((4, *size))
    output = net.op("Conv", "x", rng.standard_normal((6, 4 // geometry.get("group", 1), *kernel)), **geometry)
    x = rng.standard_normal((2, 4, *size)).astype(np.float32)
    (y,) = run(net.model(output), {"x": x})
    u = rng.standard_normal((SEEDS, *y.shape)).astype(np.float32)
    g, ops = pulled_back(net, output, x, u)
    want = of_linear(net, output, x, u)
    assert_allclose(g, want, rtol=0, atol=1e-6 * np.abs(want).max())  # sums of some hundred float32 products
    assert (ops["MatMul"] == 1) is dense


SMALL = {  # size, pads, channels (in, out), whether minimal filtering saves
    "as large as the input": ((4, 4), [1, 1, 1, 1], (256, 320), True),
    "unequal sides": ((3, 5), [1, 1, 1, 1], (320, 384), True),
    "no pads": ((6, 5), [0, 0, 0, 0], (384, 384), True),
    "unequal pads": ((4, 3), [0, 2, 2, 1], (320, 320), True),
    "few channels": ((4, 4), [1, 1, 1, 1], (64, 320), False),
    "many cells": ((8, 8), [1, 1, 1, 1], (512, 512), False),
}


@pytest.mark.parametrize(("size", "pads", "channels", "minimal"), SMALL.values(), ids=list(SMALL))
def test_convolutions_of_few_cells_and_many_channels_take_fewer_products(size, pads, channels, minimal):
    rng = np.random.default_rng(5)
    c, m = channels
    net = Net((c, *size))
    w = rng.standard_normal((m, c, 3, 3)).astype(np.float32)
    output = net.op("Conv", "x", w, pads=pads)
    x = np.zeros((2, c, *size), np.float32)
    o, p = (d + pads[i] + pads[i + 2] - 2 for i, d in enumerate(size))
    u = rng.standard_normal((SEEDS, 2, m, o, p)).astype(np.float32)
    g, ops = pulled_back(net, output, x, u)
    padded = np.zeros((SEEDS, 2, c, o + 2, p + 2))
    for i, j in np.ndindex(3, 3):  # each tap hands every cotangent to the cell it read
        padded[..., i : i + o, j : j + p] += np.einsum("snmop,mc->sncop", u.astype(np.float64), w[:, :, i, j].astype(np.float64))
    want = padded[..., pads[0] : pads[0] + size[0], pads[1] : pads[1] + size[1]]
    assert_allclose(g, want, rtol=0, atol=2e-6 * np.abs(want).max())  # sums of some thousand float32 products
    assert (ops["MatMul"] > 16) is minimal
    assert (ops["Conv"] == 2) is not minimal
