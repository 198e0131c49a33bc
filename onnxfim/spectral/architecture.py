"""The family of a network, read from the topology of its graph, with the evidence a person can check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from onnxfim.graph.flow import Flow
from onnxfim.graph.graph import Graph, Node
from onnxfim.record.bound import Architecture
from onnxfim.spectral import motifs
from onnxfim.spectral.prepared import prepared_view

_CONV = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "NhwcConv", "ConvInteger", "QLinearConv", "ConvTranspose"})
_DENSE = frozenset({"Gemm", "MatMul", "FusedMatMul", "FusedGemm", "QLinearMatMul", "MatMulInteger", "MatMulNBits", "QGemm",
                    "Einsum",                    "LinearClassifier", "LinearRegressor"})  # fmt: skip
_ATTENTION = frozenset(
    {"Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention", "PackedAttention", "PackedMultiHeadAttention"}
)
_SOFTMAX = frozenset({"Softmax", "QLinearSoftmax"})
_FACTORS = {"QLinearMatMul": (0, 3), "MatMulIntegerToFloat": (0, 1), "MatMulInteger": (0, 1)}  # inputs that are no scales
_SUM = frozenset({"Add", "Sum", "QLinearAdd", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})
_PASS = frozenset(
    {"Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear", "Reshape", "Unsqueeze", "Squeeze", "Transpose"}
)
_ON_SCORES = _PASS | _SOFTMAX | {"Mul", "Div", "Add", "Sub", "Where", "Expand", "Max", "Clip", "QLinearMul", "QLinearAdd"}

Skip: TypeAlias = "tuple[Node, str]"


def infer_architecture(graph: Graph | Flow) -> Architecture:
    """Family and evidence of a network.

    Families are told apart by what decides their closed-form bound: attention (a product of two varying matrices, softmax in
    between, or a fused operator), channels multiplied by gates from pooled values, concatenation of a value with what was computed
    from it, sums of a value with what was computed from it, and plain chains of convolutions or dense layers. Depthwise and
    inverted bottlenecks are no family of their own: MobileNetV2 and ConvNeXt sum, so they are ``resnet``; a depthwise-separable
    chain without skips is ``vgg``; EfficientNet and MobileNetV3 gate and sum, so they are ``hybrid``. So are nets whose
    concatenations make no DenseNet: U-Nets, whose second part came back from a coarser resolution, and ShuffleNets, which join a
    half of the channels with what was made of the other. Nets with recurrent operators, loops, or layers above each other that
    share their weights are ``recurrent``, unless they attend.

    Args:
        graph: The model's graph, or its view by `prepared_view`; names play no part.
    """
    return _TopologyReading(prepared_view(graph)).architecture()


class _TopologyReading:
    """The graph between input and outputs, with each node's ancestors and its number of weight layers from the input."""

    def __init__(self, view: Flow) -> None:
        self.view = view
        self.nodes = _between(view)
        self.ancestors: dict[str, int] = {view.source.name: 0}
        self.bit: dict[str, int] = {view.source.name: 1}
        self.depth: dict[str, int] = {view.source.name: 0}
        self.convs = [n for n in self.nodes if _base(n) in _CONV and self._varying(n)[:1] == [n.inputs[0]]]
        self.dense = [n for n in self.nodes if _base(n) in _DENSE and len(self._factors(n)) == 1]
        weighted = {n.index for n in (*self.convs, *self.dense)} | {n.index for n in self.nodes if _base(n) in _ATTENTION}
        for k, node in enumerate(self.nodes, start=1):
            inputs = [n for n in node.inputs if n in self.depth]
            seen = 0
            for name in inputs:
                seen |= self.ancestors[name] | self.bit[name]
            depth = max((self.depth[n] for n in inputs), default=0) + (node.index in weighted)
            for output in node.outputs:
                if output:
                    self.ancestors[output], self.bit[output], self.depth[output] = seen, 1 << k, depth

    def architecture(self) -> Architecture:
        attention = self._attention()
        skips, projected = self._skips(attention)
        growth, parallel = self._concats()
        coarser = motifs.coarser(growth, self.nodes, self._between)
        growth = [n for n in growth if n not in coarser]
        gates, steps = self._gates(), motifs.recurrent(self.nodes, [*self.convs, *self.dense], self._below)
        facts = self._facts(attention, skips, projected, growth, parallel, gates, coarser, steps)
        counts = (len(skips) + len(projected), len(growth), len(parallel), len(gates))
        return Architecture(self._family(attention, *counts, len(coarser), len(steps)), tuple(facts))

    def _family(
        self,
        attention: Sequence[tuple[Node, int | None]],
        skips: int,
        growth: int,
        parallel: int,
        gates: int,
        coarser: int,
        steps: int,
    ) -> str:
        if attention:
            return "hybrid" if len(self._spatial()) > len(attention) or steps or gates else "transformer"
        if steps:
            return "recurrent"
        if any(_base(n) == "If" for n in self.nodes) or not (self.convs or self.dense):
            return "unknown"
        if coarser or gates or (growth > 1 and skips > 1) or (parallel > 1 and growth <= parallel):
            return "hybrid"
        if growth > 1 or (growth and not skips):
            return "densenet"
        if skips:
            return "resnet"
        if parallel:
            return "hybrid"
        return "vgg" if self.convs else "mlp"

    def _varying(self, node: Node) -> list[str]:
        return [n for n in node.inputs if n in self.view.varying]

    def _factors(self, node: Node) -> list[str]:
        """Varying inputs that are multiplied: of a quantised product, not its scales."""
        places = _FACTORS.get(_base(node))
        return [n for k, n in enumerate(node.inputs) if n in self.view.varying and (places is None or k in places)]

    def _below(self, first: Node, second: Node) -> bool:
        """Whether the second node depends on the first."""
        bit = self.bit[first.outputs[0]]
        return any((self.ancestors.get(n, 0) | self.bit.get(n, 0)) & bit for n in second.inputs)

    def _between(self, middle: Node, join: Node) -> bool:
        """Whether a node lies on the way from one input of a join, which another was computed from, to that other."""
        names = [n for n in dict.fromkeys(join.inputs) if n in self.depth]
        last = max(names, key=lambda n: self.depth[n])
        bit, seen = self.bit[middle.outputs[0]], self.ancestors[middle.outputs[0]]
        on_the_way = (self.ancestors[last] | self.bit[last]) & bit
        return bool(on_the_way) and any(seen & self.bit.get(self._plain(n), 0) for n in names if n != last)

    def _spatial(self) -> list[Node]:
        """Convolutions that mix pixels and overlap: kernels larger than 1 and larger than their stride."""
        result = []
        for node in self.convs:
            kernel = self._kernel(node)[2:]
            given = node.attributes.get("strides")
            strides = [int(s) for s in given] if isinstance(given, tuple) and given else [1] * len(kernel)
            if any(k is not None and k > max(1, s) for k, s in zip(kernel, strides, strict=False)):
                result.append(node)
        return result

    def _kernel(self, node: Node) -> tuple[int | None, ...]:
        where = 3 if _base(node) == "QLinearConv" else 1
        return (self.view.shape(node.inputs[where]) if len(node.inputs) > where else None) or ()

    def _attention(self) -> list[tuple[Node, int | None]]:
        """Attention blocks, each with its number of heads where the graph tells it."""
        found: list[tuple[Node, int | None]] = []
        for node in self.nodes:
            if _base(node) in _ATTENTION:
                heads = node.attributes.get("num_heads", node.attributes.get("q_num_heads"))
                found.append((node, int(heads) if isinstance(heads, int) else None))
            elif _base(node) in _DENSE and len(self._factors(node)) == 2:
                softmax = self._up(self._factors(node), _PASS | {"Where"}, _SOFTMAX)
                if softmax is None:
                    continue
                scores = self._up(list(softmax.inputs[:1]), _ON_SCORES, _DENSE)
                if scores is not None and len(self._factors(scores)) == 2:
                    shape = self.view.shape(scores.outputs[0])
                    found.append((node, shape[-3] if shape is not None and len(shape) >= 4 else 1 if shape is not None else None))
        return found

    def _up(self, names: list[str], through: frozenset[str] | set[str], wanted: frozenset[str] | set[str]) -> Node | None:
        """The nearest node of a wanted type above ``names``, through operators that do not mix tokens."""
        queue, seen = list(names), 0
        while queue and seen < 64:
            seen += 1
            node = self.view.graph.producers.get(queue.pop(0))
            if node is None:
                continue
            if _base(node) in wanted:
                return node
            if _base(node) in through:
                queue += [n for n in node.inputs if n in self.view.varying]
        return None

    def _skips(self, attention: Sequence[tuple[Node, int | None]]) -> tuple[list[Node], list[Node]]:
        """Sums of a value with what weight layers made of it, and sums of two branches with weight layers each."""
        plain: list[Node] = []
        projected: list[Node] = []
        for node in self.nodes:
            base, names = _base(node), [n for n in dict.fromkeys(node.inputs) if n in self.depth]
            fused = base in ("FusedConv", "Gemm", "FusedGemm", "NhwcFusedConv") and len(names) == 2
            if not (base in _SUM or fused) or len(names) < 2:
                continue
            a, b = names[0], names[-1]
            depth_a = self.depth[a] + (1 if fused and a == node.inputs[0] else 0)
            if depth_a != self.depth[b]:
                low, high = (a, b) if depth_a < self.depth[b] else (b, a)
                origin = self._plain(low)
                (plain if self.ancestors[high] & self.bit.get(origin, 0) else projected).append(node)
            elif self._weight_above(a) is not None and self._weight_above(a) != self._weight_above(b):
                projected.append(node)
        return plain, projected

    def _plain(self, name: str) -> str:
        """The value above operators without weights and with one varying input, as far as it is read more than once."""
        while len(self.view.graph.consumers.get(name, ())) < 2:
            node = self.view.graph.producers.get(name)
            if node is None or len(self._varying(node)) != 1 or node in self.convs or node in self.dense:
                break
            name = self._varying(node)[0]
        return name

    def _weight_above(self, name: str) -> int | None:
        """The weight layer above ``name`` on a path without branches."""
        weighted = {n.index for n in (*self.convs, *self.dense)}
        while (node := self.view.graph.producers.get(name)) is not None:
            if node.index in weighted:
                return node.index
            varying = self._varying(node)
            if len(varying) != 1:
                return None
            name = varying[0]
        return None

    def _concats(self) -> tuple[list[Node], list[Node]]:
        """Concatenations of a value with what weight layers made of it, and of parallel branches."""
        growth, parallel = [], []
        for node in self.nodes:
            if _base(node) not in ("Concat", "QLinearConcat"):
                continue
            names = [n for n in dict.fromkeys(node.inputs) if n in self.depth]
            if len(names) < 2 or (len({self.depth[n] for n in names}) == 1 and len({self._weight_above(n) for n in names}) < 2):
                continue
            last = max(names, key=lambda n: self.depth[n])
            kept = [n for n in names if self.depth[n] < self.depth[last]]
            if any(self.ancestors[last] & self.bit.get(self._plain(n), 0) and not self._part(n) for n in kept):
                growth.append(node)
            else:
                parallel.append(node)
        return growth, parallel

    def _part(self, name: str) -> bool:
        """Whether a value is a part of the channels of another, which are split: what is joined with it is no growth."""
        node = self.view.graph.producers.get(name)
        while node is not None and _base(node) in ("Identity", "QuantizeLinear", "DequantizeLinear"):
            node = self.view.graph.producers.get(node.inputs[0])
        return node is not None and _base(node) in ("Split", "Slice", "Gather") and self._halves(node)

    def _halves(self, node: Node) -> bool:
        """Whether a Split, Slice or Gather takes a part of the second or the last axis."""
        whole, part = self.view.shape(node.inputs[0]), self.view.shape(node.outputs[0])
        if whole is None or part is None or len(whole) != len(part):
            return True
        return any(a != b for a, b in zip(whole, part, strict=True))

    def _gates(self) -> list[Node]:
        """Products of a value with a pooled one: every axis after the channels (or before them) is 1 on one side only."""
        found = []
        for node in self.nodes:
            names = [n for n in dict.fromkeys(node.inputs) if n in self.depth]
            if _base(node) != "Mul" or len(names) != 2 or self.depth[names[0]] == self.depth[names[1]]:
                continue
            shapes = [self.view.shape(n) for n in names]
            if any(s is None or len(s) < 3 for s in shapes):
                continue
            ones = [sum(d == 1 for d in (s or ())[1:]) for s in shapes]
            if abs(ones[0] - ones[1]) >= len(shapes[0] or ()) - 2:
                found.append(node)
        return found

    def _facts(
        self, attention: Sequence[tuple[Node, int | None]], skips: list[Node], projected: list[Node], growth: list[Node],
        parallel: list[Node], gates: list[Node], coarser: list[Node], steps: list[Node],
    ) -> list[str]:  # fmt: skip
        lines = []
        if self.convs:
            depthwise = [n for n in self.convs if (g := n.attributes.get("group", 1)) != 1 and self._kernel(n)[1:2] == (1,) and g]
            extra = f"; {len(depthwise)} of them depthwise" if depthwise else ""
            lines.append(f"{_count(self.convs, 'convolution')}{extra}.")
            kernels = {n.index: self._kernel(n) for n in self.convs} | {n.index: () for n in self.dense}
            pairs = motifs.separable(self.view, depthwise, kernels)
            if pairs:
                lines.append(f"{_count(pairs, 'depthwise-separable pair', '(depthwise, then 1 × 1)')}.")
        if self.dense:
            lines.append(f"{_count(self.dense, 'dense layer')}.")
        if attention:
            heads = sorted({h for _, h in attention if h})
            told = f"; heads per block: {', '.join(map(str, heads))}" if heads else ""
            lines.append(f"{_count([n for n, _ in attention], 'attention block')}{told}.")
        shuffles = motifs.shuffles(self.view, self.nodes) if self.convs else []
        layers = any(_base(n) in motifs.RECURRENT for n in steps)
        for nodes, what in (
            (steps, "recurrent layer" if layers else "step of a loop or of layers that share their weights (recurrent)"),
            (coarser, "concatenation of a value with what came back from a coarser resolution (U-Net skip)"),
            (shuffles, "shuffle of groups of channels (channel shuffle)"),
            (skips, "sum of a value with what weight layers made of it (identity skip)"),
            (projected, "sum of two branches (projected skip)"),
            (growth, "concatenation of a value with what weight layers made of it"),
            (parallel, "concatenation of parallel branches"),
            (gates, "product of channels with gates from a pooled value (squeeze-and-excite)"),
        ):
            if nodes:
                head, _, tail = what.partition(" ")
                lines.append(f"{_count(nodes, head, tail)}.")
        if self.convs and not (skips or projected or growth or parallel or gates or attention or coarser or steps):
            lines.append("No skips, concatenations or attention: one chain from input to output.")
        return lines or ["No convolution, dense layer or attention was found between input and output."]


def _count(nodes: Sequence[Node], what: str, tail: str = "") -> str:
    names = [n.label for n in nodes]
    shown = f"{names[0]!r}" if len(names) == 1 else f"{names[0]!r} … {names[-1]!r}"
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''}{' ' + tail if tail else ''}: {shown}"


def _base(node: Node) -> str:
    return node.op.rpartition(".")[2]


def _between(view: Flow) -> list[Node]:
    """Nodes on paths from the input to an output; those that only read shapes are left out."""
    live = {view.source.name}
    for node in view.graph.nodes:
        if node.op not in ("Shape", "Size") and any(n in live for n in node.inputs):
            live.update(o for o in node.outputs if o and o not in view.constants)
    wanted, result = {o.name for o in view.graph.outputs}, []
    for node in reversed(view.graph.nodes):
        if any(o in wanted and o in live for o in node.outputs):
            result.append(node)
            wanted.update(n for n in node.inputs if n in live)
    return result[::-1]
