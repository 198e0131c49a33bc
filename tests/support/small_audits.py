"""Pairs of audits whose true ratio is known, made without a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxfim.record.audit import Audit
from tests.support.audits import make_audit

GROUPS = 20


def with_values(audit: Audit, values, noise=0.0, replicates=None, measure="lambda_max_calibrated") -> Audit:
    """The audit with other values of one measure; ``noise`` is the log sd that the intervals tell."""
    samples = []
    for i, (s, value) in enumerate(zip(audit.samples, values, strict=True)):
        old = getattr(s, measure)
        half = np.exp(1.96 * noise)
        estimate = replace(old, value=float(value), low=float(value / half), high=float(value * half))
        relative = () if replicates is None else tuple(float(v) for v in replicates[i])
        samples.append(replace(s, **{measure: replace(estimate, plain=float(value), cross_fit=float(value), replicates=relative)}))
    group = audit.aggregates[measure]
    mean = replace(group.mean, value=float(np.mean(values)))
    return replace(audit, samples=tuple(samples), aggregates={**audit.aggregates, measure: replace(group, mean=mean)})


def heavy(n: int, rng, spread: float = 2.0):
    """Values of which few carry the mean."""
    return np.exp(rng.normal(0, spread, n))


def noisy(values, rng, sd: float, shared=None):
    """(estimates, pseudo-values relative to them): log-normal noise of ``sd``, from ``shared`` draws where given."""
    draws = rng.standard_normal((len(values), GROUPS)) if shared is None else shared
    pseudo = 1 + sd * np.sqrt(GROUPS) * draws  # (n, groups)
    factor = np.maximum(pseudo.mean(axis=1), 0.05)
    return values * factor, pseudo / factor[:, None]


def seeded(audit: Audit, seed: int) -> Audit:
    return replace(audit, run=replace(audit.run, seed=seed), settings=replace(audit.settings, seed=seed))


def small(n: int = 64) -> Audit:
    return make_audit(n)
