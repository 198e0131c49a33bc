"""Certified radii of whole audits: in raw units, below every flip, kept on disk, and why there are none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim import from_callable
from onnxfim.auditing.run import audit
from onnxfim.auditing.stages import local_bounds
from onnxfim.record.audit import Audit
from onnxfim.relaxed.radius import RadiusSearch
from tests.support.faults import break_stage
from tests.support.models import Linear, Mlp
from tests.support.places import SAMPLES

LINEAR = Linear.draw(4, 20)
X = LINEAR.samples(12)
MLP = Mlp.draw(4, 10)


def bracketed(cpu, **options):
    return cpu(**{"replay": 0, "bracket": True, "method": "gradient", **options})


def radii(found, measure="certified_radius"):
    return np.array([getattr(s, measure).value for s in found.samples], np.float64)


def reasons(found):
    return {e.reason for s in found.samples for e in (s.certified_radius, s.certified_radius_linf)}


def exact(X, unit, norm):
    """Distances to the boundary of the linear model, in units of which each is ``unit`` (20,) of the model's."""
    z = LINEAR.logits(X)
    c = z.argmax(axis=1)
    g = (LINEAR.W[c][:, None] - LINEAR.W[None]) * unit
    dual = np.linalg.norm(g, axis=2) if norm == "l2" else np.abs(g).sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nanmin(np.where(dual > 0, (z.max(axis=1, keepdims=True) - z) / dual, np.inf), axis=1)


@pytest.mark.parametrize("scale", [None, (2.5,), tuple(np.linspace(0.5, 4.0, 20))], ids=["model", "one", "each"])
def test_a_linear_models_radii_are_its_distances_in_raw_units(saved, cpu, scale):  # the search ends within 2 %
    found = audit(saved(LINEAR.onnx()), X, settings=bracketed(cpu, input_scale=scale))
    unit = np.ones(20) if scale is None else np.broadcast_to(np.asarray(scale), 20)
    for norm, measure in (("l2", "certified_radius"), ("linf", "certified_radius_linf")):
        told, distance = radii(found, measure), exact(X, unit, norm)
        assert (told <= distance).all()
        assert_allclose(told, distance, rtol=0.02)
    first = found.samples[0].certified_radius
    assert (first.kind, first.low, first.high, first.method) == ("lower bound", first.value, None, local_bounds.METHOD)
    assert Audit.from_json(found.to_json()) == found


def test_no_radius_is_above_a_flip_or_an_attack(cpu):
    with np.load(SAMPLES / "digits.npz") as data:
        found = audit(SAMPLES / "digits_mlp.onnx", data["inputs"][:24], data["labels"][:24], bracketed(cpu, attack="l2"))
    pairs = [(s.certified_radius.value, s.flip_radius.value, s.attack_distance.value) for s in found.samples]
    right = [p for p in pairs if p[2] > 0]
    assert len(right) > 20
    assert all(0 < low <= min(flip, attack) for low, flip, attack in right)


def test_without_a_bracket_there_are_none(saved, cpu):
    found = audit(saved(LINEAR.onnx()), X[:2], settings=cpu(replay=0))
    assert {s.certified_radius for s in found.samples} == {None}


def test_which_samples_there_are_changes_no_radius(saved, cpu):
    path = saved(MLP.onnx())
    many = MLP.samples(8)
    whole = audit(path, many, settings=bracketed(cpu, flip=False))
    part = audit(path, many[3:6], settings=bracketed(cpu, flip=False))
    for measure in ("certified_radius", "certified_radius_linf"):
        assert radii(whole, measure)[3:6].tolist() == radii(part, measure).tolist()


def test_radii_are_kept_on_disk(saved, cpu, tmp_path, monkeypatch):
    path = saved(MLP.onnx())
    first = audit(path, MLP.samples(4), settings=bracketed(cpu), cache_dir=tmp_path)

    def never(*_, **__):
        raise AssertionError("it was kept")

    monkeypatch.setattr(RadiusSearch, "radius", never)
    again = audit(path, MLP.samples(4), settings=bracketed(cpu), cache_dir=tmp_path)
    assert radii(again).tolist() == radii(first).tolist()
    assert not again.run.failed_stages
    other = audit(path, MLP.samples(4), settings=bracketed(cpu, input_scale=(2.0,)), cache_dir=tmp_path)
    assert other.run.failed_stages, "of another scale they are others"


def test_an_interrupt_keeps_what_was_found(saved, cpu):
    seen = []

    def progress(p):
        seen.append(p.stage)
        if p.stage == "bounding around the samples" and seen.count(p.stage) == 6:
            raise KeyboardInterrupt

    found = audit(saved(LINEAR.onnx()), X, settings=bracketed(cpu), progress=progress)
    assert found.run.partial
    assert len(found.samples) == 12
    done = np.isfinite(radii(found)).sum()
    assert 0 < done < 12
    assert found.samples[-1].certified_radius.reason == "the run was interrupted before it was measured"
    assert Audit.from_json(found.to_json()) == found


def test_a_failure_leaves_the_reason(monkeypatch, saved, cpu):
    break_stage(monkeypatch, "bounding around the samples")
    found = audit(saved(LINEAR.onnx()), X, settings=bracketed(cpu))
    assert [f.stage for f in found.run.failed_stages] == ["bounding around the samples"]
    assert all(r.startswith("bounding around the samples failed unexpectedly") for r in reasons(found))
    assert np.isfinite([s.lambda_max.value for s in found.samples]).all()


# why there are none


def test_a_function_has_none(cpu):
    model = from_callable(LINEAR.logits, (20,), 4)
    found = audit(model, X.astype(np.float32), settings=cpu(replay=0, bracket=True))
    assert reasons(found) == {"the model is a function, not a graph"}


def test_an_operator_without_a_rule_is_named(cpu):
    with np.load(SAMPLES / "digits.npz") as data:
        found = audit(SAMPLES / "digits_vit.onnx", data["inputs"][:2], settings=bracketed(cpu, flip=False))
    assert len(reasons(found)) == 1
    assert reasons(found).pop().startswith("no local bounds: node ")
    assert "has no local rule" in reasons(found).pop()


def test_outputs_that_are_no_classes_have_none(saved, cpu):
    found = audit(saved(LINEAR.onnx()), X[:2], settings=bracketed(cpu, output_kind="gaussian"))
    assert reasons(found) == {"local bounds are made for one class of each sample alone"}


def test_a_network_that_is_too_large_has_none(saved, cpu, monkeypatch):
    monkeypatch.setattr(local_bounds, "_MOST", -1.0)
    found = audit(saved(MLP.onnx()), MLP.samples(2), settings=bracketed(cpu))
    assert reasons(found).pop().startswith("the network is too large for local bounds: about ")


def test_too_little_memory_is_told(saved, cpu, monkeypatch):
    monkeypatch.setattr(local_bounds, "available_memory", lambda: 2**20)
    found = audit(saved(MLP.onnx()), MLP.samples(2), settings=bracketed(cpu))
    assert reasons(found) == {"local bounds take 512 MiB of memory, and 1 MiB are left"}


def test_a_final_softmax_needs_scores_that_float32_tells_apart(cpu):
    """The radii of the file with a Softmax are those of its logits, less what two equal probabilities may hide."""
    with np.load(SAMPLES / "digits.npz") as data:
        X = data["inputs"][:2]
    plain = audit(SAMPLES / "digits_resnet.onnx", X, settings=bracketed(cpu, flip=False))
    softmax = audit(SAMPLES / "digits_resnet_softmax.onnx", X, settings=bracketed(cpu, flip=False))
    assert_allclose(radii(softmax), radii(plain), rtol=0.04)  # both searches end within 2 %
