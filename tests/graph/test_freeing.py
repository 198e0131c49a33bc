"""Copies without the batch that a file was exported for: they do what the file does, for any number of rows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.graph.freeing import batches_named, declared, freed_copies
from onnxfim.graph.graph import Graph
from tests.support.gradient_nets import Net, session

ROWS = 7  # no multiple of a batch but of one


def _rows(rng, batch: int, *shape: int) -> np.ndarray:
    """The same for each sample."""
    return np.repeat(rng.standard_normal((1, *shape)), batch, axis=0)


def added(net: Net, rng, batch: int) -> str:
    t = net.op("Add", "x", _rows(rng, batch, 3, 4))
    return net.op("Mul", net.op("Where", _rows(rng, batch, 1, 4) > 0, t, np.float32(0.5)), _rows(rng, batch, 3, 1))


def heads(net: Net, rng, batch: int) -> str:
    t = net.op("Reshape", "x", np.asarray([batch, 3, 2, 2]))
    t = net.op("Reshape", net.op("Transpose", t, perm=[0, 2, 1, 3]), np.asarray([2 * batch, 3, 2]))
    mask = np.repeat(rng.standard_normal((1, 3, 3)), 2 * batch, axis=0)
    scores = net.op("Softmax", net.op("Add", net.op("MatMul", t, net.op("Transpose", t, perm=[0, 2, 1])), mask), axis=-1)
    t = net.op("Reshape", net.op("MatMul", scores, t), np.asarray([batch, 2, 3, 2]))
    return net.op("Reshape", net.op("Transpose", t, perm=[0, 2, 1, 3]), np.asarray([batch, 12]))


def token(net: Net, rng, batch: int) -> str:
    whole = net.op("Expand", rng.standard_normal((1, 1, 4)), np.asarray([batch, 1, 4]))
    t = net.op("Concat", whole, "x", axis=1)
    return net.op("Expand", net.op("Add", t, _rows(rng, batch, 4, 4)), np.asarray([batch, 4, 4]))


def time_first(net: Net, rng, batch: int) -> str:
    t = net.op("Transpose", "x", perm=[1, 0, 2])
    y = net.ops("LSTM", t, *_recurrent(rng, 4, batch, states=2), outputs=2, hidden_size=5)
    return net.op("Reshape", y[1], np.asarray([batch, 5]))


def gated(net: Net, rng, batch: int) -> str:
    t = net.op("Transpose", "x", perm=[1, 0, 2])
    weights = _recurrent(rng, 3, batch, states=1)
    weights[3] = np.full(batch, 2, np.int32)
    return net.op("Squeeze", net.ops("GRU", t, *weights, outputs=2, hidden_size=5)[1], np.asarray([0]))


def _recurrent(rng, gates: int, batch: int, states: int) -> list[object]:
    forms = [rng.standard_normal((1, gates * 5, n)) / 3 for n in (4, 5)]
    begun = [np.repeat(rng.standard_normal((1, 1, 5)), batch, axis=1) for _ in range(states)]
    return [*forms, rng.standard_normal((1, gates * 10)) / 3, "", *begun]


def resized(net: Net, rng, batch: int) -> str:
    t = net.op("Reshape", "x", np.asarray([batch, 1, 3, 4]))
    t = net.op("Resize", t, "", "", np.asarray([batch, 1, 6, 8]), mode="nearest")
    return net.op("Flatten", t)


def windows(net: Net, rng, batch: int) -> str:
    t = net.op("Reshape", "x", np.asarray([3 * batch, 4]))
    t = net.op("MatMul", t, rng.standard_normal((4, 16)))  # sixteen numbers, as many as the largest batch
    return net.op(
        "ReduceMean", net.op("Reshape", net.op("MatMul", t, rng.standard_normal((16, 3))), np.asarray([batch, 3, 3])), axes=[1]
    )


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("write", [added, heads, token, time_first, gated, resized, windows])
def test_the_corrected_copy_does_what_the_file_does(write, batch):  # float32, rows of other calls
    rng = np.random.default_rng(batch)
    net = Net((3, 4), opset=17, batch=batch)
    made = net.model(write(net, rng, batch))
    before = made.SerializeToString()
    x = rng.standard_normal((ROWS, 3, 4)).astype(np.float32)
    filled = np.resize(x, (-(-ROWS // batch) * batch, 3, 4))
    own = session(made)
    want = np.concatenate([own.run(None, {"x": part})[0] for part in np.split(filled, len(filled) // batch)])[:ROWS]
    *_, free = freed_copies(made, batch, "x", (3, 4))
    assert_allclose(session(free).run(None, {"x": x})[0], want, atol=1e-5)
    assert made.SerializeToString() == before, "the file's own model is not changed"


def test_a_constant_that_differs_between_samples_gives_no_copy():
    rng = np.random.default_rng(0)
    net = Net((4,), opset=17, batch=2)
    made = net.model(net.op("Add", "x", rng.standard_normal((2, 4))))
    assert len(list(freed_copies(made, 2, "x", (4,)))) == 1, "only the one with a Reshape's target freed"


def test_what_a_graph_with_an_open_batch_may_insist_on():
    rng = np.random.default_rng(0)
    net = Net((3, 4), opset=17)
    made = net.model(heads(net, rng, 3))
    assert batches_named(Graph(made), made.graph.output[0].name)[:2] == [1, 3]
    again = declared(made, 3)
    assert again.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
