"""The part of a Fisher product that concerns p: in float64, without cancellation where p is saturated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnxfim.graph.emitter import AttributeValue, Emitter, Operand

_DOUBLE = np.dtype(np.float64)
_TINY = 1e-300


@dataclass(frozen=True)
class Softmax:
    """``A = diag(√p)(I − 1pᵀ)J / T`` without its J, as nodes; all values float64, (N, K) or (S, N, K).

    ``1 − p_k`` and sums over the other classes are formed without the top class where that is left out, so they keep
    their relative accuracy when p is one-hot to rounding.
    """

    emitter: Emitter
    root: str  # √p
    p: str
    rest: str  # 1 − p
    top: str  # true at the largest logit
    temperature: str

    @classmethod
    def of(cls, emitter: Emitter, logits: str, temperature: str, classes: int) -> Softmax:
        """Probabilities of ``logits / temperature``."""
        self = cls(emitter, "", "", "", "", temperature)
        scaled = self.write("Div", self.write("Cast", logits, to=TensorProto.DOUBLE), temperature)
        log_p = self.write("LogSoftmax", scaled, axis=-1)
        p = self.write("Exp", log_p)
        best = self.write("ArgMax", scaled, axis=-1, keepdims=1)
        top = self.write("Equal", best, emitter.constant(np.arange(classes)))
        others = self.total(self.write("Where", top, 0.0, p))
        rest = self.write("Where", top, others, self.write("Sub", 1.0, p))
        return cls(emitter, self.write("Exp", self.write("Mul", log_p, 0.5)), p, rest, top, temperature)

    def write(self, op_type: str, *inputs: Operand, **attributes: AttributeValue) -> str:
        names = [self.emitter.operand(i, _DOUBLE) for i in inputs]
        return self.emitter.emit(op_type, *names, **attributes)

    def total(self, t: str) -> str:
        return self.write("ReduceSum", t, [-1])

    def _others(self, t: str) -> str:
        """Sum over the other classes, for each class."""
        without_top = self.total(self.write("Where", self.top, 0.0, t))
        return self.write("Where", self.top, without_top, self.write("Sub", self.total(t), t))

    def cotangent(self, u: str) -> str:
        """``(I − p1ᵀ) diag(√p) u / T``, with entry k as ``√p_k ((1 − p_k) u_k − √p_k Σ_{j≠k} √p_j u_j)``."""
        others = self._others(self.write("Mul", self.root, u))
        inner = self.write("Sub", self.write("Mul", self.rest, u), self.write("Mul", self.root, others))
        return self.write("Div", self.write("Mul", self.root, inner), self.temperature)

    def scores(self, d: str) -> str:
        """``diag(√p)(I − 1pᵀ) d / T``, with entry k as ``√p_k ((1 − p_k) d_k − Σ_{j≠k} p_j d_j)``."""
        inner = self.write("Sub", self.write("Mul", self.rest, d), self._others(self.write("Mul", self.p, d)))
        return self.write("Div", self.write("Mul", self.root, inner), self.temperature)

    def scale(self, c: str) -> str:
        """Largest entry of each cotangent, (S, N, 1)."""
        return self.write("Max", self.write("ReduceMax", self.write("Abs", c), [-1]), _TINY)
