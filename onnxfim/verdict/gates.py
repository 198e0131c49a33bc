"""Gates such as ``lambda_max.p95 > 12.5``: read from text, decided on the 95 % interval."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from onnxfim.errors import SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate, Aggregates, GateResult, Operator, Outcome
from onnxfim.record.measures import BY_NAME, QUANTILES, STATISTICS, Measure, gated
from onnxfim.record.sample import carries_noise
from onnxfim.record.statistics import Z95, bracketing, fewest_bracketing, temperature_interval
from onnxfim.verdict import guarantee_gates, smoothing_gates
from onnxfim.verdict.advice import more_passes, more_samples
from onnxfim.verdict.decidable import Decidable
from onnxfim.verdict.pairs import column

_GATED = tuple(m.name for m in gated())
SCALARS = ("clean_accuracy", "mean_confidence", "temperature")
LEVELS = ("error", "warning", "note")

_NAME = r"[A-Za-z_][\w.]*(?:\[[^\]]*\][\w.]*)*(?:@[^<>\s]+)?"  # brackets choose among several, @ tells at which length
_GATE = re.compile(rf"\s*({_NAME})\s*(?:(>=|<=|>|<)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(%?))?\s*")
_LEVEL = 0.025


@dataclass(frozen=True)
class Gate:
    """A relation that must not hold: the gate fails where ``name operator threshold`` is true."""

    text: str
    name: str
    operator: Operator
    threshold: float

    def violated(self, value: float) -> bool:
        """Whether the relation holds at ``value``."""
        if self.operator == ">":
            return value > self.threshold
        if self.operator == ">=":
            return value >= self.threshold
        return value < self.threshold if self.operator == "<" else value <= self.threshold


def gate_names(measures: Sequence[str] = _GATED) -> tuple[str, ...]:
    """All names that a gate may have."""
    statistics = (f"{m}.{s.name}" for m in measures for s in STATISTICS)
    levels = (f"findings.{level}" for level in LEVELS)
    return (*statistics, *SCALARS, *levels, *guarantee_gates.NAMES, *smoothing_gates.NAMES)


def parse_gate(text: str, *, measures: Sequence[str] = _GATED, known: Sequence[str] | None = None) -> Gate:
    """Read ``NAME OPERATOR NUMBER``; ``findings.LEVEL`` alone stands for ``findings.LEVEL > 0``.

    Args:
        text: Such as ``lambda_max.p95 > 12.5``, ``clean_accuracy < 90%`` or ``findings.error``.
        measures: Measures whose statistics may be named.
        known: All names that there are, where these are others.

    Raises:
        SettingsError: not of that form, or an unknown name.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise SettingsError(
            f"gate {text!r}: cannot be read, expected NAME OPERATOR NUMBER such as 'lambda_max.p95 > 12.5' (> >= < <=)."
        )
    name, operator, number, percent = match.groups()
    others = known is None and smoothing_gates.read_name(name) is not None
    known = gate_names(measures) if known is None else known
    if not others and (wrong := guarantee_gates.wrong_choice(name)) is not None:
        raise SettingsError(f"gate {text!r}: {wrong}")
    plain = guarantee_gates.without_choice(name)
    if plain not in known and not others:
        import difflib  # for a message alone

        near = difflib.get_close_matches(plain, known, n=1, cutoff=0.0)[0]
        raise SettingsError(f"gate {text!r}: {name!r} is no measure. The nearest name is {near!r}; name one such as {known[0]}.")
    if operator is None:
        if not name.startswith("findings."):
            raise SettingsError(
                f"gate {text!r}: nothing to compare {name} with. Give an operator and a number, such as '{name} > 1'."
            )
        return Gate(text.strip(), name, ">", 0.0)
    threshold = float(number) / (100 if percent else 1)
    if not math.isfinite(threshold):
        raise SettingsError(f"gate {text!r}: {number} is too large. Give a finite number.")
    return Gate(text.strip(), name, cast(Operator, operator), threshold)


def decide(audit: Audit, gates: Sequence[Gate]) -> tuple[GateResult, ...]:
    """The result of each gate: ``fail`` where the whole 95 % interval violates it, ``pass`` where none of it does.

    An end of an interval counts only where so many samples can give it: an upper end of the 95th percentile needs 72. A mean that
    few samples carry has no interval: its gate is inconclusive. Intervals of calibrated values and of the temperature hold the
    error of the fit. A quantile among samples on which a search found nothing is decided on its lower end. What has no interval
    (the number of findings) is decided on its value.
    """
    return tuple(_decided(audit, gate) for gate in gates)


def _decided(audit: Audit, gate: Gate) -> GateResult:
    reading = guarantee_gates.reading(audit, gate.name, gate.threshold) or _read(audit, gate.name)
    verdict: Outcome = "inconclusive"
    if reading.measured:
        low = -math.inf if reading.low is None else reading.low
        high = math.inf if reading.high is None else reading.high
        ends = {gate.violated(low), gate.violated(high)}
        verdict = "inconclusive" if len(ends) == 2 else "fail" if True in ends else "pass"
    return GateResult(
        text=gate.text,
        name=gate.name,
        operator=gate.operator,
        threshold=gate.threshold,
        value=reading.value,
        low=reading.low,
        high=reading.high,
        verdict=verdict,
        comparison=_comparison(gate, reading),
        advice=_advice(audit, gate, reading) if verdict == "inconclusive" else None,
    )


def _comparison(gate: Gate, reading: Decidable) -> str:
    """The comparison in unrounded numbers."""
    if not reading.measured:
        return f"{gate.name} was not measured ({reading.why}); the gate fails {gate.operator} {gate.threshold!r}"
    if reading.low == reading.high == reading.value:
        return f"{gate.name} = {reading.value!r}; the gate fails {gate.operator} {gate.threshold!r}"
    low, high = ("not bounded" if end is None else repr(end) for end in (reading.low, reading.high))
    ends = f"95 % interval {low} to {high}" if reading.low is not None or reading.high is not None else reading.why or "no interval"
    value = "lies beyond all that was found" if reading.value is None else f"= {reading.value!r}"
    return f"{gate.name} {value}{reading.of}, {ends}; the gate fails {gate.operator} {gate.threshold!r}"


def _advice(audit: Audit, gate: Gate, reading: Decidable) -> str:
    """What would settle an inconclusive gate."""
    if reading.advice and reading.measured:
        return reading.advice
    if reading.value is None:
        return f"{gate.name} is not known: {reading.why}." if reading.measured else f"Not measured: {reading.why}."
    end = reading.high if reading.value <= gate.threshold else reading.low
    if gate.name == "temperature":
        return f"The temperature rests on {reading.count:,} wrong predictions: pass more labelled samples."
    if end is None and reading.why and reading.of:
        instead = "Audit more samples." if gate.name.endswith(".median") else "Gate its median instead, or audit more samples."
        return f"{gate.name} is not bounded on that side ({reading.why}). {instead}"
    if end is None and reading.why:
        return (
            f"{gate.name} is not bounded on that side ({reading.why}). Gate its median, 95th percentile or geometric mean instead."
        )
    if end is None and reading.needed is not None:
        more = reading.needed - reading.count
        return (
            f"{reading.count:,} samples do not bound {gate.name} on that side: at least {more:,} more are needed "
            f"({reading.needed:,} in all){_instead(gate)}."
        )
    distance, half = abs(gate.threshold - reading.value), abs((end if end is not None else reading.value) - reading.value)
    words = f"the value stays at {reading.value:.4g}"
    passes = more_passes(audit.settings.budget, distance, half, reading.noise, words)
    if not reading.samples_settle:
        return passes or "The value is too close to the threshold for any number of passes to tell: move the threshold."
    samples = more_samples(reading.count, distance, half / Z95, words)
    return f"{passes} Or: {samples[0].lower()}{samples[1:]}" if passes else samples


def _instead(gate: Gate) -> str:
    """Which gate so many samples would bound."""
    measure, _, statistic = gate.name.partition(".")
    return f", or gate {measure}.median instead" if statistic in QUANTILES and statistic != "median" else ""


def _read(audit: Audit, name: str) -> Decidable:
    if name.startswith("findings."):
        number = float(sum(f.level == name.partition(".")[2] for f in audit.findings))
        return Decidable(number, number, number)
    if name == "clean_accuracy":
        c = audit.calibration
        return Decidable(c.accuracy, c.accuracy_low, c.accuracy_high, audit.data.count, why=c.reason or "no labels were given")
    if name == "mean_confidence":
        return _confidence(audit)
    if name == "temperature":
        return _temperature(audit)
    if (smoothing := smoothing_gates.read_name(name)) is not None:
        return smoothing_gates.read(audit, smoothing)
    measure, _, statistic = name.partition(".")
    group = audit.aggregates.get(measure)
    if group is None or ((found := getattr(group, statistic)).value is None and found.low is None):
        return Decidable(None, None, None, why=_why_missing(audit, measure, group, statistic))
    return _statistic(audit, measure, statistic, group)


def _statistic(audit: Audit, measure: str, statistic: str, group: Aggregates) -> Decidable:
    found: Aggregate = getattr(group, statistic)
    low, high, needed, why = found.low, found.high, None, ""
    n = group.count + group.unfound
    told = BY_NAME.get(measure)
    if low is None or high is None:
        bounds = group.kind in ("lower bound", "upper bound") and not (told is not None and told.own_bounds)
        why = f"its values are {group.kind}s" if bounds else found.method
    elif statistic == "mean" and found.confidence < 0.9:
        low, high, needed = None, None, 2
    if (q := QUANTILES.get(statistic)) is not None:
        # Order statistics that bracket the quantile exist only from so many samples on.
        below, above = bracketing(n, q)
        fewest = fewest_bracketing(q)
        if below is None:
            low, needed = None, fewest[0]
        if above is None:
            high, needed = None, fewest[1]
    return Decidable(
        found.value, low, high, n, _noise(audit, measure, statistic, found), why, needed, samples_settle=statistic != "max",
        of=_of_what(told),
    )  # fmt: skip


def _of_what(measure: Measure | None) -> str:
    """What the statistics of a measure are of, where each of its values bounds another number."""
    if measure is None or not measure.own_bounds:
        return ""
    if measure.of_what_was_found:
        return ", of the smallest lengths found (each an upper bound)"
    return ", of the lengths that were certified (each a lower bound, 0 where nothing was)"


def _noise(audit: Audit, measure: str, statistic: str, found: Aggregate) -> float:
    """Half-width of the statistic's interval that the estimates' noise alone makes; 0 where it is not known."""
    values = column(audit, measure)
    if not carries_noise(audit.samples, measure):
        return 0.0
    if statistic == "mean":
        return Z95 * float(np.sqrt(((values.noise * values.values) ** 2).sum())) / len(values.values)
    if statistic == "max" and None not in (found.low, found.high, found.value):
        return max(cast(float, found.high) - cast(float, found.value), cast(float, found.value) - cast(float, found.low))
    return 0.0


def _temperature(audit: Audit) -> Decidable:
    """The temperature with the interval that its standard error gives."""
    c = audit.calibration
    if c.temperature is None:
        return Decidable(None, None, None, why=c.reason or "no labels were given")
    return Decidable(c.temperature, *temperature_interval(c.temperature, c.log_error), c.errors or 0)


def _confidence(audit: Audit) -> Decidable:
    """Mean confidence of the audited samples with Student's interval."""
    values = np.array([s.confidence for s in audit.samples if s.confidence is not None])
    if len(values) == 0:
        return Decidable(None, None, None, why="no sample has a confidence")
    mean = float(values.mean())
    if len(values) < 2:
        return Decidable(mean, None, None, 1, needed=2)
    from onnxfim.record.special import stdtrit

    half = float(stdtrit(len(values) - 1, 1 - _LEVEL) * values.std(ddof=1) / math.sqrt(len(values)))
    return Decidable(mean, max(mean - half, 0.0), min(mean + half, 1.0), len(values))


def _why_missing(audit: Audit, measure: str, group: Aggregates | None, statistic: str) -> str:
    if measure == "lambda_max_calibrated" and audit.calibration.temperature is None:
        return audit.calibration.reason or "no temperature"
    if measure == "lambda_max_raw_units" and measure not in audit.aggregates:
        return "the scale of the raw inputs is not known; give --mean and --std, or --input-range"
    if group is not None and (group.count or group.unfound):
        return str(getattr(group, statistic).method)
    if measure in BY_NAME and BY_NAME[measure].of_what_was_certified:
        return next((e.reason for s in audit.samples if (e := BY_NAME[measure].of(s)) is not None and e.reason), "no sample has it")
    reasons = [s.lambda_max.reason for s in audit.samples if s.lambda_max.reason]
    return reasons[0] if reasons else "no sample has it"


__all__ = ["LEVELS", "SCALARS", "Gate", "decide", "gate_names", "parse_gate"]
