"""Gates on what deployment changed, such as ``sensitivity_ratio > 1.2``: decided on the paired 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxfim.record.decision import GateResult, Outcome
from onnxfim.record.deployment import Change, Deployment
from onnxfim.verdict.gates import Gate, parse_gate

#: What may be gated.
DELTA_NAMES = ("accuracy_change", "agreement", "sensitivity_ratio", "flip_radius_ratio")


def parse_delta_gate(text: str) -> Gate:
    """Read ``NAME OPERATOR NUMBER``, such as ``accuracy_change < -1%`` or ``sensitivity_ratio > 1.2``.

    Raises:
        SettingsError: not of that form, or an unknown name.
    """
    return parse_gate(text, known=DELTA_NAMES)


def decide_delta(deployment: Deployment, gates: Sequence[Gate]) -> tuple[GateResult, ...]:
    """The result of each gate: ``fail`` where the whole interval violates it, ``pass`` where none of it does.

    ``sensitivity_ratio`` is the calibrated one where there is one, else the raw one.
    """
    return tuple(_decided(_change(deployment, gate.name), gate) for gate in gates)


def _change(d: Deployment, name: str) -> Change:
    calibrated = d.sensitivity.change.value is not None
    return {
        "accuracy_change": d.accuracy,
        "agreement": d.agreement,
        "sensitivity_ratio": d.sensitivity if calibrated else d.sensitivity_raw,
        "flip_radius_ratio": d.flip_radius,
    }[name]


def _decided(change: Change, gate: Gate) -> GateResult:
    a = change.change
    verdict: Outcome = "inconclusive"
    if a.value is not None:
        ends = {gate.violated(-math.inf if a.low is None else a.low), gate.violated(math.inf if a.high is None else a.high)}
        verdict = "inconclusive" if len(ends) == 2 else "fail" if True in ends else "pass"
    rule = f"the gate fails {gate.operator} {gate.threshold!r}"
    if a.value is None:
        comparison = f"{gate.name} was not measured ({change.reason}); {rule}"
    else:
        low, high = ("not bounded" if end is None else repr(end) for end in (a.low, a.high))
        comparison = f"{gate.name} = {a.value!r}, 95 % interval {low} to {high}; {rule}"
    advice = None
    if verdict == "inconclusive":
        advice = f"Not compared: {change.reason}." if a.value is None else f"{change.count:,} samples leave it open: pass more."
    return GateResult(
        gate.text, gate.name, gate.operator, gate.threshold, a.value, a.low, a.high, verdict, comparison, advice
    )  # fmt: skip


__all__ = ["DELTA_NAMES", "decide_delta", "parse_delta_gate"]
