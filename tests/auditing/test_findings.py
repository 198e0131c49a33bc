"""Findings from values alone: when each comes, and that it says what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxfim.auditing.findings import findings
from tests.support.audits import make_audit, make_step, with_nulls


def found(audit, *, doubt=None, explicit=False, **changes):
    values = {
        "num_outputs": 10, "calibration": audit.calibration, "data": audit.data, "step": audit.step, "run": audit.run,
        "settings": audit.settings, "samples": audit.samples, "skipped": audit.skipped, "aggregates": audit.aggregates, **changes,
    }  # fmt: skip
    return {f.id: f for f in findings(doubt=doubt, provider_explicit=explicit, **values)}


AUDIT = make_audit(100)
AUDIT = replace(AUDIT, run=replace(AUDIT.run, provider_reason=None), calibration=replace(AUDIT.calibration, accuracy=0.97))


@pytest.mark.parametrize(
    ("accuracy", "num_outputs", "near"), [(0.1, 10, True), (0.27, 10, True), (0.3, 10, False), (0.55, 2, True), (0.7, 2, False)]
)
def test_chance_is_that_of_the_classes(accuracy, num_outputs, near):
    calibration = replace(AUDIT.calibration, accuracy=accuracy)
    assert ("accuracy-near-chance" in found(AUDIT, calibration=calibration, num_outputs=num_outputs)) == near


@pytest.mark.parametrize(("temperature", "told"), [(0.4, True), (0.6, False), (1.0, False), (1.9, False), (2.1, True)])
def test_temperatures_far_from_one(temperature, told):
    assert ("temperature" in found(AUDIT, calibration=replace(AUDIT.calibration, temperature=temperature))) == told


def test_a_doubt_is_passed_on():
    assert "they sum to two" in found(AUDIT, doubt="they sum to two")["output-kind"].message


def test_a_fallback_names_both_providers_and_the_reason():
    run = replace(AUDIT.run, providers_requested=("cuda",), provider_reason="no library")
    finding = found(AUDIT, run=run, explicit=True)["provider-fallback"]
    assert finding.level == "warning"
    assert all(word in finding.message for word in ("cuda", "CPUExecutionProvider", "no library"))
    assert found(AUDIT, run=run)["provider-auto"].level == "note"


@pytest.mark.parametrize(("share", "level"), [(0.3, "warning"), (1.0, "error")])
def test_samples_without_a_value_are_not_called_robust(share, level):
    finding = found(with_nulls(AUDIT, share=share))["unresolved"]
    assert finding.level == level
    assert "This does not mean that they are robust" in finding.message


def test_steps():
    assert "no-plateau" not in found(AUDIT)
    rounded = found(AUDIT, step=make_step(dithered=True))
    assert {"no-plateau", "rounded-model"} <= set(rounded)
    assert "not-deterministic" in found(AUDIT, step=replace(AUDIT.step, repeat_noise=1e-3))


def test_directions_that_changed_nothing():
    samples = tuple(replace(s, unchanged=0.2) for s in AUDIT.samples)
    assert "20.0% of the directions changed no output" in found(AUDIT, samples=samples)["unchanged-directions"].message


def test_every_message_is_one_line_and_ends():
    many = found(
        with_nulls(AUDIT),
        doubt="odd",
        step=replace(make_step(dithered=True), repeat_noise=1.0),
        run=replace(AUDIT.run, partial=True),
    )
    assert len(many) >= 6
    for finding in many.values():
        assert "\n" not in finding.message
        assert finding.message.endswith(".")
