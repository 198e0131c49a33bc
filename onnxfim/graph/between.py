"""What lies between an input and the outputs: which values depend on which, and where several ways come together."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property

import onnx

from onnxfim.graph.graph import Graph, Node, reads
from onnxfim.graph.reach import no_slope

FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
# Operators through which several embeddings become one value.
_JOINING = frozenset({
    "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Add", "Sum", "Mean", "Mul", "Cast", "Dropout",
})  # fmt: skip


class Between:
    """The part of a graph between an input and what is audited.

    Args:
        graph: The model's graph.
        start: Name of the input.
        output: The output that is audited; None for all.
    """

    def __init__(self, graph: Graph, start: str, output: str | None) -> None:
        self.graph, self.start = graph, start
        self._nodes = graph.model.graph.node
        self.outputs = [output] if output is not None else [o.name for o in graph.outputs]

    def reads(self, node: Node) -> list[str]:
        """What a node reads, its subgraphs included."""
        return reads(self._nodes[node.index])

    @cached_property
    def behind(self) -> set[str]:
        """Values that depend on the input."""
        return self._behind({self.start})

    @cached_property
    def fed(self) -> set[str]:
        """Values that depend on any input."""
        return self._behind({i.name for i in self.graph.inputs})

    def _behind(self, start: Collection[str]) -> set[str]:
        found = set(start)
        for node in self.graph.nodes:
            if not found.isdisjoint(self.reads(node)):
                found.update(o for o in node.outputs if o)
        return found

    @cached_property
    def before(self) -> set[str]:
        """Values that the outputs depend on."""
        needed = set(self.outputs)
        for node in reversed(self.graph.nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(self.reads(node))
        return needed

    def moves(self, name: str) -> bool:
        """Whether a slope by this value reaches an output; none does through a Shape, or another step."""
        behind = self._behind({name})
        return any(o in behind and no_slope(self.graph, name, o) is None for o in self.outputs)

    def nodes_before(self, name: str) -> int:
        """How many nodes a value depends on."""
        needed, count = {name}, 0
        for node in reversed(self.graph.nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(self.reads(node))
                count += 1
        return count

    def floats(self) -> tuple[str, ...]:
        """The first float values between the input and the outputs, as far as types are known."""
        return tuple(n for n in self._float_values() if n in self.behind and n in self.before and n not in self.outputs)

    def _float_values(self) -> Iterator[str]:
        try:
            inferred = onnx.shape_inference.infer_shapes(self.graph.model).graph
        except Exception:  # noqa: BLE001 - a convenience for a message
            return
        types = {v.name: v.type.tensor_type.elem_type for v in inferred.value_info}
        for node in self.graph.nodes:
            for name in node.outputs:
                shape = self.graph.shapes.get(name)
                if types.get(name) in FLOATS and (shape is None or len(shape) >= 2):
                    yield name


def joined_by(between: Between, values: Collection[str]) -> str | None:
    """The first value that all of these go through on their way to the outputs, where only joining operators lie before it."""
    live, plain = set(values) & between.before, set(values)
    left = {v: [n for n in between.graph.nodes if v in between.reads(n) and not between.before.isdisjoint(n.outputs)] for v in live}
    for node in between.graph.nodes:
        mine = [i for i in between.reads(node) if i in live]
        made = [o for o in node.outputs if o and o in between.before]
        if not mine or not made:
            continue
        for name in mine:
            left[name] = [n for n in left[name] if n is not node]
            if not left[name] and name not in between.outputs:
                live.discard(name)
        fits = node.op in _JOINING and all(i in plain or i not in between.behind for i in between.reads(node))
        for name in made:
            live.add(name)
            left[name] = [n for n in between.graph.consumers.get(name, ()) if not between.before.isdisjoint(n.outputs)]
            if fits:
                plain.add(name)
        if len(live) == 1:
            (only,) = live
            return only if only in plain else None
    return None
