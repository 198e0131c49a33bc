"""Checks of the step: whether values hold around it, and what rounding and clipping hide."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.verdict.findings.about_kinks import ties_of
from onnxfim.verdict.findings.about_values import no_samples
from onnxfim.verdict.findings.check import Check

_CLIPPED = 0.01
_UNCHANGED = 0.01
_MOSTLY_UNCHANGED = 0.1
_UNBOUNDED = 1.35  # between the factor of a step's bias and an end of its range
_CORRECTED = 1.6  # a larger factor rests on the extrapolation more than on the file
_AT_THE_STEP = 1.25  # what a value at a given step may be short of
_SURELY_APART = 1.25  # between the file's mean and its surrogate's, whatever the noise
_APART = 1.17  # the same where the interval of their ratio excludes 1; nearer, the surrogate confirms an extrapolated value


def _no_plateau(audit: Audit) -> str | None:
    step = audit.step
    if (
        audit.model.no_slope or step.unchosen or step.plateau or step.bias is not None
    ):  # its bias is bounded, or a finding of its own
        return None
    where = f"{step.step:.3g} per coordinate ({step.step / step.input_std:.2g} standard deviations of the inputs)"
    smallest = "" if step.smallest_usable is None else f" The smallest step that resolves anything is {step.smallest_usable:.3g}."
    return (
        f"lambda_max changes with the step at every scale that was tried: the value holds at a step of {where} and is not a local "
        f"derivative.{smallest} Compare only with values at the same step."
    )


def _by_gradients(audit: Audit) -> bool:
    """Whether values are derivatives, so that the step only serves a check of them."""
    return audit.run.method == "gradient"


def _step_bias(audit: Audit) -> str | None:
    step = audit.step
    bias = step.bias
    if step.scheme != "dithered" or bias is None:
        return None
    if bias.applied:
        wide = max(bias.high / bias.factor, bias.factor / max(bias.low, 1e-9)) > _UNBOUNDED
        if not wide and 1 / _CORRECTED <= bias.factor <= _CORRECTED:
            return None
        done = f"values carry a factor of {bias.factor:.3g} for what they are short of at none ({bias.low:.3g} to {bias.high:.3g})"
    else:
        if 1 / _AT_THE_STEP <= bias.factor <= _AT_THE_STEP:
            return None
        done = f"at none they are about {bias.factor:.3g} times as large ({bias.low:.3g} to {bias.high:.3g})"
    hides = "noise or kinks hide" if step.rounding is None else "rounding hides"
    return (
        f"Values change with the step, and {hides} the slope below {step.step:.3g} per coordinate: {done}, as their change "
        "along larger steps suggests. "
        + ("A larger --budget pays for a smaller step." if bias.applied else "Use a smaller --step.")
    )


def _confirmed(audit: Audit) -> bool:
    """Whether the derivative of the file's surrogate gives the same values; or the step serves a check of derivatives alone."""
    check = None if audit.gradient is None else audit.gradient.check
    applied = audit.step.bias is not None and audit.step.bias.applied
    return _by_gradients(audit) or (applied and check is not None and 1 / _APART <= check.ratio <= _APART)


def _surrogate_disagrees(audit: Audit) -> str | None:
    check = None if audit.gradient is None else audit.gradient.check
    if check is None or 1 / _APART <= check.ratio <= _APART:
        return None
    if 1 / _SURELY_APART <= check.ratio <= _SURELY_APART and check.low <= 1 <= check.high:
        return None
    return (
        f"On {check.samples} samples the mean of lambda_max is {check.file:.4g} by steps of {audit.step.step:.3g} per coordinate and "
        f"{check.surrogate:.4g} by the derivative of the file's clip surrogate (rounding left out): {check.ratio:.3g} times "
        f"({check.low:.3g} to {check.high:.3g}). Rounding hides the slope at smaller steps, and larger ones pass over it. Use a larger "
        "--budget, audit the float file, or --surrogate for the surrogate's values."
    )


def _no_check(audit: Audit) -> str | None:
    if audit.gradient is None or audit.gradient.check is not None:
        return None
    return None if audit.gradient.no_check is None else audit.gradient.no_check


def _not_deterministic(audit: Audit) -> str | None:
    noise, rows = audit.step.repeat_noise, audit.rows
    if noise <= 0 or (rows is not None and rows.dependent):
        return None
    if rows is not None and not rows.repeated and (rows.alone or rows.batches):
        return None  # the same batch twice gives the same bits: it was another batch's shape, which `rows-disagree` judges
    return (
        f"Repeated identical calls differ by {noise:.3g} (rms of one output): the model or the provider is not deterministic. Results "
        "do not repeat exactly."
    )


def _rounded(audit: Audit) -> str | None:
    step = audit.step
    if step.rounding is not None and step.bias is not None and step.scheme != "dithered" and not audit.model.no_slope:
        return (
            f"The model's outputs are rounded before they are sent ({step.rounding}), so that small steps change nothing. Central "
            f"differences were taken at steps of {step.step:.3g} per coordinate; intervals hold what the rounding may add and hide, and "
            "what curvature within such steps may change. Samples that it hides have no value."
        )
    if (
        step.scheme != "dithered" or audit.model.no_slope or ties_of(audit) is not None
    ):  # at a kink no step is small enough: nothing is rounded
        return None
    if step.rounding is not None:
        why = f"The file rounds its values ({step.rounding}), so that small steps change nothing or too much."
    elif step.repeat_noise > 0:
        why = "Repeated calls differ, so that small steps measure noise."
    else:
        why = (
            "Differences do not settle at small steps, though no rounding was seen: no quantisers or half floats, no grid of outputs, "
            "and repeated calls agree. Kinks, ties or noise may be the cause."
        )
    return f"{why} The dithered cross-Gram estimate was used, at steps of {step.step:.3g} per coordinate."


def _clipped(audit: Audit) -> str | None:
    clipped = audit.step.clipped
    if clipped is None or clipped.share <= _CLIPPED:
        return None
    return (
        f"The file clips its input to {clipped.low:.4g} … {clipped.high:.4g}, and {clipped.share:.0%} of the values lie within a step "
        "of an end, where half of each step would change nothing. Slopes were measured at points moved inside by one step."
    )


def _unchanged_share(audit: Audit) -> float:
    return sum(s.unchanged * s.directions for s in audit.samples) / max(sum(s.directions for s in audit.samples), 1)


def _unchanged(audit: Audit) -> str | None:
    still = _unchanged_share(audit)
    if still <= _UNCHANGED:
        return None
    return (
        f"{still:.1%} of the directions changed no output at all: rounding hides part of the slope. Values are too low; use a larger "
        "--step."
    )


def _few_unchanged(audit: Audit) -> bool:
    return _unchanged_share(audit) <= _MOSTLY_UNCHANGED


def _not_rounded(audit: Audit) -> str | None:
    """The obstacle of a check of rounding against the surrogate."""
    check = None if audit.gradient is None else audit.gradient.check
    return None if check is not None else _no_check(audit) or "values are not those of a quantised file by steps"


CHECKS = (
    Check("no-plateau", "error", "The value depends on the step", _no_plateau, milder=_by_gradients),
    Check("step-bias", "error", "The value is short of the slope at no step", _step_bias, milder=_confirmed),
    Check("surrogate-disagrees", "error", "The file and its surrogate disagree", _surrogate_disagrees, _not_rounded),
    Check("not-deterministic", "warning", "Repeated calls differ", _not_deterministic),
    Check("rounded-model", "note", "Values were measured at steps above rounding or noise", _rounded),
    Check("clipped-input", "note", "The file clips its input near the samples", _clipped),
    Check("unchanged-directions", "error", "Rounding hides part of the slope", _unchanged, no_samples, milder=_few_unchanged),
)
