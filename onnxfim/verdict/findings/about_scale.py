"""Checks of the inputs' scales: whether one feature's unit decides the values."""

from __future__ import annotations

from collections import Counter

from onnxfim.record.audit import Audit
from onnxfim.verdict.findings.about_values import no_samples
from onnxfim.verdict.findings.check import Check

_DECIDES = 0.9  # of the worst direction's squared length in the inputs' own units
_SHARES = 0.5  # of it in standard deviations, below which the feature decides by its unit alone


def _one_feature(audit: Audit) -> str | None:
    leading = [s.leading_feature for s in audit.samples if s.leading_feature is not None]
    by_unit = [f for f in leading if f.share > _DECIDES and f.share_standardised < _SHARES]
    if not by_unit or len(by_unit) < len(leading) / 2:
        return None
    index, count = Counter(f.index for f in by_unit).most_common(1)[0]
    mine = [f for f in by_unit if f.index == index]
    share, standardised = (sum(getattr(f, name) for f in mine) / count for name in ("share", "share_standardised"))
    names = audit.data.feature_names or ()
    feature = repr(names[index]) if index < len(names) else f"{index} (counted from 0)"
    return (
        f"Features differ in scale, and feature {feature} holds {share:.0%} of the worst direction on {count} of "
        f"{len(leading)} samples, but {standardised:.0%} where every input is in standard deviations: its unit decides the raw "
        "values. Read and compare lambda_max_standardised."
    )


CHECKS = (Check("one-feature-decides", "warning", "The unit of one feature decides the raw values", _one_feature, no_samples),)
