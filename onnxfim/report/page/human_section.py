"""How many predictions are left at a distance, as printed: the curves, where 10, 50 and 90 % have fallen, and what bounds them."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.record.robustness import SHARES, Reached, Robustness, SurvivalCurve
from onnxfim.report.charts.marks import Figure, at_both_widths
from onnxfim.report.charts.survival_curves import LINES, NAMES, survival_chart
from onnxfim.report.human import attacked_at, guaranteed_by, robustness_of
from onnxfim.report.numbers import count, known_ends
from onnxfim.report.page.quantities import Quantity
from onnxfim.report.page.view import SurvivalLine, SurvivalView
from onnxfim.report.vocabulary import NORM_WORDS

_KINDS = {
    "flip_radius": "upper bound: the shortest move found along a few directions",
    "attack": "upper bound: the smallest attack found",
    "boundary_distance": "first-order estimate",
}


def survival_view(audit: Audit) -> SurvivalView | None:
    """The section, or None where no distance was measured."""
    told = robustness_of(audit)
    curves = [c for c in told.curves if c.standing]
    if not curves:
        return None
    charts = _charts(curves, told)
    leading = next(iter(charts), None)
    return SurvivalView(
        title="How many stay right after a change?" if told.counts == "right" else "How many keep their prediction?",
        charts=tuple(charts.values()),
        lines=tuple(_line(c, told, leads=_together(c) == leading) for c in curves),
        shares=tuple(f"{100 * share:.0f}\u00a0%" for share in SHARES),
        notes=_notes(curves, told),
    )


def _together(curve: SurvivalCurve) -> tuple[str, str]:
    """What curves of one chart share: its axis is theirs."""
    return curve.norm, curve.units


def _charts(curves: list[SurvivalCurve], told: Robustness) -> dict[tuple[str, str], Figure]:
    """One chart for each norm and unit, where one can be drawn."""
    together: dict[tuple[str, str], list[SurvivalCurve]] = {}
    for curve in curves:
        together.setdefault(_together(curve), []).append(curve)
    drawn = {}
    for at, (shared, some) in enumerate(together.items()):
        name = "survival" if at == 0 else f"survival-{at + 1}"
        figure = at_both_widths(lambda width, some=some, name=name: survival_chart(some, told, width=width, name=name))  # type: ignore[misc]
        if figure is not None:
            drawn[shared] = figure
    return drawn


def _line(curve: SurvivalCurve, told: Robustness, *, leads: bool) -> SurvivalLine:
    series, dash = LINES[curve.source]
    return SurvivalLine(
        name=NAMES[curve.source].capitalize(),
        series=series,
        dash=dash,
        kind=_KINDS.get(curve.source) or f"lower bound, from {guaranteed_by(told)[0]}: no flip is possible nearer",
        units=f"{NORM_WORDS[curve.norm]}, {visible(curve.units)}",
        samples=f"{curve.standing:,} of {count(curve.samples, 'sample')} stand without a change",
        reached=tuple(reached_quantity(r, curve, told) for r in curve.reached),
        leads=leads,
    )


def reached_quantity(found: Reached, curve: SurvivalCurve, told: Robustness) -> Quantity:
    """A distance at which a share has fallen, as printed."""
    if found.epsilon is None:
        return Quantity("never", None if found.low is None else known_ends(found.low, None))
    ends = [None if x is None else attacked_at(x, curve, told) for x in (found.low, found.high)]
    if None not in ends:
        return Quantity(attacked_at(found.epsilon, curve, told), f"{ends[0]} to {ends[1]}")
    return Quantity(attacked_at(found.epsilon, curve, told), known_ends(found.low, found.high))


def _notes(curves: list[SurvivalCurve], told: Robustness) -> tuple[str, ...]:
    """What the curves count, and what is not among them."""
    lost = "Samples that are wrong without a change count as lost at 0" if told.counts == "right" else "There are no labels"
    notes = [
        f"{lost}; one that nothing changed counts as farther than all. Bands and intervals (95 %) hold the sampling alone: where "
        "the curve would lie on other samples. An upper bound can only fall when more is tried."
    ]
    if (never := next((c.unreached for c in curves if c.source == "flip_radius" and c.unreached), 0)) > 0:
        notes.append(f"On {count(never, 'sample')} no move tried flipped the prediction within the range of the inputs.")
    if told.certified is not None and told.curve("certified") is None:
        notes.append(f"{told.certified[:1].upper()}{visible(told.certified[1:])}.")
    if told.no_place is not None:
        notes.append(f"{told.no_place[:1].upper()}{visible(told.no_place[1:])}.")
    return tuple(notes)
