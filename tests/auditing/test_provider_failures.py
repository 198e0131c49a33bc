"""A provider that breaks in the middle: nothing is measured elsewhere in its name, and what was measured before is kept."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as native

import onnxfim
from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from onnxfim.runtime.failures import OutOfMemory, ProviderFailed
from tests.support import models
from tests.support.models import Mlp
from tests.support.pretended import CPU, OPENVINO, kinds, needs_record, pretend

MODEL = Mlp.draw(4, 40)
X = MODEL.samples(24)
QUICK = Settings(providers=("openvino",), method="sketch", budget=40, max_budget=40, batch=8, bounds=False, replay=0)
GRADIENT = replace(QUICK, method="gradient")


def calls(monkeypatch, path, settings):
    """How many calls a whole audit makes."""
    with monkeypatch.context() as patched:
        state = pretend(patched)
        audit(path, X, settings=settings)
        return state.calls


@pytest.mark.parametrize("settings", [QUICK, GRADIENT], ids=["sketch", "gradient"])
def test_what_was_measured_before_is_kept_and_the_failure_is_said(monkeypatch, saved, settings):
    path = saved(MODEL.onnx())
    whole = calls(monkeypatch, path, settings)
    state = pretend(monkeypatch, fails_at=whole - 2)
    found = audit(path, X, settings=settings)
    assert found.run.partial
    assert found.run.stopped.startswith(f"{OPENVINO}: failed on this model (")
    assert len(found.samples) == 24
    assert all(s.lambda_max.value > 0 for s in found.samples)
    assert found.skipped == ()  # the rows had no part in it
    assert found.verdict == "inconclusive"
    by_id = {f.id: f for f in found.findings}
    assert by_id["provider-failed"].level == by_id["partial"].level == "error"
    assert state.calls == whole - 1  # it is not asked again
    assert Audit.from_json(found.to_json()) == found


def test_samples_that_were_finished_by_then_have_the_values_of_a_whole_run(monkeypatch, saved):
    path = saved(MODEL.onnx())
    whole = calls(monkeypatch, path, QUICK)
    settings = replace(QUICK, flip=False)
    with monkeypatch.context() as patched:
        pretend(patched)
        finished = {s.index: s for s in audit(path, X, settings=settings).samples}
    kept, same = [], 0
    for at in range(whole // 3, whole, max(1, whole // 12)):
        with monkeypatch.context() as patched:
            pretend(patched, fails_at=at)
            try:
                found = audit(path, X, settings=settings)
            except ProviderFailed:
                continue  # nothing was measured yet
            kept.append(len(found.samples))
            for s in found.samples:  # those that a whole run refines afterwards have fewer passes
                assert s.evaluations <= finished[s.index].evaluations
                if s.evaluations == finished[s.index].evaluations:
                    assert s.lambda_max == finished[s.index].lambda_max
                    same += 1
    assert any(0 < n < 24 for n in kept)
    assert same


@pytest.mark.parametrize("fails_at", [0, 1, 5])
def test_before_anything_is_measured_it_is_an_error(monkeypatch, saved, fails_at):
    pretend(monkeypatch, fails_at=fails_at)
    with pytest.raises(ProviderFailed, match=f"{OPENVINO}: failed on this model .*Use another provider"):
        audit(saved(MODEL.onnx()), X, settings=QUICK)


def test_rows_that_fail_are_still_rows(monkeypatch, saved):
    """An error that is no provider's skips the samples, as ever."""
    pretend(monkeypatch, fails_at=0, error=native.InvalidArgument("indices element out of data bounds"))
    with pytest.raises(onnxfim.ModelError, match="out of data bounds"):
        audit(saved(MODEL.onnx()), X, settings=QUICK)


def test_memory_that_runs_out_for_good_keeps_what_was_measured(monkeypatch, saved):
    path = saved(MODEL.onnx())
    whole = calls(monkeypatch, path, QUICK)
    with monkeypatch.context() as patched:
        pretend(patched, fails_at=whole - 2, error=native.Fail("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"))
        found = audit(path, X, settings=QUICK)
    assert "ran out of memory" in found.run.stopped
    assert len(found.samples) == 24
    pretend(monkeypatch, fails_at=0, error=native.Fail("CUDA failure 2: out of memory"))
    with pytest.raises(OutOfMemory, match="ran out of memory"):
        audit(path, X, settings=QUICK)


class TestAuto:
    """Nobody asked for this provider by name."""

    def test_one_that_breaks_at_its_first_call_is_left_with_a_note(self, monkeypatch, saved):
        state = pretend(monkeypatch, fails_at=0, error=native.NotImplemented("cuDNN is not available. Install cuDNN, update the"))
        monkeypatch.setattr("onnxfim.runtime.providers._CUDA", OPENVINO)  # what auto takes first
        found = audit(saved(MODEL.onnx()), X, settings=replace(QUICK, providers=("auto",)))
        assert state.calls == 1
        assert (found.run.provider, found.run.provider_missed, found.run.partial) == (CPU, False, False)
        assert "cuDNN is missing" in found.run.provider_reason
        assert {f.id: f.level for f in found.findings}["provider-auto"] == "warning"

    def test_one_that_breaks_later_stops_the_audit(self, monkeypatch, saved):
        monkeypatch.setattr("onnxfim.runtime.providers._CUDA", OPENVINO)
        path = saved(MODEL.onnx())
        pretend(monkeypatch, fails_at=calls(monkeypatch, path, QUICK) - 2)
        found = audit(path, X, settings=replace(QUICK, providers=("auto",)))
        assert found.run.stopped is not None
        assert found.run.provider == OPENVINO


class TestPlacement:
    @needs_record
    def test_it_is_in_the_record(self, monkeypatch, saved):
        pretend(monkeypatch, leaves=frozenset({"Tanh", "Relu"}))
        found = audit(saved(MODEL.onnx()), X, settings=replace(QUICK, flip=False))
        assert found.run.provider == OPENVINO
        assert [(p.provider, p.asked) for p in found.run.placement] == [(OPENVINO, True), (CPU, False)]
        assert sum(kinds(found.run.placement, CPU).values()) == found.run.placement[1].nodes > 0
        finding = next(f for f in found.findings if f.id == "provider-mixed")
        assert finding.level == "warning"
        assert "1 of 4 compute nodes (25%)" in finding.message
        assert f"went elsewhere than to {OPENVINO}: 1 to {CPU} (Tanh 1)" in finding.message
        assert Audit.from_json(found.to_json()).run.placement == found.run.placement

    @needs_record
    def test_no_node_means_another_provider(self, monkeypatch, saved):
        pretend(monkeypatch, leaves=None)
        found = audit(saved(MODEL.onnx()), X, settings=replace(QUICK, flip=False))
        assert (found.run.provider, found.run.provider_missed) == (CPU, True)
        assert "was given no node that computes" in found.run.provider_reason
        ids = {f.id for f in found.findings}
        assert "provider-fallback" in ids
        assert "provider-mixed" not in ids

    def test_a_function_has_none(self):
        W = np.random.default_rng(0).standard_normal((4, 3))
        found = audit(onnxfim.from_callable(lambda x: x @ W, (4,), 3), np.zeros((3, 4)))
        assert found.run.placement is None
        assert "placement-unknown" not in {f.id for f in found.findings}

    def test_not_known_is_said(self, monkeypatch, saved):
        pretend(monkeypatch, tells=False)
        found = audit(saved(MODEL.onnx()), X, settings=replace(QUICK, flip=False))
        assert found.run.placement is None
        assert {f.id: f.level for f in found.findings}["placement-unknown"] == "note"


def test_sessions_that_copies_took_the_place_of_are_closed(monkeypatch, saved):
    """Softmax at the end of a file with a fixed batch: the file, its freed copy and the one with logits are opened, one is left."""
    alive = []
    real = onnxruntime.InferenceSession

    def opening(*args, **others):
        session = real(*args, **others)
        alive.append(weakref.ref(session))
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
    path = saved(models.linear(np.eye(4, 40), np.zeros(4), end="Softmax", batch=2))
    gc.disable()  # device memory must not wait for the collector
    try:
        subject = open_subject(path, X, Settings(providers=("cpu",)))
        left = [ref() for ref in alive if ref() is not None]
    finally:
        gc.enable()
    assert len(alive) == 3
    assert left == [subject.forward.session]
