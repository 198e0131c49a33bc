"""What is known of one value of the graph, and the context in which the rules of the operators work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np

from onnxfim.errors import ModelError
from onnxfim.graph.flow import Flow
from onnxfim.graph.graph import Node
from onnxfim.graph.shapes import OpenShape
from onnxfim.spectral.kernels import GaussianKernels
from onnxfim.spectral.linear import Chain, Convolution, Element, Rearrange, Scaling, append, size_of_shape
from onnxfim.spectral.norms import matrix_norm
from onnxfim.spectral.result import Factor, log10, plus, shown, times
from onnxfim.spectral.sums import add

if TYPE_CHECKING:
    from typing_extensions import Unpack

Term: TypeAlias = "tuple[Value, Chain]"

_DENSE_IN, _DENSE_OUT = 1024, 4096  # largest map that is written out as a matrix
_MAX_CHAIN, _MAX_TERMS = 8, 6


@dataclass(frozen=True)
class Polynomial:
    """A value that is, entry by entry, a polynomial of the value ``base``; coefficients from the constant up."""

    base: str
    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class GateForm:
    """A value that is, entry by entry, ``p·h(inner) + q`` of the value ``inner.base``."""

    kind: str
    inner: Polynomial
    p: float
    q: float


@dataclass(frozen=True)
class Ball:
    """Every vector along ``axis`` (counted from the end) lies within ``radius`` of a fixed centre of norm at most
    ``offset``."""

    axis: int
    radius: float
    offset: float
    centre: np.ndarray | None = field(default=None, compare=False)

    @property
    def reach(self) -> float:
        return self.radius + self.offset


class KnownOfValue(TypedDict, total=False):
    """What is known of a value besides its derivative: range, form, ball and kernels (fields of `Value`)."""

    low: float
    high: float
    polynomial: Polynomial | None
    gate: GateForm | None
    ball: Ball | None
    kernels: GaussianKernels | None


@dataclass(frozen=True, eq=False)
class Value:
    """A value that varies with the input.

    Its derivative is the sum of ``terms``, linear maps of earlier values, or, where there are none, has norm ``10**log``.
    """

    name: str
    shape: OpenShape | None
    terms: tuple[Term, ...] = ()
    log: float | None = None
    reason: str = ""
    low: float = -math.inf
    high: float = math.inf
    polynomial: Polynomial | None = None
    gate: GateForm | None = None
    ball: Ball | None = None
    kernels: GaussianKernels | None = None

    @property
    def as_polynomial(self) -> Polynomial:
        return self.polynomial or Polynomial(self.name, (0.0, 1.0))

    @property
    def magnitude(self) -> float:
        return max(abs(self.low), abs(self.high))

    @property
    def size(self) -> int | None:
        return None if self.shape is None or None in self.shape else math.prod(d or 0 for d in self.shape)


class Composition:
    """The state of one pass over the graph: values so far, and the factors that were computed on demand."""

    def __init__(self, flow: Flow, progress: Callable[[int, int, str], None] | None = None, total: int = 0) -> None:
        self.flow = flow
        self.values: dict[str, Value] = {}
        self.factors: list[tuple[int, Factor]] = []
        self.notes: dict[str, None] = {}
        self._progress = progress
        self._total = total
        self._logs: dict[str, float] = {}
        self._anchors: dict[str, Value] = {}
        self._norms: dict[int, tuple[Element, float]] = {}  # the elements are kept, so that an id stays theirs
        self._chains: dict[tuple[int, ...], tuple[Chain, float]] = {}

    def varying(self, name: str) -> bool:
        return name in self.values

    def constant(self, name: str) -> np.ndarray | None:
        return self.flow.constant(name)

    def shape(self, name: str) -> OpenShape | None:
        return self.flow.shape(name)

    def log(self, value: Value) -> float:
        """log10 of an upper bound of the norm of the value's derivative."""
        if value.log is not None:
            return value.log
        if value.name not in self._logs:
            groups: dict[str, tuple[Value, list[Chain]]] = {}
            for anchor, chain in value.terms:
                groups.setdefault(anchor.name, (anchor, []))[1].append(chain)
            self._logs[value.name] = plus(*(times(self._sum_log(chains), self.log(anchor)) for anchor, chains in groups.values()))
        return self._logs[value.name]

    def reason(self, value: Value) -> str:
        """Why the value has no bound."""
        while not value.reason and value.terms:
            value = next((a for a, _ in value.terms if math.isinf(self.log(a)) and self.log(a) > 0), value.terms[0][0])
        return value.reason

    def anchor(self, value: Value) -> Value:
        """``value`` as the origin of further linear maps."""
        if not value.terms:
            return value
        if value.name not in self._anchors:
            log = self.log(value)
            self._anchors[value.name] = replace(value, terms=(), log=log, reason=self.reason(value) if log == math.inf else "")
        return self._anchors[value.name]

    def linear(self, node: Node, value: Value, element: Element, *, output: int = 0, **known: Unpack[KnownOfValue]) -> Value:
        """The value that ``element`` makes of ``value``."""
        name = node.outputs[output]
        light = isinstance(element, (Scaling, Rearrange))
        limit = _MAX_TERMS if light else 1
        terms = value.terms
        if not terms or len(terms) > limit or any(len(c) >= _MAX_CHAIN for _, c in terms):
            terms = ((self.anchor(value), ()),)
        built = tuple((anchor, append(chain, element)) for anchor, chain in terms)
        return Value(name, element.out_shape, built, **known)

    def total(self, node: Node, values: Iterable[Value], **known: Unpack[KnownOfValue]) -> Value:
        """The sum of values of one shape."""
        terms: list[Term] = []
        shape = self.shape(node.outputs[0])
        for value in values:
            short = len(value.terms) <= _MAX_TERMS and all(len(c) < _MAX_CHAIN for _, c in value.terms)
            new = value.terms if value.terms and short else ((self.anchor(value), ()),)
            for anchor, chain in new:
                merged = None
                for k, (other, theirs) in enumerate(terms):
                    if other is anchor and (merged := add(theirs, chain, shape)) is not None:
                        last = merged[-1]
                        if not last.nodes or last.nodes[-1] is not node:  # a part that was scaled by this node names it already
                            merged = (*merged[:-1], replace(last, nodes=(*last.nodes, node)))
                        terms[k] = (anchor, merged)
                        break
                if merged is None:
                    terms.append((anchor, chain))
        return Value(node.outputs[0], shape, tuple(terms), **known)

    def fresh(
        self, node: Node, log: float, *parents: Value, output: int = 0, reason: str = "", **known: Unpack[KnownOfValue]
    ) -> Value:
        """A value that is not a linear map of earlier ones; without a bound, the reason is its own or its parents'."""
        if log == math.inf and not reason:
            reason = next((self.reason(p) for p in parents if self.log(p) == math.inf), "") or unbounded(
                node, "has no finite bound"
            )
        name = node.outputs[output]
        return Value(name, self.shape(name), (), log, reason, **known)

    def record(
        self, node: Node, log: float, *, kind: str, method: str, note: str = "", op: str = "", shape: tuple[int, ...] = ()
    ) -> None:
        """Enter a factor into the table; one without a bound is left out, the reason says it."""
        if log < math.inf:
            self.factors.append((node.index, Factor(node.label, op or node.op, shape, shown(log), method, kind, True, note)))

    def _sum_log(self, chains: list[Chain]) -> float:
        if len(chains) > 1:
            matrices = [_matrix_of(c) for c in chains]
            known = [m for m in matrices if m is not None]
            if len(known) == len(chains):
                return self._matrix_log(tuple(e for c in chains for e in c), np.sum(known, axis=0))
        return plus(*(self._chain_log(c) for c in chains))

    def _chain_log(self, chain: Chain) -> float:
        heavy = [e for e in chain if not isinstance(e, (Rearrange, Scaling))]
        scales = any(isinstance(e, Scaling) for e in chain)
        if any(isinstance(e, Convolution) for e in heavy) or len(heavy) > 1 or (heavy and scales):
            key = tuple(id(e) for e in chain)
            if key in self._chains:
                return self._chains[key][1]
            matrix = _matrix_of(chain)
            if matrix is not None:
                log = self._matrix_log(chain, matrix)
                self._chains[key] = (chain, log)
                return log
        return times(0.0, *(self._element_log(e) for e in chain))

    def _matrix_log(self, chain: Chain, matrix: np.ndarray) -> float:
        nodes = tuple(dict.fromkeys(n.index for e in chain for n in e.nodes))
        named = {n.index: n for e in chain for n in e.nodes}
        first = named[nodes[0]]
        self._step(first)
        log = log10(_checked(first, lambda: matrix_norm(matrix).value))
        ops = "+".join(named[i].op for i in nodes)
        self.record(first, log, kind="linear", method="written out as a matrix", op=ops, shape=matrix.shape)
        return log

    def _element_log(self, element: Element) -> float:
        found = self._norms.get(id(element))
        if found is not None and found[0] is element:
            return found[1]
        first = element.nodes[0]
        self._step(first)
        norm = _checked(first, lambda: element.norm)
        log = log10(norm.value)
        self._norms[id(element)] = (element, log)
        if not isinstance(element, Rearrange) or log != 0:
            main = next((n for n in element.nodes if n.op in ("Conv", "Gemm", "MatMul")), first)
            ops = "+".join(dict.fromkeys(n.op for n in element.nodes))
            self.record(main, log, kind="linear", method=norm.method, note=norm.note, op=ops, shape=element.shape)
        return log

    def _step(self, node: Node) -> None:
        if self._progress is not None:
            self._progress(min(len(self._norms) + 1, self._total), self._total, node.label)


def unbounded(node: Node, why: str) -> str:
    """The reason of a bound that is not available."""
    return f"node {node.label!r}, op {node.op}: {why}"


class NotFinite(ModelError):
    """A weight is infinite or NaN."""


def _checked(node: Node, compute: Callable[[], object]):  # type: ignore[no-untyped-def]
    try:
        return compute()
    except (ModelError, np.linalg.LinAlgError) as error:
        raise NotFinite(unbounded(node, str(error))) from error


def _matrix_of(chain: Chain) -> np.ndarray | None:
    """The chain written out as a matrix (in, out), when it is small and every element can be applied."""
    if not chain:
        return None
    n_in, n_out = size_of_shape(chain[0].in_shape), size_of_shape(chain[-1].out_shape)
    if n_in is None or n_out is None or not 0 < n_in <= _DENSE_IN or not 0 < n_out <= _DENSE_OUT or chain[0].in_shape is None:
        return None
    if any((size_of_shape(e.out_shape) or _DENSE_OUT + 1) > _DENSE_OUT for e in chain):
        return None
    X: np.ndarray | None = np.eye(n_in).reshape(n_in, *(d or 0 for d in chain[0].in_shape))
    for element in chain:
        X = None if X is None else element.apply(X)
    return None if X is None else X.reshape(n_in, -1)
