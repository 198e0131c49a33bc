"""How the values were measured, in the words of the method that this very audit used."""

from __future__ import annotations

from collections import Counter

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.record.settings import OUTPUT_FAMILIES
from onnxfim.report import words
from onnxfim.report.numbers import count, short
from onnxfim.report.vocabulary import (
    ATTACK_SOURCES,
    BOUND_SOURCES,
    NOISE_SOURCES,
    SKETCH_SOURCES,
    SMOOTHING_SOURCES,
    SOURCES,
    TEMPERATURE_SOURCES,
    Source,
)
from onnxfim.verdict.guarantors import LOCAL

#: What the Fisher information is, by the family of the outputs.
_FISHER = {
    "class probabilities": "For logits z(x) and p = softmax(z), the Fisher information of the input is F = Jᵀ(diag(p) − ppᵀ)J with "
    "J = ∂z/∂x.",
    "sigmoid": "For scores z(x) and p = sigmoid(z), each output a yes or no of its own, the Fisher information of the input is "
    "F = Jᵀ diag(p(1 − p)) J with J = ∂z/∂x.",
    "gaussian": "For outputs y(x) read as the mean of a Gaussian of standard deviation σ, the Fisher information of the input is "
    "F = JᵀJ/σ² with J = ∂y/∂x.",
    "embedding": "For outputs y(x), scaled to length 1 and read as the mean of a Gaussian of standard deviation σ, the Fisher "
    "information of the input is F = JᵀJ/σ² with J = ∂y/∂x.",
    "detection": "For the scores z(x) of the boxes that are found and p = sigmoid(z), the Fisher information of the input is "
    "F = Jᵀ diag(p(1 − p)) J with J = ∂z/∂x.",
}
_MEASURED = {
    "gradient": "J was taken from derivative graphs that onnxfim wrote from the file's own nodes and ran on ONNX Runtime. They "
    "were first tested against the file.",
    "exact": "J was taken by finite differences of the file itself along all coordinates of the input: no direction was left out.",
    "sketch": "It was measured from forward passes of the file itself along random directions, with the delete-group jackknife "
    "correcting the bias and giving the interval.",
}


def method_sentences(audit: Audit) -> tuple[str, ...]:
    """What was computed and how, a paragraph each."""
    fisher = _FISHER[OUTPUT_FAMILIES[audit.model.output_kind]]
    what = (
        f"{fisher} Its largest eigenvalue λ_max says how fast, in the worst direction, the predicted distribution leaves "
        f"the one at x: KL(p(x) ‖ p(x+δ)) ≈ ½ δᵀFδ ≤ ½ λ_max ‖δ‖². Here it is {visible(audit.units)}."
    )
    return tuple(p for p in (what, _measured(audit), _also(audit)) if p)


def _measured(audit: Audit) -> str:
    method = audit.run.method
    found = Counter((s.lambda_max.kind, s.lambda_max.method) for s in audit.samples if s.lambda_max.value is not None)
    told = "; ".join(f"{count(n, 'value')} {kind}{f' ({visible(how)})' if how else ''}" for (kind, how), n in found.most_common())
    if audit.samples and not found:
        return "Nothing was measured: λ_max has a value on no sample, as the findings say."
    parts = [_MEASURED.get(method, f"Method: {visible(method)}.")]
    if method != "gradient" and audit.step.unchosen is None and audit.samples:
        parts.append(f"Differences were {visible(audit.run.scheme)} ones with the step r = {short(audit.run.step)} per coordinate.")
    if told:
        parts.append(f"Of λ_max: {told}.")
    gradient = audit.gradient
    if gradient is not None and gradient.used and gradient.cross_checked:
        parts.append(
            f"On {count(gradient.cross_checked, 'sample')} it was measured again, from forward passes along random directions."
        )
    return " ".join(parts)


def _also(audit: Audit) -> str:
    parts = []
    if words.has_calibrated(audit):
        given = "that was given" if audit.calibration.method == "given" else "fitted on the labels"
        parts.append(f"The calibrated value is the same quantity of the model at a temperature T {given}.")
    if any(s.flip_radius is not None for s in audit.samples):
        parts.append(
            "The flip radius was measured: each sample was moved along its worst direction, both ways, and towards the nearest "
            "boundary, until the prediction changed."
        )
    return " ".join(parts)


def sources(audit: Audit) -> tuple[Source, ...]:
    """Where the parts of the method that this audit used were published."""
    parts = (
        (TEMPERATURE_SOURCES, audit.calibration.temperature is not None),
        (SKETCH_SOURCES, audit.run.method == "sketch"),
        (ATTACK_SOURCES, audit.attack is not None),
        (BOUND_SOURCES, any(b.low_from.startswith(LOCAL) for s in audit.samples for b in s.bracket)),
        (NOISE_SOURCES, bool(audit.noise) or bool(audit.smoothing)),
        (SMOOTHING_SOURCES, bool(audit.smoothing)),
    )
    return (*SOURCES, *(source for found, used in parts if used for source in found))
