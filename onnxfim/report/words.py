"""What an audit means in plain words: headline, notices and four answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from onnxfim.record.audit import Audit, ClassRow
from onnxfim.record.decision import Aggregates, Finding
from onnxfim.record.foreign_text import visible
from onnxfim.record.measures import BY_NAME, Measure
from onnxfim.record.running import MISSING_SHARDS
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.record.statistics import temperature_interval
from onnxfim.record.steps import StepBias
from onnxfim.report.human import band_words, robustness_of
from onnxfim.report.numbers import count, inline_label, interval, known_ends, number, percent, spread
from onnxfim.report.page.gate_section import checks_headline
from onnxfim.report.vocabulary import LEVEL_WORDS, Statement
from onnxfim.verdict.findings import check_of


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
    """Which lambda_max the page leads with, as comparisons do: calibrated where it exists, else raw, or in standard deviations."""
    standardised = BY_NAME["lambda_max_standardised"]
    if audit.step.per_coordinate and any(e.value is not None for s in audit.samples if (e := standardised.of(s)) is not None):
        return standardised
    return BY_NAME["lambda_max_calibrated" if has_calibrated(audit) else "lambda_max"]


def lead_estimate(sample: SampleResult, audit: Audit) -> Estimate:
    """A sample's value of `lead_measure`, or its raw one where it has none."""
    return lead_measure(audit).of(sample) or sample.lambda_max


def class_field(audit: Audit) -> str:
    """The mean by which classes are ranked: of `lead_measure`, or the raw one where classes have no such mean."""
    field = f"{lead_measure(audit).name}_mean"
    return field if field in ClassRow.__dataclass_fields__ else "lambda_max_mean"


def lead_values(audit: Audit) -> dict[int, float]:
    """lambda_max by sample index, as `lead_measure` has it."""
    lead = lead_measure(audit)
    estimates = ((s.index, lead.of(s)) for s in audit.samples)
    return {index: e.value for index, e in estimates if e is not None and e.value is not None}


def most_sensitive(audit: Audit) -> list[SampleResult]:
    """The samples that have one of `lead_values`, the largest first."""
    values = lead_values(audit)
    return sorted((s for s in audit.samples if s.index in values), key=lambda s: (-values[s.index], s.index))


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by their level, each level in its own order."""
    levels = tuple(LEVEL_WORDS)
    return sorted(findings, key=lambda f: levels.index(f.level))


def lead_name(audit: Audit) -> str:
    """What the lambda_max that the page leads with is called within a sentence."""
    return inline_label(lead_measure(audit).name)


def predicted_wrongly(sample: SampleResult) -> bool:
    """Whether label and prediction are both known and differ."""
    return sample.label is not None and sample.prediction is not None and sample.label != sample.prediction


def median_boundary(audit: Audit) -> tuple[float | None, str | None]:
    """Median boundary distance and its interval, from the aggregates where they have it, else from the samples."""
    known = audit.aggregates.get("boundary_distance")
    if known is not None and known.median.value is not None:
        return known.median.value, interval(known.median.low, known.median.high)
    values = [s.boundary_distance.value for s in audit.samples if s.boundary_distance.value is not None]
    return (float(np.median(values)), None) if values else (None, None)


def fallback(audit: Audit) -> str | None:
    """The first provider that was asked for by name and not obtained, or None."""
    named = (p for p in audit.run.providers_requested if p.lower() != "auto")
    return next(named, None) if audit.run.provider_missed else None


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
        done = f"{len(audit.samples):,} of {count(audit.wanted, 'sample')}"
        told = f"It holds {done}; every statistic is of those alone."
        if audit.run.stopped is None:
            ended = "Shards are missing" if audit.run.interrupted_by == MISSING_SHARDS else "This run was interrupted"
            found.append(Notice("warning", ended, told))
        else:
            found.append(Notice("error", "The provider failed during this run", f"{visible(audit.run.stopped)} {told}"))
    asked = fallback(audit)
    if asked is not None:
        reason = f" The reason: {visible(audit.run.provider_reason)}" if audit.run.provider_reason else ""
        text = f"The audit ran on {visible(audit.run.provider)} instead.{reason}"
        found.append(Notice("error", f"Provider {visible(asked)} was asked for and not obtained", text))
    mixed = (f for f in audit.findings if f.id in ("provider-mixed", "provider-mixed-auto"))
    found += [Notice(f.level, check_of(f).title, visible(f.message)) for f in mixed]
    reasons = unmeasured(audit)
    if reasons:
        number_null = sum(n for _, n in reasons)
        why = "; ".join(f"{visible(reason)} ({n:,})" if len(reasons) > 1 else visible(reason) for reason, n in reasons[:3])
        title = f"λ_max of {number_null:,} of {count(len(audit.samples), 'sample')} could not be measured"
        known = "their flip radius is what is known" if flips_alone(audit) else "nothing is known about these samples"
        text = f"Reason: {why}. A missing value is not a small one: {known}."
        found.append(Notice("error" if number_null == len(audit.samples) else "warning", title, text))
    if not audit.data.labels and audit.reads_labels:
        text = "Without labels there is no clean accuracy and no temperature. Raw values of two models do not compare; give labels."
        found.append(Notice("note", "No labels: only raw values exist", text))
    elif not has_calibrated(audit) and audit.samples and not reasons and audit.tempered:
        why = f": {visible(audit.calibration.reason)}" if audit.calibration.reason else ""
        text = f"No temperature was fitted{why}. Raw values of two models do not compare."
        found.append(Notice("note", "Only raw values exist", text))
    return tuple(found)


def headline(audit: Audit) -> str:
    """The verdict's meaning in one sentence."""
    if not audit.measured and not (audit.noise_alone and audit.verdict != "measured"):
        of = count(audit.wanted or audit.data.count, "sample")
        if audit.noise_alone:
            what = "the flip radius, and what noise does" if flips_alone(audit) else "what noise does"
            return f"λ_max has a value on none of {of}, which is not a sign of robustness. What was measured is {what}."
        if flips_alone(audit):
            return f"λ_max has a value on none of {of}, which is not a sign of robustness. What was measured is the flip radius."
        return f"Nothing was measured: λ_max has a value on none of {of}. This is not a sign of robustness."
    warnings = sum(f.level == "warning" for f in audit.findings)
    unsound, decided = _unsound(audit), checks_headline(audit)
    if audit.verdict == "inconclusive" and unsound is not None:
        return f"These numbers must not be relied on. {unsound}"
    if audit.verdict == "inconclusive":
        return decided or "The comparison that was asked for could not be made."
    if audit.verdict == "fail":
        return " ".join(filter(None, (decided, unsound and f"Besides, these numbers must not be relied on. {unsound}")))
    over = f"on {count(len(audit.samples), 'sample')}"
    tail = f"; {count(warnings, 'warning')} to read" if warnings else ""
    if audit.verdict == "pass":
        return f"{'Every gate passed' if audit.gates else 'The comparison with the baseline passed'} {over}{tail}."
    return f"Measured {over}, no check of the audit failed{tail}. No gate was set, so this is neither a pass nor a fail."


def flips_alone(audit: Audit) -> bool:
    """Whether there is no λ_max, for the outputs are steps (trees), but flips were found."""
    curve = robustness_of(audit).curve("flip_radius")
    return bool(audit.model.no_slope) and not audit.measured and curve is not None and curve.standing > curve.unreached


def without_slope(audit: Audit) -> str | None:
    """What to do with a model that has no slope, which is nothing to mend; None for others."""
    if not flips_alone(audit):
        return None
    return "Read the flip radius: this model's outputs are steps, which have no slope to measure."


def _unsound(audit: Audit) -> str | None:
    """Why the audit is unsound: its first error, and how many more there are; None where there is none."""
    errors = [f for f in audit.findings if f.level == "error"]
    if not errors:
        return None
    more = f" ({count(len(errors) - 1, 'more error')} under Findings.)" if len(errors) > 1 else ""
    return f"{visible(errors[0].message)}{more}"


def answers(audit: Audit) -> tuple[Statement, ...]:
    """How sensitive, how sure, why, and what to do now."""
    return (
        Statement("Is it sensitive?", _sensitive(audit)),
        Statement("How sure is that?", _sure(audit)),
        Statement("Why?", _why(audit)),
        Statement("What now?", _now(audit)),
    )


def _sensitive(audit: Audit) -> str:
    if not lead_values(audit):
        return "Not known: λ_max was measured on no sample. This is not a sign of robustness."
    parts = (
        []
        if _unsound(audit) is None
        else ["Not known while this audit is unsound. What follows is what was measured all the same."]
    )
    place = robustness_of(audit).place
    if place is not None and (band := band_words(place)):
        parts.append(f"Beside {count(place.models, f'reference {place.task} classifier')} it is {band}.")
    elif not parts and any(c.standing for c in robustness_of(audit).curves):
        parts.append("That depends on where it is used: which changes of the input, and of what size, are to be expected there?")
    statistic = lead_aggregate(audit)
    if statistic is not None and statistic.p95.value is not None and statistic.count >= 20:
        parts.append(f"One sample in twenty has a {lead_name(audit)} above {number(statistic.p95.value)}.")
    return " ".join(parts) or "Read the statistics below; no decision boundary exists for this kind of output."


def _sure(audit: Audit) -> str:
    if not lead_values(audit):
        return "No value was measured."
    statistic = lead_aggregate(audit)
    parts = [] if _unsound(audit) is None else ["Not at all: intervals do not hold what makes an audit unsound."]
    if statistic is not None and statistic.mean.value and statistic.mean.low is not None and statistic.mean.high is not None:
        below = percent(1 - statistic.mean.low / statistic.mean.value)
        above = percent(statistic.mean.high / statistic.mean.value - 1)
        parts.append(
            f"The mean {lead_name(audit)} is {number(statistic.mean.value)}; it may be {below} less or {above} more "
            f"({100 * statistic.mean.confidence:.0f} % interval over {count(statistic.count, 'sample')})."
        )
    elif statistic is not None and statistic.mean.value is not None and statistic.count == 1:
        parts.append(f"The {lead_name(audit)} is that of one sample, {number(statistic.mean.value)}: nothing is known of others.")
    elif statistic is not None and statistic.mean.value is not None:
        known = known_ends(statistic.mean.low, statistic.mean.high)
        also = f" ({known})" if known else ""
        parts.append(f"The mean {lead_name(audit)} is {number(statistic.mean.value)}{also}, {visible(statistic.mean.method)}.")
        if (typical := statistic.geometric_mean).value is not None:
            around = interval(typical.low, typical.high)
            parts.append(f"The geometric mean is {number(typical.value)}" + (f" (95 % interval {around})." if around else "."))
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
        why = visible(reasons[0][0]) if reasons else "No sample was audited"
        return f"{why[:1].upper()}{why[1:]}."
    parts = []
    total = sum(values)
    if len(values) >= 20 and total > 0:
        top = max(1, round(0.05 * len(values)))
        who = "The most sensitive" if top == 1 else f"The {top} most sensitive"
        carry = f"{'carries' if top == 1 else 'carry'} {percent(sum(values[:top]) / total)} of the mean"
        parts.append(f"{who} of {count(len(values), 'sample')} {carry}.")
    attribute = class_field(audit)
    rows = [(value, c) for c in audit.classes if (value := getattr(c, attribute)) is not None and c.count]
    if len(rows) >= 2 and total > 0 and attribute == f"{lead_measure(audit).name}_mean":
        value, worst = max(rows, key=lambda pair: pair[0])
        times = value / (total / len(values))
        parts.append(f"Class {visible(worst.name)} is the most sensitive, at {number(times)} times the mean.")
    parts.append(_temperature_words(audit))
    return " ".join(p for p in parts if p) or "Too few samples to say what carries the value."


def confidence_by_temperature(audit: Audit) -> str:
    """What the fitted temperature says of a model's confidence; it says little where its interval holds 1."""
    c = audit.calibration
    if c.temperature is None or 0.9 <= c.temperature <= 1.1:
        return "fitting"
    low, high = temperature_interval(c.temperature, c.log_error)
    maybe = "perhaps " if low <= 1 <= high else ""
    return f"{maybe}{'over' if c.temperature > 1 else 'under'}-confident"


def _temperature_words(audit: Audit) -> str:
    temperature = audit.calibration.temperature
    if temperature is None:
        return ""
    ends = spread(*temperature_interval(temperature, audit.calibration.log_error))
    told = f"Temperature {number(temperature)}{f' ({ends})' if ends else ''}"
    if (confidence := confidence_by_temperature(audit)) == "fitting":
        return f"{told}: the model's confidence fits its accuracy."
    judged = f"{told}: the model is {confidence}"
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
    parts = [text for text in (_to_read(audit), *next_steps(audit)) if text]
    return " ".join(parts) or "Find out why nothing was measured; the reasons are under Skipped samples and Findings."


def _to_read(audit: Audit) -> str:
    errors = sum(f.level == "error" for f in audit.findings)
    warnings = sum(f.level == "warning" for f in audit.findings)
    if (steps := without_slope(audit)) is not None:
        return steps
    if errors:
        return f"Mend what the {_one(errors, 'error')} under Findings {'names' if errors == 1 else 'name'}, and audit again."
    return f"Read the {_one(warnings, 'warning')} under Findings." if warnings else ""


def next_steps(audit: Audit) -> tuple[str, ...]:
    """What to do after reading the findings, one sentence each, the most urgent first; none where nothing is left."""
    errors = any(f.level == "error" for f in audit.findings)
    parts = [] if errors or audit.verdict != "inconclusive" else list(dict.fromkeys(_undecided(audit)))
    if audit.run.partial:
        parts.append("Run it again to the end.")
    if not audit.data.labels and not audit.data.synthetic and audit.reads_labels:
        parts.append("Give labels to get accuracy and calibrated values.")
    if audit.data.synthetic:
        parts.append("Run it on real inputs.")
    elif lead_values(audit) and not errors:
        parts += _more_samples(audit)
        parts.append(
            "Look at the most sensitive samples for a pattern; to choose between models, run onnxfim compare on the same data."
        )
    if audit.verdict == "measured":
        parts.append("Set a limit (--fail-on) or a baseline to make this a check that can pass or fail.")
    return tuple(parts)


def _undecided(audit: Audit) -> Iterator[str]:
    """What decides each gate, or the comparison with the baseline, that could not be decided."""
    for decision in (*audit.gates, audit.comparison):
        if decision is not None and decision.verdict == "inconclusive" and decision.advice:
            yield visible(decision.advice)


def lead_aggregate(audit: Audit) -> Aggregates | None:
    """Aggregates of the lambda_max the page leads with, or None."""
    return audit.aggregates.get(lead_measure(audit).name)
