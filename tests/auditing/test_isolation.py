"""Real crashes of ONNX Runtime, by custom operators that are built here: what survives them, and what is said."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from onnxfim.auditing import isolation
from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.in_flight import NEEDED, OPENING, SIZE, Orders, Recorder, RuntimeEnded, read_record
from onnxfim.auditing.isolation import Isolation, WorkerEnded, _Course, _Death, _go_on
from onnxfim.auditing.jobs import AttributionJob, AuditJob, Job, OutputsJob, StepJob, Task
from onnxfim.auditing.packing import pack, unpack
from onnxfim.data import from_arrays
from onnxfim.errors import ModelError, SettingsError
from onnxfim.record.running import TIME_LIMIT
from onnxfim.record.settings import Settings
from onnxfim.runtime.available_memory import LIMIT
from onnxfim.runtime.stopping import Stop, Stopped
from onnxfim.runtime.watching import Watch, current_watch
from tests.support import crashing
from tests.support.faults import stages_by_name
from tests.support.places import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's signals and /proc")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ONNXFIM_ISOLATE": "auto"}


@pytest.fixture
def run(tmp_path, saved):
    """Run a command on a model with this operator and samples of which some break it; its exit code, what it printed, and JSON."""

    def call(operator, *more, bad=(7,), value=2 * crashing.LIMIT, others=(), limit=100, expect_json=True):
        saved(crashing.model(operator), "model.onnx")
        X, y = crashing.samples(24, bad, value=value)
        np.savez(tmp_path / "data.npz", inputs=X, labels=y)
        names = [str(saved(crashing.model(o), f"{o}.onnx")) for o in others]
        report = tmp_path / "report.json"
        command = [
            sys.executable, "-m", "onnxfim", "compare" if others else "audit", "model.onnx", *names, "--data", "data.npz", "--provider",
            "cpu", "--custom-op-library", str(crashing.library()), "-o", f"json={report}", *([] if others else ["--no-cache"]), *more,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=limit, check=False)
        assert "Traceback" not in done.stderr
        assert report.exists() == expect_json, done.stderr
        return done.returncode, done.stderr + done.stdout, json.loads(report.read_text()) if expect_json else None

    return call


def test_without_isolation_a_crash_ends_the_process(run):
    code, _, _ = run("Aborts", "--isolate", "off", expect_json=False)
    assert code == -signal.SIGABRT


def test_the_sample_at_fault_is_left_out_and_the_record_is_that_of_the_others(run, saved, cpu):
    code, said, record = run("Aborts")
    assert code == 4  # labels of noise: accuracy is near chance
    assert [s["index"] for s in record["skipped"]] == [7]
    assert "ended with SIGABRT on this sample" in record["skipped"][0]["reason"]
    assert "was started again 2 times" in said
    # The same samples without the one at fault, in this process.
    X, y = crashing.samples(24, [7])
    samples = from_arrays(X, y).without({7: "left out"})
    settings = cpu(custom_op_libraries=(str(crashing.library()),))
    here = AuditJob(Candidate(saved(crashing.model("Aborts")), samples, settings)).run(lambda _: None, Stop())
    assert len(here.samples) == 23
    # rtol: the batch is found by timing, and rows round otherwise in other batches
    for mine, theirs in zip(here.samples, record["samples"], strict=True):
        assert mine.index == theirs["index"]
        np.testing.assert_allclose(theirs["lambda_max"]["value"], mine.lambda_max.value, rtol=1e-3)
    assert record["run"]["evaluations"] == here.run.evaluations
    assert record["run"]["custom_libraries"][0]["sha256"] == here.run.custom_libraries[0].sha256


#: One interpreter for all kinds of ends: what it imports once, its forks share.
_KINDS = """
import json, sys
from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.isolation import Isolation, isolated_audit
from onnxfim.auditing.jobs import AuditJob
from onnxfim.data import load
from onnxfim.record.settings import Settings

for name, memory, quiet in json.loads(sys.argv[2]):
    settings = Settings(providers=("cpu",), custom_op_libraries=(sys.argv[1],), batch=32, budget=41)
    job = AuditJob(Candidate(name + ".onnx", load("data.npz"), settings))
    audit = isolated_audit(job, Isolation(memory, None, quiet), fork=True)
    print(json.dumps([name, len(audit.samples), [[s.index, s.reason] for s in audit.skipped], [f.id for f in audit.findings]]))
"""


@pytest.mark.slow
def test_every_kind_of_end_costs_its_sample_alone(tmp_path, saved):
    kinds = {
        "Faults": (None, 300, "ended with SIGSEGV"),
        "Exits": (None, 300, "ended with exit code 7"),
        "Sleeps": (None, 0.3, "ended in a call that took over"),
        "Eats": (420 * 2**20, 300, "--max-memory 420M"),
        "AbortsBeside": (None, 300, "or on a point beside it"),
    }
    X, y = crashing.samples(24, [7])
    np.savez(tmp_path / "data.npz", inputs=X, labels=y)
    for name in kinds:
        saved(crashing.model(name), f"{name}.onnx")
    asked = json.dumps([(name, memory, quiet) for name, (memory, quiet, _) in kinds.items()])
    command = [sys.executable, "-c", _KINDS, str(crashing.library()), asked]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=True)
    told = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    assert list(told) == list(kinds)
    for name, (_, _, words) in kinds.items():
        count, skipped, findings = told[name]
        assert count == 23, name
        ((index, reason),) = skipped
        assert index == 7, name
        assert words in reason
        assert "isolated-restarts" in findings


@pytest.mark.slow
def test_the_first_sample_may_be_at_fault(run):
    _, _, record = run("Aborts", bad=(0, 11))
    assert [s["index"] for s in record["skipped"]] == [0, 11]
    assert len(record["samples"]) == 22


def test_a_crash_at_opening_is_no_samples_doing(run):
    code, said, _ = run("AbortsAtOpening", expect_json=False)
    assert code == 2
    assert "ended with SIGABRT while opening the model, and no sample is at fault: nothing was measured" in said


@pytest.mark.slow
def test_a_hang_is_ended_by_the_time_limit_and_what_was_finished_is_written(run):
    code, said, record = run("SleepsBetween", "--timeout", "20", value=0.99 * crashing.LIMIT)
    assert code == 4
    assert record["run"]["partial"]
    assert record["run"]["interrupted_by"] == TIME_LIMIT
    assert len(record["samples"]) == 24
    assert "ended by the time limit, partial: 24 of 24 samples" in said


@pytest.mark.slow
def test_a_model_that_crashes_leaves_the_others(run):
    code, said, record = run("Aborts", others=("AbortsAtOpening", "Faults"), bad=())
    assert code == 2
    assert [e["name"] for e in record["entries"]] == ["model.onnx", "Faults.onnx"]
    assert record["deployment"] is None
    assert any("left out of the comparison" in n and "AbortsAtOpening.onnx" in n for n in record["notes"])
    assert said.count("AbortsAtOpening.onnx: ONNX Runtime ended with SIGABRT") >= 1


def test_an_unknown_operator_says_how_to_name_its_library(saved, cpu):
    job = AuditJob(Candidate(saved(crashing.model("Aborts")), from_arrays(*crashing.samples()), cpu()))
    with pytest.raises(ModelError, match=r"does not know an operator of this model .*--custom-op-library"):
        job.run(lambda _: None, Stop())


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), (b"no library", "cannot be loaded as a library of custom")])
def test_a_library_that_is_none_is_told(saved, cpu, tmp_path, content, words):
    path = tmp_path / "mine.so"
    if content is not None:
        path.write_bytes(content)
    settings = cpu(custom_op_libraries=(str(path),))
    job = AuditJob(Candidate(saved(crashing.model("Aborts")), from_arrays(*crashing.samples()), settings))
    with pytest.raises(ModelError, match=rf"mine\.so: {words}"):
        job.run(lambda _: None, Stop())


# What is decided after a death, without one.


@pytest.fixture
def course(saved, cpu):
    samples = from_arrays(*crashing.samples(20))
    return _Course(AuditJob(Candidate(saved(crashing.model("Aborts")), samples, cpu())))


def death(stage, *, kind="call", rows=8, tried=False, position=None, how="ended with SIGABRT", by_us=None, for_memory=False):
    from onnxfim.auditing.in_flight import InFlight

    return _Death(how, InFlight(stage, kind, rows, tried, position, 0.0, 0.0), by_us, for_memory)


def test_rows_are_tried_alone_before_a_sample_is_left_out(course):
    _go_on(course, death("clean pass"), Stop())
    assert course.orders.careful == "clean pass"
    _go_on(course, death("clean pass", tried=True, position=3), Stop())
    assert course.orders.careful is None
    assert list(course.left_out) == [3]
    assert 3 not in course.now.candidates[0].inputs.indices
    _go_on(course, death("clean pass"), Stop())
    _go_on(course, death("clean pass", tried=True, position=3), Stop())  # positions are those of the samples that are left
    assert list(course.left_out) == [3, 4]


def test_a_stage_that_an_audit_can_do_without_is_left_out(course):
    _go_on(course, death("bounding", kind="opening"), Stop())
    assert course.orders.left_out == (("bounding", "ONNX Runtime ended with SIGABRT"),)
    with pytest.raises(WorkerEnded, match="no sample is at fault"):
        _go_on(course, death("bounding", kind="opening"), Stop())


def test_a_stage_that_kills_many_samples_is_left_out_instead(course):
    stage = "looking for flips"
    for position in range(isolation.FEW + 1):
        _go_on(course, death(stage), Stop())
        _go_on(course, death(stage, tried=True, position=0), Stop())
        assert len(course.left_out) in (position + 1, 0)
    assert course.left_out == {}
    assert course.orders.left_out[0][0] == stage


def test_memory_that_no_single_row_takes_makes_calls_smaller(course):
    _go_on(course, death("clean pass", rows=64, for_memory=True), Stop())
    _go_on(course, death("clean pass", rows=64, for_memory=True), Stop())
    assert course.orders.most_rows == 16


class Limit(Job[str]):
    """Tells the limit of memory that its process plans its calls by."""

    candidates = (Candidate("model.onnx", from_arrays(np.zeros((1, 2), np.float32)), Settings()),)

    def run(self, report, stop):
        return os.environ.get(LIMIT, "none")

    def written(self, result):
        return result

    def read(self, text):
        return text

    def of(self, change):
        return self


@pytest.mark.parametrize(("memory", "told"), [(None, "none"), (3 << 30, str(3 << 30))])
def test_calls_are_planned_below_the_limit_of_memory(monkeypatch, memory, told):
    monkeypatch.delenv(LIMIT, raising=False)
    assert isolation.isolated(Limit(), Isolation(memory), fork=True).result == told
    assert LIMIT not in os.environ


def test_stages_that_an_audit_needs_are_stages():
    assert set(NEEDED) - {OPENING} <= set(stages_by_name())


def test_there_is_a_limit_of_restarts(course):
    for turn in range(isolation.RESTARTS):
        _go_on(course, death(f"stage {turn}", kind="opening"), Stop())
    with pytest.raises(WorkerEnded, match="was started again 5 times"):
        _go_on(course, death("another", kind="opening"), Stop())


def test_a_hang_at_an_interrupt_makes_a_result_of_what_is_kept(course):
    stop = Stop()
    stop.ask("SIGTERM")
    _go_on(course, death("measuring by differences", by_us="request"), stop)
    assert course.orders.finish == "SIGTERM"
    with pytest.raises(WorkerEnded, match="nothing was measured"):  # that came to no end either
        _go_on(course, death("measuring by differences", by_us="request"), stop)


def test_a_second_request_that_is_not_heeded_makes_a_result_of_what_is_kept_too(course):
    stop = Stop()
    stop.ask("SIGINT")
    stop.ask("SIGINT")
    _go_on(course, death("bounding", kind=None, by_us="request"), stop)
    assert course.orders.finish == "SIGINT"
    with pytest.raises(Stopped):  # once only
        _go_on(course, death("bounding", kind=None, by_us="request"), stop)


def test_a_second_request_before_anything_was_measured_ends_at_once(course):
    stop = Stop()
    stop.ask("SIGINT")
    stop.ask("SIGINT")
    with pytest.raises(Stopped):
        _go_on(course, death("clean pass", by_us="request"), stop)


class Busy:
    """A process that took so many seconds of a processor."""

    def __init__(self, spent):
        self.spent = spent


@pytest.mark.parametrize(
    ("kind", "spent", "clock", "over"),
    [
        (None, 1.0, 20.0, False),  # it was not its turn
        (None, 4.0, 5.0, True),
        (None, 1.0, 40.0, True),
        ("call", 1.0, 4.0, True),  # a call that sleeps takes no processor
        (None, None, 4.0, True),  # a system that tells no times
    ],
)
def test_the_time_after_a_second_request_is_that_of_a_processor(kind, spent, clock, over):
    hurry = isolation.Hurry(100.0, None if spent is None else 0.5)
    at = death("bounding", kind=kind).at
    assert hurry.over(Busy(None if spent is None else 0.5 + spent), at, 100.0 + clock, soon=3.0, late=30.0) is over


def test_a_process_tells_its_seconds_of_a_processor():
    worker = isolation.Worker.__new__(isolation.Worker)
    worker.pid = os.getpid()
    assert worker.spent == pytest.approx(time.process_time(), abs=0.5)
    worker.pid = 2**30
    assert worker.spent is None


# The record of what is in flight.


def test_a_process_that_died_before_its_first_word_died_as_the_model_was_opened():
    assert read_record(mmap.mmap(-1, SIZE)).stage == OPENING


def test_the_record_tells_what_is_in_flight():
    memory = mmap.mmap(-1, SIZE)
    X = np.eye(4, dtype=np.float32)
    recorder = Recorder(memory, Orders(careful="clean pass", left_out=(("bounding", "it ended"),)), X)
    assert read_record(memory).stage == OPENING
    recorder.enter("clean pass")
    assert recorder.tries
    recorder.trying(X[2] + 0.01)
    recorder.begins("call", 1)
    found = read_record(memory)
    assert (found.stage, found.kind, found.rows, found.tried, found.position) == ("clean pass", "call", 1, True, 2)
    assert found.since <= time.monotonic()
    recorder.ended()
    recorder.tried()
    assert read_record(memory).kind is None
    with recorder.about([1]):
        recorder.trying(X[3])
        recorder.begins("call", 1)
        assert read_record(memory).position == 1
    with pytest.raises(RuntimeEnded, match="it ended"):
        recorder.enter("bounding")


def test_nothing_new_is_measured_where_a_result_is_to_be_made_of_what_is_kept():
    recorder = Recorder(mmap.mmap(-1, SIZE), Orders(finish="SIGTERM"))
    recorder.enter("clean pass")
    recorder.begins("call", 1)
    recorder.enter("measuring by differences")
    with pytest.raises(Stopped) as ended:
        recorder.begins("call", 1)
    assert ended.value.by == "SIGTERM"


def test_nobody_watches_by_itself():
    assert type(current_watch()) is Watch
    assert not current_watch().tries


# Tasks for a fresh interpreter.


def test_a_task_comes_back_from_its_files(saved, cpu, tmp_path):
    X, y = crashing.samples()
    samples = from_arrays(X, y).without({4: "a reason"})
    settings = cpu(precision=0.1, attack_range=(0.0, 1.0), input_scale=(2.0,))
    candidate = Candidate(str(saved(crashing.model("Aborts"))), samples, settings)
    for job in (AuditJob(candidate, tmp_path / "cache"), StepJob(candidate), OutputsJob(candidate, candidate)):
        task = unpack(pack(Task(job, Orders("clean pass", (("bounding", "why"),), 4, "SIGTERM"), 30), tmp_path))
        assert task.orders == Orders("clean pass", (("bounding", "why"),), 4, "SIGTERM")
        assert type(task.job) is type(job)
        back = task.job.candidates[0]
        assert back.settings == settings
        assert back.inputs.skipped == samples.skipped
        assert back.inputs.sha256 == samples.sha256
        np.testing.assert_array_equal(back.inputs.inputs, samples.inputs)
        np.testing.assert_array_equal(back.inputs.labels, samples.labels)
        np.testing.assert_array_equal(back.inputs.indices, samples.indices)
    assert AttributionJob(candidate, candidate, (), 3).candidates == (candidate, candidate)


def test_limits_need_a_process_of_their_own():
    from onnxfim.cli.console import Console
    from onnxfim.cli.isolating import runs

    options = {"isolate": "off", "max_memory": 2**30, "timeout": None, "call_timeout": 300.0, "custom_op_libraries": ()}
    with pytest.raises(SettingsError, match="--isolate off refuses one"):
        runs(options, Console(), started=0.0, several=False)
    assert runs({**options, "isolate": "auto"}, Console(), started=0.0, several=False).apart
    assert runs({**options, "isolate": "auto", "max_memory": None}, Console(), started=0.0, several=True).apart
    assert runs({**options, "max_memory": None, "timeout": 5.0}, Console(), started=1.0, several=True).isolation == Isolation(
        None, 6.0, 300.0
    )


def test_the_settings_name_libraries():
    with pytest.raises(SettingsError, match="without a path"):
        Settings(custom_op_libraries=("",))
