"""The tables of classes and of samples, and the cards of the most and least sensitive ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, replace

from onnxfim.record.audit import Audit, ClassRow, Thumbnail
from onnxfim.record.foreign_text import visible
from onnxfim.record.measures import STATISTICS, Measure, columns
from onnxfim.record.sample import SampleResult
from onnxfim.report import words
from onnxfim.report.numbers import count, number, percent, statistic_label
from onnxfim.report.page.quantities import of_estimate, with_common_kind
from onnxfim.report.page.view import ClassLine, MeasureColumn, PictureView, SampleCard, SampleLine
from onnxfim.report.thumbnails import display_size, png

MOST_ROWS = 200
MOST_CLASSES = 100

# The statistics that a class has, by field of its row, in the order of the samples' columns.
_CLASS_FIELDS = {f.name for f in fields(ClassRow)}
_CLASS_COLUMNS = {
    field: statistic_label(m.name, s.name)
    for m in columns()
    for s in STATISTICS
    if (field := f"{m.name}_{s.name}") in _CLASS_FIELDS
}

Picture = Callable[[str, bytes], str]


def class_columns() -> tuple[str, ...]:
    """Heads of the statistics in the table of classes."""
    return tuple(_CLASS_COLUMNS.values())


def class_lines(audit: Audit) -> tuple[ClassLine, ...]:
    """The classes as rows, most sensitive first."""
    field = words.class_field(audit)
    lead = {id(c): getattr(c, field) or 0.0 for c in audit.classes}
    rows = sorted(audit.classes, key=lambda c: -lead[id(c)])[:MOST_CLASSES]
    highest = max((lead[id(c)] for c in rows), default=0.0)
    return tuple(
        ClassLine(
            name=visible(c.name),
            count=f"{c.count:,}",
            accuracy="–" if c.accuracy is None else percent(c.accuracy),
            confidence="–" if c.mean_confidence is None else percent(c.mean_confidence),
            cells=tuple("–" if (v := getattr(c, field)) is None else number(v) for field in _CLASS_COLUMNS),
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


def card(sample: SampleResult, audit: Audit, picture: Picture) -> SampleCard:
    """A sample with its picture, where it has one."""
    thumbnail = next((t for t in audit.thumbnails if t.index == sample.index), None)
    value = words.lead_estimate(sample, audit)
    kind, quantities = with_common_kind({"value": value, "distance": sample.boundary_distance})
    return SampleCard(
        index=sample.index,
        name=visible(sample.name),
        picture=_picture(thumbnail, picture, _alt(sample, audit)) if thumbnail else None,
        label=class_name(sample.label, audit),
        prediction=class_name(sample.prediction, audit),
        wrong=words.predicted_wrongly(sample),
        confidence=percent(sample.confidence),
        kind=kind,
        value=quantities["value"],
        distance=quantities["distance"],
    )


def _alt(sample: SampleResult, audit: Audit) -> str:
    label = class_name(sample.label, audit)
    return f"Input of sample {sample.index}" + (f", labelled {label}" if label is not None else "")


def _picture(thumbnail: Thumbnail, picture: Picture, alt: str) -> PictureView:
    width, height = display_size(thumbnail)
    return PictureView(picture(f"sample-{thumbnail.index}", png(thumbnail)), width, height, alt)


def sample_columns(samples: Sequence[SampleResult]) -> tuple[Measure, ...]:
    """The measures that are columns of the table of ``samples``: an optional one only where some sample has it."""
    return tuple(m for m in columns() if not m.optional or any(m.of(s) is not None for s in samples))


def column_head(measure: Measure) -> MeasureColumn:
    """A measure's column as printed."""
    head = measure.head or measure.label
    return MeasureColumn(measure.name, f"{head}, {measure.kind}" if measure.kind else head, measure.interval)


def missing_everywhere(samples: Sequence[SampleResult], measures: Sequence[Measure]) -> dict[Measure, str]:
    """Why measures have a value on none of the samples, where all of these give one reason: it need not stand in every row."""
    found = {}
    for m in measures:
        estimates = [e for s in samples if (e := m.of(s)) is not None]
        reasons = {e.reason for e in estimates if e.value is None}
        reason = next(iter(reasons), None)
        if len(estimates) > 1 and len(reasons) == 1 and reason and all(e.value is None for e in estimates):
            found[m] = visible(reason)
    return found


def sample_line(sample: SampleResult, measures: Sequence[Measure], audit: Audit, *, told: Collection[Measure] = ()) -> SampleLine:
    """A sample as a row; its kind stands once where all its numbers share it, reasons of ``told`` measures below the table."""
    known = {m: e for m in measures if (e := m.of(sample)) is not None}
    # A bare number, or one whose kind the column's head tells, says nothing of the others' kind.
    kind, quantities = with_common_kind({m: e for m, e in known.items() if m.interval and not m.kind})
    for measure, estimate in known.items():
        if measure not in quantities and (measure.interval or estimate.value is not None):
            quantities[measure] = replace(of_estimate(estimate), kind=None)
    return SampleLine(
        index=sample.index,
        name=visible(sample.name),
        label=class_name(sample.label, audit) or "–",
        prediction=class_name(sample.prediction, audit) or "–",
        wrong=words.predicted_wrongly(sample),
        confidence="–" if sample.confidence is None else percent(sample.confidence),
        cells=tuple(replace(q, reason=None) if (q := quantities.get(m)) and m in told else q for m in measures),
        kind=kind,
        evaluations=f"{sample.evaluations:,}",
    )


def samples_note(audit: Audit) -> str:
    """How many samples the table shows, and where the rest is."""
    total = len(audit.samples)
    if total > MOST_ROWS:
        return (
            f"The {MOST_ROWS} most sensitive of {total:,} samples; all of them are in the JSON of this audit (-o json=report.json)."
        )
    return f"{count(total, 'sample')}, the most sensitive first."
