"""The title page, the line of what was not run, the method in its own words, folds, kinds of input."""

from dataclasses import replace

import pytest

from onnxfim.cli.main import main
from onnxfim.record.identity import Identity
from onnxfim.record.input_pictures import Curve, DirectionSummary, SeriesTrace
from onnxfim.report import render_html
from onnxfim.report.charts.marks import NARROW, WIDE
from onnxfim.report.charts.trace_chart import trace_chart
from onnxfim.report.page.audit_page import PRINT_SAMPLES, build_page
from onnxfim.report.page.cover import cover
from onnxfim.report.page.directions import direction_summary, feature
from onnxfim.report.page.method_section import method_sentences
from onnxfim.report.page.not_run import not_run
from tests.support.audits import HOSTILE, VARIANTS, hostile, make_audit, with_replay
from tests.support.pages import read

IDENTITY = Identity(
    "ab" * 32, "2026-03-01T12:00:00Z", ("onnxfim", "audit", "a b.onnx"), "Quarterly", "A note.", (("who", "me"),), "host-7"
)


def page_of(audit):
    return build_page(audit, lambda name, png: f"{name}.png")


def test_the_title_page_tells_who_the_report_is():
    front = cover(replace(make_audit(5), identity=IDENTITY))
    facts = {f.name: f.value for f in front.facts}
    assert front.heading == "Quarterly"
    assert front.note == "A note."
    assert facts["Date"] == "2026-03-01 12:00:00 UTC"
    assert facts["Report id"] == "ab" * 32
    assert facts["Command"] == "onnxfim audit 'a b.onnx'"
    assert (facts["who"], facts["Host"]) == ("me", "host-7")
    assert front.running == "Quarterly · report abababababab · 2026-03-01 12:00:00 UTC"


def test_what_was_not_recorded_is_left_out_of_the_title_page():
    front = cover(replace(make_audit(5), identity=None))
    assert (front.heading, front.line, front.note, front.running) == ("digits_resnet", "", "", "digits_resnet")
    assert not {"Date", "Report id", "Command", "Host"} & {f.name for f in front.facts}


def test_a_hostile_title_does_not_leave_the_style_sheet():
    title = '"; } </style><script>alert(1)</script> \\'
    html = render_html(replace(make_audit(3), identity=replace(IDENTITY, title=title)))
    style = next(e for e in read(html).elements if e.tag == "style").text
    rule = style[style.rindex("--running") :]
    assert "<" not in rule
    assert rule.count('"') == 2
    assert [e.text for e in read(html).elements if e.tag == "h1"] == [title]


def test_what_was_not_run_is_one_line_with_the_option_that_would():
    told = {n.what: n.option or n.why for n in not_run(make_audit(5))}
    assert told["gates"] == "--fail-on"
    assert told["attack"] == "--attack l2"
    assert told["replay"] == "--replay 64"
    everything = {n.what for n in not_run(with_replay(VARIANTS["gated"]()))}
    assert "attack" not in everything
    assert "gates" not in everything


def test_the_options_that_are_named_exist():
    known = {name for parameter in main.commands["audit"].params for name in (*parameter.opts, *parameter.secondary_opts)}
    audits = [make_audit(5), make_audit(5, labels=False)]
    named = {n.option.split()[0] for audit in audits for n in not_run(audit) if n.option}
    assert named
    assert named <= known


def test_sections_are_there_only_for_what_was_run():
    plain, full = page_of(make_audit(10)), page_of(VARIANTS["bound"]())
    assert [f.id for f in plain.folds] == ["sure", "which", "survival", "meaning", "measured", "where"]
    assert [f.id for f in full.folds] == ["sure", "which", "survival", "meaning", "measured", "bound", "where"]
    ids = {e.attributes.get("id") for e in read(render_html(make_audit(10))).elements}
    assert not {"attack", "replay", "bound", "gates"} & ids


def test_no_method_is_told_where_nothing_has_a_value():
    audit = make_audit(10)
    none = replace(audit.samples[0].lambda_max, value=None, low=None, high=None, reason="a step function")
    told = " ".join(method_sentences(replace(audit, samples=tuple(replace(s, lambda_max=none) for s in audit.samples))))
    assert "Nothing was measured" in told
    assert "random directions" not in told


@pytest.mark.parametrize("method", ["gradient", "exact", "sketch"])
def test_the_method_is_told_in_its_own_words(method):
    audit = make_audit(10)
    told = " ".join(method_sentences(replace(audit, run=replace(audit.run, method=method))))
    assert ("random directions" in told) == (method == "sketch")
    assert ("derivative graphs" in told) == (method == "gradient")
    assert ("all coordinates of the input" in told) == (method == "exact")


def test_paper_has_fewer_samples_than_the_screen():
    page = read(render_html(make_audit(100), print_samples=30))
    rows = [e for e in page.elements if e.tag == "tr" and "tbody" in e.inside]
    assert sum(e.attributes.get("class") == "screen" for e in rows) == 70
    assert "Here on paper: the first 30;" in page.elements[0].text
    assert PRINT_SAMPLES < 30


def test_a_reason_that_all_samples_share_stands_once():
    audit = make_audit(20)
    none = replace(
        audit.samples[0].lambda_max_calibrated, value=None, low=None, high=None, reason="the temperature was not fitted " * 5
    )
    audit = replace(audit, samples=tuple(replace(s, lambda_max_calibrated=none) for s in audit.samples))
    page = page_of(audit)
    assert [(m.title, m.text) for m in page.missing] == [("λ_max, calibrated", none.reason)]
    at = [c.measure for c in page.sample_columns].index("lambda_max_calibrated")
    assert {line.cells[at].reason for line in page.samples} == {None}


def test_features_are_called_by_their_names():
    audit = make_audit(5)
    named = replace(audit, data=replace(audit.data, shape=(3,), feature_names=("age", "income", HOSTILE[0])))
    assert [feature(i, named) for i in range(3)] == ["age", "income", HOSTILE[0]]
    assert feature(7, replace(audit, data=replace(audit.data, shape=(2, 3, 2)))) == "input [1, 0, 1]"
    assert feature(7, replace(audit, data=replace(audit.data, shape=(20,)))) == "input 7"


def test_the_mean_direction_is_a_bar_for_each_feature_largest_first():
    audit = make_audit(5)
    names = ("a", "b", "c", "d")
    data = replace(audit.data, shape=(4,), feature_names=names, input_kind="tabular")
    audit = replace(audit, data=data, direction_summary=DirectionSummary(9, (0.1, 0.7, 0.0, 0.4)))
    view = direction_summary(audit)
    assert [b.tip for b in view.figure.wide.bars] == ["b: 0.700", "d: 0.400", "a: 0.100", "c: 0"]
    assert "over 9 samples" in view.note
    assert "features-h" in {e.attributes.get("id") for e in read(render_html(audit)).elements}
    assert direction_summary(make_audit(5)) is None


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_series_stands_above_its_direction(width):
    trace = SeriesTrace(1, 500, 0.75, Curve((0, 250, 499), (1.0, -2.0, 3.0)), Curve((0, 100, 499), (0.0, 0.2, -0.5)))
    chart = trace_chart(trace, name="t", title="Channel 1", width=width)
    upper, lower = ([float(point.split()[1]) for point in path.data[1:].split("L")] for path in chart.paths)
    assert max(upper) < min(lower)
    assert upper[1] > upper[0] > upper[2]  # −2 lies below 1, and 3 above it
    assert lower[2] > lower[0] > lower[1]
    assert "75.0\u00a0% of the direction's squared length" in chart.description
    assert "Largest entry at place 499" in chart.description
    assert all(0 <= label.x <= width and 0 <= label.y <= chart.height for label in chart.labels)


def test_series_of_a_page_have_a_chart_for_each_channel():
    audit = with_replay(make_audit(30), images=False)
    trace = SeriesTrace(0, 3, 1.0, Curve((0, 1, 2), (1.0, 2.0, 0.0)), Curve((0, 1, 2), (0.1, 0.9, -0.4)))
    directions = tuple(replace(d, traces=(trace, replace(trace, channel=1, share=0.0))) for d in audit.directions)
    audit = replace(audit, directions=directions, data=replace(audit.data, input_kind="series"))
    cards = page_of(audit).replay.directions
    assert {len(card.figures) for card in cards} == {2}
    assert read(render_html(audit)).problems == []


def test_the_page_of_a_hostile_record_is_whole():
    audit = hostile(with_replay(make_audit(30), images=False))
    audit = replace(
        audit, data=replace(audit.data, feature_names=tuple(HOSTILE)), identity=replace(IDENTITY, note=" ".join(HOSTILE))
    )
    page = read(render_html(audit))
    assert page.problems == []
    assert HOSTILE[0] in page.elements[0].text


def test_providers_of_the_session_are_not_called_those_of_the_build():
    audit = make_audit(3)
    run = replace(
        audit.run,
        providers_registered=("CPUExecutionProvider",),
        providers_available=("CUDAExecutionProvider", "CPUExecutionProvider"),
    )
    facts = {f.name: f.value for g in page_of(replace(audit, run=run)).run for f in g.facts}
    assert facts["Given to the session"] == "CPUExecutionProvider"
    assert facts["Providers of this build"] == "CUDAExecutionProvider, CPUExecutionProvider"
    assert "Providers of this build" not in {f.name for g in page_of(audit).run for f in g.facts}
