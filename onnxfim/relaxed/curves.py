"""Functions of one number, and straight lines below and above them on an interval, rounding errors included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record import special

Array: TypeAlias = np.ndarray[Any, Any]

ROUNDING = 2.0**-53  # of float64, to nearest
_PARTS = 32  # of an interval on which a smooth function is looked at
_EVALUATED = 64  # roundings that a value of a curve, or of a line, may be off by


@dataclass(frozen=True)
class LinePair:
    """``lower_slope·x + lower ≤ f(x) ≤ upper_slope·x + upper`` on an interval, and ``low ≤ f(x) ≤ high``; all (n,)."""

    lower_slope: Array
    lower: Array
    upper_slope: Array
    upper: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class ScalarCurve:
    """A continuous function, entry by entry.

    Attributes:
        function: Of numbers (…, n).
        slope: Its derivative; at a kink that of either side.
        kinks: Where the derivative jumps, numbers or (n,) each.
        bend: ``sup |f''|`` off the kinks; 0 of a function that is linear in pieces.
        steepest: ``sup |f'|``.
        roundings: Of the file's type of numbers, that the file's own value may be off by, relative to ``1 + |x| + |f(x)|``; 0
            where it is exact.
    """

    function: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    kinks: Sequence[Array | float] = ()
    bend: float = 0.0
    steepest: float = 1.0
    roundings: float = 0.0

    def bent(self, low: Array, high: Array) -> Array:
        """Whether it is not a straight line on each interval, (n,)."""
        if self.bend:
            return np.asarray(low < high)
        crossed = np.zeros(len(low), bool)
        for kink in self.kinks:
            crossed |= (low < kink) & (kink < high)
        return crossed

    def lines(self, low: Array, high: Array) -> LinePair:
        """Lines on the intervals [low, high], (n,) each.

        A line of slope s lies above f where its offset is at least ``max (f(x) − s x)``. That is at an end or a kink where f is
        linear in pieces. Else f lies within ``bend·h²/8`` of the straight line between two points at distance h, so that the
        maximum over points h apart is short of it by no more. Of the slopes of the chord and of f at the ends and in the middle,
        that one is taken whose line is the nearer to f in the middle of the interval, which makes the smallest area between.

        Source: for the choice by area, Zhang et al. (2018), NeurIPS; Singh et al. (2019), POPL.
        """
        width = high - low
        points = [low, high]
        if self.bend:
            points += [low + width * (k / _PARTS) for k in range(1, _PARTS)]
        points += [np.clip(kink, low, high) for kink in self.kinks]
        x = np.stack(points)  # (m, n)
        f = self.function(x)
        middle = low + 0.5 * width
        with np.errstate(invalid="ignore", divide="ignore"):
            chord = np.where(width > 0, (f[1] - f[0]) / width, 0.0)
        ends = self.slope(np.stack([low, high, middle]))
        slopes = np.stack([np.where(np.isfinite(chord), chord, 0.0), *ends, np.zeros_like(low)])  # (5, n)
        short = self.bend * (width * (1 + 2.0**-40) / _PARTS) ** 2 / 8 * (1 + 2.0**-40)
        size = np.maximum(np.abs(low), np.abs(high))
        room = short + _EVALUATED * ROUNDING * (
            np.abs(f).max(axis=0) + (self.steepest + np.abs(slopes)) * size + (1.0 if self.bend else 0.0)
        )  # (5, n)
        gap = f[None] - slopes[:, None] * x[None]  # (5, m, n)
        above, below = gap.max(axis=1) + room, gap.min(axis=1) - room
        best_up = np.argmin(slopes * middle + above, axis=0)
        best_low = np.argmax(slopes * middle + below, axis=0)
        at = np.arange(len(low))
        return LinePair(
            slopes[best_low, at], below[best_low, at], slopes[best_up, at], above[best_up, at], below[-1], above[-1]
        )  # fmt: skip


def relu() -> ScalarCurve:
    """max(x, 0)."""
    return ScalarCurve(lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(float), (0.0,))


def leaky(slope: Array | float) -> ScalarCurve:
    """x above 0, slope·x below."""
    steepest = max(1.0, float(np.abs(slope).max(initial=0.0)))
    return ScalarCurve(
        lambda x: np.where(x >= 0, x, slope * x), lambda x: np.where(x > 0, 1.0, slope), (0.0,), steepest=steepest, roundings=2
    )


def clip(low: float, high: float) -> ScalarCurve:
    """x between low and high; either may be infinite."""
    kinks = tuple(k for k in (low, high) if np.isfinite(k))
    return ScalarCurve(lambda x: np.clip(x, low, high), lambda x: ((x > low) & (x < high)).astype(float), kinks)


def hard_sigmoid(alpha: float, beta: float) -> ScalarCurve:
    """max(0, min(1, αx + β))."""
    kinks = (-beta / alpha, (1 - beta) / alpha) if alpha else ()
    return ScalarCurve(
        lambda x: np.clip(alpha * x + beta, 0.0, 1.0), lambda x: alpha * ((alpha * x + beta > 0) & (alpha * x + beta < 1)),
        kinks, steepest=abs(alpha), roundings=4 * max(1.0, abs(alpha), abs(beta)),
    )  # fmt: skip


def absolute() -> ScalarCurve:
    """|x|."""
    return ScalarCurve(np.abs, np.sign, (0.0,))


def hard_swish() -> ScalarCurve:
    """x·max(0, min(1, x/6 + 1/2)): second derivative 1/3 between its kinks at ±3."""
    return ScalarCurve(
        lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0), lambda x: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5)),
        (-3.0, 3.0), bend=1 / 3, steepest=1.5, roundings=8,
    )  # fmt: skip


def _sigmoid_slope(x: Array) -> Array:
    s = special.expit(x)
    return np.asarray(s * (1 - s))


def sigmoid() -> ScalarCurve:
    """1 / (1 + e⁻ˣ): |f''| = |s (1 − s)(1 − 2s)| is largest, 1/(6√3), at s = ½ ± 1/√12."""
    return ScalarCurve(special.expit, _sigmoid_slope, bend=0.09623, steepest=0.25, roundings=16)


def tanh() -> ScalarCurve:
    """tanh x: |f''| = 2 t (1 − t²) is largest, 4/(3√3), at t = 1/√3."""
    return ScalarCurve(np.tanh, lambda x: 1 - np.tanh(x) ** 2, bend=0.76981, roundings=16)


def erf() -> ScalarCurve:
    """erf x: |f''| = 4/√π · x e^{−x²} is largest at x = 1/√2, 0.96788."""
    return ScalarCurve(
        lambda x: 2 * special.ndtr(x * np.sqrt(2.0)) - 1, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2)), bend=0.9680,
        steepest=1.1284, roundings=16,
    )  # fmt: skip


def gelu() -> ScalarCurve:
    """x Φ(x): f'' = φ(x)(2 − x²), largest at 0, 2/√(2π); f' is at most Φ(√2) + √2 φ(√2) < 1.13."""

    def density(x: Array) -> Array:
        return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)

    return ScalarCurve(
        lambda x: x * special.ndtr(x), lambda x: special.ndtr(x) + x * density(x), bend=0.79789, steepest=1.13, roundings=16,
    )  # fmt: skip


def silu(beta: float = 1.0) -> ScalarCurve:
    """x σ(βx): f'' = β (2 σ' + βx σ''), at most β/2 in size, at 0; f' is below 1.1."""
    return ScalarCurve(
        lambda x: x * special.expit(beta * x), lambda x: special.expit(beta * x) + beta * x * _sigmoid_slope(beta * x),
        bend=abs(beta) / 2, steepest=1.1, roundings=16,
    )  # fmt: skip


def softplus() -> ScalarCurve:
    """ln(1 + eˣ): f'' = σ' ≤ ¼."""
    return ScalarCurve(lambda x: np.logaddexp(0.0, x), special.expit, bend=0.25, roundings=16)


def elu(alpha: float) -> ScalarCurve:
    """x above 0, α(eˣ − 1) below: |f''| ≤ |α| off the kink at 0."""
    return ScalarCurve(
        lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0))),
        lambda x: np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0.0))), (0.0,), bend=abs(alpha),
        steepest=max(1.0, abs(alpha)), roundings=16 * max(1.0, abs(alpha)),
    )  # fmt: skip
