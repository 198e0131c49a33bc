"""The page's data: every text, number and coordinate that the template prints, computed from an Audit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from onnxfim.report import charts, words
from onnxfim.report.charts import NARROW, WIDE, Chart, Figure, Panel
from onnxfim.report.numbers import MISSING, count, interval, number, percent, percent_interval, seconds, size, visible
from onnxfim.report.pictures import display_size, png
from onnxfim.report.words import Notice, Source, Statement
from onnxfim.results import Aggregate, Aggregates, Audit, ClassRow, Estimate, Finding, SampleResult, Thumbnail

MOST_ROWS = 200
MOST_SKIPPED = 50
MOST_CLASSES = 100
EXTREMES = 6

Picture = Callable[[int, bytes], str]


@dataclass(frozen=True)
class Quantity:
    """A printed number with its interval, its kind, and the reason where it is missing."""

    text: str
    interval: str | None = None
    kind: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Tile:
    """A key number."""

    label: str
    quantity: Quantity
    note: str
    series: str = ""


@dataclass(frozen=True)
class StatisticRow:
    """One measure's mean, median, 95th percentile and maximum."""

    label: str
    units: str
    count: str
    cells: tuple[Quantity, ...]
    series: str = ""


@dataclass(frozen=True)
class Item:
    """A finding as printed."""

    id: str
    level: str
    word: str
    message: str


@dataclass(frozen=True)
class ClassLine:
    """A class as printed; ``share`` is its bar's length of 100."""

    name: str
    count: str
    accuracy: str
    confidence: str
    raw: str
    calibrated: str
    distance: str
    share: float


@dataclass(frozen=True)
class PictureView:
    """A picture of an input: where it is, how large it is shown, and its text alternative."""

    source: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class SampleCard:
    """One of the most or least sensitive samples."""

    index: int
    name: str
    picture: PictureView | None
    label: str | None
    prediction: str | None
    wrong: bool
    confidence: str
    value: Quantity
    distance: Quantity


@dataclass(frozen=True)
class SampleLine:
    """One sample as a row of the table."""

    index: int
    name: str
    label: str
    prediction: str
    wrong: bool
    confidence: str
    raw: Quantity
    calibrated: Quantity
    trace: Quantity
    rank: str
    distance: Quantity
    sensitivity: Quantity
    evaluations: str


@dataclass(frozen=True)
class Fact:
    """A name and its value; ``level`` is ``error`` where it must stand out."""

    name: str
    value: str
    level: str = ""
    code: bool = False


@dataclass(frozen=True)
class FactGroup:
    """Facts under one heading."""

    title: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class CurveLine:
    """One step of the ladder as printed."""

    step: str
    relative: str
    forward: str
    central: str
    cross: str
    error: str
    unchanged: str
    chosen: bool


@dataclass(frozen=True)
class SkippedLine:
    """A sample that was not audited."""

    index: int
    reason: str


@dataclass(frozen=True)
class Page:
    """All that the report prints, in its order."""

    title: str
    name: str
    summary: str
    notices: tuple[Notice, ...]
    verdict: str
    verdict_word: str
    headline: str
    answers: tuple[Statement, ...]
    tiles: tuple[Tile, ...]
    units: str
    statistics: tuple[StatisticRow, ...]
    statistics_note: str
    example: str | None
    findings: tuple[Item, ...]
    distribution: Figure | None
    distribution_note: str
    curve: Figure | None
    curve_note: str
    curve_lines: tuple[CurveLine, ...]
    scatter: Figure | None
    lead: str
    classes: tuple[ClassLine, ...]
    classes_by: str
    classes_note: str
    worst: tuple[SampleCard, ...]
    best: tuple[SampleCard, ...]
    samples: tuple[SampleLine, ...]
    samples_note: str
    named: bool
    labelled: bool
    skipped: tuple[SkippedLine, ...]
    skipped_note: str
    run: tuple[FactGroup, ...]
    limits: tuple[Statement, ...]
    sources: tuple[Source, ...]
    schema_version: str


def build_page(audit: Audit, picture: Picture) -> Page:
    """Compute the page of ``audit``; ``picture`` takes a sample's index and PNG file and returns where to find it."""
    values = words.lead_values(audit)
    ordered = sorted(audit.samples, key=lambda s: -values.get(s.index, -math.inf))
    measured = [s for s in ordered if s.index in values]
    worst = measured[:EXTREMES]
    best = [s for s in reversed(measured[-EXTREMES:]) if s not in worst]
    name = visible(audit.model.name or audit.model.path)
    return Page(
        title=f"{name}: robustness audit",
        name=name,
        summary=_summary(audit),
        notices=words.notices(audit),
        verdict=audit.verdict,
        verdict_word=words.VERDICT_WORDS[audit.verdict],
        headline=words.headline(audit),
        answers=words.answers(audit),
        tiles=_tiles(audit),
        units=visible(audit.units),
        statistics=tuple(_statistic_row(key, a, audit) for key, a in _in_order(audit.aggregates)),
        statistics_note=_statistics_note(audit),
        example=words.example(audit),
        findings=tuple(_finding(f) for f in sorted(audit.findings, key=lambda f: tuple(_LEVELS).index(f.level))),
        distribution=_figure(lambda width: charts.distribution(_panels(audit), units=visible(audit.units), width=width)),
        distribution_note=_distribution_note(audit),
        curve=_figure(lambda width: charts.step_curve(audit.step, units=visible(audit.units), input_units="input units", width=width)),
        curve_note=_curve_note(audit),
        curve_lines=_curve_lines(audit),
        scatter=_figure(lambda width: charts.scatter(audit.samples, values, series_title=words.lead_name(audit), width=width)),
        lead=words.lead_name(audit),
        classes=_class_lines(audit),
        classes_by="label" if audit.data.labels else "prediction",
        classes_note=_classes_note(audit),
        worst=tuple(_card(s, audit, picture, "Sensitive") for s in worst),
        best=tuple(_card(s, audit, picture, "Insensitive") for s in best),
        samples=tuple(_sample_line(s, audit) for s in ordered[:MOST_ROWS]),
        samples_note=_samples_note(audit),
        named=any(s.name and s.name != str(s.index) for s in audit.samples),
        labelled=audit.data.labels,
        skipped=tuple(SkippedLine(s.index, visible(s.reason)) for s in audit.skipped[:MOST_SKIPPED]),
        skipped_note=_skipped_note(audit),
        run=_run(audit),
        limits=words.LIMITS,
        sources=words.SOURCES,
        schema_version=visible(audit.schema_version),
    )


_LEVELS = {"error": "Error", "warning": "Warning", "note": "Note"}
_MEASURES = {
    "lambda_max": ("λ_max, raw", "raw"),
    "lambda_max_calibrated": ("λ_max, calibrated", "calibrated"),
    "lambda_max_raw_units": ("λ_max, raw, in raw input units", ""),
    "boundary_distance": ("Boundary distance", ""),
    "logit_sensitivity": ("Logit sensitivity ‖J‖₂", ""),
    "trace": ("Trace of the Fisher information", ""),
}


def _finding(finding: Finding) -> Item:
    return Item(visible(finding.id), finding.level, _LEVELS[finding.level], visible(finding.message))


def _in_order(aggregates: Mapping[str, Aggregates]) -> Iterable[tuple[str, Aggregates]]:
    known = [key for key in _MEASURES if key in aggregates]
    return [(key, aggregates[key]) for key in (*known, *sorted(set(aggregates) - set(known)))]


def _figure(chart: Callable[[int], Chart | None]) -> Figure | None:
    wide, narrow = chart(WIDE), chart(NARROW)
    return Figure(wide, narrow) if wide and narrow else None


def _summary(audit: Audit) -> str:
    source = "random inputs" if audit.data.synthetic else visible(audit.data.source)
    return (
        f"{count(len(audit.samples), 'sample')} of {source} · {count(audit.run.evaluations, 'forward pass', 'forward passes')} "
        f"on {visible(audit.run.provider)} in {seconds(audit.run.seconds)}"
    )


def _estimate(estimate: Estimate) -> Quantity:
    if estimate.value is None:
        return Quantity(MISSING, reason=visible(estimate.reason) if estimate.reason else None)
    ends = None if estimate.kind == "exact" else interval(estimate.low, estimate.high)
    return Quantity(number(estimate.value), ends, estimate.kind)


def _aggregate(aggregate: Aggregate) -> Quantity:
    if aggregate.value is None:
        return Quantity(MISSING)
    kind = None if aggregate.confidence == 0.95 else f"{100 * aggregate.confidence:.0f} % interval"
    return Quantity(number(aggregate.value), interval(aggregate.low, aggregate.high), kind)


def _tiles(audit: Audit) -> tuple[Tile, ...]:
    calibration = audit.calibration
    raw, calibrated = audit.aggregates.get("lambda_max"), audit.aggregates.get("lambda_max_calibrated")
    distance, distance_interval = words.median_boundary(audit)
    why = visible(calibration.reason) if calibration.reason else "needs labels"
    return (
        Tile(
            "Mean λ_max, calibrated",
            _aggregate(calibrated.mean) if calibrated and words.has_calibrated(audit) else Quantity(MISSING),
            "the one to compare models by" if words.has_calibrated(audit) else why,
            "calibrated",
        ),
        Tile("Mean λ_max, raw", _aggregate(raw.mean) if raw else Quantity(MISSING), "the published quantity", "raw"),
        Tile("Median boundary distance", Quantity(number(distance), distance_interval), "L2 in model input units, first order"),
        Tile(
            "Clean accuracy",
            Quantity(percent(calibration.accuracy), percent_interval(calibration.accuracy_low, calibration.accuracy_high)),
            why if calibration.accuracy is None else f"mean confidence {percent(calibration.mean_confidence)}",
        ),
        Tile("Temperature", Quantity(number(calibration.temperature)), _temperature_note(audit, why)),
    )


def _temperature_note(audit: Audit, why: str) -> str:
    temperature = audit.calibration.temperature
    if temperature is None:
        return why
    judged = "fits" if 0.9 <= temperature <= 1.1 else "over-confident" if temperature > 1 else "under-confident"
    return f"1 is calibrated; this model {'fits' if judged == 'fits' else 'is ' + judged}"


def _statistic_row(key: str, aggregates: Aggregates, audit: Audit) -> StatisticRow:
    label, series = _MEASURES.get(key, (visible(key), ""))
    cells = tuple(_aggregate(getattr(aggregates, name)) for name in ("mean", "median", "p95", "max"))
    return StatisticRow(label, visible(aggregates.units), f"{aggregates.count:,}", cells, series)


def _statistics_note(audit: Audit) -> str:
    methods = {a.method for g in audit.aggregates.values() for a in (g.mean, g.median, g.p95, g.max) if a.method}
    below = any(a.confidence != 0.95 for g in audit.aggregates.values() for a in (g.mean, g.median, g.p95, g.max))
    tail = " Where so few samples cannot give 95 %, the level that is attained stands beside the interval." if below else ""
    how = f" Intervals: {visible('; '.join(sorted(methods)))}." if methods else ""
    return f"95 % intervals hold both the sampling of the data and the noise of the estimates.{tail}{how}"


def _panels(audit: Audit) -> list[Panel]:
    found = []
    for key in ("lambda_max", "lambda_max_calibrated"):
        estimates = [getattr(s, key).estimate.value for s in audit.samples]
        values = tuple(v for v in estimates if v is not None)
        if values:
            found.append(Panel(_MEASURES[key][1], _MEASURES[key][0], values, audit.aggregates.get(key)))
    return found


def _distribution_note(audit: Audit) -> str:
    values = sorted(words.lead_values(audit).values())
    positive = [v for v in values if v > 0]
    if len(positive) < 2:
        return ""
    decades = math.log10(positive[-1] / positive[0])
    spread = f"From the least to the most sensitive sample, {words.lead_name(audit)} grows by a factor of {number(positive[-1] / positive[0])}."
    return spread + (" So the mean is decided by the right tail." if decades > 1 else "")


def _curve_note(audit: Audit) -> str:
    step = audit.step
    given = "was given" if step.given else "was chosen by the ladder"
    parts = [f"The step r = {number(step.step)} {given}; the scheme is {step.scheme} differences."]
    if step.curve:
        stable = "The value is stable around it (a plateau)." if step.plateau else "There is no plateau around it: the value holds at this scale only."
        parts.append(stable)
    if step.smallest_usable is not None:
        parts.append(f"The smallest step that resolves anything is {number(step.smallest_usable)}.")
    if step.noise_floor is not None:
        parts.append(f"Rounding noise of one output: {number(step.noise_floor)}.")
    parts.append("Repeated calls agree exactly." if step.repeat_noise == 0 else f"Repeated calls differ by {number(step.repeat_noise)}.")
    if step.dither is not None:
        parts.append(f"Points are dithered by ±{number(step.dither)}.")
    if step.curve:
        who = f"{count(len(step.samples), 'sample')}, {count(step.directions, 'direction')} each, "
        parts.append(f"Measured on {who}{count(step.evaluations, 'forward pass', 'forward passes')}.")
    return " ".join(parts)


def _curve_lines(audit: Audit) -> tuple[CurveLine, ...]:
    def shown(value: float | None) -> str:
        return "–" if value is None else number(value)

    return tuple(
        CurveLine(
            number(r.step),
            percent(r.relative_step),
            shown(r.forward),
            shown(r.central),
            shown(r.cross),
            "–" if r.error is None else percent(r.error),
            percent(r.unchanged),
            math.isclose(r.step, audit.step.step, rel_tol=1e-9),
        )
        for r in audit.step.curve
    )


def _class_value(row: ClassRow, audit: Audit) -> float | None:
    return row.lambda_max_calibrated_mean if words.has_calibrated(audit) else row.lambda_max_mean


def _class_lines(audit: Audit) -> tuple[ClassLine, ...]:
    rows = sorted(audit.classes, key=lambda c: -(_class_value(c, audit) or -1.0))[:MOST_CLASSES]
    highest = max((_class_value(c, audit) or 0.0 for c in rows), default=0.0)
    return tuple(
        ClassLine(
            name=visible(c.name),
            count=f"{c.count:,}",
            accuracy="–" if c.accuracy is None else percent(c.accuracy),
            confidence="–" if c.mean_confidence is None else percent(c.mean_confidence),
            raw="–" if c.lambda_max_mean is None else number(c.lambda_max_mean),
            calibrated="–" if c.lambda_max_calibrated_mean is None else number(c.lambda_max_calibrated_mean),
            distance="–" if c.boundary_distance_median is None else number(c.boundary_distance_median),
            share=round(100 * (_class_value(c, audit) or 0.0) / highest, 1) if highest > 0 else 0.0,
        )
        for c in rows
    )


def _classes_note(audit: Audit) -> str:
    by = "label" if audit.data.labels else "predicted class, since there are no labels"
    more = f" The {MOST_CLASSES} most sensitive of {len(audit.classes):,}; the rest is in the JSON." if len(audit.classes) > MOST_CLASSES else ""
    return f"Means of the estimates of the samples with this {by}; a class of few samples has a wide, unprinted interval.{more}"


def _class_name(index: int | None, audit: Audit) -> str | None:
    if index is None:
        return None
    names = audit.data.class_names or ()
    return visible(names[index]) if 0 <= index < len(names) else str(index)


def _wrong(sample: SampleResult) -> bool:
    return sample.label is not None and sample.prediction is not None and sample.label != sample.prediction


def _card(sample: SampleResult, audit: Audit, picture: Picture, how: str) -> SampleCard:
    thumbnail = next((t for t in audit.thumbnails if t.index == sample.index), None)
    sketch = sample.lambda_max_calibrated if words.has_calibrated(audit) else sample.lambda_max
    return SampleCard(
        index=sample.index,
        name=visible(sample.name),
        picture=_picture(thumbnail, picture, f"{how} input: sample {sample.index}") if thumbnail else None,
        label=_class_name(sample.label, audit),
        prediction=_class_name(sample.prediction, audit),
        wrong=_wrong(sample),
        confidence=percent(sample.confidence),
        value=_estimate(sketch.estimate),
        distance=_estimate(sample.boundary_distance),
    )


def _picture(thumbnail: Thumbnail, picture: Picture, alt: str) -> PictureView:
    width, height = display_size(thumbnail)
    return PictureView(picture(thumbnail.index, png(thumbnail)), width, height, alt)


def _sample_line(sample: SampleResult, audit: Audit) -> SampleLine:
    return SampleLine(
        index=sample.index,
        name=visible(sample.name),
        label=_class_name(sample.label, audit) or "–",
        prediction=_class_name(sample.prediction, audit) or "–",
        wrong=_wrong(sample),
        confidence="–" if sample.confidence is None else percent(sample.confidence),
        raw=_estimate(sample.lambda_max.estimate),
        calibrated=_estimate(sample.lambda_max_calibrated.estimate),
        trace=_estimate(sample.trace),
        rank="–" if sample.effective_rank is None else number(sample.effective_rank),
        distance=_estimate(sample.boundary_distance),
        sensitivity=_estimate(sample.logit_sensitivity),
        evaluations=f"{sample.evaluations:,}",
    )


def _samples_note(audit: Audit) -> str:
    total = len(audit.samples)
    if total > MOST_ROWS:
        return f"The {MOST_ROWS} most sensitive of {total:,} samples; all of them are in the JSON of this audit (-o json=report.json)."
    return f"{count(total, 'sample')}, the most sensitive first."


def _skipped_note(audit: Audit) -> str:
    if not audit.skipped:
        return ""
    more = f" The first {MOST_SKIPPED} are listed; the rest is in the JSON." if len(audit.skipped) > MOST_SKIPPED else ""
    return f"{count(len(audit.skipped), 'sample')} could not be audited and {'is' if len(audit.skipped) == 1 else 'are'} in no statistic.{more}"


def _run(audit: Audit) -> tuple[FactGroup, ...]:
    return (_model_facts(audit), _data_facts(audit), _run_facts(audit), _settings_facts(audit), _version_facts(audit))


def _shape(shape: Iterable[int | str | None]) -> str:
    return visible(" × ".join("?" if n is None else str(n) for n in shape))


def _model_facts(audit: Audit) -> FactGroup:
    model = audit.model
    facts = [
        Fact("File", visible(model.path), code=True),
        Fact("SHA-256", visible(model.sha256), code=True),
        Fact("Size", size(model.bytes)),
        Fact("Producer", visible(model.producer) or "not stated"),
        Fact("Opset", "not stated" if model.opset is None else str(model.opset)),
        Fact("Input", f"{visible(model.input)}: {visible(model.input_dtype)}, {_shape(model.input_shape)}"),
        Fact("Output", f"{visible(model.output)}: {count(model.num_outputs, 'output')}" + _positions(model.positions)),
        Fact("Read as", f"{model.output_kind}, {visible(model.read_from)}"),
    ]
    if model.rewritten:
        facts.append(Fact("Copy needed for", visible(model.rewritten)))
    return FactGroup("Model", tuple(facts))


def _positions(positions: int) -> str:
    return f" at {count(positions, 'position')}" if positions > 1 else ""


def _data_facts(audit: Audit) -> FactGroup:
    data = audit.data
    return FactGroup(
        "Data",
        (
            Fact("Source", visible(data.source), code=True),
            Fact("SHA-256", visible(data.sha256), code=True),
            Fact("Samples", f"{len(audit.samples):,} audited, {len(audit.skipped):,} skipped, {data.count:,} given"),
            Fact("Shape of one", _shape(data.shape)),
            Fact("Values", f"{number(data.input_min)} to {number(data.input_max)}, standard deviation {number(data.input_std)}"),
            Fact("Labels", "yes" if data.labels else "no"),
        ),
    )


def _run_facts(audit: Audit) -> FactGroup:
    run = audit.run
    lost = words.fallback(audit) is not None
    facts = [
        Fact("Provider asked for", visible(", ".join(run.providers_requested))),
        Fact("Provider obtained", visible(run.provider), "error" if lost else ""),
    ]
    if run.provider_reason:
        facts.append(Fact("Reason", visible(run.provider_reason), "error" if lost else ""))
    facts += [
        Fact("Providers of this build", visible(", ".join(run.providers_registered))),
        Fact("Method", visible(run.method)),
        Fact("Step and scheme", f"{number(run.step)}, {visible(run.scheme)}"),
        Fact("Temperature", number(run.temperature)),
        Fact("Seed", str(run.seed)),
        Fact("Forward passes", f"{run.evaluations:,}"),
        Fact("Time", seconds(run.seconds)),
        Fact("Finished", "no, interrupted" if run.partial else "yes", "error" if run.partial else ""),
    ]
    return FactGroup("Run", tuple(facts))


def _settings_facts(audit: Audit) -> FactGroup:
    s = audit.settings
    found = {
        "Samples": "all" if s.samples is None else f"at most {s.samples:,}",
        "Method": s.method,
        "Budget": f"{s.budget:,} passes per sample",
        "Precision": "not asked for" if s.precision is None else f"{percent(s.precision)}, at most {s.max_budget:,} passes per sample",
        "Step": "auto" if s.step is None else number(s.step),
        "Batch": "auto" if s.batch is None else f"{s.batch:,}",
        "Output kind": s.output_kind,
        "Input scale": "not known" if s.input_scale is None else ", ".join(number(v) for v in s.input_scale),
        "TF32": "allowed" if s.tf32 else "off",
        "Provider required": "yes" if s.require_provider else "no",
    }
    return FactGroup("Settings", tuple(Fact(name, visible(value)) for name, value in found.items()))


def _version_facts(audit: Audit) -> FactGroup:
    versions = tuple(Fact(visible(name), visible(str(version))) for name, version in sorted(audit.run.versions.items()))
    return FactGroup("Versions", (*versions, Fact("Platform", visible(audit.run.platform))))
