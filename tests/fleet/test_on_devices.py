"""One audit by several devices: the same numbers, whatever becomes of a process, and what is told of it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import onnxfim
from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.in_flight import Orders
from onnxfim.auditing.isolation import Isolation, Outcome, OutOfTime, WorkerEnded
from onnxfim.auditing.jobs import Task, without
from onnxfim.auditing.packing import pack, unpack
from onnxfim.data import load
from onnxfim.errors import ProviderError
from onnxfim.fleet import on_devices
from onnxfim.fleet.claims import Claims
from onnxfim.fleet.devices import Device
from onnxfim.fleet.fleet_jobs import MergeJob, PlanJob, ShardJob
from onnxfim.fleet.lots_job import LotsJob
from onnxfim.fleet.measuring_shards import PlannedWork
from onnxfim.fleet.on_devices import audited_on
from onnxfim.record.plan import Plan
from onnxfim.record.running import TIME_LIMIT, UNMEASURED, Restart
from onnxfim.record.settings import Settings
from onnxfim.record.shard import Shard
from onnxfim.runtime.stopping import Stop, Stopped
from tests.support.places import ROOT, SAMPLES

TWO = (Device("0"), Device("1"))
MODEL, DATA = str(SAMPLES / "digits_mlp.onnx"), SAMPLES / "digits.npz"
N = 48
linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


def candidate(method="auto", count=N, model=MODEL):
    return Candidate(
        model, load(DATA, limit=count), Settings(providers=("cpu",), samples=count, method=method, budget=41, batch=32)
    )


def scrubbed(text):
    """The JSON without what depends on the clock, or on the words of a command."""
    layout = json.loads(text)
    for name in ("seconds", "times"):
        layout["run"].pop(name, None)
    for name in ("date", "command"):
        layout["identity"].pop(name, None)
    return layout


@pytest.fixture(scope="module", params=["gradient", "sketch"])
def both(request):
    """A candidate, and its audit by one process."""
    c = candidate(request.param)
    return c, scrubbed(onnxfim.audit(c.model, c.inputs, settings=c.settings).to_json())


class InThisProcess:
    """In place of `isolated`: jobs run here, as far as the script of a device's process lets them.

    Attributes:
        lose: What the process of a device ends with, with a lot in its hands, after so many others; by its name.
        restarts: What becomes of the process of a device on its way, by its name.
    """

    def __init__(self, lose=(), restarts=()):
        self.lose, self.restarts, self.ran = dict(lose), dict(restarts), []

    def __call__(self, job, isolation, *, show, level):
        taker = getattr(job, "taker", None)
        self.ran.append((type(job).__name__, taker))
        with show() as report:
            if taker in self.lose:
                self._lost(job, *self.lose[taker])
            result = job.run(report, on_devices.current_stop() or Stop())
        return Outcome(job.read(job.written(result)), {}, self.restarts.get(taker, ()))

    def _lost(self, job, done, error):
        plan, claims = Plan.from_json(Path(job.plan_file).read_text("utf-8")), Claims(Path(job.folder), job.taker)
        lots = iter(claims)
        with PlannedWork(plan, job.candidate.model, job.candidate.inputs) as work:
            for _, number in zip(range(done), lots, strict=False):
                claims.finish(number, work.measure(plan.lot(number, job.lots), part=(number, job.lots)).to_json())
        next(lots, None)
        raise error() if callable(error) else error


@pytest.fixture
def here(monkeypatch):
    def use(**script):
        fake = InThisProcess(**script)
        monkeypatch.setattr(on_devices, "isolated", fake)
        return fake

    return use


def test_devices_together_find_what_one_process_finds(here, both):
    c, plain = both
    fake = here()
    found = audited_on(TWO, c, Isolation())
    assert scrubbed(found.audit.to_json()) == plain
    assert found.notes == ()
    assert fake.ran[0] == ("PlanJob", None)
    assert sorted(fake.ran[1:3]) == [("LotsJob", "0"), ("LotsJob", "1")]
    assert fake.ran[3:] == [("MergeJob", None)]


def test_more_devices_than_samples_do_no_harm(here):
    c = candidate(count=2)
    here()
    found = audited_on(tuple(Device(str(k)) for k in range(5)), c, Isolation())
    assert scrubbed(found.audit.to_json()) == scrubbed(onnxfim.audit(c.model, c.inputs, settings=c.settings).to_json())


def test_a_device_that_is_lost_leaves_its_lots_to_the_others(here, both):
    c, plain = both
    fake = here(lose={"1": (0, WorkerEnded("digits_mlp.onnx: ONNX Runtime ended with SIGSEGV."))})
    found = audited_on(TWO, c, Isolation())
    assert scrubbed(found.audit.to_json()) == plain
    assert found.notes == ("device 1 was given up: digits_mlp.onnx: ONNX Runtime ended with SIGSEGV.",)
    assert fake.ran.count(("LotsJob", "0")) >= 1


def test_where_all_devices_are_lost_the_first_reason_is_told(here):
    lost = WorkerEnded("it ended, and again")
    here(lose={"0": (0, lost), "1": (0, lost)})
    with pytest.raises(WorkerEnded, match="it ended, and again"):
        audited_on(TWO, candidate(), Isolation())


def test_a_device_that_runs_the_model_otherwise_ends_all(here):
    here(lose={"1": (0, ProviderError("digits_mlp.onnx: runs on the CPU here, and was planned on CUDA."))})
    with pytest.raises(ProviderError, match="planned on CUDA"):
        audited_on(TWO, candidate(count=300), Isolation())


def test_what_is_done_when_the_time_is_up_is_an_audit(here, both):
    c, plain = both
    late = OutOfTime("the time limit came.")
    here(lose={"0": (1, late), "1": (0, late)})
    audit = audited_on(TWO, c, Isolation()).audit
    assert (audit.run.partial, audit.run.interrupted_by, audit.verdict) == (True, TIME_LIMIT, "inconclusive")
    assert len(audit.samples) == N // 3  # of three lots one is done
    assert len(audit.samples) + len(audit.skipped) == N
    assert {s.reason for s in audit.skipped} == {UNMEASURED}
    done = {s["index"]: s["lambda_max"] for s in scrubbed(audit.to_json())["samples"]}
    assert done == {s["index"]: s["lambda_max"] for s in plain["samples"] if s["index"] in done}


def test_what_is_done_when_it_is_interrupted_is_an_audit(here):
    c = candidate()
    with Stop().current() as stop:

        def interrupted():
            stop.ask("SIGTERM")
            return Stopped("SIGTERM")

        here(lose={"0": (1, interrupted), "1": (0, Stopped("SIGTERM"))})
        audit = audited_on(TWO, c, Isolation()).audit
    assert (audit.run.partial, audit.run.interrupted_by, audit.verdict) == (True, "SIGTERM", "inconclusive")
    assert len(audit.samples) == N // 3


@pytest.mark.parametrize("error", [OutOfTime("the time limit came."), WorkerEnded("it was asked to end, and did not")])
def test_without_a_lot_that_is_done_there_is_no_audit(here, error):
    here(lose={"0": (0, error), "1": (0, error)})
    with pytest.raises(type(error), match=str(error)):
        audited_on(TWO, candidate(), Isolation())


def test_an_interrupt_before_a_lot_is_done_is_one(here):
    with Stop().current() as stop:

        def interrupted():
            stop.ask("SIGINT")
            return Stopped("SIGINT")

        here(lose={"0": (0, interrupted), "1": (0, interrupted)})
        with pytest.raises(KeyboardInterrupt):
            audited_on(TWO, candidate(), Isolation())


def test_a_restart_that_moves_no_number_is_told_and_not_on_record(here, both):
    c, plain = both
    kill = Restart(
        "measuring by gradients", "was killed, probably for want of memory", None, "every row was tried alone in this stage"
    )
    here(restarts={"1": (kill,)})
    found = audited_on(TWO, c, Isolation())
    assert scrubbed(found.audit.to_json()) == plain
    assert found.notes == ("the process of device 1 was killed, probably for want of memory, and was started again",)


def test_a_restart_that_costs_something_is_on_record(here):
    costly = Restart("flipping", "ended with SIGSEGV", None, "the stage was left out")
    here(restarts={"0": (costly,)})
    found = audited_on(TWO, candidate(), Isolation())
    assert found.audit.run.restarts == (costly,)
    assert found.notes == ()
    assert "isolated-restarts" in {f.id for f in found.audit.findings}


def test_progress_is_that_of_one_run(here):
    told = []

    @contextmanager
    def show():
        yield told.append

    here()
    audited_on(TWO, candidate(), Isolation(), show=show)
    measuring = [p for p in told if p.stage == "on 2 devices"]
    assert measuring
    shares = [p.share for p in measuring]
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 1
    assert {(p.stage_total, p.stage_unit) for p in measuring} == {(N, "samples")}


# The job of a device.


@pytest.fixture
def lots(tmp_path):
    c = candidate()
    (tmp_path / "plan.json").write_text(PlanJob(c).run(lambda _: None, Stop()).to_json(), "utf-8")
    Claims.make(tmp_path / "lots", 3)
    return LotsJob(c, str(tmp_path / "plan.json"), str(tmp_path / "lots"), "0", 3)


def shards(job):
    return [Shard.from_json(text) for _, text in sorted(Claims(Path(job.folder)).results().items())]


def test_a_sample_that_is_left_out_is_listed_and_moves_no_other(lots):
    lots.run(lambda _: None, Stop())
    whole = {s.index: s for shard in shards(lots) for s in shard.samples}
    for path in (Path(lots.folder) / "done").iterdir():
        path.rename(Path(lots.folder) / "free" / path.name)
    without_seven = lots.of(lambda c: without(c, {7: "it crashes"}))
    assert without_seven.run(lambda _: None, Stop()) == 3
    assert [(s.index, s.reason) for shard in shards(lots) for s in shard.skipped] == [(7, "it crashes")]
    assert {s.index: s for shard in shards(lots) for s in shard.samples} == {i: s for i, s in whole.items() if i != 7}


def test_the_job_runs_where_its_device_is(lots):
    with pytest.raises(ProviderError, match="provider 'nowhere' is unknown"):
        dataclasses.replace(lots, providers=("nowhere:1",)).run(lambda _: None, Stop())
    assert dataclasses.replace(lots, providers=("CPUExecutionProvider",)).run(lambda _: None, Stop()) == 3


def test_the_job_goes_into_files_and_back(lots, tmp_path):
    job = dataclasses.replace(
        lots, shown=("CUDA_VISIBLE_DEVICES", "3"), providers=("openvino:GPU.1",), cores=(1, 2), cache_dir=tmp_path / "cache",
        left_out=((7, "it crashes"),),
    )  # fmt: skip
    back = unpack(pack(Task(job, Orders(), 30), tmp_path)).job
    assert type(back) is LotsJob
    for name in ("plan_file", "folder", "taker", "lots", "cache_dir"):
        assert getattr(back, name) == getattr(job, name)
    for name in ("shown", "providers", "cores", "left_out"):
        assert getattr(back, name) == getattr(job, name)
    np.testing.assert_array_equal(back.candidate.inputs.inputs, job.candidate.inputs.inputs)


def test_jobs_of_plans_and_shards_go_into_files_and_back(lots, tmp_path):
    """They run in a fresh interpreter where this process cannot be forked."""
    plan = Plan.from_json(Path(lots.plan_file).read_text("utf-8"))
    lots.run(lambda _: None, Stop())
    for job in (
        PlanJob(lots.candidate, tmp_path, {"model": "model.onnx", "mean": [0.5]}),
        ShardJob(plan, lots.candidate, (1, 4), (1, 2), batch=8),
        MergeJob(plan, lots.candidate, tuple(shards(lots))),
    ):
        back = unpack(pack(Task(job, Orders(), 30), tmp_path)).job
        assert type(back) is type(job)
        for field in dataclasses.fields(job):
            if field.name != "candidate":
                assert getattr(back, field.name) == getattr(job, field.name), field.name


_RUNS_HERE = """
import os, sys
from onnxfim.auditing.packing import unpack
from onnxfim.runtime.stopping import Stop
from pathlib import Path
unpack(Path(sys.argv[1])).job.run(lambda _: None, Stop())
print(os.environ["CUDA_VISIBLE_DEVICES"], sorted(os.sched_getaffinity(0)))
"""


@linux
def test_a_process_keeps_to_its_device_and_its_cores(lots, tmp_path):
    (core, *_) = sorted(os.sched_getaffinity(0))
    job = dataclasses.replace(lots, shown=("CUDA_VISIBLE_DEVICES", "3"), cores=(core,))
    path = pack(Task(job, Orders(), 30), tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _RUNS_HERE, str(path)], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout == f"3 [{core}]\n", done.stderr
    assert len(shards(job)) == 3


# The command.


def command(tmp_path, *words):
    (tmp_path / "temporary").mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ONNXFIM_")}  # other tests do without processes
    return subprocess.Popen(
        [sys.executable, "-m", "onnxfim", "audit", MODEL, "--data", str(DATA), "--provider", "cpu", "--no-cache", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**environment, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [(("--devices", "0,0"), "--devices 0,0: 0 comes twice"), (("--devices", "0,1", "--isolate", "off"), "--isolate off refuses one"),
     (("--devices", "0,1", "--precision", "5%"), "Give --budget instead")],
)  # fmt: skip
def test_what_cannot_be_divided_ends_in_one_line(tmp_path, words, told):
    run = command(tmp_path, "--samples", "12", "-o", "json=a.json", *words)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 2
    assert told in said.splitlines()[-1]


def children(pid):
    """Processes of a process, by what the system tells of each."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
                words = (path / "cmdline").read_bytes()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append((int(path.name), words))
    return found


@linux
@pytest.mark.slow
def test_a_process_that_is_killed_in_mid_run_changes_no_number(tmp_path):
    """The process of one device, by SIGKILL, while both measure."""
    words = ("--samples", "400", "--method", "sketch", "--budget", "401", "--batch", "64", "-o", "json=a.json")
    plain = command(tmp_path, *words)
    plain.communicate(timeout=200)
    expected = scrubbed((tmp_path / "a.json").read_text("utf-8"))
    run = command(tmp_path, *words, "--devices", "0,1")
    until, done = time.monotonic() + 60, []
    while not done and run.poll() is None and time.monotonic() < until:
        done = list((tmp_path / "temporary").glob("onnxfim-*/lots/done/*"))
        time.sleep(0.02)
    workers = [pid for pid, said in children(run.pid) if b"onnxfim.auditing.worker" in said]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, said = run.communicate(timeout=200)
    assert run.returncode == plain.returncode, said
    assert "was killed, probably for want of memory, and was started again" in said
    assert scrubbed((tmp_path / "a.json").read_text("utf-8")) == expected
    assert list((tmp_path / "temporary").glob("onnxfim-*")) == []
