"""What an audit tells of all samples together: aggregates, the per-class table, versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from onnxfim.record.audit import ClassRow
from onnxfim.record.decision import Aggregates
from onnxfim.record.sample import SampleResult, estimate_of
from onnxfim.record.statistics import aggregate
from onnxfim.runtime.providers import runtime_version

MEASURES = ("lambda_max", "lambda_max_calibrated", "trace", "boundary_distance", "logit_sensitivity")

_UNITS = {
    "lambda_max": "nats per squared model input unit",
    "lambda_max_calibrated": "nats per squared model input unit, at the fitted temperature",
    "lambda_max_raw_units": "nats per squared raw input unit",
    "trace": "nats per squared model input unit",
    "boundary_distance": "model input units, L2",
    "logit_sensitivity": "logits per model input unit",
}


def aggregate_of(results: Sequence[SampleResult], measure: str, *, seed: int) -> Aggregates:
    """The four statistics of one measure over the samples that have a value."""
    estimates = [e for r in results if (e := estimate_of(r, measure)) is not None and e.value is not None]
    values = np.array([e.value for e in estimates], np.float64)
    lows = np.array([e.value if e.low is None else e.low for e in estimates], np.float64)
    highs = np.array([e.value if e.high is None else e.high for e in estimates], np.float64)
    return aggregate(values, lows, highs, seed=seed, units=_UNITS[measure])


def all_aggregates(results: Sequence[SampleResult], *, seed: int) -> dict[str, Aggregates]:
    """Statistics of every measure that the samples have."""
    raw = ("lambda_max_raw_units",) if any(r.lambda_max_raw_units is not None for r in results) else ()
    return {m: aggregate_of(results, m, seed=seed) for m in (*MEASURES, *raw)}


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
