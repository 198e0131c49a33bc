"""What a model's graph alone tells: its family, the spectral bound from its weights, and whether measurements respect it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.bounds import closed_forms, spectral_bound
from onnxfim.bounds.architecture import infer_architecture
from onnxfim.graph.graph import Graph
from onnxfim.record.bound import LOG10_ZERO, Architecture, Bound, ClosedForm
from onnxfim.record.decision import Finding
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.runtime.threads import one_blas_thread

Array: TypeAlias = np.ndarray[Any, Any]

#: Gives the bound that is known under a key, or computes it and keeps it under that key.
Remember: TypeAlias = Callable[[str, Callable[[], Bound]], Bound]

#: Part of every key: raise it when a rule changes, so that old figures are computed again.
VERSION = 1

# What float32 outputs and differences may add to a measurement: a violation beyond it is one.
_SLACK = 1e-3


@dataclass(frozen=True)
class GraphReading:
    """Family, bound and closed forms of one graph."""

    architecture: Architecture
    bound: Bound
    closed_forms: tuple[ClosedForm, ...]


def read_graph(
    graph: Graph,
    *,
    input_name: str | None = None,
    output_name: str | None = None,
    logits: bool = True,
    remember: Remember | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> GraphReading:
    """Family and bound of a graph.

    Args:
        graph: The model's graph.
        input_name, output_name: What is audited; the first floating-point ones by default.
        logits: The bound is of the logits before a final Softmax or Sigmoid.
        remember: Where bounds of this file are kept, or None.
        progress: Called with (layers done, layers in all, name).
    """

    def compute() -> Bound:
        return spectral_bound(graph, input_name=input_name, output_name=output_name, logits=logits, progress=progress)

    key = f"{VERSION}|{input_name}|{output_name}|{logits}"
    with one_blas_thread():
        bound = compute() if remember is None else remember(key, compute)
    return GraphReading(infer_architecture(graph), bound, closed_forms(bound))


def with_bounds(
    samples: Sequence[SampleResult], probabilities: dict[int, Array], bound: Bound
) -> tuple[tuple[SampleResult, ...], tuple[Finding, ...]]:
    """Samples with their own bound ``max_k 2p_k(1 − p_k) · L²``, and a finding where a measurement lies above the bound.

    Args:
        samples: Results.
        probabilities: p (K,) of each sample by index.
        bound: The model's bound, with ``log10_lipschitz``.
    """
    if not bound.available or bound.log10_lipschitz is None:
        return tuple(samples), ()
    log_l = bound.log10_lipschitz
    marked, broken = [], []
    for s in samples:
        p = probabilities.get(s.index)
        # Σ_{j≠k} p_j beside p_k: 1 − p_k without cancellation where p is one-hot.
        spread = (
            0.5 if p is None else float(max(2 * p[k] * (p.sum() - p[k] if p[k] < 0.5 else np.delete(p, k).sum()) for k in _top(p)))
        )
        log_spread = math.log10(spread) if spread > 0 else LOG10_ZERO
        mine = max(log_spread + 2 * log_l, LOG10_ZERO)
        marked.append(replace(s, log10_fisher_bound=bound_of(mine)))
        stretch, lam = s.logit_sensitivity, s.lambda_max
        # An estimate may exceed the truth by its noise: its lower end must not lie above the bound; an exact value itself must not.
        if _above(stretch.low, log_l) or _above(lam.low, bound.log10_fisher if bound.log10_fisher is not None else math.inf):
            broken.append(s)
    if not broken:
        return tuple(marked), ()
    worst = broken[0]
    return tuple(marked), (
        Finding(
            "bound-violated",
            "error",
            f"On {len(broken)} samples (first: {worst.index}) the measured sensitivity lies above the upper bound from the weights "
            f"(log10 L = {log_l:.3g}). One of the two is wrong: report this with the model, and trust neither.",
        ),
    )


def bound_of(log10: float) -> Estimate:
    """A sample's own bound as a measure."""
    return Estimate(log10, None, log10, "upper bound", "max 2p(1−p)·L²")


def _top(p: Array) -> list[int]:
    """Classes that can have the largest ``p(1 − p)``: the two most probable."""
    return [int(k) for k in np.argsort(-p)[:2]]


def _above(value: float | None, log_bound: float) -> bool:
    return value is not None and value > 0 and math.log10(value) > log_bound + math.log10(1 + _SLACK)
