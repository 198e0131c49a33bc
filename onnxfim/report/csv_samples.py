"""An audit's samples as CSV: one row per sample, measured or skipped, with the model and the verdict on each."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import TypeAlias

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.record.measures import MEASURES
from onnxfim.record.sample import SampleResult, Skipped

Cell: TypeAlias = "str | int | float | None"

#: Column names, in order.
COLUMNS = (
    "model", "verdict", "index", "name", "status", "reason", "label", "prediction", "confidence",
    *(f"{m.name}{end}" for m in MEASURES for end in (("", "_low", "_high") if m.interval else ("",))),
    "kind", "unchanged", "directions", "evaluations",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # spreadsheets take the wide ones too
_INNER = re.compile(f"(;\\s*)(?=[{''.join(map(re.escape, _FORMULA))}])")


def render_csv(audit: Audit) -> str:
    """The samples of ``audit`` as CSV text with a header; numbers in full precision, empty where not known."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, COLUMNS, lineterminator="\n")
    writer.writeheader()
    model = as_cell(audit.model.name)
    for row in (*map(_measured, audit.samples), *map(_skipped, audit.skipped)):
        writer.writerow({"model": model, "verdict": audit.verdict, **row})
    return sink.getvalue()


def _measured(sample: SampleResult) -> dict[str, Cell]:
    raw = sample.lambda_max
    return {
        "index": sample.index,
        "name": as_cell(sample.name),
        "status": "unresolved" if raw.value is None else "measured",
        "reason": as_cell(raw.reason or ""),
        "label": sample.label,
        "prediction": sample.prediction,
        "confidence": sample.confidence,
        **dict(_numbers(sample)),
        "kind": raw.kind,
        "unchanged": sample.unchanged,
        "directions": sample.directions,
        "evaluations": sample.evaluations,
    }


def _numbers(sample: SampleResult) -> Iterator[tuple[str, Cell]]:
    for measure in MEASURES:
        estimate = measure.of(sample)
        if estimate is None:
            continue
        yield measure.name, estimate.value
        if measure.interval:
            yield f"{measure.name}_low", estimate.low
            yield f"{measure.name}_high", estimate.high


def _skipped(skipped: Skipped) -> dict[str, Cell]:
    return {"index": skipped.index, "status": "skipped", "reason": as_cell(skipped.reason)}


def as_cell(text: str) -> str:
    """Foreign text as a cell that no spreadsheet takes for a formula."""
    # Where `;` ends a cell, a formula may begin behind it.
    shown = _INNER.sub(r"\1'", visible(text))
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown
