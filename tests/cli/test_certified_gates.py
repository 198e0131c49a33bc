"""Gates of what was certified: statistics of the lengths themselves, both ends, nothing certified counted as 0; and their exit codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from onnxfim.auditing import guaranteeing
from onnxfim.auditing.summary import aggregate_of
from onnxfim.cli import main
from onnxfim.errors import SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.sample import Estimate
from onnxfim.report.gate_words import value_words
from onnxfim.verdict import decide, parse_gate
from onnxfim.verdict.expect import expect
from onnxfim.verdict.foreseen import Planned, obstacle
from onnxfim.verdict.suggest import suggest
from tests.support.audits import make_audit
from tests.support.places import SAMPLES

LENGTHS = tuple(0.1 + 0.001 * i for i in range(100))
DATA = ["--data", str(SAMPLES / "digits.npz"), "--samples", "16", "--provider", "cpu", "--replay", "0"]
MLP = str(SAMPLES / "digits_mlp.onnx")


def with_certified(*radii, measure="certified_radius"):
    """An audit on whose samples these lengths were certified; None where nothing was, a word where it was not tried."""
    audit = make_audit(len(radii))
    estimates = [
        None if r == "not tried" else Estimate(None, kind="lower bound", reason="nothing was certified")
        if r is None else Estimate(r, r, None, "lower bound", "local bounds") for r in radii
    ]  # fmt: skip
    samples = tuple(replace(s, **{measure: e}) for s, e in zip(audit.samples, estimates, strict=True))
    group = aggregate_of(samples, measure, seed=0)
    return replace(audit, samples=samples, aggregates={**audit.aggregates, measure: group}, findings=())


def one(audit, text):
    (result,) = decide(audit, [parse_gate(text)])
    return result


@pytest.mark.parametrize("measure", ["certified_radius", "certified_radius_linf"])
@pytest.mark.parametrize(("threshold", "expected"), [(0.1, "pass"), (0.15, "inconclusive"), (0.2, "fail")])
def test_the_median_passes_and_fails(measure, threshold, expected):
    """Each radius bounds another distance from below; their own median is known."""
    audit = with_certified(*LENGTHS, measure=measure)
    assert audit.aggregates[measure].kind == "lower bound"
    result = one(audit, f"{measure}.median < {threshold}")
    assert result.verdict == expected
    assert "of the lengths that were certified (each a lower bound, 0 where nothing was)" in result.comparison
    assert value_words(result, "raw input units").endswith("raw input units, of the lengths certified, a lower bound of each")
    assert expect(audit, f"{measure}.median >= {threshold}").verdict == expected


@pytest.mark.parametrize("statistic", ["mean", "geometric_mean", "median", "p95"])
def test_every_usual_statistic_has_two_ends(statistic):
    found = getattr(with_certified(*LENGTHS).aggregates["certified_radius"], statistic)
    assert found.low < found.value < found.high


def test_a_sample_on_which_nothing_was_certified_counts_as_0():
    few, many = with_certified(*LENGTHS), with_certified(*LENGTHS, *[None] * 60)
    group = many.aggregates["certified_radius"]
    assert (group.count, group.unfound) == (160, 0)
    assert group.median.value == pytest.approx(np.median([*LENGTHS, *[0.0] * 60]))
    assert group.mean.value == pytest.approx(np.mean([*LENGTHS, *[0.0] * 60]))
    assert one(few, "certified_radius.median < 0.12").verdict == "pass"
    assert one(many, "certified_radius.median < 0.14").verdict == "fail"
    assert one(with_certified(*[0.0] * 40), "certified_radius.median < 0.01").verdict == "fail", "no sample has a guarantee"


def test_where_nothing_could_be_certified_nothing_was_measured():
    result = one(with_certified(*[None] * 40), "certified_radius.median < 0.01")
    assert result.verdict == "inconclusive"
    assert "was not measured (nothing was certified)" in result.comparison


def test_samples_that_were_not_tried_are_no_zeros():
    audit = with_certified(*LENGTHS, *["not tried"] * 60)
    assert audit.aggregates["certified_radius"].count == 100


def test_no_such_measure_is_no_gate():
    with pytest.raises(
        SettingsError, match=r"'certified_radii.median' is no measure\. The nearest name is 'certified_radius.median'"
    ):
        parse_gate("certified_radii.median < 0.1")
    result = one(make_audit(20), "certified_radius.median < 0.1")
    assert result.verdict == "inconclusive"
    assert "was not measured" in result.comparison


@pytest.mark.parametrize("name", ["certified_radius", "certified_radius_linf", "flip_radius_linf"])
def test_what_was_not_asked_for_is_said_beforehand(name):
    gate = parse_gate(f"{name}.median < 0.1")
    found = obstacle(gate, Planned(100))
    assert found.never
    assert "Add --bracket, or drop the gate" in found.message
    assert obstacle(gate, Planned(100, bracket=True)) is None
    if name == "flip_radius_linf":
        assert "--no-flip" in obstacle(gate, Planned(100, bracket=True, flips=False)).message


def test_a_gate_is_suggested_where_half_of_the_samples_are_certified():
    told = suggest(with_certified(*LENGTHS))
    gate = next(g for g in told.gates if g.name == "certified_radius.median")
    assert 0 < gate.threshold < gate.value
    assert one(with_certified(*LENGTHS), gate.text).verdict == "pass"
    refused = suggest(with_certified(*LENGTHS[:40], *[None] * 60)).refused
    assert next(r.why for r in refused if r.name == "certified_radius.median") == "it is 0"


def planted(way):
    """A stage that certifies 0.001 on every sample, in both norms."""

    def certify(found):
        e = Estimate(0.001, 0.001, None, "lower bound", "local bounds")
        return replace(
            found, results={p: replace(r, certified_radius=e, certified_radius_linf=e) for p, r in found.results.items()}
        )

    return [*OF_EACH(way), certify]


OF_EACH = guaranteeing.of_each


@pytest.mark.parametrize(
    ("gate", "code", "verdict"),
    [
        ("certified_radius.median < 0.0005", 0, "pass"),
        ("certified_radius_linf.median < 0.1", 1, "fail"),
        ("certified_radius.p95 < 0.1", 4, "inconclusive"),
        ("flip_radius_linf.median < 1e-6", 0, "pass"),
        ("flip_radius_linf.median < 10", 1, "fail"),
    ],
)
def test_exit_codes(monkeypatch, tmp_path, gate, code, verdict):
    monkeypatch.setattr(guaranteeing, "of_each", planted)
    out = tmp_path / "a.json"
    done = CliRunner().invoke(main, ["audit", MLP, *DATA, "--bracket", "--fail-on", gate, "-o", f"json={out}"])
    assert done.exit_code == code, done.output
    found = Audit.from_json(out.read_text())
    assert [g.verdict for g in found.gates] == [verdict]
    assert all(b.low == 0.001 for s in found.samples for b in s.bracket if b.low_from == "local bounds")


def test_a_guarantee_that_is_refuted_passes_no_gate(monkeypatch, tmp_path):
    def lying(way):
        def certify(found):
            e = Estimate(10.0, 10.0, None, "lower bound", "local bounds")
            return replace(found, results={p: replace(r, certified_radius=e) for p, r in found.results.items()})

        return [*OF_EACH(way), certify]

    monkeypatch.setattr(guaranteeing, "of_each", lying)
    args = ["audit", MLP, *DATA, "--bracket", "--fail-on", "certified_radius.median < 1", "--quiet"]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 4, done.output
    done = CliRunner().invoke(main, [*args, "--fail-on", "findings.error"])
    assert done.exit_code == 1, done.output
