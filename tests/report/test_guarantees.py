"""What is guaranteed beside what is estimated: each number with its kind, nothing that was not run, contradictions told loudly."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from onnxfim.integrations import mlflow
from onnxfim.record.statistics import clopper_pearson
from onnxfim.report import card, csv_samples, frames, junit, markdown, model_card, notebook, sarif
from onnxfim.report.charts.bracket_chart import MARKS, bracket_chart, many
from onnxfim.report.charts.certified_curves import certified_chart
from onnxfim.report.charts.marks import NARROW, WIDE
from onnxfim.report.dossier.lines import tables
from onnxfim.report.dossier.ml_bom import ml_bom
from onnxfim.report.dossier.unshown import UNSHOWN, unshown
from onnxfim.report.glossary import TERMS
from onnxfim.report.guarantee_figures import guaranteed_figures
from onnxfim.report.guarantee_words import (
    bracket_line,
    brackets_in,
    contradicting,
    noise_line,
    smoothing_words,
    tightest,
    verifier_words,
)
from onnxfim.report.human import human_lines, robustness_of
from onnxfim.report.numbers import number_above, number_below
from onnxfim.report.page.audit_page import build_page
from tests.support.audits import VARIANTS, make_audit, with_flips
from tests.support.guaranteed_audits import with_bracket, with_guarantees, with_noise, with_smoothing, with_verifier
from tests.support.pages import page_of as printed
from tests.support.places import DEV

WHOLE = with_guarantees(with_flips(make_audit(40)))
PLAIN = make_audit(20)
OPTIONS = ("--bracket", "--noise gaussian:0.1", "--certify smoothing:0.25", "--verifier vibecheck")


def page_of(audit):
    """What the page prints, and its elements."""
    return build_page(audit, lambda name, png: name), printed(audit)[1]


def chart_of(audit, norm="l2", width=WIDE):
    rows = [(s.index, b) for s, b in brackets_in(audit, norm)]
    return bracket_chart(rows, units="raw input units", width=width, wrong=contradicting(audit, norm))


# Numbers.


@pytest.mark.parametrize(
    ("value", "below", "above"),
    [
        (0.25, "0.250", "0.250"), (0.0999, "0.0999", "0.0999"), (0.12345, "0.123", "0.124"), (1.9999, "1.99", "2.00"),
        (8 / 255, "0.0313", "0.0314"), (0.0, "0", "0"), (1234.5, "1,230", "1,240"), (9.999e-9, "9.99×10⁻⁹", "1.00×10⁻⁸"),
    ],
)  # fmt: skip
def test_what_is_guaranteed_does_not_grow_and_what_was_found_does_not_shrink(value, below, above):
    assert (number_below(value), number_above(value)) == (below, above)


def test_random_lengths_are_rounded_to_the_safe_side():
    for value in np.exp(np.random.default_rng(0).uniform(-30, 12, 300)):
        low, high = (
            float(text.replace(",", "").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")).replace("×10", "e"))
            for text in (number_below(value), number_above(value))
        )
        assert low <= value <= high
        assert high - low <= 0.011 * value


# What was not run is not shown.


def test_a_plain_audit_says_how_to_get_it_and_shows_nothing():
    page, read = page_of(PLAIN)
    assert page.guarantees is None
    assert "guarantees" not in [f.id for f in page.folds]
    assert set(OPTIONS) <= {n.option for n in page.not_run}
    assert not list(guaranteed_figures(PLAIN))
    assert "Under random noise" not in " ".join(e.text for e in read.elements if e.tag == "h3")


def test_what_was_run_is_no_longer_among_it():
    page, _ = page_of(WHOLE)
    assert not set(OPTIONS) & {n.option for n in page.not_run}
    assert [f.id for f in page.folds].count("guarantees") == 1
    assert page.guarantees.parts == ("bracket", "noise", "smoothed classifier", "verifier")


@pytest.mark.parametrize(
    ("made", "anchor", "others"),
    [
        (with_bracket, "bracket-l2", ("noise", "smoothing", "verifier")),
        (with_noise, "noise", ("bracket-l2", "smoothing", "verifier")),
        (with_smoothing, "smoothing", ("noise", "verifier")),
        (with_verifier, "verifier", ("noise", "smoothing")),
    ],
)
def test_a_part_alone_is_shown_alone(made, anchor, others):
    ids = {e.attributes.get("id") for e in page_of(made(PLAIN))[1].elements}
    assert anchor in ids
    assert not set(others) & ids


# The first screen.


def test_the_first_screen_tells_both_sides_where_they_are_near():
    line = bracket_line(WHOLE, robustness_of(WHOLE))
    best = tightest(WHOLE)
    assert number_below(best.low.value) in line
    assert number_above(best.high.value) in line
    assert "guaranteed in exact arithmetic, by local bounds" in line
    assert "found" in line
    assert line in human_lines(WHOLE)


def test_the_first_screen_says_nothing_of_a_guarantee_that_is_decades_away():
    far = with_bracket(PLAIN, gap=1e5)
    assert bracket_line(far, robustness_of(far)) is None


def test_a_contradiction_is_told_on_the_first_screen_in_the_section_and_in_the_chart():
    audit = with_bracket(PLAIN, bad=3)
    assert "contradict one another on 3 samples" in bracket_line(audit, robustness_of(audit))
    page, read = page_of(audit)
    assert all("On 3 samples" in b.wrong for b in page.guarantees.brackets)
    assert [e for e in read.elements if e.attributes.get("class") == "notice error" and "Contradiction." in e.text]
    crosses = [p for p in chart_of(audit).paths if p.series == "wrong"]
    assert len(crosses) == 3
    assert all("CONTRADICTION" in p.tip for p in crosses)
    assert "3 samples" in chart_of(audit).description
    assert "On 3 samples" in markdown.render_summary(audit)


def test_noise_tells_the_file_the_confidence_and_what_is_open():
    line = noise_line(WHOLE)
    assert "as it ran" in line
    assert "95\u00a0% confidence for all at once" in line
    assert "are open" in line
    assert "1 other noise" in line


# The chart.


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("n", [2, 5, 30])
def test_each_of_few_samples_has_a_stem_between_its_own_two_marks(n, width):
    audit = with_bracket(make_audit(n))
    chart = chart_of(audit, width=width)
    assert not many(n, width)
    stems = [s for s in chart.segments if s.role == "quiet"]
    assert len(stems) == n
    assert all(s.y1 >= s.y2 for s in stems)  # the guaranteed end is the lower one
    for name, (series, _, hollow) in MARKS.items():
        marks = [p for p in chart.paths if p.series == series]
        assert len(marks) == n, name
        assert not hollow or not any(p.filled for p in marks)
    assert [s.x1 for s in stems] == sorted(s.x1 for s in stems)


def test_samples_are_sorted_by_what_was_found_and_the_rest_stands_last():
    audit = with_bracket(make_audit(30))
    tips = [p.tip for p in chart_of(audit).paths if p.series == MARKS["high"][0]]
    order = [int(re.match(r"sample (\d+)", t)[1]) for t in tips]
    highs = {s.index: np.inf if b.high is None else b.high for s, b in brackets_in(audit, "l2")}
    assert [highs[i] for i in order] == sorted(highs.values())
    assert all(not p.filled for p in chart_of(audit).paths if "no move found" in p.tip)


def test_a_thousand_samples_share_columns_and_keep_their_ends():
    audit = with_bracket(make_audit(1000))
    for width in (WIDE, NARROW):
        chart = chart_of(audit, width=width)
        assert many(1000, width)
        assert len(chart.paths) == 5  # four lines and a band
        assert len({p.dash for p in chart.paths if not p.soft}) == 4  # told apart without colour
        assert sum(len(p.data) for p in chart.paths) < 12_000
        assert all(0 <= float(y) <= chart.height for p in chart.paths for y in re.findall(r"[ML][\d.]+ ([\d.]+)", p.data))


def test_marks_differ_by_shape_and_fill_and_not_by_colour_alone():
    assert len({(shape, hollow) for _, shape, hollow in MARKS.values()}) == len(MARKS)


def test_the_chart_is_told_in_words():
    chart = chart_of(WHOLE)
    b = next(b for b in WHOLE.bracket if b.norm == "l2")
    assert "Guaranteed, lower bounds" in chart.description
    assert "Found, upper bounds" in chart.description
    assert f"nothing on {sum(x.low == 0 for _, x in brackets_in(WHOLE, 'l2'))}" in chart.description
    assert str(b.samples) in chart.description


def test_nothing_known_is_no_chart():
    audit = with_bracket(make_audit(5))
    nothing = [(0, replace(b, low=0.0, low_from="", high=None, high_from="")) for _, b in brackets_in(audit, "l2")]
    assert bracket_chart(nothing, units="u", width=WIDE) is None


def test_weights_far_below_stand_on_the_floor_and_do_not_stretch_the_chart():
    rows = [(s.index, replace(b, low=1e-30)) for s, b in brackets_in(with_bracket(make_audit(10)), "l2")]
    chart = bracket_chart(rows, units="u", width=WIDE)
    assert [t for t in chart.labels if t.text == "nothing"]
    assert not [
        t
        for t in chart.labels
        if "10⁻" in t.text and int(t.text.split("10⁻")[1].translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789"))) > 6
    ]


def test_shares_decided_add_up():
    for view in page_of(WHOLE)[0].guarantees.brackets:
        assert view.decided
        for d in view.decided:
            assert d.kept_width + d.open_width + d.lost_width == pytest.approx(100, abs=0.2)


# The smoothed classifier, and a verifier.


def test_certificates_are_never_told_of_the_file():
    words = smoothing_words(WHOLE.smoothing[0])
    assert words.startswith("Smoothed with")
    assert "of the smoothed classifier alone" in words
    assert all("smoothed classifier" in f.kind for f in guaranteed_figures(WHOLE) if f.name.startswith("smoothing."))
    assert "not of the file" in certified_chart(WHOLE.smoothing, width=WIDE).description
    page, read = page_of(WHOLE)
    assert [e for e in read.elements if e.attributes.get("class") == "caution" and "not of the file" in e.text]
    assert all(WHOLE.smoothing[0].caveat == c for c in page.guarantees.smoothing.caveats)


def test_a_radius_between_two_known_ones_has_the_lower_share():
    view = page_of(WHOLE)[0].guarantees.smoothing
    curve = WHOLE.smoothing[-1].curve
    for text, shown in zip(view.radii, view.rows[-1].at, strict=True):
        share = next((p.share for p in curve if p.radius >= float(text)), 0.0)
        assert float(shown.text.rstrip("\u00a0%").strip("<>\u00a0") or 0) == pytest.approx(100 * share, abs=0.06)


def test_a_counterexample_that_the_file_does_not_follow_is_told():
    assert "1 counterexample the audited file keeps its prediction" in verifier_words(WHOLE.verifier)
    view = page_of(WHOLE)[0].guarantees.verifier
    assert len(view.wrong) == 1
    assert [r.index for r in view.rows if r.bad] == [1]
    assert {r.index: r.replay for r in view.rows}[0] == "followed"


# Every format.


def test_figures_have_kinds_and_intervals_that_are_right():
    figures = {f.name: f for f in guaranteed_figures(WHOLE)}
    for b in WHOLE.bracket:
        assert figures[f"bracket.{b.norm}.guaranteed_median"].kind.startswith("lower bound, guaranteed in exact arithmetic")
        assert figures[f"bracket.{b.norm}.found_median"].kind.startswith("upper bound, found")
        d = b.decided[0]
        kept = figures[f"bracket.{b.norm}.kept@{d.epsilon:g}"]
        assert (kept.value, kept.low, kept.high) == (d.kept / b.samples, *clopper_pearson(d.kept, b.samples))
    for n in WHOLE.noise:
        for name, of in (("stable_share", n.population), ("stable_share_here", n.share)):
            f = figures[f"noise[{n.noise}].{name}"]
            assert (f.value, f.low, f.high) == (of.value, of.low, of.high)
    assert figures["verifier.sat"].value == WHOLE.verifier.sat
    assert all(re.fullmatch(r"[\w.-]+", f.plain) for f in figures.values())
    assert all(f.kind and f.units for f in figures.values())
    assert len(figures) == len(list(guaranteed_figures(WHOLE)))


def test_flat_formats_hold_the_figures():
    figures = list(guaranteed_figures(WHOLE))
    properties = {p.get("name"): p.get("value") for p in ElementTree.fromstring(junit.render_junit(WHOLE)).iter("property")}
    summary, logged = markdown.render_summary(WHOLE), dict(mlflow.metrics(WHOLE))
    metrics = ml_bom(WHOLE)["components"][0]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    told = {m["type"].partition(" (")[0]: m for m in metrics}
    for f in figures:
        assert float(properties[f.name]) == f.value
        assert f"`{f.name}`" in summary
        assert logged[f.plain.replace(".", "/", 1)] == f.value
        assert float(told[f.name]["value"]) == f.value
        if f.low is not None:
            assert float(told[f.name]["confidenceInterval"]["lowerBound"]) == f.low
    run = json.loads(sarif.render_sarif(WHOLE))["runs"][0]["properties"]
    assert {"bracket", "noise", "smoothing", "verifier"} <= set(run)
    assert not {"bracket", "noise"} & set(json.loads(sarif.render_sarif(PLAIN))["runs"][0]["properties"])
    names = {m["name"] for m in model_card.model_index(WHOLE)[0]["results"][0]["metrics"]}
    assert "Median guaranteed distance, L2" in names
    assert "Median guaranteed distance, L2" in notebook.card(WHOLE)


def test_samples_have_columns_of_what_was_run():
    rows = list(csv.DictReader(io.StringIO(csv_samples.render_csv(WHOLE))))
    for row, s in zip(rows, WHOLE.samples, strict=True):
        b = s.bracket[0]
        assert float(row["bracket_l2_low"]) == b.low
        assert row["bracket_l2_high"] == ("" if b.high is None else repr(b.high))
        assert row["bracket_l2_high_from"] == b.high_from
        assert row["noise_uniform_8_255_decided"] == s.noise[1].decided
        assert float(row["smoothed_0.25_radius"]) == s.smoothed[1].radius
    assert rows[1]["verified_followed"] == "False"
    assert rows[0]["verified_followed"] == "True"
    assert not [
        name for name in next(csv.reader(io.StringIO(csv_samples.render_csv(PLAIN)))) if name.startswith(("bracket_", "noise_"))
    ]


def test_frames_have_the_same_columns():
    DEV.load("pandas")
    frame = frames.frame(WHOLE)
    assert frame["bracket_linf_low"].dtype == "float64"
    assert frame["bracket_linf_low"].tolist() == [s.bracket[1].low for s in WHOLE.samples]
    assert set(frame["noise_gaussian_0.1_decided"]) == {"stable", "unstable", "open"}


def test_the_card_has_a_line_for_each():
    labels = [line.label for line in card.audit_card(WHOLE).lines]
    assert [n for n in labels if n.startswith(("bracket", "noise", "smoothed", "verifier"))] == [
        "bracket", "bracket", "noise", "noise", "smoothed", "smoothed", "verifier",
    ]  # fmt: skip
    assert not [x.label for x in card.audit_card(PLAIN).lines if x.label.startswith(("bracket", "noise", "smoothed", "verifier"))]


def test_the_dossier_points_to_the_values_and_no_longer_says_that_they_are_missing():
    lines = [line for t in tables(WHOLE) for line in t.lines]
    pointers = {line.pointer for line in lines}
    assert {"/bracket/0", "/bracket/1", "/noise/0", "/smoothing/0", "/verifier", "/noise", "/smoothing"} <= pointers
    anchors = {e.attributes.get("id") for e in page_of(WHOLE)[1].elements}
    assert {line.anchor for line in lines if line.pointer.startswith(("/bracket", "/noise", "/smoothing", "/verifier"))} <= anchors
    formal = [line for line in lines if line.topic == "Method, formal"]
    assert any("local bounds" in line.text for line in formal)
    plain, whole = unshown(PLAIN), unshown(WHOLE)
    assert set(UNSHOWN) <= set(plain) & set(whole)
    assert [t for t in plain if "--noise" in t or "--bracket" in t]
    assert not [t for t in whole if "--noise" in t or "--bracket" in t]
    assert [t for t in whole if "smoothed classifier" in t]


def test_the_words_are_explained():
    ids = {t.id for t in TERMS}
    assert {"bracket", "certified-radius", "smoothed-classifier", "abstain", "verifier", "counterexample"} <= ids
    found = {e.attributes.get("id") for e in page_of(WHOLE)[1].elements}
    assert {"term-bracket", "term-smoothed-classifier", "term-counterexample"} <= found


@pytest.mark.parametrize("variant", ["guarantees", "guarantees-few", "guarantees-many", "guarantees-hostile"])
def test_a_number_never_stands_without_its_kind(variant):
    audit = VARIANTS[variant]()
    for view in page_of(audit)[0].guarantees.brackets:
        assert [t.quantity.kind for t in view.tiles[:2] if t.quantity.text not in ("none found", "not measured")].count(None) == 0
