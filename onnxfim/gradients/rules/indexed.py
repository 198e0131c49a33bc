"""Operators that pick or place elements by index: Gather and Scatter in their forms, TopK, reversed sequences.

The indices are constants of the derivative, whatever they were computed from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnxfim.gradients.derivative_rules import RULES, Cotangent, DerivativeRule, Site, Stretch, linear, merged, rule, target
from onnxfim.graph.shapes import Batch, Dim

# picking


def _gather_transpose(n: Site, u: str) -> Cotangent:
    dims = n.shape(n.x)
    axis = n.axis(0, len(dims))
    size = dims[axis]
    indices = n.inputs[1]
    picked: list[Dim] = [*dims[:axis], merged(n, n.shape(indices)), *dims[axis + 1 :]]
    u = n.reshape(u, picked)  # (S, before, picked, behind)
    known = n.value(1)
    if known is not None and isinstance(size, int):
        flat = known.reshape(-1) % size
        if len(flat) and (np.diff(flat) == 1).all():
            return Stretch(u, axis, len(dims), int(flat[0]), int(flat[-1]) + 1, size)
        if np.array_equal(np.sort(flat), np.arange(size)):
            return n.write("Gather", u, [int(i) for i in np.argsort(flat)], axis=axis + 1)
    column = n.write("Reshape", _whole(n, indices), [-1, *[1] * (len(dims) - axis - 1)])
    return _placed(n, n.zeros(n.x), u, column, axis)


def _whole(n: Site, indices: str) -> str:
    """Indices as int64."""
    return indices if n.trace.elem.get(indices) == TensorProto.INT64 else n.write("Cast", indices, to=TensorProto.INT64)


def _placed(n: Site, onto: str, u: str, indices: str, axis: int) -> str:
    """Add the elements of ``u`` (S, ...) to ``onto`` (S, ...) at the indices along ``axis``, which broadcast to those of ``u``."""
    where = n.write("Expand", indices, n.write("Shape", u))
    return n.write("ScatterElements", onto, where, u, axis=axis + 1, reduction="add")


def _gather(n: Site, v: str) -> str:
    return n.write("Gather", v, n.inputs[1], axis=n.axis(0, n.rank(n.x)) + 1)


linear("Gather", transpose=_gather_transpose, apply=_gather)


def _taken(n: Site, t: str, indices: str, axis: int, *, of: str) -> str:
    """Elements of ``t`` (S, ...), of the shape of the value ``of``, at the indices (...) along ``axis``."""
    dims, cut = n.shape(indices), n.shape(of)
    narrow = [i for i, (a, b) in enumerate(zip(cut, dims, strict=True)) if a != b and i != axis]
    if narrow:
        t = n.write("Slice", t, [0] * len(narrow), n.static([dims[i] for i in narrow]), [i + 1 for i in narrow])
    shape = n.write("Concat", n.seeds, n.write("Shape", indices), axis=0)
    return n.write("GatherElements", t, n.write("Expand", indices, shape), axis=axis + 1)


def _along(n: Site) -> int:
    return n.axis(0, n.rank(n.x))


linear(
    "GatherElements",
    transpose=lambda n, u: _placed(n, n.zeros(n.x), u, n.inputs[1], _along(n)),
    apply=lambda n, v: _taken(n, v, n.inputs[1], _along(n), of=n.x),
)


# the largest or smallest


def _places(n: Site) -> str:
    """Where the chosen entries stand, asked of the node itself."""
    if len(n.node.output) < 2 or not n.node.output[1]:
        del n.node.output[1:]
        n.node.output.append(n.emitter.fresh("indices"))
    return str(n.node.output[1])


def _top_vjp(n: Site, us: Sequence[str | None]) -> Mapping[int, str]:
    if us[0] is None:
        return {}
    return {0: _placed(n, n.zeros(n.x), us[0], _places(n), n.axis(-1, n.rank(n.x)))}


def _top_jvp(n: Site, vs: Mapping[int, str]) -> Sequence[str | None]:
    axis, places = n.axis(-1, n.rank(n.x)), _places(n)
    where = n.write("Expand", places, n.write("Concat", n.seeds, n.write("Shape", places), axis=0))
    return [n.write("GatherElements", vs[0], where, axis=axis + 1), None]


RULES["TopK"] = DerivativeRule(_top_vjp, _top_jvp)


# placing


@dataclass(frozen=True)
class _Placing:
    """A scatter along one axis.

    Attributes:
        data, indices, updates: Values; the indices broadcast to the updates.
        axis: Along which the updates are placed.
        reduction: What the operator does with what is there already.
        unique: Whether no two updates go to one place.
    """

    data: str
    indices: str
    updates: str
    axis: int
    reduction: str
    unique: bool


def _shares(n: Site, p: _Placing) -> tuple[str | None, str | None]:
    """∂y/∂data and ∂y/∂update, each of the shape of one sample's value or one that broadcasts to it; None stands for 1."""
    if p.reduction == "add":
        return None, None
    where = n.write("Expand", p.indices, n.write("Shape", p.updates))

    def put(onto: str, what: str, reduction: str | None) -> str:
        return n.write("ScatterElements", onto, where, what, axis=p.axis, reduction=reduction)

    def there(t: str) -> str:
        return n.write("GatherElements", t, where, axis=p.axis)

    ones, news = (n.write("Expand", 1.0, n.write("Shape", t)) for t in (p.data, p.updates))
    if p.reduction == "none":
        kept = put(ones, n.write("Expand", 0.0, n.write("Shape", p.updates)), None)
        return kept, None if p.unique else _winners(n, p, news, put, there)
    if p.reduction == "mul":
        zero = n.mask(n.write("Equal", p.updates, 0.0))
        filled = n.add(p.updates, zero)
        zeros = there(put(n.write("Expand", 0.0, n.write("Shape", p.data)), zero, "add"))
        others = n.div(there(put(p.data, filled, "mul")), filled)
        return put(ones, p.updates, "mul"), n.mul(others, n.mask(n.write("Equal", zeros, zero)))
    result = put(p.data, p.updates, p.reduction)
    first = n.mask(n.write("Equal", p.data, result))  # data wins a tie
    even = n.mul(n.mask(n.write("Equal", p.updates, there(result))), n.sub(1.0, there(first)))
    return first, even if p.unique else _winners(n, p, even, put, there)


def _winners(n: Site, p: _Placing, candidates: str, put: object, there: object) -> str:
    """1 at the last of the candidates (1, others 0) that go to one place: the one that stays there."""
    assert callable(put)
    assert callable(there)
    dims = n.write("Shape", p.updates)
    count = n.write("Size", p.updates)
    order = n.write("Range", np.asarray(1, np.int64), n.write("Add", count, np.asarray(1, np.int64)), np.asarray(1, np.int64))
    number = n.write("Mul", n.write("Reshape", order, dims), n.write("Cast", candidates, to=TensorProto.INT64))
    none = n.write("Expand", np.asarray(0, np.int64), n.write("Shape", p.data))
    last = there(put(none, number, "max"))
    return n.mul(candidates, n.mask(n.write("Equal", last, number)))


def _elements(n: Site) -> _Placing:
    axis = n.axis(0, n.rank(n.x))
    known = n.value(1)
    return _Placing(
        n.x, n.inputs[1], n.inputs[2], axis, str(n.attribute("reduction", "none")),
        known is not None and _distinct(known, axis, n.shape(n.x)[axis]),
    )  # fmt: skip


def _distinct(indices: np.ndarray, axis: int, size: Dim) -> bool:
    """Whether no index occurs twice along the axis."""
    if isinstance(size, Batch) or not indices.size:
        return False
    ordered = np.sort(indices % size, axis=axis)
    return bool((np.diff(ordered, axis=axis) > 0).all())


def _scaled(n: Site, t: str, factor: str | None) -> str:
    return t if factor is None else n.mul(t, factor)


def _elements_vjp(n: Site, u: str) -> Mapping[int, str]:
    p = _elements(n)
    kept, share = _shares(n, p)
    back = {}
    if n.varies[0]:
        back[0] = _scaled(n, u, kept)
    if n.varies[2]:
        back[2] = _scaled(n, _taken(n, u, p.indices, p.axis, of=n.x), share)
    return back


def _elements_jvp(n: Site, vs: Mapping[int, str]) -> str:
    p = _elements(n)
    kept, share = _shares(n, p)
    onto = _scaled(n, vs[0], kept) if 0 in vs else n.zeros(n.x)
    return _placed(n, onto, _scaled(n, vs[2], share), p.indices, p.axis) if 2 in vs else onto


rule("ScatterElements", _elements_vjp, _elements_jvp)


@dataclass(frozen=True)
class _Rows:
    """A ScatterND as rows placed into rows: (places, length) of the data, (updates, length) of the updates."""

    places: Dim
    count: Dim
    length: Dim
    flat: str  # (updates,) int64


def _rows(n: Site) -> _Rows:
    dims, shape = n.shape(n.x), n.shape(n.inputs[1])
    (depth,) = n.static(shape[-1:])
    sizes = n.write("Shape", n.x, start=0, end=depth)
    index = n.write("Mod", _whole(n, n.inputs[1]), sizes)  # negative ones count from the end
    known = [merged(n, dims[j + 1 : depth]) for j in range(depth)]
    if any(isinstance(k, Batch) for k in known):
        parts = [n.write("ReduceProd", n.write("Shape", n.x, start=j + 1, end=depth), [0]) for j in range(depth - 1)]
        strides = n.write("Concat", *parts, np.ones(1, np.int64), axis=0)
    else:
        strides = n.emitter.constant(np.asarray(known, np.int64))
    flat = n.write("ReduceSum", n.write("Mul", index, strides), [-1], keepdims=0)
    return _Rows(merged(n, dims[:depth]), merged(n, shape[:-1]), merged(n, dims[depth:]), n.write("Reshape", flat, [-1]))


def _placing(n: Site, rows: _Rows) -> _Placing:
    reduction, known = str(n.attribute("reduction", "none")), n.value(1)
    data = n.write("Reshape", n.x, target(n, [rows.places, rows.length]))
    updates = n.write("Reshape", n.inputs[2], target(n, [rows.count, rows.length]))
    if reduction == "none":  # rows are replaced whole: one column tells
        data, updates = (n.write("Slice", t, [0], [1], [1]) for t in (data, updates))
    unique = False
    if known is not None and known.size and not any(isinstance(d, Batch) for d in n.shape(n.x)[: known.shape[-1]]):
        index = (known % np.asarray(n.shape(n.x)[: known.shape[-1]])).reshape(-1, known.shape[-1])
        unique = len(np.unique(index, axis=0)) == len(index)
    return _Placing(data, n.write("Unsqueeze", rows.flat, [1]), updates, 0, reduction, unique)


def _nd_vjp(n: Site, u: str) -> Mapping[int, str]:
    rows = _rows(n)
    kept, share = _shares(n, _placing(n, rows))
    u = n.reshape(u, [rows.places, rows.length])
    back = {}
    if n.varies[0]:
        back[0] = n.reshape(_scaled(n, u, kept), n.shape(n.x))
    if n.varies[2]:
        back[2] = n.reshape(_scaled(n, n.write("Gather", u, rows.flat, axis=1), share), n.shape(n.inputs[2]))
    return back


def _nd_jvp(n: Site, vs: Mapping[int, str]) -> str:
    rows = _rows(n)
    kept, share = _shares(n, _placing(n, rows))
    onto = n.reshape(vs[0] if 0 in vs else n.zeros(n.x), [rows.places, rows.length])
    onto = _scaled(n, onto, kept) if 0 in vs else onto
    if 2 in vs:
        news = _scaled(n, n.reshape(vs[2], [rows.count, rows.length]), share)
        onto = _placed(n, onto, news, n.write("Unsqueeze", rows.flat, [1]), 0)
    return n.reshape(onto, n.shape(n.y))


rule("ScatterND", _nd_vjp, _nd_jvp)


# reversed sequences


def _reversed(n: Site, t: str) -> str:
    """The operator on the tangents (S, ...): seeds join the batch. It is its own transpose."""
    dims = n.shape(n.x)
    batch_first = n.integer("batch_axis", 1) == 0
    if not batch_first:  # (S, time, batch, ...)
        t = n.write("Transpose", t, perm=[0, 2, 1, *range(3, len(dims) + 1)])
    rows = [dims[0], *dims[1:]] if batch_first else [dims[1], dims[0], *dims[2:]]
    flat = n.write("Reshape", t, [-1, *n.static(rows[1:])])
    lengths = n.write("Expand", n.inputs[1], n.write("Concat", n.seeds, n.write("Shape", n.inputs[1]), axis=0))
    flat = n.write("ReverseSequence", flat, n.write("Reshape", lengths, [-1]), batch_axis=0, time_axis=1)
    t = n.unfold(flat, rows)
    return t if batch_first else n.write("Transpose", t, perm=[0, 2, 1, *range(3, len(dims) + 1)])


linear("ReverseSequence", transpose=_reversed, apply=_reversed)
