"""The rules of the operators, by operator type."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from onnxfim.graph.graph import Node
from onnxfim.graph.rule_tables import enters
from onnxfim.spectral.site import Composition, Value

#: Makes the values of a node's outputs from those of its inputs; at least one input varies.
BoundRule: TypeAlias = "Callable[[Composition, Node], Value | tuple[Value, ...]]"

RULES: dict[str, BoundRule] = {}
#: Enters a function as the rule of operators.
rule = enters(RULES)
