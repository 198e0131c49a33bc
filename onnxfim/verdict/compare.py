"""Compares several audits of the same samples: ranking, significant differences, movements, rank correlations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import InputError
from onnxfim.record.audit import Audit
from onnxfim.record.dates import report_date
from onnxfim.record.decision import Aggregate
from onnxfim.record.deployment import MovedOutput
from onnxfim.record.identity import Identity
from onnxfim.record.report_id import asked_of_several, report_id
from onnxfim.record.sample import carries_noise
from onnxfim.verdict.closed_test import adjusted
from onnxfim.verdict.common_units import in_common_units
from onnxfim.verdict.compared_distances import Medians, medians_of
from onnxfim.verdict.comparison import ClassMovement, Comparison, Entry, Pair, SampleValues
from onnxfim.verdict.correlation import correlations
from onnxfim.verdict.decided import Decision
from onnxfim.verdict.deciding import Place, decisions, ordered, rank_ends, relative_logs
from onnxfim.verdict.delta import deployment
from onnxfim.verdict.measure_tests import Trial, distance_measure, distance_trial, log_trial, mean_trial, tells_confidence
from onnxfim.verdict.pairs import (
    column,
    columns_of,
    differences,
    is_paired,
    lead_measure,
    measure_units,
    require_comparable,
    same_step,
    shared,
)
from onnxfim.verdict.ratio import Column, Ratio, moved, p_value, ratio_of_means, resamples, share

Array: TypeAlias = np.ndarray[Any, Any]

_REPLICATES = 2000
_LEVEL = 0.05


@dataclass(frozen=True)
class _Sides:
    """The shared samples of two audits, then and now, and the ratio of the second's mean to the first's.

    ``slack`` is by how much its logarithm may be wrong for want of common units.
    """

    then: Column
    now: Column
    paired: bool
    ratio: Ratio
    slack: float


def compare(
    audits: Sequence[Audit], *, measure: str | None = None, seed: int = 0, outputs: Sequence[MovedOutput] | None = None,
    evaluations: int = 0, baseline: str | None = None,
) -> Comparison:  # fmt: skip
    """Several audits of the same samples side by side.

    Args:
        audits: Two or more, of the same data; the first is the one that classes and samples move from. Where their models take the
            samples in different scalings, each with its own ``input_scale``, they are compared in raw units.
        measure: A measure of lambda_max to decide and rank by alone; None decides by the flip radius (the boundary distance where
            it was not looked for in all), lambda_max sample by sample, and its mean: calibrated where every audit has it, else raw.
        seed: Seed of the resampling.
        outputs: Of exactly two models, the outputs of both on the samples; without them their audits' predictions are compared.
        evaluations: Forward passes that these took.
        baseline: Name or path of the model that each other is tested against; None tests every pair.

    Returns:
        The comparison. ``pairs[k].decided`` says which of two is the more robust: the chance that anything decided is wrong is at
        most 2.5 %, over all pairs and measures together. Of exactly two audits it holds what the second, the deployed one, changed.

    Raises:
        InputError: fewer than two audits, audits that do not compare, or a baseline that is not one of them.

    Examples:
        >>> import onnxfim
        >>> samples = onnxfim.load_samples("digits.npz", "digits_resnet.onnx", limit=40)
        >>> settings = onnxfim.Settings(samples=40, replay=0)
        >>> files = ("digits_mlp.onnx", "digits_resnet.onnx")
        >>> audits = [onnxfim.audit(file, samples, settings=settings) for file in files]
        >>> comparison = onnxfim.compare(audits)
        >>> comparison.entries[comparison.pairs[0].decided.better].name
        'digits_resnet.onnx'
    """
    if len(audits) < 2:
        raise InputError(f"compare: {len(audits)} audit was given, expected two or more. Name another model or saved audit.")
    names = _names(audits)
    against = None if baseline is None else _baseline(audits, names, baseline)
    common = in_common_units(audits)
    given, audits = audits, common.audits
    distance_units, medians = medians_of(given, audits, converted=common.converted)
    for audit, name in zip(audits[1:], names[1:], strict=True):
        require_comparable(audits[0], audit, where=name)
    asked, measure = measure, measure or lead_measure(*audits)
    distance = distance_measure(audits, measure) if asked is None else None
    columns = columns_of(audits, measure)
    counts_of = lru_cache(maxsize=8)(lambda n: resamples(n, _REPLICATES, seed))
    places = [p for p in combinations(range(len(audits)), 2) if against is None or against in p]
    sides = {p: _sides(audits, columns, p, names, float(common.slack[p])) for p in places}
    p = {place: _p_of_means(s, counts_of) for place, s in sides.items()}
    trials = {place: _trials(audits, place, s, measure, distance, p[place]) for place, s in sides.items()}
    found = decisions(trials)
    means = [_mean(a, measure) for a in audits]
    logs = relative_logs(trials, len(audits), "log_lambda" if distance is None else "distance")
    by_means = distance is None or logs is None
    lowest = [-(m.value or 0.0) for m in means]
    scores = [(low,) if by_means or logs is None else (round(float(logs[i]), 9), low) for i, low in enumerate(lowest)]
    order, in_order = ordered(scores, found)
    relative = [None] * len(audits) if logs is None else [math.exp(log) for log in logs]
    pairs = _pairs(sides, p, found)
    shared_by_all = _common(columns)
    return Comparison(
        measure=measure,
        units=measure_units(audits[0], measure),
        data=audits[0].data.source,
        data_sha256=audits[0].data.sha256,
        count=len(shared_by_all),
        entries=tuple(
            _entry(a, i, names[i], means[i], medians[i], order, rank_ends(i, len(audits), found), relative[i])
            for i, a in enumerate(audits)
        ),
        order=tuple(order),
        pairs=pairs,
        classes=tuple(_classes(audits, columns, shared_by_all)),
        samples=_samples(audits[0], columns, shared_by_all),
        correlations=tuple(c for i, a in enumerate(audits) for c in correlations(a, i, counts_of)),
        differences=tuple(differences(a, given[0]) for a in given[1:]),
        notes=tuple(_notes(audits, names, measure, len(shared_by_all), common.note, in_order)),
        deployment=deployment(audits, names, outputs, evaluations=evaluations) if len(audits) == 2 else None,
        identity=_identity(audits, measure, seed),
        ranked_by=measure if by_means or distance is None else distance,
        baseline=against,
        distance_units=distance_units,
    )


def _identity(audits: Sequence[Audit], measure: str, seed: int) -> Identity:
    """Who the comparison is; without an id where one of the audits, from an older file, has none."""
    ids = [a.identity.report_id if a.identity is not None else "" for a in audits]
    if not all(ids):
        return Identity("", report_date())
    asked = asked_of_several(ids, measure=measure, seed=seed)
    return Identity(report_id(asked), report_date(), asked=asked)


def _baseline(audits: Sequence[Audit], names: Sequence[str], wanted: str) -> int:
    """The position of the audit of that name, with or without ``.onnx``, or of that file."""
    given, models = [a.model.path for a in audits], [a.model.name for a in audits]
    files = [Path(path).name for path in given]
    for told in (names, models, given, files, *([_short(n) for n in each] for each in (names, models, files))):
        if told.count(wanted) == 1:
            return list(told).index(wanted)
    raise InputError(f"baseline {wanted!r}: is none of the models compared, expected one of {', '.join(names)}. Name one of them.")


def _short(name: str) -> str:
    return name.removesuffix(".onnx")


def _names(audits: Sequence[Audit]) -> list[str]:
    """Model names; with the provider, or numbered, where two are the same."""
    found = [a.model.name or a.model.path for a in audits]
    placed = [f"{name} on {a.run.provider.removesuffix('ExecutionProvider')}" for name, a in zip(found, audits, strict=True)]
    found = [at if found.count(name) > placed.count(at) else name for name, at in zip(found, placed, strict=True)]
    return [f"{name} ({found[:i].count(name) + 1})" if found.count(name) > 1 else name for i, name in enumerate(found)]


def _mean(audit: Audit, measure: str) -> Aggregate:
    return audit.aggregates[measure].mean


def _sides(audits: Sequence[Audit], columns: Sequence[Column], place: Place, names: Sequence[str], slack: float) -> _Sides:
    i, j = place
    require_comparable(audits[i], audits[j], where=f"{names[i]} and {names[j]}")
    _, at_i, at_j = shared(columns[i], columns[j], where=f"{names[i]} and {names[j]}")
    now, then = columns[j].at(at_j), columns[i].at(at_i)
    paired = is_paired(audits[i], audits[j])
    ratio = ratio_of_means(now, then, paired=paired)
    ratio = replace(ratio, half=ratio.half + 2 * slack, half_here=ratio.half_here + 2 * slack)  # λ has a square of lengths in it
    return _Sides(then, now, paired, ratio, slack)


def _p_of_means(s: _Sides, counts_of: Callable[[int], Array]) -> float:
    """The p-value of equal means; the largest within the slack."""
    toward = math.copysign(min(2 * s.slack, abs(s.ratio.log)), s.ratio.log)
    if s.slack and abs(s.ratio.log) <= 2 * s.slack:
        return 1.0
    now = s.now.values * math.exp(-toward) if s.slack else s.now.values
    return p_value(now, s.then.values, counts_of(len(now)), temperature=s.ratio.temperature)


def _trials(
    audits: Sequence[Audit], place: Place, s: _Sides, measure: str, distance: str | None, p: float
) -> tuple[Trial, ...]:  # fmt: skip
    """The measures of a pair on trial, in the order in which they decide."""
    first, second = (audits[k] for k in place)
    lead = None if distance is None else distance_trial(first, second, distance, slack=s.slack)
    # Beside flips that were seen, the distance that slopes tell is a measure of its own.
    slopes = None
    if distance == "flip_radius":
        slopes = distance_trial(first, second, "boundary_distance", question="boundary", slack=s.slack)
    # Raw values tell confidence as well as robustness: where there are distances, they are told and decide nothing.
    decides = lead is None or not tells_confidence((first, second), measure)
    note = "" if decides else "raw values change with confidence alone"
    usual = log_trial((first, second), (s.then, s.now), measure, slack=2 * s.slack, decides=decides, note=note)
    mean = mean_trial(measure, len(s.now.values), s.ratio.interval(), s.ratio.log, p, decides=decides, note=note)
    return tuple(t for t in (lead, slopes, usual, mean) if t is not None)


def _pairs(sides: dict[Place, _Sides], p: dict[Place, float], found: dict[Place, Decision]) -> tuple[Pair, ...]:
    values = np.array(list(p.values()))
    corrected = adjusted(values, np.ones(len(values)))  # equal weights: Holm's procedure
    return tuple(
        Pair(
            first=place[0],
            second=place[1],
            count=len(s.now.values),
            paired=s.paired,
            ratio=s.ratio.interval(),
            ratio_here=s.ratio.interval_here(),
            p=p[place],
            p_holm=float(p_holm),
            significant=bool(p_holm < _LEVEL),
            worse=share(moved(s.now.values, s.then.values)[0], len(s.now.values)),
            better=share(moved(s.now.values, s.then.values)[1], len(s.now.values)),
            decided=found[place],
        )
        for (place, s), p_holm in zip(sides.items(), corrected, strict=True)
    )


def _entry(
    audit: Audit, i: int, name: str, mean: Aggregate, medians: Medians, order: Sequence[int], ranks: tuple[int, int],
    relative: float | None,
) -> Entry:  # fmt: skip
    groups = audit.aggregates
    return Entry(
        name=name,
        path=audit.model.path,
        sha256=audit.model.sha256,
        rank=order.index(i) + 1,
        rank_low=ranks[0],
        rank_high=ranks[1],
        mean=mean,
        raw=groups["lambda_max"].mean if "lambda_max" in groups else None,
        calibrated=groups["lambda_max_calibrated"].mean if "lambda_max_calibrated" in groups else None,
        boundary_distance=medians.boundary_distance,
        flip_radius=medians.flip_radius,
        certified_radius=medians.certified_radius,
        certified_radius_linf=medians.certified_radius_linf,
        accuracy=audit.calibration.accuracy,
        temperature=audit.run.temperature,
        step=audit.run.step,
        scheme=audit.run.scheme,
        method=audit.run.method,
        seed=audit.run.seed,
        provider=audit.run.provider,
        evaluations=audit.run.evaluations,
        log10_fisher_bound=None if audit.bound is None else audit.bound.log10_fisher,
        accuracy_low=audit.calibration.accuracy_low,
        accuracy_high=audit.calibration.accuracy_high,
        relative=relative,
    )


def _common(columns: Sequence[Column]) -> Array:
    """Indices of the samples that every audit measured, increasing."""
    found = columns[0].indices
    for other in columns[1:]:
        found = np.intersect1d(found, other.indices)
    return np.sort(found)


def _table(columns: Sequence[Column], common: Array) -> list[Column]:
    """The common samples of each audit, in their order."""
    found = []
    for c in columns:
        order = np.argsort(c.indices)
        found.append(c.at(order[np.searchsorted(c.indices, common, sorter=order)]))
    return found


def _samples(audit: Audit, columns: Sequence[Column], common: Array) -> tuple[SampleValues, ...]:
    values = np.array([c.values for c in _table(columns, common)])
    by_index = {s.index: s for s in audit.samples}
    return tuple(
        SampleValues(int(k), by_index[int(k)].name, by_index[int(k)].label, tuple(float(v) for v in values[:, n]))
        for n, k in enumerate(common)
    )


def _classes(audits: Sequence[Audit], columns: Sequence[Column], common: Array) -> Iterator[ClassMovement]:
    """Each class by label, or by the first audit's prediction where there are no labels."""
    table = _table(columns, common)
    by_index = {s.index: s for s in audits[0].samples}
    labelled = audits[0].data.labels
    keys = [by_index[int(k)].label if labelled else by_index[int(k)].prediction for k in common]
    names = audits[0].data.class_names
    for c in sorted({k for k in keys if k is not None}):
        mine = [t.at(np.flatnonzero([k == c for k in keys])) for t in table]
        if any(m.values.sum() <= 0 for m in mine):
            continue
        ratios = [
            ratio_of_means(mine[j], mine[0], paired=is_paired(audits[0], audits[j])).interval() for j in range(1, len(audits))
        ]
        name = names[c] if names is not None and c < len(names) else str(c)
        yield ClassMovement(c, name, len(mine[0].values), tuple(float(m.values.mean()) for m in mine), tuple(ratios))


def _notes(
    audits: Sequence[Audit], names: Sequence[str], measure: str, common: int, units: str, in_order: bool
) -> Iterator[str]:  # fmt: skip
    """Sentences that must be known before the numbers are compared."""
    if units:
        yield units
    if not in_order:
        yield "Decided pairs go in a circle, so that no order agrees with all of them: read the pairs, not the ranks."
    if tells_confidence(audits, measure):
        why = (
            "for want of labels in all audits" if all(a.reads_labels for a in audits) else "for labels tell nothing of such outputs"
        )
        yield (
            f"Raw values are compared, {why}: they change with the temperature of the softmax, so that a "
            "difference may be one of confidence alone."
        )
    yield from _attacked(audits)
    yield from _other_steps(audits, names)
    for audit, name in zip(audits, names, strict=True):
        if not audit.step.plateau:
            yield f"{name}: the values hold at a step of {audit.run.step:.3g} and are no local derivative."
        missing = len(audit.samples) - len(column(audit, measure).values)
        if missing:
            yield f"{name}: {missing} of {len(audit.samples)} samples {'has' if missing == 1 else 'have'} no value."
        if audit.run.partial:
            yield f"{name}: the audit was interrupted."
        if unsound := [f.id for f in audit.findings if f.level == "error"]:
            yield f"{name}: the audit is unsound ({', '.join(unsound)}): its values may mislead."
        if audit.data.synthetic:
            yield f"{name}: the inputs were drawn at random and describe no real input."
    if len({a.run.seed for a in audits if carries_noise(a.samples)}) > 1:
        yield "Seeds differ: the noise of the estimates is not shared, and intervals are wider than with the same seed."
    if common < 20:
        yield f"{common} samples are few: only large differences can be told."


def _attacked(audits: Sequence[Audit]) -> Iterator[str]:
    """That attacks, which may find shorter ways than what decides, decide nothing."""
    held = sum(a.attack is not None for a in audits)
    if held:
        of_all = "All" if held == len(audits) else f"{held} of {len(audits)}"
        yield (
            f"{of_all} audits hold an attack. Attacks decide nothing here: they may find shorter ways than the flip radius, and "
            "other differences. Read each report's attack beside the ranking."
        )


def _other_steps(audits: Sequence[Audit], names: Sequence[str]) -> Iterator[str]:
    """Models that were measured at other steps than the first, where any value hangs on its step."""
    first = audits[0]
    others = [(a, name) for a, name in zip(audits, names, strict=True) if not same_step(first, a)]
    if not others or not any(carries_noise(a.samples) for a in audits):
        return
    if len(others) == 1:
        audit, name = others[0]
        yield (
            f"{name} was measured at step {audit.run.step:.3g} ({audit.run.scheme}), {names[0]} at {first.run.step:.3g} "
            f"({first.run.scheme}); both are on a plateau."
        )
        return
    steps = sorted(a.run.step for a, _ in others)
    yield (
        f"{len(others)} models were measured at steps of {steps[0]:.3g} to {steps[-1]:.3g}, {names[0]} at {first.run.step:.3g}; "
        "all are on a plateau."
    )
