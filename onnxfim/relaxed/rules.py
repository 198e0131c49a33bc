"""The rules of the operators: which steps each is for local bounds."""

from __future__ import annotations

import math
from typing import Any, TypeAlias, cast

import numpy as np
from onnx import helper

from onnxfim.graph.graph import Node
from onnxfim.relaxed import curves
from onnxfim.relaxed.curves import Curve
from onnxfim.relaxed.maps import Before, Convolution, Dense, Map, Pick, Same, Transposed, Windows, windows
from onnxfim.relaxed.network import Site, rule
from onnxfim.relaxed.steps import Affine, Bent, Grid, Largest, Product

Array: TypeAlias = np.ndarray[Any, Any]

_FLOATS = (1, 10, 11, 16)  # element types that a Cast leaves real numbers


def _number(node: Node, name: str, default: float) -> float:
    value = node.attributes.get(name)
    return default if value is None else float(cast("float", value))


def _whole(node: Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    value = node.attributes.get(name)
    return default if not value else tuple(int(v) for v in cast("tuple[int, ...]", value))


def _first(site: Site, node: Node) -> str:
    """The node's first input, where it is the only one that varies."""
    if not site.varies(node.inputs[0]) or any(site.varies(i) for i in node.inputs[1:] if i):
        raise site.none(node, "varies in another input than its first, which has no local rule")
    return node.inputs[0]


# moves


@rule("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _same(site: Site, node: Node) -> None:
    x = _first(site, node)
    if node.op == "Dropout" and len(node.inputs) > 2 and node.inputs[2] and np.any(site.weight(node, 2, "training mode")):
        raise site.none(node, "is in training mode, where the output is random")
    site.affine(node, [(x, Same(math.prod(site.shape(node, x))))], exact=True)
    _keep_grid(site, node, x)


@rule("Cast")
def _cast(site: Site, node: Node) -> None:
    if int(_number(node, "to", 1)) not in _FLOATS:
        raise site.none(node, "rounds to whole numbers, which has no local rule")
    x = node.inputs[0]
    site.affine(node, [(x, Same(math.prod(site.shape(node, x))))])


def _keep_grid(site: Site, node: Node, x: str) -> None:
    if x in site.grids:
        site.grids.update({o: site.grids[x] for o in node.outputs if o})


@rule("Transpose", "Slice", "Gather", "Split", "Expand", "Pad", "DepthToSpace", "SpaceToDepth", "Concat", "Tile", "Where")
def _moved(site: Site, node: Node) -> None:
    """What only moves numbers: it is run on their places, counted from 1; 0 stands for a zero of its own."""
    from onnx.reference import ReferenceEvaluator  # here: its import takes 0.1 s

    data = {"Concat": range(len(node.inputs)), "Where": (1, 2), "Pad": (0, 2)}.get(node.op, (0,))
    numbered: dict[str, int] = {}
    feeds: dict[str, Array] = {}
    count = 1
    for at, name in enumerate(node.inputs):
        if not name:
            continue
        if at in data and name not in numbered:
            shape = site.shape(node, name) if site.varies(name) else site.weight(node, at, "data").shape
            numbered[name] = count
            feeds[name] = np.arange(count, count + math.prod(shape), dtype=np.float64).reshape(shape)
            count += math.prod(shape)
        elif at not in data:
            if site.varies(name):
                raise site.none(node, "where it takes its numbers from depends on the input, which has no local rule")
            value = site.view.constant(name)
            if value is None:
                raise site.none(node, "where it takes its numbers from is not known before the model runs")
            feeds[name] = np.asarray(value)
    if node.op == "Pad" and node.attributes.get("mode", "constant") not in ("constant", "edge", "reflect", "wrap"):
        raise site.none(node, "pads in a way that has no local rule")
    proto = helper.make_node(node.op, list(node.inputs), list(node.outputs), **dict(node.attributes))
    opset = site.view.graph.opsets.get("ai.onnx", 18)
    try:
        results = ReferenceEvaluator(proto, opsets={"": opset}).run(None, feeds)
    except Exception as error:
        raise site.none(node, f"what it moves cannot be told ({type(error).__name__})") from error
    for name, result in zip(node.outputs, results, strict=False):
        if not name:
            continue
        places = np.rint(np.asarray(result)).astype(np.int64).ravel()
        parts: list[tuple[str, Map]] = []
        bias = np.zeros(len(places))
        for source, start in numbered.items():
            index = places - start
            size = feeds[source].size
            ok = (index >= 0) & (index < size)
            if site.varies(source):
                parts.append((source, Pick(size, np.where(ok, index, -1))))
            else:
                bias[ok] = np.asarray(site.constant(source)).ravel()[index[ok]]
        if any(p in site.grids for p, _ in parts):
            if len({site.grids.get(p) for p, _ in parts}) > 1 or bias.any():
                raise site.none(node, "joins whole numbers of several scales, which has no local rule")
            site.grids[name] = site.grids[parts[0][0]]
        if math.prod(site.shape(node, name)) != len(places):
            raise site.none(node, "what it moves cannot be told")
        site.steps.append(Affine(name, tuple(parts), bias, site.units(name), exact=True))


# linear maps with weights


@rule("MatMul")
def _matmul(site: Site, node: Node) -> None:
    a, b = node.inputs[:2]
    if site.varies(a) and site.varies(b):
        raise site.none(node, "multiplies two values that vary (as attention does), which has no local rule")
    if site.varies(a):
        W, shape = site.weight(node, 1, "matrix"), site.shape(node, a)
        W = W[:, None] if W.ndim == 1 else W
        if math.prod(W.shape[:-2]) != 1:
            raise site.none(node, "multiplies by several matrices, which has no local rule")
        W = W.reshape(W.shape[-2:])
        site.affine(node, [(a, Dense(W, math.prod(shape) // max(W.shape[0], 1)))])
        return
    W, shape = site.weight(node, 0, "matrix"), site.shape(node, b)
    if W.ndim != 2 or len(shape) < 2:
        raise site.none(node, "multiplies by several matrices, which has no local rule")
    site.affine(node, [(b, Before(W, math.prod(shape[:-2]), shape[-1]))])


@rule("Gemm")
def _gemm(site: Site, node: Node) -> None:
    a, b = node.inputs[:2]
    if not site.varies(a) or site.varies(b) or node.attributes.get("transA", 0):
        raise site.none(node, "varies in its matrix, or is transposed, which has no local rule")
    W = site.weight(node, 1, "matrix") * _number(node, "alpha", 1.0)
    W = W.T if node.attributes.get("transB", 0) else W
    out = site.shape(node, node.outputs[0])
    parts: list[tuple[str, Map]] = [(a, Dense(np.ascontiguousarray(W), math.prod(site.shape(node, a)) // max(W.shape[0], 1)))]
    bias: Array | float = 0.0
    if len(node.inputs) > 2 and node.inputs[2]:
        beta = _number(node, "beta", 1.0)
        if site.varies(node.inputs[2]):
            index = site.spread(node, node.inputs[2], out)
            parts.append((node.inputs[2], Pick(int(index.max()) + 1, index, np.full(len(index), beta))))
        else:
            bias = np.broadcast_to(beta * site.weight(node, 2, "bias"), out)
    site.affine(node, parts, bias)


@rule("Conv", "ConvTranspose")
def _conv(site: Site, node: Node) -> None:
    x = _first(site, node)
    kernel, shape, out = site.weight(node, 1, "kernel"), site.shape(node, x), site.shape(node, node.outputs[0])
    rank, groups = kernel.ndim - 2, int(_number(node, "group", 1))
    if len(shape) != kernel.ndim or rank < 1:
        raise site.none(node, f"its kernel has {kernel.ndim} axes, its input {len(shape)}")
    if shape[0] != 1:
        raise site.none(node, "several rows are one value here, which has no local rule")
    strides, dilations = _whole(node, "strides", (1,) * rank), _whole(node, "dilations", (1,) * rank)
    backwards = node.op == "ConvTranspose"
    if backwards and (
        node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", "") or "output_shape" in node.attributes
    ):
        raise site.none(node, "is padded in a way that has no local rule")
    sizes = (out[2:], shape[2:]) if backwards else (shape[2:], out[2:])
    pads = _pads(node, kernel.shape[2:], strides, dilations, *sizes)
    conv = Convolution(kernel, *sizes, strides, dilations, pads, groups)
    bias: Array | float = 0.0
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = np.broadcast_to(site.weight(node, 2, "bias").reshape(-1, *(1,) * rank), out[1:])
    site.affine(node, [(x, Transposed(conv, math.prod(shape), math.prod(out)) if backwards else conv)], bias)


def _pads(
    node: Node, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], size: tuple[int, ...],
    out: tuple[int, ...],
) -> tuple[int, ...]:  # fmt: skip
    """Padding in front of each axis."""
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return (0,) * len(size)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max(0, (m - 1) * s + (k - 1) * d + 1 - n) for n, m, k, s, d in zip(size, out, kernel, strides, dilations, strict=True)
        ]
        return tuple(t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in totals)
    return _whole(node, "pads", (0,) * (2 * len(size)))[: len(size)]


@rule("BatchNormalization")
def _batch_normalization(site: Site, node: Node) -> None:
    x, out = _first(site, node), site.shape(node, node.outputs[0])
    if node.attributes.get("training_mode", 0):
        raise site.none(node, "is in training mode, where samples of a batch change each other")
    gamma, beta, mean, variance = (site.weight(node, k, "parameters").ravel() for k in range(1, 5))
    floor = variance + _number(node, "epsilon", 1e-5)
    if not (floor > 0).all():
        raise site.none(node, "has a variance that is not positive")
    factor = gamma / np.sqrt(floor)
    along = (-1, *(1,) * (len(out) - 2))
    weights = np.broadcast_to(factor.reshape(along), out[1:]).ravel()
    _scaled(site, node, x, weights, np.broadcast_to((beta - mean * factor).reshape(along), out[1:]), out)


def _scaled(site: Site, node: Node, x: str, weights: Array, bias: Array | float, out: tuple[int, ...]) -> None:
    """``weights·x + bias``, x broadcast to the output."""
    index = site.spread(node, x, out)
    site.affine(node, [(x, Pick(math.prod(site.shape(node, x)), index, weights))], bias)


@rule("Add", "Sub", "Sum", "Mean")
def _add(site: Site, node: Node) -> None:
    out = site.shape(node, node.outputs[0])
    parts: list[tuple[str, Map]] = []
    bias = np.zeros(out)
    for at, name in enumerate(node.inputs):
        factor = -1.0 if node.op == "Sub" and at else 1.0 / len(node.inputs) if node.op == "Mean" else 1.0
        if not site.varies(name):
            bias = bias + factor * site.weight(node, at, "constant")
            continue
        n = math.prod(site.shape(node, name))
        if n == math.prod(out) and factor == 1.0:
            parts.append((name, Same(n)))
        else:
            parts.append((name, Pick(n, site.spread(node, name, out), np.full(math.prod(out), factor))))
    site.affine(node, parts, bias)


@rule("Neg")
def _neg(site: Site, node: Node) -> None:
    out = site.shape(node, node.outputs[0])
    _scaled(site, node, node.inputs[0], np.full(math.prod(out), -1.0), 0.0, out)


@rule("Mul", "Div")
def _mul(site: Site, node: Node) -> None:
    a, b = node.inputs[:2]
    out = site.shape(node, node.outputs[0])
    if site.varies(a) and site.varies(b):
        if node.op == "Div":
            raise site.none(node, "divides by a value that varies, which has no local rule")
        names = (site.repeated(node, a, out), site.repeated(node, b, out))
        site.steps.append(Product(node.outputs[0], names, math.prod(out), site.units(node.outputs[0])))
        return
    if node.op == "Div" and not site.varies(a):
        raise site.none(node, "divides by a value that varies, which has no local rule")
    factor = site.weight(node, 1 if site.varies(a) else 0, "factor")
    if node.op == "Div":
        if (factor == 0).any():
            raise site.none(node, "divides by zero")
        factor = 1.0 / factor
    _scaled(site, node, a if site.varies(a) else b, np.broadcast_to(factor, out).ravel(), 0.0, out)


@rule("ReduceMean", "ReduceSum", "GlobalAveragePool", "ReduceMax", "GlobalMaxPool")
def _reduced(site: Site, node: Node) -> None:
    x = _first(site, node)
    shape = site.shape(node, x)
    if node.op.startswith("Global"):
        axes = tuple(range(2, len(shape)))
    else:
        given = _whole(node, "axes", ())
        if len(node.inputs) > 1 and node.inputs[1]:
            given = tuple(int(a) for a in site.weight(node, 1, "axes").ravel())
        if not given and node.attributes.get("noop_with_empty_axes", 0):
            raise site.none(node, "names no axes, which has no local rule")
        axes = tuple(sorted(a % len(shape) for a in given)) or tuple(range(len(shape)))
    places = np.arange(math.prod(shape)).reshape(shape)
    rest = [k for k in range(len(shape)) if k not in axes]
    index = places.transpose(*rest, *axes).reshape(-1, math.prod(shape[a] for a in axes))
    if node.op in ("ReduceMax", "GlobalMaxPool"):
        site.steps.append(Largest(node.outputs[0], x, index, math.prod(shape)))
        return
    weight = 1.0 if node.op == "ReduceSum" else 1.0 / index.shape[1]
    site.affine(node, [(x, Windows(math.prod(shape), index, np.full(index.shape, weight)))])


@rule("AveragePool", "MaxPool")
def _pool(site: Site, node: Node) -> None:
    x = _first(site, node)
    if len([o for o in node.outputs if o]) > 1:
        raise site.none(node, "tells which entries are largest, which has no local rule")
    shape, out = site.shape(node, x), site.shape(node, node.outputs[0])
    rank = len(shape) - 2
    kernel, strides = _whole(node, "kernel_shape", ()), _whole(node, "strides", (1,) * rank)
    dilations = _whole(node, "dilations", (1,) * rank)
    pads = _pads(node, kernel, strides, dilations, shape[2:], out[2:])
    index = windows(shape[2:], out[2:], kernel, strides, pads, dilations, shape[0] * shape[1])
    if node.op == "MaxPool":
        if (index < 0).all(axis=1).any():
            raise site.none(node, "has windows of padding alone, which have no local rule")
        site.steps.append(Largest(node.outputs[0], x, index, math.prod(shape)))
        _keep_grid(site, node, x)
        return
    inside = index >= 0
    if node.attributes.get("count_include_pad", 0):
        if node.attributes.get("ceil_mode", 0):
            raise site.none(node, "counts padding in windows that reach beyond it, which has no local rule")
        count = np.full((len(index), 1), index.shape[1])
    else:
        count = np.maximum(inside.sum(axis=1, keepdims=True), 1)
    site.affine(node, [(x, Windows(math.prod(shape), index, inside / count))])


# curves


def _bent(site: Site, node: Node, curve: Curve, grid: Grid | None = None) -> None:
    x = node.inputs[0]
    if not site.varies(x):
        raise site.none(node, "varies in another input than its first, which has no local rule")
    site.steps.append(Bent(node.outputs[0], x, math.prod(site.shape(node, x)), curve, site.units(node.outputs[0]), grid))


@rule("Relu")
def _relu(site: Site, node: Node) -> None:
    _bent(site, node, curves.relu())


@rule("LeakyRelu")
def _leaky(site: Site, node: Node) -> None:
    _bent(site, node, curves.leaky(_number(node, "alpha", 0.01)))


@rule("PRelu")
def _prelu(site: Site, node: Node) -> None:
    out = site.shape(node, node.outputs[0])
    _bent(site, node, curves.leaky(np.broadcast_to(site.weight(node, 1, "slope"), out).ravel()))


@rule("Clip")
def _clip(site: Site, node: Node) -> None:
    ends = []
    for at, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        if len(node.inputs) > at and node.inputs[at]:
            ends.append(float(site.weight(node, at, "range").ravel()[0]))
        else:
            ends.append(_number(node, name, default))
    if not ends[0] <= ends[1]:
        raise site.none(node, f"clips to an empty range, {ends[0]:g} to {ends[1]:g}")
    _bent(site, node, curves.clip(*ends))


@rule("HardSigmoid")
def _hard_sigmoid(site: Site, node: Node) -> None:
    _bent(site, node, curves.hard_sigmoid(_number(node, "alpha", 0.2), _number(node, "beta", 0.5)))


@rule("Gelu")
def _gelu(site: Site, node: Node) -> None:
    if node.attributes.get("approximate", "none") != "none":
        raise site.none(node, "is an approximation that has no local rule")
    _bent(site, node, curves.gelu())


@rule("Elu")
def _elu(site: Site, node: Node) -> None:
    _bent(site, node, curves.elu(_number(node, "alpha", 1.0)))


def _plain(op: str, make: Any) -> None:
    rule(op)(lambda site, node: _bent(site, node, make()))


for _op, _make in {
    "Abs": curves.absolute, "HardSwish": curves.hard_swish, "Sigmoid": curves.sigmoid, "Tanh": curves.tanh, "Erf": curves.erf,
    "Softplus": curves.softplus, "com.microsoft.Gelu": curves.gelu,
}.items():  # fmt: skip
    _plain(_op, _make)


# quantised values


def _scale_of(site: Site, node: Node) -> tuple[float, int, np.dtype[Any]]:
    """Scale, zero point and its type, of a node with one of each."""
    scale = site.weight(node, 1, "scale")
    zero = site.view.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros((), np.uint8)
    if zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu" or not float(scale.ravel()[0]) > 0:
        raise site.none(node, "has no single constant scale and zero point, which has no local rule")
    return float(scale.ravel()[0]), int(zero.ravel()[0]), zero.dtype


@rule("QuantizeLinear", "com.microsoft.QuantizeLinear")
def _quantize(site: Site, node: Node) -> None:
    scale, zero, kind = _scale_of(site, node)
    ends = np.iinfo(kind)
    grid = Grid(scale, int(ends.min) - zero, int(ends.max) - zero)
    _bent(site, node, curves.clip(grid.least * scale, grid.most * scale), grid)
    site.grids[node.outputs[0]] = (scale, zero)


@rule("DequantizeLinear", "com.microsoft.DequantizeLinear")
def _dequantize(site: Site, node: Node) -> None:
    x = node.inputs[0]
    scale, zero, _ = _scale_of(site, node)
    if site.grids.get(x) != (scale, zero):
        raise site.none(node, "takes whole numbers of another scale than they were made with, which has no local rule")
    site.affine(node, [(x, Same(math.prod(site.shape(node, x))))], exact=True)
