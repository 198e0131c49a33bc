"""Checks of one way of measuring by another: weights, derivatives, the sketch, attacks."""

from __future__ import annotations

import math

from onnxfim.record.audit import Audit, GradientInfo
from onnxfim.verdict.findings.check import Check

# What float32 outputs and differences may add to a measurement: a violation beyond it is one.
_SLACK = 1e-3
_CROSS_CHECK = 2.0  # factor between sketch and gradient that neither noise nor a kink explains
_FAR = 10  # first-order boundary distances


def _no_gradients(audit: Audit) -> str | None:
    return None if _used(audit) is not None else "the graph was not differentiated"


def _no_attack(audit: Audit) -> str | None:
    return None if audit.attack is not None else "no attack was asked for"


def _no_bound(audit: Audit) -> str | None:
    if audit.bound is None:
        return "no bound was asked for"
    return None if audit.bound.available else "there is no upper bound to compare with"


def _used(audit: Audit) -> GradientInfo | None:
    return audit.gradient if audit.gradient is not None and audit.gradient.used else None


def _bound_violated(audit: Audit) -> str | None:
    bound = audit.bound
    if bound is None or not bound.available or bound.log10_lipschitz is None:
        return None
    log_l, log_fisher = bound.log10_lipschitz, math.inf if bound.log10_fisher is None else bound.log10_fisher
    # An estimate may exceed the truth by its noise: its lower end must not lie above the bound; an exact value itself must not.
    broken = [s for s in audit.samples if _above(s.logit_sensitivity.low, log_l) or _above(s.lambda_max.low, log_fisher)]
    if not broken:
        return None
    return (
        f"On {len(broken)} samples (first: {broken[0].index}) the measured sensitivity lies above the upper bound from the weights "
        f"(log10 L = {log_l:.3g}). One of the two is wrong: report this with the model, and trust neither."
    )


def _above(value: float | None, log_bound: float) -> bool:
    return value is not None and value > 0 and math.log10(value) > log_bound + math.log10(1 + _SLACK)


def _no_gradient(audit: Audit) -> str | None:
    gradient = audit.gradient
    if gradient is None or gradient.used or not gradient.reason or audit.settings.method != "auto":
        return None
    return f"Values are from forward passes, for the graph was not differentiated: {gradient.reason}."


def _disagree(audit: Audit) -> str | None:
    gradient = _used(audit)
    ratio = None if gradient is None else gradient.cross_check_ratio
    if gradient is None or ratio is None or 1 / _CROSS_CHECK <= ratio <= _CROSS_CHECK:
        return None
    return (
        f"On {gradient.cross_checked} samples the sketch of the file reads {ratio:.3g} times what its gradients say, beyond the "
        "sketch's interval: the function is not smooth at the step, its gradients are masked, or a derivative is wrong. Trust neither "
        "before looking at the curve of values by step."
    )


def _is_surrogate(audit: Audit) -> bool:
    gradient = _used(audit)
    return gradient is not None and gradient.surrogate


def _surrogate(audit: Audit) -> str | None:
    if not _is_surrogate(audit):
        return None
    return "The file is quantised; values are those of a clip surrogate (rounding left out, weights dequantised), not of the file itself."


def _attack_failed(audit: Audit) -> str | None:
    attack = audit.attack
    if attack is None or not attack.failed:
        return None
    return (
        f"On {attack.failed} of {attack.samples} samples no attack succeeded. Where gradients are masked, that says nothing of "
        "robustness (Croce & Hein 2020): compare with the sketch and with random starts."
    )


def _attack_far(audit: Audit) -> str | None:
    attack = audit.attack
    if attack is None or attack.norm != "l2" or not attack.units.startswith("model"):
        return None
    pairs = [(s.attack_distance.value, s.boundary_distance.value) for s in audit.samples if s.attack_distance is not None]
    far = sum(1 for reached, distance in pairs if reached and distance and reached > _FAR * distance)
    if far <= 0.1 * attack.samples:
        return None
    return (
        f"On {far} samples the attack needed more than ten times the first-order boundary distance: the local slope does not reach "
        "far there, or the attack is weak."
    )


CHECKS = (
    Check("bound-violated", "error", "Values lie above the upper bound from the weights", _bound_violated, _no_bound),
    Check("no-gradient", "note", "The graph was not differentiated", _no_gradient),
    Check(
        "gradient-sketch-disagree", "error", "Gradients and the sketch of the file disagree", _disagree, _no_gradients,
        milder=_is_surrogate,
    ),
    Check("surrogate", "warning", "Values are those of a surrogate of the file", _surrogate, _no_gradients),
    Check("attack-failed", "warning", "No attack succeeded on some samples", _attack_failed, _no_attack),
    Check("attack-far-from-boundary", "note", "Attacks went far beyond the first-order boundary", _attack_far, _no_attack),
)  # fmt: skip
