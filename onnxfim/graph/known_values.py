"""Values of a model that follow from its constants alone: weights as floats, whatever form the file stores them in."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.graph.referring import array_of
from onnxfim.graph.shapes import MAX_FOLDED, STANDARD, constant_value

Array: TypeAlias = np.ndarray[Any, Any]

#: Operators between a stored weight and the node that uses it.
_FOLDED = frozenset(
    {"DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
)


class KnownValues:
    """The constants of a model, and what simple operators make of them; each is worked out when it is asked for.

    Args:
        model: The model.
        base_dir: Folder of external data.
    """

    def __init__(self, model: onnx.ModelProto, *, base_dir: str | os.PathLike[str] = ".") -> None:
        self._tensors = {t.name: t for t in model.graph.initializer}
        self._makers = {o: n for n in model.graph.node for o in n.output if o}
        self._opsets = {o.domain: o.version for o in model.opset_import}
        self._base_dir = str(base_dir)
        self._found: dict[str, Array | None] = {}

    def value(self, name: str) -> Array | None:
        """The value, or None where it is computed from an input, too large or of an operator that is not folded."""
        if name not in self._found:
            self._found[name] = None  # a ring of nodes ends here
            self._found[name] = self._worked_out(name)
        return self._found[name]

    def known(self, names: Iterable[str]) -> bool:
        """Whether all values are constants."""
        return all(self.value(n) is not None for n in names)

    def _worked_out(self, name: str) -> Array | None:
        if name in self._tensors:
            return array_of(self._tensors[name], self._base_dir)
        node = self._makers.get(name)
        if node is None or node.domain not in STANDARD:
            return None
        if node.op_type == "Constant":
            found = constant_value(node, most=MAX_FOLDED)
            return None if found is None else np.asarray(found)
        if node.op_type not in _FOLDED:
            return None
        feeds: dict[str, Array] = {}
        for i in node.input:
            if i and (found := self.value(i)) is not None:
                feeds[i] = found
            elif i:
                return None
        if math.prod(next(iter(feeds.values())).shape) > MAX_FOLDED:
            return None
        return self._evaluated(node, feeds, name)

    def _evaluated(self, node: onnx.NodeProto, feeds: Mapping[str, Array], name: str) -> Array | None:
        from onnx.reference import ReferenceEvaluator  # here: few models have such weights, and its import takes 0.1 s

        try:
            made = ReferenceEvaluator(node, opsets=self._opsets).run(None, dict(feeds))
        except Exception:  # noqa: BLE001 - a form that the reference does not know is a value that is not known
            return None
        return np.asarray(made[list(node.output).index(name)])
