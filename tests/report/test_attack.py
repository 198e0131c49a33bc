from dataclasses import replace

import pytest

from onnxfim.record.audit import Correlation
from onnxfim.record.sample import Estimate
from onnxfim.report import render_html
from onnxfim.report.numbers import number
from onnxfim.report.page.attack_section import attack_view
from onnxfim.report.page.audit_page import build_page
from tests.support.audits import make_attack, make_audit, with_replay
from tests.support.pages import read


def view_of(attack, **settings):
    """The section of an audit with this attack."""
    audit = with_replay(make_audit(30))
    return attack_view(replace(audit, attack=attack, settings=replace(audit.settings, **settings)))


def section(html):
    return next((e for e in read(html).elements if e.attributes.get("id") == "attack"), None)


def test_no_attack_no_section():
    html = render_html(make_audit(10))
    assert section(html) is None
    assert "#attack" not in html
    assert "Croce" not in html
    assert "Attack distance" not in html


def test_it_says_what_it_is_not():
    text = section(render_html(with_replay(make_audit(20)))).text
    assert "A check of the metric, never a certificate." in text
    assert "Masked gradients" in text
    assert "Croce and Hein 2020" in text


def test_numbers_are_the_attacks():
    view = view_of(make_attack(200, norm="linf"), epsilon=0.3)
    tiles = {t.label.replace("\u00a0", " "): t.quantity for t in view.tiles}
    robust = tiles["Robust accuracy at ε = 0.3"]
    assert (robust.text, robust.interval) == ("42.0\u00a0%", "33.0\u00a0% to 52.0\u00a0%")
    assert "Median smallest distance" not in tiles, "that is where the accuracy halves"
    assert tiles["No attack found"].text == "2"
    assert tiles["Cost"].text == "6.20 s"
    facts = {f.name: f.value for f in view.facts}
    assert facts["Norm and radius"] == "L∞, ε = 0.3"
    assert facts["Values kept within"] == "0 to 1.00"
    assert (facts["Steps"], facts["Restarts"]) == ("40", "3")
    assert facts["Judged by"] == "the labels"


def test_no_radius_that_was_not_asked_for_is_headlined():
    asked, not_asked = view_of(make_attack(30), epsilon=0.3), view_of(make_attack(30))
    assert any("Robust accuracy at" in t.label for t in asked.tiles)
    assert not any("Robust accuracy at" in t.label for t in not_asked.tiles)
    assert "42.0\u00a0%" in asked.answer
    assert "42.0\u00a0%" not in not_asked.answer
    assert "by choice, half are left there" in next(f.value for f in not_asked.facts if f.name == "Norm and radius")
    labels = [t.label for t in not_asked.tiles]
    assert {"A tenth has fallen at", "Accuracy halves at", "Nine tenths have fallen at"} <= set(labels)
    assert len(not_asked.ladder) >= 3
    html = render_html(with_replay(make_audit(30)))
    assert not_asked.ladder[0].left.text.replace("\u00a0", " ") in section(html).text.replace("\u00a0", " ")


def test_without_labels_accuracy_is_agreement():
    view = view_of(replace(make_attack(20), by_prediction=True))
    assert "agreement with the model's own predictions" in view.answer


@pytest.mark.parametrize(
    ("correlation", "reading"),
    [
        (Correlation("lambda_max", -0.8, -0.9, -0.7, 50), "ranks as expected"),
        (Correlation("lambda_max", 0.8, 0.7, 0.9, 50), "ranks the other way"),
        (Correlation("boundary_distance", 0.8, 0.7, 0.9, 50), "ranks as expected"),
        (Correlation("confidence", 0.1, -0.2, 0.4, 50), "zero is not ruled out"),
        (Correlation("something", 0.8, 0.7, 0.9, 50), "differs from zero"),
        (Correlation("trace", None, None, None, 0), "not known"),
    ],
)
def test_readings_follow_sign_and_interval(correlation, reading):
    (line,) = view_of(replace(make_attack(50), correlations=(correlation,))).correlations
    assert line.reading == reading
    if correlation.coefficient is None:
        assert (line.coefficient, line.interval, line.x) == ("not measured", "–", None)
    else:
        assert line.coefficient == f"{correlation.coefficient:+.2f}".replace("-", "−")
        assert 0 <= line.low <= line.x <= line.high <= 100


def test_the_answer_names_the_measures():
    answer = view_of(make_attack(200)).correlations_answer
    assert "raw λ_max, calibrated λ_max and boundary distance rank as expected" in answer
    assert "The other way round: confidence." in answer
    none = replace(make_attack(9), correlations=(Correlation("trace", None, None, None, 0),))
    assert "no measure is shown to rank" in view_of(none).correlations_answer
    assert view_of(replace(make_attack(9), correlations=())).correlations_answer == ""


def test_the_sample_table_gains_a_column_where_distances_exist():
    audit = with_replay(make_audit(20))
    missing = Estimate(None, kind="upper bound", reason="no attack succeeded within the range")
    samples = (replace(audit.samples[0], attack_distance=missing), *audit.samples[1:])
    page = build_page(replace(audit, samples=samples), lambda name, png: "")
    place = [c.measure for c in page.sample_columns].index("attack_distance")
    known = {s.index: s.attack_distance.value for s in samples}
    for line in page.samples:
        if line.index == 0:
            assert line.cells[place].reason == "no attack succeeded within the range"
        else:
            assert line.cells[place].text == number(known[line.index])
    assert "Attack distance, upper bound" in render_html(audit)
