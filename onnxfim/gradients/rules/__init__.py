"""All rules: importing this module fills the registry; and why some operators have none."""

from onnxfim.gradients.derivative_rules import refuse
from onnxfim.gradients.rules import elementwise, indexed, moves, pools, products, reductions, sampling, transforms

__all__ = ["elementwise", "indexed", "moves", "pools", "products", "reductions", "sampling", "transforms"]

refuse(
    "the true derivative is zero almost everywhere",
    *("Round", "Floor", "Ceil", "Sign", "Hardmax", "BitShift"),
)
refuse(
    "it rounds to integers, so the true derivative is zero almost everywhere (a clip surrogate can be asked for)",
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"),
    *("MatMulInteger", "com.microsoft.QLinearAdd", "com.microsoft.QLinearMul", "com.microsoft.QGemm"),
    *("com.microsoft.QLinearConcat", "com.microsoft.QLinearGlobalAveragePool", "com.microsoft.QLinearAveragePool"),
    *("com.microsoft.QLinearSigmoid", "com.microsoft.QLinearLeakyRelu", "com.microsoft.QLinearSoftmax"),
    *("com.microsoft.DynamicQuantizeMatMul", "com.microsoft.MatMulIntegerToFloat", "com.microsoft.QAttention"),
    *("com.microsoft.QuantizeLinear", "com.microsoft.DequantizeLinear"),
)
refuse(
    "its sequences are packed into one or kept from call to call, so that a sample is not audited by itself",
    *("com.microsoft.PackedAttention", "com.microsoft.PackedMultiHeadAttention", "com.microsoft.PagedAttention"),
    *("com.microsoft.DecoderMaskedMultiHeadAttention", "com.microsoft.DecoderMaskedSelfAttention", "com.microsoft.SparseAttention"),
)
refuse(
    "trees are piecewise constant, the true derivative is zero almost everywhere",
    *("ai.onnx.ml.TreeEnsembleClassifier", "ai.onnx.ml.TreeEnsembleRegressor", "ai.onnx.ml.TreeEnsemble"),
)
refuse("its two values belong to all rows alike", "OneHot")
refuse("how many values it returns depends on them", "Unique")
refuse("in training mode it is random, so no derivative of it can be tested", "Dropout")
refuse("control flow is not differentiated", "If", "Loop", "Scan", "SequenceMap")
