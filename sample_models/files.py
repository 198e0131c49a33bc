"""ONNX files: write a net as one, make others from it, run them and say what is in them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort  # these scripts stand outside the package and its one home
import torch
from numpy.typing import NDArray
from onnx import helper
from onnxconverter_common.float16 import convert_float_to_float16
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn

INPUT, OUTPUT = "images", "logits"
OPSET = 18

Images = NDArray[np.float32]


class CalibrationImages(CalibrationDataReader):
    """Feeds batches of images to the quantiser."""

    def __init__(self, images: Images, *, batch: int = 64) -> None:
        self._batches: Iterator[Images] = iter(np.array_split(images, len(images) // batch))

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def export(model: nn.Module, path: Path, *, example: Tensor) -> None:
    """Write the net as one file with a free batch axis ``N``."""
    program = torch.onnx.export(
        model,
        (example,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("N")},),
        dynamo=True,
        verbose=False,
    )
    save(program.model_proto, path)


def to_int8(source: Path, target: Path, *, calibration: Images) -> None:
    """Static QDQ quantisation: int8 activations and per-channel int8 weights, ranges from the calibration images."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.onnx"
        quantize_static(
            source,
            draft,
            CalibrationImages(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        save(onnx.load(draft), target)


def to_float16(source: Path, target: Path) -> None:
    """Weights and arithmetic in float16; input and output stay float32."""
    save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def append_softmax(source: Path, target: Path) -> None:
    """The same net with ``probabilities`` as its only output."""
    model = onnx.load(source)
    logits = model.graph.output[0]
    model.graph.node.append(helper.make_node("Softmax", [logits.name], ["probabilities"], name="softmax", axis=-1))
    logits.name = "probabilities"
    save(model, target)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Check the model and write it without what names the place it was made at or differs from run to run."""
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def strip(model: onnx.ModelProto) -> None:
    """Remove doc strings and metadata: exporters put stack traces with file paths there."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def opened(path: Path) -> Callable[[Images], NDArray[np.float32]]:
    """The file on the CPU, one thread, as a function from images (N, …) to scores (N, K); a fixed batch is fed many times."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]

    def scores(images: Images) -> NDArray[np.float32]:
        at_a_time = entry.shape[0] if isinstance(entry.shape[0], int) else len(images)
        parts = np.split(images, range(at_a_time, len(images), at_a_time))
        return np.concatenate([session.run(None, {entry.name: part})[0] for part in parts])

    return scores


def run(path: Path, X: Images) -> NDArray[np.float32]:
    """Scores (N, K) of the file on the CPU, in batches of unequal size so that a baked batch size cannot pass."""
    scores = opened(path)
    return np.concatenate([scores(batch) for batch in np.split(X, [1, 8, 64])])


def sha256(path: Path) -> str:
    """Digest of the file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def opset(path: Path) -> int:
    """Version of the default operator set."""
    return next(entry.version for entry in onnx.load(path).opset_import if entry.domain in ("", "ai.onnx"))
