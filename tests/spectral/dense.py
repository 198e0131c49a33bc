"""The dense, slow twin of every rule: a small graph is run at many points, and its Jacobian's largest singular value is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxfim.graph.graph import Graph
from onnxfim.spectral import Bound, spectral_bound
from tests.support.tracing import untraced


@dataclass
class Case:
    """A graph of a few nodes from ``x`` (N, *shape) to ``y``; ``exact`` is how far above the dense norm the bound may be."""

    nodes: Sequence[onnx.NodeProto]
    shape: tuple[int, ...]
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    opset: int = 18
    linear: bool = False
    within: float | None = None
    spread: float = 1.0
    input_range: tuple[float, float] | None = None
    output: str = "y"
    fixed_batch: int | None = None


def build(case: Case, *, double: bool, batch: int | str = "N") -> onnx.ModelProto:
    kind, dtype = (TensorProto.DOUBLE, np.float64) if double else (TensorProto.FLOAT, np.float32)
    weights = [
        numpy_helper.from_array(w.astype(dtype) if np.issubdtype(w.dtype, np.floating) else w, name)
        for name, w in case.weights.items()
    ]
    graph = helper.make_graph(
        list(case.nodes), "case", [helper.make_tensor_value_info("x", kind, (batch, *case.shape))],
        [helper.make_tensor_value_info(case.output, kind, None)], weights,
    )  # fmt: skip
    opsets = [helper.make_operatorsetid("", case.opset)]
    opsets += [
        helper.make_operatorsetid(d, v)
        for d, v in {n.domain: 3 if ".ml" in n.domain else 1 for n in case.nodes if n.domain}.items()
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10 if case.opset > 21 else 8)


def bound_of(case: Case) -> Bound:
    model = build(case, double=False, batch=case.fixed_batch or "N")
    return spectral_bound(Graph(model), logits=False, input_range=case.input_range)


def runner(case: Case):
    """The graph as a function of rows; float64 by the reference evaluator, or float32 by ONNX Runtime where that is exact enough."""
    if case.linear or _in_float32(case):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(build(case, double=False).SerializeToString(), options, providers=["CPUExecutionProvider"])
        return lambda X: session.run([case.output], {"x": X.astype(np.float32)})[0].astype(np.float64).reshape(len(X), -1)
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(build(case, double=True))
    return lambda X: np.asarray(evaluator.run([case.output], {"x": X})[0], np.float64).reshape(len(X), -1)


def _in_float32(case: Case) -> bool:
    # the evaluator has none that works, and recurrent operators of some forms only
    alone = ("MaxPool", "LRN", "GlobalLpPool", "LSTM", "GRU", "RNN")
    return any(n.domain or n.op_type in alone for n in case.nodes)


def jacobian(function, x: np.ndarray, step: float) -> np.ndarray:
    """Central differences along every coordinate at once: rows are coordinates."""
    d = x.size
    E = step * np.eye(d).reshape(d, *x.shape)
    Y = function(np.concatenate([x + E, x - E]))
    return (Y[:d] - Y[d:]) / (2 * step)


@untraced()
def largest_norm(case: Case, rng: np.random.Generator, *, climbs: int = 2) -> float:
    """Largest singular value of the Jacobian seen: at a random point, and where steps along its top direction lead."""
    function = runner(case)
    if case.linear:
        return float(np.linalg.norm(jacobian(function, np.zeros(case.shape), 1.0), 2))
    # the reference evaluator computes Erf in float32; a long step bounds the slope of an entrywise function as well
    coarse = _in_float32(case) or any(n.op_type in ("Erf", "Gelu") for n in case.nodes)
    step = 0.2 if any(n.op_type == "MaxPool" for n in case.nodes) else 1e-2 if coarse else 1e-6
    low, high = case.input_range or (-np.inf, np.inf)
    x = np.clip(case.spread * rng.standard_normal(case.shape) * 10.0 ** rng.uniform(-1, 0.7), low, high)
    best = 0.0
    for _ in range(climbs + 1):
        J = jacobian(function, x, step)
        u, s, _ = np.linalg.svd(J, full_matrices=False)
        if s[0] <= best:
            u[:, 0] = rng.standard_normal(u.shape[0])
        best = max(best, float(s[0]))
        x = np.clip(x + rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(-1.5, 0.3) * u[:, 0].reshape(x.shape), low, high)
    return best
