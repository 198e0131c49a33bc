"""Between which lengths the nearest change of each prediction lies, in L2 and L∞: from a finished record alone.

From below stands what is guaranteed, from above a move that was seen to change the prediction. Each norm takes what the other one
knows: ``‖δ‖∞ ≤ ‖δ‖₂ ≤ √d ‖δ‖∞``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import units_of_lengths
from onnxfim.record.decision import Aggregate
from onnxfim.record.guarantee_summaries import BracketSummary, DecidedAt
from onnxfim.record.guarantees import Bracket, Norm
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.verdict.guarantors import ATTACK, COUNTEREXAMPLE, FLIP, LOCAL, VERIFIER, WEIGHTS
from onnxfim.verdict.ladders import ladder, reached
from onnxfim.verdict.pixels import pixel_level
from onnxfim.verdict.weights_radius import WeightsRadius, log_odds, weights_radius

NORMS: tuple[Norm, Norm] = ("l2", "linf")
_OTHER: dict[Norm, tuple[Norm, str]] = {"l2": ("linf", " in L∞"), "linf": ("l2", " in L2")}
_METHOD = "order statistics"
_NEAR = 0.01  # of the median move that was seen: guarantees below it are told apart at no round length

#: What a guarantee may lie above a move that was seen by, relative to it. A guarantee is of the file's function in exact
#: arithmetic, the move was seen as the file ran: rounding moves the boundary by what it moves the margin, over the margin. Lengths
#: themselves are of the rows as the model saw them, in float64.
_LENGTHS = 1e-4
_ROUNDED, _COARSE = 1e-5, 2e-3  # of the outputs' scale: what float32, and 16 bits, move a margin by at most
_MOST_ROUNDED = 0.1  # where the margin is as small as its rounding, or is not known


def brackets(audit: Audit) -> Audit:
    """The audit with a bracket of each sample that has a prediction, in both norms, and their summaries.

    Nothing is measured: low ends are what was certified and what the weights guarantee, high ends the flips, attacks and confirmed
    counterexamples of the record. All of it in raw input units where their scale is known, else in the model's.
    """
    if not audit.decides:
        return replace(audit, bracket=(), samples=tuple(replace(s, bracket=()) if s.bracket else s for s in audit.samples))
    scale = [abs(s) for s in audit.settings.input_scale or (1.0,)]
    by_weights = weights_radius(audit, max(scale))
    samples = tuple(replace(s, bracket=_brackets_of(audit, s, scale, by_weights)) for s in audit.samples)
    found = replace(audit, samples=samples)
    units = units_of_lengths(audit.model.at, raw=audit.settings.raw)
    return replace(found, bracket=tuple(_summary(found, norm, units) for norm in NORMS))


def contradicts(audit: Audit, sample: SampleResult, bracket: Bracket) -> bool:
    """Whether a sample's guaranteed length is above that of a move that changed its prediction, beyond what rounding explains."""
    if bracket.low_from.startswith(VERIFIER) and bracket.high_from.startswith(ATTACK) and audit.step.per_coordinate:
        return False  # boxes end where each feature's own range does, attacks at the ends of all of them
    return bracket.high is not None and bracket.low > bracket.high * (1 + allowance(audit, sample))


def allowance(audit: Audit, sample: SampleResult) -> float:
    """What a guarantee may lie above a move that was seen by, relative: what rounding moves the boundary by, and no more."""
    margin = 0.0 if sample.confidence is None else log_odds(sample.confidence)
    outputs = max(1.0, 0.0 if audit.rows is None else audit.rows.scale)
    rounding = (_COARSE if "16" in audit.model.input_dtype else _ROUNDED) * outputs
    return _LENGTHS + min(rounding / margin if margin > 0 else math.inf, _MOST_ROUNDED)


def outside(audit: Audit, sample: SampleResult, bracket: Bracket, estimate: float | None) -> bool | None:
    """Whether an estimate of the distance lies outside a bracket that has both ends; None where there is nothing to tell."""
    if estimate is None or bracket.high is None or not bracket.low_from:
        return None
    allowed = 1 + allowance(audit, sample)
    return estimate * allowed < bracket.low or estimate > bracket.high * allowed


def _brackets_of(
    audit: Audit, sample: SampleResult, scale: Sequence[float], by_weights: WeightsRadius | None
) -> tuple[Bracket, ...]:
    """The brackets of one sample in both norms; none without a prediction."""
    if sample.prediction is None:
        return ()
    root = math.sqrt(max(1, math.prod(audit.data.shape)))
    low = {norm: list(_guaranteed(sample, norm, by_weights)) for norm in NORMS}
    high = {norm: list(_seen(audit, sample, norm, scale)) for norm in NORMS}
    # The ball of L2 length r holds that of L∞ length r/√d, and that of L∞ length r that of L2 length r.
    inside: dict[Norm, float] = {"l2": 1.0, "linf": 1 / root}
    # A move of L∞ length r has an L2 length of r·√d at most, and one of L2 length r an L∞ length of r at most.
    around: dict[Norm, float] = {"l2": root, "linf": 1.0}
    estimates = {p.norm: p for p in sample.predicted}
    found = []
    for norm in NORMS:
        other, where = _OTHER[norm]
        # The norm's own comes first where both are equal.
        lows = [*low[norm], *((length * inside[norm], f"{by}{where}") for length, by in low[other])]
        highs = [*high[norm], *((length * around[norm], f"{by}{where}") for length, by in high[other])]
        low_end, low_from = max((p for p in lows if p[0] > 0), key=lambda p: p[0], default=(0.0, ""))
        high_end, high_from = min(highs, key=lambda p: p[0], default=(None, ""))
        told = estimates.get(norm)
        first, fisher = (None, None) if told is None else (told.first_order, told.fisher)
        found.append(Bracket(norm, low_end, low_from, high_end, high_from, first, fisher))
    return tuple(found)


def _guaranteed(sample: SampleResult, norm: Norm, by_weights: WeightsRadius | None) -> Iterator[tuple[float, str]]:
    """Lengths within which nothing changes the prediction, and what guarantees them."""
    certified = sample.certified_radius if norm == "l2" else sample.certified_radius_linf
    if certified is not None and certified.value is not None:
        yield certified.value, VERIFIER if VERIFIER in certified.method else LOCAL
    if norm == "l2" and by_weights is not None and (length := by_weights.of(sample)) is not None:
        yield length, WEIGHTS


def _seen(audit: Audit, sample: SampleResult, norm: Norm, scale: Sequence[float]) -> Iterator[tuple[float, str]]:
    """Lengths of moves that were seen to change the prediction, and what found them."""
    flip = _raw_flip(sample, scale) if norm == "l2" else _value(sample.flip_radius_linf)
    if flip is not None:
        yield flip, FLIP
    attack, attacked = audit.attack, _value(sample.attack_distance)
    # An attack goes for an answer other than the label: on a sample that is wrong before it has nothing to change.
    own = sample.label is None or sample.label == sample.prediction or (attack is not None and attack.by_prediction)
    if attack is not None and attack.norm == norm and attacked is not None and attacked > 0 and own:
        yield attacked, ATTACK
    if audit.verifier is not None and audit.verifier.norm == norm:
        yield from ((b.distance, COUNTEREXAMPLE) for b in sample.verified if b.replay and b.distance is not None)


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _raw_flip(sample: SampleResult, scale: Sequence[float]) -> float | None:
    """The L2 length of a sample's flip in raw units; an upper bound of it where its move is not known; None where it is none."""
    radius, lengths = _value(sample.flip_radius), sample.flip_lengths
    if radius is None or all(s == 1 for s in scale):
        return radius
    if lengths is not None and lengths.raw is not None:
        return lengths.raw
    return radius / min(scale) if min(scale) > 0 else None


def _summary(audit: Audit, norm: Norm, units: str) -> BracketSummary:
    pairs = [(s, b) for s in audit.samples for b in s.bracket if b.norm == norm]
    told = [b for _, b in pairs]
    lows, highs = [b.low for b in told], [math.inf if b.high is None else b.high for b in told]
    widths = sorted(h / b.low if b.low > 0 else math.inf for b, h in zip(told, highs, strict=True))
    middle = reached(widths, 0.5).epsilon
    first, fisher = ([outside(audit, s, b, e) for s, b, e in _estimates(pairs, k)] for k in (0, 1))
    return BracketSummary(
        norm=norm,
        units=units,
        samples=len(told),
        low=_median(lows),
        high=_median(highs),
        width=None if middle is None or middle > 1e300 else middle,
        decided=tuple(_decided(e, lows, highs) for e in _lengths(audit, norm, lows, highs)),
        contradictions=sum(contradicts(audit, s, b) for s, b in pairs),
        first_order_outside=sum(o is True for o in first),
        first_order_tried=sum(o is not None for o in first),
        fisher_outside=sum(o is True for o in fisher),
        fisher_tried=sum(o is not None for o in fisher),
    )


def _estimates(pairs: Sequence[tuple[SampleResult, Bracket]], which: int) -> Iterator[tuple[SampleResult, Bracket, float | None]]:
    return ((s, b, (b.first_order, b.fisher)[which]) for s, b in pairs)


def _median(lengths: Sequence[float]) -> Aggregate:
    """The median with its interval by order statistics; without a value where most are infinite."""
    found = reached(sorted(lengths), 0.5)
    return Aggregate(found.epsilon, found.low, found.high, 0.95, _METHOD)


def _decided(epsilon: float, lows: Sequence[float], highs: Sequence[float]) -> DecidedAt:
    lost = sum(high <= epsilon for high in highs)
    kept = sum(low >= epsilon < high for low, high in zip(lows, highs, strict=True))
    return DecidedAt(epsilon, kept, lost, len(lows) - kept - lost)


def _lengths(audit: Audit, norm: Norm, lows: Sequence[float], highs: Sequence[float]) -> list[float]:
    """Round lengths at which the samples are told apart, where any of them is decided, and one that was asked for."""
    seen = sorted(x for x in highs if x < math.inf)
    least = _NEAR * seen[len(seen) // 2] if seen else 0.0
    told = sorted([*seen, *(x for x in lows if x > 0 and x >= least)])
    asked = audit.settings.epsilon if audit.settings.attack in (None, norm) else None
    return ladder(told, pixel_level(audit) if norm == "linf" else None, asked)
