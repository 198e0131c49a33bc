"""What tests every derivative rule of a graph at the node that it was written for.

Differences of a whole network cannot tell a wrong rule from its kinks: a deep network of ReLUs has some inside every step that
float32 can take. Differences of one node can. The tangents of a ``Jv`` graph are taken as they are, and each node's own outgoing
tangent is compared with differences of that node alone along its incoming ones. Where every node agrees, the chain rule makes
``Jv`` right; the adjoint identity then carries that over to ``Jᵀu``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx import helper

from onnxfim.gradients.build import RESERVED, DerivativeWriter
from onnxfim.graph.expand import told_unfit
from onnxfim.graph.graph import reads
from onnxfim.graph.lower import op_name
from onnxfim.graph.prepare import Prepared, prepare, pruned

Array: TypeAlias = np.ndarray[Any, Any]
#: Opens a model and runs it once: feeds by name to all of its outputs, in order.
Evaluate: TypeAlias = Callable[[onnx.ModelProto, Mapping[str, Array]], Sequence[Array]]

#: Steps of the central differences, in standard deviations of a node's inputs. At the first a node that is linear agrees to
#: rounding, at the second a smooth one.
STEPS = (1e-1, 1e-2)
#: The step of the one-sided differences, between which the slope lies where a kink stands within the step.
NARROW = 1e-3
#: Operators that bend within a unit of their input, however far apart their inputs are: masked scores are -100 or lower.
_BENDS_WITHIN_ONE = frozenset(
    {"Softmax", "LogSoftmax", "Exp", "Sigmoid", "Tanh", "Softplus", "Erf", "Gelu", "Sinh", "Cosh", "Sin", "Cos"}
)
_TINY = float(np.finfo(np.float64).tiny)
#: Of an input's size, where its spread is less: a smaller step is lost in float32.
_LEAST = 2e-3
#: The step, of a node's results, where these are large against their changes: a smaller one is lost in their rounding.
_COARSE = 1e-2
_ROUNDED = 4  # units in the last place of a node's results, below which a difference of them says nothing
#: The least size of what is rounded inside an operator: the runtime computes log(1 + exp(x)) as it stands.
_INSIDE = {"Softplus": 1.0}
_PART = 256  # nodes of the graph evaluated in one model
_TOGETHER = 64  # nodes evaluated in one model, at most
_TOGETHER_BYTES = 16 << 20  # bytes that they and their weights take, where they are several
#: Passes that the test costs a row: its values with their tangents, and two evaluations of every node at each step.
PASSES = 2 + 2 * (len(STEPS) + 1)


@dataclass(frozen=True)
class NodeError:
    """How far a node's rule is from differences of the node, at each row, (N,): relative to its own tangent there."""

    op: str
    name: str
    errors: Array


@dataclass(frozen=True)
class _Test:
    """One node, on the way to one of its outputs."""

    node: onnx.NodeProto
    name: str
    output: str
    incoming: Mapping[int, str]  # tangents of its inputs
    outgoing: str
    read: tuple[str, ...]  # computed inputs
    weights: tuple[onnx.TensorProto, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All computed values and tangents that it needs."""
        return (*self.read, self.output, self.outgoing, *self.incoming.values())


class NodeTests:
    """The tests of all rules that the derivative of a graph uses; arguments and errors as of `derivative_graph`."""

    @told_unfit
    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        input_name: str,
        output_name: str,
        sample_shape: Sequence[int] | None = None,
        dimensions: Mapping[str, int] | None = None,
        surrogate: Literal["clip"] | None = None,
        base_dir: str | os.PathLike[str] = ".",
    ) -> None:
        self._plan(prepare(
            model, input_name=input_name, output_name=output_name, reserved=RESERVED,
            sample_shape=sample_shape, dimensions=dimensions, surrogate=surrogate, base_dir=base_dir,
        ))  # fmt: skip

    @classmethod
    def of(cls, graph: Prepared) -> NodeTests:
        """The tests of a graph that is prepared already; it is not changed."""
        self = cls.__new__(cls)
        self._plan(graph)
        return self

    def _plan(self, graph: Prepared) -> None:
        self._writer = DerivativeWriter(graph)
        self._graph = self._writer.graph
        self._seeds = self._writer.emitter.emit("Shape", "v", start=0, end=1)
        self._tests = list(self._planned())

    def _planned(self) -> Iterator[_Test]:
        w = self._writer
        found = w.tangents("v", seeds=self._seeds)
        tangents = {name: w.multiplied(t, w.site(w.path[0], self._seeds)) for name, t in found.items()}
        weights = {t.name: t for t in self._graph.initializers}
        for node in w.path:
            incoming = {i: tangents[name] for i, name in enumerate(node.input) if name in tangents}
            known = {name: weights[name] for name in node.input if name in weights}
            read = tuple(dict.fromkeys(r for r in reads(node) if r not in known))
            for output in (o for o in node.output if o in tangents):
                yield _Test(node, node.name, output, incoming, tangents[output], read, tuple(known.values()))

    def bytes_per_row(self) -> int:
        """Memory that one row's values and tangents take."""
        shapes = self._graph.trace.shapes
        names = {r for t in self._tests for r in (*t.read, t.output)}
        return 8 * sum(int(np.prod([d for d in shapes.get(n, ()) if isinstance(d, int)])) for n in names)

    def __call__(
        self, evaluate: Evaluate, X: Array, v: Array, beside: Mapping[str, Array] | None = None
    ) -> tuple[Array, list[NodeError]]:
        """Test all rules at the rows X (N, *shape) along v (N, *shape); ``beside`` are the graph's other inputs at these rows.

        Returns:
            ``Jv`` (N, K), and what was found at each node.
        """
        names = {self._graph.z, *(name for t in self._tests for name in t.names)}
        given = {i.name for i in self._graph.inputs}
        wanted = sorted(names - given)
        dtype = helper.tensor_dtype_to_np_dtype(self._graph.trace.elem[self._graph.x])
        X, v = X.astype(dtype, copy=False), v.astype(dtype, copy=False)
        values = self._values(wanted, {"x": X, "v": v[None], **(beside or {})}, evaluate)
        last = next(t.outgoing for t in reversed(self._tests) if t.output == self._graph.z)
        w = values[last][0].reshape(len(X), -1)
        read_last = {name: place for place, t in enumerate(self._tests) for name in t.names}
        found: list[NodeError] = []
        for some in _groups(self._tests, values):
            moved = {place: _moved(self._tests[place], values) for place in some}
            ends = self._ends({place: m for place, m in moved.items() if m is not None}, values, evaluate)
            found += [_judged(self._tests[place], values, m, ends.get(place, [])) for place, m in moved.items()]
            values = {name: a for name, a in values.items() if read_last.get(name, -1) > some[-1]}
        return w, found

    def _values(self, names: Sequence[str], feeds: Mapping[str, Array], evaluate: Evaluate) -> dict[str, Array]:
        """Values and tangents of the graph.

        It is evaluated part by part, each from what those before it made: the runtime's time to open a model of many nodes
        grows with their square.
        """
        graph, e, wanted = self._graph, self._writer.emitter, frozenset(names)
        nodes = [helper.make_node("Identity", ["x"], [graph.x], name="x"), *graph.nodes, *e.nodes]
        nodes = pruned(nodes, names)
        weights = {t.name: t for t in (*graph.initializers, *e.constants)}
        last = {r: k for k, n in enumerate(nodes) for r in reads(n)}  # where each value is read last
        known: dict[str, Array] = dict(feeds)
        kept = {name: known[name] for name in names if name in known}
        for start in range(0, len(nodes), _PART):
            part = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes[start : start + _PART]]
            end = start + len(part)
            for k, node in enumerate(part):
                node.name = str(k)  # the runtime wants them distinct
            made = {o for n in part for o in n.output if o}
            inputs = sorted({r for n in part for r in reads(n)} - made - weights.keys())
            outputs = sorted(o for o in made if o in wanted or last.get(o, -1) >= end)
            model = _model(graph, part, [_info(n, known[n]) for n in inputs], outputs, list(weights.values()))
            known |= dict(zip(outputs, evaluate(model, {n: known[n] for n in inputs}), strict=True))
            kept |= {o: known[o] for o in outputs if o in wanted}
            known = {n: a for n, a in known.items() if last.get(n, -1) >= end}
        return kept

    def _ends(self, moved: Mapping[int, _Moved], values: Mapping[str, Array], evaluate: Evaluate) -> dict[int, list[Array]]:
        """The outputs of some nodes, by their places, each with its varying inputs moved along their tangents by each step.

        All are evaluated in one model, for opening one costs far more than a node.
        """
        nodes: list[onnx.NodeProto] = []
        feeds: dict[str, Array] = {}
        outputs: list[str] = []
        weights: dict[str, onnx.TensorProto] = {}
        for place, move in moved.items():
            test = self._tests[place]
            feeds.update({name: values[name] for name in test.read if name in values})
            weights.update({t.name: t for t in test.weights})
            for k, step in enumerate(move.steps()):
                mark = f"{place}/{k}"
                copy = onnx.NodeProto()
                copy.CopyFrom(test.node)
                copy.name = mark
                for i, along in move.along.items():
                    a = values[test.node.input[i]]
                    copy.input[i] = f"{mark}/{i}"
                    feeds[copy.input[i]] = (a + step * along).astype(a.dtype)
                renamed = [f"{mark}/{o}" if o else "" for o in test.node.output]
                del copy.output[:]
                copy.output.extend(renamed)
                nodes.append(copy)
                outputs.append(f"{mark}/{test.output}")
        if not nodes:
            return {}
        used = {r for n in nodes for r in reads(n)}
        inputs = [_info(n, a) for n, a in feeds.items() if n in used]
        model = _model(self._graph, nodes, inputs, outputs, list(weights.values()))
        found = iter(evaluate(model, {n: a for n, a in feeds.items() if n in used}))
        return {place: [next(found) for _ in move.steps()] for place, move in moved.items()}


def _groups(tests: Sequence[_Test], values: Mapping[str, Array]) -> Iterator[list[int]]:
    """The places of tests that are evaluated together: a few dozen, and no more than fits a model and the memory."""
    some: list[int] = []
    size = 0
    for place, test in enumerate(tests):
        moving = sum(values[n].nbytes for n in (*test.read, test.output) if n in values)
        mine = 2 * (len(STEPS) + 1) * moving + sum(t.ByteSize() for t in test.weights)
        if some and (len(some) == _TOGETHER or size + mine > _TOGETHER_BYTES):
            yield some
            some, size = [], 0
        some.append(place)
        size += mine
    if some:
        yield some


@dataclass(frozen=True)
class _Moved:
    """The tangents of a node's varying inputs in float64, and the unit of the steps along them.

    ``coarse`` is a longer step where results are large against their changes, as those of a sum with a large constant are.
    """

    along: Mapping[int, Array]
    unit: float
    coarse: float | None = None

    @property
    def central(self) -> list[float]:
        """Steps of central differences."""
        return [self.unit * s for s in STEPS] + ([] if self.coarse is None else [self.coarse])

    def steps(self) -> list[float]:
        """Of central differences, and last those of the one-sided ones."""
        return [sign * s for s in (*self.central, self.unit * NARROW) for sign in (1, -1)]


def _moved(test: _Test, values: Mapping[str, Array]) -> _Moved | None:
    """How a node's inputs move; None where nothing does."""
    along = {i: values[name][0].astype(np.float64) for i, name in test.incoming.items()}
    most = 1.0 if test.node.op_type in _BENDS_WITHIN_ONE else np.inf
    unit = _unit([values[test.node.input[i]] for i in along], list(along.values()), most)
    if unit is None:
        return None
    return _Moved(along, unit, _coarse(test, values, unit))


def _coarse(test: _Test, values: Mapping[str, Array], unit: float) -> float | None:
    """The step that changes a node's results by `_COARSE` of their usual size; None where the longest of `STEPS` does."""
    y, t = np.abs(values[test.output]).astype(np.float64), np.abs(values[test.outgoing][0]).astype(np.float64)
    if test.node.op_type in _BENDS_WITHIN_ONE or not (0 < (length := _rms(t)) < np.inf):
        return None
    step = _COARSE * float(np.quantile(y, 0.5, method="lower")) / length
    within = np.isinf(y).any() or float(y.max() + step * t.max()) < float(np.finfo(values[test.output].dtype).max)
    return step if within and unit * max(STEPS) < step < np.inf else None


def _judged(test: _Test, values: Mapping[str, Array], moved: _Moved | None, ends: Sequence[Array]) -> NodeError:
    """Compare one node's outgoing tangent with its own differences."""
    t = values[test.outgoing][0].astype(np.float64)
    y = values[test.output].astype(np.float64)
    if moved is None:
        return NodeError(op_name(test.node), test.name, np.where(_length(t) > 0, np.inf, 0.0))
    if op_name(test.node) == "TopK":
        errors = _length(t - _in_order(test.node, values[test.node.input[0]], moved.along[0], y)) / np.maximum(_length(t), _TINY)
        return NodeError(op_name(test.node), test.name, errors)
    unit = moved.unit
    best = np.full(t.shape, np.inf)
    scale = _length(t)
    inside = np.maximum(np.abs(y), _INSIDE.get(test.node.op_type, 0.0))
    # That of the longest step: at a shorter one most of a wrong slope may be rounding's.
    eps = float(np.finfo(values[test.output].dtype).eps)
    rounding = _ROUNDED / 2 * inside * eps / max(moved.central) + _ROUNDED * eps * _summed(test.node, moved, t.size)
    with np.errstate(invalid="ignore", over="ignore"):
        for k, step in enumerate(moved.central):
            slope = np.subtract(ends[2 * k], ends[2 * k + 1], dtype=np.float64) / (2 * step)
            best = np.fmin(best, np.maximum(np.abs(t - slope) - rounding, 0.0))
            scale = np.fmax(scale, np.nan_to_num(_length(slope), posinf=0.0))
        sides = (ends[-2] - y) / (unit * NARROW), (y - ends[-1]) / (unit * NARROW)
        beyond = np.maximum(t - np.maximum(*sides), np.minimum(*sides) - t)
        best = np.fmin(best, np.maximum(beyond, 0.0))
        best = np.where(np.isfinite(y) | (ends[0] != ends[1]), best, 0.0)  # a score that a mask made infinite, and that stays so
    errors = _length(best) / np.maximum(scale, _TINY)
    return NodeError(op_name(test.node), test.name, errors)


def _summed(node: onnx.NodeProto, moved: _Moved, size: int) -> float:
    """The usual size of what a sum adds up for each of ``size`` results; that of probabilities has a slope of rounding alone."""
    if node.op_type not in ("ReduceSum", "ReduceMean"):
        return 0.0
    along = moved.along[0]
    return _rms(along) * (along.size / max(size, 1) if node.op_type == "ReduceSum" else 1.0)


def _in_order(node: onnx.NodeProto, x: Array, along: Array, y: Array) -> Array:
    """The slopes that TopK's results y have: those of the entries of x that they are.

    Differences do not tell: of many values in order, some change places within any step that float32 can take.
    """
    given = {a.name: a.i for a in node.attribute}
    axis = given.get("axis", -1)
    sign = -1 if given.get("largest", 1) else 1
    chosen = np.argsort(sign * x, axis=axis, kind="stable").take(range(y.shape[axis]), axis=axis)
    slopes = np.empty(y.shape)
    np.put_along_axis(slopes, np.argsort(sign * y, axis=axis, kind="stable"), np.take_along_axis(along, chosen, axis), axis)
    return slopes


def _info(name: str, value: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _model(
    graph: Prepared, nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str],
    tensors: Sequence[onnx.TensorProto],
) -> onnx.ModelProto:  # fmt: skip
    used = {r for n in nodes for r in reads(n)}
    model = onnx.ModelProto(ir_version=graph.ir_version, producer_name="onnxfim")
    model.opset_import.extend(graph.opset_imports)
    model.graph.name = "tests of derivative rules"
    model.graph.node.extend(nodes)
    model.graph.input.extend(inputs)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    model.graph.initializer.extend(t for t in tensors if t.name in used)
    return model


def _unit(values: Sequence[Array], moves: Sequence[Array], most: float) -> float | None:
    """The step that moves no input by more than its standard deviation (or `_LEAST` of its size), nor by more than ``most``.

    An input without spread moves by its own size, or by 1; of infinite entries nothing is told. None where nothing moves.
    """
    units = []
    for a, t in zip(values, moves, strict=True):
        length, a = _rms(t), a[np.isfinite(a)]
        if length > 0 and np.isfinite(length):
            size = _rms(a.astype(np.float64))
            spread = float(a.std(dtype=np.float64)) if a.size else 0.0
            units.append(min(max(spread, _LEAST * size) if spread > 1e-6 * size else size or 1.0, most) / length)
    return min(units, default=None)


def _rms(a: Array) -> float:
    return float(np.sqrt(np.mean(np.square(a)))) if a.size else 0.0


def _length(a: Array) -> Array:
    """Length of each row, (N,)."""
    return np.asarray(np.sqrt(np.square(a).reshape(len(a), -1).sum(axis=1)))


__all__ = ["NARROW", "PASSES", "STEPS", "Evaluate", "NodeError", "NodeTests"]
