"""Which of many hypotheses are rejected, with the chance of any false rejection held: a closed test."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


def adjusted(p: Array, weights: Array) -> Array:
    """Adjusted p-values of the closed test whose local tests are weighted Bonferroni tests: those of the weighted Holm procedure.

    An intersection of hypotheses is rejected at level a where ``p_i ≤ a·w_i / Σw`` for one of its members, the sum being over them;
    a hypothesis where every intersection that holds it is. For these local tests one pass in the order of ``p_i / w_i`` finds what
    all 2^m intersections would.

    Args:
        p: p-values, (m,), of any dependence.
        weights: What each has of the level, (m,), above 0; only their ratios matter.

    Returns:
        The smallest level at which each is rejected, (m,). Whatever hypotheses are true, the chance that any of these has one
        below a is at most a.

    Source: Marcus, Peritz & Gabriel (1976), Biometrika 63(3), 655-660, for closed tests; Holm (1979), Scandinavian Journal of
    Statistics 6(2), 65-70, section 4 for weights.
    """
    p, weights = np.asarray(p, np.float64), np.asarray(weights, np.float64)
    order = np.argsort(p / weights, kind="stable")
    left = np.cumsum(weights[order][::-1])[::-1]  # of the hypotheses that are not rejected yet
    steps = np.maximum.accumulate(p[order] / weights[order] * left)
    found = np.empty(len(p))
    found[order] = np.minimum(steps, 1.0)
    return found
