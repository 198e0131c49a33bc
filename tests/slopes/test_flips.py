"""The flip radius against closed forms: linear models, boxes, batches, models that are steps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.runtime.rows import Coordinates, Rademacher
from onnxfim.slopes.blocks import Block
from onnxfim.slopes.differences import DifferenceJacobian, Ends, Request, Sample
from onnxfim.slopes.flips import PRECISION, ValidRange, margins, smallest_flips, valid_range
from onnxfim.slopes.kinds.sigmoid import SigmoidLogits
from onnxfim.slopes.kinds.softmax import SoftmaxLogits
from onnxfim.slopes.leads import lead_of_directions, nearest_boundary
from onnxfim.slopes.scored import Scored
from tests.support.models import Linear, covariance

FOUND = PRECISION + 1e-4  # the bracket's width, and float32 rows


class Model:
    """A decision function that counts its rows; it tells no margins unless it has logits."""

    def __init__(self, decide, logits=None):
        self.decide, self.logits, self.rows, self.calls = decide, logits, 0, 0

    def __call__(self, X, before, of):
        self.rows += len(X)
        self.calls += 1
        X = X.reshape(len(X), -1).astype(np.float64)
        margin = np.full(len(X), np.nan) if self.logits is None else margins(SoftmaxLogits(), self.logits(X)[:, :, None], before)
        return self.decide(X), margin


def box(d, low=-1e3, high=1e3):
    return ValidRange(np.full(d, float(low)), np.full(d, float(high)), "a box")


def linear_flip(model, x, v):
    """The smallest t > 0 at which ``W(x + tv) + b`` has another largest entry, in closed form."""
    z, slope = model.logits(x[None])[0], model.W @ v
    c = z.argmax()
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (z[c] - z) / (slope - slope[c])
    return t[np.isfinite(t) & (t > 0)].min(initial=np.inf)


class TestLinear:
    MODEL = Linear.draw(5, 12)
    X = MODEL.samples(40)

    def rays(self):
        V = []
        for x in self.X:
            p = softmax(self.MODEL.logits(x[None])[0])
            v = np.linalg.eigh(self.MODEL.W.T @ covariance(p) @ self.MODEL.W)[1][:, -1]
            V.append([v, -v])
        return np.array(V)

    def search(self, expected=1.0, chosen=slice(None), decide=None, guided=True):
        X = self.X[chosen]
        model = Model(decide or (lambda x: self.MODEL.logits(x).argmax(axis=1)), self.MODEL.logits if guided else None)
        before = self.MODEL.logits(X).argmax(axis=1)
        margin = margins(SoftmaxLogits(), self.MODEL.logits(X)[:, :, None], before) if guided else None
        return smallest_flips(model, X, before, self.rays()[chosen], box(12), np.full(len(X), expected), margin), model

    @pytest.mark.parametrize("guided", [True, False])  # by margins, or blindly
    @pytest.mark.parametrize("expected", [1e-3, 0.3, 30.0])  # the ladder starts far below, near, and far above
    def test_both_signs_along_the_fisher_direction(self, expected, guided):
        found, _ = self.search(expected, guided=guided)
        truth = np.array(
            [
                min(linear_flip(self.MODEL, x, v), linear_flip(self.MODEL, x, w))
                for x, (v, w) in zip(self.X, self.rays(), strict=True)
            ]
        )
        reached = truth < 900 * expected
        assert reached.sum() > 20
        assert (found.distance[reached] >= truth[reached] * (1 - 1e-5)).all(), "an upper bound"
        assert_allclose(found.distance[reached], truth[reached], rtol=FOUND)
        side = [
            linear_flip(self.MODEL, x, w) < linear_flip(self.MODEL, x, v) for x, (v, w) in zip(self.X, self.rays(), strict=True)
        ]
        assert_array_equal(found.ray[reached], np.array(side, int)[reached])

    def test_the_move_is_the_one_that_flipped(self):  # float32 rows
        found, _ = self.search()
        flipped = np.isfinite(found.distance)
        assert flipped.sum() > 20
        assert_allclose(np.linalg.norm(found.move, axis=1)[flipped], found.distance[flipped], rtol=1e-6)
        before, after = (self.MODEL.logits(x).argmax(axis=1) for x in (self.X, self.X + found.move))
        assert_array_equal(after != before, flipped)
        assert not found.move[~flipped].any()

    def test_all_at_once_is_one_at_a_time(self):
        together, model = self.search()
        alone = [self.search(chosen=slice(k, k + 1))[0] for k in range(len(self.X))]
        assert_array_equal(together.distance, np.concatenate([a.distance for a in alone]))
        assert_array_equal(together.passes, np.concatenate([a.passes for a in alone]))
        assert model.calls <= 40, "samples share their calls"

    @pytest.mark.parametrize(("guided", "rows"), [(True, 6), (False, 26)])
    def test_every_row_is_counted_and_they_are_few(self, guided, rows):
        found, model = self.search(0.5, guided=guided)
        assert model.rows == found.passes.sum()
        assert found.passes.mean() < rows

    def test_margins_that_are_rounded_otherwise_change_nothing(self):
        whole, _ = self.search(0.5)

        def rounded(x):
            return self.MODEL.logits(x).astype(np.float32)

        before = self.MODEL.logits(self.X).argmax(axis=1)
        model = Model(lambda x: self.MODEL.logits(x).argmax(axis=1), rounded)
        margin = margins(SoftmaxLogits(), rounded(self.X)[:, :, None], before)
        found = smallest_flips(model, self.X, before, self.rays(), box(12), np.full(len(self.X), 0.5), margin)
        assert_array_equal(found.distance, whole.distance)

    def test_what_is_not_a_number_is_no_flip(self):
        def broken(x):
            decided = self.MODEL.logits(x).argmax(axis=1)
            return np.where(decided == decided_before, decided, -1)  # elsewhere its outputs are not numbers

        decided_before = self.MODEL.logits(self.X[:1]).argmax()
        found, _ = self.search(chosen=slice(0, 1), decide=broken)
        assert np.isinf(found.distance).all()

    def test_a_ray_of_zeros_is_left_out(self):
        X, rays = self.X[:2], self.rays()[:2].copy()
        rays[0] = 0.0
        model = Model(lambda x: self.MODEL.logits(x).argmax(axis=1))
        found = smallest_flips(model, X, self.MODEL.logits(X).argmax(axis=1), rays, box(12), np.ones(2))
        assert np.isinf(found.distance[0])
        assert found.passes[0] == 0
        assert np.isfinite(found.distance[1])


class TestBox:
    def step(self, threshold):
        """Decides by the sum of the coordinates."""
        return Model(lambda x: (x.sum(axis=1) > threshold).astype(int))

    def test_the_length_is_that_of_the_projected_move(self):
        # From (0.5, 0.5, 0.5) along (1, 1, 1) up to sum 2.4: each moves 0.3. With one at its end the others move 0.7 / 2.
        X = np.array([[0.5, 0.5, 0.5], [0.7, 0.5, 1.0]], np.float32)
        rays = np.ones((2, 1, 3))
        found = smallest_flips(self.step(2.4), X, np.array([0, 0]), rays, box(3, 0, 1), np.full(2, 0.1))
        assert_allclose(found.distance, [0.3 * np.sqrt(3), 0.1 * np.sqrt(2)], rtol=FOUND)

    def test_coordinates_at_their_end_stay_while_others_go_on(self):
        # Coordinate 0 reaches 1 after 0.1; the sum 2.7 then needs 1.1 of the other two: 0.5 each is all there is.
        X = np.array([[0.9, 0.5, 0.5]], np.float32)
        found = smallest_flips(self.step(2.7), X, np.array([0]), np.ones((1, 1, 3)), box(3, 0, 1), np.array([0.1]))
        moved = 0.1**2 + 2 * 0.35**2  # 2.7 = 1 + 2 · 0.85
        assert_allclose(found.distance, np.sqrt(moved), rtol=FOUND)

    def test_no_flip_inside_the_box(self):
        X = np.full((1, 3), 0.5, np.float32)
        model = self.step(3.5)
        found = smallest_flips(model, X, np.array([0]), np.ones((1, 1, 3)), box(3, 0, 1), np.array([0.1]))
        assert np.isinf(found.distance[0])
        assert model.rows == found.passes[0] <= 10, "it ends at the corner"

    def test_no_row_leaves_the_box_and_a_sample_outside_may_stay(self):
        seen = []

        def decide(x):
            seen.append(x)
            return np.zeros(len(x), int)

        X = np.array([[0.2, 1.5]], np.float32)  # the second lies outside
        smallest_flips(Model(decide), X, np.array([0]), np.array([[[1.0, 1.0], [-1.0, -2.0]]]), box(2, 0, 1), np.array([0.3]))
        rows = np.concatenate(seen)
        assert rows[:, 0].min() >= 0
        assert rows[:, 0].max() <= 1
        assert rows[:, 1].max() <= 1.5
        assert rows[:, 1].min() >= 0

    def test_alike_coordinates_share_a_range_and_features_have_their_own(self):
        rng = np.random.default_rng(0)
        pixels = rng.random((30, 4, 4)).astype(np.float32)
        pixels[:, 0] = 0.0  # a constant border
        shared = valid_range(pixels, None, None)
        assert shared.low.min() == shared.low.max() == 0.0
        assert shared.high.min() == shared.high.max() == pixels.max()
        features = rng.random((30, 4)).astype(np.float32) * np.array([1, 0.1, 5e4, 3], np.float32)
        own = valid_range(features, None, None)
        assert_array_equal(own.low, features.min(axis=0))
        assert_array_equal(own.high, features.max(axis=0))
        assert valid_range(features[:3], None, None).high.min() == features[:3].max(), "three samples have no range of their own"

    def test_what_was_given_comes_first_then_the_files_own(self):
        X = np.zeros((3, 2), np.float32)
        assert valid_range(X, (0.0, 1.0), (-5.0, 5.0)).high[0] == 1.0
        assert valid_range(X, None, (-5.0, 5.0)).high[0] == 5.0
        assert "the file tells apart" in valid_range(X, None, (-5.0, 5.0)).source


class TestRounding:
    def test_float16_rows_are_what_is_measured(self):
        # At 1000 float16 steps by 0.5 upwards of 512: a move of 0.3 is none, the shortest possible is 0.5.
        X = np.full((1, 1), 1000.0, np.float16)
        found = smallest_flips(
            Model(lambda x: (x[:, 0] > 1000).astype(int)), X, np.array([0]), np.ones((1, 1, 1)), box(1, 0, 2000), np.array([0.1])
        )
        assert found.distance[0] == 0.5

    def test_a_sample_on_the_boundary_ends(self):
        X = np.zeros((1, 2), np.float32)
        found = smallest_flips(
            Model(lambda x: (x[:, 0] > 0).astype(int)), X, np.array([0]), np.array([[[1.0, 0.0]]]), box(2), np.array([1.0])
        )
        assert 0 < found.distance[0] < 1e-5
        assert found.passes[0] < 20


def leads(reader, z, J, x, allowed=None):
    """Weights of the outputs of one sample, (2, K), from its whole Jacobian."""
    return Block(reader, x[None], z[None], J[None], allowed).leads()[0]


class TestLeads:
    MODEL = Linear.draw(4, 30)
    X = MODEL.samples(3)

    def ends(self, directions, count, step=1e-3):
        forward = CallableForward(lambda rows: self.MODEL.logits(rows), (30,), 4, dtype=np.float64, batch=64)
        base = forward.outputs(self.X)
        jacobian = DifferenceJacobian(forward, directions, scheme="central", step=step)
        requests = [Request(Sample(k, k), 0, count) for k in range(len(self.X))]
        return base, list(jacobian.ends(self.X.astype(np.float64), base, requests))

    def test_all_coordinates_give_both_directions(self):  # 1e-6: central differences of a linear function
        base, ends = self.ends(Coordinates(), 30)
        for x, z, e in zip(self.X, base, ends, strict=True):
            fisher, towards = lead_of_directions(Scored(SoftmaxLogits(), z, e))
            top = np.linalg.eigh(self.MODEL.fisher(x))[1][:, -1]
            assert abs(fisher @ top) == pytest.approx(np.linalg.norm(fisher), rel=1e-6)
            c = z[:, 0].argmax()
            norms = np.linalg.norm(self.MODEL.W - self.MODEL.W[c], axis=1)
            j = np.nanargmin(np.where(norms > 0, (z[c, 0] - z[:, 0]) / np.where(norms > 0, norms, 1), np.inf))
            assert_allclose(towards, self.MODEL.W[j] - self.MODEL.W[c], rtol=1e-6, atol=1e-8)

    def test_weights_of_outputs_are_the_same_directions(self):  # 1e-6 as above
        base, ends = self.ends(Coordinates(), 30)
        for x, z, e in zip(self.X, base, ends, strict=True):
            for ours, theirs in zip(
                leads(SoftmaxLogits(), z, self.MODEL.W, x) @ self.MODEL.W,
                lead_of_directions(Scored(SoftmaxLogits(), z, e)),
                strict=True,
            ):
                cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
                assert abs(cosine) == pytest.approx(1.0, rel=1e-6)

    @pytest.mark.parametrize("scale", [1.0, 40.0])  # saturated: probabilities down to 1e-60 beside one of 1
    def test_they_are_those_of_all_slopes_where_it_is_saturated(self, scale):  # 1e-9: float64 throughout
        model = Linear.draw(6, 30, scale=scale)
        for x in model.samples(5).astype(np.float64):
            z = model.logits(x[None])[0][:, None]
            ends = Ends(Request(Sample(0, 0), 0, 30), model.W.T[:, :, None], np.zeros((1, 6, 1)), 1.0)
            ours = leads(SoftmaxLogits(), z, model.W, x)[0] @ model.W
            theirs = lead_of_directions(Scored(SoftmaxLogits(), z, ends))[0]
            assert abs(ours @ theirs) / np.linalg.norm(ours) / np.linalg.norm(theirs) == pytest.approx(1.0, rel=1e-9)

    def test_a_sketched_direction_has_the_cosine_it_is_said_to_have(self):  # a third of it: the spread over three samples
        m = 60
        base, ends = self.ends(Rademacher(0), m)
        for k, (x, z, e) in enumerate(zip(self.X, base, ends, strict=True)):
            v = lead_of_directions(Scored(SoftmaxLogits(), z, e))[0] @ Rademacher(0).block(k, 0, m, 30)
            top = np.linalg.eigh(self.MODEL.fisher(x))[1][:, -1]
            assert abs(v @ top) / np.linalg.norm(v) == pytest.approx(np.sqrt(m / (m + 30)), rel=1 / 3)

    def test_one_sigmoid_output_is_a_contest_with_zero(self):
        lone = Linear.draw(1, 6)
        x = lone.samples(1)[0]
        z = lone.logits(x[None])[0][:, None]
        towards = leads(SigmoidLogits(), z, lone.W, x)[1]
        assert_allclose(towards, [-np.sign(z[0, 0])])

    def test_no_slope_no_lead(self):
        base, ends = self.ends(Coordinates(), 30)
        flat = ends[0].__class__(ends[0].request, 0 * ends[0].plus, 0 * ends[0].minus, ends[0].h)
        assert not lead_of_directions(Scored(SoftmaxLogits(), base[0], flat)).any()
        assert not leads(SoftmaxLogits(), base[0], np.zeros((4, 30)), self.X[0]).any()

    def test_a_coordinate_without_room_does_not_count_on_the_way(self):
        # Class 1 is nearer by its slope 10 along coordinate 0, which stands at its upper end; class 2 by slope 1 along coordinate 1.
        z = np.array([1.0, 0.0, 0.0])
        D = np.array([[0.0, 10.0, 0.0], [0.0, 0.0, 1.0]])
        assert nearest_boundary(z, D) == (0, 1)
        for where, nearest in (([0.5, 0.5], 1), ([1.0, 0.5], 2)):
            towards = leads(SoftmaxLogits(), z[:, None], D.T, np.array(where), box(2, 0, 1))[1]
            assert_allclose(towards, np.eye(3)[nearest] - np.eye(3)[0])
        assert nearest_boundary(z, np.zeros((2, 3))) is None
