"""Operators that move, repeat, join or cut values: linear, and shifted by one axis for the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxfim.gradients.derivative_rules import RULES, Cotangent, DerivativeRule, Site, Stretch, linear
from onnxfim.graph.shapes import Batch, Dim


def _to_output(n: Site, v: str) -> str:
    return n.reshape(v, n.shape(n.y))


def _to_input(n: Site, u: str) -> str:
    return n.reshape(u, n.shape(n.x))


for _op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
    linear(_op, transpose=_to_input, apply=_to_output)


def _permutation(n: Site) -> list[int]:
    return n.integers("perm") or list(range(n.rank(n.x)))[::-1]


def _transpose(n: Site, u: str) -> str:
    inverse = [int(i) for i in np.argsort(_permutation(n))]
    return n.write("Transpose", u, perm=[0, *(i + 1 for i in inverse)])


linear(
    "Transpose",
    transpose=_transpose,
    apply=lambda n, v: n.write("Transpose", v, perm=[0, *(i + 1 for i in _permutation(n))]),
)
linear(
    "Expand",
    transpose=lambda n, u: n.unbroadcast(u, n.shape(n.y), n.shape(n.x)),
    apply=lambda n, v: n.broadcast(v, n.shape(n.x), n.y),
)


linear(
    "Cast",
    transpose=lambda n, u: n.write("Cast", u, to=n.trace.elem[n.x]),
    apply=lambda n, v: n.write("Cast", v, to=n.trace.elem[n.y]),
)


def _tile_transpose(n: Site, u: str) -> str:
    """Sum over the copies: axes (r, d) for every repeated axis, r summed."""
    repeats = [int(r) for r in n.known(1, "repeat counts")]
    dims: list[Dim] = []
    summed: list[int] = []
    for r, d in zip(repeats, n.shape(n.x), strict=True):
        if r != 1:
            n.static([d])
            dims.append(r)
            summed.append(len(dims))
        dims.append(d)
    return n.total(n.reshape(u, dims), summed, keepdims=False)


def _tile(n: Site, v: str) -> str:
    return n.write("Tile", v, [1, *(int(r) for r in n.known(1, "repeat counts"))])


linear("Tile", transpose=_tile_transpose, apply=_tile)


# joining and cutting


def _pieces(n: Site, t: str, axis: int, names: Sequence[str]) -> tuple[str, ...]:
    """Cut along ``axis`` into parts of the sizes of ``names``."""
    sizes = n.static([n.shape(name)[axis] for name in names])
    return n.split(t, sizes, axis=axis + 1)


def _concat_vjp(n: Site, us: Sequence[str | None]) -> Mapping[int, str]:
    assert us[0] is not None
    axis = n.axis(0, n.rank(n.y))
    pieces = _pieces(n, us[0], axis, n.inputs)
    return {i: piece for i, piece in enumerate(pieces) if n.varies[i]}


def _concat_jvp(n: Site, vs: Mapping[int, str]) -> Sequence[str]:
    axis = n.axis(0, n.rank(n.y))
    n.static([n.shape(name)[axis] for name in n.inputs])
    parts = [vs[i] if n.varies[i] else n.zeros(name) for i, name in enumerate(n.inputs)]
    return [n.write("Concat", *parts, axis=axis + 1)]


def _split_vjp(n: Site, us: Sequence[str | None]) -> Mapping[int, str]:
    axis = n.axis(0, n.rank(n.x))
    n.static([n.shape(n.x)[axis]])
    parts = [u if u is not None else n.zeros(name) for u, name in zip(us, n.node.output, strict=True) if name]
    return {0: n.write("Concat", *parts, axis=axis + 1)}


def _split_jvp(n: Site, vs: Mapping[int, str]) -> Sequence[str]:
    return _pieces(n, vs[0], n.axis(0, n.rank(n.x)), list(n.node.output))


RULES["Concat"] = DerivativeRule(_concat_vjp, _concat_jvp)
RULES["Split"] = DerivativeRule(_split_vjp, _split_jvp)


def _cuts(n: Site) -> dict[int, range]:
    """What a Slice keeps, for each axis where that is not everything."""
    starts, ends = (n.known(i, "range").reshape(-1) for i in (1, 2))
    axes = n.known(3, "axes").reshape(-1) if n.has(3) else np.arange(len(starts))
    steps = n.known(4, "steps").reshape(-1) if n.has(4) else np.ones(len(starts), int)
    dims, out = n.shape(n.x), n.shape(n.y)
    kept = {}
    for start, end, a, step in zip(starts, ends, axes, steps, strict=True):
        axis = int(a) % len(dims)
        if dims[axis] == out[axis] and step == 1:
            continue
        (size,) = n.static([dims[axis]])
        kept[axis] = _range(int(start), int(end), int(step), size)
        if not kept[axis]:
            raise n.refuse("it keeps nothing")
    return kept


def _range(start: int, end: int, step: int, size: int) -> range:
    """What a slice keeps, clamped as the operator is defined (a start in front of a reversed slice is its first element)."""
    start, end = (i + size if i < 0 else i for i in (start, end))
    low, high = (0, size) if step > 0 else (-1, size - 1)
    return range(min(max(start, 0), high), min(max(end, low), high), step)


def _slice_transpose(n: Site, u: str) -> Cotangent:
    """Put what was kept back in its place, zeros elsewhere."""
    dims = n.shape(n.x)
    now: list[Dim] = list(n.shape(n.y))
    rank = len(dims)
    before, after = [0] * rank, [0] * rank
    for axis, kept in _cuts(n).items():
        first, step = kept[0], kept.step
        (size,) = n.static([dims[axis]])
        if step < 0:
            u = n.write("Slice", u, [-1], [-(2**62)], [axis + 1], [-1])
            first, step = kept[-1], -step
        if step > 1:
            u = _interleave(n, u, now, axis, step)
            now[axis] = len(kept) * step
        before[axis] = first
        after[axis] = size - first - len(kept) * step
    if any(a < 0 for a in after):
        axes = [i for i, a in enumerate(after) if a < 0]
        u = n.write("Slice", u, [0] * len(axes), [after[i] for i in axes], [i + 1 for i in axes])
    grown = [i for i, (b, a) in enumerate(zip(before, after, strict=True)) if b > 0 or a > 0]
    if len(grown) == 1 and after[grown[0]] >= 0:
        (axis,) = grown
        (size,) = n.static([dims[axis]])
        return Stretch(u, axis, rank, before[axis], size - after[axis], size)
    return n.pad(u, before, [max(a, 0) for a in after])


def _interleave(n: Site, u: str, dims: list[Dim], axis: int, step: int) -> str:
    """Put ``step − 1`` zeros behind each element along ``axis``."""
    (size,) = n.static([dims[axis]])
    wide: list[Dim] = [*dims[: axis + 1], 1, *dims[axis + 1 :]]
    pads = [0] * len(wide)
    pads[axis + 1] = step - 1
    u = n.pad(n.reshape(u, wide), [0] * len(wide), pads)
    return n.reshape(u, [*dims[:axis], size * step, *dims[axis + 1 :]])


def _slice(n: Site, v: str) -> str:
    kept = _cuts(n)
    if not kept:
        return v
    ends = [r.stop if r.stop >= 0 else -(2**62) for r in kept.values()]
    return n.write("Slice", v, [r[0] for r in kept.values()], ends, [a + 1 for a in kept], [r.step for r in kept.values()])


linear("Slice", transpose=_slice_transpose, apply=_slice)


def _pads(n: Site) -> tuple[list[int], list[int]]:
    """Elements put before and behind each axis; negative ones are cut off."""
    if str(n.attribute("mode", "constant")) != "constant":
        raise n.refuse(f"its mode {n.attribute('mode')!r} has no rule")
    rank = n.rank(n.x)
    pads = n.known(1, "pads").reshape(2, -1)
    axes = n.known(3, "axes").reshape(-1) if n.has(3) else np.arange(rank)
    before, after = [0] * rank, [0] * rank
    for a, b, e in zip(axes, *pads, strict=True):
        before[int(a) % rank], after[int(a) % rank] = int(b), int(e)
    if any(isinstance(d, Batch) and (b or e) for d, b, e in zip(n.shape(n.x), before, after, strict=True)):
        raise n.refuse("it pads the batch axis")
    return before, after


def _pad_transpose(n: Site, u: str) -> str:
    before, after = _pads(n)
    axes = [i for i in range(len(before)) if before[i] > 0 or after[i] > 0]
    if axes:
        ends = [-after[i] if after[i] > 0 else 2**62 for i in axes]
        u = n.write("Slice", u, [max(before[i], 0) for i in axes], ends, [i + 1 for i in axes])
    return n.pad(u, [max(-b, 0) for b in before], [max(-a, 0) for a in after])


linear("Pad", transpose=_pad_transpose, apply=lambda n, v: n.pad(v, *_pads(n)))


# triangles and sums


def _trilu(n: Site, t: str) -> str:
    return n.write("Trilu", t, n.inputs[1] if n.has(1) else None, upper=n.integer("upper", 1))


linear("Trilu", transpose=_trilu, apply=_trilu)


def _cumsum(n: Site, t: str, *, back: bool) -> str:
    axis = int(n.known(1, "axis").reshape(())) % n.rank(n.x)
    reverse = n.integer("reverse") ^ int(back)
    return n.write("CumSum", t, np.asarray(axis + 1, np.int64), reverse=reverse, exclusive=n.integer("exclusive"))


linear("CumSum", transpose=lambda n, u: _cumsum(n, u, back=True), apply=lambda n, v: _cumsum(n, v, back=False))
