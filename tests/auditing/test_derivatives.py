"""Where derivatives come from when a provider computes them wrong, and who is blamed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import onnxfim
from onnxfim.auditing import derivatives
from onnxfim.auditing.run import audit
from onnxfim.errors import ModelError
from onnxfim.runtime.failures import OutOfMemory
from tests.auditing.stages.test_gradients import ids, wrong
from tests.support.models import Mlp
from tests.support.places import SAMPLES

MODEL = Mlp.draw(5, 12)
X = MODEL.samples(24)


@pytest.fixture
def path(saved):
    return saved(MODEL.onnx())


@pytest.fixture
def elsewhere(monkeypatch):
    """The model as if on another provider, whose derivative graphs are spoiled by a function of the opened model."""

    def spoil(fault, on_the_cpu=lambda model: None):
        monkeypatch.setattr(derivatives, "_name", lambda hardware: "StrangeExecutionProvider")
        plain, opened = derivatives._opened, []

        def opening(ground, settings, hardware):
            model = plain(ground, settings, hardware)
            (on_the_cpu if opened else fault)(model)
            opened.append(hardware)
            return model

        monkeypatch.setattr(derivatives, "_opened", opening)
        return opened

    return spoil


def scaled_jvp(factor):
    """A fault: slopes along tangents come out larger by a factor."""

    def fault(model):
        plain = model.jvp
        model.jvp = lambda *given: (plain(*given)[0], factor * plain(*given)[1])

    return fault


def failing(error):
    def fault(model):
        def jvp(*given):
            raise error

        model.jvp = jvp

    return fault


def shifted(model):
    """A fault: other outputs."""
    plain = model.jvp
    model.jvp = lambda *given: (plain(*given)[0] + 0.01, plain(*given)[1])


def test_a_provider_that_computes_them_otherwise_is_named_and_the_cpu_used(path, cpu, elsewhere):
    opened = elsewhere(scaled_jvp(1.5))
    found = audit(path, X, settings=cpu(replay=0))
    assert [h.providers for h in opened][1:] == [("CPUExecutionProvider",)]
    assert found.run.method == "gradient"
    assert found.gradient.provider == "CPUExecutionProvider"
    why = found.gradient.provider_reason
    assert why.startswith("Strange computes them otherwise: ⟨u, Jv⟩ and ⟨Jᵀu, v⟩ differ by")
    assert "on the CPU they pass their test, and outputs of the two agree within" in why
    assert "rule" not in why
    finding = ids(found)["derivatives-elsewhere"]
    assert finding.level == "warning"
    assert why in finding.message
    assert_allclose([s.lambda_max.value for s in found.samples], MODEL.lambda_max(X), rtol=1e-4)  # float32 against float64


def test_a_provider_that_does_not_run_them_too(path, cpu, elsewhere):
    elsewhere(failing(ModelError("model: ONNX Runtime failed on it (no such kernel).")))
    found = audit(path, X, settings=cpu(replay=0))
    assert found.run.method == "gradient"
    assert found.gradient.provider_reason.startswith(
        "Strange does not run them (model: ONNX Runtime failed on it (no such kernel))"
    )


def test_a_wrong_rule_is_blamed_where_it_fails_on_the_cpu_too(path, cpu, elsewhere, monkeypatch):
    wrong(monkeypatch, 1.2)
    elsewhere(lambda model: None)
    found = audit(path, X, settings=cpu(replay=0))
    assert not found.gradient.used
    assert found.gradient.provider is None
    assert found.gradient.reason.startswith("self-test failed: the derivative rule of Tanh differs from differences of node")
    assert found.gradient.reason.endswith("it is wrong")


def test_slopes_of_the_cpu_do_not_go_with_other_outputs(path, cpu, elsewhere):
    elsewhere(scaled_jvp(1.5), on_the_cpu=shifted)
    found = audit(path, X, settings=cpu(replay=0))
    assert not found.gradient.used
    assert found.run.method != "gradient"
    assert found.gradient.reason.startswith("self-test failed: on Strange, ⟨u, Jv⟩ and ⟨Jᵀu, v⟩ differ by")
    assert "on the CPU, outputs differ by" in found.gradient.reason
    assert found.gradient.reason.endswith("slopes of one do not go with outputs of the other")
    assert "rule" not in found.gradient.reason


def test_want_of_memory_is_no_cause_to_go_to_the_cpu(path, cpu, elsewhere):
    opened = elsewhere(failing(OutOfMemory("model: ONNX Runtime ran out of memory.")))
    found = audit(path, X, settings=cpu(replay=0))
    assert len(opened) == 1
    assert "ran out of memory" in found.gradient.reason


def test_on_the_cpu_itself_nothing_is_said(path, cpu):
    found = audit(path, X, settings=cpu(replay=0))
    assert found.gradient.provider is None
    assert "derivatives-elsewhere" not in ids(found)


def test_graphs_of_products_are_tested_on_another_provider(path, cpu, elsewhere, monkeypatch):
    """With many classes they carry the values; on the CPU the rules' own tests are enough."""
    monkeypatch.setattr("onnxfim.auditing.stages.by_gradients.FEW_CLASSES", 2)

    def spoiled(model):
        model._runs_on = lambda provider: False
        plain = model.gram
        model.gram = lambda *given: plain(*given) * np.float32(1.1)

    elsewhere(spoiled)
    found = audit(path, X, settings=cpu(replay=0))
    assert found.gradient.provider_reason.startswith("Strange computes them otherwise: products with J Jᵀ differ")


def test_no_method_is_advised_that_was_just_used():
    model = SAMPLES / "digits_resnet_int8.onnx"
    samples = onnxfim.load_samples(SAMPLES / "digits.npz", model, limit=4)
    audit = onnxfim.audit(model, samples, settings=onnxfim.Settings(samples=4, replay=0, flip=False, bounds=False))
    assert audit.run.method == "sketch"
    assert "cannot be differentiated" in audit.gradient.reason
    told = [audit.gradient.reason, *(f.message for f in audit.findings)]
    assert not [text for text in told if "--method sketch" in text]
    assert audit.run.providers_available[-1] == "CPUExecutionProvider"
