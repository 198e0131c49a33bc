"""The table of faults: what is wrong, what comes of it, the exit code, and the function that tries it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tests.support.places import ROOT

#: The page that shows the table, and the modules that fill it, in the order of its sections.
PAGE = ROOT / "docs" / "failures.md"
MODULES = ("outputs", "cached", "surroundings")


@dataclass(frozen=True)
class Fault:
    """A row: ``trial`` brings the fault about in a folder of its own, looks at what came of it and returns the exit codes seen."""

    section: str
    what: str
    outcome: str
    code: int
    trial: Callable[..., Any]


_ROWS: list[Fault] = []


def fault(section: str, what: str, outcome: str, code: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a row of a function that takes a `tests.faults.conftest.Place` and returns the finished command, or several."""

    def listed(trial: Callable[..., Any]) -> Callable[..., Any]:
        _ROWS.append(Fault(section, what, outcome, code, trial))
        return trial

    return listed


def rows() -> list[Fault]:
    """All rows, section by section."""
    for name in MODULES:
        import_module(f"tests.faults.{name}")
    return list(_ROWS)


def sections() -> dict[str, str]:
    """Each section's table in Markdown, by its name."""
    found: dict[str, list[str]] = {}
    for row in rows():
        head = ["| what is wrong | what happens | exit code |", "|---|---|---|"]
        found.setdefault(row.section, head).append(f"| {row.what} | {row.outcome} | {row.code} |")
    return {name: "\n".join(lines) for name, lines in found.items()}


def filled(page: str) -> str:
    """The page with each section's table in its place, between ``<!-- faults: NAME -->`` and ``<!-- end -->``."""
    for name, text in sections().items():
        start, end = f"<!-- faults: {name} -->\n", "<!-- end -->"
        before, found, after = page.partition(start)
        assert found, f"{PAGE.name} has no place for the section {name!r}: {start!r}"
        _, found, after = after.partition(end)
        assert found, f"{PAGE.name}: the section {name!r} has no {end!r}"
        page = f"{before}{start}\n{text}\n\n{end}{after}"
    return page
