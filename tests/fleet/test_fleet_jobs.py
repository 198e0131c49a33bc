"""Jobs of a fleet as files, for a fresh interpreter."""

from __future__ import annotations

import json
import logging

from onnxfim import Settings
from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.in_flight import Orders
from onnxfim.auditing.jobs import Task
from onnxfim.auditing.packing import pack, unpack
from onnxfim.data import load
from onnxfim.fleet.fleet_jobs import MergeJob, PlanJob, ShardJob
from onnxfim.graph.load import load_model
from onnxfim.record.plan import Plan
from onnxfim.record.reading_data import DataReading
from onnxfim.runtime.stopping import Stop
from tests.support.places import SAMPLES

READING = DataReading(
    "m.onnx", "d.npz", None, "inputs", "labels", None, ("a", "b"), None, None, (0.5,), None, False, None, "NCHW", None, 3, ("x",), None,
    ("x:[N,4]",), 7, 0,
)  # fmt: skip


def packed(job, folder):
    found = unpack(pack(Task(job, Orders(), logging.INFO), folder)).job
    assert type(found) is type(job)
    return found


def test_each_is_the_same_when_it_is_unpacked(tmp_path):
    settings = Settings(samples=6, batch=8, method="sketch", budget=20, flip=False)
    candidate = Candidate(load_model(SAMPLES / "digits_mlp.onnx"), load(SAMPLES / "digits.npz", limit=20), settings)
    job = packed(PlanJob(candidate, tmp_path / "cache", READING), tmp_path)
    assert (job.reading, job.cache_dir) == (READING, tmp_path / "cache")
    plan = job.run(lambda _: None, Stop())
    assert plan.reading == READING
    shard = packed(ShardJob(plan, candidate, plan.lot(1, 1), (1, 1), None, 4), tmp_path)
    assert (shard.plan, shard.indices, shard.part, shard.batch) == (plan, plan.audited, (1, 1), 4)
    measured = shard.run(lambda _: None, Stop())
    audit = packed(MergeJob(plan, candidate, (measured,)), tmp_path).run(lambda _: None, Stop())
    assert len(audit.samples) == 6
    assert Plan.from_json(json.dumps({**json.loads(plan.to_json()), "reading": None})).reading is None
