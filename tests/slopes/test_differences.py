"""Directions, the rows they become, and the order of the difference schemes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxfim.record.streams import DITHER
from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.rows import Coordinates, GroupedRademacher, Rademacher, dither_noise
from onnxfim.slopes.differences import ROWS_PER_DIRECTION, DifferenceJacobian, Request, Sample
from tests.support.models import Linear, Mlp

SCHEMES = tuple(ROWS_PER_DIRECTION)


class TestDirections:
    @pytest.mark.parametrize("d", [1, 63, 64, 65, 200])
    @pytest.mark.parametrize("family", [Rademacher(5), Coordinates()], ids=["random", "coordinates"])
    def test_any_stretch_can_be_drawn_alone(self, family, d):
        count = min(d, 12)
        whole = family.block(3, 0, count, d)
        for start in range(count):
            assert_array_equal(family.block(3, start, count - start, d), whole[start:])

    def test_random_ones_are_signs_of_identity_covariance(self):  # 4096 draws: entries of the covariance have sd 1/64
        v = Rademacher(0).block(0, 0, 4096, 20).astype(float)
        assert set(np.unique(v)) == {-1.0, 1.0}
        assert_allclose(v.T @ v / 4096, np.eye(20), atol=5 / 64)
        assert_allclose(v.mean(axis=0), 0, atol=5 / 64)

    def test_samples_and_seeds_have_streams_of_their_own(self):
        blocks = [Rademacher(seed).block(index, 0, 8, 256) for seed in (0, 1) for index in (0, 1, 2)]
        for i, a in enumerate(blocks):
            for b in blocks[i + 1 :]:
                assert abs((a == b).mean() - 0.5) < 0.06  # 2048 coins: 5 standard deviations

    def test_coordinates_are_the_basis(self):
        assert_array_equal(Coordinates().block(0, 0, 7, 7), np.eye(7))

    @pytest.mark.parametrize("d", [1, 4, 5, 33])
    def test_dither_is_uniform_apart_for_both_points_and_can_be_drawn_in_parts(self, d):
        whole = dither_noise((1, 2, DITHER), 0, 50, d)
        assert whole.shape == (50, 2, d)
        assert_array_equal(np.concatenate([dither_noise((1, 2, DITHER), 0, 20, d), dither_noise((1, 2, DITHER), 20, 30, d)]), whole)
        many = dither_noise((1, 2, DITHER), 0, 4000, d).reshape(4000, -1).astype(float)
        assert np.abs(many).max() <= 127
        assert_allclose(many.mean(), 0, atol=5 * 73 / np.sqrt(many.size))  # sd of the uniform: 127/√3 = 73
        assert_allclose(many.std(), 127 / np.sqrt(3), rtol=0.05)
        assert abs(np.corrcoef(many[:, 0], many[:, d])[0, 1]) < 5 / np.sqrt(4000)

    def test_groups_in_turn_make_up_a_whole(self):
        groups = np.array([0, 2, 1, 1, 0, 2, 2])
        family = GroupedRademacher(3, groups)
        parts = family.block(5, 0, 12, 7)
        assert_array_equal(parts.reshape(4, 3, 7).sum(axis=1), Rademacher(3).block(5, 0, 4, 7))
        for k, row in enumerate(parts):
            assert_array_equal(row != 0, groups == k % 3)
        for start in range(12):
            assert_array_equal(family.block(5, start, 12 - start, 7), parts[start:])


@dataclass
class Seen(CallableForward):
    """A forward that remembers how many rows each call had."""

    def __init__(self, fn, d, K, batch):
        super().__init__(fn, (d,), K, dtype=np.float64, batch=batch)
        self.rows = []

    def stream(self, X, batches):
        def watched():
            for b in batches:
                self.rows.append(len(b.sample))
                yield b

        yield from super().stream(X, watched())


def slopes(model, x, scheme, step, *, m=6, batch=64, dither=0.0):
    """Differences of the logits along m directions, (m, K), and the true slopes."""
    forward = Seen(model.logits, x.size, len(model.B), batch)
    jacobian = DifferenceJacobian(forward, Rademacher(0), scheme=scheme, step=step, dither=dither)
    X = x[None].astype(np.float64)
    (ends,) = jacobian.ends(X, forward.outputs(X), [Request(Sample(0, 0), 0, m)])
    truth = Rademacher(0).block(0, 0, m, x.size) @ model.jacobian(x).T
    return ((ends.plus - ends.minus) / ends.h)[:, :, 0], truth


@pytest.mark.parametrize(("scheme", "order"), [("forward", 1), ("central", 2)])
def test_schemes_show_their_order(scheme, order):  # slope of log error over log step, where higher orders are small still
    model = Mlp.draw(5, 12)
    x = model.samples(1)[0].astype(np.float64)
    steps = np.array([1e-2, 3e-3, 1e-3, 3e-4])
    errors = []
    for r in steps:
        found, truth = slopes(model, x, scheme, r)
        errors.append(np.linalg.norm(found - truth))
    fitted = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert_allclose(fitted, order, atol=0.1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_small_steps_reach_the_derivative(scheme):  # 1e-6: first order of the forward scheme at r = 1e-7
    model = Mlp.draw(4, 10)
    found, truth = slopes(model, model.samples(1)[0], scheme, 1e-7)
    assert_allclose(found, truth, atol=2e-6)


def test_dithered_points_lie_apart_and_within_the_dither():
    seen = []

    def fn(X):
        seen.append(X.copy())
        return X[:, :2]

    d, step, dither = 5, 0.25, 0.01
    forward = CallableForward(fn, (d,), 2, dtype=np.float64, batch=100)
    jacobian = DifferenceJacobian(forward, Rademacher(0), scheme="dithered", step=step, dither=dither)
    (ends,) = jacobian.ends(np.zeros((1, d)), np.zeros((1, 2, 1)), [Request(Sample(0, 0), 0, 3)])
    rows = seen[0].reshape(3, 4, d)
    v = Rademacher(0).block(0, 0, 3, d)
    assert_allclose(rows[:, 0] - rows[:, 1], 2 * step * v, atol=1e-15)
    assert_allclose(rows[:, 2] - rows[:, 3], 2 * step * v, atol=1e-15)
    centres = (rows[:, 0] + rows[:, 1]) / 2, (rows[:, 2] + rows[:, 3]) / 2
    assert np.abs(centres).max() <= dither * (1 + 1e-12)
    assert not np.isclose(*centres).all()
    assert ends.twin.h == ends.h == 2 * step
    assert_array_equal(ends.twin.plus[:, :, 0], rows[:, 2, :2])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("batch", [1, 2, 7, 64, 1000])
def test_rows_fill_batches_and_results_do_not_depend_on_them(scheme, batch):
    model = Mlp.draw(3, 6)
    X = model.samples(4).astype(np.float64)
    requests = [Request(Sample(0, 0), 0, 5), Request(Sample(2, 7), 3, 1), Request(Sample(1, 4), 0, 0), Request(Sample(3, 9), 2, 8)]
    answers = []
    for size in (batch, 3):
        forward = Seen(model.logits, 6, 3, size)
        jacobian = DifferenceJacobian(forward, Rademacher(1), scheme=scheme, step=1e-3, dither=1e-4)
        answers.append(list(jacobian.ends(X, forward.outputs(X), requests)))
        total = 14 * ROWS_PER_DIRECTION[scheme]
        assert sum(forward.rows) == total
        assert all(n == size for n in forward.rows[:-1]), "every batch but the last is full"
    ours, theirs = answers
    assert [e.request for e in ours] == [r for r in requests if r.count], "one answer to each request that asks for anything"
    for a, b in zip(ours, theirs, strict=True):
        assert_allclose(a.plus, b.plus, atol=1e-14)  # a matrix product in another blocking
        assert_allclose(a.minus, b.minus, atol=1e-14)
        assert (a.twin is None) == (scheme != "dithered")


class TestScales:
    """Coordinates that are moved by lengths of their own."""

    LENGTHS = 10.0 ** np.linspace(-3, 3, 6)
    MODEL = Linear.draw(3, 6)

    def model(self):
        return replace(self.MODEL, W=self.MODEL.W / self.LENGTHS)

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_random_directions_are_those_of_scaled_inputs(self, saved, scheme):  # 1e-3: float32 outputs over a step of 0.1
        model = self.model()
        X = (np.random.default_rng(0).standard_normal((2, 6)) * self.LENGTHS).astype(np.float32)
        truth = Rademacher(0).block(1, 0, 5, 6) * self.LENGTHS @ model.W.T
        for forward in self.forwards(saved, model):
            jacobian = DifferenceJacobian(forward, Rademacher(0), scheme=scheme, step=0.1, dither=0.01, field=self.LENGTHS)
            (ends,) = jacobian.ends(X, forward.outputs(X), [Request(Sample(1, 1), 0, 5)])
            assert_allclose(((ends.plus - ends.minus) / ends.h)[:, :, 0], truth, atol=1e-3 * np.abs(truth).max())

    def forwards(self, saved, model):
        """The same network as a file and as a function."""
        options = {
            "input_name": "x",
            "output_name": "z",
            "shape": (6,),
            "dtype": np.dtype(np.float32),
            "hardware": Hardware(("cpu",)),
        }
        yield OnnxForward(saved(model.onnx()), batch=7, **options)
        yield CallableForward(model.logits, (6,), 3, batch=4)

    def test_groups_add_up_to_slopes_in_the_inputs_own_units(self, saved):  # 1e-3: float32 outputs over a step of 0.1
        model, groups, lengths = self.model(), np.arange(6) // 2, self.LENGTHS[::2]
        X = (np.random.default_rng(0).standard_normal((2, 6)) * self.LENGTHS).astype(np.float32)
        truth = Rademacher(0).block(1, 0, 4, 6) @ model.W.T
        for forward in self.forwards(saved, model):
            jacobian = DifferenceJacobian(
                forward, GroupedRademacher(0, groups), scheme="central", step=0.1, field=lengths[groups], lengths=lengths
            )
            (ends,) = jacobian.ends(X, forward.outputs(X), [Request(Sample(1, 1), 0, 12)])
            found = ((ends.plus - ends.minus) / ends.h)[:, :, 0].reshape(4, 3, 3).sum(axis=1)
            assert_allclose(found, truth, atol=1e-3 * np.abs(truth).max())

    @pytest.mark.parametrize("scheme", ["forward", "central"])
    def test_a_coordinate_counts_by_what_it_was_moved_in_its_type(self, scheme):
        """At 2020 float32 tells 1.2e-4 apart: a step of 3e-4 is one of 2.4e-4, and its slope would be wrong by a fifth."""
        forward = CallableForward(lambda X: X[:, :2].astype(np.float64), (2,), 2, batch=8)
        X = np.array([[2020.0, 0.5]], np.float32)
        jacobian = DifferenceJacobian(forward, Coordinates(), scheme=scheme, step=1.0, field=np.array([3e-4, 1e-3]), own=True)
        (ends,) = jacobian.ends(X, forward.outputs(X), [Request(Sample(0, 0), 0, 2)])
        assert_allclose(((ends.plus - ends.minus) / ends.h)[:, :, 0], np.eye(2), rtol=1e-12, atol=1e-12)
        assert abs(float(np.ravel(ends.h)[0]) / (3e-4 * ROWS_PER_DIRECTION[scheme]) - 1) > 0.1


def test_directions_and_dither_are_drawn_many_at_once(monkeypatch):  # however few rows a call has
    from onnxfim.slopes import differences as module

    drawn = []
    true = module.dither_noise
    monkeypatch.setattr(
        module, "dither_noise", lambda stream, start, count, d: (drawn.append(count), true(stream, start, count, d))[1]
    )
    found = {}
    for batch in (1, 3, 64):
        drawn.clear()
        mlp = Mlp.draw(3, 6)
        forward = CallableForward(mlp.logits, (6,), 3, dtype="float64", batch=batch)
        jacobian = DifferenceJacobian(forward, Rademacher(0), scheme="dithered", step=0.01, dither=0.02)
        X = mlp.samples(2)
        requests = [Request(Sample(k, k), start, 9) for k, start in ((0, 0), (0, 9), (1, 2))]
        found[batch] = [e.plus for e in jacobian.ends(X, mlp.logits(X)[:, :, None], requests)]
        assert drawn == [9, 9, 9]
    for batch in (1, 3):
        for a, b in zip(found[batch], found[64], strict=True):
            assert_allclose(a, b, rtol=0, atol=1e-13)  # NumPy's products round by their number of rows
