"""Gates and the baseline's comparison as people write them: thresholds as typed, values at few digits, with their units."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxfim.record.audit import Audit
from onnxfim.record.decision import BaselineComparison, GateResult, TypicalChange
from onnxfim.record.foreign_text import visible
from onnxfim.report.numbers import MISSING, inline_label, known_ends, number, p_words, what_of
from onnxfim.verdict import smoothing_gates
from onnxfim.verdict.guarantee_gates import SHARES as GUARANTEED_SHARES
from onnxfim.verdict.guarantee_gates import without_choice

_SHARES = ("clean_accuracy", "mean_confidence", "agreement", "accuracy_change")
_MOST_DIGITS = 17  # a double has no more
_SCOPES = {"samples": "on these samples", "population": "over such samples in general"}


def value_words(gate: GateResult, units: str = "") -> str:
    """What a gate was decided on: ``36.9 (95 % interval 20.1 to 88.0) nats per squared input unit``.

    Values have three significant digits, or as many more as it takes that none of them, as printed, lies on the other side of the
    threshold: a line never contradicts its own verdict. ``comparison`` of the record holds them unrounded.
    """
    if gate.value is None and gate.low is None and gate.high is None:
        return MISSING
    form = _form(gate)
    of = what_of(gate.name.partition(".")[0])
    kind = f", {of}" if of else ""
    value = "beyond all that was found" if gate.value is None else form(gate.value)
    return f"{value}{_ends(gate, form)}{' ' + visible(units) if units else ''}{kind}"


def gate_words(gate: GateResult, units: str = "") -> str:
    """A gate in one line: its text as it was typed, what it was decided on, and what would settle it where it is open."""
    return _sentences(f"{visible(gate.text)}: {value_words(gate, units)}", gate.advice)


def decided_words(gate: GateResult, units: str = "") -> str:
    """`gate_words` without the gate's text, for formats that print it apart."""
    return _sentences(value_words(gate, units), gate.advice)


def units_of(audit: Audit, name: str) -> str:
    """Units of what a gate names; empty for a share, a count or a temperature."""
    if (smoothing := smoothing_gates.read_name(name)) is not None:
        return smoothing_gates.units(audit, smoothing)
    group = audit.aggregates.get(name.partition(".")[0])
    return "" if group is None else group.units


def baseline_asked(c: BaselineComparison) -> str:
    """What is asked of a comparison with a baseline, as a gate would be written."""
    what = f"{c.measure} (mean, or of a usual sample)" if c.typical else f"{c.measure}.mean"
    return visible(f"{what} rose by more than {allowed_rise(c)} against {c.baseline}")


def allowed_rise(c: BaselineComparison) -> str:
    """The largest rise that is allowed, as people write it: ``10 %``."""
    return f"{_plain(100 * c.max_regression)}\u00a0%"


def baseline_words(c: BaselineComparison) -> str:
    """What the comparison with a baseline was decided on, and what would settle it where it is open."""
    decisive, limit = (c.ratio_here if c.scope == "samples" else c.ratio), 1 + c.max_regression
    form = _numbers([decisive.value, decisive.low, decisive.high], limit)
    ends = "no interval" if decisive.low is None or decisive.high is None else f"{form(decisive.low)} to {form(decisive.high)}"
    ratio = MISSING if decisive.value is None else form(decisive.value)
    mean = (
        f"mean {inline_label(c.measure)} is {number(c.mean_current)} and was {number(c.mean_baseline)} {visible(c.units)}: "
        f"ratio {ratio} (95 % interval {ends}, {_SCOPES[c.scope]}), at most {_plain(limit)} is allowed"
    )
    usual = [change_words(t) for t in c.typical if t.beyond or c.verdict == "inconclusive"]
    by_mean = not any(t.beyond for t in c.typical) or any(name.endswith(".mean") for name in c.decided_by)
    return _sentences("; ".join([mean, *usual] if by_mean else [*usual, f"the {mean}"]), c.advice)


def change_words(t: TypicalChange) -> str:
    """One measure of a usual sample: ``flip radius of a usual sample is 0.604 times what it was …, beyond the limit``."""
    form = _numbers([t.ratio.value, t.ratio.low, t.ratio.high], t.limit)
    known = known_ends(t.ratio.low, t.ratio.high) if t.ratio.low is None or t.ratio.high is None else None
    ends = f" ({known})" if known else ""
    if t.ratio.low is not None and t.ratio.high is not None:
        ends = f" (95 % interval {form(t.ratio.low)} to {form(t.ratio.high)})"
    value = (
        "beyond what was searched for, against what it was" if t.ratio.value is None else f"{form(t.ratio.value)} times what it was"
    )
    told = f"decidedly beyond the limit, {p_words(t.p)}" if t.beyond else "not decidedly beyond the limit"
    label = inline_label(t.name.partition(".")[0])
    return f"{label} of a usual sample is {value}{ends}, {told}: {t.side} {number(t.limit)} is allowed"


def _sentences(words: str, advice: str | None) -> str:
    return f"{words}. {visible(advice)}" if advice else words


def _ends(gate: GateResult, form: Callable[[float], str]) -> str:
    low, high = gate.low, gate.high
    if low is None and high is None:
        return " (no interval)"
    if low is None or high is None:
        return f" (95 %: at most {form(high or 0.0)})" if low is None else f" (95 %: at least {form(low)})"
    return "" if low == high == gate.value else f" (95 % interval {form(low)} to {form(high)})"


def _form(gate: GateResult) -> Callable[[float], str]:
    """How the values of a gate are printed."""
    values = [gate.value, gate.low, gate.high]
    if gate.name.startswith("findings."):
        return _plain
    shares = without_choice(gate.name) in GUARANTEED_SHARES or smoothing_gates.is_share(gate.name)
    if gate.name in _SHARES or shares or gate.text.rstrip().endswith("%"):
        return _shares(values, gate.threshold)
    return _numbers(values, gate.threshold)


def _numbers(values: Sequence[float | None], threshold: float) -> Callable[[float], str]:
    """Numbers of as few significant digits, at least three, as keep all values on their side of the threshold."""
    digits = _fewest(3, values, threshold, lambda v, d: float(f"{v:.{d - 1}e}"))
    return lambda v: number(v, digits=digits)


def _shares(values: Sequence[float | None], threshold: float) -> Callable[[float], str]:
    """Percentages of as few decimals, at least one, as keep all values on their side of the threshold."""
    decimals = _fewest(1, values, threshold, lambda v, d: round(100 * v, d) / 100)

    def form(value: float) -> str:
        text = f"{100 * value:.{decimals}f}"
        whole = text.rstrip("0").rstrip(".")
        return f"{whole if whole in ('100', '0') else text}\u00a0%".replace("-", "−")

    return form


def _fewest(least: int, values: Sequence[float | None], threshold: float, rounded: Callable[[float, int], float]) -> int:
    """Digits, from ``least`` on, at which every value lies on its own side of the threshold."""
    known = [v for v in values if v is not None]
    for digits in range(least, _MOST_DIGITS):
        shown = [rounded(v, digits) for v in known]
        if all((v > threshold, v < threshold) == (s > threshold, s < threshold) for v, s in zip(known, shown, strict=True)):
            return digits
    return _MOST_DIGITS


def _plain(value: float) -> str:
    """``3``, ``1.1``: a number that people chose or counted."""
    return f"{value:.12g}"


__all__ = [
    "allowed_rise",
    "baseline_asked",
    "baseline_words",
    "change_words",
    "decided_words",
    "gate_words",
    "units_of",
    "value_words",
]
