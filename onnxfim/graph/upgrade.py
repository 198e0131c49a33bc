"""Bring nodes of operator sets 7 to 17 to the form of set 18: node by node, weights untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper

from onnxfim.errors import ModelError, UnsupportedOperator
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.shapes import STANDARD, Walk

OLDEST = 7
TARGET = 18
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_COERCED = ("Softmax", "LogSoftmax", "Hardmax")
_MARK = "coerced at"  # an attribute that no file holds


def attributes_of(node: onnx.NodeProto) -> dict[str, object]:
    """Attributes of a node as Python values."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def too_old(version: int) -> str | None:
    """Why an operator set cannot be brought to the form of set 18, or None."""
    if version >= OLDEST:
        return None
    return f"the model uses operator set {version}; expected at least {OLDEST}. Re-export it with a newer one."


def upgrade(nodes: Iterable[onnx.NodeProto], version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    """Return the nodes in the form of operator set 18; those of newer sets stay as they are.

    Args:
        nodes: Nodes of the standard operators at ``version``; they may be changed.
        version: Operator set the nodes were written for.
        emitter: Takes the constants that were attributes; its nodes are not touched.

    Raises:
        ModelError: a set older than 7.
        UnsupportedOperator: a form that has no counterpart.
    """
    why = too_old(version)
    if why is not None:
        raise ModelError(why)
    done: list[onnx.NodeProto] = []
    for node in nodes:
        change = _CHANGES.get(node.op_type) if node.domain in STANDARD else None
        if change is not None and version < change[0]:
            done.extend(change[1](node, version, emitter))
        else:
            done.append(node)
    return done


Change: TypeAlias = "Callable[[onnx.NodeProto, int, Emitter], list[onnx.NodeProto]]"


def _again(node: onnx.NodeProto, op_type: str, inputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, list(node.output), name=node.name, **attributes)


def _ints(emitter: Emitter, values: object) -> str:
    return emitter.constant(np.asarray(values, np.int64).reshape(-1))


def _axes_input(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    attributes = attributes_of(node)
    axes = attributes.pop("axes", None)
    inputs = [node.input[0], *([_ints(emitter, axes)] if axes is not None else [])]
    return [_again(node, node.op_type, inputs, **attributes)] if len(node.input) < 2 else [node]


def _split(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    attributes = attributes_of(node)
    sizes = attributes.pop("split", None)
    inputs = list(node.input)
    if sizes is not None:
        inputs = [inputs[0], _ints(emitter, sizes)]
    elif len(inputs) < 2:
        attributes["num_outputs"] = len(node.output)
    return [_again(node, "Split", inputs, **attributes)]


def _clip(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    bounds = attributes_of(node)
    inputs = [node.input[0]]
    for name in ("min", "max"):
        inputs.append(emitter.constant(np.asarray(bounds[name], np.float32)) if name in bounds else "")
    return [_again(node, "Clip", inputs)]


def _pad(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    attributes = attributes_of(node)
    value = emitter.constant(np.asarray(attributes.get("value", 0.0), np.float32))
    inputs = [node.input[0], _ints(emitter, attributes["pads"]), value]
    return [_again(node, "Pad", inputs, mode=attributes.get("mode", "constant"))]


def _slice(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    attributes = attributes_of(node)
    lists = [attributes[name] for name in ("starts", "ends", "axes") if name in attributes]
    return [_again(node, "Slice", [node.input[0], *(_ints(emitter, v) for v in lists)])]


def _batch_normalization(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    attributes = attributes_of(node)
    if attributes.get("spatial", 1) != 1 or any(node.output[1:]):
        raise UnsupportedOperator(f"node {node.name!r}: BatchNormalization (opset {version}) in a training or non-spatial form.")
    again = _again(node, "BatchNormalization", list(node.input), epsilon=attributes.get("epsilon", 1e-5))
    del again.output[1:]
    return [again]


def _resize(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    """Upsample and Resize before set 11: asymmetric coordinates, nearest rounds down."""
    attributes = attributes_of(node)
    given = attributes.get("scales")
    scales = node.input[1] if given is None else emitter.constant(np.asarray(given, np.float32))
    mode = {"bilinear": "linear"}.get(str(attributes.get("mode", "nearest")), str(attributes.get("mode", "nearest")))
    forms = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return [_again(node, "Resize", [node.input[0], "", scales], **forms)]


def _resize_11(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    if version < 11:
        return _resize(node, version, emitter)
    attributes = attributes_of(node)
    if attributes.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        raise UnsupportedOperator(
            f"node {node.name!r}: Resize (opset {version}) with tf_half_pixel_for_nn, which newer sets dropped."
        )
    return [node]


def _coerced(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    """Before set 13 the operator worked on the value flattened to two axes at ``axis`` (1 unless given); `settled` writes it."""
    axis = attributes_of(node).get("axis", 1)
    mark = {} if axis == -1 else {_MARK: axis}
    return [_again(node, node.op_type, list(node.input), axis=-1, **mark)]


def settled(node: onnx.NodeProto, found: Walk, emitter: Emitter) -> list[onnx.NodeProto] | None:
    """The nodes in place of one that works on a flattened value, now that ranks are known; None for any other node."""
    if node.op_type not in _COERCED or node.domain not in STANDARD:
        return None
    axis = next((a.i for a in node.attribute if a.name == _MARK), None)
    if axis is None:
        return None
    shape = found.shape(node.input[0])
    if shape is not None and axis % len(shape) == len(shape) - 1:
        return [_again(node, node.op_type, list(node.input), axis=-1)]
    flat, soft, dims = (emitter.fresh("coerced") for _ in range(3))
    return [
        helper.make_node("Flatten", [node.input[0]], [flat], name=node.name, axis=axis),
        helper.make_node(node.op_type, [flat], [soft], name=node.name, axis=-1),
        helper.make_node("Shape", [node.input[0]], [dims], name=node.name),
        helper.make_node("Reshape", [soft, dims], list(node.output), name=node.name),
    ]


def _topk(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    attributes = attributes_of(node)
    k = attributes.pop("k")
    return [_again(node, "TopK", [node.input[0], _ints(emitter, k)], **attributes)]


def _scatter(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    return [_again(node, "ScatterElements", list(node.input), **attributes_of(node))]


def _roi_align(node: onnx.NodeProto, version: int, emitter: Emitter) -> list[onnx.NodeProto]:
    """Before set 16 regions were not moved by half a pixel."""
    attributes = {**attributes_of(node), "coordinate_transformation_mode": "output_half_pixel"}
    return [_again(node, "RoiAlign", list(node.input), **attributes)]


_CHANGES: dict[str, tuple[int, Change]] = {
    "Squeeze": (13, _axes_input),
    "Unsqueeze": (13, _axes_input),
    "ReduceSum": (13, _axes_input),
    **{f"Reduce{name}": (18, _axes_input) for name in _REDUCTIONS},
    "Split": (18, _split),
    "Clip": (11, _clip),
    "Pad": (11, _pad),
    "Slice": (10, _slice),
    "BatchNormalization": (14, _batch_normalization),
    "Upsample": (10, _resize),
    "Resize": (13, _resize_11),
    **dict.fromkeys(_COERCED, (13, _coerced)),
    "TopK": (10, _topk),
    "RoiAlign": (16, _roi_align),
    "Scatter": (11, _scatter),
}
