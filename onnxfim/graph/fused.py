"""Operators that ONNX Runtime's optimiser fuses, written out in those of the standard.

Source: the operators' definitions, onnxruntime's docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from onnxfim.graph.lower import Scratch, lowering, root_mean_square

#: Activations that a fused node may end in: the names of their parameters, in the order of ``activation_params``.
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish"), ()),
    **dict.fromkeys(("LeakyRelu", "Elu", "ThresholdedRelu"), ("alpha",)), "Selu": ("alpha", "gamma"),
    "HardSigmoid": ("alpha", "beta"),
}  # fmt: skip


def activated(s: Scratch, t: str) -> str:
    """The activation that a fused node ends in."""
    name = str(s.attributes.get("activation", ""))
    params = [float(p) for p in cast("Sequence[float]", s.attributes.get("activation_params", ()))]
    if not name:
        return t
    if name == "Clip" and len(params) == 2:
        return s.write(name, t, *params)
    if name not in _ACTIVATIONS:
        raise s.refuse(f"its activation {name!r} has no rule")
    given = dict(zip(_ACTIVATIONS[name], params, strict=False))
    for parameter in _ACTIVATIONS[name]:  # of a matrix product each is an attribute
        if f"activation_{parameter}" in s.attributes:
            given[parameter] = s.real(f"activation_{parameter}", 0.0)
    if name == "LeakyRelu" and "leaky_relu_alpha" in s.attributes:
        given["alpha"] = s.real("leaky_relu_alpha", 0.01)
    return s.write(name, t, **given)


@lowering("com.microsoft.FusedConv")
def _fused_conv(s: Scratch) -> str:
    kept = s.kept("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    t = s.write("Conv", s.inputs[0], s.inputs[1], s.get(2), **kept)
    return activated(s, s.write("Add", t, s.inputs[3]) if s.get(3) else t)


@lowering("com.microsoft.FusedGemm")
def _fused_gemm(s: Scratch) -> str:
    kept = s.kept("alpha", "beta", "transA", "transB")
    return activated(s, s.write("Gemm", s.inputs[0], s.inputs[1], s.get(2), **kept))


@lowering("com.microsoft.FusedMatMul", "com.microsoft.TransposeMatMul")
def _fused_matmul(s: Scratch) -> str:
    operands = []
    for i, (flag, batch) in enumerate((("transA", "transBatchA"), ("transB", "transBatchB"))):
        rank = s.rank(i)
        order = list(range(rank))
        if s.integer(batch, 0) and rank > 2:  # the rows stand before the batch axes
            order = [*order[1:-1], 0, rank - 1]
        if s.integer(flag, 0) and rank > 1:
            order[-2:] = order[:-3:-1]
        operands.append(s.inputs[i] if order == list(range(rank)) else s.write("Transpose", s.inputs[i], perm=order))
    product = s.write("MatMul", *operands)
    alpha = s.real("alpha", 1.0)
    return product if alpha == 1.0 else s.write("Mul", product, alpha)


def _gelu(s: Scratch, x: str) -> str:
    """x Φ(x), written out: the operator itself exists from set 20 on."""
    cdf = s.write("Add", s.write("Erf", s.write("Mul", x, 2**-0.5)), 1.0)
    return s.write("Mul", s.write("Mul", x, 0.5), cdf)


@lowering("com.microsoft.Gelu")
def _exact_gelu(s: Scratch) -> str:
    return _gelu(s, s.inputs[0])


@lowering("com.microsoft.BiasGelu")
def _bias_gelu(s: Scratch) -> str:
    return _gelu(s, s.write("Add", s.inputs[0], s.inputs[1]))


@lowering("com.microsoft.FastGelu")
def _fast_gelu(s: Scratch) -> str:
    x = s.write("Add", s.inputs[0], s.inputs[1]) if s.get(1) else s.inputs[0]
    cubed = s.write("Mul", s.write("Mul", x, x), x)
    inner = s.write("Mul", s.write("Add", x, s.write("Mul", cubed, 0.044715)), (2 / np.pi) ** 0.5)
    return s.write("Mul", s.write("Mul", x, 0.5), s.write("Add", s.write("Tanh", inner), 1.0))


@lowering("com.microsoft.QuickGelu")
def _quick_gelu(s: Scratch) -> str:
    x = s.inputs[0]
    return s.write("Mul", x, s.write("Sigmoid", s.write("Mul", x, s.real("alpha", 1.702))))


@lowering("com.microsoft.SkipLayerNormalization")
def _skip_layer_norm(s: Scratch) -> str:
    t = s.write("Add", s.inputs[0], s.inputs[1])
    t = s.further[3] = s.write("Add", t, s.inputs[4]) if s.get(4) else t
    return s.write("LayerNormalization", t, s.inputs[2], s.get(3), axis=-1, epsilon=s.real("epsilon", 1e-12))


@lowering("com.microsoft.SkipSimplifiedLayerNormalization")
def _skip_rms(s: Scratch) -> str:
    t = s.write("Add", s.inputs[0], s.inputs[1])
    t = s.further[3] = s.write("Add", t, s.inputs[3]) if s.get(3) else t
    return root_mean_square(s, t, s.inputs[2], -1, s.real("epsilon", 1e-12))


@lowering("com.microsoft.ExpandDims")
def _expand_dims(s: Scratch) -> str:
    axis = s.found.values.get(s.inputs[1])
    if axis is None:
        raise s.refuse("its axis is not known before the model runs")
    return s.write("Unsqueeze", s.inputs[0], [int(axis.reshape(()))])


@lowering("com.microsoft.Trilu")
def _trilu(s: Scratch) -> str:
    return s.write("Trilu", s.inputs[0], s.get(1), **s.kept("upper"))


@lowering("com.microsoft.ConvTransposeWithDynamicPads")
def _conv_transpose(s: Scratch) -> str:
    pads = s.found.values.get(s.get(2)) if s.get(2) else np.zeros(2 * (s.rank() - 2), np.int64)
    if pads is None:
        raise s.refuse("its pads are not known before the model runs")
    kept = s.kept("auto_pad", "dilations", "group", "kernel_shape", "output_padding", "strides")
    return s.write("ConvTranspose", s.inputs[0], s.inputs[1], s.get(3), pads=[int(p) for p in pads], **kept)
