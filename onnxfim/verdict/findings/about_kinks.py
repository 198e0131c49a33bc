"""Checks of the data's place on the model: kinks, where the function has one-sided slopes and no slope."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.record.sample import Estimate
from onnxfim.record.ties import Ties
from onnxfim.verdict.findings.about_values import no_samples
from onnxfim.verdict.findings.check import Check

_MOST = 0.5  # of the mean of lambda_max


def ties_of(audit: Audit) -> Ties | None:
    """The ties at which values depend on the side; None where there are none."""
    ties = None if audit.gradient is None else audit.gradient.ties
    return ties if ties is not None and ties.kinked else None


def _no_ties(audit: Audit) -> str | None:
    if audit.gradient is None or audit.gradient.ties is None:
        return "ties were not looked for: a function, a graph that rounds its values, or one of no known form"
    return None


def _weighs_less(audit: Audit) -> bool:
    ties = ties_of(audit)
    return ties is not None and (ties.share_of_mean or 0.0) <= _MOST


def _kinks(audit: Audit) -> str | None:
    ties = ties_of(audit)
    if ties is None:
        return None
    where = "; ".join(f"{n.op} {n.node!r}, {n.share:.0%} of its elements on {n.samples} samples" for n in ties.nodes[:3])
    weight = "" if ties.share_of_mean is None else f", which carry {ties.share_of_mean:.0%} of the mean"
    what = "Their intervals hold what the function does on each side"
    if ties.unresolved:
        what = f"{ties.unresolved} of them have no value: differences cannot tell the sides apart"
    return (
        f"{ties.kinked} of {ties.audited} samples{weight}, stand on ties of the graph ({where}): the function has no slope there, only "
        f"one-sided ones. {what}. Read the intervals, not the values; a little noise on the inputs would leave the ties."
    )


def _in_doubt(audit: Audit) -> tuple[int, float]:
    """How many samples' differences may be off by half of the value and more, and their share of the mean of lambda_max."""
    known = [s.lambda_max for s in audit.samples if s.lambda_max.value]
    doubtful = [e for e in known if _may_be_half(e)]
    total = sum(e.value or 0.0 for e in known)
    return len(doubtful), sum(e.value or 0.0 for e in doubtful) / total if total else 0.0


def _may_be_half(value: Estimate) -> bool:
    """Whether a value over all coordinates, whose interval is what its differences may be off by, has a low end below its half."""
    return value.kind == "estimate" and not value.replicates and (value.low or 0.0) < 0.5 * (value.value or 0.0)


def _jumps(audit: Audit) -> str | None:
    count, share = _in_doubt(audit)
    if not count:
        return None
    return (
        f"On {count} of {len(audit.samples)} samples, which carry {share:.0%} of the mean, the outputs jump or bend within a step: the "
        "differences to both sides contradict each other, and the values may be off by half and more. Read the intervals, not the "
        "values."
    )


CHECKS = (
    Check("kinks-at-the-data", "error", "The model has kinks at the data", _kinks, _no_ties, milder=_weighs_less),
    Check(
        "jumps-at-the-data", "error", "The outputs jump beside the data", _jumps, no_samples,
        milder=lambda audit: _in_doubt(audit)[1] <= _MOST,
    ),
)  # fmt: skip
