"""What a comparison decided, on every surface: one answer, one set of numbers, whole at any number of models."""

import csv
import io
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from onnxfim.record.decision import Aggregate
from onnxfim.report.charts.decision_charts import accuracy_scatter, decision_matrix, forest
from onnxfim.report.charts.marks import NARROW, WIDE
from onnxfim.report.comparison_csv import MODELS, PAIRS, render_comparison_csv, render_pairs_csv
from onnxfim.report.comparison_html import render_comparison_html
from onnxfim.report.comparison_markdown import render_comparison_markdown
from onnxfim.report.comparison_words import headline, names_of, sentences, shortened, sign_of, terminal_lines
from onnxfim.report.comparison_words import test_words as words_of_test
from onnxfim.report.numbers import p_words
from onnxfim.verdict.compare import compare
from tests.support.audits import hostile, make_audit, with_flips
from tests.support.pages import foreign_scripts, read
from tests.support.small_audits import with_values


def farther(audit, factor, name, rng, spread=0.1):
    """The audit of a model whose boundary distances are ``factor`` times as far, and its λ_max as much lower."""
    values = [s.boundary_distance.value * factor * np.exp(rng.normal(0, spread)) for s in audit.samples]
    found = with_values(audit, values, measure="boundary_distance")
    lower = [s.lambda_max_calibrated.value / factor**2 * np.exp(rng.normal(0, spread)) for s in audit.samples]
    found = with_values(found, lower)
    group = found.aggregates["boundary_distance"]
    median = Aggregate(float(np.median(values)), float(np.quantile(values, 0.4)), float(np.quantile(values, 0.6)))
    groups = {**found.aggregates, "boundary_distance": replace(group, median=median)}
    return replace(found, model=replace(audit.model, name=name, path=f"models/{name}"), aggregates=groups)


def field(factors, n=60):
    rng = np.random.default_rng(0)
    audit = make_audit(n)
    return [farther(audit, f, f"net_{k}_of_a_family_with_long_names.onnx", rng) for k, f in enumerate(factors)]


@pytest.fixture(scope="module")
def four():
    return compare(field([1.0, 1.0, 2.0, 0.5]))


@pytest.fixture(scope="module")
def twenty():
    return compare(field(np.geomspace(0.5, 2, 20)))


def test_the_answer_names_the_most_robust_and_how_sure_that_is(four):
    assert re.fullmatch(r"net_2\S* is the most robust of 4: decided against every other \(p [=<] .*\)\.", headline(four))
    assert sentences(four)[0] == "5 of 6 pairs decided; the chance that any of them is decided wrongly is at most 2.5\xa0%."


def test_a_leader_that_is_not_told_apart_is_no_winner():
    found = compare(field([1.0, 1.0, 0.5]))
    assert " leads, but is not told apart from " in headline(found)
    alike = compare(field([1.0, 1.0, 1.0]))
    assert headline(alike).startswith("No model is shown to be the most robust; ")


def test_two_models_are_told_with_their_ratio():
    assert re.fullmatch(
        r"net_1\S* is more robust than net_0\S*\. net_1\S* against net_0\S*: boundary distance: 1\.9\d times as far \(.*\), p < 10⁻⁹"
        r"; on the 59 samples that both predict rightly\.",
        headline(compare(field([1.0, 1.95]))),
    )
    same = field([1.0])
    assert headline(compare([same[0], same[0]])).endswith("are equal on every sample.")
    assert "neither is shown to be more robust" in headline(compare(field([1.0, 1.0])))


def test_models_whose_short_names_are_the_same_are_told_apart_in_the_terminal():
    audits = field([1.0, 1.0, 2.0, 0.5])
    names = [f"digits_network_version_{v}_of_a_family_with_longish_names" for v in ("a", "b", "c")] + ["plain"]
    audits = [replace(a, model=replace(a.model, name=n)) for a, n in zip(audits, names, strict=True)]
    lines = list(terminal_lines(compare(audits)))
    start = next(k for k, line in enumerate(lines) if line.startswith("rank "))
    assert max(map(len, lines)) <= 80
    column = lines[start].index("model")
    width = lines[start].index("median") - column - 2
    told = "".join(line[column : column + width].strip() for line in lines[start + 1 :])
    assert all(name in told for name in names)


def test_against_a_baseline_only_its_pairs_are_tested():
    audits = field([1.0, 1.0, 2.0, 0.5])
    found = compare(audits, baseline=audits[0].model.name)
    assert headline(found) == f"Against {names_of(found)[0]}: 1 of 3 models more robust, 1 less, 1 not decided."
    assert {(p.first, p.second) for p in found.pairs} == {(0, 1), (0, 2), (0, 3)}
    whole = compare(audits)
    for pair in found.pairs:  # fewer tests, smaller corrections
        same = next(p for p in whole.pairs if (p.first, p.second) == (pair.first, pair.second))
        assert pair.decided.measures[0].p == same.decided.measures[0].p
        assert pair.decided.measures[0].p_adjusted <= same.decided.measures[0].p_adjusted
    assert sign_of(found, 1, 2) == ""


@pytest.mark.parametrize("many", ["four", "twenty"])
def test_the_terminal_holds_it_within_its_width(many, request):
    lines = list(terminal_lines(request.getfixturevalue(many)))
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40
    table = next(k for k, line in enumerate(lines) if line.startswith("rank"))
    assert len(lines) - table - 1 == len(request.getfixturevalue(many).entries)
    assert "most robust" in lines[0] or "leads" in lines[0]


@pytest.mark.parametrize("width", [44, 60, 80])
def test_a_narrow_terminal_keeps_the_rank_the_name_and_the_distance(width, request):
    many = request.getfixturevalue("four")
    lines = list(terminal_lines(many, width=width))
    table = next(k for k, line in enumerate(lines) if line.startswith("rank"))
    # A name that would look like another's goes on in lines of its own, which begin with blanks.
    body = lines[table + 1 : next((k for k, line in enumerate(lines) if k > table and line[:1].isalpha()), len(lines))]
    rows = [line for line in body if line[:1].isdigit()]
    assert len(rows) == len(many.entries)
    assert max(map(len, [*lines[: table + 1], *body])) <= width
    assert "median" in lines[table]
    assert all("(" in row for row in rows)
    assert ("accuracy" in lines[table]) == (width > 44)


def test_two_models_are_not_told_the_same_test_twice():
    audits = [with_flips(make_audit(60, seed=0)), with_flips(make_audit(60, seed=1))]
    text = " ".join(" ".join(terminal_lines(compare(audits), width=80)).split())
    assert "the other measures" in text
    for test in compare(audits).pairs[0].decided.measures:
        assert text.count(words_of_test(test)) == 1


def test_names_keep_both_ends():
    assert shortened("resnet_trained_long_v17", 11) == "resne…g_v17"
    assert shortened("short", 11) == "short"


def test_p_values_are_not_believed_beyond_what_few_samples_tell():
    assert p_words(1e-300) == "p < 10⁻⁹"
    assert p_words(0.0312) == "p = 0.031"


def test_csv_has_one_line_a_model_and_reads_back(four):
    rows = list(csv.DictReader(io.StringIO(render_comparison_csv(four))))
    assert tuple(rows[0]) == MODELS
    assert [r["name"] for r in rows] == [four.entries[i].name for i in four.order]
    assert [int(r["rank"]) for r in rows] == [1, 2, 3, 4]
    assert float(rows[0]["boundary_distance"]) == four.entries[four.order[0]].boundary_distance.value
    assert [int(r["decided_better_than"]) for r in rows] == [3, 1, 1, 0]


def test_pairs_csv_has_one_line_a_test(four):
    rows = list(csv.DictReader(io.StringIO(render_pairs_csv(four))))
    assert tuple(rows[0]) == PAIRS
    tests = [t for p in four.pairs for t in p.decided.measures]
    assert [float(r["p_adjusted"]) for r in rows] == [t.p_adjusted for t in tests]
    assert {r["better"] for r in rows if r["first"].startswith("net_0") and r["second"].startswith("net_2")} == {
        four.entries[2].name
    }


def test_the_matrix_is_the_decisions(four):
    for width in (WIDE, NARROW):
        chart = decision_matrix(four, width=width)
        marks = [label.text for label in chart.labels if label.role == "mark"]
        assert (marks.count("+"), marks.count("−"), marks.count("·")) == (5, 5, 2)
        assert len(chart.bars) == 16
        assert all(b.x + b.width <= width and b.y + b.height <= chart.height for b in chart.bars)
        assert "5 of 6 pairs decided" in chart.description


def test_signs_turn_with_the_sides(four):
    turned = {"+": "−", "−": "+", "·": "·", "≠": "≠", "": ""}
    for i in range(4):
        for j in range(4):
            assert sign_of(four, i, j) == turned[sign_of(four, j, i)]


def test_accuracy_stands_beside_robustness_with_both_intervals(four):
    chart = accuracy_scatter(four, width=WIDE)
    assert len(chart.paths) == 4
    assert len([s for s in chart.segments if s.role == "raw"]) == 8
    assert all(names in chart.description for names in names_of(four))
    unlabelled = [make_audit(30, labels=False, seed=s) for s in (0, 1)]
    assert accuracy_scatter(compare([replace(a, data=unlabelled[0].data) for a in unlabelled]), width=WIDE) is None


def test_the_forest_points_one_way_whatever_the_measure():
    found = compare(field([1.0, 2.0]))
    for against, side in ((0, 1), (1, -1)):
        chart = forest(found, against, width=WIDE)
        one = next(s.x1 for s in chart.segments if s.role == "chosen")
        places = [float(re.match(r"M([\d.]+)", p.data).group(1)) + 4 for p in chart.paths]
        assert len(places) == 3
        assert all((x - one) * side > 0 for x in places), "distances are longer and λ_max is lower in the same model"


def test_the_page_is_whole_without_a_script(twenty):
    page = read(render_comparison_html(twenty, script=False))
    assert not page.problems
    assert foreign_scripts(page.elements) == []
    tables = [e for e in page.elements if e.tag == "table" and "sortable" in e.attributes.get("class", "").split()]
    assert len(tables) >= 3
    assert len([e for e in page.elements if e.tag == "details"]) >= 6, "what 20 models would fill pages with is folded"
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    assert len(render_comparison_html(twenty).encode()) < 1_500_000


def test_every_surface_has_the_answer(four):
    html, markdown = render_comparison_html(four), unescape(render_comparison_markdown(four).replace("\\", ""))
    text = next(e.text for e in read(html).elements if e.tag == "main")
    for told in (headline(four), *sentences(four)):
        assert told in text
        assert told in markdown
    for name in names_of(four):
        assert f"{name} |" in markdown


def test_markdown_of_twenty_models_is_short(twenty):
    assert len(render_comparison_markdown(twenty).splitlines()) <= 70


def test_hostile_names_are_inert_in_every_new_place():
    audits = [hostile(make_audit(30, seed=s)) for s in (0, 1, 2)]
    result = compare([replace(a, data=audits[0].data) for a in audits])
    page = read(render_comparison_html(result, script=False))
    assert not page.problems
    assert foreign_scripts(page.elements) == []
    assert {"img", "b"}.isdisjoint(e.tag for e in page.elements)
    for text in (render_comparison_csv(result), render_pairs_csv(result), "\n".join(terminal_lines(result))):
        assert "\u202e" not in text
        assert "\x07" not in text
