"""Distribution functions and quantiles of the beta, gamma, normal and Student's distribution.

They are here because the import of SciPy's takes longer than many an audit; tests hold them against SciPy's.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

_EPS = float(np.finfo(np.float64).eps)
_TINY = 1e-300  # in place of a zero denominator
_FEW = 10.0  # below which the remainder of Stirling's formula is not a short series
_LARGE = 1e4  # degrees of freedom from which on an expansion about the normal distribution is exact to 1e-12
_MOST = 100_000  # terms
_HUGE = 1e7  # degrees of freedom from which on the first term of that is
_STEPS = 100  # of Newton's method, which takes less than ten
_NEAR = 1e-9  # a relative step after which the next one is below rounding


def betainc(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function ``I_x(a, b)`` for a, b > 0 and x in [0, 1], to 1e-11 relative."""
    return _beta_shares(float(a), float(b), float(x), 1 - float(x))[0]


def betaincinv(a: float, b: float, p: float) -> float:
    """The x with ``I_x(a, b) = p``, to 1e-11 relative."""
    a, b, p = float(a), float(b), float(p)
    if not 0 < p < 1:
        return p if p in (0.0, 1.0) else math.nan
    return _beta_quantile(a, b, p) if p <= 0.5 else 1 - _beta_quantile(b, a, 1 - p)


def gammaincinv(a: Array, p: float) -> Array:
    """The x with ``P(a, x) = p``, the regularised lower incomplete gamma function, for shapes a > 0 (n,) and p in (0, 1/2].

    By Newton's method in log x, in which log P is concave, and the series DLMF 8.11.4, for the median is less than a.
    """
    shapes, where = np.unique(np.asarray(a, np.float64), return_inverse=True)
    remainder = np.array([_stirling(s) for s in shapes])
    cube = 1 - 1 / (9 * shapes) + ndtri(p) / (3 * np.sqrt(shapes))  # Wilson & Hilferty 1931
    x = np.where(cube > 0.3, shapes * cube**3, np.exp((math.log(p) + np.log(shapes) + remainder) / shapes) * shapes * 0.1)
    for _ in range(_STEPS):
        mu = (x - shapes) / shapes
        # x^a e^{-x} / Γ(a), without the cancellation of its large factors.
        falls = mu - np.where(mu < -0.5, np.log(x / shapes), np.log1p(np.maximum(mu, -0.5)))
        front = np.sqrt(shapes / (2 * np.pi)) * np.exp(-shapes * falls - remainder)
        term, total, n = 1 / shapes, 1 / shapes, shapes.copy()
        while (term > _EPS * total).any():
            n = n + 1
            term = term * x / n
            total = total + term
        share = np.maximum(front * total, _TINY)
        step = np.log(p / share) * share / np.maximum(front, _TINY)
        x = np.minimum(x * np.exp(np.clip(step, -50.0, 50.0)), shapes)
        if (np.abs(step) < _NEAR).all():
            break
    return np.asarray(x[where].reshape(np.shape(a)))


def ndtri(p: float) -> float:
    """The quantile of the standard normal distribution, to 1e-14."""
    p = float(p)
    if not 0 < p < 1:
        return math.inf if p == 1 else -math.inf if p == 0 else math.nan
    if p > 0.5:
        return -ndtri(1 - p)
    t = math.sqrt(-2 * math.log(p))  # Abramowitz & Stegun 26.2.23, off by up to 4.5e-4
    z = (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t
    for _ in range(3):  # Halley's steps
        e = (0.5 * math.erfc(-z / math.sqrt(2)) - p) * math.sqrt(2 * math.pi) * math.exp(z * z / 2)
        z -= e / (1 + z * e / 2)
    return z


def stdtr(freedom: float, t: float) -> float:
    """Student's distribution function at t, for any number of degrees of freedom above 0; to 1e-11 relative."""
    f, t = float(freedom), float(t)
    if f >= _HUGE:
        return 0.5 * math.erfc(-t * (1 - (t * t + 1) / (4 * f)) / math.sqrt(2))
    square = t * t
    if math.isinf(square):
        return 1.0 if t > 0 else 0.0
    tail = 0.5 * _beta_shares(f / 2, 0.5, f / (f + square), square / (f + square))[0]
    return 1 - tail if t > 0 else tail


@lru_cache(maxsize=1024)
def stdtrit(freedom: float, p: float) -> float:
    """Student's quantile for any number of degrees of freedom above 0; to 1e-11 relative."""
    f, p = float(freedom), float(p)
    if not 0 < p < 1 or math.isnan(f):
        return math.nan if math.isnan(f) or not 0 <= p <= 1 else math.inf if p == 1 else -math.inf
    if p < 0.5:
        return -stdtrit(f, 1 - p) if p > 0.25 else -_student_upper(f, p)
    return _student_upper(f, 1 - p)


def _student_upper(f: float, q: float) -> float:
    """The t ≥ 0 that is exceeded with the probability q ≤ 1/2."""
    if q == 0.5:
        return 0.0
    if f >= _LARGE:
        return _about_normal(f, -ndtri(q))
    x = betaincinv(f / 2, 0.5, 2 * q)
    if x > 0.5:  # near the middle 1 − x is what counts
        y = betaincinv(0.5, f / 2, 1 - 2 * q)
        return math.sqrt(f * y / (1 - y))
    return math.sqrt(f) * math.sqrt((1 - x) / x) if x > 0 else math.inf


def _about_normal(f: float, z: float) -> float:
    """Student's quantile from the normal one (Abramowitz & Stegun 26.7.5)."""
    s = z * z
    terms = (
        z * (s + 1) / 4,
        z * ((5 * s + 16) * s + 3) / 96,
        z * (((3 * s + 19) * s + 17) * s - 15) / 384,
        z * ((((79 * s + 776) * s + 1482) * s - 1920) * s - 945) / 92160,
    )
    return z + sum(term / f ** (k + 1) for k, term in enumerate(terms))


def _stirling(a: float) -> float:
    """``ln Γ(a) − ((a − ½) ln a − a + ½ ln 2π)``."""
    if a < _FEW:
        return math.lgamma(a) - ((a - 0.5) * math.log(a) - a + 0.5 * math.log(2 * math.pi))
    r = 1 / (a * a)
    return (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r * (1 / 1188 - r * 691 / 360360))))) / a


def _beta_front(a: float, b: float, x: float, y: float) -> float:
    """``x^a y^b / B(a, b)`` with y = 1 − x, without the cancellation of its large factors."""
    if x <= 0 or y <= 0:
        return 0.0
    off = x * b - y * a
    powers = _power(a, off, x * (a + b)) + _power(b, -off, y * (a + b))
    rest = _stirling(a + b) - _stirling(a) - _stirling(b)
    return math.exp(powers + rest) * math.sqrt(a / (2 * math.pi) * b / (a + b))


def _power(a: float, off: float, whole: float) -> float:
    """``a ln(whole / a)`` where ``whole = a + off``."""
    return a * (math.log1p(off / a) if abs(off) < 0.5 * a else math.log(whole / a))


def _beta_shares(a: float, b: float, x: float, y: float) -> tuple[float, float]:
    """``I_x(a, b)`` and ``1 − I_x(a, b)`` with y = 1 − x, each relative to itself."""
    if x <= 0 or y <= 0:
        return (0.0, 1.0) if x <= 0 else (1.0, 0.0)
    front = _beta_front(a, b, x, y)
    if x <= (a + 1) / (a + b + 2):
        low = front * _fraction(a, b, x) / a
        return low, 1 - low
    high = front * _fraction(b, a, y) / b
    return 1 - high, high


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    found = d
    for m in range(1, _MOST):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 + step * d, 1 + step / c
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            found *= d * c
        if abs(d * c - 1) < _EPS:
            break
    return found


def _beta_quantile(a: float, b: float, p: float) -> float:
    """The x with ``I_x(a, b) = p ≤ 1/2``, by Newton's method in log x: log I is concave in it, so that no step goes astray."""
    x = a / (a + b)
    for _ in range(_STEPS):
        y = 1 - x
        share = _beta_shares(a, b, x, y)[0]
        slope = _beta_front(a, b, x, y) / y if y > 0 else 0.0  # by log x
        if share <= 0 or slope <= 0:
            x = math.sqrt(x) if share <= 0 else x / 2
            continue
        after = x * math.exp(min(max(math.log(p / share) * share / slope, -50.0), 50.0))
        if after >= 1:
            after = (1 + x) / 2
        if abs(after - x) <= _NEAR * x:
            return after
        x = after
        if x == 0:
            break
    return x
