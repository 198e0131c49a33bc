"""A crew against workers that are not there: a clock of its own, deaths where the test wants them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import onnxfim
from onnxfim import fleet
from onnxfim.auditing.isolation import WorkerEnded
from onnxfim.errors import ModelError, ProviderError
from onnxfim.fleet.crew import Crew, WorkerAnswer, with_crew
from onnxfim.fleet.seat import Seat, heard, materials
from onnxfim.graph.load import load_model
from onnxfim.record.running import UNMEASURED
from onnxfim.record.shard import Shard
from onnxfim.runtime.stopping import Stop, Stopped
from tests.fleet.test_shards import timeless
from tests.support.places import SAMPLES

MODEL = SAMPLES / "digits_mlp.onnx"
N = 60


@pytest.fixture(scope="module")
def planned():
    data = onnxfim.load_samples(str(SAMPLES / "digits.npz"), str(MODEL), limit=N)
    settings = onnxfim.Settings(samples=N, batch=32)
    return fleet.plan(MODEL, data, settings=settings), data, settings


@pytest.fixture(scope="module")
def seat(planned):
    """Measures for all workers of a test: what they answer does not depend on which of them it is."""
    plan, data, _ = planned
    worker = Seat(materials("0" * 32, load_model(MODEL), data), 1)
    heard(worker.open(plan.to_json()))
    yield worker
    heard(worker.leave())


class Pretended:
    """Workers in a virtual time: one sample takes 0.1 s, opening a model 1 s; ``dies`` tells how one ends in a range, or None."""

    def __init__(self, seat, places=2, dies=lambda worker, indices: None, opens=lambda worker: "{}", slow=lambda worker: 1.0):
        self.seat, self.now, self.room, self.dies, self.opens, self.slow = seat, 0.0, places, dies, opens, slow
        self.queues: dict[int, list] = {}
        self.started, self.measured, self.most = 0, [], 0

    def clock(self):
        return self.now

    def places(self):
        return self.room

    def start(self):
        self.started += 1
        self.queues[self.started] = [(self.now + 1.0, None, None)]
        return self.started

    def measure(self, worker, number, indices):
        queue = self.queues[worker]
        begin = max([self.now, *(at for at, _, _ in queue)])
        queue.append((begin + 0.1 * len(indices) * self.slow(worker), number, indices))
        self.most = max(self.most, len(queue))

    def answers(self, timeout):
        due = [(queue[0][0], worker) for worker, queue in self.queues.items() if queue]
        if not due or min(due)[0] > self.now + timeout:
            self.now += timeout
            return
        self.now, worker = max(min(due), (self.now, 0))[0], min(due)[1]
        _, number, indices = self.queues[worker].pop(0)
        if number is None:
            text = self.opens(worker)
            if text is None:
                del self.queues[worker]
                yield WorkerAnswer(worker, None, "ended with SIGSEGV")
            else:
                yield WorkerAnswer(worker, text)
            return
        death = self.dies(worker, indices)
        if death is not None:
            del self.queues[worker]
            yield WorkerAnswer(worker, None, *death)
            return
        told = json.loads(self.seat.measure(number, indices))
        if "error" not in told:
            self.measured += indices
            told["seconds"] = 0.1 * len(indices)
        yield WorkerAnswer(worker, json.dumps(told))

    def end(self, worker):
        self.queues.pop(worker, None)


def crew_of(planned, backend, **options):
    plan, _, _ = planned
    return Crew(backend, plan, plan.audited, clock=backend.clock, **options)


def merged(planned, crewed):
    plan, data, _ = planned
    return with_crew(fleet.merge(plan, crewed.shards, finish=(load_model(MODEL), data)), crewed, 1.0)


def in_one_process(planned):
    _, data, settings = planned
    return onnxfim.audit(MODEL, data, settings=settings)


@pytest.mark.parametrize("places", [1, 2, 5])
def test_a_crew_of_any_size_makes_the_audit_of_one_process(planned, seat, places):
    backend = Pretended(seat, places)
    crewed = crew_of(planned, backend).run()
    assert timeless(merged(planned, crewed)) == timeless(in_one_process(planned))
    assert (crewed.workers, crewed.whole, backend.started) == (places, True, places)
    assert backend.most <= 2


def test_a_machine_that_is_lost_changes_nothing_but_the_times(planned, seat):
    backend = Pretended(seat, 2, lambda worker, indices: ("was lost with its machine", True) if worker == 2 else None)
    crewed = crew_of(planned, backend).run()
    audit = merged(planned, crewed)
    assert timeless(audit) == timeless(in_one_process(planned))
    assert crewed.lost
    assert set(crewed.lost) == {"a worker was lost with its machine"}
    assert audit.run.times["lost_machines"] == len(crewed.lost)


def test_a_worker_that_dies_once_is_told_of_and_no_sample_is_lost(planned, seat):
    backend = Pretended(seat, 2, lambda worker, indices: ("ended with SIGKILL", False) if worker == 1 else None)
    crewed = crew_of(planned, backend).run()
    audit = merged(planned, crewed)
    (restart,) = audit.run.restarts
    assert (restart.ended, restart.sample) == ("ended with SIGKILL", None)
    assert restart.then == "its samples were measured by another worker"
    assert [s.index for s in audit.samples] == [s.index for s in in_one_process(planned).samples]
    assert "isolated-restarts" in {f.id for f in audit.findings}


def test_the_sample_that_workers_die_of_is_listed_as_skipped(planned, seat):
    backend = Pretended(seat, 3, lambda worker, indices: ("ended with SIGSEGV", False) if 17 in indices else None)
    audit = merged(planned, crew_of(planned, backend).run())
    (skipped,) = audit.skipped
    assert skipped.index == 17
    assert skipped.reason == "the worker ended with SIGSEGV while it measured this sample, and so did one before it"
    assert len(audit.samples) == N - 1
    assert [r.sample for r in audit.run.restarts][-1] == 17


def test_workers_that_die_of_many_samples_end_the_run(planned, seat):
    backend = Pretended(seat, 3, lambda worker, indices: ("ended with SIGSEGV", False))
    with pytest.raises(WorkerEnded, match=r"digits_mlp.onnx: workers died of \d+ samples|no sample is at fault"):
        crew_of(planned, backend).run()


def test_workers_that_die_while_they_open_the_model_end_the_run(planned, seat):
    backend = Pretended(seat, 3, opens=lambda worker: None)
    with pytest.raises(WorkerEnded, match="the worker ended with SIGSEGV while opening the model, and so did others"):
        crew_of(planned, backend).run()
    assert backend.started == 3


def refusal(worker):
    return json.dumps({"error": "ProviderError", "text": "machine 2: runs on CPU here"}) if worker == 2 else "{}"


def test_a_worker_that_refuses_is_done_without(planned, seat):
    backend = Pretended(seat, 2, opens=refusal)
    crewed = crew_of(planned, backend).run()
    assert (crewed.workers, backend.started) == (1, 2)
    assert timeless(merged(planned, crewed)) == timeless(in_one_process(planned))


def test_where_all_refuse_the_reason_is_the_error(planned, seat):
    backend = Pretended(seat, 1, opens=lambda worker: refusal(2))
    with pytest.raises(ProviderError, match="machine 2: runs on CPU here"):
        crew_of(planned, backend).run()


def test_a_range_that_hangs_is_ended_and_measured_elsewhere(planned, seat):
    backend = Pretended(seat, 2, slow=lambda worker: 1e5 if worker == 1 else 1.0)
    crewed = crew_of(planned, backend, quiet=50.0).run()
    audit = merged(planned, crewed)
    assert len(audit.samples) == N
    assert not audit.skipped


def test_no_worker_for_a_minute_ends_the_run_with_what_was_measured(planned, seat):
    backend = Pretended(seat, 1)

    def dies(worker, indices):
        if backend.measured:
            backend.room = 0
            return "was lost with its machine", True
        return None

    backend.dies = dies
    audit = merged_partly(planned, crew_of(planned, backend).run())
    assert audit.run.partial
    assert audit.run.stopped == "no worker was left for 60 s"
    assert 0 < len(audit.samples) < N
    assert {s.reason for s in audit.skipped} == {UNMEASURED}


def merged_partly(planned, crewed):
    return with_crew(fleet.merge(planned[0], crewed.shards, partial=True), crewed, 1.0)


def test_no_worker_from_the_beginning_is_an_error(planned, seat):
    with pytest.raises(WorkerEnded, match=r"no worker was left for 60 s\. Nothing was measured"):
        crew_of(planned, Pretended(seat, 0)).run()


def test_one_who_asks_it_to_end_gets_what_was_measured(planned, seat):
    stop, backend = Stop(), Pretended(seat, 2)

    def report(progress):
        if progress.done:
            stop.ask("SIGINT")

    crewed = crew_of(planned, backend, report=report, stop=stop).run()
    audit = merged_partly(planned, crewed)
    assert (audit.run.partial, audit.run.interrupted_by, crewed.whole) == (True, "SIGINT", False)
    assert len(audit.samples) == len(backend.measured)
    assert 0 < len(audit.samples) < N
    assert not audit.run.failed_stages
    whole = {s.index: s for s in in_one_process(planned).samples}
    assert all(replace(s, kl_curve=None) == replace(whole[s.index], kl_curve=None) for s in audit.samples)


def test_one_who_asks_before_anything_was_measured_ends_it(planned, seat):
    stop = Stop()
    stop.ask("SIGTERM")
    with pytest.raises(Stopped, match="SIGTERM"):
        crew_of(planned, Pretended(seat, 2), stop=stop).run()


def test_a_device_that_fails_costs_its_worker_and_no_sample(planned, seat):
    backend = Pretended(seat, 2)
    right, failed = seat.measure, []

    class Failing:
        def measure(self, number, indices):
            if len(backend.measured) > 20 and not failed:
                failed.append(number)
                return json.dumps({"error": "ProviderError", "text": "CUDA: device lost"})
            return right(number, indices)

    backend.seat = Failing()
    audit = merged(planned, crew_of(planned, backend).run())
    assert failed
    assert [r.ended for r in audit.run.restarts] == ["failed (CUDA: device lost)"]
    assert (len(audit.samples), audit.skipped) == (N, ())


def test_an_answer_about_other_samples_is_refused(planned, seat):
    backend = Pretended(seat, 1)
    right = seat.measure

    class Wrong:
        def measure(self, number, indices):
            told = heard(right(number, indices))
            shard = Shard.from_json(told["shard"])
            return json.dumps({**told, "shard": replace(shard, samples=shard.samples[1:]).to_json()})

    backend.seat = Wrong()
    with pytest.raises(ModelError, match="answered for other samples than it was asked for"):
        crew_of(planned, backend).run()


def test_all_that_is_told_of_progress_is_of_one_report_and_never_falls(planned, seat):
    heard_of = []
    crew_of(planned, Pretended(seat, 3), report=heard_of.append, share=0.25).run()
    assert heard_of[0].stage == "waiting for workers"
    assert {p.stage for p in heard_of} >= {"measuring on 3 workers"}
    shares = [p.share for p in heard_of]
    assert shares == sorted(shares)
    assert shares[0] == 0.25
    assert {p.stage_unit for p in heard_of} == {"samples"}


def test_numbers_do_not_depend_on_the_cores_that_a_worker_has(planned, seat):
    plan, data, _ = planned
    other = Seat(materials("1" * 32, load_model(MODEL), data), 2)
    heard(other.open(plan.to_json()))
    here, there = (Shard.from_json(heard(s.measure(1, plan.audited[:20]))["shard"]) for s in (seat, other))
    heard(other.leave())
    assert here.samples == there.samples


def test_arrays_that_come_from_shared_memory_are_not_written_to(planned):
    plan, data, _ = planned
    given = materials("2" * 32, load_model(MODEL), data)
    for array in (*given.files.values(), given.samples.inputs, given.samples.labels, given.samples.indices):
        assert isinstance(array, np.ndarray)
        array.flags.writeable = False
    worker = Seat(given, 1)
    heard(worker.open(plan.to_json()))
    assert Shard.from_json(heard(worker.measure(1, plan.audited[:5]))["shard"]).samples
    heard(worker.leave())
    data.inputs.flags.writeable = True
