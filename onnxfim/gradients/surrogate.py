"""A differentiable stand-in for a quantised graph: every quantise-dequantise pair becomes a Clip to its range.

It is not the audited file: results from it must be labelled as the surrogate's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfim.errors import UnsupportedOperator
from onnxfim.gradients.emitter import Emitter
from onnxfim.gradients.trace import constant_value


def clipped(
    nodes: Sequence[onnx.NodeProto],
    initializers: Iterable[onnx.TensorProto],
    emitter: Emitter,
    *,
    base_dir: str | os.PathLike[str] = ".",
) -> list[onnx.NodeProto]:
    """Replace QuantizeLinear → DequantizeLinear on computed values by Clip; weights stay dequantised.

    Raises:
        UnsupportedOperator: a pair with scales per channel, or integers used otherwise.
    """
    tensors = {t.name: t for t in initializers}
    constants = {n.output[0]: n for n in nodes if n.op_type == "Constant"}
    quantisers = {n.output[0]: n for n in nodes if n.op_type == "QuantizeLinear" and n.input[0] not in {*tensors, *constants}}

    def value(name: str) -> np.ndarray | None:
        if name in tensors:
            return np.asarray(numpy_helper.to_array(tensors[name], base_dir=str(base_dir)))
        return constant_value(constants[name]) if name in constants else None

    done: list[onnx.NodeProto] = []
    for node in nodes:
        quantiser = quantisers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if quantiser is None:
            done.append(node)
            continue
        scale = value(quantiser.input[1])
        zero = value(quantiser.input[2]) if len(quantiser.input) > 2 and quantiser.input[2] else np.zeros((), np.uint8)
        if scale is None or zero is None or scale.size != 1 or zero.dtype.kind not in "iu":
            raise UnsupportedOperator(f"node {quantiser.name!r}: QuantizeLinear without one constant scale has no clip surrogate.")
        ends = np.iinfo(zero.dtype)
        bounds = [
            np.asarray((float(end) - float(zero.reshape(-1)[0])) * scale.reshape(-1)[0], np.float32) for end in (ends.min, ends.max)
        ]
        names = [emitter.constant(b) for b in bounds]
        done.append(helper.make_node("Clip", [quantiser.input[0], *names], list(node.output), name=quantiser.name))
    return done
