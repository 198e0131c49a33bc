"""Files of a fixed batch whose indices, grids and updates are constants of that batch: each row gets its own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.errors import OnnxFimError
from onnxfim.gradients import derivative_graph
from tests.support.gradient_nets import Net, check_laws, run

RNG = np.random.default_rng(0)


def rows(value: np.ndarray, batch: int) -> np.ndarray:
    """The same for each row of the batch."""
    return np.repeat(np.asarray(value)[None], batch, axis=0)


def numbered(places: np.ndarray, batch: int) -> np.ndarray:
    """Positions (batch, places, 1 + axes) with the number of the row in front."""
    number = np.broadcast_to(np.arange(batch)[:, None, None], (batch, len(places), 1))
    return np.concatenate([number, rows(places, batch)], axis=2)


def placed(net: Net, batch: int) -> str:
    index, zeros = rows(RNG.integers(0, 4, (5, 4)), batch), np.zeros((batch, 5, 4), np.float32)
    return net.op("ScatterElements", zeros, index, net.op("Tanh", "x"), axis=2, reduction="add")


def placed_rows(net: Net, batch: int) -> str:
    places = numbered(np.array([[0], [3]]), batch)
    return net.op("ScatterND", "x", places, rows(RNG.standard_normal((2, 4)).astype(np.float32), batch))


def gathered(net: Net, batch: int) -> str:
    return net.op("GatherElements", net.op("Tanh", "x"), rows(RNG.integers(0, 5, (2, 4)), batch), axis=1)


def gathered_rows(net: Net, batch: int) -> str:
    return net.op("GatherND", net.op("Tanh", "x"), numbered(RNG.integers(0, 4, (3, 2)), batch))


def gathered_rows_of_batches(net: Net, batch: int) -> str:
    return net.op("GatherND", net.op("Tanh", "x"), rows(RNG.integers(0, 5, (3, 1)), batch), batch_dims=1)


def sampled(net: Net, batch: int) -> str:
    t = net.op("Reshape", "x", np.array([batch, 1, 5, 4]))
    grid = rows(RNG.uniform(-0.9, 0.9, (2, 3, 2)).astype(np.float32), batch)
    return net.op("Reshape", net.op("GridSample", t, grid), np.array([batch, 6]))


NETS = [placed, placed_rows, gathered, gathered_rows, gathered_rows_of_batches, sampled]


@pytest.mark.parametrize("make", NETS, ids=lambda f: f.__name__)
def test_one_row_stands_for_all(make):
    net = Net((5, 4), batch=1)
    check_laws(net, make(net, 1), np.random.default_rng(1), single=True)


@pytest.mark.parametrize("make", [n for n in NETS if n is not gathered_rows_of_batches], ids=lambda f: f.__name__)
def test_several_equal_rows_stand_for_all(make):
    net = Net((5, 4), batch=2)
    model = net.model(make(net, 2))
    X = np.random.default_rng(1).standard_normal((6, 5, 4)).astype(np.float32)
    graph = derivative_graph(model, input_name="x", output_name=model.graph.output[0].name, kind="jvp")
    z, _ = run(graph, {"x": X, "v": X[None]}, ["z", "w"])
    want = np.concatenate([run(model, {"x": X[i : i + 2]})[0] for i in (0, 2, 4)])
    assert_allclose(z, want.reshape(6, -1), rtol=1e-5, atol=1e-6)  # the same float32 operations


def test_rows_that_differ_are_refused():
    net = Net((5, 4), batch=2)
    index = np.stack([np.zeros((2, 4), np.int64), np.ones((2, 4), np.int64)])
    model = net.model(net.op("GatherElements", net.op("Tanh", "x"), index, axis=1))
    with pytest.raises(OnnxFimError, match="batch"):
        derivative_graph(model, input_name="x", output_name=model.graph.output[0].name, kind="jvp")
