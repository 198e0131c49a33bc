"""Thresholds for gates from a baseline audit, with the margin that its intervals allow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate, Aggregates
from onnxfim.record.measures import BY_NAME, QUANTILES, STATISTIC_BY_NAME
from onnxfim.record.statistics import bracketing, fewest_bracketing, wilson

#: Half-widths of the 95 % interval that lie between a value and its threshold. One is the baseline's own error, √2 that of the
#: difference to a run on other samples; the rest is for intervals that vary, and for several gates at once.
HALF_WIDTHS = 3.0
#: Largest margin, as a factor of the value, that is still worth a gate: λ_max is a square, and √10 of a distance is as much.
WIDEST = {-1: 10.0, 1: math.sqrt(10.0)}
_ONE_IN = 0.01  # of the re-runs of an unchanged model may fall below the suggested accuracy, by its predictive distribution
_LAMBDAS = ("lambda_max_calibrated", "lambda_max")
_CENTRES = ("geometric_mean", "median")


@dataclass(frozen=True)
class Suggested:
    """A gate and where its threshold comes from.

    Attributes:
        text: The gate, as ``--fail-on`` takes it.
        name: What it names.
        value: The baseline's value, with the ends of its 95 % interval, ``low`` and ``high``; None of a count.
        threshold: Where it fails.
        count: Samples that the value is of.
        factor: Threshold over value, of a measure; None of a share or a count.
        why: In words, where the threshold comes from.
    """

    text: str
    name: str
    value: float | None
    low: float | None
    high: float | None
    threshold: float
    count: int
    factor: float | None
    why: str


@dataclass(frozen=True)
class Refused:
    """A statistic that so many samples cannot decide, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Suggestions:
    """Gates that a baseline passes, and statistics that no gate is suggested for."""

    gates: tuple[Suggested, ...]
    refused: tuple[Refused, ...]

    @property
    def fail_on(self) -> tuple[str, ...]:
        """The gates as ``check(…, fail_on=…)`` and ``--fail-on`` take them."""
        return tuple(g.text for g in self.gates)


def suggest(audit: Audit) -> Suggestions:
    """Gates that this audit passes decidedly and an unchanged model passes on other samples, and what is refused.

    A threshold lies three half-widths of the 95 % interval beyond the value (on the log scale, on the side that is worse), rounded
    outwards; that of the accuracy at the lower end of the interval of a re-run at the edge of its predictive distribution
    (Jeffreys' prior). Refused are statistics that so many samples do not bound, and those whose margin would be wider than a factor
    of 10 (√10 of a distance): such a gate would fail on nothing short of it.

    Args:
        audit: The baseline: sound, and of as many samples as later audits will have.

    Returns:
        The gates, ``findings.error`` first; of an unsound audit that one alone. How often they err: docs/ci.md.

    Examples:
        >>> import onnxfim
        >>> samples = onnxfim.load_samples("digits.npz", "digits_resnet.onnx", limit=100)
        >>> audit = onnxfim.audit("digits_resnet.onnx", samples, settings=onnxfim.Settings(replay=0))
        >>> found = onnxfim.suggest(audit)
        >>> onnxfim.check(audit, fail_on=found.fail_on).verdict
        'pass'
    """
    always = Suggested("findings.error", "findings.error", None, None, None, 0.0, 0, None, "an unsound audit passes nothing")
    unsound = [f.id for f in audit.findings if f.level == "error"]
    if unsound or audit.run.partial:
        why = f"the baseline is unsound ({', '.join(unsound) or 'partial'}): mend that first"
        return Suggestions((always,), (Refused("all others", why),))
    found = [always, *_accuracy(audit), *_measures(audit)]
    return Suggestions(tuple(f for f in found if isinstance(f, Suggested)), tuple(f for f in found if isinstance(f, Refused)))


def _accuracy(audit: Audit) -> Iterator[Suggested | Refused]:
    c = audit.calibration
    if c.accuracy is None or c.accuracy_low is None or c.accuracy_high is None:
        yield Refused("clean_accuracy", c.reason or "there are no labels")
        return
    n = audit.data.count
    right = round(c.accuracy * n)
    again = _at_worst(right, n)
    threshold = math.floor(1000 * wilson(again, n)[0]) / 1000
    if threshold <= 0:
        yield Refused("clean_accuracy", f"{n:,} labelled samples do not bound it")
        return
    why = f"{right:,} of {n:,} labelled samples were right; a re-run on as many others would have {again:,} or more in 99 of 100"
    text = f"clean_accuracy < {100 * threshold:.12g} %"
    yield Suggested(text, "clean_accuracy", c.accuracy, c.accuracy_low, c.accuracy_high, threshold, n, None, why)


def _at_worst(right: int, n: int) -> int:
    """How many of n others would be right at least, but for one re-run in a hundred: of the beta-binomial distribution."""
    a, b = right + 0.5, n - right + 0.5
    total = 0.0
    for k in range(n + 1):
        log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        log += math.lgamma(k + a) + math.lgamma(n - k + b) - math.lgamma(n + a + b)
        log += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        total += math.exp(log)
        if total > _ONE_IN:
            return min(k, right)
    return right


def _measures(audit: Audit) -> Iterator[Suggested | Refused]:
    given = False
    for measure in _LAMBDAS:
        if measure not in audit.aggregates or not audit.aggregates[measure].count:
            continue
        if given:  # raw values move with the temperature: only where the calibrated ones say nothing
            yield Refused(measure, f"{_LAMBDAS[0]} is gated, which does not move with the temperature")
            continue
        found = list(_of(audit, measure, (*_CENTRES, "p95", "mean")))
        given = any(isinstance(f, Suggested) for f in found)
        yield from found
    for measure in ("flip_radius", "flip_radius_linf", "certified_radius", "certified_radius_linf", "boundary_distance"):
        if measure in audit.aggregates:
            yield from _of(audit, measure, _CENTRES[::-1])


def _of(audit: Audit, measure: str, statistics: tuple[str, ...]) -> Iterator[Suggested | Refused]:
    """One gate of the centre, the first that can be decided, and one of each other statistic."""
    group = audit.aggregates[measure]
    centre = False
    refused: list[Refused] = []
    for statistic in statistics:
        if statistic in _CENTRES and centre:
            continue
        found = _gate(audit, measure, statistic, group)
        centre |= statistic in _CENTRES and isinstance(found, Suggested)
        if isinstance(found, Suggested):
            yield found
        else:
            refused.append(found)
    yield from refused


def _gate(audit: Audit, measure: str, statistic: str, group: Aggregates) -> Suggested | Refused:
    name, found, n = f"{measure}.{statistic}", getattr(group, statistic), group.count + group.unfound
    sign = BY_NAME[measure].sign  # -1: larger is worse
    end = found.high if sign < 0 else found.low
    quantile = QUANTILES.get(statistic)
    if quantile is not None:
        fewest = fewest_bracketing(quantile)[1 if sign < 0 else 0]
        if bracketing(n, quantile)[1 if sign < 0 else 0] is None:
            return Refused(name, f"{n:,} samples do not bound it on that side: {fewest} do")
    if found.value is None or end is None or not (found.value > 0 and end > 0):
        return Refused(name, "it is 0" if found.value == 0 else found.method or "it was not measured")
    half = abs(math.log(end / found.value))
    factor, widest = math.exp(min(HALF_WIDTHS * half, 700.0)), WIDEST[sign]
    if factor > widest:
        return Refused(name, _too_wide(audit, measure, n, factor, widest, found))
    threshold = _outwards(found.value * factor if sign < 0 else found.value / factor, up=sign < 0)
    which = "upper" if sign < 0 else "lower"
    label = STATISTIC_BY_NAME[statistic].label.lower()
    why = f"{label} of {n:,} samples; the threshold is {HALF_WIDTHS:g} times as far as the {which} end of its interval"
    text = f"{name} {'>' if sign < 0 else '<'} {threshold:.12g}"
    return Suggested(text, name, found.value, found.low, found.high, threshold, n, threshold / found.value, why)


def _too_wide(audit: Audit, measure: str, n: int, factor: float, widest: float, found: Aggregate) -> str:
    why = f"the margin that its interval allows is a factor of {_factor(factor)}, more than {_factor(widest)}"
    c = audit.calibration
    if measure == _LAMBDAS[0] and c.log_error and found.value is not None:
        raw = audit.aggregates.get(_LAMBDAS[1])
        own = None if raw is None or raw.geometric_mean.value is None else raw.geometric_mean
        if (
            own is not None
            and own.high
            and own.value
            and math.sqrt(2) * HALF_WIDTHS * math.log(own.high / own.value) < math.log(factor)
        ):
            return (
                f"{why}, mostly for the temperature, which rests on {c.errors or 0:,} wrong predictions: pass more labelled samples"
            )
    needed = math.ceil(n * (math.log(factor) / math.log(widest)) ** 2)
    return f"{why}: about {needed:,} samples would narrow it to that"


def _factor(value: float) -> str:
    """A factor at two digits; one of thousands says no more than that."""
    return "over 1,000" if value > 1000 else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _outwards(value: float, *, up: bool) -> float:
    """``value`` at three significant digits, rounded away from the baseline."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    whole = math.ceil(value / unit - 1e-9) if up else math.floor(value / unit + 1e-9)
    return float(f"{whole * unit:.12g}")


__all__ = ["Refused", "Suggested", "Suggestions", "suggest"]
