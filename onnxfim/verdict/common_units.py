"""Audits whose models take the same samples in different scalings: brought to raw input units, so that they compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import RAW_UNIT
from onnxfim.record.decision import Aggregate, Aggregates
from onnxfim.record.sample import Estimate, SampleResult

Array: TypeAlias = np.ndarray[Any, Any]

RAW_UNITS = f"nats per squared {RAW_UNIT}"
#: Powers of d(model input)/d(raw input) that lead from model to raw units.
_POWERS = {
    "lambda_max": 2, "lambda_max_calibrated": 2, "trace": 2, "boundary_distance": -1, "flip_radius": -1, "logit_sensitivity": 1,
}  # fmt: skip
_APART = 2e-3  # relative: what rounding, to float16 too, leaves between the same samples in two scalings
_SAME = 1e-9  # relative: scales that differ by less are one


@dataclass(frozen=True)
class CommonUnits:
    """Audits in units that all share.

    Attributes:
        audits: The audits, in raw units where their models' units differ, else as they were.
        converted: Whether they were brought to raw units.
        slack: By how much the logarithm of a ratio of distances of two audits may be wrong for that, (k, k): 0 where the scales of
            all channels stand in one ratio.
        note: What was done, in a sentence; empty where nothing was.
    """

    audits: tuple[Audit, ...]
    converted: bool
    slack: Array
    note: str = ""


def in_common_units(audits: Sequence[Audit]) -> CommonUnits:
    """The audits in raw input units where the models take the same samples in different scalings.

    A length in model units is one in raw units only where every channel has the same scale. Else it depends on its direction, which
    an audit does not keep: the geometric mean of the channels' scales is taken, and ``slack`` bounds what that may be off.
    Audits of other samples are left as they are.
    """
    scales = [np.abs(np.asarray(a.settings.input_scale or (1.0,), np.float64)) for a in audits]
    none = np.zeros((len(audits), len(audits)))
    if all(s.shape == scales[0].shape and np.allclose(s, scales[0], rtol=_SAME) for s in scales):
        return CommonUnits(tuple(audits), False, none)
    if not all(same_samples(audits[0], a) for a in audits[1:]):
        return CommonUnits(tuple(audits), False, none)
    slack = np.array([[_slack(one, other) for other in scales] for one in scales])
    first = audits[0]
    found = tuple(_converted(a, float(np.exp(np.log(s).mean())), first) for a, s in zip(audits, scales, strict=True))
    within = f", within {np.expm1(slack.max()):.1%} of a distance where channels have other ratios" if slack.max() > _SAME else ""
    note = (
        f"The models take the same samples in different scalings: all values are in raw input units{within}. "
        "That error is in the intervals and p-values."
        if within
        else "The models take the same samples in different scalings: all values are in raw input units."
    )
    return CommonUnits(found, True, slack, note)


def same_samples(one: Audit, other: Audit) -> bool:
    """Whether two audits saw the same samples, whatever their models' scalings and order of axes.

    By the hash of the data; else by the distances of all samples from the first in raw units, and the labels. A picture and its
    mirror image have the same.
    """
    if one.data.sha256 == other.data.sha256:
        return True
    a, b = (np.asarray(x.data.apart, np.float64) for x in (one, other))
    if len(a) < 2 or a.shape != b.shape or np.prod(one.data.shape) != np.prod(other.data.shape):
        return False
    labels = [{s.index: s.label for s in x.samples} for x in (one, other)]
    agree = all(labels[0][k] == labels[1][k] for k in labels[0].keys() & labels[1].keys())
    return agree and bool(a.any()) and bool(np.allclose(a, b, rtol=_APART, atol=_APART * float(a.max())))


def _slack(one: Array, other: Array) -> float:
    """The largest deviation of a channel's log-ratio of scales from that of the geometric means."""
    centre = float(np.log(one).mean() - np.log(other).mean())
    if len(one) == len(other) or 1 in (len(one), len(other)):
        return float(np.abs(np.log(one) - np.log(other) - centre).max())
    ends = np.log(one.max() / other.min()) - centre, centre - np.log(one.min() / other.max())
    return float(max(ends))


def _converted(audit: Audit, scale: float, first: Audit) -> Audit:
    """The audit in raw units, of one number to a raw unit."""
    samples = tuple(_sample(s, scale) for s in audit.samples)
    groups = {name: _aggregates(g, scale ** _POWERS[name]) if name in _POWERS else g for name, g in audit.aggregates.items()}
    if "lambda_max_raw_units" in groups and all(s.lambda_max_raw_units is not None for s in audit.samples):
        groups["lambda_max"] = groups["lambda_max_raw_units"]
    return replace(
        audit,
        samples=samples,
        aggregates=groups,
        units=RAW_UNITS,
        data=replace(audit.data, sha256=first.data.sha256, shape=first.data.shape),
        run=replace(audit.run, step=audit.run.step / scale),
    )


def _sample(sample: SampleResult, scale: float) -> SampleResult:
    changed: dict[str, Estimate | None] = {}
    for name, power in _POWERS.items():
        estimate: Estimate | None = getattr(sample, name)
        changed[name] = None if estimate is None else _times(estimate, scale**power)
    if sample.lambda_max_raw_units is not None:  # known channel by channel
        changed["lambda_max"] = sample.lambda_max_raw_units
    return replace(sample, **changed)  # type: ignore[arg-type]


def _times(estimate: Estimate, factor: float) -> Estimate:
    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    return replace(
        estimate, value=times(estimate.value), low=times(estimate.low), high=times(estimate.high), plain=times(estimate.plain),
        cross_fit=times(estimate.cross_fit),
    )  # fmt: skip


def _aggregates(group: Aggregates, factor: float) -> Aggregates:
    found = {f.name: getattr(group, f.name) for f in fields(group)}
    changed = {name: _aggregate(value, factor) for name, value in found.items() if isinstance(value, Aggregate)}
    return replace(group, **changed)  # type: ignore[arg-type]


def _aggregate(a: Aggregate, factor: float) -> Aggregate:
    value, low, high = (None if v is None else v * factor for v in (a.value, a.low, a.high))
    return Aggregate(value, low, high, a.confidence, a.method)
