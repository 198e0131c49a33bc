"""What lambda_max and the flip radius mean on this model: what was measured, where, and what does not follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.sample import KLCurve, KLPoint, SampleResult
from onnxfim.record.statistics import bracketing
from onnxfim.report.numbers import count, interval, number
from onnxfim.report.page.quantities import Quantity

#: Parts of a sample's unit of distance at which the replay is quoted, with their names.
QUOTED = ((0.1, "a tenth of"), (1.0, "the whole of"))
_SAME = 0.05  # relative difference of a rung from the part it is taken for


@dataclass(frozen=True)
class FlipMedian:
    """The median flip radius of ``samples`` samples; ``value`` is None where it cannot be told.

    ``unflipped`` of them did not flip, and count as farther than all that did. ``of`` says which samples these are.
    """

    value: float | None
    low: float | None
    high: float | None
    samples: int
    unflipped: int
    of: str


def flip_median(audit: Audit) -> FlipMedian:
    """The median over the rightly classified samples where there are labels, else over all: wrong ones need no move."""
    tried = [
        s for s in audit.samples if s.flip_radius is not None and (s.flip_radius.value is not None or s.flip_radius.evaluations)
    ]
    right = [s for s in tried if not (s.label is not None and s.label != s.prediction)]
    radii = sorted(math.inf if s.flip_radius is None or s.flip_radius.value is None else s.flip_radius.value for s in right)
    of = "rightly classified sample" if audit.data.labels else "sample"
    if not radii:
        return FlipMedian(None, None, None, 0, 0, of)
    below, above = bracketing(len(radii), 0.5)
    ends = [None if i is None or not math.isfinite(radii[i]) else radii[i] for i in (below, above)]
    n = len(radii)
    middle = (radii[(n - 1) // 2] + radii[n // 2]) / 2
    return FlipMedian(middle if math.isfinite(middle) else None, ends[0], ends[1], n, sum(map(math.isinf, radii)), of)


def flip_quantity(found: FlipMedian) -> Quantity:
    """The median flip radius as printed."""
    return Quantity(number(found.value), None if found.value is None else interval(found.low, found.high))


def flip_note(found: FlipMedian) -> str:
    """What the median flip radius is of."""
    if not found.samples:
        return "not measured"
    left = f", {found.unflipped:,} did not flip" if found.unflipped else ""
    return f"L2, measured, upper bound; {count(found.samples, found.of)}{left}"


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
    parts += _flips(audit)
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
    points = [(c, p) for s, c in curves if (p := _rung(s, c, part)) is not None]
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


def _rung(sample: SampleResult, curve: KLCurve, part: float) -> KLPoint | None:
    lam = sample.lambda_max.value
    unit = sample.boundary_distance.value or (1 / math.sqrt(lam) if lam else None)
    if not unit:
        return None
    nearest = min(curve.points, key=lambda p: abs(p.epsilon - part * unit))
    return nearest if abs(nearest.epsilon - part * unit) <= _SAME * part * unit else None


def _flips(audit: Audit) -> list[str]:
    found = flip_median(audit)
    if found.value is None:
        return []
    ends = interval(found.low, found.high)
    who = f"half of the {count(found.samples, found.of)}" if found.samples > 1 else f"the {found.of}"
    return [
        f"Flip radius: {who} changed the prediction within ε = {number(found.value)}"
        f"{f' ({ends})' if ends else ''}, along the few directions that were tried; a shorter way may exist."
    ]
