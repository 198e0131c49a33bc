"""What a model's graph alone tells: its family, the spectral bound from its weights, and what that leaves for each sample."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.bounds import cached_bound, closed_forms, spectral_bound
from onnxfim.bounds.architecture import infer_architecture
from onnxfim.graph.graph import Graph
from onnxfim.record.bound import LOG10_ZERO, Architecture, Bound, ClosedForm
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.runtime.threads import one_blas_thread

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class GraphReading:
    """Family, bound and closed forms of one graph."""

    architecture: Architecture
    bound: Bound
    closed_forms: tuple[ClosedForm, ...]


def read_graph(
    graph: Graph,
    sha256: str,
    *,
    input_name: str | None = None,
    output_name: str | None = None,
    logits: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> GraphReading:
    """Family and bound of a graph.

    Args:
        graph: The model's graph.
        sha256: Hash of the file, the cache's key.
        input_name, output_name: What is audited; the first floating-point ones by default.
        logits: The bound is of the logits before a final Softmax or Sigmoid.
        cache_dir: Folder to keep bounds in, or None.
        progress: Called with (layers done, layers in all, name).
    """

    def compute() -> Bound:
        return spectral_bound(graph, input_name=input_name, output_name=output_name, logits=logits, progress=progress)

    variant = f"{input_name}|{output_name}|{logits}"
    with one_blas_thread():
        bound = compute() if cache_dir is None else cached_bound(sha256, compute, cache_dir, variant=variant)
    return GraphReading(infer_architecture(graph), bound, closed_forms(bound))


def with_bounds(samples: Sequence[SampleResult], probabilities: dict[int, Array], bound: Bound) -> tuple[SampleResult, ...]:
    """Samples with their own bound ``max_k 2p_k(1 − p_k) · L²``.

    Args:
        samples: Results.
        probabilities: p (K,) of each sample by index.
        bound: The model's bound, with ``log10_lipschitz``.
    """
    if not bound.available or bound.log10_lipschitz is None:
        return tuple(samples)
    log_l = bound.log10_lipschitz
    marked = []
    for s in samples:
        p = probabilities.get(s.index)
        # Σ_{j≠k} p_j beside p_k: 1 − p_k without cancellation where p is one-hot.
        spread = (
            0.5 if p is None else float(max(2 * p[k] * (p.sum() - p[k] if p[k] < 0.5 else np.delete(p, k).sum()) for k in _top(p)))
        )
        log_spread = math.log10(spread) if spread > 0 else LOG10_ZERO
        mine = max(log_spread + 2 * log_l, LOG10_ZERO)
        marked.append(replace(s, log10_fisher_bound=bound_of(mine)))
    return tuple(marked)


def bound_of(log10: float) -> Estimate:
    """A sample's own bound as a measure."""
    return Estimate(log10, None, log10, "upper bound", "max 2p(1−p)·L²")


def _top(p: Array) -> list[int]:
    """Classes that can have the largest ``p(1 − p)``: the two most probable."""
    return [int(k) for k in np.argsort(-p)[:2]]
