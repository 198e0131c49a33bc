"""Put the nodes of a subgraph in place of the node that holds it, and count what is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnxfim.errors import UnsupportedOperator
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.shapes import Walk
from onnxfim.graph.simplify import rename
from onnxfim.graph.upgrade import upgrade

#: Nodes that loops and recurrent operators of one graph may be written out to: a derivative graph has four to six times as many.
MOST_UNROLLED = 20_000

_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def too_long(found: Walk, what: str, nodes: int) -> str | None:
    """Why a node is not written out to so many nodes, or None where it may be."""
    total = found.unrolled + nodes
    if total <= MOST_UNROLLED:
        return None
    return f"{what} take about {total:,} nodes, over the {MOST_UNROLLED:,} that are written. Audit shorter sequences"


class SubgraphWriter:
    """What writing subgraphs out needs: names, operator sets, and which names are sequences.

    ``decisions`` are the values that decided what was written, by name: at another batch size they must be the same. ``reasons``
    tell by the first output of a node why it stays as it is. ``splits`` are the names of nodes that split an axis into its rows.

    Args:
        version: Operator set of the file, which is that of its subgraphs.
        emitter: Gives names and constants.
        wide: Whether half precision is computed in float32.
        widen: Widens a node.
    """

    def __init__(self, version: int, emitter: Emitter, *, wide: bool, widen: Callable[[onnx.NodeProto], onnx.NodeProto]) -> None:
        self._version, self.emitter, self._wide, self._widen = version, emitter, wide, widen
        self._versions: dict[str, int] = {}
        self.sequences: dict[str, tuple[str, ...]] = {}
        self.decisions: dict[str, np.ndarray] = {}
        self.reasons: dict[str, str] = {}
        self.splits: set[str] = set()
        self.kept: set[str] = set()  # values of nodes on sequences that stay as they are

    def written_for(self, nodes: Sequence[onnx.NodeProto], version: int) -> None:
        """Subgraphs of these nodes are of this operator set: they come from a function of its own."""
        for node in nodes:
            if any(a.type == AttributeProto.GRAPH for a in node.attribute):
                self._versions[next(o for o in node.output if o)] = version

    def known(self, name: str, found: Walk) -> np.ndarray | None:
        """The value of a name that decides what is written."""
        value = found.value(name)
        if value is not None and value.size == 1:
            self.decisions[name] = value
            return value
        return None

    def keep(self, node: onnx.NodeProto, reason: str) -> None:
        self.reasons[next((o for o in node.output if o), "")] = reason

    def constants(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Names of the graph's own weights among the constants of all."""
        names = {}
        if graph.sparse_initializer:
            raise UnsupportedOperator("a subgraph holds sparse weights, which are not differentiated.")
        for tensor in graph.initializer:
            value = numpy_helper.to_array(tensor)
            half = self._wide and tensor.data_type in _HALF
            names[tensor.name] = self.emitter.constant(value.astype(np.float32) if half else value)
        return names

    def inlined(
        self, graph: onnx.GraphProto, names: Mapping[str, str], version: int, found: Walk, where: str
    ) -> tuple[list[onnx.NodeProto], list[str]]:
        """The graph's nodes with values of their own, and the names of its outputs.

        Args:
            graph: A subgraph.
            names: What its inputs and constants are called outside.
            version: Its operator set.
            found: The walk, whose count of written nodes goes up.
            where: The name of the node that holds it.
        """
        inner = dict(names)
        nodes = []
        for given in graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(given)
            node.name = f"{where}/{given.name or given.op_type}"
            for output in given.output:
                if output:
                    inner[output] = self.emitter.fresh(given.op_type)
            rename(node, inner)
            nodes.append(self._widen(node) if self._wide else node)
        found.unrolled += len(nodes) + 1  # an empty body is a turn too
        nodes = upgrade(nodes, version, self.emitter)
        self.written_for(nodes, version)
        return nodes, [inner.get(o.name, o.name) for o in graph.output]

    def handed_on(self, given: Sequence[str], outputs: Sequence[str], where: str) -> list[onnx.NodeProto]:
        """The outputs of a node from values that are there."""
        nodes = []
        for name, output in zip(given, outputs, strict=False):
            if output and name in self.sequences:
                self.sequences[output] = self.sequences[name]
            elif output:
                nodes.append(helper.make_node("Identity", [name], [output], name=where))
        return nodes

    def stacked(self, values: Sequence[str], output: str, axis: int, where: str) -> list[onnx.NodeProto]:
        """Values of one shape joined along a new axis."""
        axes = self.emitter.constant(np.asarray([axis], np.int64))
        wide = [self.emitter.fresh("Unsqueeze") for _ in values]
        nodes = [helper.make_node("Unsqueeze", [v, axes], [w], name=where) for v, w in zip(values, wide, strict=True)]
        return [*nodes, helper.make_node("Concat", wide, [output], name=where, axis=axis)]

    def version_of(self, node: onnx.NodeProto) -> int:
        return self._versions.get(next((o for o in node.output if o), ""), self._version)

    def refuse(self, node: onnx.NodeProto, why: str) -> UnsupportedOperator:
        return UnsupportedOperator(f"node {node.name!r}: {node.op_type} cannot be written out: {why}.")
