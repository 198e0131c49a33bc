"""Write control flow and sequences of tensors out, where what they depend on is known before the model runs.

The branch of an If that is taken stands in its place; a Loop is written turn by turn, since only the values of a turn tell whether
another follows; a Scan has as many steps as its inputs have entries. A sequence is a list of names and no value at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnxfim.errors import UnsupportedOperator
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.shapes import STANDARD, Walk
from onnxfim.graph.simplify import rename
from onnxfim.graph.upgrade import attributes_of, upgrade

#: Nodes that loops and recurrent operators of one graph may be written out to: a derivative graph has four to six times as many.
MOST_UNROLLED = 30_000
_RUNNING = "onnxfim.running"  # domain of a loop between two of its turns
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_SEQUENCES = frozenset(
    [
        *("SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "SequenceMap"),
        *("SplitToSequence", "ConcatFromSequence"),
    ]
)


def too_long(found: Walk, what: str, nodes: int) -> str | None:
    """Why a node is not written out to so many nodes, or None where it may be."""
    total = found.unrolled + nodes
    if total <= MOST_UNROLLED:
        return None
    return f"{what} take about {total:,} nodes, over the {MOST_UNROLLED:,} that are written. Audit shorter sequences"


@dataclass
class _Loop:
    """A Loop between two turns."""

    node: onnx.NodeProto
    body: onnx.GraphProto
    trips: int | None
    version: int
    names: Mapping[str, str]  # the body's own constants
    carried: list[str]
    scans: list[list[str]] = field(default_factory=list)
    turn: int = 0


class Unroller:
    """What is written in place of control flow and sequences during walks over one graph.

    ``decisions`` are the values that decided what was written, by name: at another batch size they must be the same. ``reasons``
    tell by the first output of a node why it stays as it is.

    Args:
        version: Operator set of the file, which is that of its subgraphs.
        emitter: Gives names and constants.
        wide: Whether half precision is computed in float32.
        widen: Widens a node.
    """

    def __init__(
        self, version: int, emitter: Emitter, *, wide: bool, widen: Callable[[onnx.NodeProto], onnx.NodeProto]
    ) -> None:  # fmt: skip
        self._version, self._emitter, self._wide, self._widen = version, emitter, wide, widen
        self._versions: dict[str, int] = {}
        self._loops: dict[str, _Loop] = {}
        self._sequences: dict[str, tuple[str, ...]] = {}
        self._kept: set[str] = set()
        self.decisions: dict[str, np.ndarray] = {}
        self.reasons: dict[str, str] = {}

    def written_for(self, nodes: Sequence[onnx.NodeProto], version: int) -> None:
        """Subgraphs of these nodes are of this operator set: they come from a function of its own."""
        for node in nodes:
            if any(a.type == AttributeProto.GRAPH for a in node.attribute):
                self._versions[next(o for o in node.output if o)] = version

    def __call__(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """The nodes to put in place of a node, or None to keep it.

        Raises:
            UnsupportedOperator: a loop whose turns cannot be told any more, or are too many.
        """
        if node.domain == _RUNNING:
            return self._turned(self._loops[node.doc_string], node.input[0], found)
        if node.domain not in STANDARD:
            return None
        rule = {"If": self._if, "Loop": self._loop, "Scan": self._scan}.get(node.op_type)
        if rule is not None:
            instead = rule(node, found)
        elif node.op_type in _SEQUENCES and not self._kept.intersection(node.output):
            instead = self._sequence(node, found)
        elif node.op_type == "Identity" and node.input[0] in self._sequences:
            self._sequences[node.output[0]] = self._sequences[node.input[0]]
            return []
        else:
            return None
        return self._with_sequences(node) if instead is None else instead

    # graphs in place

    def _known(self, name: str, found: Walk) -> np.ndarray | None:
        """The value of a name that decides what is written."""
        value = found.value(name)
        if value is not None and value.size == 1:
            self.decisions[name] = value
            return value
        return None

    def _keep(self, node: onnx.NodeProto, reason: str) -> None:
        self.reasons[next((o for o in node.output if o), "")] = reason

    def _constants(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Names of the graph's own weights among the constants of all."""
        names = {}
        if graph.sparse_initializer:
            raise UnsupportedOperator("a subgraph holds sparse weights, which are not differentiated.")
        for tensor in graph.initializer:
            value = numpy_helper.to_array(tensor)
            half = self._wide and tensor.data_type in _HALF
            names[tensor.name] = self._emitter.constant(value.astype(np.float32) if half else value)
        return names

    def _inlined(
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
                    inner[output] = self._emitter.fresh(given.op_type)
            rename(node, inner)
            nodes.append(self._widen(node) if self._wide else node)
        found.unrolled += len(nodes)
        nodes = upgrade(nodes, version, self._emitter)
        self.written_for(nodes, version)
        return nodes, [inner.get(o.name, o.name) for o in graph.output]

    def _handed_on(self, given: Sequence[str], outputs: Sequence[str], where: str) -> list[onnx.NodeProto]:
        """The outputs of a node from values that are there."""
        nodes = []
        for name, output in zip(given, outputs, strict=False):
            if output and name in self._sequences:
                self._sequences[output] = self._sequences[name]
            elif output:
                nodes.append(helper.make_node("Identity", [name], [output], name=where))
        return nodes

    def _stacked(self, values: Sequence[str], output: str, axis: int, where: str) -> list[onnx.NodeProto]:
        """Values of one shape joined along a new axis."""
        axes = self._emitter.constant(np.asarray([axis], np.int64))
        wide = [self._emitter.fresh("Unsqueeze") for _ in values]
        nodes = [helper.make_node("Unsqueeze", [v, axes], [w], name=where) for v, w in zip(values, wide, strict=True)]
        return [*nodes, helper.make_node("Concat", wide, [output], name=where, axis=axis)]

    def _version_of(self, node: onnx.NodeProto) -> int:
        return self._versions.get(next((o for o in node.output if o), ""), self._version)

    # control flow

    def _if(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        condition = self._known(node.input[0], found)
        if condition is None:
            self._keep(node, "which branch it takes is not known before the model runs")
            return None
        taken = "then_branch" if condition.reshape(()) else "else_branch"
        graph = next(a.g for a in node.attribute if a.name == taken)
        nodes, outputs = self._inlined(graph, self._constants(graph), self._version_of(node), found, node.name)
        return nodes + self._handed_on(outputs, node.output, node.name)

    def _loop(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        body = next(a.g for a in node.attribute if a.name == "body")
        trips, condition = (node.input[i] if i < len(node.input) else "" for i in (0, 1))
        most = self._known(trips, found) if trips else None
        if trips and most is None:
            self._keep(node, "how many turns it takes is not known before the model runs")
            return None
        if condition and self._known(condition, found) is None:
            self._keep(node, "its condition is not known before the model runs")
            return None
        carried = list(node.input[2:])
        count = None if most is None else int(most.reshape(()))
        states = len(carried)
        why = None
        if count is not None and self._unconditional(body, found):
            why = too_long(found, f"{count:,} turns", count * len(body.node))
        if count is not None and count < 1 and len(body.output) > 1 + states:
            why = "it takes no turn, so what it gathers has no shape"
        if why is not None:
            self._keep(node, why)
            return None
        scans: list[list[str]] = [[] for _ in body.output[1 + states :]]
        loop = _Loop(node, body, count, self._version_of(node), self._constants(body), carried, scans)
        return self._turned(loop, condition, found)

    def _unconditional(self, body: onnx.GraphProto, found: Walk) -> bool:
        """Whether the loop's condition is handed on, or is a constant."""
        name = body.output[0].name
        makers = {o: n for n in body.node for o in n.output}
        while (maker := makers.get(name)) is not None and maker.op_type in ("Identity", "Cast"):
            name = maker.input[0]
        return maker is None or maker.op_type == "Constant"

    def _turned(self, loop: _Loop, condition: str, found: Walk) -> list[onnx.NodeProto]:
        """One more turn of a loop and what is left of it, or its outputs."""
        node = loop.node
        goes_on = True
        if condition:
            known = self._known(condition, found)
            if known is None:
                raise self._refuse(node, f"whether a turn follows turn {loop.turn} is not known before the model runs")
            goes_on = bool(known.reshape(()))
        if not goes_on or loop.turn == loop.trips:
            return self._finished(loop)
        if (why := too_long(found, f"{loop.turn + 1:,} turns or more", len(loop.body.node))) is not None:
            raise self._refuse(node, why)
        counter = self._emitter.constant(np.asarray(loop.turn, np.int64))
        stays = condition or self._emitter.constant(np.asarray(True))
        names = dict(loop.names)
        names.update(zip((i.name for i in loop.body.input), (counter, stays, *loop.carried), strict=False))
        nodes, outputs = self._inlined(loop.body, names, loop.version, found, node.name)
        states = len(loop.carried)
        scans = [[*had, new] for had, new in zip(loop.scans, outputs[1 + states :], strict=True)]
        loop = replace(loop, carried=outputs[1 : 1 + states], scans=scans, turn=loop.turn + 1)
        key = self._emitter.fresh("turn")
        self._loops[key] = loop
        rest = helper.make_node("Loop", [outputs[0]], list(node.output), name=node.name, domain=_RUNNING, doc_string=key)
        return [*nodes, rest]

    def _finished(self, loop: _Loop) -> list[onnx.NodeProto]:
        node, states = loop.node, len(loop.carried)
        nodes = self._handed_on(loop.carried, node.output, node.name)
        for values, output in zip(loop.scans, node.output[states:], strict=False):
            if output and not values:
                raise self._refuse(node, "it takes no turn, so what it gathers has no shape")
            if output:
                nodes += self._stacked(values, output, 0, node.name)
        return nodes

    def _scan(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        version, attributes = self._version_of(node), attributes_of(node)
        body = next(a.g for a in node.attribute if a.name == "body")
        count = int(attributes["num_scan_inputs"])  # type: ignore[call-overload]
        states = len(node.input) - count
        if version < 9:
            self._keep(node, "its form of operator set 8 is not written out. Re-export the model with a newer one")
            return None
        gathered = len(body.output) - states
        into, out = (_listed(attributes.get(f"scan_{end}_axes"), n) for end, n in (("input", count), ("output", gathered)))
        back, forth = (_listed(attributes.get(f"scan_{end}_directions"), n) for end, n in (("input", count), ("output", gathered)))
        shapes = [found.shape(name) for name in node.input[states:]]
        lengths = {None if shape is None else shape[axis] for shape, axis in zip(shapes, into, strict=True)}
        length = next(iter(lengths)) if len(lengths) == 1 else None
        if length is None or length < 1:
            self._keep(node, "how many steps it takes is not known before the model runs")
            return None
        if (why := too_long(found, f"{length:,} steps", length * (len(body.node) + count + gathered))) is not None:
            self._keep(node, why)
            return None
        constants = self._constants(body)
        carried, nodes, scans = list(node.input[:states]), list[onnx.NodeProto](), [list[str]() for _ in range(gathered)]
        for t in range(length):
            names = dict(constants)
            for k, i in enumerate(body.input):
                if k < states:
                    names[i.name] = carried[k]
                    continue
                j = k - states
                names[i.name] = self._emitter.fresh("Gather")
                where = self._emitter.constant(np.asarray(length - 1 - t if back[j] else t, np.int64))
                nodes.append(helper.make_node("Gather", [node.input[k], where], [names[i.name]], name=node.name, axis=into[j]))
            inner, outputs = self._inlined(body, names, version, found, node.name)
            nodes += inner
            carried = outputs[:states]
            for had, new in zip(scans, outputs[states:], strict=True):
                had.append(new)
        nodes += self._handed_on(carried, node.output, node.name)
        for j, (values, output) in enumerate(zip(scans, node.output[states:], strict=False)):
            if output:
                nodes += self._stacked(values[::-1] if forth[j] else values, output, out[j], node.name)
        return nodes

    def _refuse(self, node: onnx.NodeProto, why: str) -> UnsupportedOperator:
        return UnsupportedOperator(f"node {node.name!r}: {node.op_type} cannot be written out: {why}.")

    # sequences of tensors

    def _sequence(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        op, output, attributes = node.op_type, node.output[0], attributes_of(node)
        if op == "SequenceEmpty":
            self._sequences[output] = ()
            return []
        if op == "SequenceConstruct":
            self._sequences[output] = tuple(node.input)
            return []
        if op == "SplitToSequence":
            return self._split(node, found, int(attributes.get("axis", 0)), attributes.get("keepdims", 1) != 0)  # type: ignore[call-overload]
        if op == "SequenceMap":
            return self._mapped(node, found)
        items = self._sequences.get(node.input[0])
        if items is None:
            self._keep(node, "what its sequence holds is not known before the model runs")
            return None
        if op == "ConcatFromSequence":
            axis = int(attributes["axis"])  # type: ignore[call-overload]
            if attributes.get("new_axis", 0):
                return self._stacked(items, output, axis, node.name)
            return [helper.make_node("Concat", list(items), [output], name=node.name, axis=axis)]
        if op == "SequenceLength":
            length = numpy_helper.from_array(np.asarray(len(items), np.int64))
            return [helper.make_node("Constant", [], [output], name=node.name, value=length)]
        place = self._place(node, found, len(items))
        if place is None:
            self._keep(node, "which entry of its sequence it means is not known before the model runs")
            return None
        if op == "SequenceAt":
            return self._handed_on([items[place]], [output], node.name)
        put = (node.input[1],) if op == "SequenceInsert" else ()
        self._sequences[output] = (*items[:place], *put, *items[place + (not put) :])
        return []

    def _place(self, node: onnx.NodeProto, found: Walk, length: int) -> int | None:
        """The entry that a node names, counted from the front; the end where it names none."""
        which = 2 if node.op_type == "SequenceInsert" else 1
        name = node.input[which] if which < len(node.input) else ""
        if not name:
            return length if node.op_type == "SequenceInsert" else length - 1
        known = self._known(name, found)
        if known is None:
            return None
        place = int(known.reshape(()))
        place += length if place < 0 else 0
        last = length if node.op_type == "SequenceInsert" else length - 1
        if not 0 <= place <= last:
            raise self._refuse(node, f"entry {place} of a sequence of {length}")
        return place

    def _split(self, node: onnx.NodeProto, found: Walk, axis: int, keepdims: bool) -> list[onnx.NodeProto] | None:
        shape, sizes = found.shape(node.input[0]), None
        size = None if shape is None else shape[axis]
        given = node.input[1] if len(node.input) > 1 else ""
        if given and (known := found.value(given)) is not None and size is not None:
            self.decisions[given] = known
            each = int(known.reshape(-1)[0]) if known.ndim == 0 else 0
            sizes = [min(each, size - at) for at in range(0, size, each)] if each > 0 else [int(v) for v in known.reshape(-1)]
        elif not given and size is not None:
            sizes = [1] * size
        if not sizes:
            self._keep(node, "into how many parts it splits is not known before the model runs")
            return None
        if (why := too_long(found, f"{len(sizes):,} parts", len(sizes))) is not None:
            self._keep(node, why)
            return None
        parts = [self._emitter.fresh("Split") for _ in sizes]
        split = self._emitter.constant(np.asarray(sizes, np.int64))
        nodes = [helper.make_node("Split", [node.input[0], split], parts, name=node.name, axis=axis)]
        if not given and not keepdims:
            axes = self._emitter.constant(np.asarray([axis], np.int64))
            whole, parts = parts, [self._emitter.fresh("Squeeze") for _ in parts]
            nodes += [helper.make_node("Squeeze", [w, axes], [p], name=node.name) for w, p in zip(whole, parts, strict=True)]
        self._sequences[node.output[0]] = tuple(parts)
        return nodes

    def _mapped(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """A subgraph for every entry of sequences, beside tensors that are the same for all."""
        body = next(a.g for a in node.attribute if a.name == "body")
        items = self._sequences.get(node.input[0])
        if items is None:
            self._keep(node, "what its sequence holds is not known before the model runs")
            return None
        if (why := too_long(found, f"{len(items):,} entries", len(items) * len(body.node))) is not None:
            self._keep(node, why)
            return None
        constants, nodes, outputs = self._constants(body), list[onnx.NodeProto](), [list[str]() for _ in body.output]
        for k in range(len(items)):
            given = (self._sequences[i][k] if i in self._sequences else i for i in node.input)
            names = {**constants, **dict(zip((i.name for i in body.input), given, strict=True))}
            inner, made = self._inlined(body, names, self._version_of(node), found, node.name)
            nodes += inner
            for had, new in zip(outputs, made, strict=True):
                had.append(new)
        self._sequences.update({o: tuple(had) for o, had in zip(node.output, outputs, strict=False) if o})
        return nodes

    def _with_sequences(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """A node that stays, with the sequences that it reads as values again; None where it reads none."""
        mine = {i for i in node.input if i in self._sequences}
        if not mine:
            return None
        names = {i: self._emitter.fresh("Sequence") for i in mine}
        nodes = []
        for i, name in names.items():
            op = "SequenceConstruct" if self._sequences[i] else "SequenceEmpty"
            nodes.append(helper.make_node(op, list(self._sequences[i]), [name], name=node.name))
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for k, i in enumerate(node.input):
            copy.input[k] = names.get(i, i)
        self._kept.update(names.values(), (o for o in node.output if o))
        return [*nodes, copy]


def _listed(value: object, count: int) -> list[int]:
    """A list attribute; zeros where it is not given."""
    return [int(v) for v in value] if value else [0] * count  # type: ignore[attr-defined]
