"""The perturbation as a tiny ONNX graph of ours: rows ``base[sample] + scale·v (+ dither·w)``, made on the device.

Directions cross the bus as one bit per coordinate where they are signs, else as one byte; the audited file itself stays untouched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxfim.runtime.failures import run_error
from onnxfim.runtime.rows import Signs
from onnxfim.runtime.stopping import breakable, broken_off
from onnxfim.runtime.watching import current_watch, try_rows, watched

Array: TypeAlias = np.ndarray[Any, Any]

# Every provider and every ONNX Runtime since 1.14 takes these.
_OPSET = 17
_IR_VERSION = 8


def perturbation_graph(
    shape: tuple[int, ...], dtype: np.dtype, *, dithered: bool, shared: bool = False, scaled: bool = False, packed: bool = False
) -> bytes:
    """Serialised ONNX model that makes perturbed rows.

    Inputs: ``base`` (S, *shape), ``sample`` int64 (B,), ``scale`` (B, 1, …), ``v`` int8 (B, *shape); with ``dithered`` also
    ``dither`` (1,) and ``w`` int8 (B, *shape), which adds ``dither·w/127``. Output: ``rows`` (B, *shape) in ``dtype``.
    With ``scaled`` also ``field`` (1, *shape), by which the move of each coordinate and its dither are multiplied.
    With ``packed`` the directions are of ±1, and ``v`` is their bits, uint8 (B, ⌈d/8⌉), as in `rows.Signs`.
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
        helper.make_tensor_value_info("v", TensorProto.UINT8, ["B", -(-math.prod(shape) // 8)])
        if packed
        else helper.make_tensor_value_info("v", TensorProto.INT8, ["B", *map(int, dims)]),
    ]
    nodes, constants = _unpacking(shape, wide) if packed else ([helper.make_node("Cast", ["v"], ["direction"], to=wide_type)], [])
    if not shared:
        inputs.append(helper.make_tensor_value_info("sample", TensorProto.INT64, ["B"]))
        nodes.append(helper.make_node("Gather", ["base", "sample"], ["at"], axis=0))
    nodes.append(helper.make_node("Mul", ["direction", "scale"], ["step" if scaled else "move"]))
    if scaled:
        inputs.append(helper.make_tensor_value_info("field", wide_type, [1, *map(int, dims)]))
        nodes.append(helper.make_node("Mul", ["step", "field"], ["move"]))
    nodes.append(helper.make_node("Add", ["base" if shared else "at", "move"], ["moved"]))
    last = "moved"
    if dithered:
        inputs += [
            helper.make_tensor_value_info("dither", wide_type, [1]),
            helper.make_tensor_value_info("w", TensorProto.INT8, ["B", *map(int, dims)]),
        ]
        nodes += [
            helper.make_node("Cast", ["w"], ["noise"], to=wide_type),
            helper.make_node("Mul", ["noise", "dither"], ["blur" if scaled else "shift"]),
        ]
        if scaled:
            nodes.append(helper.make_node("Mul", ["blur", "field"], ["shift"]))
        nodes.append(helper.make_node("Add", ["moved", "shift"], ["dithered"]))
        last = "dithered"
    out_type = helper.np_dtype_to_tensor_dtype(dtype)
    nodes.append(helper.make_node("Cast", [last], ["rows"], to=out_type))
    output = helper.make_tensor_value_info("rows", out_type, ["B", *map(int, dims)])
    model = helper.make_model(
        helper.make_graph(nodes, "perturbation", inputs, [output], constants), opset_imports=[helper.make_opsetid("", _OPSET)]
    )
    model.ir_version = _IR_VERSION
    return bytes(model.SerializeToString())


def moving_graph(shape: tuple[int, ...], dtype: np.dtype, grid: tuple[float, float, float] | None = None) -> bytes:
    """Serialised ONNX model that makes rows moved by given moves, each of which serves several rows and crosses the bus once.

    Inputs: ``base`` (S, *shape), ``sample`` int64 (B,), ``moves`` (m, *shape), ``move`` int64 (B,). Output: ``rows`` (B, *shape) in
    ``dtype``, ``base[sample] + moves[move]``, rounded to a grid where there is one; the arithmetic is that of `perturbation_graph`.
    """
    wide = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    wide_type = helper.np_dtype_to_tensor_dtype(wide)
    out_type = helper.np_dtype_to_tensor_dtype(dtype)
    inputs = [
        helper.make_tensor_value_info("base", wide_type, ["S", *shape]),
        helper.make_tensor_value_info("sample", TensorProto.INT64, ["B"]),
        helper.make_tensor_value_info("moves", wide_type, ["m", *shape]),
        helper.make_tensor_value_info("move", TensorProto.INT64, ["B"]),
    ]
    nodes = [
        helper.make_node("Gather", ["base", "sample"], ["at"], axis=0),
        helper.make_node("Gather", ["moves", "move"], ["by"], axis=0),
        helper.make_node("Add", ["by", "at"], ["moved"]),
    ]
    constants, last = [], "moved"
    if grid is not None:
        constants = [
            numpy_helper.from_array(np.array(g, wide), name) for g, name in zip(grid, ("low", "high", "unit"), strict=True)
        ]
        steps = [("Sub", "low"), ("Div", "unit"), ("Round", ""), ("Mul", "unit"), ("Add", "low"), ("Clip", "low")]
        for k, (op, by) in enumerate(steps):
            nodes.append(helper.make_node(op, [last, *filter(None, [by]), *(["high"] * (op == "Clip"))], [f"step{k}"]))
            last = f"step{k}"
    nodes.append(helper.make_node("Cast", [last], ["rows"], to=out_type))
    output = helper.make_tensor_value_info("rows", out_type, ["B", *shape])
    model = helper.make_model(
        helper.make_graph(nodes, "moving", inputs, [output], constants), opset_imports=[helper.make_opsetid("", _OPSET)]
    )
    model.ir_version = _IR_VERSION
    return bytes(model.SerializeToString())


def _unpacking(shape: tuple[int, ...], wide: np.dtype) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes and constants that make ``direction`` (B, *shape) of ±1 of the bits ``v``: a byte is the row of a table."""
    d = math.prod(shape)
    table = np.asarray(Signs(np.arange(256, dtype=np.uint8)[:, None], np.arange(256), 8), wide)  # (256, 8)
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([0, *shape], np.int64), "shape")]
    nodes = [
        helper.make_node("Cast", ["v"], ["byte"], to=TensorProto.INT32),
        helper.make_node("Gather", ["table", "byte"], ["signs"], axis=0),  # (B, ⌈d/8⌉, 8)
    ]
    if d % 8:  # the last byte holds bits of no coordinate
        ends = {"flat": [0, -1], "first": [0], "last": [d], "axis": [1]}
        constants += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in ends.items()]
        nodes += [
            helper.make_node("Reshape", ["signs", "flat"], ["all"]),
            helper.make_node("Slice", ["all", "first", "last", "axis"], ["cut"]),
        ]
    nodes.append(helper.make_node("Reshape", ["cut" if d % 8 else "signs", "shape"], ["direction"]))
    return nodes, constants


# Rows are made in pieces of this size on the CPU: what the perturbation keeps meanwhile stays in the cache, and small.
_PIECE_BYTES = 2**20
_PER_ROW = frozenset({"sample", "scale", "v", "w", "move"})


class RowBuffer:
    """Memory on a device for one batch of rows, shared by all that make rows for a model.

    Args:
        device: The device's kind, as ONNX Runtime names it.
        number: Which of its kind.
    """

    def __init__(self, device: str = "cpu", number: int = 0) -> None:
        self.device, self.number = device, number
        self._held: Any = None
        self._key: tuple[tuple[int, ...], np.dtype] | None = None

    def of(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """An ``OrtValue`` of this shape; the one before it is given up where the shape differs."""
        import onnxruntime

        if self._key != (shape, dtype):
            self.free()
            self._held = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self.device, self.number)
            self._key = (shape, dtype)
        return self._held

    def free(self) -> None:
        self._held, self._key = None, None


class BoundPair:
    """The perturbation session bound to the model's session: rows are made on the device and never leave it.

    Args:
        model: Session of the audited file.
        perturbation: Session of `perturb.perturbation_graph`, on the same provider.
        input_name: The model's input that takes the rows.
        outputs: The model's outputs to read.
        buffer: Where the rows lie, on the provider that both run on.
    """

    def __init__(self, model: Any, perturbation: Any, input_name: str, outputs: Sequence[str], buffer: RowBuffer) -> None:
        self._model, self._perturbation = model, perturbation
        self._input, self._outputs = input_name, tuple(outputs)
        self._buffer = buffer

    def run(
        self, feeds: Mapping[str, Array], shape: tuple[int, ...], dtype: np.dtype, beside: Mapping[str, Array] | None = None
    ) -> list[Array]:
        """Outputs of the model at the rows that the perturbation makes from ``feeds``; ``shape`` is that of the rows.

        ``beside`` are the model's other inputs.
        """
        return self.answered(self.made(feeds, shape, dtype, self._buffer), self._buffer, beside)

    def made(self, feeds: Mapping[str, Array], shape: tuple[int, ...], dtype: np.dtype, buffer: RowBuffer) -> Any:
        """The rows in a buffer; errors are ours."""
        return self._guarded(buffer, lambda: self.filled(feeds, shape, dtype, buffer))

    def answered(self, rows: Any, buffer: RowBuffer, beside: Mapping[str, Array] | None = None) -> list[Array]:
        """Outputs of the model at rows that `made` put into the buffer, and at its other inputs; errors are ours."""
        return self._guarded(buffer, lambda: self.answers(rows, beside or {}))

    def _guarded(self, buffer: RowBuffer, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            buffer.free()
            raise broken_off(error) or run_error(error, self._model) from error

    def answers(self, rows: Any, beside: Mapping[str, Array] | None = None) -> list[Array]:
        """Outputs of the model at rows that lie on the device, and at its other inputs, whose rows lie along their first axis."""
        binding = self._model.io_binding()
        binding.bind_ortvalue_input(self._input, rows)
        for name, value in (beside or {}).items():
            binding.bind_cpu_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        if current_watch().tries:
            feeds = {self._input: rows.numpy(), **(beside or {})}
            try_rows(self._model, self._outputs, feeds, dict.fromkeys(feeds, 0))
        with watched("call", rows.shape()[0]):
            self._model.run_with_iobinding(binding, breakable())
        return [np.asarray(a) for a in binding.copy_outputs_to_cpu()]

    def filled(self, feeds: Mapping[str, Array], shape: tuple[int, ...], dtype: np.dtype, buffer: RowBuffer | None = None) -> Any:
        """The rows, made in a buffer piece by piece."""
        buffer = buffer or self._buffer
        rows = buffer.of(shape, dtype)
        row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        device = buffer.device
        size = max(1, _PIECE_BYTES // max(row_bytes, 1)) if device == "cpu" else shape[0]
        for start in range(0, shape[0], size):
            stop = min(start + size, shape[0])
            binding = self._perturbation.io_binding()
            for name, value in feeds.items():
                binding.bind_cpu_input(name, value[start:stop] if name in _PER_ROW else value)
            where = rows.data_ptr() + start * row_bytes
            binding.bind_output("rows", device, buffer.number, dtype, (stop - start, *shape[1:]), where)
            self._perturbation.run_with_iobinding(binding)
        return rows
