"""The conclusion: what all stages found, as one audit."""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.pictures import thumbnails
from onnxfim.auditing.stages import stage
from onnxfim.auditing.stages.choosing import deviation
from onnxfim.auditing.step_bias import with_step_bias
from onnxfim.auditing.summary import all_aggregates, class_rows, package_versions
from onnxfim.record.audit import Audit, ClippedRange, DataInfo, Run
from onnxfim.record.sample import SampleResult
from onnxfim.spectral.reading import GraphReading, with_bounds
from onnxfim.verdict.judge import judge

Array: TypeAlias = np.ndarray[Any, Any]


@stage("concluding")
def conclude(ground: Ground, found: Found, reading: GraphReading | None, started: float) -> Audit:
    """The audit.

    Args:
        ground: The audit's ground.
        found: What was measured.
        reading: What the graph says, or None.
        started: When the audit began, by `time.perf_counter`.
    """
    samples: tuple[SampleResult, ...] = tuple(found.in_order)
    if reading is not None:
        samples = with_bounds(
            samples, _spreads(ground), reading.bound, formula=ground.reader.spread_formula,
            log10_largest_spread=ground.reader.log10_largest_spread,
        )  # fmt: skip
    data = data_info(ground)
    measured = Audit(
        model=replace(ground.subject.info, doubt=ground.subject.doubt),
        data=data,
        settings=ground.settings,
        run=run_info(ground, found, time.perf_counter() - started),
        step=replace(ground.step, clipped=_clipped(ground)),
        calibration=ground.calibration,
        aggregates=with_step_bias(all_aggregates(samples, seed=ground.settings.seed), ground.step, found.method),
        samples=samples,
        skipped=tuple(sorted(found.skipped, key=lambda s: s.index)),
        findings=(),
        verdict="inconclusive",
        classes=tuple(class_rows(samples, labelled=data.labels, names=data.class_names)),
        thumbnails=thumbnails(samples, {ground.index(i): ground.X[i] for i in ground.clean.audited}),
        gradient=found.gradient,
        directions=found.pictures,
        attack=found.attack,
        architecture=None if reading is None else reading.architecture,
        bound=None if reading is None else reading.bound,
        closed_forms=() if reading is None else reading.closed_forms,
    )
    return judge(measured)


def run_info(ground: Ground, found: Found, seconds: float) -> Run:
    """How the audit was run, and what it took."""
    report, settings = ground.report, ground.settings
    return Run(
        provider=ground.provider,
        providers_requested=settings.providers,
        providers_registered=() if report is None else report.registered,
        provider_reason=None if report is None else report.reason,
        method=found.method,
        step=ground.step.step,
        scheme=ground.step.scheme,
        temperature=ground.calibration.temperature,
        seed=settings.seed,
        evaluations=ground.meter.passes,
        seconds=seconds,
        versions=package_versions(),
        platform=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        partial=found.interrupted,
        provider_missed=report is not None and report.explicit,
        times=_times(ground, seconds),
    )


def _times(ground: Ground, seconds: float) -> dict[str, Any]:
    """What depends on the clock, and on what was measured before."""
    meter, memory = ground.meter, ground.memory
    rate = (meter.passes - meter.cached) / max(seconds, 1e-9)
    times: dict[str, Any] = {"batch": ground.subject.forward.batch, "rows_per_second": rate}
    if memory.used:
        times |= {"cached_rows": meter.cached, "cache_damaged": memory.damaged, "cache_trouble": memory.trouble}
    return times


def data_info(ground: Ground) -> DataInfo:
    """What the model was audited on."""
    X, samples = ground.X, ground.samples
    return DataInfo(
        source=samples.source,
        sha256=samples.sha256,
        count=len(X),
        shape=tuple(int(n) for n in X.shape[1:]),
        labels=samples.labels is not None,
        synthetic=samples.synthetic,
        class_names=samples.class_names,
        input_min=float(X.min()),
        input_max=float(X.max()),
        input_std=deviation(X, range(len(X))),
    )


def _spreads(ground: Ground) -> dict[int, float]:
    """log10 of the largest eigenvalue of C at each sample, by index; none of outputs with positions."""
    if ground.base.shape[2] != 1:
        return {}
    return {ground.index(i): ground.reader.log10_spread(ground.base[i]) for i in ground.clean.audited}


def _clipped(ground: Ground) -> ClippedRange | None:
    """How many coordinates of the audited samples lie within a step of an end of the range that the file tells apart."""
    limits, step = ground.subject.limits, ground.step
    if limits is None or step.scheme != "dithered":
        return None
    low, high = limits
    reach = step.step + (step.dither or 0.0)
    near = [float(np.mean((ground.X[i] < low + reach) | (ground.X[i] > high - reach))) for i in ground.clean.audited]
    return ClippedRange(low, high, float(np.mean(near)))
