"""What an answer is: a claim, what was measured, a verdict by rule, tables and figures. All of it goes into answers.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .verdicts import Estimate

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head; ``note`` says what a cell is, ``title`` what the whole is where the head does not."""

    head: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    note: str = ""
    title: str = ""


@dataclass(frozen=True)
class Figure:
    """An SVG file of docs/paper with the words that stand for it."""

    name: str
    svg: str
    alt: str


@dataclass(frozen=True)
class Answer:
    """One question answered; ``line`` is the one sentence that the first table of the page has."""

    key: str
    title: str
    claim: str
    measured: str
    rule: str
    verdict: str
    line: str
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Machine-readable, without pictures."""
        return {
            "title": self.title, "claim": self.claim, "measured": self.measured, "rule": self.rule, "verdict": self.verdict, "line": self.line,
            "numbers": plain(self.numbers),
            "tables": [{"head": list(t.head), "rows": [[plain(c) for c in row] for row in t.rows], "note": t.note} for t in self.tables],
        }  # fmt: skip


def plain(value: Any) -> Any:
    """JSON of numbers, estimates and what holds them."""
    if isinstance(value, Estimate):
        return value.json()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if value == value and abs(value) != float("inf") else None
    return value


def told(value: Cell, digits: int = 2) -> str:
    """A cell as text."""
    if value is None:
        return "–"
    if isinstance(value, Estimate):
        if value.value is None:
            return "–"
        if value.low is None or value.high is None:
            return f"{number(value.value, digits)} [no interval]"
        return f"{number(value.value, digits)} [{number(value.low, digits)}, {number(value.high, digits)}]"
    if isinstance(value, (bool, int, str)):
        return str(value)
    return number(float(value), digits)


def number(value: float, digits: int = 2) -> str:
    """With a minus sign; large and tiny ones by their significant digits."""
    if value != value or abs(value) == float("inf"):
        return "–"
    text = f"{value:.{digits}f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.2g}" if abs(value) < 1 else f"{value:.3g}"
    text = text if float(text) else text.lstrip("-")
    return text.replace("-", "−")
