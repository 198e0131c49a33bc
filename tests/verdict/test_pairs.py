"""Whether two audits share their noise: told by the kinds of their values, whatever the method is called."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxfim.verdict import decide, parse_gate
from onnxfim.verdict.compare import compare
from onnxfim.verdict.pairs import is_paired
from tests.support.audits import make_audit
from tests.support.small_audits import seeded


def measured_by(method, *, exact):
    audit = make_audit(64, exact=exact)
    return replace(audit, run=replace(audit.run, method=method))


@pytest.mark.parametrize(("method", "exact", "paired"), [("gradient", True, True), ("exact", True, True), ("sketch", False, False)])
def test_exact_values_have_no_noise_to_share(method, exact, paired):
    audit = measured_by(method, exact=exact)
    other = seeded(audit, 5)
    assert is_paired(audit, other) is paired
    comparison = compare([audit, other])
    assert comparison.pairs[0].paired is paired
    assert any("Seeds differ" in note for note in comparison.notes) is not paired


@pytest.mark.parametrize(("exact", "paired"), [(True, True), (False, False)])
def test_neither_step_nor_method_matters_where_there_is_no_noise(exact, paired):
    audit = measured_by("gradient", exact=exact)
    other = replace(audit, run=replace(audit.run, step=3 * audit.run.step))
    assert is_paired(audit, other) is paired
    assert is_paired(audit, measured_by("exact", exact=exact)) is paired


def test_one_noisy_value_is_enough():
    audit = measured_by("gradient", exact=True)
    (first, *rest) = audit.samples
    noisy = replace(first, lambda_max=replace(first.lambda_max, kind="lower bound"))
    other = seeded(replace(audit, samples=(noisy, *rest)), 5)
    assert not is_paired(audit, other)


def test_more_passes_do_not_settle_a_gate_on_exact_gradients():
    audit = measured_by("gradient", exact=True)
    top = audit.aggregates["lambda_max"].max
    (open_,) = decide(audit, [parse_gate(f"lambda_max.max > {(top.value + top.high) / 2!r}")])
    assert open_.verdict == "inconclusive"
    assert "passes per sample" not in open_.advice
