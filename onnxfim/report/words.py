"""What an audit means in plain words: headline, notices, four answers, and a worked example."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from onnxfim.record.audit import Audit, StepBias
from onnxfim.record.decision import Aggregates
from onnxfim.record.measures import BY_NAME, Measure
from onnxfim.record.sample import SampleResult
from onnxfim.report.numbers import count, inline_label, interval, number, percent, short, visible
from onnxfim.report.page.gate_section import checks_headline
from onnxfim.report.vocabulary import ATTACK_SOURCES, SOURCES, Source, Statement


@dataclass(frozen=True)
class Notice:
    """Something to be read before any number; ``level`` as for findings."""

    level: str
    title: str
    text: str


def has_calibrated(audit: Audit) -> bool:
    """Whether calibrated values exist."""
    return any(s.lambda_max_calibrated.value is not None for s in audit.samples)


def lead_measure(audit: Audit) -> Measure:
    """Which lambda_max the page leads with: calibrated where it exists, else raw."""
    return BY_NAME["lambda_max_calibrated" if has_calibrated(audit) else "lambda_max"]


def lead_values(audit: Audit) -> dict[int, float]:
    """lambda_max by sample index, as `lead_measure` has it."""
    lead = lead_measure(audit)
    estimates = ((s.index, lead.of(s)) for s in audit.samples)
    return {index: e.value for index, e in estimates if e is not None and e.value is not None}


def lead_name(audit: Audit) -> str:
    """What the lambda_max that the page leads with is called within a sentence."""
    return inline_label(lead_measure(audit).name)


def predicted_wrongly(sample: SampleResult) -> bool:
    """Whether label and prediction are both known and differ."""
    return sample.label is not None and sample.prediction is not None and sample.label != sample.prediction


def input_size(audit: Audit) -> int:
    """Numbers in one input."""
    return max(1, math.prod(audit.data.shape))


def median_boundary(audit: Audit) -> tuple[float | None, str | None]:
    """Median boundary distance and its interval, from the aggregates where they have it, else from the samples."""
    known = audit.aggregates.get("boundary_distance")
    if known is not None and known.median.value is not None:
        return known.median.value, interval(known.median.low, known.median.high)
    values = [s.boundary_distance.value for s in audit.samples if s.boundary_distance.value is not None]
    return (float(np.median(values)), None) if values else (None, None)


def fallback(audit: Audit) -> str | None:
    """The first provider that was asked for by name and not obtained, or None."""
    first = audit.run.providers_requested[0] if audit.run.providers_requested else "auto"
    return None if first == "auto" or _provider(first) == _provider(audit.run.provider) else first


def _provider(name: str) -> str:
    return name.lower().removesuffix("executionprovider")


def unmeasured(audit: Audit) -> list[tuple[str, int]]:
    """Why samples have no lambda_max, each reason with the number of samples, most frequent first."""
    estimates = [s.lambda_max for s in audit.samples if s.lambda_max.value is None]
    return Counter(e.reason or "no reason recorded" for e in estimates).most_common()


def notices(audit: Audit) -> tuple[Notice, ...]:
    """What must be known before any number is read."""
    found = []
    if audit.data.synthetic:
        text = (
            "The inputs were generated at random. The numbers show that the audit runs, not how robust the model is on real data."
        )
        found.append(Notice("warning", "This report describes no real input", text))
    if audit.run.partial:
        done = f"{len(audit.samples):,} of {count(audit.data.count, 'sample')}"
        found.append(Notice("warning", "This run was interrupted", f"It holds {done}; every statistic is of those alone."))
    asked = fallback(audit)
    if asked is not None:
        reason = f" ONNX Runtime's reason: {visible(audit.run.provider_reason)}" if audit.run.provider_reason else ""
        text = f"The audit ran on {visible(audit.run.provider)} instead.{reason}"
        found.append(Notice("error", f"Provider {visible(asked)} was asked for and not obtained", text))
    reasons = unmeasured(audit)
    if reasons:
        number_null = sum(n for _, n in reasons)
        why = "; ".join(f"{visible(reason)} ({n:,})" if len(reasons) > 1 else visible(reason) for reason, n in reasons[:3])
        title = f"λ_max of {number_null:,} of {count(len(audit.samples), 'sample')} could not be measured"
        text = f"Reason: {why}. A missing value is not a small one: nothing is known about these samples."
        found.append(Notice("error" if number_null == len(audit.samples) else "warning", title, text))
    if not audit.data.labels:
        text = "Without labels there is no clean accuracy and no temperature. Raw values of two models do not compare; give labels."
        found.append(Notice("note", "No labels: only raw values exist", text))
    elif not has_calibrated(audit) and audit.samples and not reasons:
        why = f" {visible(audit.calibration.reason)}" if audit.calibration.reason else ""
        text = f"No temperature was fitted.{why} Raw values of two models do not compare."
        found.append(Notice("note", "Only raw values exist", text))
    return tuple(found)


def headline(audit: Audit) -> str:
    """The verdict's meaning in one sentence."""
    if not audit.measured:
        of = count(audit.data.count, "sample")
        return f"Nothing was measured: λ_max has a value on none of {of}. This is not a sign of robustness."
    errors = [f for f in audit.findings if f.level == "error"]
    warnings = [f for f in audit.findings if f.level == "warning"]
    decided = checks_headline(audit)
    if decided is not None:
        return decided
    if audit.verdict == "fail":
        return f"{count(len(errors), 'check')} failed: {visible(errors[0].message)}" if errors else "A check of this audit failed."
    if audit.verdict == "inconclusive":
        if errors or warnings:
            return f"What was measured does not decide: {visible((errors or warnings)[0].message)}"
        return "What was measured is not enough to decide: read the intervals below."
    tail = f"; {count(len(warnings), 'warning')} to read" if warnings else ""
    return f"No check failed on {count(len(audit.samples), 'sample')}{tail}."


def answers(audit: Audit) -> tuple[Statement, ...]:
    """How sensitive, how sure, why, and what to do now."""
    return (
        Statement("Is it sensitive?", _sensitive(audit)),
        Statement("How sure is that?", _sure(audit)),
        Statement("Why?", _why(audit)),
        Statement("What now?", _now(audit)),
    )


def _sensitive(audit: Audit) -> str:
    distance, _ = median_boundary(audit)
    if not lead_values(audit):
        return "Not known: λ_max was measured on no sample. This is not a sign of robustness."
    parts = []
    if distance is not None:
        each = distance / math.sqrt(input_size(audit))
        spread = f", {percent(each / audit.data.input_std)} of the data's standard deviation" if audit.data.input_std > 0 else ""
        who = (
            "For half of the samples, a decision boundary is no further than"
            if len(audit.samples) > 1
            else "A decision boundary is"
        )
        parts.append(
            f"{who} {number(distance)} away in L2, to first order: as much as every input value moving by {number(each)}{spread}."
        )
    statistic = lead_aggregate(audit)
    if statistic is not None and statistic.p95.value is not None and statistic.count >= 20:
        parts.append(f"One sample in twenty has a {lead_name(audit)} above {number(statistic.p95.value)}.")
    return " ".join(parts) or "Read the statistics below; no decision boundary exists for this kind of output."


def _sure(audit: Audit) -> str:
    if not lead_values(audit):
        return "No value was measured."
    statistic = lead_aggregate(audit)
    parts = []
    if statistic is not None and statistic.mean.value and statistic.mean.low is not None and statistic.mean.high is not None:
        below = percent(1 - statistic.mean.low / statistic.mean.value)
        above = percent(statistic.mean.high / statistic.mean.value - 1)
        parts.append(
            f"The mean {lead_name(audit)} is {number(statistic.mean.value)}; it may be {below} less or {above} more "
            f"({100 * statistic.mean.confidence:.0f} % interval over {count(statistic.count, 'sample')})."
        )
    else:
        parts.append("The mean has no interval.")
    kinds = Counter(s.lambda_max.kind for s in audit.samples if s.lambda_max.value is not None)
    if kinds:
        parts.append(
            "Per sample: "
            + ", ".join(count(n, "exact value") if kind == "exact" else count(n, kind) for kind, n in kinds.items())
            + "."
        )
    if audit.step.bias is not None:
        parts.append(step_bias(audit.step.bias))
    elif audit.step.curve and not audit.step.plateau:
        parts.append("The value changes with the step, so it holds only at the scale it was measured at.")
    elif audit.step.plateau:
        parts.append("The value is stable around the chosen step.")
    return " ".join(parts)


def step_bias(bias: StepBias) -> str:
    """What a step above the rounding keeps from the value, and whether the value carries it."""
    share = f"a factor of {number(bias.factor)} ({number(bias.low)} to {number(bias.high)})"
    if bias.applied:
        return f"Rounding hides smaller steps; values carry {share} for what they are short of at none, and intervals its range."
    return f"Rounding hides smaller steps; at none, values are larger by {share}."


def _why(audit: Audit) -> str:
    values = sorted(lead_values(audit).values(), reverse=True)
    if not values:
        reasons = unmeasured(audit)
        return f"{visible(reasons[0][0])}." if reasons else "No sample was audited."
    parts = []
    total = sum(values)
    if len(values) >= 20 and total > 0:
        top = max(1, round(0.05 * len(values)))
        parts.append(
            f"The {top} most sensitive of {count(len(values), 'sample')} carry {percent(sum(values[:top]) / total)} of the mean."
        )
    attribute = f"{lead_measure(audit).name}_mean"
    rows = [(value, c) for c in audit.classes if (value := getattr(c, attribute)) is not None and c.count]
    if len(rows) >= 2 and total > 0:
        value, worst = max(rows, key=lambda pair: pair[0])
        times = value / (total / len(values))
        parts.append(f"Class {visible(worst.name)} is the most sensitive, at {number(times)} times the mean.")
    parts.append(_temperature_words(audit))
    return " ".join(p for p in parts if p) or "Too few samples to say what carries the value."


def _temperature_words(audit: Audit) -> str:
    temperature = audit.calibration.temperature
    if temperature is None:
        return ""
    if 0.9 <= temperature <= 1.1:
        return f"Temperature {number(temperature)}: the model's confidence fits its accuracy."
    judged = f"Temperature {number(temperature)}: the model is {'over' if temperature > 1 else 'under'}-confident"
    raw, calibrated = (audit.aggregates.get(key) for key in ("lambda_max", "lambda_max_calibrated"))
    if raw is None or calibrated is None or raw.mean.value is None or calibrated.mean.value is None:
        return f"{judged}."
    return f"{judged}, and calibrating it moves the mean λ_max from {number(raw.mean.value)} to {number(calibrated.mean.value)}."


def _more_samples(audit: Audit) -> list[str]:
    """What narrows a wide interval of the mean: its width falls with the root of the number of samples."""
    statistic = lead_aggregate(audit)
    if statistic is None or not statistic.mean.value or statistic.mean.low is None or statistic.mean.high is None:
        return []
    if (statistic.mean.high - statistic.mean.low) / 2 <= 0.25 * statistic.mean.value:
        return []
    return [f"Audit more samples: about {4 * statistic.count:,} instead of {statistic.count:,} halve the mean's interval."]


def _one(value: int, noun: str) -> str:
    return noun if value == 1 else count(value, noun)


def _now(audit: Audit) -> str:
    errors = sum(f.level == "error" for f in audit.findings)
    warnings = sum(f.level == "warning" for f in audit.findings)
    parts = []
    if errors:
        parts.append(
            f"Clear the {_one(errors, 'error')} under Findings first: the numbers may not describe the model as it is used."
        )
    elif warnings:
        parts.append(f"Read the {_one(warnings, 'warning')} under Findings.")
    if audit.run.partial:
        parts.append("Run it again to the end.")
    if not audit.data.labels and not audit.data.synthetic:
        parts.append("Give labels to get accuracy and calibrated values.")
    if audit.data.synthetic:
        parts.append("Run it on real inputs.")
    elif lead_values(audit):
        parts += _more_samples(audit)
        parts.append(
            f"Look at the most sensitive samples for a pattern, and compare models by the mean {lead_name(audit)} on the same data."
        )
    return " ".join(parts) or "Find out why nothing was measured; the reasons are under Skipped samples and Findings."


def lead_aggregate(audit: Audit) -> Aggregates | None:
    """Aggregates of the lambda_max the page leads with, or None."""
    return audit.aggregates.get(lead_measure(audit).name)


def example(audit: Audit) -> str | None:
    """What lambda_max means for the sample at the 95th percentile, with numbers put in; None where there is none.

    The change is at most a tenth of the data's spread and small enough for the second-order form: KL below 0.05 nats.
    """
    values = lead_values(audit)
    if not values:
        return None
    sample, value = _at_95(audit, values)
    if value <= 0:
        return None
    size = math.sqrt(0.1 / value)
    spread = 0.1 * audit.data.input_std * math.sqrt(input_size(audit))
    epsilon = _round_down(min(size, spread) if spread > 0 else size)
    nats = 0.5 * value * epsilon**2
    where = "stands at the 95th percentile" if len(values) >= 20 else "is the most sensitive one"
    each = number(epsilon / math.sqrt(input_size(audit)))
    return (
        f"Sample {sample.index} {where} with {lead_name(audit)} = {number(value)}. A change of L2 size "
        f"ε = {short(epsilon)} (each of {count(input_size(audit), 'input value')} moving by {each}) "
        f"moves its predicted distribution by at most about ½ · {number(value)} · {short(epsilon)}² = {number(nats)} nats: "
        f"no probability moves by more than about {number(100 * math.sqrt(nats / 2))} percentage points (Pinsker's inequality)."
    )


def _at_95(audit: Audit, values: dict[int, float]) -> tuple[SampleResult, float]:
    ordered = sorted(values, key=lambda index: values[index])
    index = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]
    return next(s for s in audit.samples if s.index == index), values[index]


def _round_down(value: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above ``value``."""
    base = float(10.0 ** math.floor(math.log10(value)))
    return next(factor * base for factor in (5, 2, 1) if factor * base <= value * (1 + 1e-12))


def sources(audit: Audit) -> tuple[Source, ...]:
    """Where the parts of the method that this audit used were published."""
    return (*SOURCES, *(ATTACK_SOURCES if audit.attack is not None else ()))
