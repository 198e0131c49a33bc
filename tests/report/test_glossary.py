import re

import pytest

from onnxfim.report import render_html
from onnxfim.report.glossary import TERMS, Explainer, with_symbols
from tests.support.audits import VARIANTS
from tests.support.pages import page_of, read


def test_a_word_is_explained_where_it_is_first_met_and_nowhere_else():
    explain = Explainer()
    first, again = explain("The flip radius is 3 nats."), explain("A flip radius of 4 nats.")
    assert re.findall(r'href="#term-([\w-]+)"', first) == ["flip-radius", "nat"]
    assert "<a" not in again
    assert [t.id for t in explain.met] == ["flip-radius", "nat"]


def test_the_longer_word_wins_and_parts_of_words_are_none():
    assert re.findall(r'href="#term-([\w-]+)"', Explainer()("calibrated λ_max")) == ["calibrated"]
    assert re.findall(r'href="#term-([\w-]+)"', Explainer()("nation, gateway, KLM")) == []


def test_names_of_statistics_are_no_words():
    """What a user types into a gate is printed as it is typed."""
    told = str(Explainer()("60 samples do not bound lambda_max.p95; gate lambda_max.median instead"))
    assert "lambda_max.p95" in told
    assert "lambda_max.median" in told


def test_foreign_text_stays_text():
    shown = Explainer()("<b>trace</b> & λ_max")
    assert shown.startswith("&lt;b&gt;<dfn>")
    assert "&amp; <dfn>" in shown
    assert "<b>" not in shown


def test_without_a_glossary_only_symbols_are_set():
    assert Explainer(active=False)("the trace of λ_max") == "the trace of λ<sub>max</sub>"
    assert with_symbols("lambda_max is not lambda_max.p95") == "λ<sub>max</sub> is not lambda_max.p95"


def test_terms_are_told_apart():
    assert len({t.id for t in TERMS}) == len({t.name for t in TERMS}) == len(TERMS)
    for term in TERMS:
        assert re.fullmatch(r"[a-z0-9-]+", term.id)
        assert term.definition.endswith(".")
        assert len(term.definition) > 20


def test_every_explained_word_of_a_page_has_its_place(audit):
    elements = page_of(audit)[1].elements
    linked = [e.attributes["href"][1:] for e in elements if e.attributes.get("class") == "term"]
    explained = [e.attributes["id"] for e in elements if e.attributes.get("id", "").startswith("term-")]
    assert len(linked) == len(set(linked))
    assert set(linked) == set(explained)
    assert linked or not audit.measured


@pytest.mark.parametrize("variant", ["exact", "labelled"])
def test_the_glossary_holds_only_words_that_are_met(variant):
    page = read(render_html(VARIANTS[variant]()))
    explained = {e.attributes["id"] for e in page.elements if e.attributes.get("id", "").startswith("term-")}
    assert "term-attack" not in explained
