"""Makes one audit of a plan's shards: statistics, findings and verdict are computed anew from all samples in the data's order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from onnxfim.auditing.context import Found
from onnxfim.auditing.meter import Report
from onnxfim.auditing.pictures import at_ends, ranking
from onnxfim.auditing.run import Model
from onnxfim.auditing.stages import against_surrogate, conclusion, crosscheck
from onnxfim.auditing.stages.replay import replayed
from onnxfim.auditing.tied_samples import with_kinks
from onnxfim.data import Samples
from onnxfim.errors import InputError
from onnxfim.fleet.measuring_shards import PlannedWork
from onnxfim.record.audit import Audit, GradientInfo
from onnxfim.record.dates import report_date
from onnxfim.record.plan import Plan
from onnxfim.record.running import MISSING_SHARDS, UNSHARDED, FailedStage, Run
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.record.shard import Shard
from onnxfim.runtime.stopping import Stop
from onnxfim.slopes.step import QUANTISERS
from onnxfim.verdict.judge import judge

_LOOKED_OVER = "looking over all samples"
_NAMED = 10  # samples in a message


class Missing(InputError):
    """Samples of a plan of which there is no result.

    Attributes:
        indices: Which they are.
        parts: Shards that are missing, i of n, where all that are there are of one n.
    """

    def __init__(self, message: str, indices: tuple[int, ...], parts: tuple[tuple[int, int], ...]) -> None:
        super().__init__(message)
        self.indices, self.parts = indices, parts


@dataclass(frozen=True)
class Union:
    """What the shards of a plan hold together.

    Attributes:
        results: Of all samples, in the order of the data.
        skipped: Samples that could not be measured.
        missing: Indices of samples of which there is nothing.
        shards: Those that were taken; repeated ones are left out.
    """

    results: tuple[SampleResult, ...]
    skipped: tuple[Skipped, ...]
    missing: tuple[int, ...]
    shards: tuple[Shard, ...]


def merge(
    plan: Plan, shards: Sequence[Shard], *, finish: tuple[Model, Samples] | None = None, partial: bool = False,
    progress: Report | None = None, stop: Stop | None = None,
) -> Audit:  # fmt: skip
    """The audit that one process would have made of all samples, times apart.

    Args:
        plan: The plan.
        shards: What was measured, in any order; repeated shards are taken once.
        finish: The model and its samples, for what looks at all results and at the model again: KL curves of ``replay``,
            attacks, the check against a surrogate. None leaves them out, and the audit says so.
        partial: Make an audit of what is there; samples that are missing are listed as skipped.
        progress, stop: As for `onnxfim.audit`.

    Raises:
        Missing: there is no result of some samples.
        InputError: shards of another plan, or that contradict each other.
    """
    started = time.perf_counter()
    union = united(plan, shards)
    if union.missing and not partial:
        raise _missing(plan, union)
    draft, results = plan.audit, {r.index: r for r in union.results}
    gradient = _gradient(plan, union)
    found = crosscheck.with_ratios(
        Found("gradient", gradient, ratios=dict(sorted(pair for s in union.shards for pair in s.ratios)))
    ) if plan.way == "gradient" and draft.step.unchosen is None else Found("sketch", gradient)  # fmt: skip
    passes, failed = 0, _union(s.failed_stages for s in union.shards)
    targets = looked_at(draft, union.results)
    if targets and finish is not None:
        with PlannedWork(plan, *finish, progress=progress) as work:
            over, passes = work.look_over(union.results, targets, stop=stop)
        results |= {r.index: r for r in over.results.values()}
        gradient = found.gradient
        found = replace(over, gradient=replace(gradient, check=over.gradient.check, no_check=over.gradient.no_check))
        failed = _union([failed, work.failed_stages])
    elif targets:
        why = "the model was not given to the merge, which replays, attacks and checks where all results are"
        failed = (*failed, FailedStage(_LOOKED_OVER, "Missing", why))
    samples = tuple(results[i] for i in sorted(results))
    missing = tuple(Skipped(i, UNSHARDED) for i in union.missing)
    run = replace(
        draft.run,
        evaluations=draft.run.evaluations + sum(s.evaluations for s in union.shards) + passes,
        seconds=draft.run.seconds + sum(s.seconds for s in union.shards) + time.perf_counter() - started,
        failed_stages=failed,
        restarts=_union((draft.run.restarts, *(s.restarts for s in union.shards))),
        partial=bool(union.missing),
        interrupted_by=MISSING_SHARDS if union.missing else None,
        times=_times(draft.run, union),
    )
    identity = None if draft.identity is None else replace(draft.identity, date=report_date())
    whole = replace(draft, run=run, gradient=found.gradient, identity=identity)
    shown = at_ends(ranking(samples))
    pictures = {t.index: t for s in union.shards for t in s.thumbnails}
    return judge(
        replace(
            whole,
            samples=samples,
            aggregates=conclusion.aggregates_of(whole, samples),
            classes=conclusion.classes_of(whole, samples),
            skipped=conclusion.in_order((*draft.skipped, *union.skipped, *missing)),
            thumbnails=tuple(pictures[i] for i in sorted(shown) if i in pictures),
            directions=found.pictures,
            direction_summary=found.direction_summary,
            attack=found.attack,
        )
    )


def united(plan: Plan, shards: Sequence[Shard]) -> Union:
    """What the shards hold together.

    Raises:
        InputError: shards of another plan, or that contradict each other.
    """
    wanted, taken = set(plan.audited), list[Shard]()
    results, skipped = dict[int, SampleResult](), dict[int, Skipped]()
    of: dict[int, Shard] = {}
    for shard in sorted(shards, key=lambda s: s.part or (0, 0)):
        _require_of_plan(plan, shard)
        indices = shard.indices
        again = indices & of.keys()
        if again == indices and indices:
            _require_equal(shard, results, skipped)
            continue
        if again:
            other = of[min(again)].name
            raise InputError(
                f"{shard.name}: overlaps {other} (sample {min(again)}), expected shards of one count. Give those alone."
            )
        if beyond := indices - wanted:
            raise InputError(f"{shard.name}: sample {min(beyond)} is none of the plan's. Measure this shard again.")
        taken.append(shard)
        of |= dict.fromkeys(indices, shard)
        results |= {r.index: r for r in shard.samples}
        skipped |= {s.index: s for s in shard.skipped}
    missing = tuple(i for i in plan.audited if i not in of)
    order = sorted(results)
    return Union(tuple(results[i] for i in order), tuple(skipped[i] for i in sorted(skipped)), missing, tuple(taken))


def looked_at(draft: Audit, results: Sequence[SampleResult]) -> tuple[int, ...]:
    """Indices of the samples at which the model is looked at again once all are measured; none where nothing asks for it."""
    settings, found = draft.settings, set[int]()
    if draft.run.method == "gradient":
        if settings.replay:
            found |= {r.index for r in replayed(results, settings.replay)}
        if settings.attack is not None:
            found |= set([r.index for r in results if r.prediction is not None][: settings.attack_samples])
    elif draft.step.scheme == "dithered" and (draft.step.rounding or "").startswith(QUANTISERS):
        found |= set(against_surrogate.order_of([r.index for r in results], draft.step)[: against_surrogate.MOST])
    return tuple(sorted(found))


def _require_of_plan(plan: Plan, shard: Shard) -> None:
    if shard.plan != plan.id:
        raise InputError(
            f"{shard.name}: was measured by the plan {shard.plan[:12]}…, expected {plan.id[:12]}…. "
            "Give shards of one plan, and that plan."
        )
    here, there = dict(shard.versions), dict(plan.audit.run.versions)
    if here != there:
        name = next(n for n in sorted({*here, *there}) if here.get(n) != there.get(n))
        raise InputError(
            f"{shard.name}: was measured with {name} {here.get(name, 'missing')}, planned with {there.get(name, 'none')}. "
            "Measure it with the versions of the plan."
        )


def _require_equal(shard: Shard, results: dict[int, SampleResult], skipped: dict[int, Skipped]) -> None:
    """Raise where a repeated shard says something else."""
    here: dict[int, SampleResult | Skipped] = {**{r.index: r for r in shard.samples}, **{s.index: s for s in shard.skipped}}
    for index, one in here.items():
        if one not in (results.get(index), skipped.get(index)):
            raise InputError(
                f"{shard.name}: is there twice, and sample {index} differs between the two: the model's answers do not repeat. "
                "Keep the one that you trust."
            )


def missing_words(plan: Plan, union: Union) -> str:
    """What is missing, in words: shards where all that are there are of one count, else samples."""
    parts = _missing_parts(plan, union)
    if not parts:
        return f"{len(union.missing):,} samples (the first: {union.missing[0]})"
    told = ", ".join(f"{i}/{n}" for i, n in parts[:_NAMED]) + (", …" if len(parts) > _NAMED else "")
    return f"shard{'s' * (len(parts) > 1)} {told}"


def _missing_parts(plan: Plan, union: Union) -> tuple[tuple[int, int], ...]:
    counts, gone = {s.part[1] for s in union.shards if s.part is not None}, set(union.missing)
    if len(counts) != 1:
        return ()
    (n,) = counts
    return tuple((i, n) for i in range(1, n + 1) if gone.intersection(plan.lot(i, n)))


def _missing(plan: Plan, union: Union) -> Missing:
    have = len(plan.audited) - len(union.missing)
    there = f"{have:,} of {len(plan.audited):,} samples are there"
    told = f"merge: {missing_words(plan, union)} missing: {there}. Measure what is missing, or pass --partial."
    return Missing(told, union.missing, _missing_parts(plan, union))


def _gradient(plan: Plan, union: Union) -> GradientInfo:
    gradient = plan.audit.gradient
    assert gradient is not None  # of every plan
    if gradient.ties is None:
        return gradient
    return replace(gradient, ties=with_kinks(gradient.ties, set(plan.tied), union.results))


def _times(run: Run, union: Union) -> dict[str, object]:
    """What depends on clocks and machines: of the plan, and of the shards, each of which took its own time."""
    seconds = run.seconds + sum(s.seconds for s in union.shards)
    rate = (run.evaluations + sum(s.evaluations for s in union.shards)) / max(seconds, 1e-9)
    return {
        **run.times,
        "rows_per_second": rate,
        "shards": len(union.shards),
        "slowest_shard_seconds": max((s.seconds for s in union.shards), default=0.0),
    }


def _union(parts: Iterable[Iterable[object]]) -> tuple:  # type: ignore[type-arg]
    return tuple(dict.fromkeys(one for part in parts for one in part))
