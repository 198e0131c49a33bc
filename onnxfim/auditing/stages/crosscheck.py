"""The cross-check: gradients against a sketch of the unmodified file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.instruments import differences, sketch_measurer
from onnxfim.auditing.stages import as_found, stage
from onnxfim.record.sample import SampleResult, estimate_of
from onnxfim.runtime.rows import Rademacher
from onnxfim.slopes.differences import is_finite

_DIRECTIONS = 32  # its interval is as wide as that leaves it, and a wrong rule is off by more


@stage("checking against the sketch", instead=as_found)
def cross_check(ground: Ground, found: Found) -> Found:
    """Sketch the calibration samples that are not kinked, and compare: their ratios to the gradients' values, 1 where held."""
    ground.say("checking against the sketch")
    results = found.results
    sketched = sketch_measurer(ground)
    measure = "lambda_max" if ground.spread is None else "lambda_max_standardised"
    jacobian = differences(ground, Rademacher(ground.settings.seed), ground.step)
    # At a kink both are right and differ: the sketch averages the two one-sided slopes.
    wanted = {i: p for p, r in results.items() if (i := r.index) in ground.step.samples and r.lambda_max.kind != "kinked"}
    requests = [ground.request(p, 0, _DIRECTIONS) for _, p in sorted(wanted.items()) if _value(results[p], measure) > 0]
    ratios = {}
    for ends in jacobian.ends(ground.X, ground.base, requests):
        if not is_finite(ends):
            continue
        position = ends.request.sample.position
        sketch = estimate_of(sketched(ends.request.sample, ground.base[position], [ends]), measure)
        exact = _value(results[position], measure)
        if sketch is None or sketch.value is None or sketch.low is None or sketch.high is None or not exact:
            continue
        ratios[ends.request.sample.index] = 1.0 if sketch.low <= exact <= sketch.high else sketch.value / exact
    return with_ratios(replace(found, ratios=ratios))


def with_ratios(found: Found) -> Found:
    """What was found, with what its ratios say of the derivative."""
    # The median: single samples at a kink may differ, a wrong rule shows on most.
    ratio = float(np.median(list(found.ratios.values()))) if found.ratios else None
    return replace(found, gradient=replace(found.gradient, cross_checked=len(found.ratios), cross_check_ratio=ratio))


def _value(result: SampleResult, measure: str) -> float:
    found = estimate_of(result, measure)
    return 0.0 if found is None or found.value is None else found.value
