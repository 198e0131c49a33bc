"""The number in human terms: what a change of the input of a given size does, in lines of plain text, most telling first."""

from __future__ import annotations

import math
from functools import lru_cache

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.record.guarantees import Norm
from onnxfim.record.robustness import Rank, Reached, ReferencePlace, Robustness, SurvivalCurve, SurvivalPoint
from onnxfim.record.sample import KLCurve, KLPoint, SampleResult
from onnxfim.record.statistics import bracketing
from onnxfim.report.guarantee_words import bracket_line, noise_line
from onnxfim.report.numbers import count, inline_label, known_ends, number, percent, short
from onnxfim.report.vocabulary import NORM_WORDS
from onnxfim.verdict.guarantors import GUARANTORS, VERIFIER, WEIGHTS
from onnxfim.verdict.survival import robustness

_MOST_RUNGS = 3  # of the attack's ladder in its sentence
_PARTS = (0.8, 0.2, 0.5)  # of what stands without attack: the rungs nearest to these are told
_FARTHER = 1.5  # times the first-order distance: flips found so far out are told beside it
_QUARTER = 0.25
_SAME = 0.05  # relative difference of a rung of the replay from the distance it is taken for
TRAININGS = {"standard": "with standard training", "robust": "trained for robustness"}


def human_lines(audit: Audit) -> tuple[str, ...]:
    """Sentences for the top of every surface (page, terminal, summary, notebook); none where nothing of the kind was measured."""
    told = robustness_of(audit)
    lines = (
        flip_line(audit, told), attack_line(told), place_line(audit, told), bracket_line(audit, told) or guarantee_line(told),
        noise_line(audit), divergence_line(audit, told),
    )  # fmt: skip
    return tuple(line for line in lines if line is not None)


def robustness_of(audit: Audit) -> Robustness:
    """What the record holds, or, of a file that holds none, what follows from its samples."""
    return _kept(_Same(audit)) if audit.robustness is None else audit.robustness


class _Same:
    """An audit as a key: by its identity, for a record has no hash."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit

    def __hash__(self) -> int:
        return id(self.audit)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.audit is other.audit


@lru_cache(maxsize=4)
def _kept(key: _Same) -> Robustness:
    return robustness(key.audit)


def who(curve: SurvivalCurve, counts: str) -> str:
    """The samples that a curve's quantiles are of: ``98 rightly classified samples``."""
    return count(curve.standing, "rightly classified sample" if counts == "right" else "sample")


def size(epsilon: float, curve: SurvivalCurve, told: Robustness) -> str:
    """What a distance is: its norm and units, and how far each input moves where all move alike."""
    return extent(epsilon, curve.norm, curve.units, told)


def extent(epsilon: float, norm: Norm, units: str, told: Robustness) -> str:
    """`size` of a length in any norm and units."""
    parts = [f"{NORM_WORDS[norm]} in {visible(units)}"]
    own = units == told.units
    each = epsilon / math.sqrt(told.dimension) if norm == "l2" else epsilon
    if told.level is not None and own:
        parts.append(f"as much as every pixel by {levels(each, told)}")
    elif norm == "l2" and told.unit != "deviations":
        share = f", {percent(each / told.deviation)} of the data's standard deviation" if told.deviation and own else ""
        parts.append(f"as much as every value by {number(each)}{share}")
    elif norm == "l2":
        parts.append(f"as much as every value by {number(each)} of its deviation")
    return "; ".join(parts)


def levels(each: float, told: Robustness) -> str:
    """A change of one pixel as ``x/255``."""
    steps = each / (told.level or 1.0)
    return f"{short(round(steps, 2 if steps < 1 else 1 if steps < 10 else 0))}/255"


def flip_line(audit: Audit, told: Robustness) -> str | None:
    """How far predictions last along the moves that were tried; None where none was looked for."""
    curve = told.curve("flip_radius")
    if curve is None:
        return _boundary_alone(audit, told)
    samples = who(curve, told.counts)
    if not curve.standing:
        return f"None of the {count(curve.samples, 'sample')} is rightly classified: there is nothing left to flip."
    fell = curve.standing - curve.unreached
    tenth, half, most = curve.reached
    if half.epsilon is None:
        if not fell:
            return f"No move that was tried flips any of the {samples}, within the range of the inputs; others may."
        first = "" if tenth.epsilon is None else f": 10 % at ε = {number(tenth.epsilon)} ({size(tenth.epsilon, curve, told)})"
        return (
            f"Fewer than half of the {samples}, {fell:,}, flip along the moves that were tried, within the range of the "
            f"inputs{first}. Others may flip sooner."
        )
    tails = _tails(tenth, most) if curve.standing > 1 else ""
    return (
        f"A change of ε = {number(half.epsilon)} ({size(half.epsilon, curve, told)}) flips {_half_of(curve, told.counts)}"
        f"{_ends(half, curve)}{tails}. {_caution(audit, told, half)}"
    )


def _half_of(curve: SurvivalCurve, counts: str) -> str:
    one = curve.standing == 1
    return f"the one {who(curve, counts)[2:]}" if one else f"half of the {who(curve, counts)}"


def _ends(found: Reached, curve: SurvivalCurve) -> str:
    """The interval: of an upper bound its upper end alone, for the truth may lie below what any sampling shows."""
    ends = known_ends(None if curve.kind == "upper bound" else found.low, found.high)
    return f" (95 % interval: {ends})" if ends else ""


def _tails(tenth: Reached, most: Reached) -> str:
    early = "" if tenth.epsilon is None else f"10 % flip at {number(tenth.epsilon)}"
    late = "fewer than 90 % flip at all" if most.epsilon is None else f"90 % at {number(most.epsilon)}"
    return f"; {', '.join(filter(None, (early, late)))}"


def _caution(audit: Audit, told: Robustness, half: Reached) -> str:
    """What is known of shorter ways."""
    attacked = told.curve("attack")
    if attacked is not None and attacked.norm == "l2" and attacked.units == told.units and attacked.half is not None:
        shorter = attacked.half.epsilon
        if shorter is not None and half.epsilon is not None and shorter < half.epsilon:
            return f"The attack found shorter ways: {number(shorter)} for half of those attacked."
    near = told.curve("boundary_distance")
    first = near.half.epsilon if near is not None and near.half is not None else None
    if first and half.epsilon and half.epsilon > _FARTHER * first:
        return f"Shorter ways are likely: to first order, a boundary is {number(first)} away for half of them."
    if audit.run.method != "gradient":
        return "It was looked for without gradients: much shorter ways may exist."
    return "A shorter way may exist."


def _boundary_alone(audit: Audit, told: Robustness) -> str | None:
    """The first-order distance, where no flip was looked for."""
    curve = told.curve("boundary_distance")
    half = curve.half if curve is not None else None
    if curve is None or half is None or half.epsilon is None:
        return _without_predictions(audit, told)
    return (
        f"To first order, a change of ε = {number(half.epsilon)} ({size(half.epsilon, curve, told)}) flips "
        f"{_half_of(curve, told.counts)}{_ends(half, curve)}: an estimate, no move was tried."
    )


def _without_predictions(audit: Audit, told: Robustness) -> str | None:
    """What a change does where there is no prediction that could flip: the distance of half a nat, to first order."""
    if audit.decides:
        return None
    name = "lambda_max_standardised" if told.unit == "deviations" else "lambda_max"
    found = audit.aggregates.get(name)
    if found is None or not found.median.value:
        return None
    near, low, high = (1 / math.sqrt(x) if x else None for x in (found.median.value, found.median.high, found.median.low))
    units = told.units if told.unit in ("deviations", "inner") else "model input units"
    ends = known_ends(low, high)
    return (
        f"To first order, a change of ε = {number(near)} (L2 in {visible(units)}) along its worst direction moves the outputs of "
        f"half of the {count(found.count, 'sample')} by half a nat{_MEANS.get(audit.model.output_kind, '')}"
        f"{f' (95 % interval: {ends})' if ends else ''}."
    )


_MEANS = {
    "gaussian": ", as far as one standard deviation σ of theirs",
    "embedding": ", as far as one σ in the embedding",
}


def attack_line(told: Robustness) -> str | None:
    """What the attack left at which distance; None without an attack."""
    curve = told.curve("attack")
    if curve is None or (half := curve.half) is None:
        return None
    clean = curve.standing / curve.samples
    what = "accuracy" if told.counts == "right" else "agreement with its own predictions"
    norm = NORM_WORDS[curve.norm]
    if half.epsilon is None:
        whole = f"Attacked ({norm}), the {what} of {percent(clean)} does not halve: no attack on most samples succeeded"
    else:
        at = f"ε = {attacked_at(half.epsilon, curve, told)}"
        between = "" if half.high is None else f" (95 % interval: at most {attacked_at(half.high, curve, told)})"
        whole = f"Attacked ({norm} in {visible(curve.units)}), the {what} halves from {percent(clean)} at {at}{between}"
    rungs = [f"{percent(p.left)} at {attacked_at(p.epsilon, curve, told)}" for p in telling_rungs(curve)]
    return f"{whole}{': ' + ', '.join(rungs) + ' are left' if rungs else ''}. A stronger attack can only lower it."


def attacked_at(epsilon: float, curve: SurvivalCurve, told: Robustness) -> str:
    """A distance of an attack: in steps of 255 where every pixel may move by as much."""
    if curve.norm == "linf" and told.level is not None and curve.units == told.units:
        return levels(epsilon, told)
    return number(epsilon)


def telling_rungs(curve: SurvivalCurve, most: int = _MOST_RUNGS) -> tuple[SurvivalPoint, ...]:
    """The rungs of a curve's ladder that tell most: where some have fallen and some are left, spread over these."""
    clean = curve.standing / curve.samples
    inside = [p for p in curve.ladder if 0 < p.left < clean]
    chosen = {min(inside, key=lambda p: abs(p.left - part * clean)).epsilon for part in _PARTS[:most] if inside}
    return tuple(p for p in inside if p.epsilon in chosen)


def place_line(audit: Audit, told: Robustness) -> str | None:
    """Where the model stands among the references, with what that does not say."""
    place = told.place
    if place is None:
        # The user can mend units; what else is in the way stands beside the curves.
        reason = told.no_place if told.level is None else None
        return None if reason is None else f"{reason[:1].upper()}{visible(reason[1:])}."
    first, *others = place.ranks
    also = "".join(f", than {r.below:,} by {rank_name(r)}{_within(r)}" for r in others)
    band = band_words(place)
    accuracy = audit.calibration.accuracy
    mine = f", here {percent(accuracy)}" if accuracy is not None else ""
    low, high = (percent(a) for a in place.accuracy)
    return (
        f"More sensitive than {first.below:,} of {place.models:,} reference {place.task} classifiers by {rank_name(first)}"
        f"{_within(first)}{also}{f': {band}' if band else ''}. That it classifies {place.task} is taken from the shape of its "
        f"inputs; theirs are other samples, and their accuracies {low} to {high}{mine}."
    )


def rank_name(rank: Rank) -> str:
    """``mean calibrated λ_max``, ``median flip radius``."""
    return f"{rank.statistic} {inline_label(rank.measure)}"


def _within(rank: Rank) -> str:
    return "" if rank.least == rank.most else f" ({rank.least:,} to {rank.most:,} within its interval)"


def band_words(place: ReferencePlace) -> str:
    """What the ranks say in words: a quarter of the references where the whole interval lies in it, and the training."""
    first = place.ranks[0]
    parts = []
    if first.least >= (1 - _QUARTER) * place.models:
        parts.append("among the most sensitive quarter")
    elif first.most <= _QUARTER * place.models:
        parts.append("among the least sensitive quarter")
    if place.like is not None:
        parts.append(f"like those {TRAININGS[place.like]}")
    return ", ".join(parts)


def guarantee_line(told: Robustness) -> str | None:
    """Within which distance no flip is possible, and by what; None where nothing is guaranteed there."""
    curve = told.curve("certified")
    half = curve.half if curve is not None else None
    if curve is None or half is None or not half.epsilon:
        return None
    who_says, verb = guaranteed_by(told)
    return (
        f"{who_says[:1].upper()}{who_says[1:]} {verb} that half of the {who(curve, told.counts)} cannot flip within "
        f"ε = {number(half.epsilon)} ({size(half.epsilon, curve, told)})."
    )


def guaranteed_by(told: Robustness) -> tuple[str, str]:
    """What the guaranteed distances rest on, and its verb: ``the weights``, ``guarantee``."""
    names = [GUARANTORS.get(name, visible(name)) for name in told.guaranteed_by or (WEIGHTS,)]
    one = len(names) == 1 and told.guaranteed_by == (VERIFIER,)
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0], "guarantees" if one else "guarantee"


def divergence_line(audit: Audit, told: Robustness) -> str | None:
    """What was measured along the worst directions: it can only be more in the worst case, never less."""
    curves = [(s, s.kl_curve) for s in audit.samples if s.kl_curve is not None and s.kl_curve.points]
    known = [(p.epsilon, max(p.along, p.against, 0.0)) for s, c in curves if (p := rung(s, c, 1.0)) is not None]
    if not known:
        return None
    unit = "boundary distance" if all(s.boundary_distance.value for s, _ in curves) else "boundary distance or 1/√λ_max"
    steps, moved = [e for e, _ in known], sorted(kl for _, kl in known)
    span = number(min(steps)) if number(min(steps)) == number(max(steps)) else f"{number(min(steps))} to {number(max(steps))}"
    if len(moved) == 1:
        return (
            f"Moved by its {unit} along its worst direction (ε = {span}), the replayed sample changed by {number(moved[0])} nats."
        )
    below, _ = bracketing(len(moved), 0.5)
    ends = known_ends(None if below is None else moved[below], None)  # more may be possible than was measured
    return (
        f"Moved by its own {unit} along its worst direction (ε = {span}), half of the {count(len(moved), 'replayed sample')} "
        f"changed their distribution by {number(moved[len(moved) // 2])} nats or more"
        f"{f' (95 % interval: {ends})' if ends else ''}: measured, other directions may do more."
    )


def rung(sample: SampleResult, curve: KLCurve, part: float) -> KLPoint | None:
    """The point of the replay that is ``part`` of a sample's unit of distance; None where there is none so near."""
    lam = sample.lambda_max.value
    unit = sample.boundary_distance.value or (1 / math.sqrt(lam) if lam else None)
    if not unit:
        return None
    nearest = min(curve.points, key=lambda p: abs(p.epsilon - part * unit))
    return nearest if abs(nearest.epsilon - part * unit) <= _SAME * part * unit else None
