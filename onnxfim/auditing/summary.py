"""What an audit tells of all samples together: aggregates, the per-class table, versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from onnxfim.record.audit import ClassRow
from onnxfim.record.decision import Aggregates
from onnxfim.record.measures import BY_NAME, gated
from onnxfim.record.sample import SampleResult, estimate_of
from onnxfim.record.statistics import aggregate
from onnxfim.runtime.providers import runtime_version


def aggregate_of(results: Sequence[SampleResult], measure: str, *, seed: int) -> Aggregates:
    """The four statistics of one measure over the samples that have a value."""
    estimates = [e for r in results if (e := estimate_of(r, measure)) is not None and e.value is not None]
    values = np.array([e.value for e in estimates], np.float64)
    lows = np.array([e.value if e.low is None else e.low for e in estimates], np.float64)
    highs = np.array([e.value if e.high is None else e.high for e in estimates], np.float64)
    return aggregate(values, lows, highs, seed=seed, units=BY_NAME[measure].units)


def all_aggregates(results: Sequence[SampleResult], *, seed: int) -> dict[str, Aggregates]:
    """Statistics of every measure that the samples have."""
    had = [m.name for m in gated() if not m.optional or any(m.of(r) is not None for r in results)]
    return {name: aggregate_of(results, name, seed=seed) for name in had}


def class_rows(results: Sequence[SampleResult], *, labelled: bool, names: tuple[str, ...] | None) -> Iterator[ClassRow]:
    """The per-class table of the audited samples, by label or, without labels, by prediction."""
    groups: dict[int, list[SampleResult]] = {}
    for r in results:
        c = r.label if labelled else r.prediction
        if c is not None and r.prediction is not None:
            groups.setdefault(c, []).append(r)
    for c, mine in sorted(groups.items()):
        yield ClassRow(
            index=c,
            name=names[c] if names is not None and c < len(names) else str(c),
            count=len(mine),
            accuracy=sum(r.prediction == r.label for r in mine) / len(mine) if labelled else None,
            mean_confidence=float(np.mean([r.confidence or 0.0 for r in mine])),
            lambda_max_mean=_mean(mine, "lambda_max"),
            lambda_max_calibrated_mean=_mean(mine, "lambda_max_calibrated"),
            boundary_distance_median=_median(mine, "boundary_distance"),
        )


def _values(results: Sequence[SampleResult], measure: str) -> list[float]:
    return [e.value for r in results if (e := estimate_of(r, measure)) is not None and e.value is not None]


def _mean(results: Sequence[SampleResult], measure: str) -> float | None:
    values = _values(results, measure)
    return float(np.mean(values)) if values else None


def _median(results: Sequence[SampleResult], measure: str) -> float | None:
    values = _values(results, measure)
    return float(np.median(values)) if values else None


def package_versions() -> dict[str, str]:
    """Versions of what computed the result."""
    found = {"onnxruntime": runtime_version()}
    for package in ("onnxfim", "onnx", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
