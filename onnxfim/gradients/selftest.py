"""Check the derivative graphs of a model against the model itself, before any figure is taken from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxfim.gradients.nodewise import NodeError
from onnxfim.runtime.failures import RowsFailed

Array: TypeAlias = NDArray[np.floating]
Original: TypeAlias = Callable[[Array], Array]
#: Of rows, seeds and, where these were given, the positions of the rows' samples.
Derivative: TypeAlias = Callable[..., tuple[Array, Array]]
Rules: TypeAlias = Callable[..., tuple[Array, Sequence[NodeError]]]
Activation: TypeAlias = Literal["none", "softmax", "log_softmax", "sigmoid"]

OUTPUT_TOLERANCE = 1e-3  # of the largest output: fused kernels round differently
HALF_TOLERANCE = 16 * float(np.finfo(np.float16).eps)  # a file that computes in float16 rounds at every node
ADJOINT_TOLERANCE = 1e-4
DIFFERENCE_TOLERANCE = 5e-2  # the best of several steps on a net with kinks; a wrong rule is off by far more
RULE_TOLERANCE = 1e-3  # of one node: right rules keep within 5e-5 on all models tried
JITTER = 0.3  # of the spread: what ties at the data is apart there
_STEPS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # of the spread
_SHARE = 0.75  # of the rows must agree: two sessions may break a tie at a kink differently
_TRIES = 3  # points at which a rule must fail to be wrong: two kinks within one step are chance
_ROWS = 8  # at least, so that the branches of a node are seen
_MOVES = 3  # of the rows by rounding, to see how far their slopes are known
_NOISE = 4.0  # times what rounding does: two graphs round at every node, a moved row at its inputs alone
_MOST_NOISE = 0.3  # relative, of what rounding may do: a derivative further off is another one


@dataclass(frozen=True)
class SelfTest:
    """Outcome; each error is relative, NaN where not reached.

    ``output_error`` and ``adjoint_error`` are the largest among the better three quarters of the rows. ``difference_error`` is the
    largest error of a rule at its own node; where the nodes were not tested, that of Jv against differences of the model.
    ``reason`` says what was seen, ``blame`` what is then wrong where the runtime computes the graphs rightly: a provider that
    computes one of them otherwise looks the same. ``same_outputs`` is False where the derivative belongs to other outputs.
    """

    passed: bool
    reason: str
    output_error: float
    adjoint_error: float
    difference_error: float
    blame: str = ""
    same_outputs: bool = True

    @property
    def verdict(self) -> str:
        """What was seen, and what is to blame."""
        return f"{self.reason}: {self.blame}" if self.blame else self.reason


def self_test(
    original: Original,
    vjp: Derivative,
    jvp: Derivative,
    X: Array,
    *,
    rng: np.random.Generator,
    activation: Activation = "none",
    rules: Rules | None = None,
    spread: Array | None = None,
    rounds: bool = False,
    of: NDArray[Any] | None = None,
) -> SelfTest:
    """Return whether derivative graphs belong to a model and to each other.

    The graphs give the model's outputs, at the samples; Jᵀu is not zero there. Whether a rule is right is asked at points beside
    the samples, where no tie of the data stands in the way: ``⟨u, Jv⟩ = ⟨Jᵀu, v⟩``, and each rule against differences of its own
    node. Without a test of the nodes, Jv against central differences of the graph, along Jᵀu where the change is largest.

    Args:
        original: The model's own outputs for rows of inputs, (N, ...).
        vjp: ``(X, U (S, N, K)) -> (z (N, K), Jᵀu (S, N, *shape))``.
        jvp: ``(X, V (S, N, *shape)) -> (z (N, K), Jv (S, N, K))``.
        X: A few samples, (N, *shape).
        rng: Source of the seeds.
        activation: What the model does to the logits z before it returns them.
        rules: ``(X, v (N, *shape)) -> (Jv (N, K), errors of all nodes)``, as `NodeTests`; of fewer rows where memory is short.
        spread: Standard deviation of each coordinate, broadcastable to a sample; that of X where it is not given.
        rounds: The model computes in half precision, so that its outputs are rounded.
        of: Positions of the samples, (N,), where the derivatives take them behind their other arguments.
    """
    at = () if of is None else (of,)
    z, _ = jvp(X, np.zeros((1, *X.shape), X.dtype), *at)
    y = np.asarray(original(X), np.float64).reshape(len(X), -1)
    if y.shape != z.shape:
        return _failed(f"the derivative graph returns {z.shape[1]} values per sample, the model {y.shape[1]}")
    output_error = _relative(np.abs(_activated(z, activation) - y).max(axis=1), np.abs(y).max())
    if not output_error <= (HALF_TOLERANCE if rounds else OUTPUT_TOLERANCE):
        reason = f"outputs differ by {output_error:.1e} of the largest"
        return SelfTest(False, reason, output_error, np.nan, np.nan, same_outputs=False)
    u = rng.standard_normal((2, *z.shape)).astype(z.dtype)
    _, g = vjp(X, u, *at)
    if not np.isfinite(g).all():
        return _failed("Jᵀu is not finite", output_error=output_error)
    if not g.any():
        return _failed("Jᵀu is zero for every sample: the model is flat here, or rounds its values", output_error=output_error)
    width = deviations(X) if spread is None else spread
    points = beside(X, width, rng)
    if not np.isfinite(jvp(points, np.zeros((1, *X.shape), X.dtype), *at)[0]).all():
        points = X  # the model does not take such inputs
    noise = rng.standard_normal((2, *X.shape)).astype(X.dtype)
    (_, g), (_, w) = vjp(points, u, *at), jvp(points, noise, *at)
    size = _norm(u) * _norm(w) + np.finfo(np.float64).tiny
    adjoint_error = _relative(np.abs(_inner(u, w) - _inner(g, noise)), size)
    if not adjoint_error <= ADJOINT_TOLERANCE:
        reason = f"⟨u, Jv⟩ and ⟨Jᵀu, v⟩ differ by {adjoint_error:.1e}"
        return SelfTest(False, reason, output_error, adjoint_error, np.nan, "a derivative rule is wrong for this graph")
    if rules is not None:
        difference_error, wrong, blame = _rule_error(rules, jvp, X, of, width, rng, near=points is not X)
    else:
        length = np.maximum(_norm(g), np.finfo(np.float32).tiny).reshape(*g.shape[:2], *[1] * (X.ndim - 1))
        v = (g / length).astype(X.dtype)
        _, w = jvp(points, v, *at)

        def logits(rows: Array) -> Array:
            return jvp(rows, np.zeros((1, *rows.shape), rows.dtype), *at)[0]

        difference_error = _difference_error(logits, points, v, w, width)
        wrong, blame = None, "the graph is not smooth, or a rule is wrong"
        if not difference_error <= DIFFERENCE_TOLERANCE:
            wrong = f"Jv differs from central differences by {difference_error:.1e}"
    if wrong is not None:
        return SelfTest(False, wrong, output_error, adjoint_error, difference_error, blame)
    return SelfTest(True, "outputs, adjoint identity and differences agree", output_error, adjoint_error, difference_error)


def deviations(X: Array) -> NDArray[np.float64]:
    """Standard deviation of each coordinate over the samples X (N, *shape); that of all numbers where a coordinate is constant."""
    rows = X.astype(np.float64)
    spread = rows.std(axis=0)
    common = float(np.sqrt(np.mean(spread**2))) or float(rows.std()) or float(np.abs(rows).max(initial=0.0)) or 1.0
    return np.asarray(np.where(spread > 1e-6 * np.abs(rows).max(axis=0), spread, common))


def beside(X: Array, spread: Array, rng: np.random.Generator, share: float = JITTER) -> Array:
    """The samples X (N, *shape), each coordinate moved at random by a share of its spread."""
    return np.asarray((X + share * spread * rng.standard_normal(X.shape)).astype(X.dtype))


def _failed(reason: str, *, output_error: float = np.nan) -> SelfTest:
    return SelfTest(False, reason, output_error, np.nan, np.nan)


def _rule_error(
    rules: Rules, jvp: Derivative, X: Array, of: NDArray[Any] | None, spread: Array, rng: np.random.Generator, *, near: bool
) -> tuple[float, str | None, str]:
    """The largest error of a rule at its node, which rule is wrong, in words, and what is to blame."""
    which = np.arange(max(len(X), _ROWS) if near else len(X)) % len(X)
    rows = X[which]
    suspects: dict[str, NodeError] | None = None
    largest, noise, apart = np.inf, 0.0, 0.0
    for _ in range(_TRIES):
        points = beside(rows, spread, rng) if near else rows
        at: tuple[NDArray[Any], ...] = () if of is None else (of[which],)
        v = rng.standard_normal(points.shape).astype(X.dtype)
        try:
            w, found = rules(points, v, *at)
        except RowsFailed:  # beside a sample: the others tell
            takes = np.isfinite(jvp(points, v[None], *at)[1][0]).all(axis=1)
            if takes.all() or not takes.any():
                raise
            points, v, at = points[takes], v[takes], tuple(a[takes] for a in at)
            w, found = rules(points, v, *at)
        points, v, at = points[: len(w)], v[: len(w)], tuple(a[: len(w)] for a in at)
        apart = _relative(_norm((w - jvp(points, v[None], *at)[1][0])[None]), _norm(w[None]) + np.finfo(np.float64).tiny)
        if not apart <= ADJOINT_TOLERANCE * 10:
            noise = max(noise, _rounding(jvp, points, v, rng, *at))
            if not apart <= min(_NOISE * noise, _MOST_NOISE):
                suspects = None  # of this point nothing is known
                continue
        bad = {n.name: n for n in found if not (n.errors <= RULE_TOLERANCE).all()}
        suspects = bad if suspects is None else {k: n for k, n in bad.items() if k in suspects}
        largest = min(largest, max((float(n.errors.max()) for n in found), default=0.0))
        if not suspects:
            return largest, None, ""
    if suspects is None:
        return apart, f"Jv of the tested graph differs from the one that is used by {apart:.1e}", ""
    worst = max((suspects or {}).values(), key=lambda n: float(n.errors.max()))
    error = float(worst.errors.max())
    return error, f"the derivative rule of {worst.op} differs from differences of node {worst.name!r} by {error:.1e}", "it is wrong"


def _rounding(jvp: Derivative, X: Array, v: Array, rng: np.random.Generator, *at: Array) -> float:
    """By how much, relative, Jv changes where the rows X (N, *shape) move by one unit in the last place.

    In a deep network of kinks some value stands within rounding of one: which side it is on is chance, in each of two graphs. It
    is that of the same share of the rows that two graphs are compared by: one row on a kink excuses no others.
    """
    w, worst = jvp(X, v[None], *at)[1], np.zeros(len(X))
    for _ in range(_MOVES):
        moved = np.nextafter(X, np.where(rng.random(X.shape) < 0.5, np.inf, -np.inf).astype(X.dtype))
        change = _norm(jvp(np.where(X == 0, X, moved), v[None], *at)[1] - w) / (_norm(w) + np.finfo(np.float64).tiny)
        worst = np.fmax(worst, np.where(np.isfinite(change[0]), change[0], 0.0))
    return _relative(worst, 1.0)


def _difference_error(logits: Original, X: Array, v: Array, w: Array, spread: Array) -> float:
    """Relative error of w against central differences at the step where most rows agree."""
    # Along a unit direction v, the L2 step that moves its coordinates by their own spread, on average.
    weights = np.square(v.astype(np.float64))
    length = float(np.sqrt((weights * spread**2).reshape(*v.shape[:2], -1).sum(axis=2).mean() * v[0, 0].size)) or 1.0
    errors = []
    for step in _STEPS:
        h = step * length
        ends = [[logits((X + sign * h * d).astype(X.dtype)).astype(np.float64) for d in v] for sign in (1, -1)]
        slope = (np.stack(ends[0]) - np.stack(ends[1])) / (2 * h)
        errors.append(_relative(_norm(w - slope), _norm(w) + np.finfo(np.float64).tiny))
    return min(errors)


def _relative(error: NDArray[np.float64], size: NDArray[np.float64] | float) -> float:
    """The error that three quarters of the rows keep, relative; infinite where it is not a number."""
    ratio = np.nan_to_num(error / np.where(np.asarray(size) > 0, size, 1.0), nan=np.inf)
    return float(np.sort(ratio.reshape(-1))[int(np.ceil(_SHARE * ratio.size)) - 1])


def _inner(a: Array, b: Array) -> NDArray[np.float64]:
    """Inner products of seeds and rows, (S, N)."""
    product: NDArray[np.float64] = a.astype(np.float64) * b.astype(np.float64)
    return np.asarray(product.reshape(*a.shape[:2], -1).sum(axis=-1))


def _norm(a: Array) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(_inner(a, a)))


def _activated(z: Array, activation: Activation) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = z.astype(np.float64)
    if activation == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))
    if activation == "none":
        return logits
    log_p = logits - logits.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    return np.asarray(log_p if activation == "log_softmax" else np.exp(log_p))
