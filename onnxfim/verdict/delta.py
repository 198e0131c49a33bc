"""What deployment did: the second of two audits against the first, each change with a paired interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.deployment import Change, ClassFlip, Deployment, MovedOutput, Outcomes
from onnxfim.record.sample import estimate_of
from onnxfim.record.settings import OUTPUT_FAMILIES
from onnxfim.verdict.paired import (
    difference_of_shares,
    geometric_mean_of_ratios,
    mcnemar,
    mean_difference,
    reading,
    signed_ranks,
)
from onnxfim.verdict.pairs import columns_of, is_paired, lead_measure, same_step
from onnxfim.verdict.ratio import Column, moved, share
from onnxfim.verdict.shared_temperature import at_one_temperature
from onnxfim.verdict.signed_ranks import EQUAL
from onnxfim.verdict.usual_ratio import usual_ratio

Array: TypeAlias = np.ndarray[Any, Any]

_MOST_MOVED, _MOST_FLIPS = 10, 10
_BOUNDS = ("lower bound", "upper bound")
_SAVED = "saved audits hold no outputs: give the model files to compare these"
_UNDECIDED = "the outputs are no classes, or have several positions"
_RANKS = "Wilcoxon's signed ranks"
_CALIBRATED, _RAW, _STANDARDISED = "lambda_max_calibrated", "lambda_max", "lambda_max_standardised"


def deployment(
    audits: Sequence[Audit], names: Sequence[str], outputs: Sequence[MovedOutput] | None = None, *, evaluations: int = 0
) -> Deployment:
    """The second audit against the first.

    Args:
        audits: Two that compare, the trained model's first.
        names: What to call them.
        outputs: Both models' outputs on the samples, where they are at hand; else the audits' own predictions are compared.
        evaluations: Forward passes that these took.
    """
    first, second = audits
    both = list(outputs) if outputs is not None else _predictions(first, second)
    known = [m for m in both if m.first is not None and m.second is not None]
    same = _identical(first, second, both, outputs is not None)
    accuracy, outcomes = _accuracy(known, same)
    lead = lead_measure(first, second)
    return Deployment(
        first=names[0],
        second=names[1],
        providers=(first.run.provider, second.run.provider),
        identical=same,
        scale=_scale(first, second),
        accuracy=accuracy,
        agreement=_agreement(known, same),
        divergence=_distance(both, "total_variation", first, outputs is not None),
        kl=_distance(both, "kl", first, outputs is not None),
        sensitivity=_ratio(audits, lead if lead == _STANDARDISED else _CALIBRATED),
        sensitivity_raw=_ratio(audits, _RAW),
        flip_radius=_flip_radius(first, second),
        outcomes=outcomes,
        flips=_flips(known, first),
        moved=_moved(both),
        evaluations=evaluations,
    )


def _predictions(first: Audit, second: Audit) -> list[MovedOutput]:
    """The samples that both audited, as far as saved audits know them."""
    there = {s.index: s for s in second.samples}
    return [
        MovedOutput(s.index, s.name, s.label, s.prediction, there[s.index].prediction)
        for s in first.samples
        if s.index in there
    ]  # fmt: skip


def _identical(first: Audit, second: Audit, outputs: Sequence[MovedOutput], compared: bool) -> bool:
    """Whether the two are one model: the same file on the same provider, with the same outputs on every sample."""
    if first.model.sha256 != second.model.sha256 or first.run.provider != second.run.provider or not outputs:
        return False
    return all(m.first == m.second and (not compared or m.total_variation in (0.0, None)) for m in outputs)


def _scale(first: Audit, second: Audit) -> str:
    """At which scale the two were measured."""
    if first.run.method == second.run.method == "gradient":
        return "by the derivative of the graph in both, at no step"
    if not same_step(first, second):
        return (
            f"at step {first.run.step:.3g} ({first.run.scheme}) and at step {second.run.step:.3g} ({second.run.scheme}), both on a "
            "plateau"
        )
    relative = second.run.step / second.step.input_std if second.step.input_std else math.nan
    shared = "along the same directions" if is_paired(first, second) else "along different directions"
    deviations = f", {relative:.3g} standard deviations of the inputs" if math.isfinite(relative) else ""
    return f"at one step in both, {second.run.step:.3g} per coordinate{deviations}, by {second.run.scheme} differences {shared}"


def _none(reason: str, form: Any = "ratio") -> Change:
    return Change(None, None, Aggregate(None, None, None, 0.0, "not measured"), form, "not known", 0, reason=reason)


def _still(a: Aggregate) -> Aggregate:
    """A change of which it is known that there is none."""
    return Aggregate(a.value, a.value, a.value, 0.95, "the same file on the same provider")


def _accuracy(known: Sequence[MovedOutput], same: bool) -> tuple[Change, Outcomes | None]:
    labelled = [m for m in known if m.label is not None]
    if not labelled:
        reason = "no labels were given" if known else _UNDECIDED
        return _none(reason, "difference"), None
    right = Counter((m.first == m.label, m.second == m.label) for m in labelled)
    found = Outcomes(right[True, True], right[True, False], right[False, True], right[False, False])
    n = len(labelled)
    change = difference_of_shares(found.only_first, found.only_second, n)
    first, second = (found.both_right + found.only_first) / n, (found.both_right + found.only_second) / n
    if same:
        return Change(first, second, _still(change), "difference", "identical", n, 1.0, "McNemar's exact test"), found
    p = mcnemar(found.only_first, found.only_second)
    return Change(first, second, change, "difference", reading(change, 0.0), n, p, "McNemar's exact test"), found


def _agreement(known: Sequence[MovedOutput], same: bool) -> Change:
    if not known:
        return _none(_UNDECIDED, "share")
    agree = sum(m.first == m.second for m in known)
    found = share(agree, len(known))
    if same:
        return Change(None, None, _still(found), "share", "identical", len(known))
    # That some predictions changed is seen, not inferred; that none did on these samples is no proof for others.
    return Change(None, None, found, "share", "fell" if agree < len(known) else "no change shown", len(known))


def _distance(outputs: Sequence[MovedOutput], what: str, audit: Audit, compared: bool) -> Change:
    """The mean distance of the outputs."""
    if not compared:
        return _none(_SAVED, "difference")
    family = OUTPUT_FAMILIES[audit.model.output_kind]
    if family != OUTPUT_FAMILIES["logits"]:
        return _none(f"outputs are {family}, no class probabilities", "difference")
    values = np.array([v for m in outputs if (v := getattr(m, what)) is not None])
    if len(values) == 0:
        return _none(
            "no output is finite in both models" if what != "kl" else "the second model gives 0 where the first does not",
            "difference",
        )
    missing = len(outputs) - len(values)
    found = mean_difference(values)
    if found.low is not None:
        found = Aggregate(found.value, max(found.low, 0.0), found.high, found.confidence, found.method)
    note = f"{missing} of {len(outputs)} samples have none" if missing else ""
    still = not values.any()
    return Change(0.0, None, found, "difference", "no change shown" if still else "rose", len(values), note=note)


def _flips(known: Sequence[MovedOutput], audit: Audit) -> tuple[ClassFlip, ...]:
    names = audit.data.class_names

    def name(c: int) -> str:
        return names[c] if names is not None and c < len(names) else str(c)

    pairs = Counter((m.first, m.second) for m in known if m.first != m.second)
    of = Counter(m.first for m in known)
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:_MOST_FLIPS]
    return tuple(ClassFlip(a, b, name(a), name(b), n, of[a]) for (a, b), n in ordered if a is not None and b is not None)


def _moved(outputs: Sequence[MovedOutput]) -> tuple[MovedOutput, ...]:
    """The samples whose outputs moved most; those without outputs by whether their prediction changed."""

    def size(m: MovedOutput) -> tuple[float, bool]:
        return m.total_variation or 0.0, m.first != m.second

    ordered = sorted(outputs, key=lambda m: (tuple(-x for x in size(m)), m.index))
    return tuple(m for m in ordered[:_MOST_MOVED] if size(m) > (0.0, False))


def _ratio(audits: Sequence[Audit], measure: str) -> Change:
    """The geometric mean of the samples' ratios of a measure of lambda_max."""
    first, second = audits
    then, now = columns_of(audits, measure)
    if not len(then.values) or not len(now.values):
        return _none(_why_none(first, second, measure))
    indices, at_then, at_now = np.intersect1d(then.indices, now.indices, return_indices=True)
    pairs = _kinds(first, second, measure, indices)
    positive = (then.values[at_then] > 0) & (now.values[at_now] > 0)
    good = positive & ~pairs
    if not good.any():
        if pairs.any():
            return _none("the values are bounds, not estimates: a ratio of bounds says nothing")
        return _none("no sample has a value above 0 in both models")
    then, now = then.at(at_then[good]), now.at(at_now[good])
    shared = at_one_temperature(then, now, first.calibration, second.calibration) if measure == _CALIBRATED else None
    note = ""
    if shared is not None:
        now, note = replace(now, values=shared.values), f"both at the first model's temperature, {shared.temperature:.3g}"
    elif measure == _CALIBRATED:
        note = "each at its own temperature, whose errors are in the interval"
    logs = np.log(now.values) - np.log(then.values)
    if np.abs(logs).max() <= EQUAL:
        value = Aggregate(1.0, 1.0, 1.0, 0.95, "all samples are equal")
        return Change(*_means(then, now), value, "ratio", "identical", len(logs), 1.0, _RANKS, share(0, len(logs)))
    error = None if shared is None else shared.error
    found = usual_ratio((first, second), (then, now), logs, measure, temperature=error).ratio
    lost = len({*(s.index for s in first.samples)} | {*(s.index for s in second.samples)}) - len(logs)
    left_out = f"{lost} samples without a value in both are left out" if lost else ""
    rose, _ = moved(now.values, then.values)
    return Change(
        *_means(then, now), found, "ratio", reading(found, 1.0), len(logs), signed_ranks(logs), _RANKS,
        share(rose, len(logs)), note="; ".join(filter(None, (note, left_out))),
    )  # fmt: skip


def _means(then: Column, now: Column) -> tuple[float, float]:
    """Geometric means of both."""
    return tuple(float(np.exp(np.log(c.values).mean())) for c in (then, now))  # type: ignore[return-value]


def _why_none(first: Audit, second: Audit, measure: str) -> str:
    for audit in (first, second):
        for s in audit.samples:
            estimate = estimate_of(s, measure)
            if estimate is not None and estimate.value is None and estimate.reason:
                return f"{audit.model.name}: {estimate.reason}"
    return "no sample has a value in both models"


def _kinds(first: Audit, second: Audit, measure: str, indices: Array) -> Array:
    """Which samples have a bound in place of an estimate, in either audit, (n,)."""
    bounds = [
        {s.index for s in a.samples if (e := estimate_of(s, measure)) is not None and e.kind in _BOUNDS} for a in (first, second)
    ]
    return np.array([int(i) in bounds[0] or int(i) in bounds[1] for i in indices], bool)


def _flip_radius(first: Audit, second: Audit) -> Change:
    if not (first.decides and second.decides):
        return _none(_UNDECIDED)
    if first.run.method != second.run.method:
        return _none(f"looked for along other directions ({first.run.method} and {second.run.method}): radii of one method compare")
    radii = [{s.index: s.flip_radius for s in a.samples if s.flip_radius is not None} for a in (first, second)]
    shared = sorted(radii[0].keys() & radii[1].keys())
    if not shared:
        return _none("was not looked for")
    found = [i for i in shared if all((side[i].value or 0.0) > 0 for side in radii)]
    if not found:
        return _none(f"no flip was found in both models on any of {len(shared)} samples")
    then, now = (np.array([side[i].value for i in found], float) for side in radii)
    logs = np.log(now / then)
    only = [sum(bool(side[i].value) and not other[i].value for i in shared) for side, other in (radii, radii[::-1])]
    note = "of what was found in both: the smallest flips found, an upper bound of each distance"
    if any(only):
        note += f"; found in the first alone on {only[0]} samples, in the second alone on {only[1]}"
    means = float(np.exp(np.log(then).mean())), float(np.exp(np.log(now).mean()))
    if np.abs(logs).max() <= EQUAL:
        value = Aggregate(1.0, 1.0, 1.0, 0.95, "all samples are equal")
        return Change(*means, value, "ratio", "identical", len(logs), 1.0, _RANKS, share(0, len(logs)), note)
    change = geometric_mean_of_ratios(logs)
    rose, _ = moved(now, then)
    return Change(
        *means, change, "ratio", reading(change, 1.0), len(logs), signed_ranks(logs), _RANKS,
        share(rose, len(logs)), note,
    )  # fmt: skip
