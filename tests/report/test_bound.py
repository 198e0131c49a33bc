import math
import re
from dataclasses import replace

import pytest

from onnxfim.record.bound import LOG10_ZERO, Factor, Share
from onnxfim.report import render_bounds_html, render_html
from onnxfim.report.page.audit_page import build_page
from onnxfim.report.page.bound_section import MOST_FACTORS, MOST_SHARES, log_text, upper
from onnxfim.spectral.reading import GraphReading, bound_of
from tests.support.audits import BOUNDS, HOSTILE, make_audit, with_bound
from tests.support.pages import foreign_scripts, read


def view_of(audit):
    return build_page(audit, lambda name, png: "").bound


def section(html):
    return next((e for e in read(html).elements if e.attributes.get("id") == "bound"), None)


def test_no_bound_no_section():
    html = render_html(make_audit(10))
    assert section(html) is None
    assert "#bound" not in html


@pytest.mark.parametrize(
    ("log10", "text"),
    [
        (0.0, "1.00"),
        (math.log10(2.5), "2.50"),
        (math.log10(2.5001), "2.51"),
        (math.log10(9.991), "10.0"),
        (-2.0, "0.0100"),
        (116.4, "2.52×10¹¹⁶"),
        (5000.0, "1.00×10⁵⁰⁰⁰"),
        (-40.0, "1.00×10⁻⁴⁰"),
        (LOG10_ZERO, "0"),
    ],
)
def test_figures_of_bounds_are_rounded_up(log10, text):
    assert upper(log10) == text


def test_logarithms_are_rounded_up():
    assert (log_text(1.201), log_text(1.2), log_text(-1.209), log_text(None)) == ("1.21", "1.20", "−1.20", "not available")
    assert log_text(LOG10_ZERO) == "−∞"


def test_class_figures_and_gap_are_the_audits():
    audit = BOUNDS["bound"]()
    view = view_of(audit)
    assert view.family == "ResNet-like"
    assert view.evidence == audit.architecture.evidence
    tiles = {t.label: t.quantity for t in view.tiles}
    assert tiles["log₁₀ L"].text == log_text(audit.bound.log10_lipschitz)
    assert tiles["log₁₀ ½L²"].text == log_text(audit.bound.log10_fisher)
    top = max(s.lambda_max.value for s in audit.samples)
    gap = audit.bound.log10_fisher - math.log10(top)
    assert tiles["Bound / measured λ_max"].text == f"{gap:.1f} decades"
    assert f"{gap:.1f} decades above the largest value measured" in view.answer


def test_a_value_above_the_bound_is_said_to_be_impossible():
    audit = BOUNDS["bound"]()
    low = replace(audit, bound=replace(audit.bound, log10_lipschitz=-2.0, log10_fisher=-4.3))
    assert "That cannot be: one of the two is wrong" in view_of(low).answer


def test_without_a_bound_the_reason_and_the_rest_are_shown():
    audit = BOUNDS["bound-unavailable"]()
    view = view_of(audit)
    text = section(render_html(audit)).text
    assert audit.bound.reason in text
    assert "No bound of the whole model is available" in text
    assert [t.quantity.text for t in view.tiles] == ["not available", "not available"]
    assert len(view.factors) == len(audit.bound.factors)
    assert view.shares is not None


def test_class_without_bound_and_bound_without_class():
    audit = BOUNDS["bound"]()
    alone = view_of(replace(audit, bound=None, closed_forms=()))
    assert (alone.answer, alone.tiles, alone.forms, alone.shares) == ("", (), (), None)
    assert "Spectral bound" not in section(render_html(replace(audit, bound=None, closed_forms=()))).text
    assert view_of(replace(audit, architecture=None)).family is None


def test_shares_stand_in_graph_order():
    audit = BOUNDS["bound"]()
    chart = view_of(audit).shares.wide
    assert [b.tip.split(":")[0] for b in chart.bars] == [f"{s.node} ({s.op})" for s in audit.bound.shares]
    widths = {s.log10_gain: b.width for s, b in zip(audit.bound.shares, chart.bars, strict=True)}
    unit = widths[0.7] / 0.7 if 0.7 in widths else max(widths.values()) / max(widths)
    for gain, width in widths.items():
        assert width == pytest.approx(abs(gain) * unit, abs=0.3)
    assert [b.series for b in chart.bars].count("loss") == 1


def test_of_a_deep_network_the_smallest_shares_are_counted_in_words():
    audit = BOUNDS["bound-deep"]()
    view = view_of(audit)
    assert len(view.shares.wide.bars) == MOST_SHARES
    assert f"The {len(audit.bound.shares) - MOST_SHARES} smallest are not drawn" in view.shares_note
    assert len(view.factors) == MOST_FACTORS
    assert f"The first {MOST_FACTORS} of {len(audit.bound.factors)}" in view.factors_note
    assert view.shares.wide.height < 1000


def test_layers_are_the_bounds():
    audit = BOUNDS["bound"]()
    for line, f in zip(view_of(audit).factors, audit.bound.factors, strict=True):
        assert (line.node, line.op, line.method, line.kind, line.rigorous) == (f.node, f.op, f.method, f.kind, f.rigorous)
        assert (line.norm, line.log10) == (upper(f.log10_norm), log_text(f.log10_norm))
    assert "no, for information" in section(render_html(audit)).text


def test_closed_forms_are_listed_by_name_without_a_ranking():
    audit = BOUNDS["bound"]()
    view = view_of(audit)
    assert [f.log10 for f in view.forms if f.log10 != "no layer of this kind"] == [
        log_text(f.log10_lipschitz) for f in audit.closed_forms if f.log10_lipschitz is not None
    ]
    assert [f.family for f in view.forms] == sorted(f.family for f in view.forms)
    assert [f.family for f in view.forms if f.own] == ["ResNet-like"]
    text = section(render_html(audit)).text
    assert not re.search(r"\b(best|worst|better|worse|more robust|less robust|winner|rank\w*)\b", text, re.I)


def test_bounds_of_samples_are_compared_where_they_exist():
    audit = with_bound(make_audit(4))
    own = [math.log10(s.lambda_max.value) + 2 for s in audit.samples]
    audit = replace(
        audit, samples=tuple(replace(s, log10_fisher_bound=bound_of(b)) for s, b in zip(audit.samples, own, strict=True))
    )
    tiles = {t.label: t.quantity.text for t in view_of(audit).tiles}
    assert tiles["Bound / measured, by sample"] == "2.0 decades"


def test_zero_and_empty_bounds_print():
    audit = BOUNDS["bound"]()
    zero = replace(audit.bound, log10_lipschitz=LOG10_ZERO, log10_fisher=LOG10_ZERO, factors=(), shares=())
    text = section(render_html(replace(audit, bound=zero))).text
    assert "−∞" in text
    assert "No layer could be bounded" in text


def test_hostile_names_do_nothing():
    html = render_html(BOUNDS["bound-hostile"]())
    shown = read(html)
    assert shown.problems == []
    assert foreign_scripts(shown.elements) == []
    assert not [e for e in shown.elements if any(a.startswith("on") for a in e.attributes)]
    text = section(html).text
    for raw in HOSTILE[:3]:
        assert raw in text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08]", html)
    html.encode("utf-8")


def test_sizes():
    audit = BOUNDS["bound-deep"]()
    long = "/very/deep/module" * 20
    factors = tuple(Factor(f"{long}/{i}", "Conv", (512, 512, 3, 3), 0.3, "m" * 80, "linear") for i in range(3000))
    shares = tuple(Share(f"{long}/{i}", "Conv", 0.1, 0.1 * i, 2) for i in range(3000))
    html = render_html(replace(audit, bound=replace(audit.bound, factors=factors, shares=shares)))
    assert len(html.encode()) < 2_000_000


def test_rounding_is_no_violation():
    audit = BOUNDS["bound"]()
    top = max(s.lambda_max.value for s in audit.samples)
    tie = replace(audit.bound, log10_fisher=math.log10(top) - 1e-6)
    assert "cannot be" not in view_of(replace(audit, bound=tie)).answer


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_a_page_of_the_bound_alone(name):
    audit = BOUNDS[name]()
    html = render_bounds_html(HOSTILE[0], "abc", GraphReading(audit.architecture, audit.bound, audit.closed_forms))
    page = read(html)
    assert page.problems == []
    assert foreign_scripts(page.elements) == []
    assert HOSTILE[0] in page.elements[0].text
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    assert not any("measured" in t.label for t in view_without(audit).tiles)


def view_without(audit):
    return view_of(replace(audit, samples=()))
