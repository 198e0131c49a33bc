"""What lambda_max means on this model: what was measured, where, and what does not follow from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import INPUT_UNIT, in_units_of
from onnxfim.record.foreign_text import visible
from onnxfim.record.robustness import SurvivalCurve
from onnxfim.record.sample import KLCurve, SampleResult
from onnxfim.report.human import robustness_of, rung, who
from onnxfim.report.numbers import MISSING, count, known_ends, number
from onnxfim.report.page.quantities import Quantity
from onnxfim.report.words import median_boundary

#: Parts of a sample's unit of distance at which the replay is quoted, with their names.
QUOTED = ((0.1, "a tenth of"), (1.0, "the whole of"))


def flip_tile(audit: Audit) -> tuple[Quantity, str]:
    """The distance at which half of the standing samples have flipped, as printed, and what it is of."""
    told = robustness_of(audit)
    curve = told.curve("flip_radius")
    if curve is None or (half := curve.half) is None:
        return Quantity(MISSING), "not measured"
    left = f", {curve.unreached:,} did not flip" if curve.unreached else ""
    # Shorter moves may exist, so that nothing bounds it from below.
    ends = None if half.epsilon is None else known_ends(None, half.high)
    kind = None if half.epsilon is None else "upper bound"
    return Quantity(number(half.epsilon), ends, kind), f"L2 in {visible(curve.units)}; {who(curve, told.counts)}{left}"


def boundary_curve(audit: Audit) -> SurvivalCurve | None:
    """The distances to the boundary in the units of the sentences in human terms, where these are not the model's; else None."""
    told = robustness_of(audit)
    curve = told.curve("boundary_distance") if told.unit == "raw" else None
    return curve if curve is not None and curve.half is not None and curve.half.epsilon is not None else None


def boundary_tile(audit: Audit) -> tuple[Quantity, str]:
    """The median distance to the boundary, as printed, and what it is of: raw units where these are known, as flips have them."""
    curve = boundary_curve(audit)
    if curve is None or (half := curve.half) is None:
        distance, ends = median_boundary(audit)
        return Quantity(number(distance), ends), f"L2 in {visible(in_units_of(audit.model.at, f'{INPUT_UNIT}s'))}, first order"
    told = f"L2 in {visible(curve.units)}, first order; {who(curve, robustness_of(audit).counts)}"
    return Quantity(number(half.epsilon), known_ends(half.low, half.high)), told


def meaning(audit: Audit) -> str | None:
    """What the numbers mean, in measured quantities; None where nothing was measured.

    With a replay it quotes the KL divergences and flips that were measured, at distances that it names, and how far the quadratic
    form holds. Without one it states what lambda_max is, and no number that was not measured.
    """
    if not audit.measured:
        return None
    curves = [(s, s.kl_curve) for s in audit.samples if s.kl_curve is not None and s.kl_curve.points]
    parts = [
        "λ_max is a local slope: along the worst direction, and for a change ε that is small enough, the predicted distribution "
        "moves by about ½ · λ_max · ε² nats. It is not an upper limit."
    ]
    parts += (
        _replayed(curves)
        if curves
        else ["How small is small enough was not measured here: that takes a replay, which needs gradients."]
    )
    return " ".join(parts)


def _replayed(curves: Sequence[tuple[SampleResult, KLCurve]]) -> list[str]:
    unit = "boundary distance" if all(s.boundary_distance.value for s, _ in curves) else "1/√λ_max or boundary distance"
    found = [text for part, name in QUOTED if (text := _at(curves, part, f"{name} its {unit}")) is not None]
    n = len(curves)
    nowhere = sum(c.holds_to is None for _, c in curves)
    middle = float(np.median([c.holds_to or 0.0 for _, c in curves]))
    where = f"up to ε = {number(middle)} or further" if middle > 0 else "nowhere on the ladder"
    held = f"on half of them the form was within 10 % of the measured KL {where}"
    found.append(
        f"Of the {count(n, 'replayed sample')}, {held}; on {nowhere:,} of {n:,} it held nowhere." if n > 1 else _alone(curves[0][1])
    )
    found.append("Other directions, and other samples, may move further than those replayed.")
    return found


def _alone(curve: KLCurve) -> str:
    held = "nowhere on the ladder" if curve.holds_to is None else f"up to ε = {number(curve.holds_to)}"
    return f"On the replayed sample the form was within 10 % of the measured KL {held}."


def _at(curves: Sequence[tuple[SampleResult, KLCurve]], part: float, name: str) -> str | None:
    """What was measured at the rung that is ``part`` of each sample's unit of distance; None where there is no such rung."""
    points = [(c, p) for s, c in curves if (p := rung(s, c, part)) is not None]
    if not points:
        return None
    kl = [max(p.along, p.against) for _, p in points]
    form = [p.quadratic for _, p in points]
    flipped = sum(c.flips_at is not None and c.flips_at <= p.epsilon * (1 + 1e-9) for c, p in points)
    steps = [p.epsilon for _, p in points]
    span = number(min(steps)) if len(steps) == 1 else f"{number(min(steps))} to {number(max(steps))}"
    if len(points) == 1:
        moved = f"{number(kl[0])} nats, where the form says {number(form[0])}"
    else:
        moved = f"a median of {number(float(np.median(kl)))} and a maximum of {number(max(kl))} nats"
        moved += f", where the form says {number(float(np.median(form)))} and {number(max(form))}"
    decided = any(s.prediction is not None for s, _ in curves)
    flips = f"; {flipped:,} of {len(points):,} predictions had flipped" if decided else ""
    return f"Measured: moved by {name} (ε = {span}), {count(len(points), 'sample')} changed by {moved}{flips}."
