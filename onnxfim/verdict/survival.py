"""How many predictions are left at a distance, in units that people know: from a finished record alone."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import INPUT_UNIT, RAW_UNIT
from onnxfim.record.robustness import SHARES, Reached, Robustness, Source, SurvivalCurve, SurvivalPoint, Unit
from onnxfim.record.sample import Kind, SampleResult
from onnxfim.record.settings import OUTPUT_FAMILIES
from onnxfim.record.statistics import bracketing, clopper_pearson
from onnxfim.verdict.pixels import pixel_level, scale_ends
from onnxfim.verdict.placing import place_among

_STEPS = 100  # of a curve
_ROUND = (1, 2, 5)  # digits of a ladder's distances
_LEVELS = (0.5, 1, 2, 4, 8, 16, 32)  # of 255, the same where each pixel moves as far
_ALIKE = 1.25  # the largest scale of a channel over the smallest: first-order distances are then told in raw units
_SURE = 1e-6  # of a probability: what float32 rounds it by, several times over
_WORTH = 0.1  # of the shortest move that flips: guarantees below it say nothing there


def robustness(audit: Audit) -> Robustness:
    """Survival curves of an audit's samples, the distances at which 10, 50 and 90 % fall, and the model's place among references.

    A curve is there where its distances were measured on at least one sample with a prediction; none is where outputs have no
    prediction.
    """
    scale = _Scale.of(audit)
    curves = [c for c in (_flips(audit, scale), _attacks(audit, scale), _boundaries(audit, scale)) if c is not None]
    guaranteed, why = _guarantees(audit, scale, curves)
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


def _guarantees(audit: Audit, scale: _Scale, curves: Sequence[SurvivalCurve]) -> tuple[SurvivalCurve | None, str | None]:
    """The curve of the distances within which the weights allow no flip, and what is to be said of it.

    A flip to class j needs ``z_y − z_j`` to fall to 0, which changes by at most ``√2·L·‖δ‖``. The difference is at least
    ``ln p/(1 − p)`` of the predicted class, for p_j is at most ``1 − p``.

    Source: Tsuzuku, Sato & Sugiyama (2018), NeurIPS, prop. 1.
    """
    bound = audit.bound
    of_classes = OUTPUT_FAMILIES[audit.model.output_kind] == OUTPUT_FAMILIES["logits"] and audit.model.positions == 1
    if bound is None or not of_classes or not audit.decides or audit.model.at is not None or scale.unit == "deviations":
        return None, None
    if not bound.available or bound.log10_lipschitz is None:
        return None, f"the weights guarantee nothing: {bound.reason}" if bound.reason else None
    lipschitz = bound.log10_lipschitz + 0.5 * math.log10(2) + math.log10(scale.most)
    told = []
    for s in audit.samples:
        if s.prediction is None or s.confidence is None:
            continue
        p = min(s.confidence, 1.0) - _SURE
        margin = math.log(p / (1 - p)) if p > 0.5 else 0.0
        told.append((s, margin * 10 ** max(min(-lipschitz, 300.0), -300.0)))
    found = _curve("certified", "lower bound", "l2", scale.units, told)
    if found is None:
        return None, None
    longest = max((d for s, d in told if not wrong_without(s)), default=0.0)
    shortest = min((p.epsilon for c in curves if c.norm == "l2" for p in c.points if p.epsilon > 0), default=math.inf)
    if longest < _WORTH * shortest:
        return None, f"the weights say nothing at these distances: they guarantee no prediction beyond ε = {longest:.2g}"
    return found, "no flip is possible nearer than this, in exact arithmetic"


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
        ladder=tuple(at(e) for e in _ladder(finite, level if norm == "linf" else None, also)),
    )


def reached(distances: Sequence[float], share: float) -> Reached:
    """The quantile of distances in increasing order, infinite beyond all, and its interval by order statistics.

    It is a distance at which that share of these samples has fallen: an order statistic, or, where any distance between two of them
    is one, the middle of these two, as the median of an even number has it.
    """
    n = len(distances)
    below, above = bracketing(n, share)
    fallen = max(math.ceil(share * n - 1e-9), 1)
    value = distances[fallen - 1]
    if fallen < n and math.isclose(share * n, fallen) and math.isfinite(distances[fallen]):
        value = (value + distances[fallen]) / 2
    ends = [math.inf if at is None else distances[at] for at in (below, above)]
    return Reached(share, *(x if math.isfinite(x) else None for x in (value, *ends)))


def _ladder(finite: Sequence[float], level: float | None, also: float | None) -> list[float]:
    """Round distances over the curve: 1, 2, 5 in each decade, or steps of 255 where each pixel moves alike; and one asked for."""
    positive = [d for d in finite if d > 0]
    asked = {also} if also is not None else set()
    if not positive:
        return sorted(asked)
    if level is not None:
        last = next((k for k, m in enumerate(_LEVELS) if m * level >= positive[-1]), len(_LEVELS) - 1)
        return sorted({m * level for m in _LEVELS[: last + 1]} | asked)
    low, high = positive[len(positive) // 10], positive[-1]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    rounds = [float(f"{d}e{e}") for e in decades for d in _ROUND]
    inside = [r for r in rounds if low / 2.5 <= r <= 2.5 * high]
    return sorted(set(inside[:12]) | asked)
