"""A call in halves gives what the whole call gives, wherever it is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxfim.auditing.run import audit
from onnxfim.gradients import differentiable
from onnxfim.record.settings import Settings
from onnxfim.runtime.failures import OutOfMemory
from onnxfim.runtime.halving import counts, rejoined, stretch
from tests.support.models import Mlp

SAMPLES = {"x": 0, "z": 0, "u": 1, "g": 1}
MODEL = Mlp.draw(4, 40)
X = MODEL.samples(12)


def whole(x, u, t):
    """z (N,) and g (S, N)."""
    return [x.sum(axis=1), t * u * x.sum(axis=1)]


@pytest.mark.parametrize(("rows", "seeds"), [(5, 3), (2, 1), (1, 4), (1, 2)])
def test_parts_join_to_the_whole(rows, seeds):
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((rows, 2)), "u": rng.standard_normal((seeds, rows)), "t": np.asarray(2.0)}
    assert counts(feeds, SAMPLES) == (rows, seeds)
    axis, size = (1, rows) if rows > 1 else (0, seeds)
    parts = [stretch(feeds, SAMPLES, axis, i, i + 2) for i in range(0, size, 2)]
    for got, want in zip(rejoined(axis, [whole(**p) for p in parts], ["z", "g"], SAMPLES), whole(**feeds), strict=True):
        assert_array_equal(got, want)


def test_a_call_without_seeds_has_one():
    assert counts({"x": np.ones((3, 2))}, SAMPLES) == (3, 1)


@pytest.mark.parametrize("most", [1, 7])
def test_an_audit_by_gradients_goes_on_in_smaller_calls(monkeypatch, saved, most):
    """Calls of more rows and seeds than ``most`` run out of memory, as on a small card."""
    path, settings = saved(MODEL.onnx()), Settings(providers=("cpu",), method="gradient", batch=4, bounds=False, flip=False)
    before = audit(path, X, settings=settings)
    real, refused = differentiable.run, []

    def small(session, outputs, feeds, along=None):
        size = len(feeds["x"]) * max((len(feeds[k]) for k in ("u", "v") if k in feeds), default=1) if "x" in feeds else 1
        if size > most:
            refused.append(size)
            raise OutOfMemory("model: ONNX Runtime ran out of memory")
        return real(session, outputs, feeds)

    monkeypatch.setattr(differentiable, "run", small)
    monkeypatch.setattr(
        "onnxfim.gradients.differentiable.DifferentiableModel._evaluate",
        lambda self, model, feeds: _evaluated(self, model, feeds, real),
    )
    after = audit(path, X, settings=replace(settings))
    assert refused
    assert len(refused) <= 8  # what it has no memory for is learned once, not at every call
    assert after.run.stopped is None
    # float32 products of other sizes round differently
    assert_allclose([s.lambda_max.value for s in after.samples], [s.lambda_max.value for s in before.samples], rtol=1e-4)


def _evaluated(model, graph, feeds, run):
    """The test of the rules has a limit of its own."""
    cast = {name: a.astype(model.dtype, copy=False) if name in ("x", "v") else a for name, a in feeds.items()}
    return run(model._open(graph), [o.name for o in graph.graph.output], cast)


def test_memory_that_does_not_suffice_for_one_row_is_an_error(monkeypatch, saved):
    def never(*_):
        raise OutOfMemory("model: ONNX Runtime ran out of memory")

    monkeypatch.setattr(differentiable, "run", never)
    found = audit(saved(MODEL.onnx()), X, settings=Settings(providers=("cpu",), batch=4, bounds=False, flip=False))
    assert found.run.method != "gradient"  # measured by forward passes, which have the memory
    assert "ran out of memory" in found.gradient.reason
