"""Whether a slope can reach the output: operators whose results are constant almost everywhere pass none."""

from __future__ import annotations

from onnx import TensorProto

from onnxfim.graph.graph import Graph, Node

#: Results that jump or stay: their derivative is zero almost everywhere. Quantisers are not among them: what they round stands for
#: a real number, and finite steps see its slope.
STEPS = frozenset({
    "ArgMax", "ArgMin", "Round", "Floor", "Ceil", "Sign", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And",
    "Or", "Xor", "IsNaN", "IsInf", "NonZero", "Shape", "Size", "Hardmax", "Unique", "BitShift", "BitwiseAnd", "BitwiseOr",
    "BitwiseXor", "BitwiseNot", "Range", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial", "StringNormalizer", "NonMaxSuppression", "ai.onnx.ml.TreeEnsembleClassifier", "ai.onnx.ml.TreeEnsembleRegressor",
    "ai.onnx.ml.TreeEnsemble", "ai.onnx.ml.Binarizer", "ai.onnx.ml.LabelEncoder", "ai.onnx.ml.CategoryMapper",
    "ai.onnx.ml.OneHotEncoder",
})  # fmt: skip
# Inputs that only choose among the others, by the operator; all other inputs carry a slope.
_CHOOSING: dict[str, tuple[int, ...]] = {
    "Where": (0,), "Gather": (1,), "GatherElements": (1,), "GatherND": (1,), "ScatterElements": (1,), "ScatterND": (1,),
    "Scatter": (1,), "OneHot": (0, 1), "Slice": (1, 2, 3, 4), "Reshape": (1,), "Expand": (1,), "Tile": (1,), "Pad": (1, 3),
    "TopK": (1,), "Compress": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Resize": (1, 2, 3), "Split": (1,),
    "ai.onnx.ml.ArrayFeatureExtractor": (1,), "DequantizeLinear": (2,), "QuantizeLinear": (2,),
    "com.microsoft.DequantizeLinear": (2,), "com.microsoft.QuantizeLinear": (2,), "ReduceSum": (1,),
    "ReduceMean": (1,), "ReduceMax": (1,), "CumSum": (1,), "If": (0,),
}  # fmt: skip
#: Outputs that carry no slope, by the operator.
INDICES: dict[str, tuple[int, ...]] = {
    "TopK": (1,), "MaxPool": (1,), "ai.onnx.ml.LinearClassifier": (0,), "ai.onnx.ml.SVMClassifier": (0,), "Dropout": (1,),
}  # fmt: skip
#: Element types that hold no real numbers.
WHOLE = frozenset({
    TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16,
    TensorProto.UINT32, TensorProto.UINT64, TensorProto.BOOL, TensorProto.STRING,
})  # fmt: skip


def no_slope(graph: Graph, input_name: str, output: str) -> str | None:
    """Why the output has no slope by the input: the operators that every path ends in, in words; None where a slope passes.

    An output that does not depend on the input at all is none of these: its slope is a true zero.
    """
    live, reached, ends = {input_name}, {input_name}, {}
    for node in graph.nodes:
        if not (node.has_subgraph or any(i in reached for i in node.inputs)):
            continue
        reached.update(o for o in node.outputs if o)
        passing = _passes(node, live)
        blocked = INDICES.get(node.op, ())
        live.update(o for k, o in enumerate(node.outputs) if o and passing and k not in blocked)
        if any(i in live for i in node.inputs) and (not passing or blocked):
            ends.update({o: node for k, o in enumerate(node.outputs) if o and (not passing or k in blocked)})
    if output in live or output not in reached:
        return None
    stops = [n for o, n in ends.items() if _leads(graph, o, output)]
    if not stops:
        return None
    names = ", ".join(dict.fromkeys(f"{n.op.rpartition('.')[2]} (node {n.label!r})" for n in stops[:3]))
    return f"every path from the input to the output passes a step function: {names}"


def _passes(node: Node, live: set[str]) -> bool:
    """Whether a slope of some input reaches the node's results."""
    if node.has_subgraph and node.op != "If":
        return True  # what happens inside is not followed: it may
    if node.op in STEPS or (node.op == "Cast" and node.attributes.get("to") in WHOLE):
        return False
    choosing = _CHOOSING.get(node.op, ())
    return node.has_subgraph or any(i in live for k, i in enumerate(node.inputs) if k not in choosing)


def _leads(graph: Graph, value: str, output: str) -> bool:
    """Whether the output depends on the value."""
    found = {value}
    for node in graph.nodes:
        if any(i in found for i in node.inputs):
            found.update(o for o in node.outputs if o)
    return output in found
