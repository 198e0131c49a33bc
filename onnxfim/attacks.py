"""Attack replay on the derivative graph: FGSM, projected gradient with restarts, and the smallest successful step.

A check of the metric. What is found is an upper bound of the true smallest distance; what is not found proves nothing
(Croce & Hein 2020 on masked gradients).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Norm: TypeAlias = Literal["l2", "linf"]

#: Logits (N, K) and the gradient (N, *shape) of the cross-entropy by x, for targets (N, K).
LossGradient: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Threat:
    """What the attacker may do: change the input by δ with ``‖δ / scale‖ ≤ ε``, inside a range of values.

    Attributes:
        norm: Norm of δ.
        low, high: Range of the input values.
        scale: d(model input)/d(raw input) per coordinate, broadcastable to a sample; distances are in raw units.
    """

    norm: Norm
    low: Array | float
    high: Array | float
    scale: Array | float = 1.0

    def size(self, delta: Array) -> Array:
        """Norm of each δ (N, *shape) in raw units, (N,)."""
        flat = (delta / self.scale).reshape(len(delta), -1).astype(np.float64)
        return np.linalg.norm(flat, axis=1) if self.norm == "l2" else np.abs(flat).max(axis=1)

    def project(self, X: Array, delta: Array, radius: Array) -> Array:
        """δ brought back into the ball of each sample's radius (N,) and into the range, as the model will see it."""
        raw = delta / self.scale
        r = _spread(radius, raw)
        if self.norm == "l2":
            norms = np.maximum(np.linalg.norm(raw.reshape(len(raw), -1), axis=1), 1e-30)
            raw = raw * np.minimum(1.0, r / _spread(norms, raw))
        else:
            raw = np.clip(raw, -r, r)
        return np.clip(X + raw * self.scale, self.low, self.high) - X

    def ascent(self, gradient: Array) -> Array:
        """The unit step in raw units that raises the loss most, (N, *shape), in model units."""
        raw = gradient * self.scale  # chain rule: d/d(raw) = scale · d/d(input)
        if self.norm == "linf":
            return np.sign(raw) * self.scale
        flat = np.linalg.norm(raw.reshape(len(raw), -1), axis=1)
        return raw / _spread(np.maximum(flat, 1e-30), raw) * self.scale


def fgsm(gradient: LossGradient, X: Array, labels: Array, threat: Threat, radius: float) -> Array:
    """One step of the fast gradient method (Goodfellow et al. 2015): δ (N, *shape)."""
    _, g = gradient(X, _one_hot(labels, gradient, X))
    return threat.project(X, radius * threat.ascent(g), np.full(len(X), radius))


def pgd(
    gradient: LossGradient,
    X: Array,
    labels: Array,
    threat: Threat,
    radius: float,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Projected gradient ascent on the cross-entropy from the sample and from random starts (Madry et al. 2018).

    Returns:
        (success (N,) bool, δ (N, *shape) of the first success, or of the last try).
    """
    target = _one_hot(labels, gradient, X)
    success = np.zeros(len(X), bool)
    found = np.zeros_like(X)
    radii = np.full(len(X), radius)
    for restart in range(restarts):
        left = np.flatnonzero(~success)
        if len(left) == 0:
            break
        x, y, t = X[left], labels[left], target[left]
        delta = np.zeros_like(x) if restart == 0 else threat.project(x, _random(x, threat, radius, rng), radii[left])
        for step in range(steps):
            z, g = gradient(x + delta, t)
            hit = z.argmax(axis=1) != y
            fresh = hit & ~success[left]
            found[left[fresh]], success[left[fresh]] = delta[fresh], True
            size = radius * max(2.5 / steps, 0.25 * (1 - step / steps))  # long steps first, then short ones
            delta = threat.project(x, delta + size * threat.ascent(g), radii[left])
        z, _ = gradient(x + delta, t)
        fresh = (z.argmax(axis=1) != y) & ~success[left]
        found[left[fresh]], success[left[fresh]] = delta[fresh], True
        rest = ~success[left]
        found[left[rest]] = delta[rest]
    return success, found


def smallest_l2(
    gradient: LossGradient, X: Array, labels: Array, threat: Threat, *, steps: int, rng: np.random.Generator, start: float = 1.0
) -> tuple[Array, Array]:
    """Smallest successful L2 step per sample by decoupling direction and norm (Rony et al. 2019), then a line search.

    Each step moves along the gradient and sets the norm: less where the point is adversarial, more where it is not. A final
    bisection on the segment to the sample takes off what is left.

    Returns:
        (distance (N,), inf where nothing was found; δ (N, *shape)).
    """
    n = len(X)
    target = _one_hot(labels, gradient, X)
    best, found = np.full(n, np.inf), np.zeros_like(X)
    delta, radius = np.zeros_like(X), np.full(n, start)
    for step in range(steps):
        z, g = gradient(X + delta, target)
        hit = z.argmax(axis=1) != labels
        size = threat.size(delta)
        better = hit & (size < best)
        best[better], found[better] = size[better], delta[better]
        rate = 0.5 * (1 + np.cos(np.pi * step / steps)) * 0.99 + 0.01  # cosine from 1 to 0.01
        moved = delta + _spread(rate * np.maximum(radius, 1e-6), delta) * threat.ascent(_jittered(g, rng))
        gamma = 0.05 if step < steps // 2 else 0.02
        radius = np.where(hit, np.minimum(radius, size) * (1 - gamma), radius * (1 + gamma))
        raw = moved / threat.scale
        norms = np.maximum(np.linalg.norm(raw.reshape(n, -1), axis=1), 1e-30)
        delta = np.clip(X + raw * _spread(radius / norms, raw) * threat.scale, threat.low, threat.high) - X
    return _bisected(gradient, X, labels, target, threat, best, found)


def _bisected(
    gradient: LossGradient, X: Array, labels: Array, target: Array, threat: Threat, best: Array, found: Array, rounds: int = 10
) -> tuple[Array, Array]:
    """Shorten each successful δ along its own segment as far as it stays successful."""
    low, high = np.zeros(len(X)), np.ones(len(X))
    for _ in range(rounds):
        middle = (low + high) / 2
        z, _ = gradient(X + found * _spread(middle, found), target)
        hit = z.argmax(axis=1) != labels
        low, high = np.where(hit, low, middle), np.where(hit, middle, high)
    shorter = (found * _spread(high, found)).astype(found.dtype)
    size = threat.size(shorter)
    z, _ = gradient(X + shorter, target)
    good = np.isfinite(best) & (z.argmax(axis=1) != labels) & (size < best)
    found = np.where(_spread(good, found), shorter, found)
    return np.where(good, size, best), found


def smallest_linf(
    gradient: LossGradient,
    X: Array,
    labels: Array,
    threat: Threat,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
    start: float,
) -> tuple[Array, Array]:
    """Smallest successful L∞ radius per sample by doubling, then bisection over projected gradient attacks."""
    n = len(X)
    low, high = np.zeros(n), np.full(n, np.inf)
    found = np.zeros_like(X)
    radius = np.full(n, start)
    for _ in range(12):
        for r in np.unique(radius[np.isfinite(radius)]):
            here = np.flatnonzero(radius == r)
            hit, delta = pgd(gradient, X[here], labels[here], threat, float(r), steps=steps, restarts=restarts, rng=rng)
            found[here[hit]] = delta[hit]
            sizes = threat.size(delta)
            high[here[hit]] = np.minimum(high[here[hit]], sizes[hit])
            low[here[~hit]] = np.maximum(low[here[~hit]], r)
        open_ended = ~np.isfinite(high)
        radius = np.where(open_ended, radius * 2, _grid((low + high) / 2, start))
        if (np.where(open_ended, np.inf, high - low) <= 0.05 * np.where(np.isfinite(high), high, 1.0)).all():
            break
    return high, found


def _grid(radius: Array, start: float) -> Array:
    """Radii rounded to a fine common grid, so that samples share calls."""
    return start * 2 ** (np.round(np.log2(np.maximum(radius, 1e-12) / start) * 16) / 16)


def _one_hot(labels: Array, gradient: LossGradient, X: Array) -> Array:
    """Targets (N, K); K is read off one call."""
    classes = gradient.num_outputs if hasattr(gradient, "num_outputs") else int(labels.max()) + 1
    return np.eye(classes)[labels]


def _spread(values: Any, like: Array) -> Array:
    """Per-sample values (N,) broadcastable to (N, *shape)."""
    return np.asarray(values).reshape(-1, *([1] * (like.ndim - 1)))


def _random(X: Array, threat: Threat, radius: float, rng: np.random.Generator) -> Array:
    """Random starts in the ball, in model units."""
    if threat.norm == "linf":
        return np.asarray(rng.uniform(-radius, radius, X.shape) * threat.scale)
    v: Array = np.asarray(rng.standard_normal(X.shape))
    norms = np.linalg.norm(v.reshape(len(v), -1), axis=1)
    reach = radius * rng.random(len(v)) ** (1 / np.prod(X.shape[1:]))
    return np.asarray(v / _spread(norms / reach, v) * threat.scale)


def _jittered(g: Array, rng: np.random.Generator) -> Array:
    """Where the gradient vanished (a saturated sample), a random direction in its place."""
    dead = np.abs(g).reshape(len(g), -1).max(axis=1) == 0
    if dead.any():
        g = g.copy()
        g[dead] = rng.standard_normal(g[dead].shape)
    return g
