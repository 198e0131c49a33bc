"""Compares several audits of the same samples: ranking, significant differences, movements, rank correlations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
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
from onnxfim.verdict.comparison import ClassMovement, Comparison, Entry, Pair, SampleValues
from onnxfim.verdict.correlation import correlations
from onnxfim.verdict.delta import deployment
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
from onnxfim.verdict.ratio import Column, Ratio, holm, moved, p_value, ratio_of_means, resamples, share

Array: TypeAlias = np.ndarray[Any, Any]

_REPLICATES = 2000
_LEVEL = 0.05


@dataclass(frozen=True)
class _Sides:
    """The shared samples of two audits: their values and the ratio of the second's mean to the first's."""

    a: Array
    b: Array
    paired: bool
    ratio: Ratio


def compare(
    audits: Sequence[Audit], *, measure: str | None = None, seed: int = 0, outputs: Sequence[MovedOutput] | None = None,
    evaluations: int = 0,
) -> Comparison:  # fmt: skip
    """Several audits of the same samples side by side.

    Args:
        audits: Two or more, of the same data; the first is the one that classes and samples move from.
        measure: What to rank by; None takes the calibrated lambda_max where every audit has it, else the raw one.
        seed: Seed of the resampling.
        outputs: Of exactly two models, the outputs of both on the samples; without them their audits' predictions are compared.
        evaluations: Forward passes that these took.

    Returns:
        The comparison. A difference is significant where its p-value, corrected for the number of pairs (Holm), is below 5 %. Of
        exactly two audits it holds what the second, the deployed one, changed.

    Raises:
        InputError: fewer than two audits, or audits that do not compare.

    Examples:
        >>> import onnxfim
        >>> samples = onnxfim.load_samples("digits.npz", "digits_resnet.onnx", limit=40)
        >>> settings = onnxfim.Settings(samples=40, replay=0)
        >>> files = ("digits_resnet.onnx", "digits_resnet_softmax.onnx")
        >>> audits = [onnxfim.audit(file, samples, settings=settings) for file in files]
        >>> onnxfim.compare(audits).pairs[0].significant
        False
    """
    if len(audits) < 2:
        raise InputError(f"compare: {len(audits)} audit was given, expected two or more. Name another model or saved audit.")
    names = _names(audits)
    for audit, name in zip(audits[1:], names[1:], strict=True):
        require_comparable(audits[0], audit, where=name)
    measure = measure or lead_measure(*audits)
    columns = columns_of(audits, measure)
    counts_of = lru_cache(maxsize=8)(lambda n: resamples(n, _REPLICATES, seed))
    sides = {(i, j): _sides(audits, columns, i, j, names) for i, j in combinations(range(len(audits)), 2)}
    pairs = _pairs(sides, counts_of)
    means = [_mean(a, measure) for a in audits]
    order = sorted(range(len(audits)), key=lambda i: (means[i].value or 0.0, i))
    common = _common(columns)
    return Comparison(
        measure=measure,
        units=measure_units(audits[0], measure),
        data=audits[0].data.source,
        data_sha256=audits[0].data.sha256,
        count=len(common),
        entries=tuple(_entry(a, i, names[i], means[i], order, pairs) for i, a in enumerate(audits)),
        order=tuple(order),
        pairs=pairs,
        classes=tuple(_classes(audits, columns, common)),
        samples=_samples(audits[0], columns, common),
        correlations=tuple(c for i, a in enumerate(audits) for c in correlations(a, i, counts_of)),
        differences=tuple(differences(a, audits[0]) for a in audits[1:]),
        notes=tuple(_notes(audits, names, measure, len(common))),
        deployment=deployment(audits, names, outputs, evaluations=evaluations) if len(audits) == 2 else None,
        identity=_identity(audits, measure, seed),
    )


def _identity(audits: Sequence[Audit], measure: str, seed: int) -> Identity:
    """Who the comparison is; without an id where one of the audits, from an older file, has none."""
    ids = [a.identity.report_id if a.identity is not None else "" for a in audits]
    if not all(ids):
        return Identity("", report_date())
    asked = asked_of_several(ids, measure=measure, seed=seed)
    return Identity(report_id(asked), report_date(), asked=asked)


def _names(audits: Sequence[Audit]) -> list[str]:
    """Model names; with the provider, or numbered, where two are the same."""
    found = [a.model.name or a.model.path for a in audits]
    placed = [f"{name} on {a.run.provider.removesuffix('ExecutionProvider')}" for name, a in zip(found, audits, strict=True)]
    found = [at if found.count(name) > placed.count(at) else name for name, at in zip(found, placed, strict=True)]
    return [f"{name} ({found[:i].count(name) + 1})" if found.count(name) > 1 else name for i, name in enumerate(found)]


def _mean(audit: Audit, measure: str) -> Aggregate:
    return audit.aggregates[measure].mean


def _sides(audits: Sequence[Audit], columns: Sequence[Column], i: int, j: int, names: Sequence[str]) -> _Sides:
    require_comparable(audits[i], audits[j], where=f"{names[i]} and {names[j]}")
    _, at_i, at_j = shared(columns[i], columns[j], where=f"{names[i]} and {names[j]}")
    now, then = columns[j].at(at_j), columns[i].at(at_i)
    paired = is_paired(audits[i], audits[j])
    return _Sides(now.values, then.values, paired, ratio_of_means(now, then, paired=paired))


def _pairs(sides: dict[tuple[int, int], _Sides], counts_of: Any) -> tuple[Pair, ...]:
    p = np.array([p_value(s.a, s.b, counts_of(len(s.a)), temperature=s.ratio.temperature) for s in sides.values()])
    return tuple(
        Pair(
            first=i,
            second=j,
            count=len(s.a),
            paired=s.paired,
            ratio=s.ratio.interval(),
            ratio_here=s.ratio.interval_here(),
            p=float(plain),
            p_holm=float(corrected),
            significant=bool(corrected < _LEVEL),
            worse=share(moved(s.a, s.b)[0], len(s.a)),
            better=share(moved(s.a, s.b)[1], len(s.a)),
        )
        for ((i, j), s), plain, corrected in zip(sides.items(), p, holm(p), strict=True)
    )


def _entry(audit: Audit, i: int, name: str, mean: Aggregate, order: Sequence[int], pairs: Sequence[Pair]) -> Entry:
    below = above = 0
    for pair in pairs:
        if pair.significant and i in (pair.first, pair.second):
            rises = (pair.ratio.value or 1.0) > 1
            below += (pair.second == i) == rises
            above += (pair.second == i) != rises
    groups = audit.aggregates
    return Entry(
        name=name,
        path=audit.model.path,
        sha256=audit.model.sha256,
        rank=order.index(i) + 1,
        rank_low=1 + below,
        rank_high=len(order) - above,
        mean=mean,
        raw=groups["lambda_max"].mean if "lambda_max" in groups else None,
        calibrated=groups["lambda_max_calibrated"].mean if "lambda_max_calibrated" in groups else None,
        boundary_distance=groups["boundary_distance"].median if "boundary_distance" in groups else None,
        flip_radius=groups["flip_radius"].median if "flip_radius" in groups else None,
        accuracy=audit.calibration.accuracy,
        temperature=audit.run.temperature,
        step=audit.run.step,
        scheme=audit.run.scheme,
        method=audit.run.method,
        seed=audit.run.seed,
        provider=audit.run.provider,
        evaluations=audit.run.evaluations,
        log10_fisher_bound=None if audit.bound is None else audit.bound.log10_fisher,
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


def _notes(audits: Sequence[Audit], names: Sequence[str], measure: str, common: int) -> Iterator[str]:
    """Sentences that must be known before the numbers are compared."""
    if measure == "lambda_max" and any(a.tempered for a in audits):
        why = (
            "for want of labels in all audits" if all(a.reads_labels for a in audits) else "for labels tell nothing of such outputs"
        )
        yield (
            f"Raw values are compared, {why}: they change with the temperature of the softmax, so that a "
            "difference may be one of confidence alone."
        )
    for audit, name in zip(audits, names, strict=True):
        if not same_step(audits[0], audit):
            yield (
                f"{name} was measured at step {audit.run.step:.3g} ({audit.run.scheme}), {names[0]} at {audits[0].run.step:.3g} "
                f"({audits[0].run.scheme}); both are on a plateau."
            )
        if not audit.step.plateau:
            yield f"{name}: the values hold at a step of {audit.run.step:.3g} and are no local derivative."
        missing = len(audit.samples) - len(column(audit, measure).values)
        if missing:
            yield f"{name}: {missing} of {len(audit.samples)} samples have no value."
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
