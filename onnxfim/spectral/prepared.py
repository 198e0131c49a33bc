"""The prepared graph as bounds and families read it: operators that have a bound rule are kept, others written out."""

from __future__ import annotations

import onnxfim.spectral.rules  # noqa: F401 - fills the registry
from onnxfim.graph.flow import Flow, flow
from onnxfim.graph.graph import Graph
from onnxfim.spectral.bound_rules import RULES


def prepared_view(graph: Graph | Flow, input_name: str | None = None) -> Flow:
    """The graph prepared for the bound rules; one that is already prepared is returned as it is.

    Args:
        graph: The file's graph.
        input_name: The audited input; the first floating-point input by default.

    Raises:
        ModelError: the graph has no such input, or none at all.
    """
    return graph if isinstance(graph, Flow) else flow(graph, input_name=input_name, keeps=RULES)
