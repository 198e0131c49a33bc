"""Results as frames: every sample and every measure, with its ends and its kind."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.record.measures import MEASURES
from onnxfim.verdict.compare import compare
from tests.support.audits import VARIANTS, make_audit
from tests.support.places import DEV

pandas = DEV.load("pandas")


def cell(value):
    return None if value is None or (isinstance(value, float) and np.isnan(value)) or value is pandas.NA else value


def test_a_row_for_each_sample_and_a_column_for_each_measure(audit):
    frame = audit.to_frame()
    assert frame.index.tolist() == [s.index for s in audit.samples]
    assert frame.index.name == "index"
    for measure in MEASURES:
        found = [measure.of(s) for s in audit.samples]
        if measure.name not in frame:
            assert measure.optional
            assert found == [None] * len(found)
            continue
        assert [cell(v) for v in frame[measure.name]] == [None if e is None else e.value for e in found]
        assert [cell(v) for v in frame[f"{measure.name}_kind"]] == [None if e is None or e.value is None else e.kind for e in found]
        if measure.interval:
            assert [cell(v) for v in frame[f"{measure.name}_low"]] == [None if e is None else e.low for e in found]
            assert [cell(v) for v in frame[f"{measure.name}_high"]] == [None if e is None else e.high for e in found]
    for name in ("name", "label", "prediction", "confidence"):
        assert [cell(v) for v in frame[name]] == [getattr(s, name) for s in audit.samples]


def test_columns_are_numbers_that_can_be_reckoned_with():
    audit = make_audit(20)
    frame = audit.to_frame()
    assert frame["lambda_max"].dtype == np.float64
    assert frame["label"].dtype.kind == "i"
    assert frame["lambda_max"].mean() == pytest.approx(np.mean([s.lambda_max.value for s in audit.samples]))
    assert frame["label_name"].tolist() == [audit.data.class_names[s.label] for s in audit.samples]


def test_kinds_are_words_although_nothing_was_measured():
    frame = VARIANTS["nulls"]().to_frame()
    assert not any(np.issubdtype(t, np.number) for n, t in frame.dtypes.items() if n.endswith("_kind"))


def test_a_comparison_has_a_column_for_each_model():
    pair = compare([make_audit(30, seed=1), make_audit(30, seed=2)])
    frame = pair.to_frame()
    assert list(frame.columns) == ["name", "label", *(e.name for e in pair.entries)]
    assert frame[pair.entries[1].name].tolist() == [s.values[1] for s in pair.samples]
