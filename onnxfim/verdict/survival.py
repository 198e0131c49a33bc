"""How many predictions are left at a distance, in units that people know: from a finished record alone."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import INPUT_UNIT, RAW_UNIT
from onnxfim.record.robustness import SHARES, Robustness, Source, SurvivalCurve, SurvivalPoint, Unit
from onnxfim.record.sample import Kind, SampleResult
from onnxfim.record.statistics import clopper_pearson
from onnxfim.verdict.guarantors import GUARANTORS, VERIFIER, WEIGHTS
from onnxfim.verdict.ladders import ladder, reached
from onnxfim.verdict.pixels import pixel_level, scale_ends
from onnxfim.verdict.placing import place_among
from onnxfim.verdict.weights_radius import could_tell, weights_radius

_STEPS = 100  # of a curve
_ALIKE = 1.25  # the largest scale of a channel over the smallest: first-order distances are then told in raw units
_WORTH = 0.1  # of the shortest move that flips: guarantees below it say nothing there


def robustness(audit: Audit) -> Robustness:
    """Survival curves of an audit's samples, the distances at which 10, 50 and 90 % fall, and the model's place among references.

    A curve is there where its distances were measured on at least one sample with a prediction; none is where outputs have no
    prediction.
    """
    scale = _Scale.of(audit)
    curves = [c for c in (_flips(audit, scale), _attacks(audit, scale), _boundaries(audit, scale)) if c is not None]
    guaranteed, why, by = _guarantees(audit, scale, curves)
    place, no_place = place_among(audit, next((c for c in curves if c.source == "flip_radius"), None), scale.level)
    return Robustness(
        units=scale.units,
        unit=scale.unit,
        dimension=max(1, math.prod(audit.data.shape)),
        level=scale.level,
        deviation=scale.deviation(audit),
        counts="right" if audit.data.labels else "unchanged",
        curves=(*curves, *([guaranteed] if guaranteed is not None else [])),
        certified=why,
        guaranteed_by=by,
        place=place,
        no_place=no_place,
    )


@dataclass(frozen=True)
class _Scale:
    """The units that distances are told in: ``least`` and ``most`` are how many model units one of them is, over the channels."""

    unit: Unit
    units: str
    least: float
    most: float
    level: float | None

    @staticmethod
    def of(audit: Audit) -> _Scale:
        at = audit.model.at
        if at is not None:
            return _Scale("inner", at.units, 1.0, 1.0, pixel_level(audit) if at.kind == "levels" else None)
        if audit.step.per_coordinate:
            return _Scale("deviations", "standard deviations of each input", 1.0, 1.0, None)
        ends = scale_ends(audit)
        if ends is None:
            return _Scale("model", f"{INPUT_UNIT}s", 1.0, 1.0, pixel_level(audit))
        return _Scale("raw", f"{RAW_UNIT}s", *ends, pixel_level(audit))

    @property
    def middle(self) -> float:
        """Of scales that are nearly alike."""
        return math.sqrt(self.least * self.most)

    def deviation(self, audit: Audit) -> float | None:
        """The data's standard deviation in these units."""
        told = audit.data.input_std
        return None if self.unit == "deviations" or not told > 0 else told / self.middle

    def flip(self, sample: SampleResult) -> float | None:
        """The length of a sample's flip in these units; an upper bound of it where its move is not known; None where it is none."""
        radius, lengths = sample.flip_radius, sample.flip_lengths
        if radius is None or radius.value is None:
            return None
        if self.unit == "deviations":
            return None if lengths is None else lengths.standardised
        if self.unit == "raw" and lengths is not None and lengths.raw is not None:
            return lengths.raw
        return radius.value / self.least


def tried(sample: SampleResult) -> bool:
    """Whether a flip was looked for on a sample: an interrupt leaves some out."""
    return sample.flip_radius is not None and (sample.flip_radius.value is not None or sample.flip_radius.evaluations > 0)


def wrong_without(sample: SampleResult) -> bool:
    """Whether a sample is wrong without a move: it needs none."""
    return sample.label is not None and sample.label != sample.prediction


def _flips(audit: Audit, scale: _Scale) -> SurvivalCurve | None:
    some = [s for s in audit.samples if tried(s)]
    told = [(s, scale.flip(s)) for s in some]
    if any(d is None and s.flip_radius is not None and s.flip_radius.value is not None for s, d in told):
        return None  # a length that is not known in these units is not one beyond all others
    return _curve("flip_radius", "upper bound", "l2", scale.units, told)


def _attacks(audit: Audit, scale: _Scale) -> SurvivalCurve | None:
    attack = audit.attack
    if attack is None:
        return None
    told = [(s, e.value) for s in audit.samples if (e := s.attack_distance) is not None]
    level = scale.level if scale.unit != "deviations" else None
    return _curve("attack", "upper bound", attack.norm, attack.units, told, level=level, also=audit.settings.epsilon)


def _boundaries(audit: Audit, scale: _Scale) -> SurvivalCurve | None:
    if scale.unit == "deviations" or scale.most > _ALIKE * scale.least:
        return None
    # A distance is one to a boundary where there is a prediction; a sample without one is not known to be far.
    told = [
        (s, s.boundary_distance.value / scale.middle)
        for s in audit.samples
        if s.prediction is not None and s.boundary_distance.value is not None
    ]
    return _curve("boundary_distance", "estimate", "l2", scale.units, told)


def _guarantees(
    audit: Audit, scale: _Scale, curves: Sequence[SurvivalCurve]
) -> tuple[SurvivalCurve | None, str | None, tuple[str, ...]]:
    """The curve of the distances within which no flip is possible, what is to be said of it, and what guarantees them.

    These are the low ends of the brackets; of a record that has none, and of the units that brackets are not told in, what the
    weights allow.
    """
    bound = audit.bound
    if scale.unit == "deviations":
        return None, None, ()
    told, by = _low_ends(audit, scale)
    if not told:
        why = bound.reason if bound is not None and could_tell(audit) else ""
        return None, f"the weights guarantee nothing: {why}" if why else None, ()
    found = _curve("certified", "lower bound", "l2", scale.units, told)
    if found is None:
        return None, None, ()
    longest = max((d for s, d in told if not wrong_without(s)), default=0.0)
    shortest = min((p.epsilon for c in curves if c.norm == "l2" for p in c.points if p.epsilon > 0), default=math.inf)
    if longest < _WORTH * shortest:
        who = GUARANTORS.get(by[0], by[0]) if by else "the weights"
        says, theirs = ("say", "they guarantee") if who != GUARANTORS[VERIFIER] else ("says", "it guarantees")
        return None, f"{who} {says} nothing at these distances: {theirs} no prediction beyond ε = {longest:.2g}", ()
    return found, "no flip is possible nearer than this, in exact arithmetic", by


def _low_ends(audit: Audit, scale: _Scale) -> tuple[list[tuple[SampleResult, float]], tuple[str, ...]]:
    """Samples with the L2 lengths within which no flip is possible, and what guarantees these, the most frequent first."""
    ends = {s.index: b for s in audit.samples for b in s.bracket if b.norm == "l2"}
    if any(b.low_from for b in ends.values()) and all(b.units == scale.units for b in audit.bracket):
        by = Counter(b.low_from.partition(" in ")[0] for b in ends.values() if b.low_from)
        return [(s, ends[s.index].low) for s in audit.samples if s.index in ends], tuple(name for name, _ in by.most_common())
    weights = weights_radius(audit, scale.most)
    if weights is None:
        return [], ()
    return [(s, d) for s in audit.samples if (d := weights.of(s)) is not None], (WEIGHTS,)


def _curve(
    source: Source, kind: Kind, norm: Literal["l2", "linf"], units: str, told: Sequence[tuple[SampleResult, float | None]],
    *, level: float | None = None, also: float | None = None,
) -> SurvivalCurve | None:  # fmt: skip
    """The curve of some samples' distances, None for one beyond all; None without samples."""
    if not told:
        return None
    distances = sorted(math.inf if d is None else d for s, d in told if not wrong_without(s))
    finite = [d for d in distances if math.isfinite(d)]
    n, standing = len(told), len(distances)

    def at(epsilon: float) -> SurvivalPoint:
        left = standing - bisect_right(distances, epsilon)
        low, high = clopper_pearson(left, n)
        return SurvivalPoint(epsilon, left / n, low, high)

    places = (
        range(len(finite))
        if len(finite) <= _STEPS
        else sorted({round(k * (len(finite) - 1) / (_STEPS - 1)) for k in range(_STEPS)})
    )
    steps = sorted({0.0, *(finite[k] for k in places)})
    return SurvivalCurve(
        source=source,
        kind=kind,
        norm=norm,
        units=units,
        samples=n,
        standing=standing,
        unreached=standing - len(finite),
        reached=tuple(reached(distances, share) for share in SHARES) if standing else (),
        points=tuple(at(e) for e in steps),
        ladder=tuple(at(e) for e in ladder(finite, level if norm == "linf" else None, also)),
    )
