"""What an audit tells of all samples together: aggregates, the per-class table, versions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from onnxfim.record.audit import ClassRow
from onnxfim.record.decision import Aggregates
from onnxfim.record.measures import BY_NAME, gated
from onnxfim.record.running import CustomLibrary
from onnxfim.record.sample import Estimate, Kind, SampleResult, estimate_of, own_interval
from onnxfim.record.statistics import aggregate
from onnxfim.runtime.providers import runtime_version


def aggregate_of(results: Sequence[SampleResult], measure: str, *, seed: int) -> Aggregates:
    """The statistics of one measure over the samples that have a value, or on which a search for one found nothing."""
    told = BY_NAME[measure]
    estimates = [e for r in results if (e := estimate_of(r, measure)) is not None and e.value is not None]
    if told.of_what_was_certified and estimates:  # a sample on which nothing was certified has a guarantee of 0 beside the others
        asked = (told.of(r) for r in results)
        estimates = [replace(e, value=e.value or 0.0) for e in asked if e is not None]
    values = np.array([e.value for e in estimates], np.float64)
    ends = [_ends(e, told.own_bounds) for e in estimates]
    lows, highs = np.array(ends, np.float64).reshape(-1, 2).T
    shifted = values * np.array([e.at_temperatures or (1.0, 1.0) for e in estimates], np.float64).T
    return aggregate(
        values, lows, highs, seed=seed, units=told.units, noisy=np.array([e.kind == "estimate" for e in estimates]),
        shifted=shifted if any(e.at_temperatures for e in estimates) else None, kind=told.kind or _kind(estimates),
        unfound=sum(_searched_in_vain(told.of(r)) for r in results) if told.of_what_was_found else 0,
    )  # fmt: skip


def _searched_in_vain(estimate: Estimate | None) -> bool:
    """Whether a search spent passes on a sample and found nothing; one that an interrupt left out was not searched."""
    return estimate is not None and estimate.value is None and estimate.evaluations > 0


def _ends(estimate: Estimate, itself: bool) -> tuple[float, float]:
    """The ends of an estimate's own interval; infinite where a bound has none, the value where another one has none.

    What a search found, or what was certified, has ``itself`` for both ends: it is a number without error, and what lies beyond it
    is another question.
    """
    value = estimate.value or 0.0
    if itself:
        return value, value
    low, high = own_interval(estimate)
    missing_low = -math.inf if estimate.kind == "upper bound" else value
    missing_high = math.inf if estimate.kind == "lower bound" else value
    return missing_low if low is None else low, missing_high if high is None else high


def _kind(estimates: Sequence[Estimate]) -> Kind:
    """What a statistic of these is: a bound where any of them is one, of one kind where all are, else an estimate."""
    kinds = {e.kind for e in estimates}
    for bound in ("lower bound", "upper bound"):
        if bound in kinds and not kinds & {"lower bound", "upper bound"} - {bound}:
            return bound
    return next(iter(kinds)) if len(kinds) == 1 else "kinked" if kinds == {"exact", "kinked"} else "estimate"


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
    return {"onnxruntime": runtime_version()} | {name: _version(name) for name in ("onnxfim", "onnx", "numpy", "scipy")}


@cache
def _version(package: str) -> str:
    """The version that is installed; it is looked up on disk, which takes a millisecond."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def custom_libraries(paths: Sequence[str]) -> tuple[CustomLibrary, ...]:
    """Libraries of custom operators with the hashes of their files."""
    found = []
    for path in paths:
        try:
            found.append(CustomLibrary(path, hashlib.sha256(Path(path).read_bytes()).hexdigest()))
        except OSError:
            found.append(CustomLibrary(path, None))
    return tuple(found)
