"""The Gram sketch with its jackknife, of several score matrices at once: many small matrices, one call for their eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import Estimate
from onnxfim.record.special import stdtrit

Array: TypeAlias = np.ndarray[Any, Any]

_LEVEL = 0.975  # of the upper end of a two-sided 95 % interval
# Share of lambda_max that the part of the spectrum left out of the jackknife's replicates may hold. By second-order
# perturbation it moves the corrected value by tail · (groups − 1) · m_g / m², under 0.3 % at 100 directions in 20 groups.
_TAIL = 0.25
# Half-width of the cross-fit value's error over that of the sketch's. Over spectra of 2, 5, 9, 20 and 100 equal eigenvalues the
# interval then covers 93.5 % and more from 16 directions on (53 to 97 % without), and 95 % and more of spectra that decay.
_CROSS_FIT_ERROR = 0.9
# Of the least value that the bias explains, ``plain / (1 + √(K/m))²``, which is that of K equal eigenvalues (Marchenko and Pastur,
# 1967): below it the correction has overshot. Two orthogonal slopes among directions without one leave it nothing at all.
_OVERSHOT = 0.5


def lambda_max_sketches(Ys: Array, methods: Sequence[str], *, groups: int = 20, evaluations: int = 0) -> list[Estimate]:
    """`estimators.lambda_max_sketch` of n score matrices, (n, m, K), each with its method: the same values as one by one."""
    n, m, K = Ys.shape
    scale = scales(Ys)
    groups = max(2, min(groups, m))
    Z, w = leading_parts(Ys / scale[:, None, None])
    top = w[:, -1]
    sizes = np.bincount(np.arange(m) % groups, minlength=groups)
    sums = group_sums(Z, Z, groups)  # (n, groups, q, q)
    pseudo = jackknife(sums, sizes, top)
    cross = cross_fit(sums, sizes)
    means, errors = pseudo.mean(axis=1), pseudo.std(axis=1, ddof=1) / math.sqrt(groups)
    quantile = student_quantile(groups - 1)
    found = []
    for k in range(n):
        plain, unit, crossed = float(top[k]) / m, float(scale[k]) ** 2, float(cross[k])
        if plain <= 0.0:
            found.append(Estimate(0.0, 0.0, 0.0, "estimate", methods[k], evaluations, plain=0.0, cross_fit=0.0))
            continue
        # A correction below the cross-fit value (itself biased downwards) has overshot.
        value, error = max(float(means[k]), min(crossed, plain)), float(errors[k])
        if value < _OVERSHOT * plain / (1 + math.sqrt(K / m)) ** 2:  # no bias is so large: few directions alone have a slope
            value, error = plain, max(error, plain)
        half = quantile * max(error, value * math.sqrt(2 / m)) / value
        low = min(value * math.exp(-half), max(crossed, 0.0) * math.exp(-_CROSS_FIT_ERROR * half))
        found.append(
            Estimate(
                value * unit, low * unit, value * math.exp(half) * unit, "estimate", methods[k], evaluations,
                plain=plain * unit, cross_fit=crossed * unit, replicates=as_multiples(pseudo[k], value),
            )
        )  # fmt: skip
    return found


def leading_parts(Ys: Array) -> tuple[Array, Array]:
    """Scores (n, m, K) projected on the leading eigenvectors of each ``YᵀY``, (n, m, q), and its eigenvalues, ascending, (n, ·).

    Through the smaller of its two forms: for K > m no K×K matrix is ever made. The part of a spectrum that is dropped holds less
    than a quarter of its largest eigenvalue in total; where others keep more, its columns are zero.
    """
    m, K = Ys.shape[1:]
    wide = K > m
    across = Ys.transpose(0, 2, 1)
    w, V = np.linalg.eigh(Ys @ across if wide else across @ Ys)
    w = np.maximum(w, 0.0)
    kept = w.cumsum(axis=1) >= _TAIL * w[:, -1:]
    q = int(kept.sum(axis=1).max())
    V = V[:, :, -q:]
    Z = V * np.sqrt(w[:, None, -q:]) if wide else Ys @ V
    return Z * kept[:, None, -q:], w


def plain_tops(Ys: Array) -> Array:
    """The top eigenvalue of each ``YᵀY`` of score matrices (n, m, K), not negative, (n,)."""
    scale = scales(Ys)
    scaled = Ys / scale[:, None, None]
    across = scaled.transpose(0, 2, 1)
    w = np.linalg.eigvalsh(scaled @ across if Ys.shape[2] > Ys.shape[1] else across @ scaled)
    return np.asarray(np.maximum(w[:, -1], 0.0) * scale**2)


def scales(Ys: Array) -> Array:
    """Of each of n arrays a factor that keeps squares of its numbers away from under- and overflow, (n,)."""
    largest = np.abs(Ys).max(axis=tuple(range(1, Ys.ndim)), initial=0.0)
    return np.asarray(np.where((largest > 0) & np.isfinite(largest), largest, 1.0))


def group_sums(Z1: Array, Z2: Array, groups: int) -> Array:
    """``Σ z⁽¹⁾z⁽²⁾ᵀ`` of each group (directions g, g + groups, …) of matrices (n, m, q), (n, groups, q, q)."""
    n, m, q = Z1.shape
    padded = -(-m // groups) * groups
    if padded != m:
        fill = np.zeros((n, padded - m, q))
        Z1, Z2 = np.concatenate([Z1, fill], axis=1), np.concatenate([Z2, fill], axis=1)
    A = Z1.reshape(n, -1, groups, q).transpose(0, 2, 3, 1)  # (n, groups, q, m/groups)
    B = Z2.reshape(n, -1, groups, q).transpose(0, 2, 1, 3)  # (n, groups, m/groups, q)
    return np.asarray(A @ B)


def jackknife(sums: Array, sizes: Array, top: Array) -> Array:
    """Pseudo-values of the top eigenvalue of the mean, from deleting one group at a time, (n, groups); ``top`` is of the sums."""
    m, groups = int(sizes.sum()), len(sizes)
    without = np.linalg.eigvalsh((sums.sum(axis=1, keepdims=True) - sums) / (m - sizes)[:, None, None])[:, :, -1]
    return np.asarray(groups * (top[:, None] / m) - (groups - 1) * without)


def cross_fit(sums: Array, sizes: Array) -> Array:
    """Top direction of one half of the groups, value of the other, and the reverse; their mean, (n,)."""
    half = len(sizes) // 2
    G = np.stack([sums[:, :half].sum(axis=1), sums[:, half:].sum(axis=1)], axis=1)  # (n, 2, q, q)
    counts = np.array([sizes[:half].sum(), sizes[half:].sum()])
    u = np.linalg.eigh(G)[1][:, ::-1, :, -1]  # (n, 2, q): each half's is the other's
    return np.asarray(((u[:, :, None] @ G @ u[..., None])[..., 0, 0] / counts).mean(axis=1))


def as_multiples(pseudo: Array, value: float) -> tuple[float, ...]:
    """Pseudo-values as multiples of the value; four decimals are a hundredth of their spread at 10,000 directions."""
    return tuple([round(v, 4) for v in (pseudo / value).tolist()])


@lru_cache(maxsize=256)
def student_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's distribution."""
    return float(stdtrit(freedom, _LEVEL))
