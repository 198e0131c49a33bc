"""Normalisations that exporters write out as ReduceMean, Sub, Pow, Sqrt and Div."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxfim.graph.flow import Flow
from onnxfim.graph.graph import Node


@dataclass(frozen=True)
class WrittenNormalisation:
    """The value ``source`` divided by the root of its variance or mean square plus ``epsilon``; ``last``: along the last
    axis."""

    kind: str
    source: str
    epsilon: float
    last: bool


def normalisations(flow: Flow) -> dict[str, WrittenNormalisation]:
    """Written-out normalisations by the value they end in, before scale and bias."""
    found: dict[str, WrittenNormalisation] = {}
    for node in flow.graph.nodes:
        if node.op in ("Div", "Mul") and (match := _match(flow, node)) is not None:
            found[node.outputs[0]] = match
    return found


def _match(flow: Flow, node: Node) -> WrittenNormalisation | None:
    a, b = node.inputs[:2]
    for top, bottom in ((a, b),) if node.op == "Div" else ((a, b), (b, a)):
        under = _root(flow, bottom, inverse=node.op == "Mul")
        if under is None:
            continue
        plus = _up(flow, under)
        if plus is None or plus.op != "Add":
            continue
        for mean, eps in (plus.inputs[:2], plus.inputs[1::-1]):
            epsilon = flow.constant(eps)
            if epsilon is not None and epsilon.size == 1 and (found := _square_mean(flow, mean, top, float(epsilon.reshape(())))):
                return found
    return None


def _root(flow: Flow, name: str, *, inverse: bool) -> str | None:
    """The value under the (inverse) square root that ``name`` is."""
    node = _up(flow, name)
    if node is None:
        return None
    if inverse:
        if node.op == "Reciprocal":
            return _root(flow, node.inputs[0], inverse=False)
        if node.op == "Div" and _is(flow, node.inputs[0], 1.0):
            return _root(flow, node.inputs[1], inverse=False)
    if node.op == "Sqrt" and not inverse:
        return node.inputs[0]
    if node.op == "Pow" and _is(flow, node.inputs[1], -0.5 if inverse else 0.5):
        return node.inputs[0]
    return None


def _square_mean(flow: Flow, name: str, top: str, epsilon: float) -> WrittenNormalisation | None:
    """The normalisation of ``top`` by the mean square that ``name`` is."""
    mean = _up(flow, name)
    if mean is None or mean.op != "ReduceMean" or mean.attributes.get("keepdims", 1) != 1:
        return None
    axes = axes_of(flow, mean)
    square = _up(flow, mean.inputs[0])
    if axes is None or square is None:
        return None
    if (square.op == "Pow" and _is(flow, square.inputs[1], 2.0)) or (
        square.op == "Mul" and _plain(flow, square.inputs[0]) == _plain(flow, square.inputs[1])
    ):
        base = square.inputs[0]
    else:
        return None
    shape = flow.shape(_plain(flow, base))
    last = axes == (-1,) or (shape is not None and axes == (len(shape) - 1,))
    first, second = _centred(flow, base, axes), _centred(flow, top, axes)
    if first is not None and first == second:
        return WrittenNormalisation("LayerNormalization", first, epsilon, last)
    if _plain(flow, base) == _plain(flow, top):
        return WrittenNormalisation("RMSNormalization", _plain(flow, top), epsilon, last)
    return None


def _centred(flow: Flow, name: str, axes: tuple[int, ...]) -> str | None:
    """The value x when ``name`` is ``x − mean(x)`` along ``axes``."""
    node = _up(flow, name)
    if node is None or node.op != "Sub":
        return None
    x, mean = _plain(flow, node.inputs[0]), _up(flow, node.inputs[1])
    if mean is None or mean.op != "ReduceMean" or _plain(flow, mean.inputs[0]) != x or axes_of(flow, mean) != axes:
        return None
    return x if mean.attributes.get("keepdims", 1) == 1 else None


def axes_of(flow: Flow, node: Node) -> tuple[int, ...] | None:
    """The axes of a reduction; None where it names none, or where they are not known before the model runs."""
    value = flow.constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    return None if value is None else tuple(int(a) for a in np.atleast_1d(value))


def _plain(flow: Flow, name: str) -> str:
    node = flow.graph.producers.get(name)
    while node is not None and node.op in ("Identity", "Cast", "Dropout"):
        name = node.inputs[0]
        node = flow.graph.producers.get(name)
    return name


def _up(flow: Flow, name: str) -> Node | None:
    return flow.graph.producers.get(_plain(flow, name))


def _is(flow: Flow, name: str, value: float) -> bool:
    constant = flow.constant(name)
    return constant is not None and constant.size == 1 and bool(np.isclose(float(constant.reshape(())), value))
