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
        f"reason: {run.provider_reason}.{_remedy(audit)}"
    )


def _auto(audit: Audit) -> str | None:
    run = audit.run
    if run.provider_missed or not run.provider_reason:
        return None
    return f"The audit ran on {run.provider}, although an NVIDIA GPU is here. CUDA was not obtained: {run.provider_reason}.{_remedy(audit)}"


def _remedy(audit: Audit) -> str:
    return f" {audit.run.provider_remedy}" if audit.run.provider_remedy else ""


def _installation(audit: Audit) -> str | None:
    return audit.run.installation


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
    Check("provider-auto", "warning", "A GPU is here and CUDA did not load", _auto),
    Check("installed-twice", "warning", "Two builds are installed over one another", _installation),
    Check("partial", "error", "The audit was interrupted", _partial),
    Check("skipped-samples", "error", "Samples were skipped", _skipped, milder=few_are_missing),
    Check("precision-not-reached", "warning", "The precision asked for was not reached", _precision, _no_precision),
)
