"""Certificates against the published algorithm written out, exact coverage, and a linear classifier whose radius is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from onnxfim.record.smoothing_terms import ALPHA, CHOOSING
from onnxfim.slopes.smoothed import certificate, certified, fewest_kept


def lower(kept, n, alpha=ALPHA):
    """SciPy's own lower end, one-sided: that of a two-sided interval of twice the level."""
    return stats.binomtest(int(kept), n).proportion_ci(1 - 2 * alpha, method="exact").low


def plainly(votes, sigma, budget):
    """CERTIFY of Cohen et al. (2019) as printed: all rows, then the bound; of one sample's votes in a row."""
    classes, counts = np.unique(votes[:CHOOSING], return_counts=True)
    chosen = classes[counts.argmax()]
    p = lower((votes[CHOOSING : CHOOSING + budget] == chosen).sum(), budget)
    return (int(chosen), sigma * stats.norm.ppf(p)) if p > 0.5 else (None, 0.0)


class Votes:
    """Streams of votes, one for each sample; who asks gets the next ones."""

    def __init__(self, streams):
        self.streams, self.at, self.calls = streams, np.zeros(len(streams), int), []

    def __call__(self, which, rows):
        found = np.stack([self.streams[k, self.at[k] : self.at[k] + rows] for k in which])
        self.at[which] += rows
        self.calls.append((len(which), rows))
        return found


@pytest.mark.parametrize("budget", [100, 250, 1000])
def test_certificates_are_those_of_the_published_algorithm(budget):
    """Three classes, probabilities from hopeless to sure; rtol: two implementations of the incomplete beta function in float64."""
    rng = np.random.default_rng(0)
    p = np.linspace(0.2, 1.0, 60)
    streams = np.where(rng.random((60, CHOOSING + budget)) < p[:, None], 2, rng.integers(0, 2, (60, CHOOSING + budget)))
    found = certified(Votes(streams), 60, 0.5, budget)
    expected = [plainly(v, 0.5, budget) for v in streams]
    assert [c.prediction for c in found] == [e[0] for e in expected]
    assert_allclose([c.radius for c in found], [e[1] for e in expected], rtol=1e-9)
    assert {c.prediction is None for c in found} == {True, False}
    assert all(c.tries == budget for c in found if c.prediction is not None), "a radius rests on all rows"


def test_what_must_abstain_is_not_tried_to_the_end():
    rng = np.random.default_rng(1)
    streams = rng.integers(0, 5, (4, CHOOSING + 1000))  # a fifth each
    votes = Votes(streams)
    found = certified(votes, 4, 1.0, 1000)
    assert {c.prediction for c in found} == {None}
    for c, stream in zip(found, streams, strict=True):
        assert CHOOSING + c.tries < 900
        assert c.tries % 100 == 0, "looked at after so many rows of its own, whatever samples stand beside it"
        chosen = np.bincount(stream[:CHOOSING]).argmax()
        assert c.kept == (stream[CHOOSING : CHOOSING + c.tries] == chosen).sum()
        assert c.p_low <= lower((stream[CHOOSING:] == chosen).sum(), 1000), "rows that were not made count against the class"


def test_a_sample_does_not_depend_on_those_beside_it():
    rng = np.random.default_rng(2)
    streams = rng.integers(0, 2, (8, CHOOSING + 300)) * (rng.random((8, 1)) < 0.7)
    together = certified(Votes(streams), 8, 1.0, 300)
    alone = [certified(Votes(streams[k : k + 1]), 1, 1.0, 300)[0] for k in range(8)]
    assert together == alone


@pytest.mark.parametrize("budget", [100, 101, 777])
def test_the_fewest_rows_that_suffice(budget):
    counts = [k for k in range(budget + 1) if lower(k, budget) > 0.5]
    assert fewest_kept(budget) == counts[0]
    assert certificate(1.0, 3, counts[0], budget, budget).prediction == 3
    assert certificate(1.0, 3, counts[0] - 1, budget, budget).prediction is None


def test_numbers_that_are_none_are_no_votes():
    streams = np.full((2, CHOOSING + 100), -1)
    streams[1, ::2] = 1  # half the rows
    nothing, half = certified(Votes(streams), 2, 1.0, 100)
    assert (nothing.prediction, nothing.tries, nothing.radius) == (None, 0, 0.0)
    assert nothing.reason == "no output at a row with noise is a number"
    assert (half.prediction, half.reason) == (None, None), "a row without an answer counts against the class"


@pytest.mark.parametrize("n", [100, 1000])
def test_the_bound_of_the_probability_holds_as_often_as_it_says(n):
    """Exactly, by summing the binomial: at no probability is the bound above it more often than α.

    atol: SciPy's interval is a root that is searched for to 2e-12."""
    bounds = np.array([certificate(1.0, 0, k, n, n).p_low for k in range(n + 1)])
    assert_allclose(bounds[1:], [lower(k, n) for k in range(1, n + 1)], rtol=1e-9, atol=4e-12)
    for p in np.linspace(0.02, 0.9999, 400):
        wrong = stats.binom.pmf(np.arange(n + 1), n, p)[bounds > p].sum()
        assert wrong <= ALPHA * (1 + 1e-6), "rounding of the sum"


def linear_votes(distance, sigma, budget, samples, rng):
    """Votes of ``sign(wᵀx + b)`` under noise, for samples so far from the plane: class 1 with probability Φ(distance / σ)."""
    return (distance + sigma * rng.standard_normal((samples, CHOOSING + budget)) > 0).astype(int)


@pytest.mark.parametrize("distance", [0.05, 0.3, 0.9])
def test_a_linear_classifier_is_certified_for_less_than_its_distance(distance):
    """Its smoothed classifier is itself, so that the true radius is the distance. At most α of the runs may say more: of 4,000
    that is 4, and 16 or more come with a chance of 4e-6."""
    rng, sigma = np.random.default_rng(3), 0.5
    found = certified(Votes(linear_votes(distance, sigma, 200, 4000, rng)), 4000, sigma, 200)
    radii = np.array([c.radius for c in found])
    assert (radii > distance).sum() < 16
    assert all(c.p_low <= stats.norm.cdf(distance / sigma) for c in found if c.radius <= distance and c.prediction == 1)
    wrong = sum(c.prediction == 0 for c in found)
    assert wrong < 16, "nor another class"
    if distance == 0.9:  # Φ(1.8) is 0.964: what 200 rows certify is not far below
        assert np.median(radii) > 0.6 * distance


def test_more_rows_certify_more():
    rng = np.random.default_rng(4)
    medians = [
        np.median([c.radius for c in certified(Votes(linear_votes(0.5, 0.5, n, 50, rng)), 50, 0.5, n)]) for n in (100, 1000, 10000)
    ]
    assert medians == sorted(medians)
    assert 0.9 * 0.5 < medians[-1] < 0.5
