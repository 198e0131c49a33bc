"""One audit by many processes or machines: planned once, measured in shards, merged to the same result, number for number."""

from __future__ import annotations

from pathlib import Path

from onnxfim.auditing.meter import Report
from onnxfim.auditing.run import Model
from onnxfim.data import Samples
from onnxfim.fleet.making_plans import plan
from onnxfim.fleet.measuring_shards import PlannedWork
from onnxfim.fleet.merging import Missing, merge
from onnxfim.record.plan import Plan
from onnxfim.record.shard import Shard

__all__ = ["Missing", "Plan", "PlannedWork", "Shard", "merge", "opened", "plan"]


def opened(
    plan: Plan, model: Model, samples: Samples, *, progress: Report | None = None, cache_dir: str | Path | None = None,
    batch: int | None = None,
) -> PlannedWork:  # fmt: skip
    """A model opened for a plan's samples, which are measured in parts: `PlannedWork.measure`.

    Raises:
        OnnxFimError: model or data are not those of the plan, or open otherwise.
    """
    return PlannedWork(plan, model, samples, progress=progress, cache_dir=cache_dir, batch=batch)
