"""Operators on channels in blocks, as ONNX Runtime's optimiser writes them for a CPU (``ORT_ENABLE_ALL``), written out.

Such values lie in memory as (N, C/b, H, W, b), C filled up to whole blocks, and are called (N, C, H, W). Only these operators and
entrywise ones read them, so that the written-out form keeps them in the standard's layout; the weights alone are put in order.

Source: onnxruntime's core/optimizer/nchwc_transformer.cc, core/mlas/lib/reorder.cpp and snchwc.cpp.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import cast

import numpy as np

from onnxfim.graph.fused import activated
from onnxfim.graph.lower import Scratch, lowering

_DOMAIN = "com.microsoft.nchwc"


@lowering(f"{_DOMAIN}.ReorderInput")
def _into_blocks(s: Scratch) -> str:
    x = s.inputs[0]
    if s.integer("channels_last", 0):
        x = s.write("Transpose", x, perm=[0, s.rank() - 1, *range(1, s.rank() - 1)])
        channels = s.shape()[-1]
    else:
        channels = s.shape()[1]
    block = block_of_channels()
    return _filled(s, x, -(-channels // block) * block - channels)


@lowering(f"{_DOMAIN}.ReorderOutput")
def _out_of_blocks(s: Scratch) -> str:
    channels, rank = s.integer("channels", 0), s.rank()
    x = s.inputs[0]
    if channels != s.shape()[1]:
        x = s.write("Slice", x, [0], [channels], [1])
    return s.write("Transpose", x, perm=[0, *range(2, rank), 1]) if s.integer("channels_last", 0) else x


@lowering(f"{_DOMAIN}.Conv")
def _conv(s: Scratch) -> str:
    """A convolution whose filter is stored in blocks of its outputs, and of its inputs where these are in blocks too."""
    out, into, *window = s.shape(1)
    groups = s.integer("group", 1)
    block = block_of_channels()
    if out % block:
        raise s.refuse(f"its {out} channels are no blocks of {block}: the file was optimised for another processor")
    if into >= block:
        stored = [out // block, into // block, *window, block, block]
        order = [0, 5, 1, 4, 2, 3]
    else:  # of each channel alone, or of an image's few channels, which are not in blocks
        stored, order = [out // block, into, *window, block], [0, 4, 1, 2, 3]
    weight = s.write("Reshape", s.write("Transpose", s.write("Reshape", s.inputs[1], stored), perm=order), [out, into, *window])
    names = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")
    t = s.write("Conv", s.inputs[0], weight, s.get(2), group=groups, **s.kept(*names))
    return activated(s, s.write("Add", t, s.inputs[3]) if s.get(3) else t)


@lowering(f"{_DOMAIN}.MaxPool", f"{_DOMAIN}.AveragePool")
def _pool(s: Scratch) -> str:
    names = ("auto_pad", "dilations", "kernel_shape", "pads", "strides", "ceil_mode", "count_include_pad")
    return s.write(s.node.op_type, s.inputs[0], **s.kept(*names))


@lowering(f"{_DOMAIN}.GlobalMaxPool", f"{_DOMAIN}.GlobalAveragePool")
def _global_pool(s: Scratch) -> str:
    return s.write(s.node.op_type, s.inputs[0])


@lowering(f"{_DOMAIN}.Upsample")
def _upsample(s: Scratch) -> str:
    scales = np.asarray(cast("Sequence[int]", s.attributes.get("scales", (1, 1, 1, 1))), np.float32)
    names = ("mode", "coordinate_transformation_mode")
    nearest = {"nearest_mode": "floor"} if s.attributes.get("mode", "nearest") == "nearest" else {}
    return s.write(
        "Resize", s.inputs[0], "", scales, **{"coordinate_transformation_mode": "asymmetric", **s.kept(*names), **nearest}
    )


def _filled(s: Scratch, x: str, more: int) -> str:
    """With ``more`` channels of zeros behind the others."""
    if not more:
        return x
    rank = s.rank()
    return s.write("Pad", x, [*[0] * rank, 0, more, *[0] * (rank - 2)], 0.0)


def block_of_channels() -> int:
    """Channels in a block, which the file does not say: 16 with AVX-512 and on ARM, 8 on other x86 processors.

    The file is right on processors like the one that it was optimised on, and runs on this one.
    """
    try:
        core = importlib.import_module("numpy._core._multiarray_umath")
    except ImportError:
        core = importlib.import_module("numpy.core._multiarray_umath")
    features = core.__cpu_features__
    return 16 if features.get("AVX512F") or features.get("ASIMD") else 8
