"""Models that have no sensitivity at a point: why there is none, and results that say so."""

from __future__ import annotations

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.instruments import measurer
from onnxfim.auditing.stages import stage
from onnxfim.graph.quantised import computes_in_half, rounding_operators
from onnxfim.record.audit import GradientInfo
from onnxfim.record.sample import Estimate
from onnxfim.slopes.staircase import only_jumps

_JUMPS = "the outputs do not change for small steps, and jump for larger ones: a step function"
_NOISE = 1e-6  # of repeated calls: what jumps by chance is no step function


def why_unmeasurable(ground: Ground) -> str | None:
    """Why no value may be given, or None: rows that depend on their neighbours, or outputs that are a step function."""
    rows = ground.rows
    if rows is not None and rows.dependent:
        return "the answer to a row depends on its neighbours in the batch: the model is no function of one input"
    if ground.subject.info.no_slope is not None:
        return f"the outputs do not change for small steps: a step function ({ground.subject.info.no_slope})"
    return _JUMPS if no_slope_seen(ground) else None


def no_slope_seen(ground: Ground) -> bool:
    """Whether the ladder of steps shows a step function.

    A file that quantises, or computes in 16 bits, rounds, and stands for a function with a slope; a step that was asked for is
    taken as it is.
    """
    file = ground.subject.file
    if file is not None and (rounding_operators(file.proto) or computes_in_half(file.proto)):
        return False
    return not ground.step.given and ground.step.repeat_noise <= _NOISE and only_jumps(ground.step.curve)


@stage("telling why there is no value")
def without_values(ground: Ground, reason: str) -> Found:
    """Results of all audited samples that hold predictions, and the reason in place of every value."""
    build = measurer(ground, exact=False)
    none = Estimate(None, reason=reason)
    results = {
        i: build.result(
            ground.sample(i), ground.base[i], lambda_max=none, calibrated=none, standardised=none, raw_units=None, trace=none,
            boundary_distance=none, logit_sensitivity=none, eigenvalues=(), evaluations=1, directions=0,
        )
        for i in ground.clean.audited.tolist()
    }  # fmt: skip
    gradient = GradientInfo(False, reason, False, None, None, 0, None)
    return Found("sketch", gradient, results, ground.clean.skipped)
