"""Audits of samples that are read at need: the same to the last bit, in a part of their memory; from process to process by place."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from onnxfim import audit
from onnxfim.auditing import isolation
from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.in_flight import _telling
from onnxfim.auditing.isolation import Isolation
from onnxfim.auditing.jobs import AuditJob
from onnxfim.auditing.pictures import InputsByIndex
from onnxfim.data import lazy_rows, load
from onnxfim.data.lazy_rows import LazyRows
from onnxfim.record.settings import Settings
from tests.support import models

N, SHAPE = 40, (2, 8, 8)


@pytest.fixture
def path(tmp_path):
    return models.save(models.conv(4, size=8)[0], tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.random((N, *SHAPE)).astype(np.float32)
    X[3, 0, 0, 0] = np.nan
    np.savez(tmp_path / "x.npz", inputs=X, labels=rng.integers(0, 4, N))
    return tmp_path / "x.npz"


@pytest.fixture
def small(monkeypatch):
    def set_() -> None:
        monkeypatch.setattr(lazy_rows, "LAZY_BYTES", 0)
        monkeypatch.setattr(lazy_rows, "BLOCK_BYTES", 3 * 512)

    return set_


def told(found):
    """All that an audit says, but for the clock."""
    record = json.loads(found.to_json())
    record["run"] = {k: v for k, v in record["run"].items() if k not in ("seconds", "times", "restarts")}
    return record


@pytest.mark.parametrize(
    "how",
    [
        {"method": "gradient", "attack": "l2", "attack_samples": 4},
        {"method": "sketch", "budget": 80, "replay": 0},
        {"method": "exact", "samples": 6},
        {"method": "sketch", "samples": 9, "attack_range": (0.0, 1.0), "input_scale": (0.5,)},
    ],
    ids=lambda how: how["method"],
)
def test_the_same_to_the_last_bit(path, data, small, how):
    settings = Settings(batch=16, **how)
    eager = audit(path, load(data, shape=SHAPE), settings=settings)
    small()
    samples = load(data, shape=SHAPE)
    assert isinstance(samples.inputs, LazyRows)
    lazy = audit(path, samples, settings=settings)
    assert told(lazy) == told(eager)


@pytest.mark.parametrize("fork", [True, False])
def test_another_process_reads_them_itself(path, data, small, fork):
    settings = Settings(batch=16, replay=0, flip=False)
    eager = audit(path, load(data, shape=SHAPE), settings=settings)
    small()
    job = AuditJob(Candidate(path, load(data, shape=SHAPE), settings))
    found = isolation.isolated_audit(job, Isolation(), fork=fork)
    assert told(found) == told(eager)


def test_the_result_comes_in_parts_that_make_the_same_audit(path, data):
    found = audit(path, load(data, shape=SHAPE), settings=Settings(replay=2))
    many = replace(found, samples=found.samples * 20)
    job = AuditJob(Candidate(path, load(data, shape=SHAPE), Settings()))
    parts, gathered = list(job.parts(many)), job.gathered()
    assert len(parts) > 3
    for part in parts:
        gathered.take(part)
    assert gathered.result() == many
    assert job.read(job.written(found)) == found


def test_memory_holds_a_part_of_the_data(tmp_path, monkeypatch):
    """An audit of 40 MB of samples, most of them for the temperature alone, stays far below one copy of them."""
    shape, n = (2, 64, 64), 1300
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", inputs=rng.random((n, *shape), np.float32), labels=rng.integers(0, 4, n))
    W = rng.normal(size=(4, 2 * 64 * 64)).astype(np.float32) / 64
    path = models.save(models.linear(W, np.zeros(4, np.float32), shape=shape), tmp_path / "model.onnx")
    monkeypatch.setattr(lazy_rows, "LAZY_BYTES", 2**20)
    monkeypatch.setattr(lazy_rows, "BLOCK_BYTES", 2**20)
    settings = Settings(samples=4, batch=8, replay=0, flip=False)
    audit(path, load(tmp_path / "x.npz", shape=shape, limit=8), settings=settings)  # what is imported and made once
    tracemalloc.start()
    try:
        found = audit(path, load(tmp_path / "x.npz", shape=shape), settings=settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.data.count == n
    assert peak < n * 4 * 2 * 64 * 64 / 2


def test_inputs_by_index_are_read_one_by_one(data):
    class Of:
        samples = load(data, shape=SHAPE)
        X = samples.inputs

    found = InputsByIndex(Of)
    assert list(found) == [i for i in range(N) if i != 3]
    assert len(found) == N - 1
    np.testing.assert_array_equal(found[7], Of.X[6])
    for missing in (3, N, -1):
        with pytest.raises(KeyError):
            found[missing]


def test_where_samples_differ_is_told_by_blocks(data, small):
    eager = _telling(load(data, shape=SHAPE).inputs)
    small()
    lazy = _telling(load(data, shape=SHAPE).inputs)
    for ours, theirs in zip(eager, lazy, strict=True):
        np.testing.assert_array_equal(ours, theirs)
