"""The median distances that stand beside the models of a comparison: those that each model's own report tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import RAW_UNIT
from onnxfim.record.decision import Aggregate
from onnxfim.record.robustness import Robustness, Source
from onnxfim.verdict.ladders import reached
from onnxfim.verdict.survival import robustness, wrong_without

_METHOD = "order statistics of the samples that stand without a change"


@dataclass(frozen=True)
class Medians:
    """Of one audit, L2, of the rightly classified samples or, without labels, of all; None where it has no such distances.

    Certified radii are the low ends of the brackets, whatever guarantees them; there are none unless all audits asked for them.
    """

    flip_radius: Aggregate | None
    boundary_distance: Aggregate | None
    certified_radius: Aggregate | None = None
    certified_radius_linf: Aggregate | None = None


def medians_of(given: Sequence[Audit], common: Sequence[Audit], *, converted: bool) -> tuple[str, list[Medians]]:
    """The units of the medians, and the medians of each audit.

    Args:
        given: The audits as they were saved; their own records tell the distances.
        common: The same in the units that all share.
        converted: Whether these are raw units and are not those of every audit.

    Returns:
        The units, several of them, and the medians in them. Where the records have no units in common, the units are empty, and
        the medians are those over all samples in the units that λ_max is told in.
    """
    told = [a.robustness or robustness(a) for a in given]
    units = {f"{RAW_UNIT}s" if converted and r.unit == "model" else r.units for r in told}
    if len(units) > 1:
        return "", [Medians(_over_all(a, "flip_radius"), _over_all(a, "boundary_distance")) for a in common]
    # A boundary's distance is known in raw units only where the channels' scales are nearly alike.
    known = all(r.curve("boundary_distance") or not _over_all(a, "boundary_distance") for r, a in zip(told, given, strict=True))
    unit = units.pop()
    sure = [_certified(a, unit, converted=converted) for a in common]
    beside = sure if all(l2 is not None or linf is not None for l2, linf in sure) else [(None, None)] * len(sure)
    return unit, [
        Medians(_half(r, "flip_radius"), _half(r, "boundary_distance") if known else None, *certified)
        for r, certified in zip(told, beside, strict=True)
    ]


def _certified(audit: Audit, units: str, *, converted: bool) -> tuple[Aggregate | None, Aggregate | None]:
    """Medians of what is guaranteed in L2 and L∞, over the samples that stand; None where that was not asked for.

    Brackets are told in raw units where these are known, and where they are not, the model's are those.
    """
    asked = any(e is not None for s in audit.samples for e in (s.certified_radius, s.certified_radius_linf))
    if not asked or not all(b.units == units or converted for b in audit.bracket):
        return None, None
    standing = [s for s in audit.samples if not wrong_without(s)]
    found = []
    for norm in ("l2", "linf"):
        lows = sorted(b.low for s in standing for b in s.bracket if b.norm == norm)
        half = reached(lows, 0.5) if lows else None
        found.append(None if half is None else Aggregate(half.epsilon, half.low, half.high, 0.95, _METHOD))
    return found[0], found[1]


def _half(told: Robustness, source: Source) -> Aggregate | None:
    """The distance at which half of the standing samples have fallen; without a value where fewer did."""
    curve = told.curve(source)
    if curve is None or (half := curve.half) is None:
        return None
    return Aggregate(half.epsilon, half.low, half.high, 0.95, _METHOD)


def _over_all(audit: Audit, measure: str) -> Aggregate | None:
    group = audit.aggregates.get(measure)
    return None if group is None else group.median
