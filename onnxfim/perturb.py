"""The perturbation as a tiny ONNX graph of ours: rows ``base[sample] + scale·v (+ dither·w)``, made on the device.

The directions cross the bus as one byte per coordinate; the audited file itself stays untouched.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

# Every provider and every ONNX Runtime since 1.14 takes these.
_OPSET = 17
_IR_VERSION = 8


def perturbation_graph(shape: tuple[int, ...], dtype: np.dtype, *, dithered: bool, shared: bool = False) -> bytes:
    """Serialised ONNX model that makes perturbed rows.

    Inputs: ``base`` (S, *shape), ``sample`` int64 (B,), ``scale`` (B, 1, …), ``v`` int8 (B, *shape); with ``dithered`` also
    ``dither`` (1,) and ``w`` int8 (B, *shape), which adds ``dither·w/127``. Output: ``rows`` (B, *shape) in ``dtype``.
    With ``shared`` all rows have one base point: ``base`` is (1, *shape), and without ``sample`` a copy of the rows is saved.
    The arithmetic is float32 for float16 rows, so that only the last rounding is the file's own.
    """
    wide = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    wide_type = helper.np_dtype_to_tensor_dtype(wide)
    ones = ["1"] * len(shape)
    dims = [str(n) for n in shape]
    inputs = [
        helper.make_tensor_value_info("base", wide_type, [1 if shared else "S", *map(int, dims)]),
        helper.make_tensor_value_info("scale", wide_type, ["B", *map(int, ones)]),
        helper.make_tensor_value_info("v", TensorProto.INT8, ["B", *map(int, dims)]),
    ]
    nodes = []
    if not shared:
        inputs.append(helper.make_tensor_value_info("sample", TensorProto.INT64, ["B"]))
        nodes.append(helper.make_node("Gather", ["base", "sample"], ["at"], axis=0))
    nodes += [
        helper.make_node("Cast", ["v"], ["direction"], to=wide_type),
        helper.make_node("Mul", ["direction", "scale"], ["move"]),
        helper.make_node("Add", ["base" if shared else "at", "move"], ["moved"]),
    ]
    last = "moved"
    if dithered:
        inputs += [
            helper.make_tensor_value_info("dither", wide_type, [1]),
            helper.make_tensor_value_info("w", TensorProto.INT8, ["B", *map(int, dims)]),
        ]
        nodes += [
            helper.make_node("Cast", ["w"], ["noise"], to=wide_type),
            helper.make_node("Mul", ["noise", "dither"], ["shift"]),
            helper.make_node("Add", ["moved", "shift"], ["dithered"]),
        ]
        last = "dithered"
    out_type = helper.np_dtype_to_tensor_dtype(dtype)
    nodes.append(helper.make_node("Cast", [last], ["rows"], to=out_type))
    output = helper.make_tensor_value_info("rows", out_type, ["B", *map(int, dims)])
    model = helper.make_model(
        helper.make_graph(nodes, "perturbation", inputs, [output]), opset_imports=[helper.make_opsetid("", _OPSET)]
    )
    model.ir_version = _IR_VERSION
    return bytes(model.SerializeToString())
