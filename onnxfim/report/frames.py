"""Results as pandas frames. Its only home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from onnxfim.errors import OutputError
from onnxfim.record.audit import Audit
from onnxfim.record.measures import MEASURES, Measure
from onnxfim.record.sample import SampleResult
from onnxfim.report.guarantee_columns import guarantee_columns
from onnxfim.verdict.comparison import Comparison

Frame: TypeAlias = Any
_WORDS = frozenset(("name", "label_name", "prediction_name"))  # columns that hold no numbers, whatever is missing
Cell: TypeAlias = "str | int | float | bool | None"


def frame(result: Audit | Comparison) -> Frame:
    """A row for each sample: of an audit all that was measured, of a comparison the values of every model.

    Raises:
        OutputError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise OutputError(
            "to_frame: pandas is not installed, expected for frames. Run: pip install 'onnxfim[notebook]'."
        ) from error
    columns = _of_audit(result) if isinstance(result, Audit) else _of_comparison(result)
    made = pandas.DataFrame({name: _series(pandas, name, values) for name, values in columns.items()})
    return made.set_index("index")


def _series(pandas: Any, name: str, values: Sequence[Cell]) -> Any:
    """A column: numbers stay numbers where some are missing, whole ones stay whole."""
    known = [v for v in values if v is not None]
    if name in _WORDS or name.endswith("_kind") or any(isinstance(v, str) for v in known):
        return pandas.Series(values, dtype="object")
    if known and all(isinstance(v, int) for v in known):
        return pandas.Series(values, dtype="int64" if len(known) == len(values) else "Int64")
    return pandas.Series([float("nan") if v is None else v for v in values], dtype="float64")


def _of_audit(audit: Audit) -> Mapping[str, list[Cell]]:
    samples = audit.samples
    names = audit.data.class_names or ()
    columns: dict[str, list[Cell]] = {
        "index": [s.index for s in samples],
        "name": [s.name for s in samples],
        "label": [s.label for s in samples],
        "prediction": [s.prediction for s in samples],
        "confidence": [s.confidence for s in samples],
    }
    if names:
        columns["label_name"] = [_named(names, s.label) for s in samples]
        columns["prediction_name"] = [_named(names, s.prediction) for s in samples]
    for measure in MEASURES:
        if any(measure.of(s) is not None for s in samples) or not measure.optional:
            columns |= _measured(measure, samples)
    return columns | guarantee_columns(audit)


def _measured(measure: Measure, samples: Sequence[SampleResult]) -> Mapping[str, list[Cell]]:
    found = [measure.of(s) for s in samples]
    columns: dict[str, list[Cell]] = {measure.name: [None if e is None else e.value for e in found]}
    if measure.interval:
        columns[f"{measure.name}_low"] = [None if e is None else e.low for e in found]
        columns[f"{measure.name}_high"] = [None if e is None else e.high for e in found]
    columns[f"{measure.name}_kind"] = [None if e is None or e.value is None else str(e.kind) for e in found]
    return columns


def _of_comparison(comparison: Comparison) -> Mapping[str, list[Cell]]:
    samples = comparison.samples
    columns: dict[str, list[Cell]] = {
        "index": [s.index for s in samples],
        "name": [s.name for s in samples],
        "label": [s.label for s in samples],
    }
    for i, entry in enumerate(comparison.entries):
        columns[entry.name] = [s.values[i] for s in samples]
    return columns


def _named(names: Sequence[str], index: int | None) -> str | None:
    return names[index] if index is not None and 0 <= index < len(names) else None
