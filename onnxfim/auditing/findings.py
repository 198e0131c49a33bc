"""What a reader must know about an audit: each finding says what was seen, what it means and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from onnxfim.record.audit import AttackSummary, Calibration, ClippedRange, DataInfo, GradientInfo, Run, StepChoice
from onnxfim.record.decision import Aggregates, Finding, Level
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.record.settings import Settings

_CHANCE_MARGIN = 0.2  # of the way from chance to perfect
_CONFIDENCE_GAP = 0.1
_LOG_T = math.log(2.0)
_SATURATED = 1e-6
_CROSS_CHECK = 2.0  # factor between sketch and gradient that neither noise nor a kink explains
_CLIPPED = 0.01
_WIDE_BRACKET = 0.5  # of the value, between the plain and the cross-fit estimate


def findings(
    *,
    num_outputs: int,
    calibration: Calibration,
    data: DataInfo,
    step: StepChoice,
    run: Run,
    settings: Settings,
    samples: Sequence[SampleResult],
    skipped: Sequence[Skipped],
    aggregates: Mapping[str, Aggregates],
    doubt: str | None,
    provider_explicit: bool,
    gradient: GradientInfo | None = None,
    method_asked: str = "auto",
    attack: AttackSummary | None = None,
    clipped: ClippedRange | None = None,
) -> tuple[Finding, ...]:
    """All findings of an audit, most serious first."""
    found = [
        *_about_model(num_outputs, calibration, data, doubt),
        *_about_step(step, samples, clipped),
        *_about_run(run, settings, provider_explicit, skipped, aggregates),
        *_about_values(samples, aggregates),
        *_about_gradient(gradient, method_asked),
        *_about_attack(attack, samples),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(found, key=lambda f: order[f.level]))


def _about_model(num_outputs: int, c: Calibration, data: DataInfo, doubt: str | None) -> Iterator[Finding]:
    if data.synthetic:
        yield Finding(
            "synthetic-data", "warning",
            "The inputs are random numbers: this audit describes no real input. Pass --data with samples the model will meet.",
        )  # fmt: skip
    if doubt:
        yield Finding("output-kind", "warning", f"How the outputs were read may be wrong: {doubt}.")
    if not data.labels and not data.synthetic:
        yield Finding(
            "no-labels", "note",
            "No labels were given: only raw values exist. They change with the temperature of the softmax and do not compare between "
            "models; pass labels to get calibrated values and the clean accuracy.",
        )  # fmt: skip
    if c.accuracy is not None:
        chance = 1.0 / max(num_outputs, 2)
        if c.accuracy <= chance + _CHANCE_MARGIN * (1 - chance):
            yield Finding(
                "accuracy-near-chance", "error",
                f"Clean accuracy is {c.accuracy:.1%}, near chance ({chance:.1%} for {max(num_outputs, 2)} classes). The usual cause is a "
                "wrong normalisation, layout or label order: check --mean, --std, --layout and the class numbers before reading on.",
            )  # fmt: skip
        elif c.mean_confidence is not None and abs(c.mean_confidence - c.accuracy) > _CONFIDENCE_GAP:
            yield Finding(
                "confidence-gap", "warning",
                f"Mean confidence is {c.mean_confidence:.1%} at an accuracy of {c.accuracy:.1%}: the probabilities are not calibrated. "
                "Compare this model with others by the calibrated values only.",
            )  # fmt: skip
    if c.temperature is not None and abs(math.log(c.temperature)) > _LOG_T:
        yield Finding(
            "temperature", "warning",
            f"The fitted temperature is {c.temperature:.3g}, far from 1: raw values of this model do not compare with those of others. "
            "Use the calibrated values.",
        )  # fmt: skip
    if c.temperature is None and c.accuracy is not None:
        yield Finding("temperature-unfitted", "warning", f"There are no calibrated values: {c.reason}. Pass more labelled samples.")


def _about_step(step: StepChoice, samples: Sequence[SampleResult], clipped: ClippedRange | None) -> Iterator[Finding]:
    if not step.plateau:
        where = f"{step.step:.3g} per coordinate ({step.step / step.input_std:.2g} standard deviations of the inputs)"
        smallest = (
            "" if step.smallest_usable is None else f" The smallest step that resolves anything is {step.smallest_usable:.3g}."
        )
        yield Finding(
            "no-plateau", "warning",
            f"lambda_max changes with the step at every scale that was tried: the value holds at a step of {where} and is not a local "
            f"derivative.{smallest} Compare only with values at the same step.",
        )  # fmt: skip
    if step.repeat_noise > 0:
        yield Finding(
            "not-deterministic", "warning",
            f"Repeated identical calls differ by {step.repeat_noise:.3g} (rms of one output): the model or the provider is not "
            "deterministic. Results do not repeat exactly.",
        )  # fmt: skip
    if step.scheme == "dithered":
        yield Finding(
            "rounded-model", "note",
            "The file rounds its values (int8, float16 or noise), so that small steps change nothing or too much. The dithered cross-Gram "
            f"estimate was used; it describes the file at steps of {step.step:.3g} per coordinate.",
        )  # fmt: skip
    if clipped is not None and clipped.share > _CLIPPED:
        yield Finding(
            "clipped-input", "note",
            f"The file clips its input to {clipped.low:.4g} … {clipped.high:.4g}, and {clipped.share:.0%} of the values lie within a step of an "
            "end, where half of each step would change nothing. Slopes were measured at points moved inside by one step.",
        )  # fmt: skip
    still = sum(s.unchanged * s.directions for s in samples) / max(sum(s.directions for s in samples), 1)
    if still > 0.01:
        yield Finding(
            "unchanged-directions", "warning",
            f"{still:.1%} of the directions changed no output at all: rounding hides part of the slope. Values are too low; use a larger --step.",
        )  # fmt: skip


def _about_run(
    run: Run, settings: Settings, explicit: bool, skipped: Sequence[Skipped], aggregates: Mapping[str, Aggregates]
) -> Iterator[Finding]:
    if explicit:
        yield Finding(
            "provider-fallback", "warning",
            f"{', '.join(run.providers_requested)} was asked for and not obtained; the audit ran on {run.provider}. "
            f"ONNX Runtime's reason: {run.provider_reason}.",
        )  # fmt: skip
    elif run.provider_reason:
        yield Finding("provider-auto", "note", f"The audit ran on {run.provider}. CUDA was not obtained: {run.provider_reason}.")
    if run.partial:
        yield Finding("partial", "warning", "The audit was interrupted: it holds the samples that were finished by then.")
    if skipped:
        yield Finding(
            "skipped-samples", "warning",
            f"{len(skipped)} sample{'s were' if len(skipped) > 1 else ' was'} skipped and {'are' if len(skipped) > 1 else 'is'} not in any "
            f"statistic; the first: sample {skipped[0].index}, {skipped[0].reason}.",
        )  # fmt: skip
    mean = aggregates["lambda_max"].mean
    if settings.precision is not None and mean.value and mean.low is not None and mean.high is not None:
        half = (mean.high - mean.low) / 2 / mean.value
        if half > settings.precision:
            more = math.ceil(aggregates["lambda_max"].count * (half / settings.precision) ** 2)
            yield Finding(
                "precision-not-reached", "warning",
                f"The mean's 95 % interval has a half-width of {half:.1%}, {settings.precision:.1%} was asked for. What is left is mostly the "
                f"spread between samples: about {more:,} samples would be needed.",
            )  # fmt: skip


def _about_values(samples: Sequence[SampleResult], aggregates: Mapping[str, Aggregates]) -> Iterator[Finding]:
    missing = [s for s in samples if s.lambda_max.value is None]
    if missing:
        level = "error" if len(missing) == len(samples) else "warning"
        yield Finding(
            "unresolved", level,  # type: ignore[arg-type]
            f"{len(missing)} of {len(samples)} samples have no value: {missing[0].lambda_max.reason}. This does not mean that "
            "they are robust. Use a larger --step or a larger --budget.",
        )  # fmt: skip
    values = sorted((s.lambda_max.value or 0.0 for s in samples), reverse=True)
    total = sum(values)
    if len(values) >= 20 and total > 0:
        few = max(1, len(values) // 20)
        if sum(values[:few]) > 0.5 * total:
            yield Finding(
                "few-samples-carry-the-mean", "note",
                f"{few} of {len(values)} samples make up {sum(values[:few]) / total:.0%} of the mean raw value: it says little about a typical sample. "
                "See the median and the list of the worst samples.",
            )  # fmt: skip
    saturated = sum(1 for s in samples if s.confidence is not None and s.confidence > 1 - _SATURATED)
    if samples and saturated > 0.2 * len(samples):
        yield Finding(
            "saturated", "note",
            f"{saturated} of {len(samples)} samples have a confidence above 1 - 1e-6: their raw lambda_max is near zero because the softmax "
            "is saturated, not because the model is robust there. Read the boundary distance beside it.",
        )  # fmt: skip
    wide = [s for s in samples if _bracket(s) > _WIDE_BRACKET]
    if len(wide) > 0.1 * len(samples):
        yield Finding(
            "wide-bracket", "note",
            f"On {len(wide)} of {len(samples)} samples the plain and the cross-fit estimate are more than {_WIDE_BRACKET:.0%} apart: the "
            "spectrum is flat and the bias correction uncertain. A larger --budget narrows it.",
        )  # fmt: skip


def _about_gradient(gradient: GradientInfo | None, asked: str) -> Iterator[Finding]:
    if gradient is None:
        return
    if not gradient.used and gradient.reason and asked == "auto":
        yield Finding(
            "no-gradient", "note",
            f"Values are from forward passes, for the graph was not differentiated: {gradient.reason}.",
        )  # fmt: skip
    ratio = gradient.cross_check_ratio
    if gradient.used and ratio is not None and not 1 / _CROSS_CHECK <= ratio <= _CROSS_CHECK:
        level: Level = "warning" if gradient.surrogate else "error"
        yield Finding(
            "gradient-sketch-disagree", level,
            f"On {gradient.cross_checked} samples the sketch of the file reads {ratio:.3g} times what its gradients say, beyond the sketch's "
            "interval: the function is not smooth at the step, its gradients are masked, or a derivative is wrong. Trust neither before "
            "looking at the curve of values by step.",
        )  # fmt: skip
    if gradient.used and gradient.surrogate:
        yield Finding(
            "surrogate", "warning",
            "The file is quantised; values are those of a clip surrogate (rounding left out, weights dequantised), not of the file itself.",
        )  # fmt: skip


def _about_attack(attack: AttackSummary | None, samples: Sequence[SampleResult]) -> Iterator[Finding]:
    if attack is None:
        return
    if attack.failed:
        yield Finding(
            "attack-failed", "warning",
            f"On {attack.failed} of {attack.samples} samples no attack succeeded. Where gradients are masked, that says nothing of robustness "
            "(Croce & Hein 2020): compare with the sketch and with random starts.",
        )  # fmt: skip
    far = [
        s for s in samples
        if s.attack_distance is not None and s.attack_distance.value and s.boundary_distance.value
        and s.attack_distance.value > 10 * s.boundary_distance.value and attack.norm == "l2" and attack.units.startswith("model")
    ]  # fmt: skip
    if len(far) > 0.1 * attack.samples:
        yield Finding(
            "attack-far-from-boundary", "note",
            f"On {len(far)} samples the attack needed more than ten times the first-order boundary distance: the local slope does not reach "
            "far there, or the attack is weak.",
        )  # fmt: skip


def _bracket(sample: SampleResult) -> float:
    sketch = sample.lambda_max
    if not sketch.value or sketch.plain is None or sketch.cross_fit is None:
        return 0.0
    return (sketch.plain - sketch.cross_fit) / sketch.value
