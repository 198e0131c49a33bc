"""Every row of the table, and that the page shows it."""

from __future__ import annotations

import pytest

from tests.faults.table import PAGE, filled, rows

ROWS = rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}: {row.what}")
def test_what_comes_of_it(place, row):
    done = row.trial(place)
    runs = done if isinstance(done, list) else [done]
    assert [r.exit_code for r in runs] == [row.code] * len(runs)


def test_the_page_shows_the_table():
    page = PAGE.read_text("utf-8")
    assert filled(page) == page, "python -m tests.faults --write brings it up to date"


def test_no_row_is_there_twice():
    names = [(row.section, row.what) for row in ROWS]
    assert len(set(names)) == len(names)
