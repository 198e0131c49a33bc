"""Write sequences of tensors out: a sequence is a list of names, and no value at all."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfim.graph.shapes import Walk
from onnxfim.graph.subgraphs import SubgraphWriter, too_long
from onnxfim.graph.upgrade import attributes_of

SEQUENCE_OPERATORS = frozenset(
    [
        *("SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "SequenceMap"),
        *("SplitToSequence", "ConcatFromSequence"),
    ]
)


class SequenceWriter(SubgraphWriter):
    """What is written in place of operators on sequences."""

    def sequence(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        op, output, attributes = node.op_type, node.output[0], attributes_of(node)
        if op == "SequenceEmpty":
            self.sequences[output] = ()
            return []
        if op == "SequenceConstruct":
            self.sequences[output] = tuple(node.input)
            return []
        if op == "SplitToSequence":
            return self._split(node, found, int(attributes.get("axis", 0)), attributes.get("keepdims", 1) != 0)  # type: ignore[call-overload]
        if op == "SequenceMap":
            return self._mapped(node, found)
        items = self.sequences.get(node.input[0])
        if items is None:
            self.keep(node, "what its sequence holds is not known before the model runs")
            return None
        if op == "ConcatFromSequence":
            axis = int(attributes["axis"])  # type: ignore[call-overload]
            if (why := too_long(found, f"{len(items):,} entries", len(items))) is not None:
                self.keep(node, why)
                return None
            found.unrolled += len(items)
            if attributes.get("new_axis", 0):
                return self.stacked(items, output, axis, node.name)
            return [helper.make_node("Concat", list(items), [output], name=node.name, axis=axis)]
        if op == "SequenceLength":
            length = numpy_helper.from_array(np.asarray(len(items), np.int64))
            return [helper.make_node("Constant", [], [output], name=node.name, value=length)]
        place = self._place(node, found, len(items))
        if place is None:
            self.keep(node, "which entry of its sequence it means is not known before the model runs")
            return None
        if op == "SequenceAt":
            return self.handed_on([items[place]], [output], node.name)
        put = (node.input[1],) if op == "SequenceInsert" else ()
        self.sequences[output] = (*items[:place], *put, *items[place + (not put) :])
        return []

    def _place(self, node: onnx.NodeProto, found: Walk, length: int) -> int | None:
        """The entry that a node names, counted from the front; the end where it names none."""
        which = 2 if node.op_type == "SequenceInsert" else 1
        name = node.input[which] if which < len(node.input) else ""
        if not name:
            return length if node.op_type == "SequenceInsert" else length - 1
        known = self.known(name, found)
        if known is None:
            return None
        place = int(known.reshape(()))
        place += length if place < 0 else 0
        last = length if node.op_type == "SequenceInsert" else length - 1
        if not 0 <= place <= last:
            raise self.refuse(node, f"entry {place} of a sequence of {length}")
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
            self.splits.add(node.name)
        if not sizes:
            self.keep(node, "into how many parts it splits is not known before the model runs")
            return None
        if (why := too_long(found, f"{len(sizes):,} parts", len(sizes))) is not None:
            self.keep(node, why)
            return None
        found.unrolled += len(sizes)
        parts = [self.emitter.fresh("Split") for _ in sizes]
        split = self.emitter.constant(np.asarray(sizes, np.int64))
        nodes = [helper.make_node("Split", [node.input[0], split], parts, name=node.name, axis=axis)]
        if not given and not keepdims:
            axes = self.emitter.constant(np.asarray([axis], np.int64))
            whole, parts = parts, [self.emitter.fresh("Squeeze") for _ in parts]
            nodes += [helper.make_node("Squeeze", [w, axes], [p], name=node.name) for w, p in zip(whole, parts, strict=True)]
        self.sequences[node.output[0]] = tuple(parts)
        return nodes

    def _mapped(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """A subgraph for every entry of sequences, beside tensors that are the same for all."""
        body = next(a.g for a in node.attribute if a.name == "body")
        items = self.sequences.get(node.input[0])
        if items is None:
            self.keep(node, "what its sequence holds is not known before the model runs")
            return None
        if (why := too_long(found, f"{len(items):,} entries", len(items) * len(body.node))) is not None:
            self.keep(node, why)
            return None
        constants, nodes, outputs = self.constants(body), list[onnx.NodeProto](), [list[str]() for _ in body.output]
        for k in range(len(items)):
            given = (self.sequences[i][k] if i in self.sequences else i for i in node.input)
            names = {**constants, **dict(zip((i.name for i in body.input), given, strict=True))}
            inner, made = self.inlined(body, names, self.version_of(node), found, node.name)
            nodes += inner
            for had, new in zip(outputs, made, strict=True):
                had.append(new)
        self.sequences.update({o: tuple(had) for o, had in zip(node.output, outputs, strict=False) if o})
        return nodes

    def with_sequences(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """A node that stays, with the sequences that it reads as values again; None where it reads none."""
        mine = {i for i in node.input if i in self.sequences}
        if not mine:
            return None
        names = {i: self.emitter.fresh("Sequence") for i in mine}
        nodes = []
        for i, name in names.items():
            op = "SequenceConstruct" if self.sequences[i] else "SequenceEmpty"
            nodes.append(helper.make_node(op, list(self.sequences[i]), [name], name=node.name))
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for k, i in enumerate(node.input):
            copy.input[k] = names.get(i, i)
        self.kept.update(names.values(), (o for o in node.output if o))
        return [*nodes, copy]
