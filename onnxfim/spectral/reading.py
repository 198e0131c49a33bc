"""What a model's graph alone tells: its family, the spectral bound from its weights, and what that leaves for each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from onnxfim.graph.flow import Flow
from onnxfim.graph.graph import Graph
from onnxfim.record.bound import LOG10_ZERO, Architecture, Bound, ClosedForm
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.record.shown import Carded
from onnxfim.runtime.threads import one_blas_thread
from onnxfim.spectral import closed_forms, spectral_bound
from onnxfim.spectral.architecture import infer_architecture
from onnxfim.spectral.prepared import prepared_view

#: Gives the bound that is known under a key, or computes it and keeps it under that key.
Remember: TypeAlias = Callable[[str, Callable[[], Bound]], Bound]

#: Why there is no bound where a file holds probabilities alone.
NO_LOGITS = (
    "the outputs are probabilities whose logits cannot be read: the Fisher information divides by them, so that a bound of their "
    "own slope is none of it"
)
#: Part of every key: raise it when a rule changes, so that old figures are computed again.
VERSION = 5


@dataclass(frozen=True)
class GraphReading(Carded):
    """Family, bound and closed forms of one graph."""

    architecture: Architecture
    bound: Bound
    closed_forms: tuple[ClosedForm, ...]


def read_graph(
    graph: Graph | Flow,
    *,
    input_name: str | None = None,
    output_name: str | None = None,
    logits: bool = True,
    remember: Remember | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> GraphReading:
    """Family and bound of a graph.

    Args:
        graph: The model's graph, or its view by `prepared_view`.
        input_name, output_name: What is audited; the first floating-point ones by default.
        logits: The bound is of the value before a final Softmax, LogSoftmax or Sigmoid, whose slopes are taken as logits; False
            where the outputs are not read as what that activation makes.
        remember: Where bounds of this file are kept, or None.
        progress: Called with (layers done, layers in all, name).
    """

    def compute() -> Bound:
        return spectral_bound(view, output_name=output_name, logits=logits, progress=progress)

    key = f"{VERSION}|{input_name}|{output_name}|{logits}"
    view = prepared_view(graph, input_name)
    with one_blas_thread():
        bound = compute() if remember is None else remember(key, compute)
    return GraphReading(infer_architecture(view), bound, closed_forms(bound))


def without(bound: Bound, why: str) -> Bound:
    """No bound, for another quantity than the one that was bounded is asked for; its table of layers stays."""
    return replace(bound, available=False, reason=why, log10_lipschitz=None, log10_fisher=None, shares=())


def bound_for(bound: Bound, log10_largest_spread: float) -> Bound:
    """The bound for outputs with ``F = JᵀCJ`` and ``‖C‖`` up to a limit: ``½L²`` holds up to ½, as of softmax and sigmoid."""
    if bound.log10_lipschitz is None or bound.log10_fisher is None or log10_largest_spread <= math.log10(0.5):
        return bound
    fisher = max(math.nextafter(log10_largest_spread + 2 * bound.log10_lipschitz, math.inf), LOG10_ZERO)
    return replace(bound, log10_fisher=fisher if math.isfinite(fisher) else None)


def with_bounds(
    samples: Sequence[SampleResult], log10_spreads: Mapping[int, float], bound: Bound, *, log10_largest_spread: float, formula: str
) -> tuple[SampleResult, ...]:
    """Samples with their own bound ``‖C(p)‖ · L²``.

    Args:
        samples: Results.
        log10_spreads: log10 of the largest eigenvalue of C, ``F = JᵀCJ``, at each sample by index.
        bound: The model's bound, with ``log10_lipschitz``.
        log10_largest_spread: The same at any outputs, for samples that ``log10_spreads`` lacks.
        formula: The bound in symbols.
    """
    if not bound.available or bound.log10_lipschitz is None:
        return tuple(samples)
    log_l = bound.log10_lipschitz
    marked = []
    for s in samples:
        mine = max(log10_spreads.get(s.index, log10_largest_spread) + 2 * log_l, LOG10_ZERO)
        marked.append(replace(s, log10_fisher_bound=bound_of(mine, formula)))
    return tuple(marked)


def bound_of(log10: float, formula: str = "max 2p(1−p)·L²") -> Estimate:
    """A sample's own bound as a measure."""
    if not math.isfinite(log10):
        return Estimate(None, reason="the outputs' own spread has no upper bound")
    return Estimate(log10, None, log10, "upper bound", formula)
