"""Checks of one way of measuring by another: weights, derivatives, the sketch, attacks."""

from __future__ import annotations

import math

import numpy as np

from onnxfim.record.audit import Audit, GradientInfo
from onnxfim.record.row_check import RowCheck
from onnxfim.verdict.findings.check import Check
from onnxfim.verdict.violations import ViolationTest, violations

_LEVEL = 0.01  # at which an audit whose bound holds is said to violate it
_DISAGREE = 1e-5  # of the outputs' scale, in calls of one shape: there rows go the same way through the kernels
_COARSE = 2e-3  # the same of files that compute in 16 bits
_SHAPED = 1e-3  # the same in calls of another shape
_HARMLESS = 0.05  # of what a step changes
_NEAR = 0.1  # of what a step changes: noise enters by its square, 1 % of a value
_DROWNED = 0.5  # the same, 25 %
_ROUNDING = 3e-6  # of the outputs' scale: float32 kernels for other shapes add in another order
_WRONG = 0.1  # of the outputs' scale: no rounding
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


def _no_rows(audit: Audit) -> str | None:
    return None if audit.rows is not None else "no batch of several rows could be tried"


def _used(audit: Audit) -> GradientInfo | None:
    return audit.gradient if audit.gradient is not None and audit.gradient.used else None


def _bound_violated(audit: Audit) -> str | None:
    bound = audit.bound
    if bound is None or not bound.available or bound.log10_lipschitz is None:
        return None
    log_fisher = math.inf if bound.log10_fisher is None else bound.log10_fisher
    tests = [ViolationTest(tuple(s.lambda_max for s in audit.samples), log_fisher)]
    if bound.of_what_was_read:
        tests.append(ViolationTest(tuple(s.logit_sensitivity for s in audit.samples), bound.log10_lipschitz))
    broken = sorted({k for test in tests for k in violations(test, level=_LEVEL / len(tests))})
    if not broken:
        return None
    return (
        f"On {len(broken)} samples (first: {audit.samples[broken[0]].index}) the measured sensitivity lies above the upper bound from "
        f"the weights (log10 L = {bound.log10_lipschitz:.3g}). One of the two is wrong: report this with the model, and trust neither."
    )


def _batch_dependent(audit: Audit) -> str | None:
    rows = audit.rows
    if rows is None or not rows.dependent or rows.neighbours is None:
        return None
    return (
        f"The same rows in a batch of {rows.rows} among other rows get other answers (rms difference {rows.neighbours:.3g} at outputs up "
        f"to {rows.scale:.3g}): the model is no function of one input, and no value is given. Look for a softmax or a normalisation "
        "over the batch axis, or BatchNormalization in training mode, and export the model for inference."
    )


def _rows_disagree(audit: Audit) -> str | None:
    rows = audit.rows
    if rows is None or rows.dependent or rows.apart:
        return None
    signal, coarse = difference_signal(audit), "16" in audit.model.input_dtype
    allowed = (_COARSE if coarse else _DISAGREE) * rows.scale
    # A call of another shape may add in another order: rounding, unless it is as large as what is measured.
    shaped = max(allowed, _SHAPED * rows.scale)
    if signal is not None:
        shaped = min(shaped, max(_HARMLESS * signal, _ROUNDING * rows.scale))
    same_shape = max(rows.identical, rows.neighbours or 0.0, rows.beside_moved or 0.0)
    if same_shape <= allowed and max(rows.alone or 0.0, rows.batches or 0.0) <= shaped:
        return None
    against = "" if signal is None else f", while a step changes an output by about {signal:.3g}"
    return (
        f"One row gets different answers with its place: by {rows.identical:.3g} among copies of itself in a batch of {rows.rows}"
        + ("" if rows.alone is None else f", by {rows.alone:.3g} alone")
        + ("" if rows.neighbours is None else f", by {rows.neighbours:.3g} among other rows")
        + ("" if not rows.beside_moved else f", by {rows.beside_moved:.3g} beside moved rows")
        + ("" if not rows.batches else f", by {rows.batches:.3g} in batches of {rows.batch_rows}")
        + f" (rms, at outputs up to {rows.scale:.3g}){against}. Scales of quantisation taken from the batch do this, and errors of a "
        "runtime; use one row a call (leave --batch out, or --batch 1) or another provider."
    )


def _rows_apart(audit: Audit) -> str | None:
    rows = audit.rows
    if rows is None or not rows.apart:
        return None
    moved = 0.0 if rows.neighbours is None else rows.neighbours
    return (
        "The file takes scales of quantisation from all rows of a batch, so that a row's answer depends on its neighbours: every row "
        "was given a call of its own, and values are those of the file at batch 1 (one row a call is slower than a batch). In a batch "
        f"of {rows.rows} the same rows among others differ by {moved:.3g} (rms, at outputs up to {rows.scale:.3g}); deployed so, its "
        "outputs carry that noise. --batch N audits it with N rows a call."
    )


def _near_noise(audit: Audit) -> str | None:
    rows, signal = audit.rows, difference_signal(audit)
    if rows is None or rows.dependent or not signal or audit.step.scheme == "dithered":  # which averages noise out
        return None
    floor = _floor(audit, rows)
    if floor <= _NEAR * signal or _rows_disagree(audit) is not None:
        return None
    return (
        f"A step changes an output by about {signal:.3g}, and the same rows differ by {floor:.3g} from call to call (rms of one output): "
        f"{floor / signal:.0%} of what is measured may be noise. Use a larger --step, or a provider that answers alike."
    )


def _floor(audit: Audit, rows: RowCheck) -> float:
    return max(rows.floor, audit.step.repeat_noise)


def _noise_is_smaller(audit: Audit) -> bool:
    signal = difference_signal(audit)
    return audit.rows is not None and signal is not None and _floor(audit, audit.rows) <= _DROWNED * signal


def _drowns_no_signal(audit: Audit) -> bool:
    """Whether rows disagree by less than what the differences measure."""
    rows, signal = audit.rows, difference_signal(audit)
    return rows is not None and (disagreement(rows) <= signal if signal is not None else disagreement(rows) <= _WRONG * rows.scale)


def disagreement(rows: RowCheck) -> float:
    """The largest rms difference of a row from itself."""
    return rows.floor


def difference_signal(audit: Audit) -> float | None:
    """Rms change of an output over a step, at the median of the samples; None where the values do not rest on differences."""
    if _used(audit) is not None or not audit.step.step:
        return None
    slopes = [s.logit_sensitivity.value for s in audit.samples if s.logit_sensitivity.value]
    outputs = max(audit.model.num_outputs * audit.model.positions, 1)
    return audit.step.step * float(np.median(slopes)) / math.sqrt(outputs) if slopes else None


def _no_gradient(audit: Audit) -> str | None:
    gradient = audit.gradient
    if gradient is None or gradient.used or not gradient.reason or audit.settings.method != "auto":
        return None
    return f"Values are from forward passes, for the graph was not differentiated: {gradient.reason}."


def _elsewhere(audit: Audit) -> str | None:
    gradient = _used(audit)
    if gradient is None or gradient.provider is None:
        return None
    return (
        f"Derivatives were taken on {gradient.provider}, outputs and predictions on {audit.run.provider}: {gradient.provider_reason}. No "
        "derivative rule is to blame. For values from the provider alone, use --method sketch."
    )


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
    if attack is None or attack.norm != "l2" or attack.units.startswith("raw"):
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
    Check("batch-dependent", "error", "Rows of a batch depend on each other", _batch_dependent, _no_rows),
    Check("rows-apart", "note", "Every row was given a call of its own", _rows_apart, _no_rows),
    Check("rows-disagree", "error", "One row gets different answers", _rows_disagree, _no_rows, milder=_drowns_no_signal),
    Check("differences-near-noise", "error", "Differences are not far above the noise", _near_noise, _no_rows, milder=_noise_is_smaller),
    Check("no-gradient", "note", "The graph was not differentiated", _no_gradient),
    Check("derivatives-elsewhere", "warning", "Derivatives are another provider's", _elsewhere, _no_gradients),
    Check(
        "gradient-sketch-disagree", "error", "Gradients and the sketch of the file disagree", _disagree, _no_gradients,
        milder=_is_surrogate,
    ),
    Check("surrogate", "warning", "Values are those of a surrogate of the file", _surrogate, _no_gradients),
    Check("attack-failed", "warning", "No attack succeeded on some samples", _attack_failed, _no_attack),
    Check("attack-far-from-boundary", "note", "Attacks went far beyond the first-order boundary", _attack_far, _no_attack),
)  # fmt: skip
