"""An audit that is asked to end: what it has by then, and nothing that it has not."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.auditing.run import audit
from onnxfim.auditing.subject import from_callable
from onnxfim.record.audit import Audit
from onnxfim.report.formats import renderers
from onnxfim.runtime.session import open_session, run
from onnxfim.runtime.stopping import Stop, Stopped, current_stop
from tests.support import models
from tests.support.models import Mlp

MODEL = Mlp.draw(4, 150)
X = MODEL.samples(12)
LEFT_OUT = "interrupted before it was measured"


def asked_at(stage, after=1, times=1):
    """A request to end, made by a signal of that name at a stage's progress, and the callback that makes it."""
    stop, seen = Stop(), []

    def progress(p):
        seen.append(p.stage)
        if p.stage == stage and seen.count(stage) == after:
            for _ in range(times):
                stop.ask("SIGTERM")

    return stop, progress


@pytest.mark.parametrize("stage", ["clean pass", "looking for ties", "choosing the step", "differentiating"])
def test_before_the_first_sample_all_are_listed(saved, cpu, stage):
    stop, progress = asked_at(stage)
    found = audit(saved(MODEL.onnx()), X, np.arange(12) % 4, cpu(batch=8), progress=progress, stop=stop)
    assert found.run.partial
    assert found.run.interrupted_by == "SIGTERM"
    assert found.verdict == "inconclusive"
    assert [(s.index, s.reason) for s in found.skipped] == [(i, LEFT_OUT) for i in range(12)]
    assert found.aggregates["lambda_max"].mean.value is None
    assert Audit.from_json(found.to_json()) == found
    for kind, render in renderers().items():
        assert "interrupted" in str(render(found)) or kind == "csv", kind
    if stage == "clean pass":
        assert found.step.unchosen == LEFT_OUT
        assert found.calibration.accuracy is None


@pytest.mark.parametrize("times", [1, 2])
def test_a_sample_that_was_cut_gives_what_it_has(cpu, times):
    """Of one sample's directions a part was evaluated: a value with fewer directions, and an interval that holds the truth."""
    model, stop, calls = Mlp.draw(4, 60), Stop(), []

    def fn(rows):
        calls.append(len(rows))
        if sum(calls) > 5000:
            for _ in range(times):
                stop.ask()
        return model.logits(rows)

    inputs = model.samples(6)
    found = audit(
        from_callable(fn, (60,), 4, dtype="float64"), inputs, settings=cpu(method="sketch", budget=3000, batch=64), stop=stop
    )  # fmt: skip
    assert found.run.partial
    whole = max(s.directions for s in found.samples)
    cut = [s for s in found.samples if s.directions < whole]
    assert len(cut) == 1
    assert cut[0].directions >= 8
    assert cut[0].index == len(found.samples) - 1
    assert [s.index for s in found.skipped] == list(range(len(found.samples), 6))
    assert {s.reason for s in found.skipped} == {LEFT_OUT}
    truth = float(model.lambda_max(inputs[cut[0].index : cut[0].index + 1])[0])
    assert cut[0].lambda_max.low <= truth <= cut[0].lambda_max.high


def test_a_cut_sample_is_measured_whole_the_next_time(tmp_path, saved, cpu):
    path, settings = saved(MODEL.onnx()), cpu(batch=8, method="sketch", budget=400, flip=False)
    whole = audit(path, X, settings=settings)
    stop, progress = asked_at("measuring", after=4)
    part = audit(path, X, settings=settings, progress=progress, stop=stop, cache_dir=tmp_path)
    assert 4 <= len(part.samples) < 12
    again = audit(path, X, settings=settings, cache_dir=tmp_path)
    assert again.samples == whole.samples
    assert again.run.times["cached_rows"] > 0


def test_coordinates_that_were_cut_give_nothing(cpu):
    model, stop, calls = Mlp.draw(4, 40), Stop(), []

    def fn(rows):
        calls.append(len(rows))
        if sum(calls) > 1300:
            stop.ask()
        return model.logits(rows)

    found = audit(
        from_callable(fn, (40,), 4, dtype="float64"), model.samples(8), settings=cpu(method="exact", batch=16), stop=stop
    )  # fmt: skip
    assert {s.directions for s in found.samples} <= {40}
    assert len(found.samples) + len(found.skipped) == 8


@pytest.mark.parametrize("stage", ["looking for flips", "replaying the worst directions", "bounding"])
def test_later_stages_leave_the_samples(saved, cpu, stage):
    stop, progress = asked_at(stage)
    found = audit(saved(MODEL.onnx()), X, settings=cpu(batch=8, replay=3), progress=progress, stop=stop)
    assert found.run.partial
    assert len(found.samples) == 12
    assert found.skipped == ()


def test_another_thread_may_ask(cpu):
    model, stop = Mlp.draw(3, 30), Stop()

    def slow(rows):
        time.sleep(0.01)
        return model.logits(rows)

    timer = threading.Timer(0.5, stop.ask)
    timer.start()
    began = time.monotonic()
    found = audit(from_callable(slow, (30,), 3, dtype="float64"), model.samples(20), settings=cpu(method="sketch"), stop=stop)
    assert found.run.partial
    assert found.run.interrupted_by is None
    assert time.monotonic() - began < 5, "20 samples of 1,000 passes take 50 s"


def long_call():
    """A model whose one call takes seconds, in many nodes."""
    nodes = [("MatMul", [f"y{i}" if i else "x", "w"], ["z" if i == 2999 else f"y{i + 1}"], {}) for i in range(3000)]
    return models.model(nodes, {"w": np.eye(400, dtype=np.float32)}, shape=(400,), out=(400,))


def test_a_call_is_broken_off_between_two_nodes(saved):
    """A second request ends a call in flight, and no later one begins."""
    session, _ = open_session(saved(long_call()))
    name, out = session.get_inputs()[0].name, session.get_outputs()[0].name
    feeds = {name: np.ones((2000, 400), np.float32)}
    stop = Stop()
    with stop.current():
        threading.Timer(0.2, lambda: (stop.ask("SIGINT"), stop.ask("SIGINT"))).start()
        began = time.monotonic()
        with pytest.raises(Stopped) as ended:
            run(session, [out], feeds)
        assert time.monotonic() - began < 5
        assert ended.value.by == "SIGINT"
        with pytest.raises(Stopped):
            run(session, [out], {name: feeds[name][:1]})
    assert_allclose(run(session, [out], {name: feeds[name][:1]})[0], 1.0, rtol=1e-5)


def test_nothing_asks_outside_an_audit():
    assert current_stop() is None
    stop = Stop()
    told = []
    stop.when_asked(told.append)
    stop.ask("SIGTERM")
    stop.ask("SIGINT")
    stop.ask("SIGINT")
    assert told == [1, 2, 2]
    assert (stop.asked, stop.by, stop.hurried) == (2, "SIGTERM", True)


def test_the_library_sets_no_handler(saved, cpu):
    import signal

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    seen = []
    audit(
        saved(MODEL.onnx()), X, settings=cpu(batch=8, replay=0, bounds=False, flip=False),
        progress=lambda _: seen.append({n: signal.getsignal(n) for n in before}),
    )  # fmt: skip
    assert seen
    assert all(s == before for s in seen)
