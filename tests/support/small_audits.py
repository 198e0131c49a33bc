"""Audits with values that a test knows, made without a model: pairs of a true ratio, flips at given lengths."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.sample import Estimate
from tests.support.audits import make_audit, with_flips

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


def flipped(audit: Audit, radii, lengths=None) -> Audit:
    """The audit with these flip radii; NaN for a sample that did not flip, None for one that was not tried."""
    none = Estimate(None, kind="upper bound", evaluations=20, reason="no flip")
    cut = Estimate(None, kind="upper bound", reason="the run was interrupted before it was measured")
    estimates = [cut if r is None else none if math.isnan(r) else Estimate(r, None, r, "upper bound", "", 20) for r in radii]
    lengths = lengths or [None] * len(radii)
    return replace(
        audit,
        samples=tuple(replace(s, flip_radius=e, flip_lengths=k) for s, e, k in zip(audit.samples, estimates, lengths, strict=True)),
    )


def small(n: int = 64) -> Audit:
    return make_audit(n)


def cifar_like(lam=1.0, *, shape=(3, 32, 32), low=0.0, high=1.0, scale=None, n=60, radius=0.3):
    """An audit of inputs of CIFAR-10's shape whose mean calibrated λ_max and flip radii, all in model units, are these."""
    audit = make_audit(n)
    mean = replace(audit.aggregates["lambda_max_calibrated"].mean, value=lam, low=lam, high=lam)
    known = replace(audit.aggregates["lambda_max_calibrated"], mean=mean)
    return with_radius(
        replace(
            audit,
            data=replace(audit.data, shape=shape, input_min=low, input_max=high, class_names=None, source="data.npz"),
            model=replace(audit.model, name="net.onnx", num_outputs=10),
            aggregates={**audit.aggregates, "lambda_max_calibrated": known},
            settings=replace(audit.settings, input_scale=scale),
            run=replace(audit.run, method="gradient"),
        ),
        radius,
    )


def with_radius(audit, radius):
    audit = with_flips(audit)
    samples = tuple(
        replace(s, flip_radius=replace(s.flip_radius, value=radius, low=None, high=radius, reason=None)) for s in audit.samples
    )
    return replace(audit, samples=samples)
