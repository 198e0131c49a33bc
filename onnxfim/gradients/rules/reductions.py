"""Reductions, softmax and normalisations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxfim.gradients.derivative_rules import Partial, Site, linear, numel, target


def _axes(n: Site) -> list[int]:
    """Axes that the node reduces, counted from zero."""
    rank = n.rank(n.x)
    given = n.known(1, "axes").reshape(-1) if n.has(1) else np.asarray([], int)
    if len(given):
        return sorted(int(a) % rank for a in given)
    return [] if n.integer("noop_with_empty_axes") else list(range(rank))


def _unsqueezed(n: Site, t: str, axes: Sequence[int], *, seeds: int) -> str:
    """Bring reduced axes back at length one; ``seeds`` is 1 for a value with a seed axis, 0 for one without."""
    return t if n.integer("keepdims", 1) == 1 or not axes else n.write("Unsqueeze", t, [a + seeds for a in axes])


def _reduction(op: str, slope: Callable[[Site, str, list[int]], Partial]) -> None:
    """Register a reduction; ``slope`` gives ∂y/∂x from the result with its axes kept, or a constant."""

    def parts(n: Site) -> tuple[list[int], Partial]:
        axes = _axes(n)
        n.static([n.shape(n.x)[a] for a in axes])
        return axes, slope(n, _unsqueezed(n, n.y, axes, seeds=0), axes)

    def back(n: Site, u: str) -> str:
        axes, factor = parts(n)
        u = _unsqueezed(n, u, axes, seeds=1)
        if isinstance(factor, str):
            return n.mul(u, factor)
        if factor != 1.0:
            u = n.mul(u, factor)
        full = [1, *(d if i in axes else 1 for i, d in enumerate(n.shape(n.x)))]
        return n.write("Expand", u, n.static(full)) if axes else u

    def forth(n: Site, v: str) -> str:
        axes, factor = parts(n)
        keepdims = n.integer("keepdims", 1) == 1  # as ONNX Runtime reads it: any other number is 0
        if isinstance(factor, str):
            return n.total(n.mul(v, factor), [a + 1 for a in axes], keepdims=keepdims)
        total = n.total(v, [a + 1 for a in axes], keepdims=keepdims)
        return total if factor == 1.0 else n.mul(total, factor)

    linear(op, transpose=back, apply=forth)


def _product_of_others(n: Site, y: str, axes: Sequence[int]) -> str:
    """∂y/∂x_i, the product of the others, where entries may be zero: it is zero wherever one of the others is."""
    if not axes:
        return n.mask(n.write("Equal", n.x, n.x))
    zero = n.mask(n.write("Equal", n.x, 0.0))
    filled = n.add(n.x, zero)
    others = n.div(n.write("ReduceProd", filled, list(axes)), filled)
    return n.mul(others, n.mask(n.write("Equal", n.total(zero, axes), zero)))


def _count(n: Site, axes: Sequence[int]) -> int:
    return numel(n.static([n.shape(n.x)[a] for a in axes]))


def _extremum_mask(n: Site, y: str, axes: Sequence[int]) -> str:
    """1 at the first element that equals the extremum; over axes that are not adjacent, ties share it."""
    if not axes:
        return n.mask(n.write("Equal", n.x, n.x))
    dims = n.shape(n.x)
    if list(axes) != list(range(axes[0], axes[-1] + 1)):
        tied = n.mask(n.write("Equal", n.x, y))
        return n.div(tied, n.total(tied, axes))
    size = _count(n, axes)
    merged = [*dims[: axes[0]], size, *dims[axes[-1] + 1 :]]
    flat = n.write("Reshape", n.x, target(n, merged)) if len(axes) > 1 else n.x
    which = n.write("ArgMax" if n.op == "ReduceMax" else "ArgMin", flat, axis=axes[0], keepdims=1)
    positions = n.emitter.constant(np.arange(size).reshape(-1, *[1] * (len(merged) - axes[0] - 1)))
    mask = n.mask(n.write("Equal", which, positions))
    return n.write("Reshape", mask, target(n, dims)) if len(axes) > 1 else mask


_reduction("ReduceSum", lambda n, y, axes: 1.0)
_reduction("ReduceMean", lambda n, y, axes: 1.0 / _count(n, axes))
_reduction("ReduceL1", lambda n, y, axes: n.write("Sign", n.x))
_reduction("ReduceL2", lambda n, y, axes: n.div(n.x, n.write("Max", y, float(np.finfo(n.dtype).tiny))))
_reduction("ReduceSumSquare", lambda n, y, axes: n.mul(n.x, 2.0))
_reduction("ReduceLogSumExp", lambda n, y, axes: n.write("Exp", n.sub(n.x, y)))
_reduction("ReduceProd", _product_of_others)
_reduction("ReduceMax", _extremum_mask)
_reduction("ReduceMin", _extremum_mask)


# softmax


def _softmax(n: Site, u: str) -> str:
    """y ⊙ (u − ⟨u, y⟩), its own transpose."""
    axis = n.axis(-1, n.rank(n.x)) - n.rank(n.x)
    return n.mul(n.sub(u, n.total(n.mul(u, n.y), [axis])), n.y)


def _log_softmax(n: Site, v: str) -> str:
    axis = n.axis(-1, n.rank(n.x)) - n.rank(n.x)
    return n.sub(v, n.total(n.mul(v, n.write("Exp", n.y)), [axis]))


def _log_softmax_transpose(n: Site, u: str) -> str:
    axis = n.axis(-1, n.rank(n.x)) - n.rank(n.x)
    return n.sub(u, n.mul(n.write("Exp", n.y), n.total(u, [axis])))


linear("Softmax", transpose=_softmax, apply=_softmax)
linear("LogSoftmax", transpose=_log_softmax_transpose, apply=_log_softmax)


# layer normalisation


def _statistics(n: Site) -> tuple[str, str]:
    """Mean and 1/σ of the node, asked of the node itself."""
    names = [*n.node.output, "", ""][:3]
    del n.node.output[:]
    n.node.output.extend(name or n.emitter.fresh("statistic") for name in names)
    return str(n.node.output[1]), str(n.node.output[2])


def _normal_axes(n: Site) -> list[int]:
    rank = n.rank(n.x)
    axes = list(range(n.axis(-1, rank) - rank, 0))
    n.static(n.shape(n.x)[axes[0] :])
    return axes


def _centred(n: Site, w: str) -> str:
    """(w − mean w − x̂ mean(w x̂)) / σ: symmetric."""
    mean, inverse = _statistics(n)
    unit = n.mul(n.sub(n.x, mean), inverse)
    axes = _normal_axes(n)
    along = n.mul(unit, n.write("ReduceMean", n.mul(w, unit), axes))
    return n.mul(n.sub(n.sub(w, n.write("ReduceMean", w, axes)), along), inverse)


def _layer_norm_transpose(n: Site, u: str) -> str:
    return _centred(n, n.mul(u, n.inputs[1]))


def _layer_norm(n: Site, v: str) -> str:
    return n.mul(_centred(n, v), n.inputs[1])


linear("LayerNormalization", transpose=_layer_norm_transpose, apply=_layer_norm)
