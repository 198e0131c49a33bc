"""A comparison of several audits as Markdown, for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxfim.report.comparison_words import SIGNS_NOTE, names_of, sign_of
from onnxfim.report.markdown_text import code, prose
from onnxfim.report.page.comparison_page import ComparisonPage, Table, TestCell, build_comparison_page
from onnxfim.report.page.delta_section import DeltaSection
from onnxfim.report.page.quantities import Quantity
from onnxfim.verdict.comparison import Comparison


def render_comparison_markdown(comparison: Comparison) -> str:
    """Ranking, differences, classes and correlations as Markdown tables; foreign text is escaped."""
    return "\n".join(_lines(build_comparison_page(comparison), comparison)) + "\n"


def _lines(page: ComparisonPage, comparison: Comparison) -> Iterator[str]:
    yield f"# {prose(page.title)}"
    yield ""
    yield f"**{prose(page.headline)}** {prose(' '.join(page.sentences))}"
    yield ""
    yield f"{prose(page.summary)}; {prose(page.lead)} in {prose(page.units)}."
    yield from (f"\n> {prose(note)}" for note in page.notes)
    if page.delta is not None:
        yield from _deployment(page.delta)
    yield "\n## Ranking\n"
    yield from _table("Model", page.standing)
    yield f"\n{prose(page.standing_note)}"
    if page.matrix is not None:
        yield "\n## Every pair\n"
        yield from _matrix(comparison)
    if page.many:
        return
    yield "\n## Differences\n"
    columns = ("Decision", *page.pair_columns, "λ rose")
    rows = [(p.name, (prose(p.decision), *map(_tested, p.cells), _cell(p.worse))) for p in page.pairs]
    yield from _rows("Pair", columns, rows)
    yield f"\n{prose(page.pairs_note)}"
    yield "\n## How each was measured\n"
    yield from _table("Model", page.ranking)
    if page.classes.rows:
        yield "\n## Classes\n"
        yield from _table("Class", page.classes)
    for name, table in page.correlations:
        if table.rows:
            yield f"\n## Rank correlations in {prose(name)}\n"
            yield from _table("Measure", table)
    for name, found in page.differences:
        if found:
            yield f"\n## {prose(name)} differs from {prose(page.first)} in\n"
            yield from (f"- {prose(what)}: {prose(then)}, {prose(now)}" for what, then, now in found)
    yield "\n## This report\n"
    yield from (f"- {prose(name)}: {code(value)}" for name, value in page.report)


def _matrix(comparison: Comparison) -> Iterator[str]:
    names, order = names_of(comparison), comparison.order
    columns = tuple(str(k) for k in range(1, len(order) + 1))
    rows = [(f"{k}. {names[i]}", tuple(sign_of(comparison, i, j) for j in order)) for k, i in enumerate(order, 1)]
    yield from _rows("Model", columns, rows)
    yield f"\n{SIGNS_NOTE}"


def _tested(cell: TestCell | None) -> str:
    return "–" if cell is None else f"{_cell(cell.ratio)}; {prose(cell.p)}{', significant' if cell.significant else ''}"


def _deployment(delta: DeltaSection) -> Iterator[str]:
    yield "\n## What did deployment change?\n"
    yield f"**{prose(delta.headline)}**\n"
    columns = (delta.first, delta.second, "Change", "Reading", "Of what")
    yield from _rows("What", columns, [
        (r.what, tuple(prose(c) for c in (r.first, r.second, f"{r.change} {r.interval}", r.reading, r.note))) for r in delta.rows
    ])  # fmt: skip
    yield from (f"\n{prose(s)}" for s in delta.sentences)
    if delta.moved:
        yield "\n### Samples whose outputs moved most\n"
        moved_columns = ("Label", "First predicts", "Second predicts", "Total variation", "KL, nats")
        cells = [(m.name, tuple(map(prose, (m.label, m.first, m.second, m.variation, m.kl)))) for m in delta.moved]
        yield from _rows("Sample", moved_columns, cells)
    if delta.attribution is not None:
        a = delta.attribution
        yield f"\n### Which nodes carry it?\n\n{prose(a.sentence)} {prose(a.how)}\n"
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
                (r.node, tuple(map(prose, (r.operator, r.alone, r.sensitivity, r.outputs, r.restored, r.weights)))) for r in a.rows
            ])  # fmt: skip
        yield from (f"\n- Not restored: {prose(node)} ({prose(operator)}): {prose(reason)}" for node, operator, reason in a.left)


def _table(head: str, table: Table) -> Iterator[str]:
    yield from _rows(head, table.columns, [(row.head, tuple(_cell(c) for c in row.cells)) for row in table.rows])


def _rows(head: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Iterator[str]:
    yield f"| {' | '.join([head, *map(prose, columns)])} |"
    yield "|---" * (len(columns) + 1) + "|"
    yield from (f"| {' | '.join([prose(name), *cells])} |" for name, cells in rows)


def _cell(quantity: Quantity) -> str:
    return prose(quantity.line)
