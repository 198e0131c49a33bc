"""Checks of the step: whether values hold around it, and what rounding and clipping hide."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.verdict.findings.about_kinks import ties_of
from onnxfim.verdict.findings.about_values import no_samples
from onnxfim.verdict.findings.check import Check

_CLIPPED = 0.01
_UNCHANGED = 0.01


def _no_plateau(audit: Audit) -> str | None:
    step = audit.step
    if step.plateau:
        return None
    where = f"{step.step:.3g} per coordinate ({step.step / step.input_std:.2g} standard deviations of the inputs)"
    smallest = "" if step.smallest_usable is None else f" The smallest step that resolves anything is {step.smallest_usable:.3g}."
    return (
        f"lambda_max changes with the step at every scale that was tried: the value holds at a step of {where} and is not a local "
        f"derivative.{smallest} Compare only with values at the same step."
    )


def _not_deterministic(audit: Audit) -> str | None:
    noise = audit.step.repeat_noise
    if noise <= 0 or (audit.rows is not None and audit.rows.dependent):
        return None
    return (
        f"Repeated identical calls differ by {noise:.3g} (rms of one output): the model or the provider is not deterministic. Results "
        "do not repeat exactly."
    )


def _rounded(audit: Audit) -> str | None:
    if audit.step.scheme != "dithered" or ties_of(audit) is not None:  # at a kink no step is small enough: nothing is rounded
        return None
    return (
        "The file rounds its values (int8, float16 or noise), so that small steps change nothing or too much. The dithered cross-Gram "
        f"estimate was used; it describes the file at steps of {audit.step.step:.3g} per coordinate."
    )


def _clipped(audit: Audit) -> str | None:
    clipped = audit.step.clipped
    if clipped is None or clipped.share <= _CLIPPED:
        return None
    return (
        f"The file clips its input to {clipped.low:.4g} … {clipped.high:.4g}, and {clipped.share:.0%} of the values lie within a step "
        "of an end, where half of each step would change nothing. Slopes were measured at points moved inside by one step."
    )


def _unchanged(audit: Audit) -> str | None:
    still = sum(s.unchanged * s.directions for s in audit.samples) / max(sum(s.directions for s in audit.samples), 1)
    if still <= _UNCHANGED:
        return None
    return (
        f"{still:.1%} of the directions changed no output at all: rounding hides part of the slope. Values are too low; use a larger "
        "--step."
    )


CHECKS = (
    Check("no-plateau", "warning", "The value depends on the step", _no_plateau),
    Check("not-deterministic", "warning", "Repeated calls differ", _not_deterministic),
    Check("rounded-model", "note", "The file rounds its values", _rounded),
    Check("clipped-input", "note", "The file clips its input near the samples", _clipped),
    Check("unchanged-directions", "warning", "Rounding hides part of the slope", _unchanged, no_samples),
)
