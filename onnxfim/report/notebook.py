"""What a notebook shows of a result: one small card, with a style of its own that touches nothing around it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from markupsafe import Markup

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.report import words
from onnxfim.report.charts.marks import Chart
from onnxfim.report.charts.survival_curves import LINES, NAMES, STROKES
from onnxfim.report.comparison_words import SIGNS_NOTE, ranking_label, ranking_units, standings
from onnxfim.report.figures import chart_rules, charts_in, charts_of, drawn, palettes
from onnxfim.report.guarantee_figures import figure_words, guaranteed_figures
from onnxfim.report.html import environment
from onnxfim.report.human import human_lines, robustness_of
from onnxfim.report.meaning import flip_tile
from onnxfim.report.numbers import MISSING, count, percent, percent_interval, statistic_label
from onnxfim.report.page.bound_section import bound_view
from onnxfim.report.page.comparison_page import build_comparison_page
from onnxfim.report.page.quantities import Quantity, of_compared, of_statistic, with_common_kind
from onnxfim.report.vocabulary import LEVEL_WORDS, VERDICT_WORDS
from onnxfim.report.whereabouts import where_it_ran
from onnxfim.spectral.reading import GraphReading
from onnxfim.verdict.comparison import Comparison

_CARD = ".onnxfim-card.onnxfim-card"  # twice: a notebook's own rules for tables are not stronger
_MOST = 20  # findings, models
_CHARTS = ("survival", "bracket-l2", "distribution")  # of an audit, that a card shows


@dataclass(frozen=True)
class CardRow:
    """One line of numbers: what it is, the number with its interval, and what kind of number it is."""

    label: str
    quantity: Quantity
    note: str = ""


@dataclass(frozen=True)
class CardFinding:
    """A finding: its level, the word for it, and what it says."""

    level: str
    word: str
    text: str


@dataclass(frozen=True)
class NotebookCard:
    """All that a card prints, in its order.

    Attributes:
        level: What the sign beside the head shows: a verdict, or ``note``.
        head: The verdict, or what is shown.
        name: Of what.
        about: On what it was measured.
        lines: What it means, in sentences.
        columns: Heads of the table.
        rows: Its rows.
        chart: Pictures, as SVG text.
        caption: What their lines and signs are.
        findings: What a reader must know.
        next_steps: What to ask next.
    """

    level: str
    head: str
    name: str
    about: str
    lines: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[CardRow, ...]
    chart: str = ""
    caption: str = ""
    findings: tuple[CardFinding, ...] = ()
    next_steps: str = ""


def card(result: Audit | Comparison | GraphReading) -> str:
    """The card of a result as HTML, without network and script; all that is foreign is escaped."""
    made = (
        _of_audit(result)
        if isinstance(result, Audit)
        else _of_comparison(result)
        if isinstance(result, Comparison)
        else _of_reading(result)
    )
    chart = Markup(made.chart)  # drawn by the report's own macros, which escape
    text = environment().get_template("notebook.html.j2").render(card=made, chart=chart, style=Markup(style()))
    # Some notebooks read HTML outputs as Markdown first, in which an empty line ends a block.
    return re.sub(r"\n\s*\n+", "\n", text)


def style() -> str:
    """The card's style: light or dark as the notebook is, where it says so, else as the system is."""
    light, dark = ("; ".join(f"--{name}: {value}" for name, value in colours.items()) for colours in palettes())
    is_dark = (
        'body[data-jp-theme-light="false"]',
        "body.vscode-dark",
        "body.vscode-high-contrast",
        'html[theme="dark"]',
        'html[data-theme="dark"]',
    )
    is_light = ('body[data-jp-theme-light="true"]', "body.vscode-light", 'html[theme="light"]', 'html[data-theme="light"]')
    themed = [
        f"{', '.join(f'{place} {_CARD}' for place in places)} {{ color-scheme: {scheme}; {colours} }}"
        for places, scheme, colours in ((is_dark, "dark", dark), (is_light, "light", light))
    ]
    return "\n".join((
        f"{_CARD} {{ color-scheme: light; {light} }}",
        f"@media (prefers-color-scheme: dark) {{ {_CARD} {{ color-scheme: dark; {dark} }} }}",
        *themed,
        f"@media print {{ {_CARD} {{ color-scheme: light; {light} }} }}",
        chart_rules(_CARD),
    ))  # fmt: skip


def _of_audit(audit: Audit) -> NotebookCard:
    charts, key = charts_of(audit), _key(audit.model.sha256, audit.data.sha256)
    named = visible(audit.model.name or audit.model.path)
    source = "random inputs" if audit.data.synthetic else visible(audit.data.source)
    lines = human_lines(audit) or (words.headline(audit),)
    return NotebookCard(
        level=audit.verdict,
        head=VERDICT_WORDS[audit.verdict],
        name=named,
        about=f"{count(len(audit.samples), 'sample')} of {source}, on {visible(where_it_ran(audit))}",
        lines=lines,
        columns=("Measure", "Value", "95 % interval", "Kind"),
        rows=tuple(_rows(audit)),
        chart="\n".join(drawn(charts[name], f"onnxfim-{name}-{key}") for name in _CHARTS if name in charts),
        caption=_curves(audit) if "survival" in charts else "",
        findings=tuple(
            CardFinding(f.level, LEVEL_WORDS[f.level], visible(f.message)) for f in words.worst_first(audit.findings)[:_MOST]
        ),
        next_steps="to_frame() has a row for each sample, figures the charts as SVG, onnxfim.render_html(audit) the whole report.",
    )


def _curves(audit: Audit) -> str:
    """Which line is which of the survival curves that stand in one chart."""
    told = [c for c in robustness_of(audit).curves if c.standing]
    drawn_together = [c for c in told if (c.norm, c.units) == (told[0].norm, told[0].units)]
    named = (f"{STROKES[LINES[c.source][1]]}: {NAMES[c.source]} ({c.kind})" for c in drawn_together)
    return f"Samples left after a change of length ε. {'; '.join(named).capitalize()}."


def _rows(audit: Audit) -> list[CardRow]:
    found = []
    gates = [(g.text, g.verdict) for g in audit.gates]
    for measure, statistic in (
        ("lambda_max_calibrated", "mean"), ("lambda_max", "mean"), (words.lead_measure(audit).name, "p95"),
        ("boundary_distance", "median"),
    ):  # fmt: skip
        group = audit.aggregates.get(measure)
        if group is None or (getattr(group, statistic).value is None and measure != "lambda_max"):
            continue
        estimates = {s.index: e for s in audit.samples if (e := getattr(s, measure, None)) is not None}
        kind, _ = with_common_kind(estimates)
        told = of_statistic(getattr(group, statistic))
        note = kind if told.kind is None else f"{kind}, {told.kind}"
        found.append(CardRow(f"{statistic_label(measure, statistic)}, {visible(group.units)}", told, note))
    flips, what = flip_tile(audit)
    if flips.text != MISSING:
        found.append(CardRow(statistic_label("flip_radius", "median"), flips, what))
    found += _guaranteed(audit)
    c = audit.calibration
    if c.accuracy is not None:
        told = Quantity(percent(c.accuracy), percent_interval(c.accuracy_low, c.accuracy_high))
        found.append(CardRow("Clean accuracy", told, f"mean confidence {percent(c.mean_confidence)}"))
    found += [CardRow(f"Gate {visible(text)}", Quantity(VERDICT_WORDS[verdict])) for text, verdict in gates[:_MOST]]
    return found


def _guaranteed(audit: Audit) -> list[CardRow]:
    """Both ends of each bracket, and shares that noise and smoothing leave; the report has the rest."""
    rows = []
    for f in guaranteed_figures(audit):
        telling = f.name.endswith(("_median", ".stable_share", ".accuracy", ".radius.median"))
        if telling or (f.name.endswith("contradictions") and f.value):
            units = "" if f.units in ("share", "samples") else f", {f.units}"
            rows.append(CardRow(visible(f.label + units), Quantity(*figure_words(f)), visible(f.kind)))
    return rows[:_MOST]


def _of_comparison(comparison: Comparison) -> NotebookCard:
    page, head, rows = build_comparison_page(comparison), ranking_label(comparison), []
    for k, s in enumerate(standings(comparison)[:_MOST], 1):
        accuracy = "" if comparison.entries[s.position].accuracy is None else f"; accuracy {s.accuracy}"
        ranks = "rank" if s.ranks.isdigit() else "ranks"
        told = Quantity(MISSING) if s.distance is None else of_compared(s.distance)
        rows.append(CardRow(f"{k}. {s.name}", told, f"{ranks} {s.ranks}{accuracy}"))
    chart = next(iter(charts_in(page).values()), None)
    return NotebookCard(
        level="measured",
        head="Compared",
        name=page.heading,
        about=f"{count(comparison.count, 'sample')} of {visible(comparison.data)}",
        lines=(page.headline, *page.sentences),
        columns=(
            "Model, the most robust first",
            f"{head[0].upper()}{head[1:]}, {ranking_units(comparison)}",
            "95 % interval",
            "Ranks left open",
        ),
        rows=tuple(rows),
        chart=""
        if chart is None
        else drawn(chart, f"onnxfim-{_key(comparison.data_sha256, *(e.sha256 for e in comparison.entries))}"),
        caption=SIGNS_NOTE if chart is not None and chart.name == "matrix" else "",
        findings=tuple(CardFinding("note", LEVEL_WORDS["note"], visible(n)) for n in comparison.notes[:_MOST]),
        next_steps="pairs and entries hold the numbers, to_frame() a row for each sample, figures the charts as SVG.",
    )


def _of_reading(reading: GraphReading) -> NotebookCard:
    view = bound_view(reading.architecture, reading.bound, reading.closed_forms)
    assert view is not None
    shares = view.shares
    chart: Chart | None = None if shares is None else shares.wide
    return NotebookCard(
        level="measured",
        head="Bound from the weights",
        name=view.family or "Unknown",
        about=" ".join(view.evidence[:3]),
        lines=(f"No bound: {view.reason}.",) if view.reason else (),
        columns=("Bound", "Value", "That is", "Of what"),
        rows=tuple(CardRow(t.label, t.quantity, t.note) for t in view.tiles),
        chart="" if chart is None else drawn(chart, f"onnxfim-{_key(repr(reading.bound))}"),
        findings=tuple(CardFinding("note", "Assumption", a) for a in view.assumptions[:_MOST]),
        next_steps="bound holds the figures and the factor of every layer, closed_forms the formulas.",
    )


def _key(*parts: str) -> str:
    """A name for a chart that another card in the notebook does not have, and the same whenever this one is shown."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]
