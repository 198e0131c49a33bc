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
from onnxfim.report.guarantee_columns import guarantee_columns
from onnxfim.report.identity_words import changed_settings, identity_properties
from onnxfim.report.page.tables import class_name

Cell: TypeAlias = "str | int | float | bool | None"

# What tells the report from others, the same on every row, so that rows of several files may be put together.
_REPORT = ("report_id", "date", "title", "note", "meta", "host", "command", "versions", "settings")
#: Columns of the flip's length in other units, by the field of `FlipLengths`.
_LENGTHS = {"raw": "flip_radius_raw_units", "standardised": "flip_radius_standardised"}
#: Column names, in order; behind them stand those of `guarantee_columns`, of what was run.
COLUMNS = (
    "model", "verdict", "index", "name", "status", "reason", "label", "prediction", "confidence",
    *(f"{m.name}{end}" for m in MEASURES for end in (("", "_low", "_high") if m.interval else ("",))),
    *_LENGTHS.values(), "kind", "unchanged", "directions", "evaluations",
    *_REPORT, "label_name", "prediction_name",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # spreadsheets take the wide ones too
_INNER = re.compile(f"(;\\s*)(?=[{''.join(map(re.escape, _FORMULA))}])")


def render_csv(audit: Audit) -> str:
    """The samples of ``audit`` as CSV text with a header; numbers in full precision, empty where not known."""
    sink = io.StringIO()
    more = guarantee_columns(audit)
    writer = csv.DictWriter(sink, (*COLUMNS, *more), lineterminator="\n")
    writer.writeheader()
    model, report = as_cell(audit.model.name), _report(audit)
    for k, sample in enumerate(audit.samples):
        sure = {name: as_cell(v) if isinstance(v := cells[k], str) else v for name, cells in more.items()}
        names = {"label_name": class_name(sample.label, audit), "prediction_name": class_name(sample.prediction, audit)}
        told = {key: as_cell(name or "") for key, name in names.items()} if audit.data.class_names else {}
        writer.writerow({"model": model, "verdict": audit.verdict, **_measured(sample), **report, **told, **sure})
    for skipped in audit.skipped:
        writer.writerow({"model": model, "verdict": audit.verdict, **_skipped(skipped), **report})
    return sink.getvalue()


def _report(audit: Audit) -> dict[str, Cell]:
    told = dict(identity_properties(audit.identity))
    cells: dict[str, str] = {name: told[name] for name in _REPORT if name in told}
    cells["meta"] = "; ".join(f"{name}={value}" for name, value in (audit.identity.meta if audit.identity else ()))
    cells["versions"] = "; ".join(f"{name} {version}" for name, version in sorted(audit.run.versions.items()))
    cells["settings"] = "; ".join(f"{name}={value}" for name, value in changed_settings(audit.settings))
    return {name: as_cell(value) for name, value in cells.items()}


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
    if sample.flip_lengths is not None:
        yield from ((column, getattr(sample.flip_lengths, field)) for field, column in _LENGTHS.items())


def _skipped(skipped: Skipped) -> dict[str, Cell]:
    return {"index": skipped.index, "status": "skipped", "reason": as_cell(skipped.reason)}


def as_cell(text: str) -> str:
    """Foreign text as a cell that no spreadsheet takes for a formula."""
    # Where `;` ends a cell, a formula may begin behind it.
    shown = _INNER.sub(r"\1'", visible(text))
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown
