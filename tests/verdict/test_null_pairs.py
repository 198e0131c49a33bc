"""Pairs that have nothing to decide: whatever is called decided of them is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from onnxfim.verdict.compare import compare
from tests.support.audits import make_audit
from tests.support.small_audits import heavy, noisy, seeded, with_values


def of_one_model(audit, seed, rng, truth):
    """The model's audit along directions of its own: the same values, with other noise."""
    distances = [s.boundary_distance.value * np.exp(rng.normal(0, 0.08)) for s in audit.samples]
    found = with_values(audit, noisy(truth, rng, 0.15)[0], noise=0.15)
    return seeded(with_values(found, distances, measure="boundary_distance"), seed)


@pytest.mark.slow
def test_a_model_is_not_decided_against_itself():
    # 2.5 % is what may be wrong; the closed test stays below, so that 200 pairs need no allowance for chance.
    rng = np.random.default_rng(0)
    audit = make_audit(40)
    wrong = 0
    for _ in range(200):
        truth = heavy(40, rng)
        (pair,) = compare([of_one_model(audit, seed, rng, truth) for seed in (1, 2)]).pairs
        wrong += pair.decided.better is not None
    assert wrong / 200 <= 0.025


@pytest.mark.slow
def test_models_whose_samples_change_places_are_not_decided():
    rng = np.random.default_rng(1)
    audit = make_audit(40)
    wrong = 0
    for _ in range(100):
        one = with_values(
            audit, [s.boundary_distance.value * np.exp(rng.normal(0, 0.5)) for s in audit.samples], measure="boundary_distance"
        )
        one = with_values(one, heavy(40, rng))
        turned = rng.random(40) < 0.5
        pairs = [(a, b)[::-1] if t else (a, b) for a, b, t in zip(audit.samples, one.samples, turned, strict=True)]
        swapped = [replace(audit, samples=tuple(p[k] for p in pairs)) for k in (0, 1)]
        (pair,) = compare(swapped).pairs
        wrong += pair.decided.better is not None
    assert wrong / 100 <= 0.05  # 2.5 % has a standard error of 1.6 %


@pytest.mark.slow
def test_ranks_of_several_copies_are_all_open():
    # Of five copies of one model no rank is excluded, in at least 97.5 % of draws.
    rng = np.random.default_rng(2)
    audit = make_audit(40)
    excluded = 0
    for _ in range(60):
        truth = heavy(40, rng)
        found = compare([of_one_model(audit, seed, rng, truth) for seed in range(5)])
        excluded += any((e.rank_low, e.rank_high) != (1, 5) for e in found.entries)
    assert excluded <= 4  # of 60 draws 1.5 may, with a standard deviation of 1.2
