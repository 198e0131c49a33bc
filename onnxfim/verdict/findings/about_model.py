"""Checks of the model and its data: labels, accuracy, temperature, and how the outputs were read."""

from __future__ import annotations

import math

from onnxfim.record.audit import Audit
from onnxfim.record.statistics import Z95, binomial_at_least
from onnxfim.verdict.findings.check import Check

_NEAR_CHANCE = 0.05  # chance gives so many right answers more often than this
_CONFIDENCE_GAP = 0.1
_FAR_BELOW = 0.25  # honest over-confidence reaches 0.2 (Guo et al. 2017, table 1)
_CERTAIN = 0.01
_LOG_T = math.log(2.0)
_TOLD = 6  # outputs


def _no_labels(audit: Audit) -> str | None:
    return None if audit.calibration.accuracy is not None else "it needs labels"


def _synthetic(audit: Audit) -> str | None:
    if not audit.data.synthetic:
        return None
    return "The inputs are random numbers: this audit describes no real input. Pass --data with samples the model will meet."


def _output_kind(audit: Audit) -> str | None:
    return f"How the outputs were read may be wrong: {audit.model.doubt}." if audit.model.doubt else None


def _served(audit: Audit) -> str | None:
    served = audit.model.served
    if served is None:
        return None
    return (
        f"The model was asked at {served.address}, and its weights were not seen: they cannot be hashed. The figures are those of what "
        "answered there at the time, and nothing in this report tells it from other weights under the same name."
    )


def _told(audit: Audit) -> bool:
    return audit.settings.tells_kind


def _no_slope(audit: Audit) -> str | None:
    why = audit.model.no_slope
    if why is None:
        return None
    return (
        f"The outputs do not change for small steps: a step function of the input ({why}). It has no slope, so there is no lambda_max "
        "and no value is given; measures of finite steps (flip radius, attacks by search, noise) still mean something."
    )


def _other_heads(audit: Audit) -> str | None:
    """Heads beside the one that was audited where nobody named it."""
    model = audit.model
    others = [o for o in model.outputs if o.role == "head" and o.name != model.output]
    if audit.settings.output is not None or not others:
        return None
    told = ", ".join(f"{o.name!r} ({o.kind}, {_shape(o.shape)})" for o in others[:_TOLD]) + (", …" if len(others) > _TOLD else "")
    return (
        f"This audit is of output {model.output!r} alone. The file has {len(others)} more that do not "
        f"follow from it: {told}. Name one with --output NAME, or audit all together with --output all."
    )


def _shape(shape: tuple[int | str | None, ...] | None) -> str:
    return "?" if shape is None else "×".join("N" if n is None else str(n) for n in shape)


def _labels(audit: Audit) -> str | None:
    if audit.data.labels or audit.data.synthetic or not audit.reads_labels:
        return None
    return (
        "No labels were given: only raw values exist. They change with the temperature of the softmax and do not compare between "
        "models; pass labels to get calibrated values and the clean accuracy."
    )


def _labels_unread(audit: Audit) -> str | None:
    """Labels that tell nothing of such outputs."""
    if not audit.data.labels or audit.reads_labels:
        return None
    model = audit.model
    if model.positions == 1:
        return f"The labels were not read: outputs of kind {model.output_kind} have none. Leave them out."
    several = sum(o.role == "head" for o in model.outputs) > 1
    one = " Name one head with --output to use the labels of it." if several else ""
    return f"The labels were not read: they are one for each sample, and the outputs are choices at {model.positions:,} positions.{one}"


def _is_near_chance(audit: Audit) -> bool:
    """Whether as many right answers could be chance, by an exact binomial test; never where all are right."""
    accuracy = audit.calibration.accuracy
    if accuracy is None or accuracy == 1:
        return False
    n = _labelled(audit)
    return binomial_at_least(round(accuracy * n), n, _chance(audit)) > _NEAR_CHANCE


def _labelled(audit: Audit) -> int:
    return audit.data.labelled or audit.data.count


def _chance(audit: Audit) -> float:
    return audit.data.chance or 1.0 / max(audit.model.num_outputs, 2)


def _near_chance(audit: Audit) -> str | None:
    if not _is_near_chance(audit):
        return None
    n, accuracy = _labelled(audit), audit.calibration.accuracy or 0.0
    few = f" {n} labelled samples are few to tell them apart; pass more." if n < 50 and accuracy > _chance(audit) else ""
    order = (
        " The labels were words, whose order here is the alphabet's: name the model's own with --class-names."
        if audit.data.classes_guessed
        else ""
    )
    return (
        f"Clean accuracy is {accuracy:.1%} ({round(accuracy * n)} of {n}), which chance gives too ({_chance(audit):.1%} for these "
        f"labels and {max(audit.model.num_outputs, 2)} classes).{few} The usual cause is a wrong normalisation, layout or label order: "
        f"check --mean, --std, --layout and the class numbers before reading on.{order}"
    )


def _is_far_below(audit: Audit) -> bool:
    """Whether the accuracy is below the mean confidence by more than honest over-confidence and sampling explain."""
    accuracy, confidence = audit.calibration.accuracy, audit.calibration.mean_confidence
    if accuracy is None or confidence is None or confidence <= _FAR_BELOW:
        return False
    n = _labelled(audit)
    return 1 - binomial_at_least(round(accuracy * n) + 1, n, confidence - _FAR_BELOW) < _CERTAIN


def _confidence_gap(audit: Audit) -> str | None:
    accuracy, confidence = audit.calibration.accuracy, audit.calibration.mean_confidence
    if accuracy is None or confidence is None or _is_near_chance(audit) or abs(confidence - accuracy) <= _CONFIDENCE_GAP:
        return None
    if _is_far_below(audit):
        return (
            f"Clean accuracy is {accuracy:.1%} where the model's confidence implies {confidence:.1%}: inputs in other units than the "
            "model's, labels of another order or a broken export look like this. Check --mean, --std, --input-range, the order of the "
            "channels and the class numbers before reading on."
        )
    return (
        f"Mean confidence is {confidence:.1%} at an accuracy of {accuracy:.1%}: the probabilities are not calibrated. Compare this "
        "model with others by the calibrated values only."
    )


def _temperature(audit: Audit) -> str | None:
    temperature = audit.calibration.temperature
    if temperature is None or abs(math.log(temperature)) <= _LOG_T:
        return None
    return (
        f"The fitted temperature is {temperature:.3g}, far from 1: raw values of this model do not compare with those of others. Use "
        "the calibrated values."
    )


def _few_errors(audit: Audit) -> str | None:
    c = audit.calibration
    if c.temperature is None or c.errors is None or not c.log_error or not c.method.startswith("MAP"):
        return None
    return (
        f"The temperature rests on {c.errors} wrong prediction{'s' if c.errors > 1 else ''} and a prior (ln T ~ N(0, 1)): it is known "
        f"to a factor of {math.exp(Z95 * c.log_error):.2g} either way, which is in the intervals of "
        "calibrated values. Pass more labelled samples."
    )


def _unfitted(audit: Audit) -> str | None:
    c = audit.calibration
    if c.temperature is not None or c.accuracy is None:
        return None
    return f"There are no calibrated values: {c.reason}. Pass more labelled samples, or a --temperature that was fitted elsewhere."


CHECKS = (
    Check("synthetic-data", "error", "The inputs are random numbers", _synthetic),
    Check("output-kind", "error", "The outputs may have been read wrongly", _output_kind, milder=_told),
    Check("served-model", "note", "The model was asked at an address; its weights were not seen", _served),
    Check("other-heads", "warning", "Other outputs were not audited", _other_heads),
    Check("no-slope", "error", "The outputs are a step function", _no_slope, milder=lambda audit: audit.noise_alone),
    Check("no-labels", "note", "No labels were given", _labels),
    Check("labels-unread", "note", "Labels were not read", _labels_unread),
    Check("accuracy-near-chance", "error", "Clean accuracy is near chance", _near_chance, _no_labels),
    Check(
        "confidence-gap", "error", "Confidence does not fit accuracy", _confidence_gap, _no_labels, lambda a: not _is_far_below(a)
    ),
    Check("temperature", "warning", "The fitted temperature is far from 1", _temperature, _no_labels),
    Check("temperature-few-errors", "warning", "The temperature rests on few errors", _few_errors, _no_labels),
    Check("temperature-unfitted", "warning", "No temperature could be fitted", _unfitted, _no_labels),
)
