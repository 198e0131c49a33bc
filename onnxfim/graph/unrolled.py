"""Write control flow out, where what it depends on is known before the model runs.

The branch of an If that is taken stands in its place; a Loop is written turn by turn, since only the values of a turn tell whether
another follows; a Scan has as many steps as its inputs have entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper

from onnxfim.graph.emitter import Emitter
from onnxfim.graph.sequences import SEQUENCE_OPERATORS, SequenceWriter
from onnxfim.graph.shapes import STANDARD, Walk
from onnxfim.graph.subgraphs import too_long
from onnxfim.graph.upgrade import attributes_of

_RUNNING = "onnxfim.running"  # domain of a loop between two of its turns
_LEFT = "onnxfim.left"  # and of one that cannot be followed


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


class Unroller(SequenceWriter):
    """What is written in place of control flow and sequences during walks over one graph; arguments as of `SubgraphWriter`."""

    def __init__(
        self, version: int, emitter: Emitter, *, wide: bool, widen: Callable[[onnx.NodeProto], onnx.NodeProto]
    ) -> None:  # fmt: skip
        super().__init__(version, emitter, wide=wide, widen=widen)
        self._loops: dict[str, _Loop] = {}

    def __call__(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """The nodes to put in place of a node, or None to keep it.

        Raises:
            UnsupportedOperator: a loop whose turns cannot be told any more, or are too many.
        """
        if node.domain == _RUNNING:
            return self._turned(self._loops.pop(node.doc_string), node.input[0], found)
        if node.domain not in STANDARD:
            return None
        rule = {"If": self._if, "Loop": self._loop, "Scan": self._scan}.get(node.op_type)
        if rule is not None:
            instead = rule(node, found)
        elif node.op_type in SEQUENCE_OPERATORS and not self.kept.intersection(node.output):
            instead = self.sequence(node, found)
        elif node.op_type == "Identity" and node.input[0] in self.sequences:
            self.sequences[node.output[0]] = self.sequences[node.input[0]]
            return []
        else:
            return None
        return self.with_sequences(node) if instead is None else instead

    def _if(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        condition = self.known(node.input[0], found)
        if condition is None:
            self.keep(node, "which branch it takes is not known before the model runs")
            return None
        taken = "then_branch" if condition.reshape(()) else "else_branch"
        graph = next(a.g for a in node.attribute if a.name == taken)
        nodes, outputs = self.inlined(graph, self.constants(graph), self.version_of(node), found, node.name)
        return nodes + self.handed_on(outputs, node.output, node.name)

    def _loop(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        body = next(a.g for a in node.attribute if a.name == "body")
        trips, condition = (node.input[i] if i < len(node.input) else "" for i in (0, 1))
        most = self.known(trips, found) if trips else None
        if trips and most is None:
            self.keep(node, "how many turns it takes is not known before the model runs")
            return None
        if condition and self.known(condition, found) is None:
            self.keep(node, "its condition is not known before the model runs")
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
            self.keep(node, why)
            return None
        scans: list[list[str]] = [[] for _ in body.output[1 + states :]]
        loop = _Loop(node, body, count, self.version_of(node), self.constants(body), carried, scans)
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
            known = self.known(condition, found)
            if known is None:
                return self._left(loop, f"whether a turn follows turn {loop.turn} is not known before the model runs", found)
            goes_on = bool(known.reshape(()))
        if not goes_on or loop.turn == loop.trips:
            return self._finished(loop, found)
        if (why := too_long(found, f"{loop.turn + 1:,} turns or more", len(loop.body.node))) is not None:
            return self._left(loop, why, found)
        counter = self.emitter.constant(np.asarray(loop.turn, np.int64))
        stays = condition or self.emitter.constant(np.asarray(True))
        names = dict(loop.names)
        names.update(zip((i.name for i in loop.body.input), (counter, stays, *loop.carried), strict=False))
        nodes, outputs = self.inlined(loop.body, names, loop.version, found, node.name)
        states = len(loop.carried)
        scans = [[*had, new] for had, new in zip(loop.scans, outputs[1 + states :], strict=True)]
        loop = replace(loop, carried=outputs[1 : 1 + states], scans=scans, turn=loop.turn + 1)
        key = self.emitter.fresh("turn")
        self._loops[key] = loop
        rest = helper.make_node("Loop", [outputs[0]], list(node.output), name=node.name, domain=_RUNNING, doc_string=key)
        return [*nodes, rest]

    def _left(self, loop: _Loop, why: str, found: Walk) -> list[onnx.NodeProto]:
        """What is left of a loop that cannot be followed: a node of no rule that reads all that its outputs are made of.

        Raises:
            UnsupportedOperator: where the graph is to be run, which no such node is.
        """
        node = loop.node
        if found.read is None:
            raise self.refuse(node, why)
        self.keep(node, why)
        made = [*loop.carried, *(v for values in loop.scans for v in values)]
        return [helper.make_node("Loop", made, list(node.output), name=node.name, domain=_LEFT)]

    def _finished(self, loop: _Loop, found: Walk) -> list[onnx.NodeProto]:
        node, states = loop.node, len(loop.carried)
        nodes = self.handed_on(loop.carried, node.output, node.name)
        for values, output in zip(loop.scans, node.output[states:], strict=False):
            if output and not values:
                return self._left(loop, "it takes no turn, so what it gathers has no shape", found)
            if output:
                nodes += self.stacked(values, output, 0, node.name)
        return nodes

    def _scan(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        version, attributes = self.version_of(node), attributes_of(node)
        body = next(a.g for a in node.attribute if a.name == "body")
        count = int(attributes["num_scan_inputs"])  # type: ignore[call-overload]
        states = len(node.input) - count
        if version < 9:
            self.keep(node, "its form of operator set 8 is not written out. Re-export the model with a newer one")
            return None
        gathered = len(body.output) - states
        into, out = (_listed(attributes.get(f"scan_{end}_axes"), n) for end, n in (("input", count), ("output", gathered)))
        back, forth = (_listed(attributes.get(f"scan_{end}_directions"), n) for end, n in (("input", count), ("output", gathered)))
        shapes = [found.shape(name) for name in node.input[states:]]
        lengths = {None if shape is None else shape[axis] for shape, axis in zip(shapes, into, strict=True)}
        length = next(iter(lengths)) if len(lengths) == 1 else None
        if length is None or length < 1:
            self.keep(node, "how many steps it takes is not known before the model runs")
            return None
        if (why := too_long(found, f"{length:,} steps", length * (len(body.node) + count + gathered))) is not None:
            self.keep(node, why)
            return None
        constants = self.constants(body)
        carried, nodes, scans = list(node.input[:states]), list[onnx.NodeProto](), [list[str]() for _ in range(gathered)]
        for t in range(length):
            names = dict(constants)
            for k, i in enumerate(body.input):
                if k < states:
                    names[i.name] = carried[k]
                    continue
                j = k - states
                names[i.name] = self.emitter.fresh("Gather")
                where = self.emitter.constant(np.asarray(length - 1 - t if back[j] else t, np.int64))
                nodes.append(helper.make_node("Gather", [node.input[k], where], [names[i.name]], name=node.name, axis=into[j]))
            inner, outputs = self.inlined(body, names, version, found, node.name)
            nodes += inner
            carried = outputs[:states]
            for had, new in zip(scans, outputs[states:], strict=True):
                had.append(new)
        nodes += self.handed_on(carried, node.output, node.name)
        for j, (values, output) in enumerate(zip(scans, node.output[states:], strict=False)):
            if output:
                nodes += self.stacked(values[::-1] if forth[j] else values, output, out[j], node.name)
        return nodes


def _listed(value: object, count: int) -> list[int]:
    """A list attribute; zeros where it is not given."""
    return [int(v) for v in value] if value else [0] * count  # type: ignore[attr-defined]
