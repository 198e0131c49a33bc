"""Which node of a deployed file is which node of the trained one: by their weights, whatever the exporter called them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.graph.graph import Graph
from onnxfim.graph.known_values import KnownValues

Array: TypeAlias = np.ndarray[Any, Any]

#: Operators whose constants are no parameters.
_NO_PARAMETERS = frozenset(
    {
        "Cast", "CastLike", "Clip", "Constant", "ConstantOfShape", "DequantizeLinear", "DynamicQuantizeLinear", "Expand", "Flatten",
        "Identity", "OneHot", "Pad", "QuantizeLinear", "Range", "Reshape", "Resize", "Shape", "Slice", "Squeeze", "Transpose",
        "Unsqueeze", "Upsample",
    }
)  # fmt: skip
_COMMUTATIVE = ("Add", "Mul", "Max", "Min")
#: The role of the one parameter of an operator that takes it on either side.
EITHER = "either"
_NEAR = 1.1  # relative distance of weights above which they are another layer's: of unrelated ones it is about √2
_SAME = 1e-6  # relative: the same numbers, stored once more
_FAR = 1e6  # of weights that are no numbers
_SUFFIX = re.compile(r"(_?(de)?quant(ized?|izelinear|ised?)?|_dq|_q|_output|_scaled?|_matmul|_fp16|_cast)+(_\d+)?$", re.IGNORECASE)
_OTHER_NAME, _OUT_OF_ORDER = 0.3, 0.1  # what a pair costs for another name, or for its place, in relative distances


@dataclass(frozen=True)
class Layer:
    """A node with its parameters as floats.

    Attributes:
        index: Its position among the model's nodes.
        label: Its name, or that of its first output.
        operator: Its type.
        kind: What it computes, whatever the operator: ``conv``, ``dense``, or the type itself.
        weights: Its parameters by their role; of ``dense`` the weight is (in, out).
        folded: The same with the BatchNormalization behind it folded in, where there is one.
    """

    index: int
    label: str
    operator: str
    kind: str
    weights: Mapping[str, Array]
    folded: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Twin:
    """The layer of the trained file that a layer of the deployed one was made from.

    ``weights`` are its parameters by role; ``distance`` is how far the deployed one's are from them, ``‖W − W′‖ / ‖W′‖``.
    """

    label: str
    weights: Mapping[str, Array]
    distance: float


@dataclass(frozen=True)
class Alignment:
    """Twins of the deployed file's layers by their node's position; ``why`` tells of the others."""

    twins: Mapping[int, Twin]
    why: Mapping[int, str]


def roles(node: onnx.NodeProto) -> tuple[str, dict[str, int], bool]:
    """What a node computes, the inputs that hold its parameters by role, and whether its weight is stored (out, in)."""
    given = {a.name: a for a in node.attribute}
    if node.op_type in ("Conv", "FusedConv"):
        return "conv", {"W": 1, "B": 2}, False
    if node.op_type == "Gemm":
        turned = bool("transB" in given and given["transB"].i)
        return "dense", {"W": 1, "B": 2}, turned
    if node.op_type == "MatMul":
        return "dense", {"W": 1}, False
    return node.op_type, {str(k): k for k in range(len(node.input))}, False


def layers(model: onnx.ModelProto, *, base_dir: str | os.PathLike[str] = ".") -> tuple[Layer, ...]:
    """All nodes with parameters, in the order of computation. Parameters are constants of floats with more than one number."""
    values = KnownValues(model, base_dir=base_dir)
    graph = Graph(model, base_dir=base_dir)
    found = []
    for view in graph.nodes:
        node = model.graph.node[view.index]
        if node.op_type in _NO_PARAMETERS:
            continue
        kind, places, turned = roles(node)
        weights = _parameters(node, values, places, turned)
        if weights and (kind not in ("conv", "dense") or "W" in weights):
            folded = _folded(graph, view.outputs[0], values, kind, weights)
            found.append(Layer(view.index, view.label, node.op_type, kind, weights, folded))
    return tuple(found)


def _parameters(node: onnx.NodeProto, values: KnownValues, places: Mapping[str, int], turned: bool) -> dict[str, Array]:
    found = {}
    for role, at in places.items():
        value = values.value(node.input[at]) if at < len(node.input) and node.input[at] else None
        if value is None or value.size < 2 or value.dtype.kind in "iub" or value.dtype == object:
            continue
        value = value.astype(np.float32)
        found[role] = value.T if turned and role == "W" and value.ndim == 2 else value.ravel() if role == "B" else value
    if node.op_type in _COMMUTATIVE and len(found) == 1:
        return {EITHER: next(iter(found.values()))}
    return found


def _folded(graph: Graph, output: str, values: KnownValues, kind: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters with the BatchNormalization that alone reads the node's output; empty where there is none."""
    readers = graph.consumers.get(output, ())
    if kind not in ("conv", "dense") or len(readers) != 1 or readers[0].op != "BatchNormalization":
        return {}
    scale, shift, mean, variance = (values.value(i) for i in readers[0].inputs[1:5])
    if scale is None or shift is None or mean is None or variance is None:
        return {}
    epsilon = readers[0].attributes.get("epsilon", 1e-5)
    factor = scale / np.sqrt(variance + (epsilon if isinstance(epsilon, float) else 1e-5))
    W = weights["W"]
    columns = (-1, *[1] * (W.ndim - 1)) if kind == "conv" else (1, -1)
    bias = weights.get("B", np.zeros(1)) - mean
    return {"W": (W * factor.reshape(columns)).astype(np.float32), "B": (bias * factor + shift).astype(np.float32)}


def align(deployed: Sequence[Layer], trained: Sequence[Layer]) -> Alignment:
    """The twins of the deployed layers.

    Among layers of one kind and one shape those are paired that lie nearest to each other in all: the relative distance of their
    weights, and a little for another name and for another place. A name alone proves nothing, and neither does an order: weights
    that are nobody's stay without a twin unless their name and shape leave no choice.
    """
    groups: dict[tuple[object, ...], tuple[list[int], list[int]]] = {}
    for side, some in enumerate((deployed, trained)):
        for k, layer in enumerate(some):
            groups.setdefault(_shape(layer), ([], []))[side].append(k)
    twins: dict[int, Twin] = {}
    why: dict[int, str] = {}
    for rows, columns in groups.values():
        if not rows:
            continue
        if not columns:
            why.update((deployed[r].index, f"the trained file has no {deployed[r].kind} node of this shape") for r in rows)
            continue
        offers = [[_nearest(deployed[r], trained[c]) for c in columns] for r in rows]
        cost = np.array([[o[0] for o in line] for line in offers])
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                cost[i, j] += _OTHER_NAME * (_name(deployed[r].label) != _name(trained[c].label))
                cost[i, j] += _OUT_OF_ORDER * abs(r / max(len(deployed), 1) - c / max(len(trained), 1))
        from scipy.optimize import linear_sum_assignment

        for i, j in zip(*linear_sum_assignment(np.nan_to_num(cost, nan=_FAR, posinf=_FAR)), strict=True):
            layer, other = deployed[rows[i]], trained[columns[j]]
            distance, weights = offers[i][j]
            told = _name(layer.label) == _name(other.label) or len(rows) == len(columns) == 1
            if distance <= _NEAR or told:
                twins[layer.index] = Twin(other.label, weights, distance)
            else:
                why[layer.index] = (
                    f"its weights are no layer's of the trained file (the nearest at a relative distance of {distance:.2f})"
                )
        paired = {*twins, *why}
        why.update(
            (deployed[r].index, "the trained file has fewer nodes of its kind and shape")
            for r in rows
            if deployed[r].index not in paired
        )
    return Alignment(twins, why)


def _shape(layer: Layer) -> tuple[object, ...]:
    """What two layers must share to be the same: their kind, and the shape of the largest parameter."""
    largest = max(layer.weights.values(), key=lambda w: w.size)
    return (
        (layer.kind, *(n for n in largest.shape if n != 1))
        if layer.kind not in ("conv", "dense")
        else (layer.kind, *layer.weights["W"].shape)
    )


def _nearest(layer: Layer, other: Layer) -> tuple[float, Mapping[str, Array]]:
    """The relative distance from another layer's parameters, plain or folded, and those that are nearer."""
    found = [(_distance(layer.weights, w), w) for w in (other.weights, other.folded) if w]
    return min(found, key=lambda pair: pair[0])


def _distance(one: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    """``‖W − W′‖ / ‖W′‖`` over the parameters that both have; weights alone where there are any."""
    shared = [r for r in one if r in other and one[r].size == other[r].size]
    if not shared:
        return 2.0
    apart = sum(float(((one[r].ravel() - other[r].ravel()) ** 2).sum()) for r in (["W"] if "W" in shared else shared))
    size = sum(float((other[r] ** 2).sum()) for r in (["W"] if "W" in shared else shared))
    return float(np.sqrt(apart / size)) if size > 0 else (0.0 if apart == 0 else 2.0)


def unchanged(layer: Layer, trained: Sequence[Layer]) -> bool:
    """Whether all parameters of a layer are held by the trained file in some node: nothing of it was changed."""
    held = [w for t in trained for w in (*t.weights.values(), *t.folded.values())]
    return all(any(w.size == h.size and _close(w, h) for h in held) for w in layer.weights.values())


def _close(one: Array, other: Array) -> bool:
    size = float(np.abs(other).max(initial=0.0))
    return bool(np.abs(one.ravel() - other.ravel()).max(initial=0.0) <= _SAME * size)


def _name(label: str) -> str:
    """A node's name without what exporters and quantisers add."""
    return _SUFFIX.sub("", label).lower()


__all__ = ["Alignment", "Layer", "Twin", "align", "layers", "roles", "unchanged"]
