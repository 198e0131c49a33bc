"""Checks of the values: which are missing, which carry the mean, and which mislead."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.record.sample import SampleResult
from onnxfim.record.statistics import fewest_bracketing
from onnxfim.verdict.findings.check import Check

_MISSING = 0.1  # of the samples, that may lack a value
_SATURATED = 1e-6
_FEWEST = fewest_bracketing(0.5)[0]  # values: fewer bound not even the median
_WIDE_BRACKET = 0.5  # of the value, between the plain and the cross-fit estimate


def no_samples(audit: Audit) -> str | None:
    """The obstacle of a check that reads samples."""
    return None if audit.samples else "no sample was measured"


def few_are_missing(audit: Audit) -> bool:
    """Whether at least nine of ten samples that were to be measured have a value, and nine of ten of the data could be used."""
    skipped = len(audit.skipped)
    wanted = len(audit.samples) + skipped
    if audit.settings.samples is not None:
        wanted = min(wanted, audit.settings.samples)
    of_data = max(audit.data.count, len(audit.samples) + skipped)
    return audit.measured >= (1 - _MISSING) * wanted and skipped <= _MISSING * of_data


def _nothing(audit: Audit) -> str | None:
    if audit.measured or audit.noise_alone:
        return None
    why = "see the reasons beside the samples" if audit.samples else "every sample was skipped"
    return f"No sample has a value of lambda_max ({why}): this audit says nothing about the model. Mend the cause and audit again."


def _unresolved(audit: Audit) -> str | None:
    missing = [s for s in audit.samples if s.lambda_max.value is None]
    if not missing or audit.model.no_slope or (audit.rows is not None and audit.rows.dependent):  # another finding tells the cause
        return None
    return (
        f"{len(missing)} of {len(audit.samples)} samples {'has' if len(missing) == 1 else 'have'} no value: {missing[0].lambda_max.reason}. This does not mean that they "
        "are robust, and the statistics are of the others alone. Use a larger --step or a larger --budget."
    )


def _few_samples(audit: Audit) -> str | None:
    if not 0 < audit.measured < _FEWEST:
        return None
    return (
        f"{audit.measured} sample{'s have' if audit.measured > 1 else ' has'} a value: so few say nothing of the model's other inputs. "
        f"Audit {_FEWEST} at the least, and 64 or more for means and tails."
    )


def _few_carry_the_mean(audit: Audit) -> str | None:
    values = sorted((s.lambda_max.value or 0.0 for s in audit.samples), reverse=True)
    total = sum(values)
    few = max(1, len(values) // 20)
    if len(values) < 20 or total <= 0 or sum(values[:few]) <= 0.5 * total:
        return None
    return (
        f"{few} of {len(values)} samples make up {sum(values[:few]) / total:.0%} of the mean raw value: it says little about a typical "
        "sample. See the median and the list of the worst samples."
    )


def _saturated(audit: Audit) -> str | None:
    saturated = sum(1 for s in audit.samples if s.confidence is not None and s.confidence > 1 - _SATURATED)
    if saturated <= 0.2 * len(audit.samples):
        return None
    return (
        f"{saturated} of {len(audit.samples)} samples {'has' if saturated == 1 else 'have'} a confidence above 1 - 1e-6: their raw lambda_max is near zero because the "
        "softmax is saturated, not because the model is robust there. Read the boundary distance beside it."
    )


def _wide_bracket(audit: Audit) -> str | None:
    wide = sum(1 for s in audit.samples if _bracket(s) > _WIDE_BRACKET)
    if wide <= 0.1 * len(audit.samples):
        return None
    return (
        f"On {wide} of {len(audit.samples)} samples the plain and the cross-fit estimate are more than {_WIDE_BRACKET:.0%} apart: the "
        "spectrum is flat and the bias correction uncertain. A larger --budget narrows it."
    )


def _bracket(sample: SampleResult) -> float:
    sketch = sample.lambda_max
    if not sketch.value or sketch.plain is None or sketch.cross_fit is None:
        return 0.0
    return (sketch.plain - sketch.cross_fit) / sketch.value


CHECKS = (
    Check("nothing-measured", "error", "No sample has a value", _nothing),
    Check("unresolved", "error", "Samples without a value", _unresolved, no_samples, few_are_missing),
    Check("few-samples", "error", "Too few samples for any statistic", _few_samples, no_samples),
    Check("few-samples-carry-the-mean", "note", "Few samples carry the mean", _few_carry_the_mean, no_samples),
    Check("saturated", "note", "The softmax is saturated on many samples", _saturated, no_samples),
    Check("wide-bracket", "note", "The bias correction is uncertain", _wide_bracket, no_samples),
)
