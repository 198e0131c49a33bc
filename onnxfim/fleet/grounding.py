"""The ground on which parts of a plan's samples are measured: what couples all samples is read, not measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Clean, Context, Ground
from onnxfim.auditing.coupling import Coupling
from onnxfim.auditing.stages.tied import SPREAD_ROWS
from onnxfim.auditing.tied_samples import TiedSamples
from onnxfim.data import Samples
from onnxfim.errors import InputError, ModelError, ProviderError
from onnxfim.fleet.making_plans import digests_of
from onnxfim.record.audit import ModelInfo
from onnxfim.record.packed_array import PackedArray
from onnxfim.record.plan import Plan
from onnxfim.slopes.flips import ValidRange
from onnxfim.slopes.ladder_rows import LadderRows
from onnxfim.slopes.spread import Spread

Array: TypeAlias = np.ndarray[Any, Any]

_APART = ("path", "name", "doubt", "no_slope")  # of a model: where it lies; what values alone tell is the plan's


def planned_samples(plan: Plan, samples: Samples) -> Samples:
    """Those of the data that the plan names.

    Raises:
        InputError: one is not there.
    """
    gone = {s.index for s in samples.skipped}  # what broke the process that ran the model
    wanted = np.array([i for i in plan.read if i not in gone], np.int64)
    there = np.isin(wanted, samples.indices)
    if not there.all():
        raise InputError(f"{samples.source}: sample {wanted[~there][0]} of the plan is not there. Give the data that were planned.")
    return samples.take(np.searchsorted(samples.indices, wanted))


def require_same(plan: Plan, samples: Samples, indices: Sequence[int]) -> None:
    """Hold samples against their digests in the plan.

    Raises:
        InputError: one is another than was planned.
    """
    told = plan.digest_of
    for index, found in zip(indices, digests_of(samples, indices), strict=True):
        if told[index] != found:
            raise InputError(
                f"{samples.source}: sample {index} is another one than was planned (its hash is {found}, expected {told[index]}). "
                "Give the data that were planned, prepared in the same way, or plan again."
            )


def require_alike(plan: Plan, context: Context) -> None:
    """Hold an opened model against the plan's.

    Raises:
        ModelError: it is another one, or opens otherwise. ProviderError: it runs elsewhere.
    """
    here, there = context.subject.info, plan.audit.model
    if here.sha256 != there.sha256:
        raise ModelError(f"{here.name}: its hash is {here.sha256[:12]}…, the plan is of {there.sha256[:12]}…. Give that model.")
    planned, obtained = plan.audit.run.provider, context.provider
    if planned != obtained:
        raise ProviderError(
            f"{here.name}: runs on {obtained} here, and was planned on {planned}: numbers of the two differ. "
            f"Measure where {planned} is, or plan on {obtained}."
        )
    for name in ModelInfo.__dataclass_fields__:
        found, expected = getattr(here, name), getattr(there, name)
        if name not in _APART and found != expected:
            told = f"its {name.replace('_', ' ')} is {found!r} here, the plan has {expected!r}"
            raise ModelError(f"{here.name}: {told}. Plan again with the onnxfim that measures.")


def ground_of(plan: Plan, context: Context) -> Ground:
    """The ground of the plan on an opened model, before any of its samples is known; `with_samples` adds those that are measured.

    Raises:
        InputError: arrays of the plan do not fit the samples.
    """
    draft, at = plan.audit, {int(i): p for p, i in enumerate(context.samples.indices)}
    info, shape, spread = context.subject.info, context.X.shape[1:], plan.spread
    low, high = plan.box.low.array(), plan.box.high.array()
    moves = None if plan.moves is None else plan.moves.array()
    if low.shape != (context.dimension,) or high.shape != low.shape or (moves is not None and moves.shape != shape):
        raise InputError("plan: its arrays do not fit the samples. Make the plan again.")
    around = np.array([at[i] for i in plan.audited[:SPREAD_ROWS] if i in at], np.int64)
    clean = Clean(
        # Zeros take no memory before they are written: only rows of samples that are measured are.
        base=np.zeros((len(context.samples), info.num_outputs, info.positions)),
        usable=np.empty(0, np.int64),
        audited=around,
        skipped=(),
        scales=Spread(spread.pooled, spread.deviation.array(), _unpacked(spread.steps), spread.features, _unpacked(spread.guessed)),
        around=around,
    )
    return Ground(
        **vars(context),
        clean=clean,
        calibration=draft.calibration,
        step=draft.step,
        rows=draft.rows,
        ties=TiedSamples({at[i]: np.ones(0) for i in plan.tied if i in at}),
        ladder=LadderRows.made_of((b.step, b.dither, b.index, b.rows.array()) for b in plan.ladder),
        coupling=Coupling(
            samples=len(plan.audited), low=plan.low, high=plan.high, box=ValidRange(low, high, plan.box.source), kind=plan.kind,
            moves=moves, grain=plan.grain, step_error=plan.step_error, added=dict(plan.added),
        ),
        foreseen=plan.foreseen,
    )  # fmt: skip


def _unpacked(array: PackedArray | None) -> Array | None:
    return None if array is None else array.array()
