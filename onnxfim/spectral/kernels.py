"""Gaussian kernels ``s_i exp(−γ‖x − c_i‖²)`` of rows with fixed centres, as support vector machines are written out in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxfim.graph.flow import Flow
from onnxfim.graph.graph import Node
from onnxfim.spectral.norms import outward

_ROUNDING = 1e-12  # of one entry of a Gram matrix, for each unit of what its exponent is made of
_MOST = 8192  # centres whose Gram matrix is made
_EIGENVALUES = 1024  # rows of a matrix whose eigenvalues are sought; the largest row sum is above them


@dataclass(frozen=True, eq=False)
class GaussianKernels:
    """Kernels of the rows of the value ``source`` (…, d) with centres (V, d), each scaled, (V,); gamma is positive."""

    source: str
    gamma: float
    centres: np.ndarray
    scales: np.ndarray

    def stretch(self, W: np.ndarray | None = None) -> float:
        """An upper bound of the Lipschitz constant of ``k(x) W`` for W (V, m), of ``k(x)`` itself without W.

        The smaller of two. A kernel is a product of features, ``k(x, c) = ⟨φ(x), φ(c)⟩`` with
        ``‖φ(x) − φ(y)‖² = 2 − 2k(x, y) ≤ 2γ‖x − y‖²``, so the constant is at most ``√(2γ ‖WᵀKW‖)`` with the Gram matrix K of the
        centres. And one kernel's slope is at most ``√(2γ/e)``, so it is at most that times ``Σ_i ‖W_i‖``.
        """
        rows = np.diag(self.scales) if W is None else self.scales[:, None] * W.astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1).sum() if W is not None else np.linalg.norm(self.scales)  # a root: rows are apart
        alone = math.sqrt(2 * self.gamma / math.e) * float(lengths)
        if not 0 < min(rows.shape) or max(rows.shape) > _MOST:
            return outward(alone)
        squares = (self.centres**2).sum(axis=1)
        apart = np.maximum(squares[:, None] + squares - 2 * self.centres @ self.centres.T, 0.0)
        G = np.exp(-self.gamma * apart)
        G = self.scales[:, None] * G * self.scales if W is None else rows.T @ G @ rows
        off = _ROUNDING * (1 + 4 * self.gamma * float(squares.max())) * float(np.linalg.norm(np.abs(rows).sum(axis=0))) ** 2
        top = float(np.linalg.eigvalsh((G + G.T) / 2)[-1] if len(G) <= _EIGENVALUES else np.abs(G).sum(axis=1).max())
        return outward(min(alone, math.sqrt(2 * self.gamma * (max(top, 0.0) + off))))


def gaussian_kernels(flow: Flow) -> dict[str, GaussianKernels]:
    """Such kernels by the value that holds them, the result of an Exp."""
    found: dict[str, GaussianKernels] = {}
    for node in flow.graph.nodes:
        if node.op == "Exp" and (match := _match(flow, node.inputs[0])) is not None:
            found[node.outputs[0]] = match
    return found


def polynomial_machines(flow: Flow) -> dict[str, str]:
    """Why support vector machines of polynomial kernels have no bound where their input has no range, by the nodes' labels."""
    found = {}
    for proto in flow.graph.model.graph.node:
        given = {a.name: a for a in proto.attribute}
        if proto.op_type in ("SVMClassifier", "SVMRegressor") and "kernel_type" in given and given["kernel_type"].s == b"POLY":
            parameters = list(given["kernel_params"].floats) if "kernel_params" in given else []
            degree = f" of degree {parameters[2]:g}" if len(parameters) > 2 else ""
            label = proto.name or next((o for o in proto.output if o), "")
            found[label] = (
                f"node {label!r}, op {proto.domain}.{proto.op_type}: its polynomial kernel{degree} grows without limit, so it has "
                "no global Lipschitz constant"
            )
    return found


def _match(flow: Flow, name: str) -> GaussianKernels | None:
    """The kernels whose exponent is ``−γ(x·x − 2 x·c + b)``, with the products of rows and centres by a Gemm."""
    times = flow.graph.producers.get(name)
    if times is None or times.op != "Mul":
        return None
    for value, factor in (times.inputs, times.inputs[::-1]):
        gamma, total = flow.constant(factor), flow.graph.producers.get(value)
        if gamma is None or gamma.size != 1 or not float(gamma.ravel()[0]) < 0 or total is None or total.op != "Add":
            continue
        for product, square in (total.inputs, total.inputs[::-1]):
            gemm, x = flow.graph.producers.get(product), _squared_length(flow, square)
            if gemm is not None and gemm.op == "Gemm" and x == gemm.inputs[0]:
                return _made(flow, gemm, -float(gamma.ravel()[0]))
    return None


def _squared_length(flow: Flow, name: str) -> str | None:
    """The value x whose rows' squared lengths ``name`` holds, (N, 1)."""
    total = flow.graph.producers.get(name)
    if total is None or total.op != "ReduceSum" or total.attributes.get("keepdims", 1) != 1 or len(total.inputs) < 2:
        return None
    axes, square = flow.constant(total.inputs[1]), flow.graph.producers.get(total.inputs[0])
    if axes is None or axes.size != 1 or int(axes.ravel()[0]) not in (1, -1) or square is None:
        return None
    return square.inputs[0] if square.op == "Mul" and square.inputs[0] == square.inputs[1] else None


def _made(flow: Flow, gemm: Node, gamma: float) -> GaussianKernels | None:
    matrix, bias = (flow.constant(gemm.inputs[k]) if len(gemm.inputs) > k and gemm.inputs[k] else None for k in (1, 2))
    if matrix is None or matrix.ndim != 2 or gemm.attributes.get("transA", 0):
        return None
    alpha, beta = (float(gemm.attributes.get(k, 1.0)) for k in ("alpha", "beta"))  # type: ignore[arg-type]
    rows = matrix.astype(np.float64) if gemm.attributes.get("transB", 0) else matrix.T.astype(np.float64)
    centres = -alpha / 2 * rows
    given = 0.0 if bias is None else beta * bias.astype(np.float64).reshape(-1)
    scales = np.exp(-gamma * (np.broadcast_to(given, len(centres)) - (centres**2).sum(axis=1)))
    if not np.isfinite(scales).all() or not np.isfinite(centres).all():
        return None
    return GaussianKernels(gemm.inputs[0], gamma, centres, scales)
