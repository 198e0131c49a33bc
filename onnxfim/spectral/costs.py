"""What the norms of a graph's layers cost beside one another, roughly: how far a bound is, and how long it will take."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnxfim.graph.graph import Dimension, Graph, Node

_LARGEST, _BEYOND = 32, 3  # points of a kernel's grid along an axis, at most and beyond the size of its input
_USUAL = 14  # size of an input that is not known
_LEAST = 2e7  # of a layer, whatever its size
_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def layer_costs(graph: Graph) -> dict[str, float]:
    """Multiplications of the norm of each layer with weights, by its node's label.

    A matrix (m, n) costs ``m n min(m, n)``, a kernel as much at each point of its grid.
    """
    return {n.label: _LEAST + _cost(graph.shapes, n) for n in graph.nodes if n.op in _LINEAR}


def _cost(shapes: Mapping[str, tuple[Dimension, ...]], node: Node) -> float:
    known = (_known(shapes.get(name, ())) for name in node.inputs[1::-1])
    shape = next((s for s in known if len(s) >= 2), None)
    if shape is None:
        return 0.0
    rows, columns, *kernel = shape
    sizes = shapes.get(node.inputs[0], ())[2:] if math.prod(kernel) > 1 else ()
    points = math.prod(min((n if isinstance(n, int) else _USUAL) + _BEYOND, _LARGEST) for n in sizes)
    return float(points * rows * columns * min(rows, columns))


def _known(shape: tuple[Dimension, ...]) -> tuple[int, ...]:
    """A shape where all of it is known."""
    whole = tuple(n for n in shape if isinstance(n, int))
    return whole if len(whole) == len(shape) else ()


class Weighed:
    """How much of a bound is done, by what its layers cost.

    Args:
        graph: The graph whose layers are told.
    """

    def __init__(self, graph: Graph) -> None:
        self._costs = layer_costs(graph)
        self.total = sum(self._costs.values())
        self._begun: dict[str, None] = {}

    def begins(self, name: str) -> float:
        """The norm of that layer is taken next; the share of the work that is done before it."""
        done = sum(self._costs.get(n, 0.0) for n in self._begun)
        self._begun[name] = None
        return min(done / max(self.total, 1.0), 1.0)


__all__ = ["Weighed", "layer_costs"]
