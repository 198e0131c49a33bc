"""Where a file whose input is whole numbers can be audited: the first float value behind it, found in the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import onnx

from onnxfim.graph.between import FLOATS, Between, joined_by
from onnxfim.graph.float_front import EMBEDDING
from onnxfim.graph.graph import Graph, Node, TensorInfo

#: What the value is: rows of a table that whole numbers choose, the numbers themselves as floats, or any value that was named.
PlaceKind: TypeAlias = Literal["tokens", "levels", "inner"]

_MOST_LISTED = 4  # candidates that a message names
_TIMES = 8  # more rows than any other table that the tokens' has, for one input of several to be told as theirs
# Operators that move whole numbers and change none.
_MOVING = frozenset({
    "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Expand", "Tile", "Concat",
    "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth", "ReverseSequence", "ai.onnx.ml.ArrayFeatureExtractor",
})  # fmt: skip
# Operators that make other whole numbers of them.
_CHANGING = frozenset({
    "Add", "Sub", "Mul", "Div", "Mod", "Min", "Max", "Clip", "Where", "Abs", "Neg", "Pad", "Resize", "Relu", "BitShift",
    "ai.onnx.ml.LabelEncoder",
})  # fmt: skip
_DEQUANTISERS = frozenset({"DequantizeLinear", "com.microsoft.DequantizeLinear"})
_FLOAT, _DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
_SMALL = ("uint8", "int8", "uint16", "int16")  # whole numbers that are levels of something


@dataclass(frozen=True)
class Place:
    """An inner value to audit from.

    Attributes:
        tensor: The value, float, written by a node of the main graph.
        kind: What it is.
        front: What stands before it, in words.
        unit: One of it, in words that follow "per squared".
        limits: Smallest and largest value that the input's type allows there, where that is known.
        rows: Of the table that is looked up, else 0.
    """

    tensor: str
    kind: PlaceKind
    front: str
    unit: str
    limits: tuple[float, float] | None = None
    rows: int = 0


@dataclass(frozen=True)
class Unplaced:
    """Why there is no such value: what was found, values that could be named, and one that was meant perhaps."""

    found: str
    candidates: tuple[str, ...]
    near: str | None = None

    @property
    def words(self) -> str:
        """The reason and what to do, after the input's name."""
        if self.near is not None:
            return f"{self.found}. Did you mean {self.near!r}?"
        if not self.candidates:
            return f"{self.found}, and the graph has no float value behind it to audit from. Export it with a float input."
        return f"{self.found}. Name the float value to audit from: --at {one_of(self.candidates)}."


def one_of(names: Sequence[str]) -> str:
    """The first few names, quoted, with commas and an "or"."""
    shown = [repr(n) for n in names[:_MOST_LISTED]]
    return " or ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def place_of(graph: Graph, into: TensorInfo, output: str | None) -> Place | Unplaced:
    """The first float value behind an input of whole numbers, by the operators that read it.

    Tokens are looked up in a table (Gather, or OneHot and a product with a matrix); images of levels become floats at a Cast or a
    DequantizeLinear. Several tables of one input need a value that all of them go through, by sums and side by side.

    Args:
        graph: The model's graph, with its functions written out.
        into: The input.
        output: The output that is audited; only what it depends on counts. None for all.
    """
    return _WholeNumbers(graph, into, Between(graph, into.name, output)).place()


def named_place(graph: Graph, into: TensorInfo, name: str, output: str | None) -> Place | Unplaced:
    """The value of that name as a place to audit from, with what is known of it from the graph."""
    between = Between(graph, into.name, output)
    if name in {i.name for i in graph.inputs}:
        return Unplaced(f"{name!r} is an input of the file, expected a value that one of its nodes writes", between.floats())
    if name not in graph.producers:
        import difflib  # for a message alone

        near = difflib.get_close_matches(name, list(graph.producers), 1)
        return Unplaced(f"no node writes a value called {name!r}", between.floats(), near[0] if near else None)
    if name not in between.behind:
        return Unplaced(f"{name!r} does not depend on the input", between.floats())
    if name not in between.before:
        return Unplaced(f"no output that is audited depends on {name!r}", between.floats())
    known = _WholeNumbers(graph, into, between).place()
    if isinstance(known, Place) and known.tensor == name:
        return known
    node = graph.producers[name]
    return Place(name, "inner", f"{between.nodes_before(name):,} nodes, the last of them {_told(node)}", f"unit of {name!r}")


def moved_on(graph: Graph, place: Place) -> Place | None:
    """The same value after the one node that reads it, where that only moves it; None where there is no such node."""
    readers = graph.consumers.get(place.tensor, ())
    if len(readers) != 1 or readers[0].op not in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"):
        return None
    return replace(place, tensor=readers[0].outputs[0], front=f"{place.front}, and {_told(readers[0])}")


def token_input(graph: Graph, output: str | None) -> TensorInfo | None:
    """Of several inputs of whole numbers, the one whose table has by far the most rows: the tokens; None where none has."""
    found: list[tuple[int, TensorInfo]] = []
    for into in graph.inputs:
        place = place_of(graph, into, output) if into.dtype.startswith(("int", "uint")) else None
        if isinstance(place, Place) and place.kind == "tokens" and place.rows:
            found.append((place.rows, into))
    found.sort(key=lambda pair: -pair[0])
    if not found:
        return _embedded(graph)
    return None if len(found) > 1 and found[0][0] < _TIMES * found[1][0] else found[0][1]


def _embedded(graph: Graph) -> TensorInfo | None:
    """The input of the tokens that an operator embeds together with their positions and segments, or None."""
    node = next((n for n in graph.nodes if n.op == EMBEDDING), None)
    name = "" if node is None else node.inputs[0]
    while (made := graph.producers.get(name)) is not None and made.op in ("Cast", "Identity"):
        name = made.inputs[0]
    return next((i for i in graph.inputs if i.name == name), None)


@dataclass(frozen=True)
class _Reached:
    """Whole numbers that come from the input: whether they are the input's own, and rows of a table that they were looked up in."""

    own: bool = True
    rows: int = 0
    table: str = ""
    code: int = 0  # length of the code that a OneHot made of them, which is still whole numbers


class _WholeNumbers:
    """Follows an input's whole numbers to the floats that they become."""

    def __init__(self, graph: Graph, into: TensorInfo, between: Between) -> None:
        self.graph, self.into, self.between = graph, into, between

    def place(self) -> Place | Unplaced:
        """What `place_of` returns."""
        found = [p for p in self._candidates() if p.tensor in self.between.before]
        found = [p for p in found if self.between.moves(p.tensor)] or found  # not what is read for its shape alone
        tables = [p for p in found if p.kind == "tokens"]
        chosen = tables or found
        if not chosen:
            return Unplaced(
                "and no float value is found behind it by a table's Gather, a OneHot, a Cast or a DequantizeLinear",
                self.between.floats(),
            )
        if len(chosen) == 1:
            return self._past_cast(chosen[0])
        joined = joined_by(self.between, {p.tensor for p in chosen})
        if joined is None:
            what = "tables" if tables else "casts"
            return Unplaced(f"and {len(chosen)} {what} of it go different ways", tuple(p.tensor for p in chosen))
        front = f"{len(chosen)} {'tables looked up' if tables else 'casts'} by {self.into.name!r}, joined in {joined!r}"
        kind: PlaceKind = "tokens" if tables else "inner"
        unit = "unit of the embedding" if tables else f"unit of {joined!r}"
        return Place(joined, kind, front, unit, rows=sum(p.rows for p in chosen))

    def _past_cast(self, place: Place) -> Place:
        """The same behind a Cast to float32 or float64 that alone reads it: what is fed there has no coarse rounding."""
        readers = self.graph.consumers.get(place.tensor, ())
        alone = len(readers) == 1 and place.tensor not in self.between.outputs and not any(n.has_subgraph for n in self.graph.nodes)
        if alone and readers[0].op == "Cast" and readers[0].attributes.get("to") in (_FLOAT, _DOUBLE):
            return replace(place, tensor=readers[0].outputs[0])
        return place

    def _candidates(self) -> Iterator[Place]:
        """Float values that whole numbers of the input become, in graph order."""
        reached = {self.into.name: _Reached()}
        codes: dict[str, int] = {}  # floats that are a one-hot code, with its length
        for node in self.graph.nodes:
            inputs = [i for i in node.inputs if i]
            code = next((codes[i] for i in inputs if i in codes), 0)
            if code and node.op in (*_MOVING, "Cast") and node.attributes.get("to", _FLOAT) in FLOATS:
                codes.update(dict.fromkeys(node.outputs, code))
                if not self._into_product(node.outputs[0], code):
                    yield self._one_hot(node.outputs[0], code)
                continue
            if code and (table := self._matrix(node, codes)) is not None:
                front = f"{_told(node)} of the table {table!r} by the one-hot code of {self.into.name!r}"
                yield Place(node.outputs[0], "tokens", front, "unit of the embedding", rows=code)
                continue
            mine = [reached[i] for i in inputs if i in reached]
            if not mine:
                continue
            yield from self._step(node, mine, reached, codes)

    def _step(
        self, node: Node, mine: list[_Reached], reached: dict[str, _Reached], codes: dict[str, int]
    ) -> Iterator[Place]:  # fmt: skip
        """One node that reads whole numbers of the input: what it makes of them."""
        first = mine[0]
        if node.op == "Gather" and len(node.inputs) > 1 and node.inputs[1] in reached:
            yield from self._lookup(node, reached)
        elif node.op == "com.microsoft.GatherBlockQuantized" and node.inputs[1] in reached:
            yield self._embedding(node, node.inputs[0])
        elif node.op in ("OneHot", "ai.onnx.ml.OneHotEncoder") and node.inputs[0] in reached:
            length = self._code_length(node)
            if node.op == "OneHot" and not self._float_code(node):
                reached[node.outputs[0]] = _Reached(own=False, code=length)
                return
            codes[node.outputs[0]] = length
            if not self._into_product(node.outputs[0], length):
                yield self._one_hot(node.outputs[0], length)
        elif node.op == "Cast" and node.attributes.get("to") in FLOATS:
            if first.code:
                codes[node.outputs[0]] = first.code
                if not self._into_product(node.outputs[0], first.code):
                    yield self._one_hot(node.outputs[0], first.code)
            else:
                yield self._levels(node, first, None)
        elif node.op == "Cast" and node.attributes.get("to") != onnx.TensorProto.BOOL:
            reached[node.outputs[0]] = first
        elif node.op in _DEQUANTISERS and node.inputs[0] in reached:
            yield self._levels(node, first, self._real_limits(node))
        elif node.op in _MOVING or (node.op == "Gather" and node.inputs[0] in reached):
            alone = len([i for i in node.inputs if i in self.between.fed or self.graph.constant(i) is not None]) == 1
            kept = first if node.op != "Concat" or alone else replace(first, own=False)
            reached.update({o: kept for o in node.outputs if o})
        elif node.op in _CHANGING:
            reached.update({o: replace(first, own=False) for o in node.outputs if o})

    def _lookup(self, node: Node, reached: dict[str, _Reached]) -> Iterator[Place]:
        """A Gather by the input's numbers: an embedding, or other whole numbers."""
        table = node.inputs[0]
        if table in self.between.fed:
            return  # values of another input, picked by this one
        kind = self._type(table)
        if kind in FLOATS or kind is None:
            yield self._embedding(node, table)
        else:
            reached[node.outputs[0]] = _Reached(own=False, rows=self._rows(table), table=self._weight(table))

    def _embedding(self, node: Node, table: str) -> Place:
        rows = self._rows(table)
        shape = f" ({rows:,} rows)" if rows else ""
        front = f"{_told(node)} of the table {self._weight(table)!r}{shape} by {self.into.name!r}"
        return Place(node.outputs[0], "tokens", front, "unit of the embedding", rows=rows)

    def _one_hot(self, tensor: str, length: int) -> Place:
        shape = f" of length {length:,}" if length else ""
        return Place(tensor, "tokens", f"the one-hot code{shape} of {self.into.name!r}", "unit of the one-hot code", rows=length)

    def _levels(self, node: Node, of: _Reached, real: tuple[float, float] | None) -> Place:
        """A Cast or DequantizeLinear of the input's own numbers, or of those that it looked up."""
        if of.rows or of.table:
            front = f"{_told(node)} of the table {of.table!r} ({of.rows:,} rows) by {self.into.name!r}"
            return Place(node.outputs[0], "tokens", front, "unit of the embedding", rows=of.rows)
        dtype, limits = self.into.dtype, None
        if of.own and dtype in _SMALL:
            limits = real if node.op in _DEQUANTISERS else (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
        front = f"{_told(node)} of the {dtype} input {self.into.name!r}"
        if node.op in _DEQUANTISERS:
            return Place(node.outputs[0], "levels", front, "unit of the dequantised input", limits)
        unit = "level of the input" if of.own and dtype in _SMALL else "unit of the whole numbers"
        return Place(node.outputs[0], "levels", front, unit, limits)

    def _real_limits(self, node: Node) -> tuple[float, float] | None:
        """What the ends of the input's type stand for after a DequantizeLinear with one scale for all."""
        scale = self.graph.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        zero = self.graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(1)
        if scale is None or zero is None or scale.size != 1 or zero.size != 1 or self.into.dtype not in _SMALL:
            return None
        ends = np.iinfo(self.into.dtype)
        size, offset = float(scale.ravel()[0]), float(zero.ravel()[0])
        return (ends.min - offset) * size, (ends.max - offset) * size

    def _into_product(self, name: str, code: int) -> bool:
        """Whether a one-hot code only goes on into products with a matrix: the embedding is then behind them."""
        readers = self.graph.consumers.get(name, ())
        if not readers or not code:
            return False
        return all(
            self._matrix(n, {name: code}) is not None or (n.op in (*_MOVING, "Cast") and self._into_product(n.outputs[0], code))
            for n in readers
        )

    def _matrix(self, node: Node, codes: dict[str, int]) -> str | None:
        """The table that a product multiplies a one-hot code with, or None."""
        if node.op not in ("MatMul", "Gemm") or node.inputs[0] not in codes or node.inputs[1] in self.between.fed:
            return None
        return self._weight(node.inputs[1])

    def _code_length(self, node: Node) -> int:
        if node.op != "OneHot":
            numbers = node.attributes.get("cats_int64s")
            return len(numbers) if isinstance(numbers, tuple) else 0
        depth = self.graph.constant(node.inputs[1])
        return 0 if depth is None or depth.size != 1 else int(depth.ravel()[0])

    def _float_code(self, node: Node) -> bool:
        values = self.graph.constant(node.inputs[2])
        return values is None or values.dtype.kind == "f"

    def _weight(self, name: str) -> str:
        """The weight that a constant value is made of."""
        while (node := self.graph.producers.get(name)) is not None and node.inputs:
            name = node.inputs[0]
        return name

    def _rows(self, table: str) -> int:
        weight = self._weight(table)
        shape = self.graph.shapes.get(weight)
        if shape is None and (value := self.graph.constant(weight)) is not None:
            shape = value.shape
        return shape[0] if shape and isinstance(shape[0], int) else 0

    def _type(self, name: str) -> int | None:
        """Element type of a constant value, as far as it is told without computing it."""
        node = self.graph.producers.get(name)
        if node is None:
            found = next((t for t in self.graph.weights if t.name == name), None)
            return None if found is None else int(found.data_type)
        if node.op == "Cast":
            to = node.attributes.get("to")
            return to if isinstance(to, int) else None
        if node.op in _DEQUANTISERS:
            return int(_FLOAT)
        if node.op == "Constant":
            value = self.graph.constant(name)
            return None if value is None else int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
        return self._type(node.inputs[0]) if node.inputs else None


def _told(node: Node) -> str:
    return f"{node.op.rpartition('.')[2]} (node {node.label!r})"
