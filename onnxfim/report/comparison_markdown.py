"""A comparison of several audits as Markdown, for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxfim.report.page.comparison_page import ComparisonPage, Table, build_comparison_page
from onnxfim.report.page.delta_section import DeltaSection
from onnxfim.report.page.quantities import Quantity
from onnxfim.verdict.comparison import Comparison

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>()#+!|~&@"})


def render_comparison_markdown(comparison: Comparison) -> str:
    """Ranking, differences, classes and correlations as Markdown tables; foreign text is escaped."""
    return "\n".join(_lines(build_comparison_page(comparison))) + "\n"


def _lines(page: ComparisonPage) -> Iterator[str]:
    yield f"# {_text(page.title)}"
    yield ""
    yield f"**{_text(page.headline)}** {_text(' '.join(page.sentences))}"
    yield ""
    yield f"{_text(page.summary)}; {_text(page.lead)} in {_text(page.units)}."
    yield from (f"\n> {_text(note)}" for note in page.notes)
    if page.delta is not None:
        yield from _deployment(page.delta)
    yield "\n## Ranking\n"
    yield from _table("Model", page.ranking)
    yield "\n## Differences\n"
    columns = ("Ratio", "On these samples", "p, corrected", "Significant", "Got worse")
    yield from _rows("Pair", columns, [
        (p.name, (_cell(p.ratio), _text(p.here), p.p, "yes" if p.significant else "no", _cell(p.worse))) for p in page.pairs
    ])  # fmt: skip
    if page.classes.rows:
        yield "\n## Classes\n"
        yield from _table("Class", page.classes)
    for name, table in page.correlations:
        if table.rows:
            yield f"\n## Rank correlations in {_text(name)}\n"
            yield from _table("Measure", table)
    for name, found in page.differences:
        if found:
            yield f"\n## {_text(name)} differs from {_text(page.first)} in\n"
            yield from (f"- {_text(what)}: {_text(then)}, {_text(now)}" for what, then, now in found)


def _deployment(delta: DeltaSection) -> Iterator[str]:
    yield "\n## What did deployment change?\n"
    yield f"**{_text(delta.headline)}**\n"
    columns = (delta.first, delta.second, "Change", "Reading", "Of what")
    yield from _rows("What", columns, [
        (r.what, tuple(_text(c) for c in (r.first, r.second, f"{r.change} {r.interval}", r.reading, r.note))) for r in delta.rows
    ])  # fmt: skip
    yield from (f"\n{_text(s)}" for s in delta.sentences)
    if delta.moved:
        yield "\n### Samples whose outputs moved most\n"
        moved_columns = ("Label", "First predicts", "Second predicts", "Total variation", "KL, nats")
        cells = [(m.name, tuple(map(_text, (m.label, m.first, m.second, m.variation, m.kl)))) for m in delta.moved]
        yield from _rows("Sample", moved_columns, cells)
    if delta.attribution is not None:
        a = delta.attribution
        yield f"\n### Which nodes carry it?\n\n{_text(a.sentence)} {_text(a.how)}\n"
        if a.rows:
            names = (
                "Operator",
                "Scores, alone",
                "Sensitivity, alone",
                "Outputs, alone",
                "Goes when it is restored",
                "Weights off by",
            )
            yield from _rows("Node", names, [
                (r.node, tuple(map(_text, (r.operator, r.alone, r.sensitivity, r.outputs, r.restored, r.weights)))) for r in a.rows
            ])  # fmt: skip
        yield from (f"\n- Not restored: {_text(node)} ({_text(operator)}): {_text(reason)}" for node, operator, reason in a.left)


def _table(head: str, table: Table) -> Iterator[str]:
    yield from _rows(head, table.columns, [(row.head, tuple(_cell(c) for c in row.cells)) for row in table.rows])


def _rows(head: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Iterator[str]:
    yield f"| {' | '.join([head, *map(_text, columns)])} |"
    yield "|---" * (len(columns) + 1) + "|"
    yield from (f"| {' | '.join([_text(name), *cells])} |" for name, cells in rows)


def _cell(quantity: Quantity) -> str:
    return _text(quantity.line)


def _text(text: str) -> str:
    """Text that Markdown prints as it stands, on one line."""
    return " ".join(text.split()).translate(_SPECIAL)
