"""Sums of linear maps of one value, written as one map where they have a common form: `x + αx`, linear skips, double
branches."""

from __future__ import annotations

from dataclasses import replace
from operator import is_

import numpy as np

from onnxfim.graph.shapes import OpenShape
from onnxfim.spectral.linear import Chain, Convolution, Dense, Element, Rearrange, Scaling, tame


def add(a: Chain, b: Chain, shape: OpenShape | None) -> Chain | None:
    """The sum of two chains from one value to values of one shape, as one chain, or None when it stays a sum."""
    common = 0
    while common < min(len(a), len(b)) and a[common] is b[common]:
        common += 1
    prefix, a, b = a[:common], a[common:], b[common:]
    if len(a) > 1 or len(b) > 1:
        return _same_move(prefix, a, b, shape)
    first, second = (a[0] if a else None), (b[0] if b else None)
    for x, y in ((first, second), (second, first)):
        total = _scales(x, y, shape) or _dense(x, y, shape) or _conv(x, y)
        if total is not None:
            return (*prefix, total) if total.weights is not None and tame(total.weights) else None
    if isinstance(first, Rearrange) and isinstance(second, Rearrange):
        return _same_move(prefix, a, b, shape)
    return None


def _same_move(prefix: Chain, a: Chain, b: Chain, shape: OpenShape | None) -> Chain | None:
    """The sum of chains that begin with the same rearrangement."""
    if not (a and b and isinstance(a[0], Rearrange) and isinstance(b[0], Rearrange)):
        return None
    if a[0].in_shape != b[0].in_shape or a[0].out_shape != b[0].out_shape or a[0].out_shape is None:
        return None
    first, second = a[0].index, b[0].index
    if (first is None) != (second is None) or (first is not None and second is not None and not np.array_equal(first, second)):
        return None
    rest = add(a[1:], b[1:], shape)
    return None if rest is None else (*prefix, a[0], *rest)


def _nodes(a: Element | None, b: Element | None) -> tuple:  # type: ignore[type-arg]
    """The nodes of both, each once: sums of sums would double them at every node."""
    first, second = (a.nodes if a else ()), (b.nodes if b else ())
    short, long = sorted((first, second), key=len)
    if all(map(is_, short, long)):  # ten thousand sums in a row have ten thousand nodes each
        return long
    return tuple({id(n): n for n in (*first, *second)}.values())


def _factor(a: Element | None) -> np.ndarray | None:
    if a is None:
        return np.ones(())
    return a.factor if isinstance(a, Scaling) else None


def _scales(a: Element | None, b: Element | None, shape: OpenShape | None) -> Element | None:
    s, t = _factor(a), _factor(b)
    if s is None or t is None:
        return None
    return Scaling(_nodes(a, b), shape, shape, s + t)


def _dense(a: Element | None, b: Element | None, shape: OpenShape | None) -> Element | None:
    if not isinstance(b, Dense):
        return None
    if isinstance(a, Dense):
        return Dense(_nodes(a, b), b.in_shape, b.out_shape, a.matrix + b.matrix) if a.shape == b.shape else None
    s = _factor(a)
    n, m = b.shape
    if s is None or n != m or shape is None:
        return None
    along = Scaling((), shape, shape, s).along(-1, max(len(shape), s.ndim))
    return None if along is None else Dense(_nodes(a, b), b.in_shape, b.out_shape, b.matrix + np.eye(n) * along)


def _conv(a: Element | None, b: Element | None) -> Element | None:
    """Convolutions of one stride on a common range of taps; a scale is one of a single tap."""
    if not isinstance(b, Convolution) or b.transposed or set(b.geometry.dilations) != {1}:
        return None
    if isinstance(a, Convolution):
        if (
            a.transposed
            or set(a.geometry.dilations) != {1}
            or a.geometry.sizes != b.geometry.sizes
            or a.geometry.strides != b.geometry.strides
        ):
            return None
        if a.groups != b.groups or None in a.geometry.sizes:
            return None
        return _aligned(a, b)
    s = _factor(a)
    o, i = b.kernel.shape[:2]
    if s is None or o != i * b.groups or not b.same_size or set(b.geometry.strides) != {1}:
        return None
    along = Scaling((), None, None, s).along(1 - b.kernel.ndim, max(b.kernel.ndim, s.ndim))
    if along is None:
        return None
    spatial = (1,) * (b.kernel.ndim - 2)
    eye = np.tile(np.eye(i), (b.groups, 1)) * np.broadcast_to(along, (o,))[:, None]
    point = replace(b, kernel=eye.reshape(o, i, *spatial), geometry=replace(b.geometry, pads=(0,) * len(spatial)))
    return replace(_aligned(point, b), nodes=_nodes(a, b))


def _aligned(a: Convolution, b: Convolution) -> Convolution:
    pads = tuple(map(max, a.geometry.pads, b.geometry.pads))
    parts = []
    rank = a.kernel.ndim - 2
    ends = [
        max(c.kernel.shape[2 + x] - c.geometry.pads[x] for c in (a, b)) for x in range(rank)
    ]  # last tap + 1, counted from the tap that reads the output's own position
    for c in (a, b):
        room = [(pads[x] - c.geometry.pads[x], ends[x] - c.kernel.shape[2 + x] + c.geometry.pads[x]) for x in range(rank)]
        parts.append(np.pad(c.kernel, [(0, 0), (0, 0), *room]))
    return replace(b, nodes=_nodes(a, b), kernel=parts[0] + parts[1], geometry=replace(b.geometry, pads=pads))
