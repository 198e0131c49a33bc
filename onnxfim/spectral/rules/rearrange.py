"""Rules of operators that move, copy, select or join entries without computing with them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.graph.shapes import OpenShape
from onnxfim.spectral.bound_rules import rule
from onnxfim.spectral.linear import Other, Rearrange
from onnxfim.spectral.norms import NormBound
from onnxfim.spectral.result import root_sum
from onnxfim.spectral.rules.pointwise import attribute
from onnxfim.spectral.site import Ball, Composition, KnownOfValue, Value, unbounded

_LARGE = 1 << 22


def flat_places(value: Value) -> np.ndarray | None:
    """The flat positions of the value's entries in its own shape, or None when unknown or too many."""
    if value.size is None or value.size > _LARGE:
        return None
    return np.arange(value.size).reshape([d or 0 for d in value.shape or ()])


def moved(
    ctx: Composition,
    node: Node,
    x: Value,
    index: np.ndarray | None,
    *,
    output: int = 0,
    copies: float = 1.0,
    ball: Ball | None = None,
) -> Value:
    """``x`` rearranged by ``index``; where that is unknown, at most ``copies`` of any entry."""
    shape: OpenShape | None = ctx.shape(node.outputs[output])
    element: Rearrange | Other
    if index is None:
        element = Other((node,), x.shape, shape, NormBound(math.sqrt(copies), "copies of an entry"))
    else:
        element = Rearrange((node,), x.shape, index.shape, index)
    pads = index is not None and index.size > 0 and int(index.min()) < 0
    low, high = (min(x.low, 0.0), max(x.high, 0.0)) if pads else (x.low, x.high)
    return ctx.linear(node, x, element, output=output, low=low, high=high, ball=ball)


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(ctx: Composition, node: Node) -> Value:
    if not ctx.varying(node.inputs[0]):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "its target shape varies with the input"))
    x, shape = ctx.values[node.inputs[0]], ctx.shape(node.outputs[0])
    return ctx.linear(node, x, Rearrange((node,), x.shape, shape), ball=_reshaped_ball(x, shape), low=x.low, high=x.high)


def _reshaped_ball(x: Value, shape: OpenShape | None) -> Ball | None:
    """The ball after a reshape that keeps the vectors whole or splits them: parts of a vector are no longer than it is."""
    ball, old = x.ball, x.shape
    if ball is None or old is None or shape is None or None in old or None in shape:
        return None
    n, position = old[ball.axis] or 0, len(old) + ball.axis
    after = math.prod(d or 0 for d in old[position + 1 :])
    for k in reversed(range(len(shape))):
        rest = math.prod(d or 0 for d in shape[k + 1 :])
        m = shape[k] or 0
        # a new axis inside the old one: its stride is at least the old stride, and it ends where the old one does or before
        if m > 1 and rest >= after and after > 0 and rest % after == 0 and (n * after) % (m * rest) == 0:
            whole = m == n and rest == after
            return Ball(k - len(shape), ball.radius, ball.offset, ball.centre if whole else None)
    return None


@rule("Identity", "Dropout", "Cast")
def _identity(ctx: Composition, node: Node) -> Value | tuple[Value, ...]:
    x = ctx.values[node.inputs[0]]
    if node.op == "Cast" and int(attribute(node, "to", 1)) not in (1, 10, 11, 16):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "rounds to whole numbers, so it has no Lipschitz constant"))
    if node.op == "Dropout" and len(node.inputs) > 2 and node.inputs[2]:
        training = ctx.constant(node.inputs[2])
        if training is None or training.any():
            return ctx.fresh(node, math.inf, reason=unbounded(node, "is in training mode, where the output is random"))
    if node.op == "Cast":
        ctx.notes["Casts between floating-point types are taken as exact."] = None
    return replace(x, name=node.outputs[0], terms=x.terms or ((x, ()),), log=None, polynomial=x.as_polynomial)


@rule("Transpose")
def _transpose(ctx: Composition, node: Node) -> Value:
    x = ctx.values[node.inputs[0]]
    perm = node.attributes.get("perm")
    index = flat_places(x)
    if index is not None:
        index = np.transpose(index, cast("tuple[int, ...] | None", perm))
    ball = None
    if x.ball is not None and x.shape is not None:
        rank = len(x.shape)
        order = list(cast("tuple[int, ...]", perm)) if perm else list(range(rank))[::-1]
        ball = replace(x.ball, axis=order.index(rank + x.ball.axis) - rank)
    return moved(ctx, node, x, index, ball=ball)


@rule("Slice")
def _slice(ctx: Composition, node: Node) -> Value:
    x, index = ctx.values[node.inputs[0]], None
    if x.shape is not None:
        where, full = _slices(ctx, node, len(x.shape)), flat_places(x)
        index = None if full is None or where is None else full[where]
    return moved(ctx, node, x, index, ball=_part(x))


def _slices(ctx: Composition, node: Node, rank: int) -> tuple[slice, ...] | None:
    """The index expression of a Slice, or None when it is not known before the model runs."""
    given = [np.atleast_1d(c) if n and (c := ctx.constant(n)) is not None else None for n in node.inputs[1:]]
    if any(g is None and n for g, n in zip(given, node.inputs[1:], strict=True)):
        return None
    starts, ends, axes, steps = (*given, None, None)[:4]
    if starts is None or ends is None:
        return None
    index = [slice(None)] * rank
    for k, (first, last) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis, step = k if axes is None else int(axes[k]), 1 if steps is None else int(steps[k])
        index[axis % rank] = slice(int(first), None if step < 0 and last < -(1 << 30) else int(last), step)
    return tuple(index)


def _part(x: Value) -> Ball | None:
    """The ball of a selection: parts of vectors are no longer than the vectors."""
    return None if x.ball is None else Ball(x.ball.axis, x.ball.radius, x.ball.offset)


@rule("Split")
def _split(ctx: Composition, node: Node) -> tuple[Value, ...]:
    x, axis = ctx.values[node.inputs[0]], int(attribute(node, "axis", 0))
    full = flat_places(x)
    results, start = [], 0
    for k, name in enumerate(node.outputs):
        shape = ctx.shape(name) if name else None
        index = None
        if full is not None and shape is not None and shape[axis] is not None:
            n = shape[axis] or 0
            index = np.take(full, np.arange(start, start + n), axis=axis)
            start += n
        else:
            full = None
        if name:
            results.append(moved(ctx, node, x, index, output=k, ball=_part(x)))
    return tuple(results)


@rule("Gather")
def _gather(ctx: Composition, node: Node) -> Value:
    if not ctx.varying(node.inputs[0]) or ctx.varying(node.inputs[1]):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "its index varies with the input"))
    x, where, axis = ctx.values[node.inputs[0]], ctx.constant(node.inputs[1]), int(attribute(node, "axis", 0))
    if where is None:
        return ctx.fresh(node, math.inf, reason=unbounded(node, "its index is unknown before the model runs"))
    positions = where.astype(np.int64)
    full = flat_places(x)
    index = None if full is None else np.take(full, positions, axis=axis)
    copies = float(np.unique(positions, return_counts=True)[1].max()) if positions.size else 0.0
    ball = None
    if x.ball is not None and x.shape is not None:
        position, rank = len(x.shape) + x.ball.axis, len(x.shape)
        if position > axis % rank:
            ball = _part(x)
        elif position < axis % rank:
            ball = Ball(x.ball.axis - (positions.ndim - 1), x.ball.radius, x.ball.offset)
    return moved(ctx, node, x, index, copies=copies * (2.0 if (positions < 0).any() and index is None else 1.0), ball=ball)


@rule("Expand", "Tile")
def _expand(ctx: Composition, node: Node) -> Value:
    x, target = ctx.values[node.inputs[0]], ctx.constant(node.inputs[1])
    full = flat_places(x)
    if full is None or target is None or ctx.varying(node.inputs[1]):
        return ctx.fresh(node, math.inf, reason=ctx.reason(x) or unbounded(node, "the number of copies it makes is not known"))
    repeats = tuple(int(t) for t in target)
    index = np.tile(full, repeats) if node.op == "Tile" else np.broadcast_to(full, np.broadcast_shapes(full.shape, repeats))
    if index.size > _LARGE:
        return ctx.fresh(node, math.inf, reason=unbounded(node, "makes too many copies"))
    return moved(
        ctx,
        node,
        x,
        index,
        ball=x.ball
        if node.op == "Expand" and (x.ball is None or x.ball.axis == -1) and full.ndim > 0 and full.shape[-1] > 1
        else None,
    )


@rule("Pad")
def _pad(ctx: Composition, node: Node) -> Value:
    x, mode = ctx.values[node.inputs[0]], str(node.attributes.get("mode", "constant"))
    if len(node.inputs) > 2 and node.inputs[2] and ctx.varying(node.inputs[2]):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "pads with a value that varies with the input"))
    array = ctx.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    full, index = flat_places(x), None
    axes = ctx.constant(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else None
    if full is not None and array is not None:
        where = range(full.ndim) if axes is None else [int(a) % full.ndim for a in axes]
        widths = [(0, 0)] * full.ndim
        for k, a in enumerate(where):
            widths[a] = (int(array[k]), int(array[k + len(array) // 2]))
        cut = tuple(slice(max(0, -lo), n - max(0, -hi)) for (lo, hi), n in zip(widths, full.shape, strict=True))
        grow = [(max(0, lo), max(0, hi)) for lo, hi in widths]
        total = math.prod(n + lo + hi for n, (lo, hi) in zip(full.shape, grow, strict=True))
        if total <= _LARGE:
            if mode == "constant":
                index = np.pad(full[cut], grow, constant_values=-1)
            elif mode in ("edge", "reflect", "wrap"):
                index = np.pad(full[cut], grow, mode=mode)  # type: ignore[call-overload]
    if index is None and mode != "constant":
        return ctx.fresh(node, math.inf, reason=unbounded(node, f"how often mode {mode!r} copies an entry is not known"))
    y = moved(ctx, node, x, index)
    fill = ctx.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(())
    if mode == "constant" and fill is not None and fill.size == 1:
        f = float(fill.reshape(()))
        return replace(y, low=min(x.low, f), high=max(x.high, f))
    return replace(y, low=-math.inf, high=math.inf) if mode == "constant" else y


@rule("DepthToSpace", "SpaceToDepth")
def _blocks(ctx: Composition, node: Node) -> Value:
    x, block, index = ctx.values[node.inputs[0]], int(attribute(node, "blocksize", 1)), None
    full = flat_places(x)
    if full is not None and full.ndim == 4:
        n, c, h, w = full.shape
        if node.op == "SpaceToDepth":
            index = (
                full.reshape(n, c, h // block, block, w // block, block)
                .transpose(0, 3, 5, 1, 2, 4)
                .reshape(n, c * block**2, h // block, -1)
            )
        elif node.attributes.get("mode", "DCR") == "DCR":
            index = full.reshape(n, block, block, -1, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, -1, h * block, w * block)
        else:
            index = full.reshape(n, -1, block, block, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, h * block, w * block)
    return moved(ctx, node, x, index)


@rule("Trilu")
def _trilu(ctx: Composition, node: Node) -> Value:
    return moved(ctx, node, ctx.values[node.inputs[0]], None)  # entries set to zero or kept


@rule("Concat")
def _concat(ctx: Composition, node: Node) -> Value:
    """Parts of one value side by side are a rearrangement of it; otherwise ``√ΣL²``."""
    axis = int(attribute(node, "axis", 0))
    values = [ctx.values[n] for n in node.inputs if ctx.varying(n)]
    shapes = [ctx.shape(n) for n in node.inputs if n]
    constants = [ctx.constant(n) for n in node.inputs if not ctx.varying(n)]
    low = min([v.low for v in values] + [-math.inf if c is None else float(c.min(initial=math.inf)) for c in constants])
    high = max([v.high for v in values] + [math.inf if c is None else float(c.max(initial=-math.inf)) for c in constants])
    known: KnownOfValue = {"low": low, "high": high}
    balls = [v.ball for v in values]
    rank = len(values[0].shape) if values[0].shape is not None else 0
    if rank and all(b is not None and b.axis == -1 for b in balls) and axis % rank != rank - 1:
        rows = [np.linalg.norm(c, axis=-1).max(initial=0.0) for c in constants if c is not None]
        if len(rows) == len(constants):
            known["ball"] = Ball(-1, max([b.reach for b in balls if b] + [float(r) * (1 + 1e-9) for r in rows]), 0.0)
    joined = _joined(ctx, node, axis, shapes)
    if joined is not None:
        anchor, index = joined
        return ctx.linear(node, anchor, Rearrange((node,), anchor.shape, index.shape, index), **known)
    return ctx.fresh(node, root_sum(*(ctx.log(v) for v in values)), *values, **known)


def _joined(ctx: Composition, node: Node, axis: int, shapes: list[OpenShape | None]) -> tuple[Value, np.ndarray] | None:
    """The one value of which all parts are rearrangements, and the index of their concatenation."""
    anchors, parts = [], []
    for name, shape in zip((n for n in node.inputs if n), shapes, strict=True):
        if shape is None or None in shape or math.prod(d or 0 for d in shape) > _LARGE:
            return None
        dims = [d or 0 for d in shape]
        if not ctx.varying(name):
            parts.append(np.full(dims, -1))
            continue
        value = ctx.values[name]
        terms = value.terms or ((value, ()),)
        if len(terms) != 1:
            return None
        anchor, chain = terms[0]
        moves = [e for e in chain if isinstance(e, Rearrange)]
        if len(moves) != len(chain) or len(chain) > 1:
            return None
        index = moves[0].full() if moves else flat_places(anchor)
        if index is None or index.size != math.prod(dims):
            return None
        anchors.append(anchor)
        parts.append(index.reshape(dims))
    if len({id(a) for a in anchors}) != 1 or len(anchors) < 1 or anchors[0].size is None:
        return None
    return anchors[0], np.concatenate(parts, axis=axis)


@rule("ConstantOfShape", "Shape", "Size")
def _fixed(ctx: Composition, node: Node) -> Value:
    return ctx.fresh(node, -math.inf)
