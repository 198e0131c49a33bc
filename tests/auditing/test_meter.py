"""What an audit says it cost is what ran: rows and calls are counted here by themselves, below the meter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxfim.auditing.meter import Meter
from onnxfim.auditing.run import audit
from onnxfim.auditing.stages import tied
from onnxfim.auditing.subject import from_callable
from onnxfim.gradients import differentiable
from onnxfim.gradients.nodewise import PASSES
from onnxfim.record.settings import Settings
from onnxfim.runtime.forward import OnnxForward
from onnxfim.slopes.class_space import passes_of_products
from tests.support.models import Linear, Mlp
from tests.support.places import SAMPLES


class Counter:
    """Passes since the clean pass began: what opening a model takes measures nothing."""

    def __init__(self):
        self.passes = 0

    def __call__(self, progress):
        if progress.stage == "clean pass":
            self.passes = 0


@pytest.fixture
def counter(monkeypatch):
    """Counts at the sessions themselves, by the convention that the meter's docstring tells."""
    counter = Counter()
    call, bound, run = OnnxForward._call, OnnxForward._bound, differentiable.run

    def counted_call(self, X, of):
        counter.passes += len(X)
        return call(self, X, of)

    def counted_bound(self, X, rows, of):
        counter.passes += 0 if self._on_host else len(rows.sample)  # rows that NumPy makes are answered by calls
        return bound(self, X, rows, of)

    def counted_run(session, outputs, feeds, along=None):
        if "x" not in feeds:  # one node, evaluated at all steps: counted with the values it starts from
            return run(session, outputs, feeds)
        n = len(feeds["x"])
        seeds = next((len(feeds[k]) for k in ("u", "v") if k in feeds), None)
        if "v" in feeds and "z" not in outputs:
            counter.passes += PASSES * n
        elif "target" in feeds:
            counter.passes += 2 * n
        elif "temperature" in feeds or outputs == ["w"]:
            counter.passes += passes_of_products(seeds) * n
        else:
            counter.passes += (1 + seeds) * n
        return run(session, outputs, feeds)

    monkeypatch.setattr(OnnxForward, "_call", counted_call)
    monkeypatch.setattr(OnnxForward, "_bound", counted_bound)

    def counted_values(session, outputs, feeds, along=None):
        counter.passes += len(feeds["x"])
        return run(session, outputs, feeds)

    monkeypatch.setattr(differentiable, "run", counted_run)
    monkeypatch.setattr(tied, "run", counted_values)
    return counter


@pytest.mark.parametrize(
    "options", [{"method": "sketch"}, {"method": "exact"}, {"method": "sketch", "precision": 0.2}, {"scheme": "dithered"}], ids=str
)
def test_rows_of_a_function(options):
    model, counter = Mlp.draw(4, 60), Counter()

    def fn(X):
        counter.passes += len(X)
        return model.logits(X)

    found = audit(from_callable(fn, (60,), 4), model.samples(20), settings=Settings(batch=16, **options), progress=counter)
    assert found.run.evaluations == counter.passes


@pytest.mark.parametrize(
    ("K", "options"),
    [
        (5, {"method": "sketch"}),
        (5, {"method": "exact"}),
        (5, {}),
        (5, {"attack": "l2"}),
        (5, {"attack": "linf", "replay": 3}),
        (100, {}),
        (100, {"attack": "l2", "attack_samples": 4}),
        (100, {"output_kind": "sigmoid"}),
        (100, {"output_kind": "gaussian"}),
    ],
    ids=str,
)
@pytest.mark.slow
def test_rows_and_derivatives_of_a_file(saved, cpu, counter, K, options):
    model = Mlp.draw(K, 30)
    X = model.samples(16)
    y = model.logits(X).argmax(axis=1)
    y[:4] = (y[:4] + 1) % K
    found = audit(saved(model.onnx()), X, y, cpu(batch=8, **options), progress=counter)
    assert found.run.method == options.get("method", "gradient")
    assert found.run.evaluations == counter.passes


def test_a_derivative_that_was_refused_was_paid_for(saved, cpu, counter, monkeypatch):
    plain = differentiable.self_test

    def refused(*args, **options):
        return replace(plain(*args, **options), passed=False, reason="not today")

    monkeypatch.setattr(differentiable, "self_test", refused)
    model = Mlp.draw(4, 30)
    found = audit(saved(model.onnx()), model.samples(8), settings=cpu(batch=8), progress=counter)
    assert "not today" in found.gradient.reason
    assert found.run.evaluations == counter.passes


@pytest.mark.slow
def test_a_quantised_file_and_its_surrogate(counter):
    with np.load(SAMPLES / "digits.npz") as data:
        settings = Settings(samples=4, batch=16, surrogate=True, replay=2, providers=("cpu",))
        found = audit(SAMPLES / "digits_resnet_int8.onnx", data["inputs"][:64], None, settings, progress=counter)
    assert found.gradient.used
    assert found.run.evaluations == counter.passes


def test_a_replay_where_lanczos_ran_takes_no_whole_jacobians(saved, cpu):
    """Each replayed sample was counted with a pass for every class, whatever ran."""
    K = 1000
    model = Linear.draw(K, 20, scale=0.5)
    path, X = saved(model.onnx()), model.samples(4)
    without, with_ = (audit(path, X, settings=cpu(batch=8, replay=n)).run.evaluations for n in (0, 4))
    # Along both ways and a random one, at two to four distances; three pictures; three passes give the directions of a sample.
    most = 4 * (3 + 3 * 4) + 3
    assert 4 * 3 * 3 <= with_ - without <= most
    without, with_ = (audit(path, X, settings=cpu(batch=8, replay=n, flip=False)).run.evaluations for n in (0, 4))
    assert 4 * 3 * 3 <= with_ - without <= most
    assert with_ - without < 4 * K


@pytest.mark.parametrize("output_kind", ["logits", "gaussian"])
@pytest.mark.parametrize("K", [5, 100])
@pytest.mark.slow
def test_what_a_cache_answers_counts_as_if_it_ran(saved, cpu, tmp_path, K, output_kind):
    model = Mlp.draw(K, 30)
    path, X = saved(model.onnx()), model.samples(12)
    first, second = (audit(path, X, settings=cpu(batch=8, output_kind=output_kind), cache_dir=tmp_path / "cache") for _ in "ab")
    assert first.run.times["cached_rows"] == 0
    assert 0 < second.run.times["cached_rows"] < second.run.evaluations
    assert second.run.evaluations == first.run.evaluations


@pytest.mark.slow
def test_the_attack_tells_its_own_share(saved, cpu):
    model = Mlp.draw(5, 30)
    path, X = saved(model.onnx()), model.samples(12)
    without, with_ = (audit(path, X, settings=cpu(batch=8, replay=0, attack=a)) for a in (None, "l2"))
    assert with_.run.evaluations - without.run.evaluations == with_.attack.evaluations > 0


def test_progress_names_its_unit(saved, cpu):
    model = Mlp.draw(5, 30)
    path, X = saved(model.onnx()), model.samples(12)
    seen = []
    audit(path, X, settings=cpu(replay=0), progress=seen.append)
    assert {(p.unit, p.total) for p in seen if p.stage == "measuring"} == {("samples", 12)}
    seen.clear()
    audit(path, X, settings=cpu(method="sketch"), progress=seen.append)
    assert {p.unit for p in seen} == {"passes"}


def test_a_meter_adds_up():
    meter = Meter()
    meter.spent(3)
    meter.remembered(4)
    assert (meter.passes, meter.cached) == (7, 4)
    meter.say("nobody listens")
