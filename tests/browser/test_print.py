"""Pages on paper, as Chromium prints them: sheets, their numbers, headings with what they head, tables in one piece."""

import io
import re
import unicodedata

import pytest

from tests.support.places import DEV

pytest.importorskip("selenium", reason=DEV.reason)

from tests.browser.browser import PAPER

pypdf = DEV.load("pypdf")

#: Pages of a hundred samples: with all that an audit can hold, and with less.
HUNDRED = ("audit-bound", "audit-flips", "audit-gated", "audit-labelled", "audit-some-nulls", "audit-fallback")
#: Puts a mark into every heading and one at what follows it, one into every table's caption and one into its last row.
MARKS = """
const mark = (name) => { const s = document.createElement('span'); s.textContent = name; s.style.fontSize = '2px'; return s; };
document.querySelectorAll('section.fold > details').forEach(d => d.open = true);
const seen = (e) => e.checkVisibility() && e.getBoundingClientRect().height > 2;
let n = 0;
const all = [...document.querySelectorAll('h1, h2, h3, h4, h5, p, dt, li, caption, figure')].filter(seen);
all.forEach((e, i) => {
  if (!/^H\\d$/.test(e.tagName) || e.classList.contains('sr')) return;
  const next = all.slice(i + 1).find(o => !e.contains(o));
  if (!next) return;
  n += 1;
  e.append(mark(` qh${n}q`));
  next.prepend(mark(`qn${n}q `));
});
let t = 0;
for (const table of document.querySelectorAll('table')) {
  const rows = [...table.querySelectorAll('tbody tr')].filter(seen);
  if (!rows.length || !seen(table) || table.offsetHeight > 0.9 * innerHeight) continue;  // more than a sheet holds
  t += 1;
  table.caption.append(mark(` qc${t}q`));
  rows[rows.length - 1].cells[0].append(mark(` qr${t}q`));
}
return [n, t];
"""


def sheets(browser):
    """The texts of the printed sheets."""
    return [unicodedata.normalize("NFKC", page.extract_text()) for page in pypdf.PdfReader(io.BytesIO(browser.pdf())).pages]


def places(texts, kind):
    """The sheet of each mark of a kind."""
    return {int(number): at for at, text in enumerate(texts) for number in re.findall(rf"q{kind}(\d+)q", text)}


@pytest.mark.parametrize("name", HUNDRED)
def test_a_hundred_samples_fill_eight_sheets_at_most(plain, site, name):
    plain.open(site.file(name))
    texts = sheets(plain)
    assert 3 <= len(texts) <= 8
    assert [re.search(r"(\d+) / (\d+)", text).groups() for text in texts[1:]] == [
        (str(i), str(len(texts))) for i in range(2, len(texts) + 1)
    ]
    assert "Contents" in texts[0]
    assert "digits_resnet" in texts[0]


@pytest.mark.parametrize("name", [*HUNDRED, "audit-one", "audit-thousand", "audit-tokens", "audit-hostile"])
def test_no_heading_is_last_on_its_sheet_and_no_table_is_split(plain, site, name):
    plain.open(site.file(name))
    plain.look(size=PAPER, media="print")
    headings, tables = plain.run(MARKS)
    texts = sheets(plain)
    heads, followers = places(texts, "h"), places(texts, "n")
    assert len(heads) == len(followers) == headings > 8
    assert {n: at for n, at in heads.items() if followers[n] != at} == {}
    captions, rows = places(texts, "c"), places(texts, "r")
    assert len(captions) == len(rows) == tables
    assert {n: at for n, at in captions.items() if rows[n] != at} == {}


@pytest.mark.parametrize("name", ["comparison", "comparison-eight", "conformity"])
def test_other_pages_have_no_orphans_either(plain, site, name):
    plain.open(site.file(name))
    plain.look(size=PAPER, media="print")
    headings, tables = plain.run(MARKS)
    texts = sheets(plain)
    heads, followers = places(texts, "h"), places(texts, "n")
    assert len(heads) == len(followers) == headings >= 4
    assert {n: at for n, at in heads.items() if followers[n] != at} == {}
    captions, rows = places(texts, "c"), places(texts, "r")
    assert len(captions) == len(rows) == tables > 0
    assert {n: at for n, at in captions.items() if rows[n] != at} == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [("conformity", ("Digits, release 1.4", "5d41c0aa91be")), ("comparison-eight", ("Eight models", "0123456789ab"))],
)
def test_every_sheet_of_other_pages_names_its_report(plain, site, name, words):
    plain.open(site.file(name))
    first, *others = sheets(plain)
    assert all(w in first for w in words)
    assert others
    for at, text in enumerate(others, 2):
        assert f"report {words[1]}" in text
        assert f"{at} / {len(others) + 1}" in text


def test_no_heading_on_paper_heads_nothing(plain, site):
    plain.open(site.file("comparison-eight"), size=PAPER, media="print")
    empty = plain.run(
        "return [...document.querySelectorAll('main section')].filter(s => s.checkVisibility()"
        " && ![...s.children].some(e => e.checkVisibility() && !/^H\\d$/.test(e.tagName) && e.getBoundingClientRect().height > 2))"
        ".map(s => s.id)"
    )
    assert empty == []


def test_the_marks_tell_an_orphan(plain, tmp_path):
    """The check of the test above: a page whose heading stands alone does not pass it."""
    page = tmp_path / "orphan.html"
    page.write_text(
        "<!DOCTYPE html><style>@page { size: A4; margin: 10mm } div { height: 900px } p { break-before: page }</style>"
        "<body><div></div><h2>Alone</h2><p>what it heads</p>"
    )
    plain.open(page.as_uri())
    plain.run(MARKS)
    texts = sheets(plain)
    assert places(texts, "h")[1] != places(texts, "n")[1]


def test_the_title_page_says_which_report_it_is(plain, site):
    plain.open(site.file("audit-identified"))
    first, *others = sheets(plain)
    for words in ("Quarterly check", "2026-03-01 12:00:00 UTC", "0123456789abcdef" * 4, "onnxfim audit", "purpose", "acceptance"):
        assert re.sub(r"\s", "", words) in re.sub(r"\s", "", first)
    assert all("Quarterly check" in text and "report 0123456789ab" in text for text in others)
