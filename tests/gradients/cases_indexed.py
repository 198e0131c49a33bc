"""Random graphs for operators that pick and place by index, for steps beside a slope, and for the forms of Dropout."""

from __future__ import annotations

import numpy as np

from tests.gradients.cases import Case, Rng, away, pick
from tests.support.gradient_nets import ROWS, Net, spread

CASES: list[Case] = []


def case(*ops: str, repeats: int = 2):
    def register(make):
        CASES.append(Case(ops, make.__name__, make, repeats))
        return make

    return register


def scaled(net: Net, rng: Rng, name: str = "x") -> str:
    return net.op("Mul", name, rng.uniform(0.5, 1.5, net.shape))


def rows_of(net: Net, value: np.ndarray) -> str:
    """A constant (1, ...) repeated for each row of the batch, as exporters expand what they index with."""
    lead = net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1]))
    return net.op("Expand", value, net.op("Concat", lead, np.asarray(value.shape[1:], np.int64), axis=0))


def numbers(rng: Rng, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Indices of either type."""
    return rng.integers(low, high, shape).astype(pick(rng, [np.int64, np.int32]))


def _net(rng: Rng, shape: tuple[int, ...], reduction: str) -> Net:
    """Where the largest win, values are far apart beside the step."""
    net = Net(shape, opset=int(pick(rng, [18, 21])))
    if reduction in ("max", "min"):
        net.step, net.rtol = 2e-4, 5e-2  # a kink may lie within the step of some element
    if reduction == "mul":
        net.x = spread(rng, ROWS, *shape, low=0.3, high=2.0)
    return net


@case("ScatterElements", repeats=60)
def scattered_elements(rng: Rng) -> tuple[Net, str]:
    """Data, updates or both varying; indices twice at one place, negative, of fewer entries than the data on other axes."""
    reduction = str(pick(rng, ["none", "add", "mul", "max", "min"]))
    net = _net(rng, (5, 4), reduction)
    axis = int(pick(rng, [1, 2, -1, -2]))
    size = [5, 4][(axis % 3) - 1]
    count, other = int(rng.integers(1, size + 1)), int(rng.integers(2, 5))
    dims = (1, count, other) if axis % 3 == 1 else (1, other, count)
    if reduction == "none":  # which of two stays is not defined
        order = np.argsort(rng.random((1, size, other) if axis % 3 == 1 else (1, other, size)), axis=axis)
        index = np.take(order, np.arange(count), axis=axis) - size * int(rng.integers(2))
    else:
        index = rng.integers(-size, size, dims)
    indices = rows_of(net, index.astype(pick(rng, [np.int64, np.int32])))
    news = net.op(
        "Slice", net.op("Mul", "x", rng.uniform(0.5, 1.5, (5, 4))), np.zeros(2, np.int64), np.asarray(dims[1:]), np.asarray([1, 2])
    )
    data = scaled(net, rng)
    which = int(rng.integers(3))
    if which == 0:
        data = rows_of(net, rng.uniform(0.5, 1.5, (1, 5, 4)).astype(np.float32))
        net.may_vanish = reduction in ("max", "min")
    if which == 1:
        news = rows_of(net, rng.uniform(0.5, 1.5, dims).astype(np.float32))
        net.may_vanish = reduction in ("max", "min", "none")  # the constants may take every place
    attributes = {} if reduction == "none" else {"reduction": reduction}
    return net, net.op("ScatterElements", data, indices, news, axis=axis, **attributes)


@case("Scatter", repeats=2)
def scatter_of_old(rng: Rng) -> tuple[Net, str]:
    net = Net((5,), opset=int(pick(rng, [9, 10])), ir_version=4, batch=1)
    net.batch = "N"
    t = net.op("Transpose", net.op("Mul", "x", rng.uniform(0.5, 1.5, 5)), perm=[1, 0])
    wide = net.op("Concat", t, t, axis=0)
    index = net.op("Add", net.op("Mul", net.op("Cast", t, to=7), np.asarray(0)), np.arange(5)[::-1].reshape(5, 1).copy())
    return net, net.op("Transpose", net.op("Scatter", wide, index, net.op("Tanh", t), axis=0), perm=[1, 0])


@case("ScatterND", repeats=60)
def scattered_rows(rng: Rng) -> tuple[Net, str]:
    """Rows of one, two or three indices, the batch's own among them, and values whose batch lies behind the indices."""
    reduction = str(pick(rng, ["none", "add", "mul", "max", "min"]))
    net = _net(rng, (5, 4), reduction)
    unique = reduction == "none"
    data = scaled(net, rng)
    attributes = {} if unique else {"reduction": reduction}
    kind = int(rng.integers(3))
    if kind == 0:  # the batch behind the index
        count = int(rng.integers(1, 5))
        places = rng.permutation(5)[:count] if unique else rng.integers(-5, 5, count)
        turned = net.op("Transpose", data, perm=[1, 0, 2])
        news = net.op(
            "Slice", net.op("Transpose", net.op("Sin", "x"), perm=[1, 0, 2]), np.asarray([0]), np.asarray([count]), np.asarray([0])
        )
        got = net.op("ScatterND", turned, places.reshape(-1, 1).astype(np.int64), news, **attributes)
        return net, net.op("Transpose", got, perm=[1, 0, 2])
    depth = int(rng.integers(1, 3))
    count = int(rng.integers(1, 5))
    if depth == 1:
        places = (rng.permutation(5)[:count] if unique else rng.integers(-5, 5, count)).reshape(1, count, 1)
        news = net.op("Slice", net.op("Sin", "x"), np.asarray([0]), np.asarray([count]), np.asarray([1]))
    else:
        flat = rng.permutation(20)[:count] if unique else rng.integers(0, 20, count)
        places = np.stack(np.unravel_index(flat, (5, 4)), axis=-1)[None]
        places[..., 1] -= 4 * int(rng.integers(2))
        news = net.op(
            "Slice",
            net.op("Reshape", net.op("Sin", "x"), np.asarray([0, 20])),
            np.asarray([0]),
            np.asarray([count]),
            np.asarray([1]),
        )
    lead = net.op("Squeeze", net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1])), np.asarray([0]))
    batch = net.op("Reshape", net.op("Range", np.asarray(0), lead, np.asarray(1)), np.asarray([-1, 1, 1]))
    batch = net.op("Mul", batch, np.ones((1, count, 1), np.int64))
    indices = net.op("Concat", batch, rows_of(net, places.astype(np.int64)), axis=2)
    if kind == 2 and not unique:
        data = rows_of(net, rng.uniform(0.5, 1.5, (1, 5, 4)).astype(np.float32))
        net.may_vanish = reduction in ("max", "min")
    return net, net.op("ScatterND", data, indices, news, **attributes)


@case("ScatterElements", "ScatterND", repeats=4)
def products_with_zeros(rng: Rng) -> tuple[Net, str]:
    """Updates that are zero: their own slope stays, those of the others vanish."""
    net = Net((6,), x=spread(rng, ROWS, 6, low=0.5, high=2.0), opset=18)
    gate = rows_of(net, rng.integers(0, 2, (1, 6)).astype(np.float32))
    news = net.op("Mul", net.op("Sub", "x", "x"), np.float32(1)) if rng.random() < 0.2 else net.op("Mul", "x", gate)
    shifted = net.op("Sub", news, net.op("Mul", net.op("Cast", net.op("Cast", news, to=1), to=1), np.float32(0.0)))
    index = rows_of(net, rng.integers(0, 3, (1, 6)))
    net.may_vanish = True
    return net, net.op("ScatterElements", "x", index, shifted, axis=1, reduction="mul")


@case("GatherND", repeats=40)
def gathered_rows(rng: Rng) -> tuple[Net, str]:
    """Batch axes of none, one and two; indices of one to all other axes, negative too."""
    net = Net((5, 4, 3), opset=int(pick(rng, [12, 13, 18])), ir_version=8)
    t = net.op("Mul", "x", rng.uniform(0.5, 1.5, (5, 4, 3)))
    kind = int(rng.integers(4))
    if kind == 0:
        depth = int(rng.integers(1, 4))
        index = np.stack([rng.integers(-d, d, 6) for d in (5, 4, 3)[:depth]], axis=-1)
        shape = pick(rng, [(1, 6, depth), (1, 2, 3, depth)])
        return net, net.op("GatherND", t, rows_of(net, index.reshape(shape)), batch_dims=1)
    if kind == 1:
        index = np.stack([rng.integers(-4, 4, 10), rng.integers(0, 3, 10)], axis=-1).reshape(1, 5, 2, 2)
        return net, net.op("GatherND", t, rows_of(net, index[..., : int(rng.integers(1, 3))]), batch_dims=2)
    if kind == 2:  # the batch behind the index
        turned = net.op("Transpose", t, perm=[1, 2, 0, 3])
        index = np.stack([rng.integers(-5, 5, 6), rng.integers(0, 4, 6)], axis=-1)
        return net, net.op("Transpose", net.op("GatherND", turned, index), perm=[1, 0, 2])
    lead = (
        net.op("Squeeze", net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1])), np.asarray([0]))
        if net.opset >= 13
        else None
    )
    if lead is None:
        lead = net.op("Squeeze", net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1])), axes=[0])
    batch = net.op(
        "Mul",
        net.op("Reshape", net.op("Range", np.asarray(0), lead, np.asarray(1)), np.asarray([-1, 1, 1])),
        np.ones((1, 4, 1), np.int64),
    )
    index = np.stack([rng.integers(-5, 5, 4), rng.integers(0, 4, 4)], axis=-1)[None]
    return net, net.op("GatherND", t, net.op("Concat", batch, rows_of(net, index), axis=2))


@case("Gather", repeats=6)
def rows_of_the_batch(rng: Rng) -> tuple[Net, str]:
    """Picking along an axis that holds the batch."""
    net = Net((4, 3))
    flat = net.op("Reshape", scaled(net, rng), np.asarray([-1, 3]))
    lead = net.op("Squeeze", net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1])), np.asarray([0]))
    starts = net.op("Mul", net.op("Range", np.asarray(0), lead, np.asarray(1)), np.asarray(4))
    index = net.op("Add", net.op("Reshape", starts, np.asarray([-1, 1])), rng.integers(0, 4, (1, int(pick(rng, [1, 3, 6])))))
    return net, net.op("Gather", flat, index, axis=0)


@case("GatherElements", repeats=20)
def elements_of_fewer_rows(rng: Rng) -> tuple[Net, str]:
    """Indices of fewer entries than the data on other axes too."""
    net = Net((5, 4), opset=int(pick(rng, [11, 13])), ir_version=8)
    axis = int(pick(rng, [1, 2, -1, -2]))
    size = [5, 4][(axis % 3) - 1]
    dims = (1, *[int(rng.integers(1, 7 if a == axis % 3 else [6, 5][a - 1])) for a in (1, 2)])
    return net, net.op("GatherElements", scaled(net, rng), rows_of(net, numbers(rng, -size, size, dims)), axis=axis)


@case("TopK", "GatherElements", repeats=30)
def largest(rng: Rng) -> tuple[Net, str]:
    """The largest or smallest along any axis, in order or not; and other values at their places."""
    opset = int(pick(rng, [9, 10, 11, 18]))
    net = Net((5, 4), opset=opset, ir_version=4 if opset < 11 else 8, x=spread(rng, ROWS, 5, 4, low=-4, high=4))
    net.step, net.rtol = 0.2 * 8 / net.x.size, 2e-2  # values stay in their order within the step
    axis = int(pick(rng, [1, 2, -1, -2] if opset >= 11 else [1, 2, -1]))
    k = int(rng.integers(1, [5, 4][(axis % 3) - 1] + 1))
    attributes: dict = {"axis": axis}
    if opset >= 11:
        attributes |= {"largest": int(rng.integers(2)), "sorted": int(rng.integers(2))}
    values, places = net.ops(
        "TopK", "x", *([] if opset < 10 else [np.asarray([k])]), outputs=2, **attributes, **({"k": k} if opset < 10 else {})
    )
    if opset < 11 or rng.random() < 0.5:
        return net, values if attributes.get("sorted", 1) else net.op("Tanh", values)
    others = net.op("GatherElements", net.op("Exp", "x"), places, axis=axis)
    return net, others if rng.random() < 0.5 else net.op("Mul", values, others)


@case("ReverseSequence", repeats=12)
def reversed_sequences(rng: Rng) -> tuple[Net, str]:
    net = Net((5, 3))
    t = scaled(net, rng)
    lengths = rows_of(net, rng.integers(1, 6, (1,)))
    if rng.random() < 0.5:
        return net, net.op("ReverseSequence", t, lengths, batch_axis=0, time_axis=1)
    turned = net.op("Transpose", t, perm=[1, 0, 2])
    return net, net.op("Transpose", net.op("ReverseSequence", turned, lengths, batch_axis=1, time_axis=0), perm=[1, 0, 2])


@case("Compress", repeats=8)
def compressed(rng: Rng) -> tuple[Net, str]:
    net = Net((5, 4), opset=int(pick(rng, [9, 11, 18])), ir_version=8)
    axis = int(pick(rng, [1, 2, -1] if net.opset >= 11 else [1, 2]))
    kept = rng.random([5, 4][(axis % 3) - 1] - int(rng.integers(2))) < 0.6
    kept[int(rng.integers(len(kept)))] = True
    return net, net.op("Compress", scaled(net, rng), kept, axis=axis)


@case("TensorScatter", repeats=8)
def cached(rng: Rng) -> tuple[Net, str]:
    net = Net((6, 4), opset=24)
    cache, news = scaled(net, rng), net.op("Slice", net.op("Sin", "x"), np.asarray([0]), np.asarray([2]), np.asarray([1]))
    mode = str(pick(rng, ["linear", "circular"]))
    start = rows_of(net, rng.integers(0, 5 if mode == "linear" else 6, (1,)))
    return net, net.op("TensorScatter", cache, news, *([start] if rng.random() < 0.8 else []), axis=1, mode=mode)


@case("MaxUnpool", "MaxPool", repeats=12)
def unpooled(rng: Rng) -> tuple[Net, str]:
    net = Net((2, 6, 6), opset=int(pick(rng, [11, 18])), ir_version=8)
    net.x = spread(rng, ROWS, 2, 6, 6, low=-4, high=4)
    net.step, net.rtol = 0.2 * 8 / net.x.size, 2e-2
    y, places = net.ops("MaxPool", "x", outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Exp", y)
    if rng.random() < 0.5:
        return net, net.op("MaxUnpool", y, places, kernel_shape=[2, 2], strides=[2, 2])
    shape = net.op("Shape", "x")
    return net, net.op("MaxUnpool", y, places, shape, kernel_shape=[2, 2], strides=[2, 2])


# sequences


@case("SplitToSequence", "SequenceAt", "ConcatFromSequence", "SequenceInsert", repeats=16)
def sequences(rng: Rng) -> tuple[Net, str]:
    """Put together, split by sizes, by one size or into single entries, taken from, changed and joined."""
    net = Net((6, 4), opset=int(pick(rng, [11, 13, 18])), ir_version=8)
    t = scaled(net, rng)
    kind = int(rng.integers(4))
    if kind == 0:
        parts = net.op("SequenceConstruct", t, net.op("Tanh", "x"), net.op("Exp", "x"))
        last = net.op("SequenceAt", parts, np.asarray(-1))
        return net, net.op("Mul", last, net.op("SequenceAt", parts, np.asarray(0)))
    if kind == 1:
        sizes = pick(rng, [np.asarray([1, 3, 2]), np.asarray(4), np.asarray(2)])
        parts = net.op("SplitToSequence", t, sizes, axis=int(pick(rng, [1, -2])))
        first = net.op("Tanh", net.op("SequenceAt", parts, np.asarray(0)))
        parts = net.op("SequenceErase", net.op("SequenceInsert", parts, first, np.asarray(1)))
        return net, net.op("ConcatFromSequence", parts, axis=1)
    if kind == 2:
        keep = int(rng.integers(2))
        parts = net.op("SplitToSequence", t, axis=2, keepdims=keep)
        a, b = (net.op("SequenceAt", parts, np.asarray(k)) for k in (1, -1))
        return net, net.op("Mul", a, net.op("Sin", b))
    parts = net.op("SequenceEmpty")
    for value in (t, net.op("Tanh", "x")):
        parts = net.op("SequenceInsert", parts, value)
    return net, net.op(
        "ConcatFromSequence", net.op("Identity", parts) if net.opset >= 18 else parts, axis=int(pick(rng, [1, 2, -1])), new_axis=1
    )


# steps beside a slope


def _step(op: str):
    def make(rng: Rng) -> tuple[Net, str]:
        """Its derivative is zero, the other way's is not."""
        net = Net((3, 4), x=away(rng, spread(rng, ROWS, 3, 4), (-2, -1, 0, 1, 2)), step=5e-3)
        if op == "Hardmax":
            net.x = spread(rng, ROWS, 3, 4, low=-4, high=4)
        stepped = net.op(op, "x")
        if rng.random() < 0.5:
            return net, net.op("Mul", stepped, net.op("Exp", "x"))
        return net, net.op("Sub", net.op("Tanh", "x"), stepped)

    return make


CASES.extend(Case((_op,), f"{_op} beside a slope", _step(_op), 3) for _op in ("Sign", "Floor", "Ceil", "Hardmax"))


@case("Floor", "Cast", "Gather", repeats=2)
def interpolation_by_hand(rng: Rng) -> tuple[Net, str]:
    """A table read between two entries: the place is a step, the share has a slope."""
    net = Net((4,), x=away(rng, spread(rng, ROWS, 4, low=0.1, high=3.9), (1, 2, 3)))
    net.step = 5e-3
    table = rng.standard_normal(6)
    front = net.op("Floor", "x")
    place = net.op("Cast", front, to=7)
    a, b = net.op("Gather", table, place), net.op("Gather", table, net.op("Add", place, np.asarray(1)))
    return net, net.op("Add", a, net.op("Mul", net.op("Sub", "x", front), net.op("Sub", b, a)))


@case("Mod", repeats=6)
def remainder(rng: Rng) -> tuple[Net, str]:
    """Slope 1, and minus the whole quotient by the divisor."""
    net = Net((3, 4), x=away(rng, spread(rng, ROWS, 3, 4, low=-5, high=5), tuple(0.75 * k for k in range(-7, 8))))
    net.step = 5e-3
    if rng.random() < 0.5:
        return net, net.op("Mod", "x", np.float32(0.75), fmod=1)
    divisor = net.op("Add", net.op("Mul", net.op("Tanh", "x"), np.float32(0.0)), np.float32(0.75))
    return net, net.op("Mod", "x", divisor, fmod=1)


@case("Dropout", repeats=6)
def dropout_with_a_mask(rng: Rng) -> tuple[Net, str]:
    """A declared mask, a ratio, and the forms of its flag for training."""
    opset = int(pick(rng, [10, 12, 13, 18, 22]))
    net = Net((3, 4), opset=opset, ir_version=8)
    if opset < 12:
        y, mask = net.ops("Dropout", "x", outputs=2, ratio=0.3)
    else:
        tail = pick(rng, [[], [np.float32(0.3)], [np.float32(0.3), np.asarray(False)], ["", np.asarray(False)]])
        y, mask = net.ops("Dropout", "x", *tail, outputs=2)
    y = net.op("Tanh", y)
    return net, net.op("Where", mask, y, net.op("Exp", y)) if rng.random() < 0.5 else y
