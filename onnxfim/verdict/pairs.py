"""The same samples in two audits: whether they compare at all, in what they differ, and their values side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import InputError
from onnxfim.record.audit import Audit
from onnxfim.record.decision import Difference
from onnxfim.record.measures import BY_NAME
from onnxfim.record.sample import carries_noise, estimate_of, own_interval
from onnxfim.record.settings import OUTPUT_FAMILIES, SETTINGS
from onnxfim.record.statistics import log_sd
from onnxfim.verdict.ratio import Column

Array: TypeAlias = np.ndarray[Any, Any]

_BIASED = ("lambda_max", "lambda_max_calibrated", "lambda_max_raw_units", "trace")  # measures that carry a step's factor
_SAME_STEP = 1e-6  # relative
_BIAS = 0.1  # by which the differences' own errors of two audits may differ
_MISSING_SHARE = 0.05  # of the mean that samples measured in one audit only may hold


def columns_of(audits: Sequence[Audit], measure: str) -> list[Column]:
    """The values of several audits to compare: those at the step itself where all have the same one.

    What a step keeps from the values is the same in all of them then, and its extrapolation would only add noise to their ratio.
    """
    at_step = all(same_step(audits[0], a) for a in audits)
    columns = [column(a, measure) for a in audits]
    if not at_step or measure not in _BIASED:
        return columns
    applied = [a.step.bias.factor if a.step.bias is not None and a.step.bias.applied else 1.0 for a in audits]
    return [replace(c, values=c.values / factor) for c, factor in zip(columns, applied, strict=True)]


def column(audit: Audit, measure: str) -> Column:
    """The measured values of ``measure``; samples without one are left out."""
    found = [(s, e) for s in audit.samples if (e := estimate_of(s, measure)) is not None and e.value is not None]
    values = np.array([e.value for _, e in found], np.float64)
    own = [own_interval(e) for _, e in found]
    lows = np.array([e.value if low is None else low for (_, e), (low, _) in zip(found, own, strict=True)], np.float64)
    highs = np.array([e.value if high is None else high for (_, e), (_, high) in zip(found, own, strict=True)], np.float64)
    replicates = [getattr(getattr(s, measure), "replicates", ()) for s, _ in found]
    groups = max((len(r) for r in replicates), default=0)
    table = np.array([r if len(r) == groups else (np.nan,) * groups for r in replicates]).reshape(len(found), groups)
    shifted = None
    if any(e.at_temperatures for _, e in found):
        shifted = values[:, None] * np.array([e.at_temperatures or (1.0, 1.0) for _, e in found], np.float64)
    influences = np.array(audit.calibration.influences if shifted is not None else (), np.float64)
    indices = np.array([s.index for s, _ in found], np.int64)
    return Column(indices, values, log_sd(values, lows, highs), table, shifted, influences)


def lead_measure(*audits: Audit) -> str:
    """``lambda_max_calibrated`` where every audit has it, else ``lambda_max``.

    Of inputs whose features differ in scale ``lambda_max_standardised``: the others are about the feature with the smallest unit.
    """
    if all(a.step.per_coordinate and len(column(a, "lambda_max_standardised").values) for a in audits):
        return "lambda_max_standardised"
    return "lambda_max_calibrated" if all(len(column(a, "lambda_max_calibrated").values) for a in audits) else "lambda_max"


def measure_units(audit: Audit, measure: str) -> str:
    """Units of a measure of lambda_max in an audit."""
    return BY_NAME[measure].units if measure == "lambda_max_standardised" else audit.units


def shared(a: Column, b: Column, *, where: str) -> tuple[Array, Array, Array]:
    """Indices of the samples measured in both, and their positions in a and in b.

    Raises:
        InputError: none is, or those that are not hold more than a twentieth of a mean: what is left does not stand for it.
    """
    indices, at_a, at_b = np.intersect1d(a.indices, b.indices, return_indices=True)
    if len(indices) == 0:
        raise InputError(
            f"{where}: no sample was measured in both audits. Audit the same samples, at a step that resolves both models."
        )
    for one, other, at, name in ((a, b, at_a, "this audit"), (b, a, at_b, "the other")):
        total = one.values.sum()
        lost = 1 - one.values[at].sum() / total if total > 0 else 0.0
        if lost > _MISSING_SHARE:
            raise InputError(
                f"{where}: {len(one.indices) - len(indices)} samples that hold {lost:.0%} of the mean of {name} were not "
                f"measured in both ({len(other.indices)} samples there). "
                "Audit the same samples, at a step that resolves both models."
            )
        if total <= 0 or one.values[at].sum() <= 0:
            raise InputError(f"{where}: the mean of {name} is 0 and has no ratio. Audit at a larger --step, or on other samples.")
    return indices, at_a, at_b


def _other_inputs(audit: Audit, other: Audit) -> str:
    """Where the models read other inputs of the data, these; a sample is the values of all. One input alone may have any name."""
    ours, theirs = ({i.name for i in a.model.inputs if i.role != "not read"} or {_own_input(a)} for a in (audit, other))
    if ours == theirs or len(ours) == len(theirs) == 1:
        return ""
    told = [", ".join(map(repr, sorted(names))) for names in (theirs, ours)]
    return f" One model reads {told[0]} of them, the other {told[1]}: files that read other inputs do not compare."


def _own_input(audit: Audit) -> str:
    return audit.model.input if audit.model.at is None else audit.model.at.input


def require_comparable(audit: Audit, other: Audit, *, where: str) -> None:
    """Raise where a ratio of the two audits would mean nothing.

    Raises:
        InputError: other data, another kind of output or number of classes, other units, or steps at which the values differ for
            another reason than the models.
    """
    if audit.data.sha256 != other.data.sha256:
        raise InputError(
            f"{where}: data {_short(other.data.sha256)} ({other.data.source}), expected {_short(audit.data.sha256)} "
            f"({audit.data.source}): the audits saw different samples. Audit both on the same --data, --samples and labels."
            + _other_inputs(audit, other)
        )
    if audit.data.shape != other.data.shape:
        raise InputError(f"{where}: samples of shape {other.data.shape}, expected {audit.data.shape}. Use the same preprocessing.")
    kinds = [_kind(a) for a in (audit, other)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"{where}: outputs are {kinds[1]}, expected {kinds[0]}: their Fisher informations differ in kind. Check --output-kind."
        )
    if audit.model.num_outputs != other.model.num_outputs:
        raise InputError(
            f"{where}: {other.model.num_outputs} outputs, expected {audit.model.num_outputs}: the models decide between "
            "other classes. Compare models of the same task."
        )
    if audit.units != other.units:
        raise InputError(f"{where}: values are in {other.units}, expected {audit.units}. Audit both in the same units.")
    _require_steps(audit, other, where)


def _require_steps(audit: Audit, other: Audit, where: str) -> None:
    if not same_step(audit, other) and not (audit.step.plateau and other.step.plateau):
        raise InputError(
            f"{where}: measured at step {other.run.step:.3g} ({other.run.scheme}), {audit.model.name} at {audit.run.step:.3g} "
            f"({audit.run.scheme}), and values change with the step there. Audit both with the same --step, or leave one out."
        )
    errors = [_bias(a) for a in (audit, other)]
    if abs(errors[0] - errors[1]) > _BIAS:
        raise InputError(
            f"{where}: at step {audit.run.step:.3g} the differences' own error is {max(errors):.0%} of one audit's values and "
            f"{min(errors):.0%} of the other's. Audit both with a --step that suits both, or with --scheme dithered"
            + _suggestion(audit if errors[0] > errors[1] else other)
        )


def _bias(audit: Audit) -> float:
    """Share of the values that is the differences' own error; the dithered scheme takes it out."""
    return 0.0 if audit.run.scheme == "dithered" else min(audit.step.error or 0.0, 1.0)


def _suggestion(audit: Audit) -> str:
    least = audit.step.smallest_usable
    return f" (steps of more than {least:.3g})." if least is not None and least > audit.run.step else "."


def same_step(audit: Audit, other: Audit) -> bool:
    """Whether step and scheme are the same."""
    return math.isclose(audit.run.step, other.run.step, rel_tol=_SAME_STEP) and audit.run.scheme == other.run.scheme


def is_paired(audit: Audit, other: Audit) -> bool:
    """Whether the two share the noise of their estimates: by the same step, scheme and directions, or because there is none."""
    if not carries_noise(audit.samples) and not carries_noise(other.samples):
        return True
    return same_step(audit, other) and audit.run.method == other.run.method and audit.run.seed == other.run.seed


def differences(audit: Audit, baseline: Audit) -> tuple[Difference, ...]:
    """What differs between the two beside the model's values: settings, run, data, the model's interface."""
    return tuple(Difference(name, old, new) for name, old, new in _sides(audit, baseline) if old != new)


def _sides(audit: Audit, baseline: Audit) -> Iterator[tuple[str, str, str]]:
    """(name, text in the baseline, text now) of everything that may differ."""
    pair = (baseline, audit)

    def side(name: str, read: Any) -> tuple[str, str, str]:
        values = [read(a) for a in pair]
        short = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values]
        old, new = short if len({*short}) > 1 else map(str, values)
        return name, old, new

    yield side("model file", lambda a: f"{a.model.name}, sha256 {_short(a.model.sha256)}")
    for name in ("input", "input_dtype", "output", "output_kind", "rewritten"):
        yield side(f"model.{name}", lambda a, name=name: getattr(a.model, name))
    yield side("model.input_shape", lambda a: list(a.model.input_shape[1:]))
    for name in (s.name for s in SETTINGS if s.facts.matters):
        yield side(f"settings.{name}", lambda a, name=name: getattr(a.settings, name))
    for name in ("provider", "method", "step", "scheme", "seed", "partial"):
        yield side(f"run.{name}", lambda a, name=name: getattr(a.run, name))
    yield side("error of the differences", lambda a: f"{_bias(a):.1%}")
    yield side("run.platform", lambda a: a.run.platform)
    for package in sorted({*audit.run.versions, *baseline.run.versions}):
        yield side(f"version of {package}", lambda a, package=package: a.run.versions.get(package, "none"))
    yield side("data.source", lambda a: a.data.source)
    yield side("samples measured", lambda a: len(column(a, "lambda_max").values))
    yield side("fitted temperature", lambda a: "none" if a.run.temperature is None else f"{a.run.temperature:.4g}")
    yield side("clean accuracy", lambda a: "none" if a.calibration.accuracy is None else f"{a.calibration.accuracy:.2%}")


def _kind(audit: Audit) -> str:
    return OUTPUT_FAMILIES[audit.model.output_kind]


def _short(sha256: str) -> str:
    return sha256[:12]
