"""What `audit --ray` does: the plan here, the samples on a Ray cluster, their merge here."""

from __future__ import annotations

import time
from typing import Any

from onnxfim.auditing.common_step import Candidate
from onnxfim.cli.cache_folder import cache_folder
from onnxfim.cli.isolating import Runs
from onnxfim.data import Samples
from onnxfim.errors import SettingsError
from onnxfim.fleet.crew import with_crew
from onnxfim.fleet.fleet_jobs import MergeJob, PlanJob
from onnxfim.fleet.merging import merge
from onnxfim.fleet.ray_cluster import ray_measured, require_ray
from onnxfim.graph.load import ModelFile
from onnxfim.record.audit import Audit


def over_ray(how: Runs, candidate: Candidate, options: dict[str, Any]) -> Audit:
    """The audit whose samples a Ray cluster measures: that of one process, times apart.

    Raises:
        SettingsError: options that do not go with it, no Ray, or no cluster.
        OnnxFimError: as `onnxfim.audit`.
        OutOfTime: the time limit came before anything was measured.
    """
    if options["max_memory"] is not None:
        raise SettingsError("--max-memory: limits a process of this machine, and --ray runs on others. Leave it out.")
    address, started = options["ray"], time.perf_counter()
    require_ray(address)
    model, samples = candidate.model, candidate.inputs
    assert isinstance(model, ModelFile)
    assert isinstance(samples, Samples)
    planned = how.do(PlanJob(candidate, cache_folder(options)))
    crewed = how.here(
        lambda report, stop: ray_measured(
            planned.result, model, samples, address, report=report, stop=stop, quiet=how.isolation.quiet
        )
    )
    for lost in crewed.lost:
        how.console.say(f"warning: {lost}; what it had in hand was measured by others", colour="yellow")
    if not crewed.whole:  # what looks at the model again is left out
        merged, restarts = merge(planned.result, crewed.shards, partial=True), planned.restarts
    else:
        outcome = how.do(MergeJob(planned.result, candidate, crewed.shards))
        merged, restarts = outcome.result, (*planned.restarts, *outcome.restarts)
    return with_crew(merged, crewed, time.perf_counter() - started, restarts)
