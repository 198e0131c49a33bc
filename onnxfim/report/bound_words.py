"""What the spectral bound says, in plain numbers: the answer first, then what it means for a prediction."""

from __future__ import annotations

import math

from onnxfim.record.bound import LOG10_ZERO, Bound
from onnxfim.record.foreign_text import visible
from onnxfim.report.numbers import number, power_of_ten
from onnxfim.report.page.bound_section import upper

_RESOLVED = -7.0  # log10 of what float32 resolves of an input of size 1


def bound_lines(bound: Bound, ways: str = "") -> tuple[str, ...]:
    """The bound's answer and its meaning, one sentence or two a line.

    The logits move by at most ``L·ε``, the lead of one logit over another by at most ``√2·L·ε``, and the KL divergence by at most
    ``¼L²ε²``: the softmax's log-partition has a Hessian of norm ½ at most (Böhning 1992), which gives ``½·(½L²)·ε²``.

    Args:
        bound: What the weights allow.
        ways: What may give a bound where there is none, as sentences after the reason.
    """
    if not bound.available or bound.log10_lipschitz is None or bound.log10_fisher is None:
        return (f"bound not available: {visible(bound.reason)}" + (f". {ways}" if ways else ""),)
    if bound.log10_lipschitz <= LOG10_ZERO:
        return ("upper bound: 0. The logits do not depend on the input: no change of it moves them.",)
    constant, fisher = upper(bound.log10_lipschitz), upper(bound.log10_fisher)
    holds = -bound.log10_lipschitz - math.log10(2) / 2
    given = "under what is assumed below, " if bound.assumptions else ""
    told = [
        f"upper bound: Lipschitz constant of the logits {constant} (L2), Fisher information {fisher} nats per squared input unit "
        f"(log10 {bound.log10_lipschitz:.3f} and {bound.log10_fisher:.3f})",
        f"meaning: {given}no change of the input of L2 size ε moves the logits by more than {constant}·ε, nor the predicted "
        f"distribution by more than ½·{fisher}·ε² nats (KL)",
        f"safe: a prediction whose logit leads the next by 1 stays for every change of L2 size below {lower(holds)}"
        + ("; a float32 input resolves no such change, so this bound promises nothing of use" if holds < _RESOLVED else ""),
    ]
    return tuple(told)


def lower(log10: float) -> str:
    """The number of this logarithm with three digits, rounded down; any magnitude."""
    exponent = math.floor(log10)
    mantissa = math.floor(10 ** (log10 - exponent + 2) * (1 - 1e-12)) / 100
    if mantissa < 1:  # a power of ten, a rounding below itself
        mantissa, exponent = 9.99, exponent - 1
    return number(mantissa * 10.0**exponent) if -3 <= exponent < 6 else f"{mantissa:.2f}×{power_of_ten(exponent)}"
