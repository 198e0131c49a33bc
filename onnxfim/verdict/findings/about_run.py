"""Checks of the run: the provider, what was skipped, whether it came to its end."""

from __future__ import annotations

import math

from onnxfim.record.audit import Audit
from onnxfim.verdict.findings.about_values import few_are_missing
from onnxfim.verdict.findings.check import Check


def _no_precision(audit: Audit) -> str | None:
    return None if audit.settings.precision is not None else "no precision was asked for"


def _fallback(audit: Audit) -> str | None:
    run = audit.run
    if not run.provider_missed:
        return None
    return (
        f"{', '.join(run.providers_requested)} was asked for and not obtained; the audit ran on {run.provider}. ONNX Runtime's "
        f"reason: {run.provider_reason}."
    )


def _auto(audit: Audit) -> str | None:
    run = audit.run
    if run.provider_missed or not run.provider_reason:
        return None
    return f"The audit ran on {run.provider}. CUDA was not obtained: {run.provider_reason}."


def _lost_options(audit: Audit) -> str | None:
    lost = [o for o in audit.run.provider_options if o.taken is False and (o.running is not None or not o.ours)]
    if not lost:
        return None
    told = "; ".join(
        f"{o.key}={o.value} of {o.provider}, " + ("which did not take it" if o.running is None else f"which runs with {o.running}")
        for o in lost
    )
    return f"The audit did not run with {told}. Mend the option or drop it: it tells nothing about this run."


def _untold_options(audit: Audit) -> str | None:
    untold = [o for o in audit.run.provider_options if o.taken is None and not o.ours]
    if not untold:
        return None
    told = ", ".join(f"{o.key}={o.value} of {o.provider}" for o in untold)
    return (
        f"Whether {told} had an effect is not known: the provider does not tell what it runs with. It may pass over what it does not "
        "know; see that the option is spelled as its documentation says."
    )


def _tf32(audit: Audit) -> str | None:
    run = audit.run
    if run.tf32_doubt is None:
        return None
    return (
        f"TF32 may be on though it was not allowed: {run.tf32_doubt}. {run.provider} has no option for it. Set NVIDIA_TF32_OVERRIDE=0 "
        "before the process starts, or allow it with --tf32."
    )


def _partial(audit: Audit) -> str | None:
    if not audit.run.partial:
        return None
    return (
        f"The audit was interrupted: it holds {len(audit.samples):,} of {audit.data.count:,} samples, those that were finished by then, "
        "and not every check was made. Run it again to the end."
    )


def _skipped(audit: Audit) -> str | None:
    skipped = audit.skipped
    if not skipped:
        return None
    were, are = ("s were", "are") if len(skipped) > 1 else (" was", "is")
    many = "" if few_are_missing(audit) else " What is left may be another kind of samples: mend the cause and audit again."
    return (
        f"{len(skipped)} sample{were} skipped and {are} not in any statistic; the first: sample {skipped[0].index}, "
        f"{skipped[0].reason}.{many}"
    )


def _precision(audit: Audit) -> str | None:
    asked, group = audit.settings.precision, audit.aggregates.get("lambda_max")
    if asked is None or group is None or not group.mean.value:
        return None
    if group.mean.low is None or group.mean.high is None:
        return f"The mean has no interval that could be made narrow: {group.mean.method}. Audit more samples."
    half = (group.mean.high - group.mean.low) / 2 / group.mean.value
    if half <= asked:
        return None
    more = math.ceil(group.count * (half / asked) ** 2)
    return (
        f"The mean's 95 % interval has a half-width of {half:.1%}, {asked:.1%} was asked for. What is left is mostly the spread "
        f"between samples: about {more:,} samples would be needed."
    )


CHECKS = (
    Check("provider-fallback", "warning", "The provider asked for was not obtained", _fallback),
    Check("provider-auto", "note", "A faster provider did not load", _auto),
    Check("provider-option", "warning", "A provider option had no effect", _lost_options),
    Check("provider-option-untold", "note", "A provider does not tell its options", _untold_options),
    Check("tf32", "warning", "TF32 may be on", _tf32),
    Check("partial", "error", "The audit was interrupted", _partial),
    Check("skipped-samples", "error", "Samples were skipped", _skipped, milder=few_are_missing),
    Check("precision-not-reached", "warning", "The precision asked for was not reached", _precision, _no_precision),
)
