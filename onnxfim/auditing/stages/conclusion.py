"""The conclusion: what all stages found, as one audit."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.input_kinds import input_kind
from onnxfim.auditing.instruments import scale_field
from onnxfim.auditing.pictures import PICTURED, InputsByIndex, thumbnails
from onnxfim.auditing.report_identity import identity_of
from onnxfim.auditing.served_answers import changed_meanwhile, traffic_times
from onnxfim.auditing.stages import stage
from onnxfim.auditing.stages.unmeasurable import no_slope_seen
from onnxfim.auditing.step_bias import with_step_bias
from onnxfim.auditing.summary import all_aggregates, class_rows, custom_libraries, package_versions
from onnxfim.record.audit import Audit, ClassRow, Thumbnail
from onnxfim.record.audited_from import INPUT_UNIT, RAW_UNIT, in_units_of
from onnxfim.record.bound import Bound
from onnxfim.record.data_info import DataInfo, ScalingCheck
from onnxfim.record.decision import Aggregates
from onnxfim.record.measures import BY_NAME, MEASURES
from onnxfim.record.placed import Placed
from onnxfim.record.provider_option import ProviderOption
from onnxfim.record.redacting import pairs_without_secrets, value_without_secrets
from onnxfim.record.running import UNMEASURED, UNREACHED, Run
from onnxfim.record.sample import Estimate, SampleResult, Skipped
from onnxfim.record.steps import ClippedRange
from onnxfim.runtime.installation import installed
from onnxfim.runtime.providers import CPU, available_providers
from onnxfim.slopes.spread import pooled_deviation
from onnxfim.verdict.judge import judge

if TYPE_CHECKING:
    from onnxfim.spectral.reading import GraphReading

Array: TypeAlias = np.ndarray[Any, Any]


_BLOCK = 256  # samples whose spreads are taken together
_ONE_ROW = 1e-5  # of the outputs' scale: what a row may differ by from itself in calls of one shape


@stage("concluding")
def conclude(
    ground: Ground, found: Found, reading: GraphReading | None, started: float, scaling: ScalingCheck | None = None
) -> Audit:
    """The audit.

    Args:
        ground: The audit's ground.
        found: What was measured.
        reading: What the graph says, or None.
        started: When the audit began, by `time.perf_counter`.
        scaling: Whether the inputs are in the model's units, or None where that was not checked.
    """
    ground.say("concluding")
    found = _all_told(ground, found)
    samples = told_samples(ground, found, None if reading is None else reading.bound)
    draft = drafted(ground, found, reading, scaling)
    # All that may fail comes before the record of the run, which tells of it.
    aggregates, classes, pictures = (
        _aggregates(ground, draft, samples),
        _classes(ground, draft, samples),
        _pictures(ground, samples),
    )
    run = run_info(ground, found, time.perf_counter() - started)
    whole = replace(
        draft, run=run, samples=samples, aggregates=aggregates, classes=classes, thumbnails=pictures,
        skipped=in_order(found.skipped), gradient=found.gradient, directions=found.pictures,
        direction_summary=found.direction_summary, attack=found.attack, verifier=found.verifier,
    )  # fmt: skip
    return judge(whole)


def drafted(ground: Ground, found: Found, reading: GraphReading | None, scaling: ScalingCheck | None) -> Audit:
    """The audit as far as it is known before a sample is measured; what is missing is empty, and its verdict inconclusive.

    Args:
        ground: The audit's ground.
        found: How samples are measured; nothing was measured yet.
        reading: What the graph says, or None.
        scaling: Whether the inputs are in the model's units, or None where that was not checked.
    """
    run = run_info(ground, found, 0.0)
    return Audit(
        model=replace(ground.subject.info, doubt=ground.subject.doubt, no_slope=_no_slope(ground)),
        data=replace(data_info(ground), scaling=scaling),
        settings=replace(ground.settings, provider_options=pairs_without_secrets(ground.settings.provider_options)),
        run=run,
        step=replace(ground.step, clipped=_clipped(ground)),
        calibration=ground.calibration,
        aggregates={},
        samples=(),
        skipped=in_order(found.skipped),
        findings=(),
        verdict="inconclusive",
        gradient=found.gradient,
        architecture=None if reading is None else reading.architecture,
        bound=None if reading is None else reading.bound,
        closed_forms=() if reading is None else reading.closed_forms,
        rows=ground.rows,
        units=in_units_of(ground.subject.info.at, BY_NAME["lambda_max"].units),
        identity=identity_of(ground, run.custom_libraries),
    )


def told_samples(ground: Ground, found: Found, bound: Bound | None) -> tuple[SampleResult, ...]:
    """The results as the audit tells them: with their own bounds, and exact only where rows have one answer."""
    samples: tuple[SampleResult, ...] = tuple(found.in_order)
    if ground.rows is not None and max(ground.rows.identical, ground.rows.neighbours or 0.0) > _ONE_ROW * ground.rows.scale:
        samples = tuple(_not_exact(s) for s in samples)
    return samples if bound is None else _bounded(ground, samples, bound)


def in_order(skipped: Iterable[Skipped]) -> tuple[Skipped, ...]:
    """Skipped samples in the order of the data."""
    return tuple(sorted(skipped, key=lambda s: s.index))


def _all_told(ground: Ground, found: Found) -> Found:
    """What was found, with every sample that an early end left out among the skipped ones."""
    if not found.interrupted:
        return found
    skipped = {s.index: s for s in (*ground.clean.skipped, *found.skipped)}
    done = {r.index for r in found.results.values()} | set(skipped)
    reason = UNMEASURED if found.stopped is None else UNREACHED
    left = (ground.index(i) for i in ground.clean.audited)
    return replace(found, skipped=(*skipped.values(), *(Skipped(i, reason) for i in left if i not in done)))


@stage("bounding the samples", small=True, instead=lambda ground, reason, samples, bound: samples)
def _bounded(ground: Ground, samples: tuple[SampleResult, ...], bound: Bound) -> tuple[SampleResult, ...]:
    """The samples with bounds of their own."""
    from onnxfim.spectral.reading import with_bounds  # here, as where the reading is made

    return with_bounds(
        samples, _spreads(ground), bound, formula=ground.reader.spread_formula,
        log10_largest_spread=ground.reader.log10_largest_spread,
    )  # fmt: skip


@stage("taking statistics", small=True, instead=lambda ground, reason, draft, samples: aggregates_of(draft, ()))
def _aggregates(ground: Ground, draft: Audit, samples: tuple[SampleResult, ...]) -> dict[str, Aggregates]:
    return aggregates_of(draft, samples)


def aggregates_of(draft: Audit, samples: tuple[SampleResult, ...]) -> dict[str, Aggregates]:
    """Statistics over the samples of an audit."""
    found = all_aggregates(samples, seed=draft.settings.seed)
    if samples:
        found = dict(with_step_bias(found, draft.step, draft.run.method))
    return {name: replace(a, units=_units(draft, name, a.units)) for name, a in found.items()}


def _units(draft: Audit, measure: str, units: str) -> str:
    """What values of a measure are in, in an audit."""
    if draft.settings.raw and BY_NAME[measure].raw:
        return units.replace(INPUT_UNIT, RAW_UNIT)
    return in_units_of(draft.model.at, units)


@stage("telling the classes", small=True, instead=lambda ground, reason, draft, samples: ())
def _classes(ground: Ground, draft: Audit, samples: tuple[SampleResult, ...]) -> tuple[ClassRow, ...]:
    return classes_of(draft, samples)


def classes_of(draft: Audit, samples: tuple[SampleResult, ...]) -> tuple[ClassRow, ...]:
    """The per-class table of an audit."""
    return tuple(class_rows(samples, labelled=draft.data.labels, names=draft.data.class_names))


@stage("picturing the samples", small=True, instead=lambda ground, reason, samples: ())
def _pictures(ground: Ground, samples: tuple[SampleResult, ...]) -> tuple[Thumbnail, ...]:
    """Small pictures of the inputs; none where it is to end at once."""
    kind = input_kind(ground)
    if ground.meter.stop.hurried or kind not in PICTURED:
        return ()
    return thumbnails(samples, InputsByIndex(ground), kind)


def _not_exact(sample: SampleResult) -> SampleResult:
    """The sample without the claim that its values are exact: the model answers one row in several ways."""
    measured = {m.name: getattr(sample, m.name) for m in MEASURES}
    changed: dict[str, Any] = {
        name: replace(e, kind="estimate", method=f"{e.method}, of rows that disagree")
        for name, e in measured.items()
        if isinstance(e, Estimate) and e.kind == "exact"
    }
    return replace(sample, **changed)


def _no_slope(ground: Ground) -> str | None:
    """Why the outputs have no slope, from the graph or from the values."""
    seen = "small steps change no output, larger ones make it jump" if no_slope_seen(ground) else None
    return ground.subject.info.no_slope or seen


def run_info(ground: Ground, found: Found, seconds: float) -> Run:
    """How the audit was run, and what it took."""
    report, settings = ground.report, ground.settings
    return Run(
        provider=ground.provider,
        providers_requested=settings.providers,
        providers_registered=() if report is None else report.registered,
        providers_available=() if report is None else available_providers(),
        provider_reason=None if report is None else report.reason,
        method=found.method,
        step=ground.step.step,
        scheme=found.scheme or ground.step.scheme,
        temperature=ground.calibration.temperature,
        seed=settings.seed,
        evaluations=ground.meter.passes,
        seconds=seconds,
        versions=package_versions(),
        platform=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        partial=found.interrupted,
        provider_missed=report is not None and report.explicit,
        provider_options=() if report is None else tuple(_kept_option(ProviderOption(**vars(o))) for o in report.options),
        provider_plugin=None if report is None else report.plugin,
        tf32_doubt=None if report is None else report.tf32_doubt,
        provider_remedy=None if report is None else report.remedy,
        installation=None if report is None or (mixture := installed().mixture) is None else str(mixture),
        placement=None if report is None or report.placement is None else tuple(Placed(**vars(p)) for p in report.placement.placed),
        stopped=found.stopped,
        interrupted_by=found.interrupted_by,
        custom_libraries=custom_libraries(settings.custom_op_libraries),
        failed_stages=tuple(ground.faults.stages),
        model_changed=(ground.subject.file is not None and ground.subject.file.changed) or changed_meanwhile(ground, found),
        times=_times(ground, seconds, whole=not found.interrupted),
    )


def _kept_option(option: ProviderOption) -> ProviderOption:
    """The option as reports have it: a secret is not in them."""
    running = None if option.running is None else value_without_secrets(option.key, option.running)
    return replace(option, value=value_without_secrets(option.key, option.value), running=running)


def _times(ground: Ground, seconds: float, *, whole: bool) -> dict[str, Any]:
    """What depends on the clock, and on what was measured before."""
    meter, memory = ground.meter, ground.memory
    rate = (meter.passes - meter.cached) / max(seconds, 1e-9)
    times: dict[str, Any] = {"batch": ground.subject.forward.batch, "rows_per_second": rate}
    if ground.hardware is not None and ground.provider == CPU:
        times["spinning"] = ground.hardware.spinning
    memory.close(whole=whole)  # some disks tell only now that they are full
    if memory.used:
        times |= {"cached_rows": meter.cached, "cache_damaged": memory.damaged, "cache_trouble": memory.trouble}
    return times | traffic_times(ground)


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
        class_names=samples.class_names or ground.subject.classes,
        input_min=float(X.min()),
        input_max=float(X.max()),
        input_std=pooled_deviation(X, range(len(X))),
        labelled=0 if samples.labels is None else len(ground.clean.usable),
        chance=_chance(ground),
        classes_guessed=samples.classes_guessed,
        feature_names=_feature_names(ground),
        input_kind=input_kind(ground),
        apart=() if ground.subject.info.at is not None else _apart(X, scale_field(ground.settings.input_scale, X.shape[1:])),
    )


def _feature_names(ground: Ground) -> tuple[str, ...] | None:
    """Names of the numbers of what is audited; none where that is not the input that the names were given for."""
    names = ground.samples.feature_names
    return names if names is not None and len(names) == ground.dimension else None


def _apart(X: Array, scale: Array | None) -> tuple[float, ...]:
    """How far each sample (N, *shape) lies from the first, L2 in raw units: no shift, order of axes or scale changes it."""
    first, unit = X[0].astype(np.float64), 1.0 if scale is None else scale
    return tuple(float(f"{np.linalg.norm((x - first) / unit):.6g}") for x in X)


def _chance(ground: Ground) -> float | None:
    """Accuracy of predictions that tell nothing about the labels: the agreement that the shares of the classes alone give.

    It is 1/K at least; labels of a single class leave no other.

    Source: Cohen (1960), Educational and Psychological Measurement 20(1).
    """
    labels = ground.samples.labels
    if labels is None or not ground.reader.has_classes or ground.base.shape[2] != 1:
        return None
    usable, classes = ground.clean.usable, max(ground.base.shape[1], 2)
    if not len(usable):
        return None
    given = np.bincount(labels[usable], minlength=classes) / len(usable)
    predicted = np.bincount(ground.reader.predictions(ground.base[usable]), minlength=classes) / len(usable)
    return 1 / classes if given.max() == 1 else max(1 / classes, float(given @ predicted))


def _spreads(ground: Ground) -> dict[int, float]:
    """log10 of the largest eigenvalue of C at each sample, by index; none of outputs with positions."""
    if ground.base.shape[2] != 1:
        return {}
    measured = np.intersect1d(ground.clean.audited, ground.clean.usable).tolist()
    blocks = [measured[start : start + _BLOCK] for start in range(0, len(measured), _BLOCK)]
    found = [value for block in blocks for value in ground.reader.log10_spreads(ground.base[block]).tolist()]
    return dict(zip(map(ground.index, measured), found, strict=True))


def _clipped(ground: Ground) -> ClippedRange | None:
    """How many coordinates of the audited samples lie within a step of an end of the range that the file tells apart."""
    limits, step = ground.subject.limits, ground.step
    if limits is None or step.scheme != "dithered":
        return None
    low, high = limits
    reach = step.step + (step.dither or 0.0)
    near = [float(np.mean((ground.X[i] < low + reach) | (ground.X[i] > high - reach))) for i in ground.clean.audited]
    return ClippedRange(low, high, float(np.mean(near)))
