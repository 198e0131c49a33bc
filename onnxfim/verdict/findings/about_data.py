"""Checks of the data against the model: whether they are in the units that it was made for."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.record.data_info import ScalingCheck
from onnxfim.verdict.findings.check import Check

_LIFT = 0.1  # of the samples, that a change must set right
_CERTAIN = 0.01  # corrected for all changes that were tried
_PLAINLY = (0.15, 0.001)  # a lift and a probability that need no lower log-loss beside them
_LESS = 0.75  # of the log-loss, that may be left where the accuracy is lifted
_HALF = 0.5  # of the log-loss, that may be left where the accuracy only stays
_WON = 20.0  # nats over all samples, so that a few confident mistakes do not count
_STAYS = 0.03  # of the samples, that may be lost then
_TOLD_BY = 3  # samples of a class, that its accuracy is looked at
_SURE = (30.0, 100.0)  # nats of the median logit above the next: none of the trained classifiers at hand has more than 14


def _no_classes(audit: Audit) -> str | None:
    return None if audit.data.scaling is not None else "it needs real samples and outputs with classes"


def prefers_other_units(found: ScalingCheck) -> bool:
    """Whether the labels speak for a change of the inputs: by the accuracy, or by the likelihood where the accuracy stays."""
    if found.change is None or found.accuracy is None or found.accuracy_changed is None or found.p is None:
        return False
    if found.log_loss is None or found.log_loss_changed is None:
        return False
    lift = found.accuracy_changed - found.accuracy
    if lift >= _LIFT and found.p < _CERTAIN and found.log_loss_changed <= _LESS * found.log_loss:
        return True
    if lift >= _PLAINLY[0] and found.p < _PLAINLY[1]:
        return True
    won = (found.log_loss - found.log_loss_changed) * found.samples
    return lift >= -_STAYS and found.log_loss_changed <= _HALF * found.log_loss and won >= _WON


def _input_scaling(audit: Audit) -> str | None:
    found = audit.data.scaling
    if found is None:
        return None
    if prefers_other_units(found):
        return (
            f"{found.change}: so changed, {found.accuracy_changed:.1%} of {found.samples} samples are right instead of "
            f"{found.accuracy:.1%} (log-loss {found.log_loss_changed:.3g} instead of {found.log_loss:.3g} nats). The values here describe "
            f"the model outside its units. Use {found.options}."
        )
    if found.contradiction is not None:
        return (
            f"The inputs do not fit the file: {found.contradiction}. Give them in the units that the file takes: see --mean, --std and "
            "--input-range."
        )
    if found.margin is not None and found.margin > _SURE[0]:
        return (
            f"On half of the samples the predicted class stands {found.margin:.3g} nats above the next, which is surer than trained "
            f"classifiers are: inputs from {audit.data.input_min:.4g} to {audit.data.input_max:.4g} may be too large for the model. "
            "Check --mean, --std and --input-range."
        )
    return None


def _less_certain(audit: Audit) -> bool:
    """Whether only the size of the logits speaks, and not beyond all doubt, or the labels say that the model answers well."""
    found = audit.data.scaling
    if found is None or prefers_other_units(found):
        return False
    if found.contradiction is not None:
        return audit.calibration.accuracy is not None and audit.calibration.accuracy >= 0.5
    return found.margin is not None and found.margin <= _SURE[1]


def _unchecked(audit: Audit) -> str | None:
    found = audit.data.scaling
    if found is None or found.unchecked is None:
        return None
    return (
        f"Whether the labels prefer the inputs in other units was not tried: {found.unchecked}. Audit more samples, or see that --mean, "
        "--std and --input-range are those of the training."
    )


def _class_order(audit: Audit) -> str | None:
    data = audit.data
    if not data.classes_guessed or data.class_names is None or not audit.reads_labels:
        return None
    counted = [c for c in audit.classes if c.count >= _TOLD_BY and c.accuracy is not None]
    # A class at another's place is hardly ever predicted there.
    if counted and all((c.accuracy or 0.0) > 0.5 for c in counted):
        return None
    names = data.class_names
    listed = ", ".join(names[:6]) + ", …" * (len(names) > 6)
    return (
        f"The labels are words that nobody gave an order, and are numbered as the alphabet has them ({listed}): where the model was trained "
        "with another order, accuracy and calibrated values here are wrong. Name the classes in the model's order with --class-names."
    )


CHECKS = (
    Check("input-scaling", "error", "The inputs are not in the model's units", _input_scaling, _no_classes, _less_certain),
    Check("class-order", "warning", "The order of the classes is a guess", _class_order),
    Check("scaling-untried", "note", "The usual scalings of the inputs were not tried", _unchecked, _no_classes),
)
