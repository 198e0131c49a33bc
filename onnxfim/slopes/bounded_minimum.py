"""The least value of a function of one number between two bounds.

Brent's search (Algorithms for Minimization without Derivatives, 1973, chapter 5; FMIN of Forsythe, Malcolm and Moler, 1977), as
SciPy has it too, whose import takes longer than many an audit: tests hold the points against SciPy's, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_GOLDEN = 0.5 * (3.0 - math.sqrt(5.0))
_ROOT_EPS = math.sqrt(2.2e-16)
_MOST = 500  # calls


def least(f: Callable[[float], float], bounds: tuple[float, float], *, xatol: float = 1e-6) -> tuple[float, float]:
    """Where a function is least between two bounds, and its value there; a minimum of its own, where it has several.

    Args:
        f: The function.
        bounds: Lower and upper bound, finite.
        xatol: Absolute error of the place.
    """
    a, b = bounds
    best = second = third = a + _GOLDEN * (b - a)
    f_best = f_second = f_third = f(best)
    step = before = 0.0  # the last step, and the one before it
    for _ in range(_MOST - 1):
        middle = 0.5 * (a + b)
        tolerance = _ROOT_EPS * abs(best) + xatol / 3.0
        if not abs(best - middle) > 2.0 * tolerance - 0.5 * (b - a):
            break
        fitted = False
        if abs(before) > tolerance:  # a parabola through the three best points
            r = (best - second) * (f_best - f_third)
            q = (best - third) * (f_best - f_second)
            p = (best - third) * q - (best - second) * r
            q = 2.0 * (q - r)
            p, q = (-p if q > 0.0 else p), abs(q)
            r, before = before, step
            if abs(p) < abs(0.5 * q * r) and q * (a - best) < p < q * (b - best):
                fitted, step = True, p / q
                if min(best + step - a, b - (best + step)) < 2.0 * tolerance:
                    step = tolerance if middle >= best else -tolerance
        if not fitted:
            before = a - best if best >= middle else b - best
            step = _GOLDEN * before
        x = best + math.copysign(max(abs(step), tolerance), step if step else 1.0)
        f_x = f(x)
        if f_x <= f_best:
            a, b = (best, b) if x >= best else (a, best)
            third, f_third, second, f_second, best, f_best = second, f_second, best, f_best, x, f_x
        else:
            a, b = (x, b) if x < best else (a, x)
            if f_x <= f_second or second == best:
                third, f_third, second, f_second = second, f_second, x, f_x
            elif f_x <= f_third or third in (best, second):
                third, f_third = x, f_x
    return best, f_best
