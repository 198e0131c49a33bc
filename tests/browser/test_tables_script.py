"""The script of the tables: sorting, filtering, search, by keyboard too; foreign scripts stay dead beside it."""

import pytest

from tests.support.places import DEV

pytest.importorskip("selenium", reason=DEV.reason)

SAMPLES = "#samples table"
ROWS = (
    f"return [...document.querySelectorAll('{SAMPLES} tbody tr')].filter(r => !r.hidden)"
    ".map(r => [...r.cells].map(c => (c.querySelector('.value') || c).textContent.trim()))"
)
HEADS = f"return [...document.querySelectorAll('{SAMPLES} thead th')].map(h => h.textContent.trim())"


@pytest.fixture
def table(scripted, site):
    scripted.open(site.file("audit-some-nulls"))
    scripted.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    return scripted


def column(tab, head):
    at = tab.run(HEADS).index(head)
    return [row[at] for row in tab.run(ROWS)], at


def click(tab, at):
    tab.run(f"document.querySelectorAll('{SAMPLES} thead th')[arguments[0]].querySelector('button').click()", at)


def sorts(tab):
    return tab.run(f"return [...document.querySelectorAll('{SAMPLES} thead th')].map(h => h.getAttribute('aria-sort'))")


def as_number(text):
    """What a cell says, read by another way than the script's."""
    digits = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻−", "0123456789--")
    plain = text.translate(digits).replace(",", "")
    mantissa, times, power = plain.partition("×10")
    if plain.startswith("10") and "⁻" in text and not times:
        return 10.0 ** int(plain[2:])
    return float(mantissa) * 10.0 ** int(power) if times else float(mantissa)


def test_a_click_sorts_by_a_column_of_numbers_and_what_was_not_measured_stays_last(table):
    before, at = column(table, "λmax, raw")
    for turn, order in (("descending", True), ("ascending", False)):
        click(table, at)
        shown, _ = column(table, "λmax, raw")
        known = [as_number(v) for v in shown if v != "not measured"]
        assert len(known) == 70
        assert known == sorted(known, reverse=order)
        assert shown[len(known) :] == ["not measured"] * 30
        assert sorts(table)[at] == turn
        assert set(sorts(table)) == {turn, "none"}
        assert sorted(shown) == sorted(before)


def test_words_sort_as_words(table):
    _, at = column(table, "Predicted")
    click(table, at)
    click(table, at)
    shown, _ = column(table, "Predicted")
    assert [v.split()[0] for v in shown] == sorted(v.split()[0] for v in shown)


def test_a_sorter_is_a_button_that_the_keyboard_presses(table):
    table.run(f"document.querySelector('{SAMPLES} thead button').focus()")
    table.press("Enter", 13)
    assert sorts(table)[0] == "descending"
    shown = [int(row[0]) for row in table.run(ROWS)]
    assert shown == sorted(shown, reverse=True)


def test_search_and_filters_hide_rows_and_tell_how_many_are_left(table):
    typed = (
        "const e = document.querySelector('#samples .tools input'); e.value = arguments[0];"
        " e.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    told = "return document.querySelector('#samples [role=status]').textContent"
    assert table.run(told) == "100 rows"
    table.run(typed, "wrong")
    rows = table.run(ROWS)
    assert 0 < len(rows) < 20
    assert all("wrong" in " ".join(row) for row in rows)
    assert table.run(told) == f"{len(rows)} of 100 rows"
    table.run(typed, "")
    chosen = table.run(
        "const s = document.querySelector('#samples .tools select'); s.value = s.options[1].value;"
        " s.dispatchEvent(new Event('change')); return s.value"
    )
    labels, _ = column(table, "Label")
    assert set(labels) == {chosen}
    assert table.run("return [...document.querySelectorAll('.tools label')].every(l => document.getElementById(l.htmlFor))")


def test_every_fold_opens_at_once(scripted, site):
    scripted.open(site.file("audit-bound"))
    state = "return [...document.querySelectorAll('section.fold > details')].map(d => d.open)"
    assert not any(scripted.run(state))
    scripted.run("document.querySelector('button.all').click()")
    assert all(scripted.run(state))
    scripted.run("document.querySelector('button.all').click()")
    assert not any(scripted.run(state))


def test_the_table_is_whole_without_the_script(plain, site):
    plain.open(site.file("audit-some-nulls"))
    plain.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert len(plain.run(ROWS)) == 100
    assert plain.run("return document.querySelectorAll('.tools, .sorter, button').length") == 0


def test_no_script_but_its_own_runs_on_a_page(scripted, site):
    html = (site.folder / "audit-one").with_suffix(".html")
    scripted.open(site.file("audit-one"))
    text = (site.folder / "audit-one" / "report.html").read_text(encoding="utf-8")
    html.write_text(
        text.replace(
            "<main>", "<main><script>document.title = 'taken'</script><p id='x' onclick=\"document.title = 'taken'\">x</p>"
        ),
        encoding="utf-8",
    )
    scripted.open(html.as_uri())
    scripted.run("document.querySelector('#x').click()")
    assert scripted.driver.title != "taken"
    assert any("Content Security Policy" in m for m in scripted.complaints())
    assert scripted.run("return document.querySelectorAll('button.all').length") == 1


def test_the_script_beside_the_page_runs_where_the_host_lets_it(scripted, site):
    from onnxfim.report import render_html
    from tests.support.audits import make_audit

    folder = site.folder / "beside"
    folder.mkdir(exist_ok=True)
    (folder / "page.html").write_text(render_html(make_audit(20), assets_dir=folder / "files"), encoding="utf-8")
    scripted.open((folder / "page.html").as_uri())
    assert (folder / "files" / "report.js").exists()
