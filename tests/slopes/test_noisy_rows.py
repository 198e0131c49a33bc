"""Rows with noise: drawn once for all samples, whatever the batch, and counted as a plain loop counts them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import kstest

from onnxfim.record.noises import noises
from onnxfim.record.successive_looks import CHUNK
from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.slopes.kinds import SoftmaxLogits
from onnxfim.slopes.noisy_rows import NoisyRows, drawn
from tests.support.models import Mlp

GAUSSIAN, UNIFORM = noises(("gaussian:0.5", "uniform:1/4"))
d, K = 12, 4
MODEL = Mlp.draw(K, d)
X = MODEL.samples(5)


class Watched(CallableForward):
    """A function of rows that keeps what it was called with."""

    def __init__(self, batch, fn=MODEL.logits):
        super().__init__(self._seen, (d,), K, batch=batch)
        self.fn, self.rows, self.sizes = fn, [], []

    def _seen(self, rows):
        self.rows.append(rows.copy())
        self.sizes.append(len(rows))
        return self.fn(rows)


def kept(parts, batch=64, noise=GAUSSIAN, seed=0, fn=MODEL.logits, **options):
    forward = Watched(batch, fn)
    rows = NoisyRows(forward, SoftmaxLogits(), noise, seed, **options)
    found = list(rows.kept(X, MODEL.logits(X).argmax(axis=1), parts, np.arange(len(X))))
    return found, forward


@pytest.mark.parametrize(("noise", "law"), [(GAUSSIAN, ("norm", ())), (UNIFORM, ("uniform", (-1.0, 2.0)))])
def test_noise_has_its_distribution(noise, law):
    """In units of its size; Kolmogorov and Smirnov at one in ten thousand, and independent numbers within four standard errors."""
    draws = np.concatenate([drawn(noise, 3, chunk, 50) for chunk in range(40)])
    assert draws.dtype == np.float32
    assert kstest(draws.ravel(), law[0], args=law[1]).pvalue > 1e-4
    correlations = np.corrcoef(draws.T)[np.triu_indices(50, 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(len(draws))
    between = np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]
    assert abs(between) < 4 / np.sqrt(draws.size)


def test_chunks_seeds_and_kinds_have_streams_of_their_own():
    ways = [(GAUSSIAN, 0, 0), (GAUSSIAN, 0, 1), (GAUSSIAN, 1, 0), (UNIFORM, 0, 0)]
    draws = [drawn(*way, d) for way in ways]
    assert all(not np.array_equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    assert_array_equal(drawn(GAUSSIAN, 0, 1, d), draws[1])


@pytest.mark.parametrize("batch", [1, 7, 32, 50, 1000])
def test_rows_and_counts_are_a_plain_loops_whatever_the_batch(batch):
    parts = [(0, 0), (3, 0), (4, 0), (0, 1), (4, 1), (4, 2)]
    found, forward = kept(parts, batch)
    rows = np.concatenate([X[k] + 0.5 * drawn(GAUSSIAN, 0, chunk, d) for k, chunk in parts])
    assert_array_equal(np.concatenate(forward.rows), rows.astype(np.float32))
    assert forward.sizes[:-1] == [batch] * (len(forward.sizes) - 1)  # full, whatever parts they are of
    same = MODEL.logits(rows).argmax(axis=1).reshape(-1, CHUNK) == np.repeat(
        [[MODEL.logits(X[[k]]).argmax()] for k, _ in parts], 1, 1
    )
    assert found == [(part, int(count)) for part, count in zip(parts, same.sum(axis=1), strict=True)]
    assert 0 < sum(count for _, count in found) < len(rows)


def test_a_sample_has_the_same_rows_beside_any_others():
    alone, together = kept([(2, 0), (2, 1)])[0], kept([(k, c) for c in range(2) for k in range(5)])[0]
    assert alone == [f for f in together if f[0][0] == 2]


def test_sizes_are_in_raw_units_of_each_coordinate():
    scale = np.linspace(0.1, 2, d)
    _, forward = kept([(1, 0)], scale=scale)
    moves = np.concatenate(forward.rows) - X[1]
    np.testing.assert_allclose(moves, 0.5 * scale * drawn(GAUSSIAN, 0, 0, d), rtol=1e-4, atol=1e-6)  # float32 sums


def test_whole_levels_are_kept():
    _, forward = kept([(1, 0)], grid=(-1.0, 1.0, 0.125))
    rows = np.concatenate(forward.rows)
    assert_array_equal(rows, np.clip(np.round((X[1] + 0.5 * drawn(GAUSSIAN, 0, 0, d)) * 8) / 8, -1, 1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_keeps_nothing(value):
    def broken(rows):
        z = MODEL.logits(rows)
        z[rows[:, 0] > X[0, 0], 1] = value
        return z

    moves = drawn(GAUSSIAN, 0, 0, d)
    (found,), _ = kept([(0, 0)], fn=broken)
    rows = X[0] + 0.5 * moves
    good = (MODEL.logits(rows).argmax(axis=1) == MODEL.logits(X[:1]).argmax()) & (rows.astype(np.float32)[:, 0] <= X[0, 0])
    assert found[1] == good.sum()


def test_a_batch_that_becomes_smaller_loses_no_row():
    class Halving(Watched):
        def _seen(self, rows):
            self.finder.batch = max(self.finder.batch // 2, 5)
            return super()._seen(rows)

    parts = [(k, c) for c in range(4) for k in range(5)]
    forward = Halving(128)
    rows = NoisyRows(forward, SoftmaxLogits(), GAUSSIAN, 0)
    found = list(rows.kept(X, MODEL.logits(X).argmax(axis=1), parts, np.arange(5)))
    assert found == kept(parts)[0]
    assert len(set(forward.sizes)) > 2
