"""ONNX Runtime's quantisers and optimiser, and float16, on files of PyTorch's exporter. The truth is that of the float parent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxconverter_common import float16
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from tests.exporters import torch_recipes
from tests.exporters.recipe import Array, Made, Recipes

RECIPES = Recipes("ONNX Runtime")
PARENTS = {"base": "t_base", "encoder": "t_encoder"}
_SAME = ("ortopt", "ortopt_all")  # compute the parent's function, to rounding


class _Rows(CalibrationDataReader):
    def __init__(self, X: Array):
        self._rows: Iterator[Any] = iter([{"x": x[None]} for x in X])

    def get_next(self) -> Any:
        return next(self._rows, None)


def _dynamic(parent: Path, path: Path, X: Array) -> None:
    quantize_dynamic(parent, path, weight_type=QuantType.QUInt8)


def _static(form: QuantFormat, **how: Any) -> Callable[[Path, Path, Array], None]:
    def write(parent: Path, path: Path, X: Array) -> None:
        quantize_static(parent, path, _Rows(X), quant_format=form, **how)

    return write


def _four_bits(form: QuantFormat) -> Callable[[Path, Path, Array], None]:
    def write(parent: Path, path: Path, X: Array) -> None:
        quantiser = MatMulNBitsQuantizer(onnx.load(parent), 4, 32, is_symmetric=True, quant_format=form)
        quantiser.process()
        quantiser.model.save_model_to_file(str(path), False)

    return write


def _optimised(level: str) -> Callable[[Path, Path, Array], None]:
    def write(parent: Path, path: Path, X: Array) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(str(parent), options, providers=["CPUExecutionProvider"])

    return write


def _half(parent: Path, path: Path, X: Array) -> None:
    onnx.save(float16.convert_float_to_float16(onnx.load(parent)), path)


_WAYS: dict[str, Callable[[Path, Path, Array], None]] = {
    "dynamic_u8": _dynamic,
    "static_qdq": _static(QuantFormat.QDQ, per_channel=True),
    "static_qop": _static(QuantFormat.QOperator),
    "static_qdq_a16": _static(
        QuantFormat.QDQ, activation_type=QuantType.QUInt16, weight_type=QuantType.QInt8, extra_options={"UseQDQContribOps": True}
    ),
    "int4": _four_bits(QuantFormat.QOperator),
    "int4_qdq": _four_bits(QuantFormat.QDQ),
    "fp16": _half,
    "ortopt": _optimised("ORT_ENABLE_EXTENDED"),
    "ortopt_all": _optimised("ORT_ENABLE_ALL"),
}


def _made(path: Path, parent: str, way: str) -> Made:
    logging.disable(logging.WARNING)
    source = path.with_name(f"_{path.stem}_parent.onnx")
    made = torch_recipes.RECIPES.all[parent].make(source)
    plain = onnx.load(source)
    del plain.graph.value_info[:]  # the exporter's shapes of weights, which the quantisers turn over
    onnx.save(plain, source)
    X, labels = made.inputs["inputs"], made.labels
    _WAYS[way](source, path, X)
    source.unlink()
    if way == "fp16":
        X = X.astype("float16")
    return Made({"inputs": X}, labels, made.truth if way in _SAME else None, parent=made.truth)


for _short, _parent in PARENTS.items():
    for _way in _WAYS:
        if _short == "base" and _way.startswith("int4"):
            continue  # it has no product that they take
        RECIPES.add(
            f"{_short}_{_way}", lambda path, parent=_parent, way=_way: _made(path, parent, way),
            family="transformer" if _short == "encoder" else None,
        )  # fmt: skip
