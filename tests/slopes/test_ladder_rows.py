"""What the ladder measured serves as measurement: the same rows, not run again, and a ladder that keeps within its part."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.auditing.run import audit
from onnxfim.record.settings import Settings
from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.runtime.rows import Rademacher
from onnxfim.slopes import ladder_rows
from onnxfim.slopes.differences import ROWS_PER_DIRECTION, DifferenceJacobian, Request, Sample
from onnxfim.slopes.dithering import LEAST_DIRECTIONS, LEAST_PASSES, LEAST_QUANTISED, Means
from onnxfim.slopes.ladder_rows import LadderRows
from onnxfim.slopes.step import LADDER
from tests.slopes.test_dithering import NETS, saved
from tests.slopes.test_step import choose
from tests.support.models import Mlp
from tests.support.places import SAMPLES

D, K = 40, 5
STEP, DITHER = 0.01, 0.02


class Counted:
    def __init__(self, fn):
        self.fn, self.rows = fn, 0

    def __call__(self, X):
        self.rows += len(X)
        return self.fn(X)


@pytest.fixture
def mlp():
    return Mlp.draw(K, D)


def measured(mlp, requests, scheme, known=None, **options):
    """Ends of the requests, and the rows that were run."""
    X = mlp.samples(3)
    fn = Counted(mlp.logits)
    forward = CallableForward(fn, (D,), K, dtype="float64", batch=7)
    base = mlp.logits(X)[:, :, None]
    dither = DITHER if scheme == "dithered" else 0.0
    jacobian = DifferenceJacobian(forward, Rademacher(0), scheme=scheme, step=STEP, dither=dither, known=known)
    return list(jacobian.ends(X, base, requests)), fn.rows


def kept(mlp, taken, directions=5):
    rows = LadderRows()
    dither = DITHER if taken == "dithered" else None
    for ends in measured(mlp, [Request(Sample(k, k), 0, directions) for k in (0, 2)], taken)[0]:
        rows.keep(STEP, dither, ends)
    return rows


@pytest.mark.parametrize("scheme", ROWS_PER_DIRECTION)
def test_known_rows_give_the_same_ends_and_are_not_run(mlp, scheme):  # 1e-13: NumPy's products round by their number of rows
    taken = "dithered" if scheme == "dithered" else "central"
    known = kept(mlp, taken).of(scheme, STEP, DITHER if scheme == "dithered" else None)
    # Wholly known, partly, from where the known ones end, across it, and a sample of which nothing is known.
    stretches = ((0, 0, 3), (0, 3, 6), (1, 0, 4), (2, 5, 2), (2, 0, 9))
    requests = [Request(Sample(k, k), start, count) for k, start, count in stretches]
    anew, all_rows = measured(mlp, requests, scheme)
    again, rows = measured(mlp, requests, scheme, known)
    assert all_rows - rows == (3 + 2 + 5) * ROWS_PER_DIRECTION[scheme]
    for a, b in zip(anew, again, strict=True):
        assert a.request == b.request
        assert_allclose(a.plus, b.plus, rtol=0, atol=1e-13)
        assert_allclose(a.minus, b.minus, rtol=0, atol=1e-13)
        if a.twin is not None:
            assert_allclose(a.twin.minus, b.twin.minus, rtol=0, atol=1e-13)


def test_rows_of_another_step_or_dither_are_not_taken(mlp):
    rows = kept(mlp, "dithered")
    assert rows.of("dithered", STEP, DITHER)
    assert not rows.of("dithered", STEP, 2 * DITHER)
    assert not rows.of("dithered", 2 * STEP, DITHER)
    assert not rows.of("central", STEP, None)
    rows.only(2 * STEP, None)
    assert not rows.of("dithered", STEP, DITHER)


def test_what_is_kept_is_bounded(mlp, monkeypatch):
    monkeypatch.setattr(ladder_rows, "_BYTES", 5 * 2 * K * 8)  # of one sample's five directions, both ends
    assert list(kept(mlp, "central").of("central", STEP, None)) == [0]


class TestSmallLadders:
    def test_three_steps_choose_where_they_have_a_plateau(self, mlp):
        X = mlp.samples(6)
        small = choose(mlp.logits, X, means=Means(8, 8, 192))
        assert small.evaluations <= LEAST_PASSES
        assert [g.step for g in small.curve] == list(LADDER[:3])
        whole = choose(mlp.logits, X)
        assert (small.scheme, small.plateau) == (whole.scheme, whole.plateau) == ("forward", True)

    def test_all_are_climbed_where_these_have_none(self, mlp):
        small = choose(lambda X: np.round(mlp.logits(X) / 0.1) * 0.1, mlp.samples(6), means=Means(8, 8, 192))
        assert small.scheme == "dithered"
        assert {*LADDER} <= {g.step for g in small.curve}

    def test_a_given_step_has_its_neighbours(self, mlp):
        small = choose(mlp.logits, mlp.samples(6), step=2e-3, means=Means(8, 8, 192))
        assert [g.step for g in small.curve] == [1e-3, 2e-3, 3e-3]
        assert (small.step, small.given) == (2e-3, True)

    @pytest.mark.parametrize(("passes", "samples"), [(96, 4), (96, 6), (900, 6), (3000, 6), (20_000, 6)])
    def test_dithered_steps_keep_to_their_part(self, passes, samples):
        means = Means(8, passes // 32, passes)
        count, steps = means.plan(samples, 0)
        assert 4 <= count <= 32
        assert 2 <= steps
        if count > 4:
            assert 4 * count * samples * 2 <= max(passes / 3, LEAST_PASSES)

    @pytest.mark.parametrize(("passes", "samples"), [(96, 2), (192, 2), (300, 3), (576, 6), (20_000, 6), (None, 6)])
    def test_a_quantised_file_is_climbed_at_as_many_samples_as_are_paid_for(self, passes, samples):
        means = Means(8, 8, passes, LEAST_QUANTISED)
        assert means.climbers(6) == samples
        count, steps = means.plan(samples, 0)
        assert count >= 4
        assert 4 * count * samples * 2 <= means.ladder
        assert steps >= 2
        assert means.climbers(1) == 1  # there may be no more

    def test_what_pays_for_all_of_it_is_as_without_a_limit(self):
        assert Means(25, 1000, 100_000).plan(6, 0)[0] == Means(25, 1000).plan(6, 0)[0]


class TestAudits:
    def test_a_tiny_audit_of_a_file_that_rounds(self, tmp_path):
        net = NETS["relu"]
        X = net.samples(64)
        found = audit(saved(tmp_path, net, X, "qdq"), X[:4], settings=Settings(bounds=False, flip=False, budget=24))
        # Two steps along four directions of two samples, and the noise of repeated calls.
        assert found.step.evaluations == LEAST_QUANTISED + 2
        assert len(found.step.samples) == 2
        measuring = sum(s.evaluations - 1 for s in found.samples)
        assert measuring == 4 * 4 * LEAST_DIRECTIONS <= 4 * 24
        # Beside the surrogate's check: the clean pass, the ladder, and what the ladder did not measure already.
        assert found.step.evaluations + measuring < 4 * 24 * 2

    def test_a_check_of_gradients_takes_a_brief_ladder(self):
        with np.load(SAMPLES / "digits.npz") as data:
            X = data["inputs"][:12]
        settings = Settings(bounds=False, flip=False, replay=0)
        found = audit(SAMPLES / "digits_mlp.onnx", X, settings=settings)
        assert found.run.method == "gradient"
        assert found.step.evaluations <= LEAST_PASSES
        assert (found.gradient.cross_checked, found.gradient.cross_check_ratio) == (6, 1.0)

    def test_where_there_is_no_derivative_after_all_the_step_is_chosen_with_care(self, monkeypatch):
        from onnxfim.auditing.stages import by_gradients

        monkeypatch.setattr(by_gradients, "derive", lambda *a: (_ for _ in ()).throw(ValueError("none")))
        with np.load(SAMPLES / "digits.npz") as data:
            X = data["inputs"][:24]
        told = []
        settings = Settings(bounds=False, flip=False, replay=0)
        broken = audit(SAMPLES / "digits_mlp.onnx", X, settings=settings, progress=told.append)
        plain = audit(SAMPLES / "digits_mlp.onnx", X, settings=Settings(bounds=False, flip=False, replay=0, method="sketch"))
        assert (broken.run.method, broken.step.step, broken.step.curve) == ("sketch", plain.step.step, plain.step.curve)
        assert [s.lambda_max for s in broken.samples] == [s.lambda_max for s in plain.samples]
        assert all(p.done <= p.total for p in told if p.total)
