"""Predicted distances and the L∞ flip radius of whole audits, against linear models whose distances are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.slopes.flips import PRECISION
from tests.auditing.stages.test_flipping import trees_model
from tests.support.faults import break_stage
from tests.support.models import Linear, Mlp
from tests.support.places import SAMPLES

LINEAR = Linear.draw(4, 20)
MANY = Linear.draw(100, 20)
X = LINEAR.samples(30)
WIDE = (-100.0, 100.0)
UNITS = {"model": None, "one": (2.5,), "each": tuple(np.linspace(0.5, 4.0, 20))}
STEEP = Mlp.draw(3, 8)


def distances(model, X, unit, norm):
    """First-order distances to the boundary in raw units, exact for a linear model."""
    z = model.logits(X)
    c = z.argmax(axis=1)
    g = (model.W[c][:, None] - model.W[None]) * unit
    dual = np.linalg.norm(g, axis=2) if norm == "l2" else np.abs(g).sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = (z.max(axis=1, keepdims=True) - z) / dual
    return np.nanmin(np.where(dual > 0, d, np.inf), axis=1)


def told(found, norm, which="first_order"):
    return np.array([next((getattr(p, which) for p in s.predicted if p.norm == norm), None) for s in found.samples], np.float64)


def radii(found):
    return np.array([np.nan if s.flip_radius_linf.value is None else s.flip_radius_linf.value for s in found.samples])


def per_unit(units):
    return np.ones(20) if units is None else np.broadcast_to(np.asarray(units), 20)


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("method", ["gradient", "exact"])
def test_a_linear_models_distances_are_predicted_exactly(saved, cpu, method, units):  # rtol: float32, and differences of it
    unit = per_unit(UNITS[units])
    found = audit(saved(LINEAR.onnx()), X, settings=cpu(method=method, bracket=True, replay=0, input_scale=UNITS[units]))
    for norm in ("l2", "linf"):
        assert_allclose(told(found, norm), distances(LINEAR, X, unit, norm), rtol=2e-3)
    lam = np.array([np.linalg.eigvalsh(unit[:, None] * LINEAR.fisher(x) * unit)[-1] for x in X])
    p = np.sort(np.exp(LINEAR.logits(X)) / np.exp(LINEAR.logits(X)).sum(axis=1, keepdims=True), axis=1)[:, ::-1]
    w = p[:, 0] * p[:, 1] / (p[:, 0] + p[:, 1])
    assert_allclose(told(found, "l2", "fisher"), np.log(p[:, 0] / p[:, 1]) * np.sqrt(w / lam), rtol=4e-3)
    tops = [np.sign(np.linalg.eigh(LINEAR.fisher(x))[1][:, -1]) * unit for x in X]
    along = np.array([s @ LINEAR.fisher(x) @ s for s, x in zip(tops, X, strict=True)])
    assert_allclose(told(found, "linf", "fisher"), np.log(p[:, 0] / p[:, 1]) * np.sqrt(w / along), rtol=4e-3)
    assert Audit.from_json(found.to_json()) == found


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("method", ["gradient", "exact"])
def test_a_linear_model_flips_in_linf_where_it_must(saved, cpu, method, units):
    """Along the signs of the slope of its nearest boundary in L2, and of the Fisher direction; the search ends at 2 %."""
    unit = per_unit(UNITS[units])
    options = {"method": method, "bracket": True, "replay": 0, "attack_range": WIDE, "input_scale": UNITS[units]}
    found = audit(saved(LINEAR.onnx()), X, settings=cpu(**options))
    z = LINEAR.logits(X)
    c = z.argmax(axis=1)
    truth = []
    for k, x in enumerate(X):
        g = LINEAR.W - LINEAR.W[c[k]]
        with np.errstate(divide="ignore", invalid="ignore"):
            near = np.where(np.arange(4) == c[k], np.inf, (z[k, c[k]] - z[k]) / np.linalg.norm(g, axis=1)).argmin()
        v = np.linalg.eigh(LINEAR.fisher(x))[1][:, -1]
        rays = np.sign(np.stack([v, -v, g[near]])) * unit
        rises = rays @ g.T  # of each class over the own one
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.where(rises > 0, (z[k, c[k]] - z[k]) / rises, np.inf)
        truth.append(ends.min())
    got = radii(found)
    # Differences leave signs of slopes near 0 open, which matter by as little.
    assert_allclose(got, truth, rtol=PRECISION + 2e-3)
    assert (got >= distances(LINEAR, X, unit, "linf") * (1 - 1e-4)).all()
    first = found.samples[0].flip_radius_linf
    assert first.kind == "upper bound"
    assert first.method.startswith("along the signs of")
    assert found.aggregates["flip_radius_linf"].units == ("model input units, L∞" if units == "model" else "raw input units, L∞")


@pytest.mark.parametrize("K", [100])
def test_many_classes_are_looked_at_by_those_next_in_logit(saved, cpu, K):
    X = MANY.samples(10)
    found = audit(saved(MANY.onnx()), X, settings=cpu(method="gradient", bracket=True, replay=0))
    for norm in ("l2", "linf"):
        assert_allclose(told(found, norm), distances(MANY, X, np.ones(20), norm), rtol=1e-3)
        assert np.isfinite(told(found, norm, "fisher")).all()


def test_a_sketch_predicts_in_l2_alone(saved, cpu):
    options = {"method": "sketch", "bracket": True}
    found = audit(saved(LINEAR.onnx()), X, settings=cpu(**options, input_scale=(2.5,)))
    assert [[p.norm for p in s.predicted] for s in found.samples] == [["l2"]] * 30
    assert_allclose(told(found, "l2"), [s.boundary_distance.value / 2.5 for s in found.samples])
    uneven = audit(saved(LINEAR.onnx()), X, settings=cpu(**options, input_scale=UNITS["each"]))
    assert np.isnan(told(uneven, "l2")).all(), "its length in raw units is not known"
    assert (told(uneven, "l2", "fisher") > 0).all()
    assert np.isfinite(radii(found)).all()
    assert "the signs of the sketched" in found.samples[0].flip_radius_linf.method


def test_only_an_audit_that_asks_for_brackets_has_them(saved, cpu):
    found = audit(saved(LINEAR.onnx()), X, settings=cpu(replay=0))
    assert all(s.predicted == () and s.flip_radius_linf is None for s in found.samples)
    assert "flip_radius_linf" not in found.aggregates
    without = audit(saved(LINEAR.onnx()), X, settings=cpu(replay=0, bracket=True, flip=False))
    assert all(s.predicted and s.flip_radius_linf is None for s in without.samples)
    asked = audit(saved(LINEAR.onnx()), X, settings=cpu(replay=0, bracket=True))
    own = ("predicted", "flip_radius_linf", "bracket")
    alike, before = ([{k: v for k, v in s.items() if k not in own} for s in layout(a)] for a in (asked, found))
    assert alike == before, "all else is as without"


def layout(found):
    return json.loads(found.to_json())["samples"]


def test_trees_flip_in_linf_too(saved, cpu):
    """Without a slope predictions are looked for blindly, and nothing is predicted; class 1 is a corner of the square."""
    data = np.random.default_rng(1).random((40, 3)).astype(np.float32)
    found = audit(saved(trees_model()), data, settings=cpu(bracket=True, attack_range=(0, 1)))
    assert all(s.predicted == () for s in found.samples)
    x, y = data[:, 0].astype(float), data[:, 1].astype(float)
    one = np.array([s.prediction == 1 for s in found.samples])
    least = np.where(one, np.minimum(x - 0.5, 0.8 - y), np.maximum(np.maximum(0.5 - x, 0), np.maximum(y - 0.8, 0)))
    assert (radii(found) >= least * (1 - 1e-4)).all(), "an upper bound"
    assert np.median(radii(found) / least) < 1.5, "both coordinates move as far as either may"


@pytest.mark.parametrize("method", ["gradient", "exact", "sketch"])
def test_what_was_kept_is_not_measured_again(saved, cpu, tmp_path, method):
    options = {"method": method, "bracket": True, "replay": 0}
    path = saved(STEEP.onnx())
    rows = STEEP.samples(12)
    first = audit(path, rows, settings=cpu(**options), cache_dir=tmp_path)
    again = audit(path, rows, settings=cpu(**options), cache_dir=tmp_path)
    assert layout(again) == layout(first)
    assert again.run.evaluations == first.run.evaluations
    plain = [audit(path, rows, settings=cpu(**{**options, "bracket": False}), cache_dir=tmp_path) for _ in range(2)][-1]
    assert all(s.predicted == () for s in plain.samples)
    fresh = [a.run.evaluations - a.run.times["cached_rows"] for a in (again, plain)]
    assert fresh[0] == fresh[1], "the bracket takes no pass more"
    assert again.run.evaluations > plain.run.evaluations
    other = audit(path, rows, settings=cpu(**options, input_scale=(2.0,)), cache_dir=tmp_path)
    assert_allclose(radii(other), radii(first) / 2, rtol=1e-6)


@pytest.mark.parametrize("name", ["predicting distances", "looking for flips in L∞"])
def test_the_audit_goes_on_where_one_fails(monkeypatch, saved, cpu, name):
    path = saved(LINEAR.onnx())
    whole = audit(path, X, settings=cpu(replay=0, bracket=True))
    break_stage(monkeypatch, name)
    found = audit(path, X, settings=cpu(replay=0, bracket=True))
    assert [f.stage for f in found.run.failed_stages] == [name]
    gone = "predicted" if name.startswith("predicting") else "flip_radius_linf"
    for s, was in zip(found.samples, whole.samples, strict=True):
        assert s.flip_radius == was.flip_radius
        assert s.predicted == (() if gone == "predicted" else was.predicted)
    if gone != "predicted":
        assert "Unforeseen" in found.samples[0].flip_radius_linf.reason


@pytest.mark.parametrize("file", ["digits_resnet", "digits_vit"])
def test_every_sample_models_bracket_holds(file):
    import onnxfim

    path = SAMPLES / f"{file}.onnx"
    samples = onnxfim.load_samples(SAMPLES / "digits.npz", path, limit=12)
    found = audit(path, samples, settings=onnxfim.Settings(samples=12, bracket=True, replay=0, providers=("cpu",)))
    assert all(b.contradictions == 0 for b in found.bracket)
    assert all(b.high is not None for s in found.samples for b in s.bracket)
