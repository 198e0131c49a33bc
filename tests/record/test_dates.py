"""The date of a report: now, or what SOURCE_DATE_EPOCH says."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from onnxfim.errors import SettingsError
from onnxfim.record.dates import report_date


@pytest.mark.parametrize(
    ("given", "date"),
    [("0", "1970-01-01T00:00:00Z"), ("1700000000", "2023-11-14T22:13:20Z"), ("253402300799", "9999-12-31T23:59:59Z")],
)
def test_the_variable_stands_for_now(monkeypatch, given, date):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    assert report_date() == date


@pytest.mark.parametrize("given", [None, "", "  "])
def test_now(monkeypatch, given):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if given is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    before = datetime.now(timezone.utc)
    found = datetime.strptime(report_date(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert before - timedelta(seconds=1) <= found <= datetime.now(timezone.utc)


@pytest.mark.parametrize("given", ["-1", "1.5", "now", "0x10", "253402300800", "9" * 30, " 12", "１２", "1_000"])
def test_a_malformed_one_is_refused(monkeypatch, given):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    with pytest.raises(SettingsError, match=r"SOURCE_DATE_EPOCH: found '.*', expected whole seconds since 1970") as told:
        report_date()
    assert "\n" not in str(told.value)
