"""What layers are arranged to besides skips and attention: recurrence, U-Net skips, channel shuffles, depthwise-separable pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from onnxfim.graph.flow import Flow
from onnxfim.graph.graph import Node

RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM", "AttnLSTM"})
_LOOPS = ("Loop", "Scan")
_UPWARDS = frozenset({"ConvTranspose", "Resize", "Upsample", "DepthToSpace", "MaxUnpool", "QLinearConvTranspose"})
_STEPS = 3  # layers one above the other that share their weights: two can be a siamese pair
_ONE_TO_ONE = frozenset({
    "Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Sigmoid", "Mul", "BatchNormalization", "Identity", "QuantizeLinear",
    "DequantizeLinear", "Elu", "Gelu", "Silu", "Swish", "QuickGelu", "QLinearLeakyRelu", "QLinearSigmoid", "LayerNormalization",
    "Transpose",
})  # fmt: skip


def recurrent(nodes: Sequence[Node], weighted: Sequence[Node], above: Callable[[Node, Node], bool]) -> list[Node]:
    """Recurrent operators and loops; else layers that stand one above the other with the same weights, as an unrolled net's.

    Args:
        nodes: Between input and output, in order.
        weighted: Those with weights, in order.
        above: Whether the second depends on the first.
    """
    found = [n for n in nodes if n.op.rpartition(".")[2] in (*RECURRENT, *_LOOPS)]
    if found:
        return found
    shared: dict[tuple[str, ...], list[Node]] = {}
    for node in weighted:
        weights = tuple(i for i in node.inputs[1:2] if i)
        if weights:
            shared.setdefault(weights, []).append(node)
    for chain in shared.values():
        steps = [chain[0]]
        for node in chain[1:]:
            if above(steps[-1], node):
                steps.append(node)
        if len(steps) >= _STEPS:
            found += steps
    return sorted(found, key=lambda n: n.index)


def coarser(joins: Iterable[Node], nodes: Sequence[Node], between: Callable[[Node, Node], bool]) -> list[Node]:
    """Those joins of a value with what was computed from it in which that came back up from a coarser resolution: U-Net's skips."""
    upwards = [n for n in nodes if n.op.rpartition(".")[2] in _UPWARDS]
    return [join for join in joins if any(between(up, join) for up in upwards)]


def shuffles(view: Flow, nodes: Sequence[Node]) -> list[Node]:
    """Transposes that interleave groups of channels: (N, g, c, …) to (N, c, g, …) between two reshapes."""
    found = []
    for node in nodes:
        perm = node.attributes.get("perm")
        if node.op != "Transpose" or not isinstance(perm, tuple) or len(perm) < 4 or perm != (0, 2, 1, *range(3, len(perm))):
            continue
        before = view.graph.producers.get(node.inputs[0])
        readers = view.graph.consumers.get(node.outputs[0], ())
        if before is None or before.op != "Reshape" or not any(r.op == "Reshape" for r in readers):
            continue
        wide, split = view.shape(before.inputs[0]), view.shape(node.inputs[0])
        if wide is not None and split is not None and len(wide) == len(split) - 1 and wide[2:] == split[3:]:
            found.append(node)
    return found


def separable(view: Flow, depthwise: Sequence[Node], kernels: Mapping[int, tuple[int | None, ...]]) -> list[Node]:
    """Depthwise convolutions whose channels a 1 × 1 convolution, or a dense layer, mixes next."""
    found = []
    for node in depthwise:
        name, ahead = node.outputs[0], 0
        while ahead < len(_ONE_TO_ONE):
            readers = view.graph.consumers.get(name, ())
            pointwise = [r for r in readers if r.index in kernels and set(kernels[r.index][2:]) <= {1}]
            if pointwise:
                found.append(node)
                break
            onward = [r for r in readers if r.op.rpartition(".")[2] in _ONE_TO_ONE]
            if not onward:
                break
            # Of a gate and what it multiplies the product comes last.
            name, ahead = max(onward, key=lambda r: r.index).outputs[0], ahead + 1
    return found
