"""A graph as the steps that its local bounds are made of, from the input to the scores; or why it has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto

from onnxfim.errors import ModelError
from onnxfim.graph.flow import Flow, flow
from onnxfim.graph.graph import Graph, Node
from onnxfim.graph.rule_tables import enters
from onnxfim.relaxed.maps import Map, Pick
from onnxfim.relaxed.relaxed_steps import Affine, Step, Units

Array: TypeAlias = np.ndarray[Any, Any]

_SINGLE = 2.0**-24
_UNITS = {
    TensorProto.DOUBLE: Units(2.0**-53, 2.0**-53, 1.7e308),
    TensorProto.FLOAT: Units(_SINGLE, _SINGLE, 3.4e38),
    TensorProto.FLOAT16: Units(2.0**-11, _SINGLE, 65504.0),
    TensorProto.BFLOAT16: Units(2.0**-8, _SINGLE, 3.38e38),
}
_LARGEST = 1 << 22  # entries of a value, and taps of a pool


class NoLocalRule(ModelError):
    """A graph has no local bounds: an operator has no rule, or a shape or constant is not known."""


@dataclass(frozen=True)
class StepNetwork:
    """The steps from an input to scores, in order.

    Attributes:
        source, scores: Names of the two values.
        size: Entries of the input.
        steps: By the values that they make, in the order in which they are computed.
    """

    source: str
    scores: str
    size: int
    steps: tuple[Step, ...]

    @property
    def straight(self) -> frozenset[str]:
        """Values that are linear in the input: only linear maps lead to them."""
        found = {self.source}
        for step in self.steps:
            if isinstance(step, Affine) and found.issuperset(step.sources):
                found.add(step.name)
        return frozenset(found)

    @property
    def widest(self) -> int:
        """Entries of the largest value."""
        return max([self.size, *(s.size for s in self.steps)])

    @property
    def cost(self) -> float:
        """Multiplications of the bounds around one sample at one distance at most, where every curve is bent for every entry.

        Both bounds of each entry of a curve's input go back through all that it depends on.
        """
        straight, before, total = self.straight, {self.source: frozenset[int]()}, 0.0
        costs = [s.cost for s in self.steps]
        for at, step in enumerate(self.steps):
            before[step.name] = frozenset([at]).union(*(before[s] for s in step.sources))
            if not isinstance(step, Affine):
                sizes = {s: step.size for s in step.sources if s not in straight}
                total += sum(2.0 * n * sum(costs[k] for k in before[s]) for s, n in sizes.items())
        return total


@dataclass
class RuleSite:
    """A graph on its way to steps: what rules read, and where they put what they make.

    Attributes:
        view: The prepared graph.
        tf32: Whether the runtime may round factors of products to 10 bits.
        folded: Whether there are constants that a runtime may multiply into weights, or add to them.
        steps: Those made so far.
        grids: Scale and zero point of values that are whole numbers in the file; here they stand for what these mean.
    """

    view: Flow
    tf32: bool
    folded: bool = True
    steps: list[Step] = field(default_factory=list)
    grids: dict[str, tuple[float, int]] = field(default_factory=dict)

    def varies(self, name: str) -> bool:
        return name in self.view.varying

    def constant(self, name: str) -> Array | None:
        """A constant in float64, None where it is not known."""
        value = self.view.constant(name)
        return None if value is None else np.asarray(value).astype(np.float64)

    def shape(self, node: Node, name: str) -> tuple[int, ...]:
        """The shape of a value at one sample."""
        shape = self.view.shape(name)
        if shape is None or any(d is None for d in shape):
            raise self.none(node, "the shape of its values is not known before the model runs")
        found = tuple(int(d or 0) for d in shape)
        if math.prod(found) > _LARGEST:
            raise self.none(node, f"its values have {math.prod(found):,} entries, more than local bounds are made for")
        return found

    def units(self, name: str) -> Units:
        """Rounding of the numbers of a value."""
        found = _UNITS.get(self.view.elements.get(name, TensorProto.FLOAT), _UNITS[TensorProto.FLOAT])
        sums = max(found.sums, 2.0**-10) if self.tf32 and found.sums == _SINGLE else found.sums
        return Units(found.value, sums, found.most, self.folded)

    def none(self, node: Node, why: str) -> NoLocalRule:
        return NoLocalRule(f"node {node.label!r}, op {node.op}: {why}")

    def weight(self, node: Node, at: int, what: str) -> Array:
        """Constant input ``at`` of a node."""
        value = self.constant(node.inputs[at]) if at < len(node.inputs) and not self.varies(node.inputs[at]) else None
        if value is None:
            raise self.none(node, f"its {what} is not known before the model runs")
        if not np.isfinite(value).all():
            raise self.none(node, f"its {what} holds infinite or NaN values")
        return value

    def affine(
        self, node: Node, parts: Sequence[tuple[str, Map]], bias: Array | float = 0.0, *, exact: bool = False,
        name: str | None = None,
    ) -> None:  # fmt: skip
        """Enter a sum of linear maps as what makes a value, the node's first output by default."""
        name = node.outputs[0] if name is None else name
        size = math.prod(self.shape(node, node.outputs[0]))
        whole = np.broadcast_to(np.asarray(bias, np.float64).ravel(), size).copy()
        self.steps.append(Affine(name, tuple(parts), whole, self.units(node.outputs[0]), exact))

    def spread(self, node: Node, name: str, out: tuple[int, ...]) -> Array:
        """Flat places of a value's entries, broadcast to a shape."""
        shape = self.shape(node, name)
        return np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), out).ravel()

    def repeated(self, node: Node, name: str, out: tuple[int, ...]) -> str:
        """The name of a value, or of a new one that holds it broadcast to a shape."""
        shape = self.shape(node, name)
        if math.prod(shape) == math.prod(out):
            return name
        made = f"{node.outputs[0]} from {name}"
        self.affine(node, [(name, Pick(math.prod(shape), self.spread(node, name, out)))], exact=True, name=made)
        return made


#: Puts the steps of one node into the site; at least one of its inputs varies.
Rule: TypeAlias = Callable[[RuleSite, Node], None]

RULES: dict[str, Rule] = {}
#: Enters a function as the rule of operators.
rule = enters(RULES)


def network(
    graph: Graph, *, input_name: str, scores: str, sample_shape: tuple[int, ...], tf32: bool = False
) -> StepNetwork:  # fmt: skip
    """The steps of a graph from its input to a value.

    Args:
        graph: The file's graph.
        input_name: The input that is perturbed.
        scores: The value whose largest entry is the prediction.
        sample_shape: Shape of one sample, without the batch axis.
        tf32: Whether the runtime may round factors of products to 10 bits.

    Raises:
        NoLocalRule: an operator between the two has no rule, or a shape or constant is not known.
        ModelError: the graph has no such input.
    """
    import onnxfim.relaxed.rules  # noqa: F401 - fills the registry

    view = flow(graph, input_name=input_name, keeps=RULES, sample_shape=sample_shape)
    if scores not in view.varying:
        raise NoLocalRule(f"value {scores!r}: does not depend on the input")
    size, taken = math.prod(sample_shape), view.shape(view.source.name)
    if taken is None or math.prod(d or 0 for d in taken) != size:
        raise NoLocalRule(f"input {view.source.name!r}: takes several rows at once, which have no local bounds")
    needed, nodes = {scores}, list[Node]()
    for node in reversed(view.graph.nodes):
        if any(o in needed and o in view.varying for o in node.outputs):
            nodes.append(node)
            needed.update(i for i in node.inputs if i in view.varying)
    foldable = ("BatchNormalization", "Mul", "Div", "Add", "Sub", "Sum", "Mean")
    folded = any(n.op in foldable and not all(i in view.varying for i in n.inputs) for n in nodes)
    site = RuleSite(view, tf32, folded)
    for node in reversed(nodes):
        if (why := view.problems.get(node.outputs[0])) is not None:
            raise NoLocalRule(why)
        if node.op not in RULES:
            raise site.none(node, "has no local rule")
        RULES[node.op](site, node)
    return StepNetwork(view.source.name, scores, size, _needed(site.steps, scores))


def _needed(steps: Sequence[Step], scores: str) -> tuple[Step, ...]:
    """The steps that the scores depend on, in order."""
    wanted, kept = {scores}, []
    for step in reversed(steps):
        if step.name in wanted:
            kept.append(step)
            wanted.update(step.sources)
    return tuple(kept[::-1])
