"""Certificates of whole audits: known classifiers, every kind of model, refusals, interrupts, a cache, and batches of any size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from onnxfim import from_callable
from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.record.smoothing_terms import CHOOSING
from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.slopes.kinds.softmax import SoftmaxLogits
from onnxfim.slopes.smoothed import NoisyVotes
from tests.auditing.stages.test_flipping import trees_model
from tests.support import models
from tests.support.models import Linear, Mlp
from tests.support.places import SAMPLES

TWO = Linear.draw(2, 20)
X = TWO.samples(30)
MLP = Mlp.draw(4, 40)
QUICK = {"replay": 0, "flip": False, "bounds": False, "certify_budget": 200}
NO_CLASSES = "defined for a classifier with one decision per sample"


def smoothed(found, at=0):
    return [s.smoothed[at] for s in found.samples]


def radii(found, at=0):
    return np.array([c.radius for c in smoothed(found, at)])


def distances(model, X, scale=1.0):
    """Of samples to the plane between two classes, in units of which one is ``scale`` model units."""
    w = (model.W[1] - model.W[0]) * scale
    return np.abs((X.astype(np.float64) @ (model.W[1] - model.W[0])) + model.b[1] - model.b[0]) / np.linalg.norm(w)


@pytest.mark.parametrize("scale", [None, (2.5,), tuple(np.linspace(0.5, 4.0, 20))], ids=["model", "one", "each"])
def test_a_linear_classifier_of_two_classes_is_known(saved, cpu, scale):
    """The noise is isotropic in raw units, where the plane is as far as a ruler there says; its classifier smoothed is itself.

    The rows with the class are binomial with the known probability: each count lies where all 30 do but for a chance of 1e-6.
    """
    sigma = 0.6
    found = audit(saved(TWO.onnx()), X, settings=cpu(input_scale=scale, certify=(f"smoothing:{sigma}",), **QUICK))
    d = distances(TWO, X, 1.0 if scale is None else np.broadcast_to(scale, 20))
    decided = TWO.logits(X).argmax(axis=1)
    p = stats.norm.cdf(d / sigma)
    for c, own, share, length in zip(smoothed(found), decided, p, d, strict=True):
        assert c.radius <= length
        if c.prediction is not None:
            assert c.prediction == own
            low, high = stats.binom.interval(1 - 1e-6 / 30, c.tries, share)
            assert low <= c.kept <= high
    sure = p > 0.75
    assert sure.any()
    assert all(c.prediction is not None for c, s in zip(smoothed(found), sure, strict=True) if s)
    assert found.smoothing[0].units == ("model input units" if scale is None else "raw input units")
    assert Audit.from_json(found.to_json()) == found


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_the_batch_changes_nothing(saved, cpu, batch):
    path = saved(MLP.onnx())
    options = {**QUICK, "certify": ("smoothing:0.5",), "certify_budget": 130}
    some = MLP.samples(6)
    assert smoothed(audit(path, some, settings=cpu(batch=batch, **options))) == smoothed(
        audit(path, some, settings=cpu(batch=32, **options))
    )


def test_samples_beside_it_and_their_order_change_nothing_of_one(saved, cpu):
    """A sample that cannot be audited leaves the others' indices, and so their streams, as they are."""
    path, data = saved(MLP.onnx()), MLP.samples(8)
    whole = audit(path, data, settings=cpu(certify=("smoothing:0.5",), **QUICK))
    data = data.copy()
    data[3] = np.nan
    without = audit(path, data, settings=cpu(certify=("smoothing:0.5",), **QUICK))
    kept = {s.index: s.smoothed for s in without.samples}
    assert set(kept) == {0, 1, 2, 4, 5, 6, 7}
    assert kept == {s.index: s.smoothed for s in whole.samples if s.index != 3}


def test_several_classifiers_each_in_its_place(saved, cpu):
    path, data = saved(MLP.onnx()), MLP.samples(5)
    asked = ("smoothing:0.5", "smoothing:1/4", "smoothing", "smoothing:0.25")
    found = audit(path, data, settings=cpu(certify=asked, sigma=0.125, **QUICK))
    assert [c.sigma for c in found.samples[0].smoothed] == [0.5, 0.25, 0.125]
    assert [s.sigma for s in found.smoothing] == [0.5, 0.25, 0.125]
    alone = audit(path, data, settings=cpu(certify=("smoothing:1/4",), **QUICK))
    assert smoothed(alone) == smoothed(found, 1)


class Seen:
    """A classifier that remembers the rows that it was asked."""

    def __init__(self):
        self.rows = []

    def __call__(self, rows):
        self.rows.append(rows.copy())
        return rows @ np.eye(6, 3)


def test_rows_with_noise_are_gaussian_and_never_clipped(cpu):
    """Data of pixels from 0 to 1, none of which the noise is cut at; the standard deviation of 40,000 numbers is off by 0.4 %,
    thrice that is allowed."""
    seen, sigma = Seen(), 0.5
    data = np.tile(np.array([0.0, 1.0, 0.5, 0.0, 1.0, 0.5], np.float32), (2, 1)) + np.array([[0.0], [0.01]], np.float32)
    model = from_callable(seen, (6,), 3)
    audit(model, data, settings=cpu(method="exact", attack_range=(0.0, 1.0), certify=(f"smoothing:{sigma}",), **QUICK))
    rows = np.concatenate(seen.rows)
    rows = rows[np.abs(rows - data[0]).min(axis=1) > 1e-4]
    noise = (rows - data[0]).ravel()
    assert rows.min() < -1
    assert rows.max() > 2
    assert_allclose(noise.std(), sigma, rtol=0.1)
    drawn = Drawn.of(data, sigma)(np.array([0]), 7000)[0] - data[0]
    assert_allclose(drawn.std(), sigma, rtol=0.012)
    assert stats.kstest(drawn.ravel() / sigma, "norm").pvalue > 1e-4


class Drawn:
    """The rows that votes ask a model for, in the order of the samples."""

    @staticmethod
    def of(data, size):
        """A function as `NoisyVotes`, which gives the rows themselves."""
        found = Drawn()
        forward = CallableForward(found.seen, data.shape[1:], 1, batch=50, dtype=str(data.dtype))
        votes = NoisyVotes(forward, SoftmaxLogits(), data, size, [[7, k, 1] for k in range(len(data))], np.arange(len(data)))

        def rows(which, count):
            found.rows = []
            votes(which, count)
            return np.concatenate(found.rows).reshape(len(which), count, *data.shape[1:])

        return rows

    def seen(self, rows):
        self.rows.append(rows.copy())
        return rows.reshape(len(rows), -1)[:, :1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_of_a_stream_are_the_same_however_they_are_asked_for(dtype):
    data = np.random.default_rng(0).random((3, 2, 5)).astype(dtype)
    whole = Drawn.of(data, 2.0)(np.arange(3), 60)
    assert whole.dtype == dtype
    parts = Drawn.of(data, 2.0)
    first, second, third = parts(np.array([1]), 7), parts(np.array([0, 1]), 53), parts(np.array([0, 2]), 7)
    np.testing.assert_array_equal(whole[1], np.concatenate([first[0], second[1]]))
    np.testing.assert_array_equal(whole[0], np.concatenate([second[0], third[0]]))
    np.testing.assert_array_equal(whole[2, :7], third[1])


def test_trees_are_certified_although_they_have_no_slope(saved, cpu):
    """Class 1 is where ``x_0 > 0.5`` and ``x_1 <= 0.8``: its probability under noise is a product of two known ones."""
    sigma = 0.1
    data = np.random.default_rng(1).random((40, 3)).astype(np.float32)
    found = audit(saved(trees_model()), data, settings=cpu(certify=(f"smoothing:{sigma}",), **QUICK))
    corner = stats.norm.cdf((data[:, 0] - 0.5) / sigma) * stats.norm.cdf((0.8 - data[:, 1]) / sigma)
    certain = 0
    for c, p in zip(smoothed(found), corner, strict=True):
        if c.prediction is None:
            continue
        share = p if c.prediction == 1 else 1 - p
        assert c.radius <= sigma * stats.norm.ppf(share), "the true radius by theorem 1 of this classifier"
        certain += 1
    assert certain > 20
    assert found.measured == 0


def test_an_int8_file_and_its_float_twin_are_certified_alike(cpu):
    with np.load(SAMPLES / "digits.npz") as file:
        data, labels = file["inputs"][:12], file["labels"][:12]
    options = {**QUICK, "certify": ("smoothing:0.1",), "budget": 40}
    twins = [audit(SAMPLES / f"digits_resnet{name}.onnx", data, labels, settings=cpu(**options)) for name in ("", "_int8")]
    classes = [[c.prediction for c in smoothed(found)] for found in twins]
    assert np.mean([a == b for a, b in zip(*classes, strict=True)]) > 0.9
    assert_allclose(radii(twins[0]).mean(), radii(twins[1]).mean(), rtol=0.1)  # one or two classes may differ
    assert "Rounding inside the file (the graph quantises (QuantizeLinear)" in twins[1].smoothing[0].caveat
    assert "Rounding inside the file" not in twins[0].smoothing[0].caveat


@pytest.mark.parametrize("kind", ["gaussian", "embedding"])
def test_outputs_without_classes_have_a_reason(saved, cpu, kind):
    found = audit(saved(MLP.onnx()), MLP.samples(4), settings=cpu(output_kind=kind, certify=("smoothing:0.5",), **QUICK))
    assert {c.reason for c in smoothed(found)} == {NO_CLASSES}
    summary = found.smoothing[0]
    assert (summary.samples, summary.reason, summary.curve, summary.accuracy) == (0, NO_CLASSES, (), None)
    assert Audit.from_json(found.to_json()) == found


def test_several_positions_have_a_reason(saved, cpu):
    per_pixel, _ = models.conv()
    data = np.random.default_rng(0).random((4, 2, 5, 5)).astype(np.float32)
    found = audit(saved(per_pixel), data, settings=cpu(output_kind="logits", certify=("smoothing:0.5",), **QUICK))
    assert {c.reason for c in smoothed(found)} == {NO_CLASSES}


def test_rows_that_depend_on_their_neighbours_have_a_reason(cpu):
    model = from_callable(lambda rows: (rows - rows.mean(axis=0)) @ np.eye(6, 3), (6,), 3)
    data = np.random.default_rng(0).random((8, 6)).astype(np.float32)
    found = audit(model, data, settings=cpu(certify=("smoothing:0.5",), **QUICK))
    assert all("depends on its neighbours in the batch" in c.reason for c in smoothed(found))
    assert found.smoothing[0].samples == 0


def test_an_interrupt_keeps_what_was_certified(saved, cpu):
    path, data, seen = saved(MLP.onnx()), MLP.samples(12), []

    def progress(p):
        seen.append(p.stage)
        if p.stage == "certifying by smoothing" and seen.count(p.stage) == 5:
            raise KeyboardInterrupt

    options = {**QUICK, "certify": ("smoothing:0.5", "smoothing:0.25"), "batch": 64}  # blocks of two samples
    found = audit(path, data, settings=cpu(**options), progress=progress)
    assert found.run.partial
    done = [c.reason is None for c in smoothed(found)]
    assert done == [True] * sum(done) + [False] * (12 - sum(done))
    assert 0 < sum(done) < 12
    cut = "the run was interrupted before it was certified"
    assert {c.reason for c in smoothed(found)} == {None, cut}
    assert {c.reason for c in smoothed(found, 1)} == {cut}
    whole = audit(path, data, settings=cpu(**options))
    assert smoothed(found)[: sum(done)] == smoothed(whole)[: sum(done)]
    assert found.smoothing[0].samples == sum(done)
    assert (found.smoothing[1].samples, found.smoothing[1].reason) == (0, cut)
    assert Audit.from_json(found.to_json()) == found


def test_what_was_certified_is_kept_on_disk(saved, cpu, tmp_path):
    path, data = saved(MLP.onnx()), MLP.samples(6)
    options = {**QUICK, "certify": ("smoothing:0.5",)}
    first = audit(path, data, settings=cpu(**options), cache_dir=tmp_path / "c")
    again = audit(path, data, settings=cpu(**options), cache_dir=tmp_path / "c")
    assert smoothed(again) == smoothed(first)
    assert again.run.evaluations == first.run.evaluations, "what was kept counts as if it had run"
    spent = sum(CHOOSING + c.tries for c in smoothed(first))
    assert again.run.times["cached_rows"] >= first.run.times["cached_rows"] + spent
    for changed in ({"certify": ("smoothing:0.25",)}, {"certify_budget": 300}, {"seed": 1}, {"input_scale": (2.0,)}):
        fresh = {**options, **changed}
        assert smoothed(audit(path, data, settings=cpu(**fresh), cache_dir=tmp_path / "c")) == smoothed(
            audit(path, data, settings=cpu(**fresh))
        )


def test_every_row_counts_as_a_pass(saved, cpu):
    path, data = saved(MLP.onnx()), MLP.samples(6)
    without = audit(path, data, settings=cpu(**QUICK))
    found = audit(path, data, settings=cpu(certify=("smoothing:0.5",), **QUICK))
    spent = sum(CHOOSING + c.tries for c in smoothed(found))
    assert found.run.evaluations - without.run.evaluations == spent
    assert dataclasses.replace(found.samples[0], smoothed=()) == without.samples[0], "nothing else changes"
