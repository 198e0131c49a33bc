"""Classes and samples as rows and cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from onnxfim.record.audit import Audit, Thumbnail
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.report import words
from onnxfim.report.numbers import MISSING, count, interval, number, percent, visible
from onnxfim.report.page.view import ClassLine, PictureView, Quantity, SampleCard, SampleLine
from onnxfim.report.png import display_size, png

MOST_ROWS = 200
MOST_CLASSES = 100

Picture = Callable[[str, bytes], str]


def class_lines(audit: Audit) -> tuple[ClassLine, ...]:
    """The classes as rows, most sensitive first."""
    calibrated = words.has_calibrated(audit)
    lead = {id(c): (c.lambda_max_calibrated_mean if calibrated else c.lambda_max_mean) or 0.0 for c in audit.classes}
    rows = sorted(audit.classes, key=lambda c: -lead[id(c)])[:MOST_CLASSES]
    highest = max((lead[id(c)] for c in rows), default=0.0)
    return tuple(
        ClassLine(
            name=visible(c.name),
            count=f"{c.count:,}",
            accuracy="–" if c.accuracy is None else percent(c.accuracy),
            confidence="–" if c.mean_confidence is None else percent(c.mean_confidence),
            raw="–" if c.lambda_max_mean is None else number(c.lambda_max_mean),
            calibrated="–" if c.lambda_max_calibrated_mean is None else number(c.lambda_max_calibrated_mean),
            distance="–" if c.boundary_distance_median is None else number(c.boundary_distance_median),
            share=round(100 * lead[id(c)] / highest, 1) if highest > 0 else 0.0,
        )
        for c in rows
    )


def classes_note(audit: Audit) -> str:
    """What the rows are means of, and how many are left out."""
    by = "label" if audit.data.labels else "predicted class, since there are no labels"
    more = (
        f" The {MOST_CLASSES} most sensitive of {len(audit.classes):,}; the rest is in the JSON."
        if len(audit.classes) > MOST_CLASSES
        else ""
    )
    caution = "They have no interval: with few samples in a class, read them as a hint."
    return f"Means of the estimates of the samples with this {by}. {caution}{more}"


def class_name(index: int | None, audit: Audit) -> str | None:
    """The class's name, its number where it has none, None for no class."""
    if index is None:
        return None
    names = audit.data.class_names or ()
    return visible(names[index]) if 0 <= index < len(names) else str(index)


def _wrong(sample: SampleResult) -> bool:
    return sample.label is not None and sample.prediction is not None and sample.label != sample.prediction


def card(sample: SampleResult, audit: Audit, picture: Picture) -> SampleCard:
    """A sample with its picture, where it has one."""
    thumbnail = next((t for t in audit.thumbnails if t.index == sample.index), None)
    sketch = sample.lambda_max_calibrated if words.has_calibrated(audit) else sample.lambda_max
    kind, quantities = _with_common_kind({"value": sketch, "distance": sample.boundary_distance})
    return SampleCard(
        index=sample.index,
        name=visible(sample.name),
        picture=_picture(thumbnail, picture, _alt(sample, audit)) if thumbnail else None,
        label=class_name(sample.label, audit),
        prediction=class_name(sample.prediction, audit),
        wrong=_wrong(sample),
        confidence=percent(sample.confidence),
        kind=kind,
        value=quantities["value"],
        distance=quantities["distance"],
    )


def _with_common_kind(estimates: Mapping[str, Estimate]) -> tuple[str, dict[str, Quantity]]:
    """The kind that all share, taken off each; or ``mixed``, and each keeps its own."""
    kinds = sorted({e.kind for e in estimates.values() if e.value is not None})
    quantities = {name: _estimate(e) for name, e in estimates.items()}
    if len(kinds) != 1:
        return ("mixed" if kinds else "–"), quantities
    return kinds[0], {name: replace(q, kind=None) for name, q in quantities.items()}


def _alt(sample: SampleResult, audit: Audit) -> str:
    label = class_name(sample.label, audit)
    return f"Input of sample {sample.index}" + (f", labelled {label}" if label is not None else "")


def _picture(thumbnail: Thumbnail, picture: Picture, alt: str) -> PictureView:
    width, height = display_size(thumbnail)
    return PictureView(picture(f"sample-{thumbnail.index}", png(thumbnail)), width, height, alt)


def sample_line(sample: SampleResult, audit: Audit) -> SampleLine:
    """A sample as a row; its kind stands once where all its numbers share it."""
    estimates = {
        "raw": sample.lambda_max,
        "calibrated": sample.lambda_max_calibrated,
        "trace": sample.trace,
        "distance": sample.boundary_distance,
        "sensitivity": sample.logit_sensitivity,
    }
    kind, quantities = _with_common_kind(estimates)
    return SampleLine(
        index=sample.index,
        name=visible(sample.name),
        label=class_name(sample.label, audit) or "–",
        prediction=class_name(sample.prediction, audit) or "–",
        wrong=_wrong(sample),
        confidence="–" if sample.confidence is None else percent(sample.confidence),
        raw=quantities["raw"],
        calibrated=quantities["calibrated"],
        trace=quantities["trace"],
        rank="–" if sample.effective_rank.value is None else number(sample.effective_rank.value),
        distance=quantities["distance"],
        sensitivity=quantities["sensitivity"],
        kind=kind,
        evaluations=f"{sample.evaluations:,}",
        attack=replace(_estimate(sample.attack_distance), kind=None) if sample.attack_distance is not None else None,
    )


def samples_note(audit: Audit) -> str:
    """How many samples the table shows, and where the rest is."""
    total = len(audit.samples)
    if total > MOST_ROWS:
        return (
            f"The {MOST_ROWS} most sensitive of {total:,} samples; all of them are in the JSON of this audit (-o json=report.json)."
        )
    return f"{count(total, 'sample')}, the most sensitive first."


def _estimate(estimate: Estimate) -> Quantity:
    if estimate.value is None:
        return Quantity(MISSING, reason=visible(estimate.reason) if estimate.reason else None)
    ends = None if estimate.kind == "exact" else interval(estimate.low, estimate.high)
    return Quantity(number(estimate.value), ends, estimate.kind)
