import base64
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from onnxfim.errors import OutputError
from onnxfim.record.audit import Thumbnail
from onnxfim.report import html as html_module
from onnxfim.report import render_html
from tests.support.audits import HOSTILE, VARIANTS, make_audit
from tests.support.pages import foreign_scripts, page_of, read

SAFE_TAGS = frozenset(
    """
    html head meta title style body a header main footer section nav p h1 h2 h3 div span strong code bdi sub dl dt dd ul ol li
    h4 h5 dfn script table caption thead tbody tr th td figure figcaption details summary img svg desc line rect path text tspan
    """.split()  # noqa: SIM905 (a list of fifty quoted names reads worse)
)


def text_of(html):
    return next(e for e in read(html).elements if e.tag == "body").text


def test_every_element_is_closed_in_its_order(audit):
    assert page_of(audit)[1].problems == []


def test_nothing_is_fetched_and_nothing_runs(audit):
    elements = page_of(audit)[1].elements
    assert {e.tag for e in elements} <= SAFE_TAGS
    for e in elements:
        assert not [name for name in e.attributes if name.startswith("on") or name in ("style", "srcset", "action", "formaction")]
        for name in ("href", "src", "xlink:href"):
            assert e.attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), e
    style = next(e for e in elements if e.tag == "style").text
    assert "url(" not in style
    assert "@import" not in style
    assert foreign_scripts(elements) == []
    policy = next(e for e in elements if e.attributes.get("http-equiv") == "Content-Security-Policy")
    directives = policy.attributes["content"].split("; ")
    assert directives[:3] == ["default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"]
    assert directives[3].startswith("script-src 'sha256-")
    assert len(directives) == 4


def test_a_page_without_a_script_lets_none_run():
    html = render_html(make_audit(5), script=False)
    elements = read(html).elements
    policy = next(e for e in elements if e.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "script" not in {e.tag for e in elements}
    assert "runs no script" in text_of(html)


def test_links_land_and_ids_are_unique(audit):
    elements = page_of(audit)[1].elements
    ids = [e.attributes["id"] for e in elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    targets = [e.attributes["href"][1:] for e in elements if e.tag == "a"]
    referred = [i for e in elements for i in e.attributes.get("aria-labelledby", "").split()]
    assert targets
    assert set(targets) | set(referred) <= set(ids)


def test_charts_and_pictures_have_text_alternatives(audit):
    elements = page_of(audit)[1].elements
    for chart in (e for e in elements if e.tag == "svg"):
        assert chart.attributes.get("aria-hidden") == "true" or chart.attributes["role"] == "img"
    charts = [e for e in elements if e.tag == "svg" and e.attributes.get("role") == "img"]
    assert charts  # the curve is there even where no sample was measured
    named = {e.attributes["id"]: e.text for e in elements if e.tag in ("title", "desc") and "id" in e.attributes}
    for chart in charts:
        title, description = (named[i] for i in chart.attributes["aria-labelledby"].split())
        assert len(title) > 10
        assert len(description) > 20
    assert all(len(e.attributes["alt"]) > 10 for e in elements if e.tag == "img")


def test_tables_name_their_columns_and_rows(audit):
    elements = page_of(audit)[1].elements
    tables = sum(e.tag == "table" for e in elements)
    assert sum(e.tag == "caption" for e in elements) == tables
    assert all(e.attributes.get("scope") in ("row", "col") for e in elements if e.tag == "th")
    regions = [e for e in elements if e.attributes.get("role") == "region"]
    assert len(regions) == tables
    assert all(e.attributes["tabindex"] == "0" for e in regions)  # what scrolls can be reached from the keyboard


def test_headings_descend_one_level_at_a_time(audit):
    levels = [int(e.tag[1]) for e in page_of(audit)[1].elements if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_hostile_text_is_printed_and_does_nothing():
    html = render_html(VARIANTS["hostile"]())
    shown = text_of(html)
    for raw in HOSTILE[:3] + HOSTILE[4:6]:
        assert raw in shown
    assert "49{% raw %}" not in shown  # what {{7*7}} would have become
    assert "abc\\u202egnp.exe\\u2066" in shown
    assert "nul\\u0000bell\\u0007lone\\udc80" in shown
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00-\x08]", html)
    html.encode("utf-8")  # a lone surrogate of a file name would raise


def test_the_verdict_is_a_word_with_a_sign(audit):
    elements = page_of(audit)[1].elements
    word = next(e for e in elements if e.attributes.get("id") == "verdict-word")
    assert word.text == audit.verdict.capitalize()
    section = next(e for e in elements if e.attributes.get("id") == "summary")
    for question in ("Is it sensitive?", "How sure is that?", "Why?", "What now?"):
        assert question in section.text


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("synthetic", "This report describes no real input"),
        ("synthetic", "This run was interrupted"),
        ("unlabelled", "No labels: only raw values exist"),
        ("nulls", "λmax of 30 of 30 samples could not be measured"),
        ("nulls", "no direction changed any output at r = 0.001"),
        ("some-nulls", "λmax of 30 of 100 samples could not be measured"),
        ("fallback", "Provider cuda was asked for and not obtained"),
        ("fallback", "libcudart.so.12 was not found"),
    ],
)
def test_what_must_be_known_first_stands_before_the_verdict(variant, words):
    shown = text_of(render_html(VARIANTS[variant]()))
    assert words in shown[: shown.index("Is it sensitive?")]


def test_a_silent_provider_choice_is_no_fallback():
    audit = make_audit(5)  # asked for "auto"
    assert "not obtained" not in text_of(render_html(audit))


def test_null_is_never_printed_as_zero():
    page = read(render_html(VARIANTS["nulls"]()))
    section = next(e for e in page.elements if e.attributes.get("id") == "samples")
    cells = [e.text for e in page.elements if e.tag == "span" and "value" in e.attributes.get("class", "") and "tbody" in e.inside]
    assert "not measured" in section.text
    assert "0" not in cells


def test_size():
    audit = make_audit(1000)
    rng = np.random.default_rng(0)  # photographs of noise: what compresses worst
    indices = [t.index for t in audit.thumbnails]
    pictures = tuple(Thumbnail(i, 224, 224, 3, tuple(rng.integers(0, 256, 224 * 224 * 3).tolist())) for i in indices)
    assert len(render_html(replace(audit, thumbnails=pictures)).encode()) < 2_000_000


def test_the_sample_table_is_capped_and_says_where_the_rest_is():
    page = read(render_html(make_audit(1000)))
    rows = [e for e in page.elements if e.tag == "tr" and e.inside.count("tbody")]
    section = next(e for e in page.elements if e.attributes.get("id") == "samples")
    assert "The 200 most sensitive of 1,000 samples" in section.text
    assert "JSON" in section.text
    assert len(rows) < 240


def test_assets_beside_the_page(tmp_path):
    audit = make_audit(30)
    folder = tmp_path / "report_files"
    html = render_html(audit, assets_dir=folder)
    elements = read(html).elements
    assert "<style" not in html
    assert "data:" not in html
    link = next(e for e in elements if e.tag == "link")
    used = {link.attributes["href"]} | {e.attributes["src"] for e in elements if e.tag == "img"}
    used.add(next(e.attributes["src"] for e in elements if e.tag == "script"))
    assert used == {f"report_files/{p.name}" for p in folder.iterdir()}
    assert (folder / "report.js").read_text() == html_module.source("tables.js")
    assert all((tmp_path / u).stat().st_size for u in used)
    inline = page_of(audit)[1].elements
    embedded = [base64.b64decode(e.attributes["src"].split(",")[1]) for e in inline if e.tag == "img"]
    assert embedded == [(tmp_path / e.attributes["src"]).read_bytes() for e in elements if e.tag == "img"]


def test_assets_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"taken.*cannot be written.*Give a folder that can be"):
        render_html(make_audit(2), assets_dir=tmp_path / "taken")


def test_missing_templates_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(html_module, "TEMPLATE_FOLDERS", (tmp_path,))
    html_module.environment.cache_clear()
    try:
        with pytest.raises(OutputError, match=r"report\.css: .*Install onnxfim anew"):
            render_html(make_audit(2))
    finally:
        html_module.environment.cache_clear()


def test_the_same_audit_gives_the_same_page():
    assert render_html(make_audit(20)) == render_html(make_audit(20))
