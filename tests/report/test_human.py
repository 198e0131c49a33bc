"""The sentences in human terms: the same numbers as the record's, for every kind of audit, on every surface once."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from onnxfim.record.audit import Audit
from onnxfim.record.sample import Estimate, FlipLengths
from onnxfim.report import render_html
from onnxfim.report.human import attack_line, flip_line, human_lines, place_line, robustness_of, size
from onnxfim.report.markdown import render_comment, render_summary
from onnxfim.report.numbers import number
from onnxfim.report.page.audit_page import build_page
from onnxfim.verdict.judge import judge
from onnxfim.verdict.survival import robustness
from tests.support.audits import VARIANTS, make_audit, with_bound, with_flips, with_nulls, with_replay, with_tokens
from tests.support.pages import read
from tests.support.small_audits import cifar_like, flipped


def line(audit):
    return flip_line(audit, robustness(audit))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_kind_of_audit_can_be_told(name):
    audit = VARIANTS[name]()
    lines = human_lines(audit)
    assert len(set(lines)) == len(lines)
    for text in lines:
        assert text.endswith(".")
        assert text == text.strip()
        assert not re.search(r"\b(None|nan|inf)\b", text)
        assert "not measured" not in text
        assert text[0] == text[0].upper()
        assert "\u202e" not in text
        assert "\x00" not in text


def test_it_states_the_records_numbers():
    audit = judge(with_flips(with_replay(make_audit(100))))
    tenth, half, _ = audit.robustness.curve("flip_radius").reached
    first = human_lines(audit)[0]
    assert first.startswith(f"A change of ε = {number(half.epsilon)} (L2 in model input units; as much as every pixel by ")
    assert f"flips half of the {sum(s.label == s.prediction for s in audit.samples)} rightly classified samples" in first
    assert f"10 % flip at {number(tenth.epsilon)}, fewer than 90 % flip at all" in first


@pytest.mark.parametrize(
    ("low", "high", "scale", "expected"),
    [(0.0, 1.0, None, 32), (0.0, 255.0, None, 0.125), (-2.0, 2.0, (4.0,), 8)],
)
def test_pixels_are_counted_in_steps_of_255(low, high, scale, expected):
    """1 of the model's units over 64 inputs is 1/8 of each: 32 steps of 255 where white is 1."""
    audit = flipped(make_audit(11, labels=False), [1.0] * 11, [FlipLengths(raw=0.25)] * 11 if scale else None)
    audit = replace(
        audit, data=replace(audit.data, input_min=low, input_max=high), settings=replace(audit.settings, input_scale=scale)
    )
    told = float(re.search(r"as much as every pixel by ([\d.]+)/255", line(audit))[1])
    assert told == pytest.approx(expected, rel=0.041)  # two digits


def test_other_inputs_have_a_share_of_their_deviation():
    audit = flipped(make_audit(11, labels=False), [1.0] * 11)
    audit = replace(audit, data=replace(audit.data, input_max=40.0, input_std=2.0))
    assert "as much as every value by 0.125, 6.2\u00a0% of the data's standard deviation" in line(audit)


def test_features_are_told_in_deviations():
    audit = flipped(make_audit(11, labels=False), [500.0] * 11, [FlipLengths(standardised=0.8)] * 11)
    audit = replace(audit, step=replace(audit.step, per_coordinate=True))
    assert "ε = 0.800 (L2 in standard deviations of each input; as much as every value by 0.100 of its deviation)" in line(audit)
    assert "500" not in line(audit)


def test_tokens_are_told_in_units_of_the_embedding():
    assert "units of the embedding" in line(with_tokens(with_flips(with_replay(make_audit(40)))))


def test_without_labels_it_is_of_all_samples():
    text = line(flipped(make_audit(11, labels=False), [1.0] * 11))
    assert "flips half of the 11 samples" in text
    assert "rightly" not in text


def test_one_sample_is_not_half_of_them():
    assert "flips the one sample." in line(flipped(make_audit(1, labels=False), [0.7])).replace(" (95", ".")
    assert "half" not in line(flipped(make_audit(1, labels=False), [0.7])).split(". ")[0]


def test_what_did_not_flip_is_said():
    none = line(flipped(make_audit(9, labels=False), [np.nan] * 9))
    assert none.startswith("No move that was tried flips any of the 9 samples")
    few = line(flipped(make_audit(9, labels=False), [1.0] * 3 + [np.nan] * 6))
    assert few.startswith("Fewer than half of the 9 samples, 3, flip along the moves that were tried")
    wrong = make_audit(6)
    wrong = replace(wrong, samples=tuple(replace(s, prediction=(s.label + 1) % 10) for s in wrong.samples))
    assert line(flipped(wrong, [1.0] * 6)).startswith("None of the 6 samples is rightly classified")


def test_where_no_flip_was_looked_for_the_first_order_speaks():
    text = line(make_audit(30))
    assert text.startswith("To first order, a change of ε = ")
    assert text.endswith("an estimate, no move was tried.")


def test_shorter_ways_are_told_where_they_are_known():
    audit = with_replay(make_audit(40, labels=False))
    far = flipped(audit, [5.0 * s.boundary_distance.value for s in audit.samples])
    assert "The attack found shorter ways:" in line(far)
    alone = replace(far, attack=None, samples=tuple(replace(s, attack_distance=None) for s in far.samples))
    assert "Shorter ways are likely: to first order, a boundary is" in line(alone)
    near = flipped(alone, [1.1 * s.boundary_distance.value for s in audit.samples])
    assert line(near).endswith("A shorter way may exist.")
    blind = replace(near, run=replace(near.run, method="sketch"))
    assert line(blind).endswith("It was looked for without gradients: much shorter ways may exist.")


def test_an_upper_bound_has_no_lower_end():
    audit = flipped(make_audit(40, labels=False), np.linspace(1, 2, 40))
    assert re.search(r"\(95 % interval: at most [\d.]+\)", line(audit))
    assert re.search(r"\(95 % interval: [\d.]+ to [\d.]+\)", line(make_audit(40)))


@pytest.mark.parametrize(
    ("kind", "words"), [("gaussian", "one standard deviation σ"), ("embedding", "one σ in the embedding"), ("logits", "half a nat")]
)
def test_without_predictions_the_outputs_move(kind, words):
    """ε with ``½ λ ε² = ½``, at the median λ."""
    audit = make_audit(40, labels=False)
    audit = replace(
        audit,
        model=replace(audit.model, output_kind=kind),
        samples=tuple(
            replace(s, prediction=None, confidence=None, boundary_distance=Estimate(None, reason="no classes"))
            for s in audit.samples
        ),
    )
    text = line(audit)
    assert words in text
    assert f"ε = {number(audit.aggregates['lambda_max'].median.value ** -0.5)} " in text
    assert "flip" not in text


def test_nothing_measured_says_nothing():
    assert human_lines(with_nulls(make_audit(20))) == ()


def test_the_attack_is_told_at_distances_that_tell_something():
    audit = with_replay(make_audit(60))
    text = attack_line(robustness(audit))
    curve = robustness(audit).curve("attack")
    assert f"at ε = {number(curve.reached[1].epsilon)}" in text
    told = [float(e) for e in re.findall(r"% at ([\d.]+)", text.split("): ")[1])]
    assert 1 <= len(told) <= 3
    clean = curve.standing / curve.samples
    assert all(0 < p.left < clean for p in curve.ladder if any(abs(p.epsilon - e) < 1e-3 for e in told))
    linf = replace(audit, attack=replace(audit.attack, norm="linf"))
    assert re.search(r"halves from [\d.]+\u00a0% at ε = [\d.]+/255", attack_line(robustness(linf)))


def test_the_place_has_its_caveat():
    audit = cifar_like(8.0)
    told = robustness(audit)
    text = place_line(audit, told)
    below = {r.measure: r.below for r in told.place.ranks}
    assert text.startswith(
        f"More sensitive than {below['lambda_max_calibrated']} of 11 reference CIFAR-10 classifiers by mean calibrated"
    )
    assert f"than {below['flip_radius']} by median flip radius" in text
    assert "taken from the shape of its inputs; theirs are other samples, and their accuracies" in text
    unknown = cifar_like(low=-2.1, high=2.6)
    assert "(--mean, --std)" in place_line(unknown, robustness(unknown))


def test_bands_are_words_only_where_the_whole_interval_lies_in_them():
    sure = cifar_like(1e4, radius=1e-3)
    assert "among the most sensitive quarter" in place_line(sure, robustness(sure))
    a = sure.aggregates["lambda_max_calibrated"]
    wide = replace(
        sure, aggregates={**sure.aggregates, "lambda_max_calibrated": replace(a, mean=replace(a.mean, low=2.0, high=None))}
    )
    assert "quarter" not in place_line(wide, robustness(wide))
    assert "within its interval" in place_line(wide, robustness(wide))


def test_an_older_file_is_told_as_well():
    audit = with_flips(with_replay(make_audit(30)))
    assert audit.robustness is None
    again = Audit.from_json(audit.to_json())
    assert human_lines(again) == human_lines(judge(audit))
    assert robustness_of(again) is robustness_of(again), "it is computed once"


def test_surfaces_say_it_once():
    audit = judge(with_flips(with_replay(make_audit(50))))
    first = human_lines(audit)[0].split(" flips half")[0]
    for text in (render_summary(audit), render_comment(audit)):
        assert text.count(first.replace("_", "\\_").split(" (")[0]) == 1
    page = build_page(audit, lambda name, png: "")
    said = " ".join(a.text for a in page.answers)
    assert first.split(" (")[0] not in said


def test_the_section_shows_every_curve():
    audit = judge(with_flips(with_bound(with_replay(make_audit(60)))))
    audit = judge(replace(audit, bound=replace(audit.bound, log10_lipschitz=0.5)))
    view = build_page(audit, lambda name, png: "").survival
    assert [row.name for row in view.lines] == ["Moves tried", "Attack", "Boundary, first order", "Guaranteed"]
    assert len({row.dash for row in view.lines}) == len({row.series for row in view.lines}) == 4, "told apart without colour"
    chart = view.charts[0].wide
    assert len([p for p in chart.paths if not p.soft]) == 4
    assert len([p for p in chart.paths if p.soft]) == 2
    assert "50 % have fallen at" in chart.description
    html = read(render_html(audit))
    section = next(e for e in html.elements if e.attributes.get("id") == "survival")
    for row in view.lines:
        assert row.kind in section.text
    assert next(e for e in html.elements if e.attributes.get("href") == "#survival")


def test_the_curve_falls_and_stays_in_its_band():
    audit = judge(with_flips(with_replay(make_audit(60))))
    for figure in build_page(audit, lambda name, png: "").survival.charts:
        for chart in (figure.wide, figure.narrow):
            for path in (p for p in chart.paths if not p.soft):
                heights = [float(v) for v in re.findall(r"V([\d.]+)", path.data)]
                assert heights == sorted(heights), "fewer are left further away"
            for path in chart.paths:
                across = [float(v) for v in re.findall(r"H([\d.]+)", path.data)]
                assert all(0 <= x <= chart.width for x in across)


def test_an_attack_in_another_norm_has_a_chart_of_its_own():
    audit = with_flips(with_replay(make_audit(60)))
    audit = judge(replace(audit, attack=replace(audit.attack, norm="linf")))
    charts = build_page(audit, lambda name, png: "").survival.charts
    assert len({f.wide.name for f in charts}) == len(charts) == 2


def test_units_of_an_attack_in_other_units_are_its_own():
    audit = with_flips(with_replay(make_audit(60)))
    told = robustness(replace(audit, step=replace(audit.step, per_coordinate=True)))
    curve = told.curve("attack")
    assert curve.units == audit.attack.units
    assert "/255" not in size(1.0, curve, told)
