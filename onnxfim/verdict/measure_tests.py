"""The measures of two models on trial: distances, λ_max of a usual sample, λ_max on average; each over shared samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.record.special import ndtri, stdtrit
from onnxfim.verdict.decided import Question
from onnxfim.verdict.paired import geometric_mean_of_ratios
from onnxfim.verdict.ratio import Column
from onnxfim.verdict.shared_temperature import at_one_temperature
from onnxfim.verdict.signed_ranks import EQUAL, signed_ranks_of
from onnxfim.verdict.survival import wrong_without
from onnxfim.verdict.usual_ratio import usual_ratio

Array: TypeAlias = np.ndarray[Any, Any]

#: What each question has of the level. What was seen has most: it changes with no temperature, and orders models as attacks do.
WEIGHTS: dict[Question, float] = {"distance": 0.7, "boundary": 0.1, "log_lambda": 0.1, "mean_lambda": 0.1}
_SIGNED_RANKS = "signed ranks of paired log-ratios"
_STUDENT = "Student's test of paired log-ratios, the temperatures' errors included"
_MEANS = "paired bootstrap and Student's test of the log-ratio of means"
_TINY = 1e-300
_FEWEST = 7  # samples from which on signed ranks can reach the level


@dataclass(frozen=True)
class Trial:
    """One measure of a pair before any correction: ``better`` is 0 for the first audit, 1 for the second; ``logs`` of distances."""

    question: Question
    measure: str
    count: int
    ratio: Aggregate
    log: float
    p: float
    better: int | None
    test: str
    unfound: int = 0
    decides: bool = True
    note: str = ""
    logs: tuple[float, ...] = ()


def distance_measure(audits: Sequence[Audit], measure: str) -> str | None:
    """The measure of distance that all of them have: the flip radius along directions of one kind, else the boundary distance.

    Along sketched directions the flip radius is longer the more directions the sketch mixes, which differs between models: there
    the boundary distance is compared. Beside λ_max of standardised inputs there is none: a distance is that of the feature with the
    smallest unit.

    Args:
        audits: What is compared.
        measure: The measure of λ_max beside it.
    """
    if measure == "lambda_max_standardised":
        return None
    radii = all(any(s.flip_radius is not None for s in a.samples) and a.run.method != "sketch" for a in audits)
    if radii and len({a.run.method for a in audits}) == 1:
        return "flip_radius"
    if all(any(s.boundary_distance.value for s in a.samples) for a in audits):
        return "boundary_distance"
    return None


def distance_trial(
    first: Audit, second: Audit, measure: str, *, question: Question = "distance", slack: float = 0.0
) -> Trial | None:  # fmt: skip
    """How far the second model's predictions last against the first's, on the samples that both predict rightly.

    A wrong prediction is no robust one, however long it lasts. Where there are no labels, or hardly a sample that both predict
    rightly, all samples count.

    Args:
        slack: By how much the ratio's logarithm may be wrong for want of common units.
    """
    there = {s.index: s for s in second.samples}
    shared = [(s, there[s.index]) for s in first.samples if s.index in there]
    measured = [(one, other, d) for one, other in shared for d in _both(one, other, measure)]
    right = [d for one, other, d in measured if not wrong_without(one) and not wrong_without(other)]
    pairs = right if len(right) >= _FEWEST else [d for *_, d in measured]
    if not pairs:
        return None
    note = f"on the {len(pairs):,} samples that both predict rightly" if len(pairs) < len(measured) else ""
    if len(right) < len(pairs):
        note = f"both predict {len(right):,} of {len(pairs):,} samples rightly, too few: all count"
    with np.errstate(divide="ignore"):
        logs = np.array([0.0 if math.isinf(a) and math.isinf(b) else np.log(b) - np.log(a) for a, b in pairs])
    found = signed_ranks_of(logs, reach=slack)
    better = None if found.log == 0 and found.p >= 1 else int(found.log > 0 or (found.log == 0 and logs.mean() > 0))
    return Trial(
        question, measure, found.count, found.interval(), found.log, found.p, better, _SIGNED_RANKS,
        unfound=sum(math.isinf(a) or math.isinf(b) for a, b in pairs), note=note, logs=tuple(logs.tolist()),
    )  # fmt: skip


def _both(one: SampleResult, other: SampleResult, measure: str) -> Iterator[tuple[float, float]]:
    """The two distances; infinite where a search found no flip; nothing where one was not measured."""
    found = [_distance(getattr(s, measure), searched=measure == "flip_radius") for s in (one, other)]
    if all(d is not None and d > 0 for d in found):
        yield found[0], found[1]  # type: ignore[misc]


def _distance(estimate: Estimate | None, *, searched: bool) -> float | None:
    if estimate is None:
        return None
    return math.inf if estimate.value is None and searched else estimate.value


def tells_confidence(audits: Sequence[Audit], measure: str) -> bool:
    """Whether values change with confidence alone, so that they decide nothing where there are distances: raw ones of a softmax."""
    return measure == "lambda_max" and any(a.tempered for a in audits)


def log_trial(
    audits: tuple[Audit, Audit], columns: tuple[Column, Column], measure: str, *, slack: float = 0.0, decides: bool = True,
    note: str = "",
) -> Trial:  # fmt: skip
    """λ_max of a usual sample: the mean of the paired log-ratios, with the errors that all samples share.

    A sample that is 0 in one model alone counts as the largest change that was seen in its direction; one that is 0 in both as
    none.

    Args:
        audits: The first and the second.
        columns: Their values on the shared samples, in the same order.
        slack: By how much the log-ratio may be wrong for want of common units.
    """
    then, now = columns
    temperature = None
    if (one := _one_temperature(audits, columns)) is not None:
        (then, now), temperature = one
        note = "; ".join(filter(None, (note, "both at one temperature")))
    logs = _log_ratios(then.values, now.values)
    n = len(logs)
    if n < 2 or np.abs(logs).max() <= EQUAL:
        equal = n > 0 and np.abs(logs).max() <= EQUAL
        value = Aggregate(1.0, 1.0, 1.0, 0.95, "all samples are equal") if equal else geometric_mean_of_ratios(logs)
        return Trial("log_lambda", measure, n, value, 0.0, 1.0, None, _STUDENT, decides=decides, note=note)
    positive = np.flatnonzero((then.values > 0) & (now.values > 0))  # a value of 0 has no relative error
    u = usual_ratio(audits, (then.at(positive), now.at(positive)), logs, measure, temperature=temperature, slack=slack)
    p = student_p(abs(u.log) - (u.down if u.log > 0 else u.up), u.error, u.freedom, u.temperature)
    return Trial("log_lambda", measure, n, u.ratio, u.log, p, int(u.log < 0), _STUDENT, decides=decides, note=note)


def _one_temperature(
    audits: tuple[Audit, Audit], columns: tuple[Column, Column]
) -> tuple[tuple[Column, Column], float] | None:  # fmt: skip
    """Both columns at the temperature that is known better, and what its error leaves in the mean log-ratio.

    None where the other temperature differs from it by more than its own error: then each model keeps its own.
    """
    first, second = (a.calibration for a in audits)
    then, now = columns
    if then.shifted is None or now.shifted is None or min(then.values.min(), now.values.min()) <= 0:
        return None
    turned = (second.log_error or math.inf) < (first.log_error or math.inf)
    found = at_one_temperature(now, then, second, first) if turned else at_one_temperature(then, now, first, second)
    if found is None:
        return None
    other = replace(then if turned else now, values=found.values)
    return ((other, now) if turned else (then, other)), found.error


def _log_ratios(then: Array, now: Array) -> Array:
    """Logarithms of the ratios, (n,); a sample that is 0 in one alone has the largest change that was seen in its direction."""
    known = (then > 0) & (now > 0)
    logs = np.zeros(len(then))
    logs[known] = np.log(now[known]) - np.log(then[known])
    if known.any():
        logs[(then <= 0) & (now > 0)] = max(float(logs.max()), 0.0)
        logs[(now <= 0) & (then > 0)] = min(float(logs.min()), 0.0)
    return logs


def student_p(size: float, error: float, freedom: float, shared: float) -> float:
    """The level at which an interval of half-width ``√((t·error)² + (z·shared)²)`` just reaches ``size``: a two-sided p-value."""
    if size <= 0:
        return 1.0
    low, high = math.log(_TINY), 0.0
    for _ in range(60):
        middle = (low + high) / 2
        tail = math.exp(middle) / 2
        half = math.hypot(float(stdtrit(freedom, tail)) * error, float(ndtri(tail)) * shared)
        low, high = (middle, high) if half > size else (low, middle)
    return math.exp(high)


def mean_trial(measure: str, count: int, ratio: Aggregate, log: float, p: float, *, decides: bool = True, note: str = "") -> Trial:
    """λ_max on average, as the ratio of means was tested."""
    better = None if log == 0 else int(log < 0)
    return Trial("mean_lambda", measure, count, ratio, log, p, better, _MEANS, decides=decides, note=note)
