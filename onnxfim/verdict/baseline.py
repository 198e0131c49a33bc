"""Compares an audit with a baseline on the same samples."""

from __future__ import annotations

import math

import numpy as np

from onnxfim.errors import SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.decision import BaselineComparison, Movement, Outcome, Scope, TypicalChange
from onnxfim.record.statistics import Z95
from onnxfim.verdict.advice import more_passes, more_samples
from onnxfim.verdict.pairs import columns_of, differences, is_paired, lead_measure, measure_units, require_comparable, shared
from onnxfim.verdict.ratio import Ratio, moved, ratio_of_means, share

_MOVEMENTS = 10
_SCOPES: dict[Scope, str] = {"samples": "on these samples", "population": "over such samples in general"}


def compare_to_baseline(
    audit: Audit, baseline: Audit, max_regression: float = 0.1, *, scope: Scope = "samples", measure: str | None = None
) -> BaselineComparison:
    """The ratio of the two means of lambda_max over the samples that both measured, what a usual sample says, and the verdict.

    Args:
        audit: What was measured now.
        baseline: What it is compared with; re-using its seed, step and scheme makes the pair a paired one.
        max_regression: Largest rise of the mean that passes: 0.1 for 10 %. A usual sample decidedly beyond it fails as well.
        scope: Decide about these very samples (only the estimates' noise is in the interval), or about the population that they
            were drawn from; the mean is carried by few samples, so that the latter takes many more of them.
        measure: ``lambda_max`` or ``lambda_max_calibrated``; None takes the calibrated one where both have it.

    Raises:
        InputError: the two do not compare (other data, units, classes, or a step at which one of them is not resolved).
        SettingsError: a regression that is negative or not finite.
    """
    from onnxfim.verdict.typical import typical_changes  # audits without a baseline need none of its tests

    if not (max_regression >= 0 and math.isfinite(max_regression)):
        raise SettingsError(f"max_regression: {max_regression} is not a share of 0 or more. Give 0.1 for 10 %.")
    where = f"baseline {baseline.model.name}"
    require_comparable(audit, baseline, where=where)
    measure = measure or lead_measure(audit, baseline)
    now, then = columns_of((audit, baseline), measure)
    indices, at_now, at_then = shared(now, then, where=where)
    now, then = now.at(at_now), then.at(at_then)
    a, b = now.values, then.values
    paired = is_paired(audit, baseline)
    ratio = ratio_of_means(now, then, paired=paired)
    decisive = ratio.interval_here() if scope == "samples" else ratio.interval()
    limit = 1 + max_regression
    verdict: Outcome = "inconclusive"
    if decisive.low is not None and decisive.high is not None:
        verdict = "fail" if decisive.low > limit else "pass" if decisive.high <= limit else "inconclusive"
    typical = typical_changes(audit, baseline, (now, then), measure, limit)
    beyond = tuple(t.name for t in typical if t.beyond)
    decided_by = (f"{measure}.mean",) if verdict == "fail" or (verdict == "pass" and not beyond) else beyond
    verdict = "fail" if beyond else verdict
    rose, fell = moved(a, b)
    names = {s.index: s.name for s in audit.samples}
    largest = np.argsort(-np.abs(a - b), kind="stable")[:_MOVEMENTS]
    return BaselineComparison(
        baseline=baseline.model.name,
        baseline_sha256=baseline.model.sha256,
        measure=measure,
        units=measure_units(audit, measure),
        count=len(indices),
        paired=paired,
        scope=scope,
        max_regression=max_regression,
        mean_baseline=float(b.mean()),
        mean_current=float(a.mean()),
        ratio=ratio.interval(),
        ratio_here=ratio.interval_here(),
        worse=share(rose, len(a)),
        better=share(fell, len(a)),
        differences=differences(audit, baseline),
        movements=tuple(
            Movement(int(indices[i]), names[int(indices[i])], float(b[i]), float(a[i])) for i in largest if a[i] != b[i]
        ),
        verdict=verdict,
        comparison=(
            f"mean {measure} now {float(a.mean())!r}, baseline {float(b.mean())!r}, ratio {decisive.value!r}, 95 % interval "
            f"{decisive.low!r} to {decisive.high!r} {_SCOPES[scope]}; allowed at most {limit!r}" + "".join(map(_unrounded, typical))
        ),
        advice=_advice(ratio, limit, paired, scope, audit, len(a)) if verdict == "inconclusive" else None,
        typical=typical,
        decided_by=decided_by,
    )


def _unrounded(t: TypicalChange) -> str:
    r = t.ratio
    return f"; {t.name} ratio {r.value!r}, 95 % interval {r.low!r} to {r.high!r}, p = {t.p!r} against {t.side} {t.limit!r}"


def _advice(ratio: Ratio, limit: float, paired: bool, scope: Scope, audit: Audit, count: int) -> str:
    """What would settle it: the baseline's own directions, more passes, or more samples."""
    distance = abs(ratio.log - math.log(limit))
    words = f"the ratio stays at {math.exp(ratio.log):.3g}"
    if ratio.temperature > 0 and Z95 * ratio.temperature >= 0.7 * (ratio.half_here if scope == "samples" else ratio.half):
        return "The interval is mostly the error of the fitted temperatures: pass more labelled samples, or compare raw values."
    if not paired and (scope == "samples" or ratio.half_here >= 0.5 * ratio.half):
        return "The interval is mostly noise of the estimates: audit with the baseline's --seed and --step, which takes it out."
    if scope == "samples":
        passes = more_passes(audit.settings.budget, distance, ratio.half_here, ratio.half_here, words)
        return passes or "The ratio is too close to the limit for any number of passes to tell: move the limit."
    return more_samples(count, distance, ratio.error, words, freedom=ratio.freedom)
