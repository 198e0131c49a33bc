"""The table of derivative rules, and what a rule sees of the node it differentiates.

A cotangent or tangent of a value with shape ``(N, ...)`` has shape ``(S, N, ...)``: the seed axis comes first, so
broadcasting with the value itself, which aligns axes from the right, needs no Transpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import onnx
from onnx import helper

from onnxfim.errors import UnsupportedOperator
from onnxfim.graph.emitter import AttributeValue, Emitter, Operand
from onnxfim.graph.shapes import Batch, Dim, Shape, Trace

AUTO = "--method sketch audits the file from forward passes alone"


@dataclass(frozen=True)
class Site:
    """A node to differentiate, with shapes, constants, and a pen.

    ``varies[i]`` tells whether input i depends on the differentiated input.
    """

    node: onnx.NodeProto
    op: str
    opset: int
    trace: Trace
    emitter: Emitter
    seeds: str  # name of the 1-D int64 value [S]
    varies: tuple[bool, ...]

    @property
    def inputs(self) -> Sequence[str]:
        return cast("Sequence[str]", self.node.input)

    @property
    def x(self) -> str:
        """First input."""
        return str(self.node.input[0])

    @property
    def y(self) -> str:
        """First output."""
        return str(self.node.output[0])

    @property
    def dtype(self) -> np.dtype:
        """Element type of the first output."""
        found: np.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(self.trace.elem[self.y]))
        return found

    # what is known

    def attribute(self, name: str, default: object = None) -> object:
        for a in self.node.attribute:
            if a.name == name:
                value = helper.get_attribute_value(a)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def integer(self, name: str, default: int = 0) -> int:
        return int(cast("int", self.attribute(name, default)))

    def real(self, name: str, default: float) -> float:
        return float(cast("float", self.attribute(name, default)))

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        return [int(i) for i in cast("Sequence[int]", self.attribute(name, default) or [])]

    def has(self, index: int) -> bool:
        return index < len(self.node.input) and bool(self.node.input[index])

    def shape(self, name: str) -> Shape:
        try:
            return self.trace.shapes[name]
        except KeyError:
            raise self.refuse(f"the shape of {name!r} cannot be worked out") from None

    def rank(self, name: str) -> int:
        return len(self.shape(name))

    def static(self, dims: Sequence[Dim]) -> list[int]:
        """Dimensions as numbers.

        Raises:
            UnsupportedOperator: one of them depends on the batch.
        """
        if any(isinstance(d, Batch) for d in dims):
            raise self.refuse("it works along an axis that holds the batch")
        return [cast("int", d) for d in dims]

    def value(self, index: int) -> np.ndarray | None:
        """Value of an input where it is known and does not depend on the batch."""
        return self.trace.values.get(self.node.input[index]) if self.has(index) else None

    def known(self, index: int, what: str) -> np.ndarray:
        found = self.value(index)
        if found is None:
            raise self.refuse(f"its {what} is computed at run time")
        return found

    def axis(self, default: int, rank: int) -> int:
        return self.integer("axis", default) % max(rank, 1)

    def refuse(self, reason: str) -> UnsupportedOperator:
        return refusal(self.node, self.op, self.opset, reason)

    # writing

    def write(self, op_type: str, *inputs: Operand, **attributes: AttributeValue) -> str:
        """Write a node; floats become constants of this node's type, lists int64 vectors."""
        return self.emitter.emit(op_type, *(self.emitter.operand(i, self.dtype) for i in inputs), **attributes)

    def split(self, t: str, sizes: Sequence[int], *, axis: int) -> tuple[str, ...]:
        names = [t, self.emitter.operand(sizes, self.dtype)]
        return self.emitter.emit_many("Split", names, {"axis": axis}, outputs=len(sizes))

    def mul(self, a: Operand, b: Operand) -> str:
        return self.write("Mul", a, b)

    def add(self, a: Operand, b: Operand) -> str:
        return self.write("Add", a, b)

    def sub(self, a: Operand, b: Operand) -> str:
        return self.write("Sub", a, b)

    def div(self, a: Operand, b: Operand) -> str:
        return self.write("Div", a, b)

    def mask(self, condition: str) -> str:
        """0/1 in this node's type."""
        return self.write("Cast", condition, to=helper.np_dtype_to_tensor_dtype(self.dtype))

    def total(self, t: str, axes: Sequence[int], *, keepdims: bool = True) -> str:
        return self.write("ReduceSum", t, list(axes), keepdims=int(keepdims)) if axes else t

    def pad(self, t: str, before: Sequence[int], after: Sequence[int]) -> str:
        """Zeros before and behind each axis of a value (S, ...), the seeds not counted."""
        if not any(before) and not any(after):
            return t
        return self.write("Pad", t, [0, *before, 0, *after], 0.0)

    def zeros(self, like: str) -> str:
        """Zeros of the shape of a tangent or cotangent of the value ``like``."""
        return self.write("Expand", 0.0, self.write("Concat", self.seeds, self.write("Shape", like), axis=0))

    # the seed axis

    def reshape(self, t: str, dims: Sequence[Dim]) -> str:
        """Reshape ``(S, ...)`` to ``(S, *dims)``."""
        if sum(isinstance(d, Batch) for d in dims) > 1:
            raise self.refuse("two axes depend on the batch")
        return self.write("Reshape", t, [0, *(-1 if isinstance(d, Batch) else d for d in dims)])

    def fold(self, t: str, dims: Sequence[Dim]) -> str:
        """``(S, N, *rest)`` to ``(S·N, *rest)``, for operators that take one batch axis."""
        return self.write("Reshape", t, [-1, *self.static(dims[1:])])

    def unfold(self, t: str, dims: Sequence[Dim]) -> str:
        """``(S·N, *rest)`` to ``(S, N, *rest)``."""
        tail = [-1, *self.static(dims[1:])] if isinstance(dims[0], Batch) else self.static(dims)
        return self.write("Reshape", t, self.write("Concat", self.seeds, tail, axis=0))

    def align(self, t: str, rank: int, to_rank: int) -> str:
        """Insert axes of length one behind the seed axis so that a value of ``rank`` broadcasts as one of ``to_rank``."""
        return self.write("Unsqueeze", t, list(range(1, 1 + to_rank - rank))) if to_rank > rank else t

    def broadcast(self, t: str, dims: Shape, like: str) -> str:
        """Tangent of a value with shape ``dims``, brought to the shape of the value ``like``."""
        to = self.shape(like)
        if dims == to:
            return t
        t = self.align(t, len(dims), len(to))
        if not any(isinstance(d, Batch) for d in to[: len(to) - len(dims)]):
            grown = zip((1,) * (len(to) - len(dims)) + tuple(dims), to, strict=True)
            targets = [1 if a == b else b for a, b in grown]
            if not any(isinstance(d, Batch) for d in targets):
                return self.write("Expand", t, [1, *self.static(targets)])
        return self.write("Expand", t, self.write("Concat", [1], self.write("Shape", like), axis=0))

    def unbroadcast(self, u: str, dims: Shape, to: Shape) -> str:
        """Cotangent of shape ``(S, *dims)`` summed to ``(S, *to)``: the transpose of broadcasting."""
        missing = len(dims) - len(to)
        u = self.total(u, range(1, 1 + missing), keepdims=False)
        ones = [i + 1 for i, (a, b) in enumerate(zip(dims[missing:], to, strict=True)) if b == 1 and a != 1]
        return self.total(u, ones)


def refusal(node: onnx.NodeProto, op: str, opset: int, reason: str) -> UnsupportedOperator:
    """The error for a node that cannot be differentiated."""
    label = node.name or (node.output[0] if node.output else "?")
    return UnsupportedOperator(f"node {label!r}: {op} (opset {opset}) cannot be differentiated: {reason}. Way out: {AUTO}.")


@dataclass(frozen=True)
class Scaled:
    """A tangent or cotangent with a diagonal factor not yet multiplied: chains of factors join at the size of one sample."""

    value: str
    factor: str | None = None


@dataclass(frozen=True)
class Stretch:
    """A cotangent ``(S, ...)`` of a stretch of a value, zero elsewhere: stretches that meet are joined end to end, not summed.

    ``axis`` counts without the seeds; ``start`` and ``stop`` are where the stretch lies on it, ``size`` is the whole axis.
    """

    value: str
    axis: int
    rank: int
    start: int
    stop: int
    size: int


Cotangent: TypeAlias = "str | Scaled | Stretch"
Vjp: TypeAlias = "Callable[[Site, Sequence[str | None]], Mapping[int, Cotangent]]"
Jvp: TypeAlias = "Callable[[Site, Mapping[int, str]], Sequence[str | None]]"
Partial: TypeAlias = "str | float"


@dataclass(frozen=True)
class DerivativeRule:
    """``vjp`` maps cotangents of the outputs to those of the varying inputs, ``jvp`` tangents the other way."""

    vjp: Vjp
    jvp: Jvp


@dataclass(frozen=True)
class Pointwise:
    """Partial derivatives with respect to each varying input; a float stands for a constant, +1 and -1 cost nothing."""

    partials: Callable[[Site], Mapping[int, Partial]]


RULES: dict[str, DerivativeRule | Pointwise] = {}
REFUSED: dict[str, str] = {}


def pointwise(*ops: str) -> Callable[[Callable[[Site], Mapping[int, Partial]]], Callable[[Site], Mapping[int, Partial]]]:
    """Register a function that gives the partial derivatives of element-wise operators."""

    def register(partials: Callable[[Site], Mapping[int, Partial]]) -> Callable[[Site], Mapping[int, Partial]]:
        for op in ops:
            RULES[op] = Pointwise(partials)
        return partials

    return register


def derivative(*ops: str) -> Callable[[Callable[[Site], Partial]], Callable[[Site], Partial]]:
    """Register f'(x) of an element-wise operator with one varying input."""

    def register(slope: Callable[[Site], Partial]) -> Callable[[Site], Partial]:
        for op in ops:
            RULES[op] = Pointwise(lambda n: {0: slope(n)})
        return slope

    return register


def rule(op: str, vjp: Callable[[Site, str], Mapping[int, Cotangent]], jvp: Callable[[Site, Mapping[int, str]], str]) -> None:
    """Register a rule of an operator with one differentiated output."""

    def vjp_of(n: Site, us: Sequence[str | None]) -> Mapping[int, Cotangent]:
        if us[0] is None or any(u is not None for u in us[1:]):
            raise n.refuse("an output other than the first is used")
        return vjp(n, us[0])

    RULES[op] = DerivativeRule(vjp_of, lambda n, vs: [jvp(n, vs)])


def linear(op: str, *, transpose: Callable[[Site, str], Cotangent], apply: Callable[[Site, str], str]) -> None:
    """Register an operator that is linear in its first input and constant in the others."""

    def only_first(n: Site) -> None:
        if any(n.varies[1:]):
            raise n.refuse("an input other than the first depends on the differentiated input")

    def vjp(n: Site, u: str) -> Mapping[int, Cotangent]:
        only_first(n)
        return {0: transpose(n, u)}

    def jvp(n: Site, vs: Mapping[int, str]) -> str:
        only_first(n)
        return apply(n, vs[0])

    rule(op, vjp, jvp)


def refuse(reason: str, *ops: str) -> None:
    """Say why operators have no rule."""
    REFUSED.update(dict.fromkeys(ops, reason))


def numel(dims: Sequence[int]) -> int:
    """Product of static dimensions."""
    return math.prod(dims)


def merged(n: Site, dims: Sequence[Dim]) -> Dim:
    """Product of dimensions, one of which may hold the batch.

    Raises:
        UnsupportedOperator: two of them do.
    """
    batches = [d.factor for d in dims if isinstance(d, Batch)]
    if len(batches) > 1:
        raise n.refuse("two axes depend on the batch")
    size = math.prod(d for d in dims if isinstance(d, int))
    return Batch(size * batches[0]) if batches else size


def target(n: Site, dims: Sequence[Dim]) -> list[int]:
    """What Reshape takes for a value without seed axis."""
    found = [d if isinstance(d, int) else -1 for d in dims]
    if found.count(-1) > 1:
        raise n.refuse("two axes depend on the batch")
    return found
