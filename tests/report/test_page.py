import math
import subprocess
import sys
from dataclasses import replace

import pytest

from onnxfim.record.decision import Finding
from onnxfim.record.measures import BY_NAME, columns
from onnxfim.record.provider_option import ProviderOption
from onnxfim.record.statistics import temperature_interval
from onnxfim.report import render_html
from onnxfim.report.charts.marks import LETTER
from onnxfim.report.numbers import MISSING, interval, number, number_below, percent, spread
from onnxfim.report.page.audit_page import build_page
from onnxfim.report.words import lead_measure, lead_values
from tests.support.audits import VARIANTS, make_audit, with_flips, with_replay
from tests.support.places import ROOT


def page_of(audit):
    return build_page(audit, lambda index, png: f"sample-{index}.png")


def test_every_statistic_is_the_audits(audit):
    rows = {row.label: row for row in page_of(audit).statistics}
    names = {"lambda_max": "λ_max, raw", "lambda_max_calibrated": "λ_max, calibrated", "boundary_distance": "Boundary distance"}
    names["flip_radius"] = "Flip radius"
    assert len(rows) == len(audit.aggregates)
    for key, group in audit.aggregates.items():
        row = rows[names[key]]
        statistics = (group.mean, group.geometric_mean, group.median, group.p95, group.max)
        beyond = [s.value is None and s.low is not None for s in statistics]
        assert beyond == [False, False, False, group.unfound > 0, group.unfound > 0]  # a seventh of the samples did not flip
        expected = [f"at least {number(s.low)}" if b else number(s.value) for b, s in zip(beyond, statistics, strict=True)]
        assert [c.text for c in row.cells] == expected
        shown = [c.interval for c, s in zip(row.cells, statistics, strict=True) if s.value is not None]
        assert shown == [spread(s.low, s.high) for s in statistics if s.value is not None]
        assert row.units == group.units + ("; of the smallest found, an upper bound of each" if key == "flip_radius" else "")
        assert row.count == f"{group.count:,}"


def test_every_sample_row_is_the_audits(audit):
    samples = {s.index: s for s in audit.samples}
    page = page_of(audit)
    assert len(page.samples) == min(200, len(samples))
    measures = [c.measure for c in page.sample_columns]
    always = ["lambda_max_calibrated", "lambda_max", "boundary_distance", "logit_sensitivity", "trace", "effective_rank"]
    assert [m for m in measures if m not in ("attack_distance", "flip_radius", "certified_radius")] == always
    for line in page.samples:
        s = samples[line.index]
        cells = dict(zip(measures, line.cells, strict=True))
        rank, known = cells.pop("effective_rank"), s.effective_rank.value
        assert (rank and rank.text) == (None if known is None else number(known))
        for measure, quantity in cells.items():
            estimate = getattr(s, measure)
            if estimate is None:
                assert quantity is None
                continue
            shown = number_below if estimate.kind == "lower bound" else number
            assert quantity.text == shown(estimate.value)
            if estimate.value is not None:
                assert quantity.interval == (None if estimate.kind == "exact" else interval(estimate.low, estimate.high))
                common = BY_NAME[measure].kind or line.kind
                assert (quantity.kind or common) == estimate.kind
            else:
                assert quantity.reason or BY_NAME[measure].label in {m.title for m in page.missing}
        assert line.evaluations == f"{s.evaluations:,}"


def test_tiles_are_the_audits(audit):
    tiles = {t.label: t.quantity for t in page_of(audit).tiles}
    calibration = audit.calibration
    assert tiles["Clean accuracy"].text == percent(calibration.accuracy)
    assert tiles["Temperature"].text == number(calibration.temperature)
    if audit.samples:
        assert tiles["Mean λ_max, raw"].text == number(audit.aggregates["lambda_max"].mean.value)
        assert tiles["Median boundary distance"].text == number(audit.aggregates["boundary_distance"].median.value)


def test_rows_go_from_most_to_least_sensitive(audit):
    values = lead_values(audit)
    got = [values.get(line.index, -math.inf) for line in page_of(audit).samples]
    assert got == sorted(got, reverse=True)


def test_extremes_do_not_overlap(audit):
    page = page_of(audit)
    worst, best = [c.index for c in page.worst], [c.index for c in page.best]
    assert not set(worst) & set(best)
    values = lead_values(audit)
    assert len(worst) == min(6, len(values))
    if best:
        assert min(values[i] for i in worst) >= max(values[i] for i in best)


def test_classes_are_the_audits(audit):
    lines = {c.name: c for c in page_of(audit).classes}
    for row in audit.classes if audit.model.name == "digits_resnet" else ():
        statistics = (row.lambda_max_calibrated_mean, row.lambda_max_mean, row.boundary_distance_median)
        assert lines[row.name].cells == tuple("–" if v is None else number(v) for v in statistics)
        assert lines[row.name].count == f"{row.count:,}"
        assert 0 <= lines[row.name].share <= 100


def test_heads_of_columns_are_those_of_the_table_of_measures():
    audit = make_audit(5)
    audit = replace(
        audit,
        samples=tuple(
            replace(s, attack_distance=s.boundary_distance, flip_radius=s.boundary_distance, certified_radius=s.boundary_distance)
            for s in audit.samples
        ),
    )
    page = page_of(audit)
    assert [c.measure for c in page.sample_columns] == [m.name for m in columns()]
    heads = (
        "λ_max, calibrated",
        "λ_max, raw",
        "Boundary distance",
        "Flip radius, upper bound",
        "Certified radius, lower bound",
        "Attack distance, upper bound",
        "‖J‖₂",
        "Trace",
        "Effective rank",
    )
    assert tuple(c.head for c in page.sample_columns) == heads
    assert page.class_columns == ("Mean λ_max, calibrated", "Mean λ_max, raw", "Median boundary distance")
    assert page.statistic_columns == ("Mean", "Geometric mean", "Median", "95th percentile", "Maximum")


NEW_MEASURE = """
from dataclasses import dataclass, fields, replace
from onnxfim.record import measures
new = measures.Measure("bend", "Bend of the output", "b", "bends per unit", 1, optional=True)
measures.MEASURES = (*measures.MEASURES, new)
measures.BY_NAME["bend"] = new
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.record.provider_option import ProviderOption
from onnxfim.report.formats import FORMATS
from tests.support.audits import make_audit

@dataclass(frozen=True)
class Bent(SampleResult):
    bend: Estimate | None = None

audit = make_audit(3)
samples = tuple(Bent(**{f.name: getattr(s, f.name) for f in fields(s)}, bend=Estimate(31.0 + s.index, 21.0, 41.0)) for s in audit.samples)
audit = replace(audit, samples=samples, aggregates={"bend": audit.aggregates["boundary_distance"]})
print(FORMATS["csv"](audit).splitlines()[0], FORMATS["csv"](audit).splitlines()[1], FORMATS["html"](audit), FORMATS["markdown"](audit))
"""


@pytest.mark.slow
def test_a_new_measure_is_told_without_a_change_in_the_report():
    done = subprocess.run([sys.executable, "-c", NEW_MEASURE], capture_output=True, text=True, check=True, cwd=ROOT)
    text = done.stdout
    assert ",bend,bend_low,bend_high," in text
    assert ",31.0,21.0,41.0," in text
    assert '<th scope="col" class="n">Bend of the output</th>' in text
    assert '<span class="value">31.0</span><span class="sr">, interval</span> <span class="interval">21.0 to 41.0</span>' in text
    assert '<th scope="row">Bend of the output ' in text
    assert "| `bend` | mean |" in text


def test_run_facts_hold_hashes_settings_and_cost():
    audit = make_audit(40)
    facts = {f.name: f.value for g in page_of(audit).run for f in g.facts}
    assert facts["Provider asked for"] == "auto"
    assert facts["Provider obtained"] == "CPUExecutionProvider"
    assert facts["Forward passes"] == "5,584"
    assert facts["Time"] == "4.21 s"
    assert facts["onnxruntime"] == "1.22.0"
    hashes = [f.value for g in page_of(audit).run for f in g.facts if f.name == "SHA-256"]
    assert hashes == [audit.model.sha256, audit.data.sha256]


def test_options_of_providers_are_told_with_what_became_of_them():
    options = (
        ProviderOption("CUDAExecutionProvider", "device_id", "1", "1", taken=True, ours=False),
        ProviderOption("CUDAExecutionProvider", "foo", "<b>", None, taken=False, ours=False),
        ProviderOption("CUDAExecutionProvider", "use_tf32", "0", "0", taken=True, ours=True),
        ProviderOption("CUDAExecutionProvider", "a", "b", None, taken=None, ours=True),
    )
    audit = make_audit(3)
    run = next(
        g
        for g in page_of(replace(audit, run=replace(audit.run, provider_options=options, provider_plugin="p 1"))).run
        if g.title == "Run"
    )
    told = [(f.name, f.value, f.level) for f in run.facts if f.name.startswith(("Option", "Set for", "Plug-in"))]
    assert told == [
        ("Plug-in", "p 1", ""),
        ("Option of CUDAExecutionProvider", "device_id=1 (taken)", ""),
        ("Option of CUDAExecutionProvider", "foo=<b> (not taken)", "error"),
        ("Set for CUDAExecutionProvider", "use_tf32=0 (taken); a=b (the provider does not tell what it runs with)", ""),
    ]


def test_a_fallback_from_a_named_provider_stands_out():
    run = next(g for g in page_of(VARIANTS["fallback"]()).run if g.title == "Run")
    assert {f.name for f in run.facts if f.level == "error"} == {"Provider obtained", "Reason"}


def test_one_sample_is_not_called_half_of_the_samples():
    answers = " ".join(a.text for a in page_of(make_audit(1)).answers)
    assert "half" not in answers
    assert "twenty" not in answers
    assert "The geometric mean" not in answers, "of one sample all means are its value, which stands once"


def test_what_depends_on_use_is_not_asked_of_an_unsound_audit():
    audit = with_flips(replace(make_audit(40), findings=()))
    audit = replace(audit, data=replace(audit.data, class_names=tuple(f"kind {k}" for k in range(10))), robustness=None)
    assert page_of(audit).answers[0].text.startswith("That depends on where it is used")
    unsound = replace(audit, findings=(Finding("broken", "error", "It is broken."),))
    told = page_of(unsound).answers[0].text
    assert told.startswith("Not known while this audit is unsound.")
    assert "depends" not in told


def test_a_histogram_counts_in_the_units_of_what_it_shows():
    audit = make_audit(40)
    scaled = replace(audit, step=replace(audit.step, per_coordinate=True))
    scaled = replace(scaled, samples=tuple(replace(s, lambda_max_standardised=s.lambda_max) for s in scaled.samples))
    mean = replace(audit.aggregates["lambda_max"], units="nats per squared standard deviation of each input")
    scaled = replace(scaled, aggregates={**audit.aggregates, "lambda_max_standardised": mean})
    spread = page_of(scaled).spread
    assert lead_measure(scaled).name == "lambda_max_standardised"
    units = scaled.aggregates["lambda_max_standardised"].units
    assert any(units in label.text for label in spread.wide.labels)
    for chart in (spread.wide, spread.narrow, page_of(audit).spread.narrow, page_of(audit).distribution.narrow):
        axis = next(label for label in chart.labels if "nats" in label.text)
        assert len(axis.text) * LETTER <= chart.width
    assert not any(audit.units in label.text for label in spread.wide.labels)


def test_a_twentieth_of_few_samples_is_one():
    told = page_of(make_audit(24)).answers[2].text
    assert told.startswith("The most sensitive of 24 samples carries ")
    assert page_of(make_audit(60)).answers[2].text.startswith("The 3 most sensitive of 60 samples carry ")


def test_the_first_charts_lines_are_told_beside_it():
    """The legend holds the curves that are drawn there, each with its colour and dashes, and no other."""
    page = page_of(with_flips(with_replay(make_audit(40))))
    drawn = {(p.series, p.dash) for p in page.survival.charts[0].wide.paths if not p.soft}
    assert {(line.series, line.dash) for line in page.survival.lines if line.leads} == drawn
    assert any(line.name == "Attack" for line in page.survival.lines)
    html = render_html(with_flips(make_audit(40)))
    first = html[html.index('class="trio"') : html.index('href="#survival"', html.index('class="trio"'))]
    assert "Moves tried</li>" in first.replace("\n", "")
    assert "Boundary, first order</li>" in first.replace("\n", "")


def test_findings_stand_before_the_gates_which_the_headline_tells():
    html = render_html(VARIANTS["gated"]())
    assert html.index('<section id="findings"') < html.index('<section id="gates"')
    assert html.index('href="#findings"') < html.index('href="#gates"')


def test_nothing_measured_is_not_called_robust():
    page = page_of(VARIANTS["nulls"]())
    assert "not a sign of robustness" in page.answers[0].text
    assert page.meaning is None
    assert all(t.quantity.text == MISSING for t in page.tiles if "λ_max" in t.label)


@pytest.mark.parametrize("level", ["error", "warning", "note"])
def test_findings_come_worst_first_and_none_is_lost(level):
    findings = page_of(VARIANTS["hostile"]()).findings
    assert [f.level for f in findings] == ["error", "warning", "note"]
    assert [f.word for f in findings if f.level == level] == [level.capitalize()]


@pytest.mark.parametrize(("log_error", "told"), [(0.05, "is under-confident"), (0.6, "is perhaps under-confident")])
def test_a_temperature_stands_with_its_interval(log_error, told):
    audit = make_audit(40)
    audit = replace(audit, calibration=replace(audit.calibration, temperature=0.7, log_error=log_error))
    (tile,) = (t for t in page_of(audit).tiles if t.label == "Temperature")
    low, high = temperature_interval(0.7, log_error)
    assert tile.quantity.interval == f"{number(low)} to {number(high)}"
    assert tile.note.endswith(told)


def test_where_nodes_ran_has_a_row_for_each_provider():
    (group,) = (g for g in page_of(VARIANTS["mixed"]()).run if g.title == "Where its nodes ran")
    assert [(f.name, f.value, f.level) for f in group.facts[:2]] == [
        ("CUDA", "20 nodes, 18 of them compute on a sample's values, 2 copy between devices: Conv 10, Relu 8, MemcpyToHost 2", ""),
        ("CPU", "5 nodes, 1 of them computes on a sample's values: Gather 3, Shape 1, NonMaxSuppression 1", "error"),
    ]
    assert "CUDAExecutionProvider (18 of 19 compute nodes; 1 on CPUExecutionProvider)" in page_of(VARIANTS["mixed"]()).summary
    assert page_of(VARIANTS["mixed"]()).notices[0].title == "A part of the model ran on another provider"
    (group,) = (g for g in page_of(VARIANTS["labelled"]()).run if g.title == "Where its nodes ran")
    assert [(f.name, f.value) for f in group.facts] == [("Nodes", "not known: ONNX Runtime did not tell (1.24 and later do)")]
