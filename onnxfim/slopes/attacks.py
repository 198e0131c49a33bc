"""Attack replay on the derivative graph: projected gradient with restarts, and the smallest successful step.

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

#: Logits (N, K) at rows X, and a direction (N, *shape) that raises the loss of the labels (N,) there, in favour of the rival
#: classes (N,), or of any other class where the rival is -1. Last come the positions (N,) of the samples that rows stand beside.
LossGradient: TypeAlias = Callable[[Array, Array, Array, Array], tuple[Array, Array]]

_ROUNDS = 24  # doublings and bisections of a radius
_GROWTH = 1.15  # of the radius a step, until a first success
_MOST = 1e6  # times the first radius
_CLOSE = 0.02  # relative width at which a bisection ends


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
        raw = (delta / self.scale).astype(np.float64)
        axes = tuple(range(1, raw.ndim))
        return np.sqrt((raw**2).sum(axis=axes)) if self.norm == "l2" else np.abs(raw).max(axis=axes, initial=0.0)

    def project(self, X: Array, delta: Array, radius: Array) -> Array:
        """δ brought back into the ball of each sample's radius (N,) and into the range, as the model will see it."""
        raw = delta / self.scale
        r = _spread(radius, raw)
        if self.norm == "l2":
            norms = np.maximum(np.linalg.norm(raw.reshape(len(raw), -1), axis=1), 1e-30)
            raw = raw * np.minimum(1.0, r / _spread(norms, raw))
        else:
            raw = np.clip(raw, -r, r)
        return self.seen(X, raw * self.scale)

    def seen(self, X: Array, delta: Array) -> Array:
        """δ inside the range and rounded so that ``X + δ`` is a row in the type of X: what is tried is what is returned."""
        moved = np.clip(X + delta, self.low, self.high).astype(X.dtype)
        return moved.astype(np.float64) - X

    def ascent(self, gradient: Array) -> Array:
        """The unit step in raw units that raises the loss most, (N, *shape), in model units."""
        raw = gradient * self.scale  # chain rule: d/d(raw) = scale · d/d(input)
        if self.norm == "linf":
            return np.sign(raw) * self.scale
        flat = np.linalg.norm(raw.reshape(len(raw), -1), axis=1)
        return raw / _spread(np.maximum(flat, 1e-30), raw) * self.scale


def pgd(
    gradient: LossGradient,
    X: Array,
    labels: Array,
    threat: Threat,
    radius: Array | float,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
    rivals: Array | None = None,
    of: Array | None = None,
) -> tuple[Array, Array]:
    """Projected gradient ascent from the sample and from random starts (Madry et al. 2018).

    Args:
        gradient: The model.
        X: Samples, (N, *shape).
        labels: Their classes, (N,).
        threat: What the attacker may do.
        radius: Largest size of δ, for all samples or each (N,).
        steps: Steps of a run.
        restarts: Runs; the first starts at the sample, the others at random.
        rng: Source of the random starts.
        rivals: Classes to aim at, (N,), -1 or None for any; whatever other class is decided for is a success.
        of: Positions of the samples, (N,), that the model is told; None where they are the first ones.

    Returns:
        (success (N,) bool, δ (N, *shape) of the first success, or of the last try).
    """
    rivals = _anyone(X) if rivals is None else rivals
    of = np.arange(len(X)) if of is None else of
    radii = np.broadcast_to(np.asarray(radius, np.float64), len(X))
    success = np.zeros(len(X), bool)
    found = np.zeros(X.shape)
    for restart in range(restarts):
        left = np.flatnonzero(~success)
        if len(left) == 0:
            break
        x, y, r, aim = X[left], labels[left], radii[left], rivals[left]
        delta = np.zeros(x.shape) if restart == 0 else threat.project(x, _random(x, threat, r, rng), r)
        going = np.arange(len(left))
        for step in range(steps + 1):
            z, g = gradient(_moved(x[going], delta[going]), y[going], aim[going], of[left[going]])
            hit = z.argmax(axis=1) != y[going]
            success[left[going[hit]]] = True
            going, g = going[~hit], g[~hit]
            if len(going) == 0 or step == steps:
                break
            size = r[going] * max(2.5 / steps, 0.25 * (1 - step / steps))  # long steps first, then short ones
            up = _spread(size, g) * threat.ascent(_jittered(g, rng))
            delta[going] = threat.project(x[going], delta[going] + up, r[going])
        found[left] = delta
    return success, found


def smallest_l2(
    gradient: LossGradient,
    X: Array,
    labels: Array,
    threat: Threat,
    *,
    steps: int,
    rng: np.random.Generator,
    start: float = 1.0,
    rivals: Array | None = None,
    of: Array | None = None,
) -> tuple[Array, Array]:
    """Smallest successful L2 step per sample by decoupling direction and norm (Rony et al. 2019), then a line search.

    Each step moves along the gradient and sets the norm: less where the point is adversarial, more where it is not. A final
    bisection on the segment to the sample takes off what is left.

    Returns:
        (distance (N,), inf where nothing was found; δ (N, *shape)).
    """
    n = len(X)
    rivals = _anyone(X) if rivals is None else rivals
    of = np.arange(len(X)) if of is None else of
    best, found = np.full(n, np.inf), np.zeros(X.shape)
    delta, radius = np.zeros(X.shape), np.full(n, start)
    for step in range(steps):
        z, g = gradient(_moved(X, delta), labels, rivals, of)
        hit = z.argmax(axis=1) != labels
        size = threat.size(delta)
        better = hit & (size < best)
        best[better], found[better] = size[better], delta[better]
        rate = 0.5 * (1 + np.cos(np.pi * step / steps)) * 0.99 + 0.01  # cosine from 1 to 0.01
        moved = delta + _spread(rate * np.maximum(radius, 1e-6), delta) * threat.ascent(_jittered(g, rng))
        gamma = 0.05 if step < steps // 2 else 0.02
        growth = np.where(np.isfinite(best), 1 + gamma, _GROWTH)
        radius = np.where(hit, np.minimum(radius, size) * (1 - gamma), np.minimum(radius * growth, _MOST * start))
        raw = moved / threat.scale
        norms = np.maximum(np.linalg.norm(raw.reshape(n, -1), axis=1), 1e-30)
        delta = threat.seen(X, raw * _spread(radius / norms, raw) * threat.scale)
    return _bisected(gradient, X, labels, threat, best, found, of)


def _bisected(
    gradient: LossGradient, X: Array, labels: Array, threat: Threat, best: Array, found: Array, of: Array, rounds: int = 10
) -> tuple[Array, Array]:
    """Shorten each successful δ along its own segment as far as it stays successful."""
    low, high = np.zeros(len(X)), np.ones(len(X))
    shortest = found.copy()
    for _ in range(rounds):
        middle = (low + high) / 2
        delta = threat.seen(X, found * _spread(middle, found))
        z, _ = gradient(_moved(X, delta), labels, _anyone(X), of)
        hit = np.isfinite(best) & (z.argmax(axis=1) != labels)
        low, high = np.where(hit, low, middle), np.where(hit, middle, high)
        size = threat.size(delta)
        better = hit & (size < best)
        best[better], shortest[better] = size[better], delta[better]
    return best, shortest


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
    rivals: Array | None = None,
    of: Array | None = None,
) -> tuple[Array, Array]:
    """Smallest successful L∞ radius per sample by doubling, then bisection over projected gradient attacks.

    Returns:
        (distance (N,), inf where nothing was found; δ (N, *shape)).
    """
    low, high = np.zeros(len(X)), np.full(len(X), np.inf)
    found, radius = np.zeros(X.shape), np.full(len(X), float(start))
    rivals = _anyone(X) if rivals is None else rivals
    of = np.arange(len(X)) if of is None else of
    for _ in range(_ROUNDS):
        open_ended = ~np.isfinite(high)
        going = np.flatnonzero(open_ended | (high - low > _CLOSE * high))
        if len(going) == 0:
            break
        hit, delta = pgd(
            gradient, X[going], labels[going], threat, radius[going], steps=steps, restarts=restarts, rng=rng,
            rivals=rivals[going], of=of[going],
        )  # fmt: skip
        won, lost = going[hit], going[~hit]
        found[won], high[won] = delta[hit], threat.size(delta[hit])
        low[lost] = radius[lost]
        low = np.minimum(low, high)  # a shorter step may succeed where a longer one failed
        radius = np.where(np.isfinite(high), (low + high) / 2, 2 * radius)
    return high, found


def nearest_rivals(z: Array, J: Array, labels: Array, threat: Threat) -> Array:
    """The other class whose boundary is nearest to first order, (N,), from logits (N, K) and their Jacobians (N, K, *shape)."""
    rows = np.arange(len(z))
    raw = ((J[rows, labels][:, None] - J) * threat.scale).reshape(*z.shape, -1).astype(np.float64)  # (N, K, d)
    dual = np.linalg.norm(raw, axis=2) if threat.norm == "l2" else np.abs(raw).sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.where(dual > 0, (z[rows, labels][:, None] - z) / dual, np.inf)
    distances[rows, labels] = np.inf
    return np.asarray(distances.argmin(axis=1))


def _anyone(X: Array) -> Array:
    """No class to aim at."""
    return np.full(len(X), -1)


def _moved(X: Array, delta: Array) -> Array:
    """The rows ``X + δ`` in the type of X."""
    return np.asarray((X + delta).astype(X.dtype))


def _spread(values: Any, like: Array) -> Array:
    """Per-sample values (N,) broadcastable to (N, *shape)."""
    return np.asarray(values).reshape(-1, *([1] * (like.ndim - 1)))


def _random(X: Array, threat: Threat, radius: Array, rng: np.random.Generator) -> Array:
    """Random starts in the balls of radius (N,), in model units."""
    if threat.norm == "linf":
        return np.asarray(_spread(radius, X) * rng.uniform(-1.0, 1.0, X.shape) * threat.scale)
    v: Array = np.asarray(rng.standard_normal(X.shape))
    norms = np.linalg.norm(v.reshape(len(v), -1), axis=1)
    reach = radius * rng.random(len(v)) ** (1 / np.prod(X.shape[1:]))
    return np.asarray(v * _spread(reach / norms, v) * threat.scale)


def _jittered(g: Array, rng: np.random.Generator) -> Array:
    """Where the gradient vanished (a saturated sample), a random direction in its place."""
    dead = np.abs(g).reshape(len(g), -1).max(axis=1) == 0
    if dead.any():
        g = g.copy()
        g[dead] = rng.standard_normal(g[dead].shape)
    return g
