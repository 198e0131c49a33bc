"""Files in every precision that ONNX Runtime's own tools write, made from a float file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

#: Samples of the calibration, from the end of the set: others than the audited ones.
CALIBRATED_BY = 64
_OLDEST, _NEWER = 13, 17  # operator sets


@dataclass(frozen=True)
class Scheme:
    """One way to write a file in less than float32.

    Attributes:
        name: What the table calls it.
        make: Writes the file: the float file's path, inputs to calibrate by, where to write, and the options.
        options: Of the tool.
        static: Whether scales of activations are fixed in the file.
    """

    name: str
    make: Callable[[Path, np.ndarray, Path, Mapping[str, Any]], None]
    options: Mapping[str, Any] = field(default_factory=dict)
    static: bool = False

    def written(self, path: Path, inputs: np.ndarray, into: Path) -> Path:
        """The file in this precision, in the folder ``into``."""
        out = into / f"{path.stem}_{''.join(c if c.isalnum() else '_' for c in self.name)}.onnx"
        model = onnx.load(path)
        if model.opset_import[0].version < _OLDEST:  # the tools write operators of newer sets into older files
            path = into / f"{path.stem}_set_{_NEWER}.onnx"
            onnx.save(onnx.version_converter.convert_version(model, _NEWER), path)
        if not out.is_file():
            self.make(path, inputs, out, self.options)
        return out

    def changes_nothing(self, path: Path, out: Path) -> bool:
        """Whether the file that was written computes with the operators and types of the float file."""
        before, after = (_kinds(onnx.load(p)) for p in (path, out))
        return after <= before | {"MatMul", "Add"}


def _kinds(model: onnx.ModelProto) -> set[str]:
    """Operators, and types of weights."""
    return {n.op_type for n in model.graph.node} | {str(t.data_type) for t in model.graph.initializer}


def _static(path: Path, inputs: np.ndarray, out: Path, options: Mapping[str, Any]) -> None:
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            name = onnx.load(path, load_external_data=False).graph.input[0].name
            self.rows: Iterator[dict[str, Any]] = iter([{name: x[None]} for x in inputs[-CALIBRATED_BY:]])

        def get_next(self) -> Any:
            return next(self.rows, None)

    named = {k: q.QuantType[v] if k.endswith("_type") else v for k, v in options.items() if k != "form"}
    q.quantize_static(path, out, Reader(), quant_format=q.QuantFormat[options["form"]], **named)


def _dynamic(path: Path, inputs: np.ndarray, out: Path, options: Mapping[str, Any]) -> None:
    from onnxruntime import quantization as q

    model = onnx.load(path)
    del model.graph.value_info[:]  # the tool turns weights round, and keeps the shapes that were written for them
    q.quantize_dynamic(model, out, **{k: q.QuantType[v] if k.endswith("_type") else v for k, v in options.items()})


def _weight_only(path: Path, inputs: np.ndarray, out: Path, options: Mapping[str, Any]) -> None:
    """MatMul alone has such a form; Gemm is written as MatMul and Add first."""
    from onnxruntime.quantization import QuantFormat
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    given = {k: QuantFormat[v] if k == "quant_format" else v for k, v in options.items()}
    model = without_gemm(onnx.load(path))
    if given.get("quant_format") is QuantFormat.QDQ:
        model = onnx.version_converter.convert_version(model, 21)
    quantiser = MatMulNBitsQuantizer(model, **given)
    quantiser.process()
    quantiser.model.save_model_to_file(str(out))


def without_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with each Gemm of a plain form as MatMul and Add."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    weights = {t.name: t for t in copy.graph.initializer}
    for node in copy.graph.node:
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = node.op_type == "Gemm" and node.input[1] in weights and not given.get("transA")
        if not plain or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
            nodes.append(node)
            continue
        w = onnx.numpy_helper.to_array(weights[node.input[1]])
        name, product = f"{node.input[1]}_of_{node.output[0]}", f"{node.output[0]}_product"
        copy.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(w.T if given.get("transB") else w), name))
        biased = len(node.input) > 2 and bool(node.input[2])
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product if biased else node.output[0]], name=node.name))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], list(node.output), name=f"{node.name}_bias"))
    used = {i for n in nodes for i in n.input}
    kept = [t for t in copy.graph.initializer if t.name in used]
    for old, new in ((copy.graph.node, nodes), (copy.graph.initializer, kept)):
        whole = list(new)
        del old[:]
        old.extend(whole)
    return copy


def _four_bit_floats(path: Path, inputs: np.ndarray, out: Path, options: Mapping[str, Any]) -> None:
    from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer

    quantiser = MatMulBnb4Quantizer(without_gemm(onnx.load(path)), options["quant_type"], options["block_size"])
    quantiser.process()
    quantiser.model.save_model_to_file(str(out))


def _half(path: Path, inputs: np.ndarray, out: Path, options: Mapping[str, Any]) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(path), **options), out)


def _bfloat16(path: Path, inputs: np.ndarray, out: Path, options: Mapping[str, Any]) -> None:
    """Weights stored in bfloat16 and cast back, or the results of every MatMul, Gemm and Conv rounded to bfloat16 as well."""
    model = onnx.load(path)
    made: list[onnx.NodeProto] = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            short = f"{tensor.name}_bfloat16"
            value = onnx.numpy_helper.to_array(tensor)
            made.append(helper.make_node("Cast", [short], [tensor.name], name=f"{tensor.name}_cast", to=TensorProto.FLOAT))
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(value.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)), short)
            )
    nodes = [*made]
    for node in model.graph.node:
        nodes.append(node)
        if options.get("activations") and node.op_type in ("MatMul", "Gemm", "Conv"):
            name = node.output[0]
            node.output[0] = f"{name}_float"
            nodes.append(helper.make_node("Cast", [f"{name}_float"], [f"{name}_short"], name=f"{name}_to", to=TensorProto.BFLOAT16))
            nodes.append(helper.make_node("Cast", [f"{name}_short"], [name], name=f"{name}_back", to=TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    inputs_kept = [i for i in model.graph.input if i.name not in {n.output[0] for n in made}]
    del model.graph.input[:]
    model.graph.input.extend(inputs_kept)
    onnx.save(model, out)


def _qdq(**more: Any) -> dict[str, Any]:
    return {"form": "QDQ", "activation_type": "QInt8", "weight_type": "QInt8", **more}


def _qop(**more: Any) -> dict[str, Any]:
    return {"form": "QOperator", "activation_type": "QUInt8", "weight_type": "QUInt8", **more}


SCHEMES = (
    Scheme("QDQ int8", _static, _qdq(), static=True),
    Scheme("QDQ int8 per channel", _static, _qdq(per_channel=True), static=True),
    Scheme("QDQ uint8, int8 per channel", _static, _qdq(activation_type="QUInt8", per_channel=True), static=True),
    Scheme("QDQ int16, int8 per channel", _static, _qdq(activation_type="QInt16", per_channel=True), static=True),
    Scheme("QDQ uint16, uint8", _static, _qdq(activation_type="QUInt16", weight_type="QUInt8"), static=True),
    Scheme("QDQ int8, int4 weights", _static, _qdq(weight_type="QInt4", per_channel=True), static=True),
    Scheme("QOperator uint8", _static, _qop(), static=True),
    Scheme("QOperator uint8, int8 per channel", _static, _qop(weight_type="QInt8", per_channel=True), static=True),
    Scheme("QOperator int8", _static, _qop(activation_type="QInt8", weight_type="QInt8"), static=True),
    Scheme("dynamic uint8", _dynamic, {"weight_type": "QUInt8"}),
    Scheme("dynamic int8 per channel", _dynamic, {"weight_type": "QInt8", "per_channel": True}),
    Scheme("float16", _half, {"keep_io_types": False}),
    Scheme("float16, float32 ends", _half, {"keep_io_types": True}),
    Scheme("bfloat16 weights", _bfloat16),
    Scheme("bfloat16 weights and products", _bfloat16, {"activations": True}),
    Scheme("MatMulNBits 4, block 32", _weight_only, {"bits": 4, "block_size": 32, "is_symmetric": False}),
    Scheme("MatMulNBits 4, block 128, symmetric", _weight_only, {"bits": 4, "block_size": 128, "is_symmetric": True}),
    Scheme("MatMulNBits 8, block 32", _weight_only, {"bits": 8, "block_size": 32, "is_symmetric": False}),
    Scheme("MatMulNBits 4, block 32, accuracy level 4", _weight_only, {"bits": 4, "block_size": 32, "accuracy_level": 4}),
    Scheme("QDQ int4 weights alone, block 32", _weight_only, {"bits": 4, "block_size": 32, "quant_format": "QDQ"}),
    Scheme("MatMulBnb4 NF4, block 64", _four_bit_floats, {"quant_type": 1, "block_size": 64}),
)

#: By their names.
BY_NAME = {s.name: s for s in SCHEMES}
