"""The card that a notebook shows: it says what the report says, and touches nothing around it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import onnxfim
from onnxfim.report.comparison_words import SIGNS_NOTE, ranking_units, standings
from onnxfim.report.notebook import card, style
from onnxfim.report.numbers import number, percent
from onnxfim.report.vocabulary import VERDICT_WORDS
from onnxfim.verdict.compare import compare
from tests.support.audits import HOSTILE, make_audit, with_flips
from tests.support.pages import read
from tests.support.places import DEV, SAMPLES


def test_every_audit_has_a_card(audit):
    text = audit._repr_html_()
    tree = read(text)
    assert tree.problems == []
    assert f"<strong>{VERDICT_WORDS[audit.verdict]}</strong>" in text
    assert not {e.tag for e in tree.elements} & {"script", "iframe", "link", "object", "img"}
    assert not [a for e in tree.elements for a in e.attributes if a.startswith("on") or a in ("src", "href")]
    assert "\n\n" not in text, "an empty line ends HTML in Markdown"
    ids = [e.attributes["id"] for e in tree.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for name in HOSTILE:
        if "<" in name and any(name in n for n in (audit.data.class_names or ())):
            assert name not in text


def test_it_tells_the_numbers_of_the_audit():
    audit = make_audit(40)
    text = audit._repr_html_()
    lead = audit.aggregates["lambda_max_calibrated"]
    assert f"<strong>{number(lead.mean.value)}</strong>" in text
    assert f"{number(lead.mean.low)} to {number(lead.mean.high)}" in text
    assert f"<strong>{number(audit.aggregates['boundary_distance'].median.value)}</strong>" in text
    assert percent(audit.calibration.accuracy) in text
    assert all(f.level in text for f in audit.findings)
    (kind,) = {s.lambda_max.kind for s in audit.samples}
    assert kind in text
    assert "<svg" in text


def test_foreign_names_are_escaped():
    audit = make_audit(5)
    evil = replace(
        audit, model=replace(audit.model, name="</div><script>alert(1)</script>"), data=replace(audit.data, source="<img src=x>")
    )
    text = evil._repr_html_()
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text


def test_findings_that_are_errors_are_open():
    audit = make_audit(5)
    finding = replace(audit.findings[0], level="error", message="Mind this.")
    assert "<details open>\n<summary>What to know" in replace(audit, findings=(finding,))._repr_html_()
    assert "<details>\n<summary>What to know" in replace(audit, findings=(replace(finding, level="note"),))._repr_html_()


def test_every_rule_is_of_the_card_alone():
    text = make_audit(5)._repr_html_()
    css = re.sub(r"/\*.*?\*/", "", re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1), flags=re.DOTALL)
    flat = re.sub(r"@media[^{]*\{((?:[^{}]*\{[^{}]*\})*)[^{}]*\}", r"\1", css)
    selectors = [s.strip() for rule in re.findall(r"([^{}]+)\{[^{}]*\}", flat) for s in rule.split(",")]
    assert len(selectors) > 30
    assert [s for s in selectors if ".onnxfim-card.onnxfim-card" not in s] == []


def test_all_colours_are_known_in_light_and_in_dark():
    used = set(re.findall(r"var\(--([\w-]+)\)", make_audit(5)._repr_html_()))
    blocks = [set(re.findall(r"--([\w-]+):", body)) for body in re.findall(r"\{([^{}]*)\}", style()) if "color-scheme" in body]
    assert len(blocks) == 5, "light, dark by the system, dark and light by the notebook, print"
    assert all(used <= block for block in blocks)


def test_the_survival_curve_comes_first_and_its_lines_are_named():
    text = card(with_flips(make_audit(30)))
    assert text.index('id="onnxfim-survival-') < text.index('id="onnxfim-distribution-')
    caption = "Samples left after a change of length ε. Solid: moves tried (upper bound); dotted: boundary, first order (estimate)."
    assert caption in text


def test_a_comparisons_card_orders_as_its_page_does():
    audits = [with_flips(make_audit(30, seed=s)) for s in range(4)]
    comparison = compare([replace(a, model=replace(a.model, name=f"m{k}.onnx")) for k, a in enumerate(audits)])
    text = card(comparison)
    places = [text.index(f"{k}. {s.name}<") for k, s in enumerate(standings(comparison), 1)]
    assert places == sorted(places)
    assert ranking_units(comparison) in text
    assert SIGNS_NOTE.replace("'", "&#39;") in text


def test_a_comparison_and_a_bound_have_cards():
    pair = compare([make_audit(30, seed=1), make_audit(30, seed=2)])
    for result in (pair, onnxfim.bounds(SAMPLES / "digits_mlp.onnx")):
        assert read(result._repr_html_()).problems == []
    assert all(e.name in pair._repr_html_() for e in pair.entries)
    text = card(onnxfim.bounds(SAMPLES / "digits_mlp.onnx"))
    assert "MLP" in text
    assert "Assumption" in text


@pytest.mark.slow
@pytest.mark.untraced
def test_a_notebook_shows_it(tmp_path, monkeypatch):
    """As a kernel does it: the output of a cell whose last line is the audit."""
    nbclient = DEV.load("nbclient")
    DEV.load("ipykernel")
    import nbformat

    make_audit(5).save(tmp_path / "a.json")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import onnxfim\nonnxfim.Audit.load('a.json')")])
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    done = nbclient.NotebookClient(
        made, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = done.cells[0].outputs[0].data
    assert shown["text/html"].startswith('<div class="onnxfim-card">')
    assert shown["text/plain"].startswith("<Audit of")
