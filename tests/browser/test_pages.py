"""Every page in a real browser: with scripts blocked, behind a strict policy, on a phone, on paper, by keyboard."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from tests.support.places import DEV

pytest.importorskip("selenium", reason=DEV.reason)

from onnxfim.report.dossier import NAMES as DOSSIER
from tests.browser.browser import DESKTOP, PAPER, PHONE
from tests.browser.site import PAGES, POLICY

SCHEMES = ("light", "dark")
NARROWEST = (320, 800)  # WCAG 2.2, 1.4.10
LAPTOP = (1280, 900)
pages = pytest.mark.parametrize("name", sorted(PAGES))
#: What lies out of the window at the right, and is not inside something that scrolls by itself.
OVERFLOW = """
const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5
  && e.checkVisibility() && !e.closest('.scroll') && !e.closest('svg svg, svg *') && !e.closest('.sr, .skip'));
return [document.documentElement.scrollWidth - innerWidth, wide.slice(0, 5).map(e => e.outerHTML.slice(0, 120))];
"""
#: Texts of drawings that leave their drawing, and pairs of them that lie on each other.
LABELS = """
const found = [];
for (const svg of document.querySelectorAll('svg.chart')) {
  if (!svg.checkVisibility()) continue;
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  for (const [text, r] of texts)
    if (r.left < frame.left - 1 || r.right > frame.right + 1 || r.top < frame.top - 1 || r.bottom > frame.bottom + 1)
      found.push(`${svg.querySelector('title').textContent}: ${text} is cut off`);
  texts.forEach(([text, a], i) => texts.slice(i + 1).forEach(([other, b]) => {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 4) found.push(`${svg.querySelector('title').textContent}: ${text} on ${other}`);
  }));
}
return found;
"""
#: What can be focussed, in the order in which it stands; what a browser makes focusable by itself (a scroller) is not asked for.
FOCUSABLE = "a[href], summary, [tabindex='0']"
FOCUSED = """
const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
return [[...document.querySelectorAll(arguments[0])].indexOf(e), style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
  box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth];
"""
OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true);"


@pages
def test_renders_as_a_file_with_scripts_blocked(plain, site, name):
    address = site.file(name)
    plain.open(address)
    assert plain.complaints() == []
    assert plain.requests() == [address]
    title, heading, sections = plain.run(
        "return [document.title, document.querySelector('h1').getBoundingClientRect().height,"
        " [...document.querySelectorAll('main > section')].map(s => s.getBoundingClientRect().height)]"
    )
    assert title
    assert heading > 20
    assert sections
    assert min(sections) > 40


@pages
def test_renders_behind_a_policy_without_inline_styles(plain, site, name):
    address = site.served(name)
    site.asked.clear()
    plain.open(address)
    assert plain.complaints() == []
    folder = address.rpartition("/")[0]
    pictures = plain.run("return [...document.images].map(i => [i.src, i.complete && i.naturalWidth > 0])")
    assert all(drawn for _, drawn in pictures)
    expected = {address, f"{folder}/report_files/report.css", *(source for source, _ in pictures)}
    assert set(plain.requests()) == expected
    assert set(site.asked) == {urlsplit(url).path for url in expected}
    width, size = plain.run("const s = getComputedStyle(document.querySelector('main')); return [s.maxWidth, s.fontSize]")
    assert (width, size) == ("1120px", "15px")  # report.css applies


def test_the_policy_is_enforced_and_its_breach_is_heard(plain, site):
    """The check of the two tests above: a page that breaks the policy does not pass them."""
    page = site.folder / "breach.html"
    page.write_text("<!DOCTYPE html><p style='color: red'>x<style>p { width: 7px }</style><img src='http://127.0.0.1:9/x.png'>")
    plain.open(f"{site.origin}/{page.name}")
    assert plain.run("return getComputedStyle(document.querySelector('p')).width") != "7px"
    complaints = " ".join(plain.complaints())
    assert "style-src 'self'" in complaints
    assert "img-src 'self'" in complaints
    assert POLICY.startswith("default-src 'none'")


def test_blocked_scripts_are_blocked(plain, scripted, tmp_path):
    page = tmp_path / "script.html"
    page.write_text("<!DOCTYPE html><title>before</title><script>document.title = 'after'</script>")
    for tab, title in ((plain, "before"), (scripted, "after")):
        tab.open(page.as_uri())
        assert tab.driver.title == title


@pytest.mark.parametrize("name", [n for n in sorted(PAGES) if "hostile" in n])
def test_hostile_names_do_nothing_where_scripts_may_run(scripted, site, name):
    address = site.file(name)
    scripted.open(address)  # a dialog would fail every command that follows
    assert scripted.complaints() == []
    assert scripted.requests() == [address]
    assert (
        scripted.run(
            "return document.querySelectorAll('body script, script + script, iframe, object, [onerror], [onload], img[src=x], title ~ title').length"
        )
        == 0
    )


@pages
def test_links_land(plain, site, name):
    plain.open(site.file(name))
    links = plain.run("return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert links
    beside = DOSSIER if name.startswith("conformity") else ()
    assert all(link.startswith("#") or link.partition("#")[0] in beside for link in links)
    for i, link in [(i, link) for i, link in enumerate(links) if link.startswith("#")]:
        top, height = plain.run(
            "const a = document.querySelectorAll('a')[arguments[0]]; a.click();"
            " const e = document.querySelector(':target'); return e ? [e.getBoundingClientRect().top, innerHeight] : [1e9, 0]",
            i,
        )
        assert -1 <= top < height, link


@pages
def test_every_control_is_reached_by_keyboard_and_shows_it(plain, site, name):
    plain.open(site.file(name))
    plain.run(OPEN_ALL)
    count = plain.run("return document.querySelectorAll(arguments[0]).length", FOCUSABLE)
    reached = []
    for _ in range(2 * count + 5):  # a browser also stops at what scrolls
        plain.press("Tab", 9)
        at, outlined, visible = plain.run(FOCUSED, FOCUSABLE)
        if at >= 0:
            reached.append(at)
            assert outlined, f"focus on control {at} cannot be seen"
            assert visible, f"control {at} is outside the window when it has the focus"
        if len(reached) == count:
            break
    assert reached == list(range(count))


@pytest.mark.parametrize("name", ["audit-bound", "audit-flips", "audit-fallback", "audit-labelled"])
def test_two_screens_hold_the_answer(plain, site, name):
    plain.open(site.file(name), size=LAPTOP)
    ends = plain.run(
        "return Object.fromEntries(['summary', 'numbers', 'distribution', 'findings'].map(i => [i,"
        " document.getElementById(i).getBoundingClientRect().bottom]))"
    )
    assert ends["summary"] < LAPTOP[1]
    assert max(ends.values()) < 2 * LAPTOP[1]
    height = plain.run("return document.documentElement.scrollHeight")
    assert height < 3.5 * LAPTOP[1]  # all else is folded


def test_a_page_of_a_hundred_samples_is_small(site, plain):
    for name in ("audit-bound", "audit-flips", "audit-gated"):
        plain.open(site.file(name))
        assert (site.folder / name / "report.html").stat().st_size < 1_000_000


def test_the_first_tab_skips_to_the_result(plain, site):
    plain.open(site.file("audit-bound"))
    plain.press("Tab", 9)
    assert plain.run("return document.activeElement.className") == "skip"
    plain.press("Enter", 13)
    assert plain.run("return document.querySelector(':target').id") == "summary"


def test_details_open_by_keyboard(plain, site):
    plain.open(site.file("audit-bound"))
    plain.run("document.querySelector('summary').focus()")
    plain.press("Enter", 13)
    assert plain.run("return document.querySelector('details').open")


def test_a_link_opens_what_it_points_into(plain, site):
    plain.open(site.file("audit-bound") + "#attack")
    assert plain.run("return document.querySelector('#attack').checkVisibility()")
    assert plain.run("return [...document.querySelectorAll('section.fold > details')].filter(d => d.open).length") == 1


@pages
@pytest.mark.parametrize("size", [PHONE, NARROWEST, LAPTOP], ids=["phone", "narrowest", "laptop"])
def test_nothing_leaves_the_window_at_the_side(plain, site, name, size):
    plain.open(site.file(name), size=size)
    plain.run(OPEN_ALL)
    assert plain.run(OVERFLOW) == [0, []]


@pytest.mark.parametrize("name", ["audit-gated", "bounds", "comparison"])
def test_tables_of_short_names_need_no_scrolling(plain, site, name):
    plain.open(site.file(name), size=DESKTOP)
    plain.run(OPEN_ALL)
    wide = plain.run(
        "return [...document.querySelectorAll('.scroll:not(.tall)')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => [e.querySelector('caption').textContent, e.scrollWidth - e.clientWidth])"
    )
    assert wide == []


@pages
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_labels_of_drawings_are_whole_and_apart(plain, site, name, size):
    plain.open(site.file(name), size=size)
    assert plain.run(LABELS) == []


@pages
def test_prints_whole(plain, site, name):
    plain.open(site.file(name), size=PAPER, media="print", scheme="dark")
    ground, ink = plain.run("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
    assert (ground, ink) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
    assert plain.run("return [...document.querySelectorAll('main nav, .tools, .skip')].every(e => !e.checkVisibility())")
    cut = plain.run(
        "return [...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility()"
        " && e.querySelector('table').getBoundingClientRect().right > innerWidth + 1).map(e => e.querySelector('caption').textContent)"
    )
    assert cut == []
    assert plain.run(OVERFLOW) == [0, []]
    assert plain.run(
        "return [...document.querySelectorAll('.fold > details > *')].every(e => e.getBoundingClientRect().height > 0)"
    )


def test_the_print_has_pages(plain, site):
    plain.open(site.file("audit-bound"))
    printed = plain.pdf()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 5


@pages
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_rule_of_axe_is_broken(scripted, site, axe, name, scheme):
    scripted.open(site.file(name), scheme=scheme)
    scripted.run(OPEN_ALL)
    scripted.run(axe)
    found = scripted.run_async(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document, {resultTypes: ['violations', 'incomplete']}).then(r => done([r.violations.map(v => [v.id, v.help,"
        " v.nodes.length, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160))]), r.passes.length]), e => done([[String(e)], 0]))"
    )
    violations, passed = found
    assert violations == []
    assert passed > 10
