"""Upper bounds of the L2 operator norms of matrices and zero-padded convolutions.

Every figure is an upper bound: what a factorisation proves, times `SLACK` for its rounding, then the next float up.
Iterations that only approach a norm from below (power, Lanczos) are not used anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxfim.errors import ModelError
from onnxfim.graph.referring import let_go

#: Relative allowance for rounding in float64: backward errors of products, eigenvalues and Cholesky are below n²·u ≈
#: 1e-9 (n ≤ 3000).
SLACK = 1.0 + 1e-8

#: Smaller side of a matrix from which its largest eigenvalue is proven, not computed.
LARGE_SIDE = 2048
_BLOCK = 256  # columns of a large matrix in float64 at a time
_GUESS, _ABOVE = 1e-10, 2e-9  # relative: how far Lanczos goes, and what is tried first above its guess
_SMALL = 48  # below this size a batch of eigenvalues costs less than telling the frequencies apart first
_CHUNK = 1 << 22  # complex numbers held at once


@dataclass(frozen=True)
class NormBound:
    """An upper bound of an operator norm, and how tight it is."""

    value: float
    method: str
    note: str = ""


def outward(value: float) -> float:
    """``value`` with the stated slack, rounded up: never below the number it stands for."""
    return 0.0 if value == 0 else math.nextafter(value * SLACK, math.inf)


def matrix_norm(W: np.ndarray) -> NormBound:
    """Largest singular value of a matrix, from its smaller Gram matrix: its largest eigenvalue, or for a large one a bound of that
    which a Cholesky factorisation proves (both exact up to rounding)."""
    if min(W.shape) >= LARGE_SIDE:
        return _large_matrix_norm(W)
    A, scale = _scaled(W)
    if scale == 0:
        return NormBound(0.0, "zero")
    if min(A.shape) == 1:
        return NormBound(outward(scale * float(np.sqrt((A * A).sum()))), "Euclidean norm")
    G = A @ A.T if A.shape[0] <= A.shape[1] else A.T @ A
    return NormBound(outward(scale * math.sqrt(_top(G))), "Gram eigenvalue")


def _large_matrix_norm(W: np.ndarray) -> NormBound:
    """The same in a tenth of the time of eigenvalues, and with one float64 matrix of the smaller side's size.

    A few Lanczos steps guess the largest eigenvalue of the Gram matrix G; a factorisation of ``μI − G`` that succeeds at a μ just
    above the guess proves it. G's upper triangle is left as it is while the lower one is factorised in its place.
    """
    from scipy.linalg import blas, lapack  # here: their import takes longer than many an audit
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    scale = max(float(W.max()), -float(W.min()))
    if not math.isfinite(scale):
        raise ModelError("weights: infinite or NaN values were found, finite ones were expected. Re-export the model.")
    if scale == 0:
        return NormBound(0.0, "zero")
    wide = W if W.shape[0] <= W.shape[1] else W.T  # (n, m), n ≤ m
    n = len(wide)
    G = np.zeros((n, n), order="F")
    for start in range(0, wide.shape[1], _BLOCK):
        part = np.asfortranarray(wide[:, start : start + _BLOCK], np.float64)
        part /= scale
        G = blas.dsyrk(1.0, part, beta=1.0, c=G, overwrite_c=1)  # the upper triangle
    let_go(W)
    diagonal = G.diagonal().copy()
    product = LinearOperator((n, n), lambda v: blas.dsymv(1.0, G, v), dtype=np.float64)
    start_at = np.random.default_rng(0).standard_normal(n)
    try:
        top = eigsh(product, 1, which="LA", v0=start_at, tol=_GUESS, return_eigenvectors=False)[0]
    except ArpackError:  # a guess that is too low takes more factorisations
        top = diagonal.max()
    above = _ABOVE
    while True:
        mu = float(top) * (1 + above)
        for start in range(0, n, _BLOCK):  # the lower triangle of μI − G
            end = min(start + _BLOCK, n)
            G[end:, start:end] = -G[start:end, end:].T
            corner = np.triu(G[start:end, start:end], 1)
            G[start:end, start:end] = corner - corner.T
        np.fill_diagonal(G, mu - diagonal)
        G, failed = lapack.dpotrf(G, lower=1, overwrite_a=1, clean=0)
        if failed == 0:
            room = 1 + n * n * float(np.finfo(np.float64).eps)  # of the product and the factorisation
            return NormBound(outward(scale * math.sqrt(mu * room)), "Gram eigenvalue")
        above *= 8


def diagonal_norm(s: np.ndarray) -> NormBound:
    """NormBound of a diagonal map: its largest entry by magnitude."""
    _, scale = _scaled(s)
    return NormBound(outward(scale), "largest magnitude")


@dataclass(frozen=True)
class ConvGeometry:
    """What a convolution does along each spatial axis; ``sizes`` are (input, output) lengths, None where unknown."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]  # at the beginning of each axis
    sizes: tuple[tuple[int, int] | None, ...]


def conv_norm(W: np.ndarray, geometry: ConvGeometry, *, groups: int = 1, method: str = "cholesky") -> NormBound:
    """Upper bound of the norm of a zero-padded convolution.

    A strided convolution is a stride-1 convolution of the input's polyphase components; a zero-padded one is a compression of
    the circular one on any grid large enough that no tap wraps around, so the largest norm over that grid's frequencies is
    an upper bound. Where the grid would be large or its size is unknown, a coarser one of N points is used, and
    ``sup ≤ max / cos(πm/N)`` for the squared norm, a trigonometric polynomial of degree m per axis
    (M. Riesz; Ehlich & Zeller 1964), makes up for the points between.

    Args:
        W: Kernel, (c_out, c_in / groups, *kernel).
        geometry: Strides, dilations, pads and sizes per spatial axis.
        groups: Number of groups.
        method: ``cholesky`` (exact on the grid) or ``gram`` (Gram iteration, Delattre et al. 2023, 4 steps).
    """
    A, scale = _scaled(W)
    if scale == 0:
        return NormBound(0.0, "zero")
    rank = W.ndim - 2
    grid, correction, blocks = [], 1.0, A
    for axis in range(rank):
        blocks, points, factor = _axis(blocks, axis, rank, geometry, channels=A.shape[0] // groups)
        grid.append(points)
        correction *= factor
    c_out = blocks.shape[0] // groups
    taps = blocks.reshape(groups, c_out, blocks.shape[1], *blocks.shape[2:])  # (G, o, i, *taps, *phases)
    order = [0, 1, 2, *range(3 + rank, 3 + 2 * rank), *range(3, 3 + rank)]
    taps = taps.transpose(order).reshape(groups, c_out, -1, *blocks.shape[2 : 2 + rank])
    taps = taps[:, :, np.any(taps != 0, axis=(0, 1, *range(3, 3 + rank)))]
    top = max((_largest(T, tuple(grid), method) for T in taps), default=0.0)
    name = {"cholesky": "DFT grid", "gram": "Gram iteration on the DFT grid"}[method]
    name = "reshaped kernel" if math.prod(grid) == 1 else f"{name} {'×'.join(map(str, grid))}"
    note = "" if correction == 1.0 else f"grid coarser than the image: includes a factor {correction:.4f}"
    return NormBound(outward(scale * top * correction), name, note)


def _axis(W: np.ndarray, axis: int, rank: int, geometry: ConvGeometry, *, channels: int) -> tuple[np.ndarray, int, float]:
    """Split one axis into (taps, phases), the phase axis last; the grid's number of points, and the factor for its
    coarseness."""
    k, s, d, p = W.shape[2 + axis], geometry.strides[axis], geometry.dilations[axis], geometry.pads[axis]
    size = geometry.sizes[axis]
    if s > 1 and d > 1:
        spread = np.zeros((*W.shape[: 2 + axis], (k - 1) * d + 1, *W.shape[3 + axis :]))
        spread[(slice(None),) * (2 + axis) + (slice(None, None, d),)] = W
        W, k, d = spread, spread.shape[2 + axis], 1
    q = -(-k // s)
    pad = [(0, 0)] * W.ndim
    pad[2 + axis] = (0, q * s - k)
    W = np.pad(W, pad)
    W = W.reshape(*W.shape[: 2 + axis], q, s, *W.shape[3 + axis :])
    W = np.moveaxis(W, 3 + axis, -1)  # (o, i, *taps, *phases)
    degree = q - 1
    if degree == 0:
        return W, 1, 1.0
    exact = None
    if size is not None and d == 1:
        n_in, n_out = size
        exact = max((n_in - 1 + p) // s + 1, n_out + degree - p // s, q)
    elif size is not None:
        exact = max(-(-size[1] // d) + degree, q)
    coarse = (16 if channels <= 160 else 10) * degree
    if exact is not None and exact <= coarse:
        return W, exact, 1.0
    return W, coarse, 1 / math.sqrt(math.cos(math.pi * degree / coarse))


def _largest(T: np.ndarray, grid: tuple[int, ...], method: str) -> float:
    """Largest spectral norm of ``Σ_t T[:, :, t] e^{-iω·t}`` over the grid's frequencies; T is (o, i, *taps)."""
    if 0 in T.shape:
        return 0.0
    if T.shape[0] > T.shape[1]:
        T = np.swapaxes(T, 0, 1)
    if math.prod(grid) == 1:
        A = T.reshape(T.shape[0], T.shape[1])
        return math.sqrt(_top(A @ A.T))
    best = 0.0
    for M in _transforms(T, grid):
        best = _gram_iteration(M, best) if method == "gram" else _grams(M, best)
    return math.sqrt(best)


def _transforms(T: np.ndarray, grid: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Transfer matrices (f, o, i) in chunks of frequencies; conjugate ones, which have the same norm, once."""
    rank = len(grid)
    omega = np.stack(np.meshgrid(*(np.arange(n) / n for n in grid), indexing="ij"), -1).reshape(-1, rank)
    mirror = np.ravel_multi_index(tuple(np.round(-omega[:, a] * grid[a]).astype(int) % grid[a] for a in range(rank)), grid)
    omega = omega[np.arange(len(omega)) <= mirror]
    taps = np.stack(np.meshgrid(*(np.arange(n) for n in T.shape[2:]), indexing="ij"), -1).reshape(-1, rank)
    flat = T.reshape(T.shape[0] * T.shape[1], -1).T  # (t, o·i)
    step = max(1, _CHUNK // flat.shape[1])
    for a in range(0, len(omega), step):
        phase = 2 * np.pi * (omega[a : a + step] @ taps.T)  # (f, t)
        M = np.cos(phase) @ flat - 1j * (np.sin(phase) @ flat)
        yield M.reshape(-1, T.shape[0], T.shape[1])


def _grams(M: np.ndarray, best: float) -> float:
    """The largest ``‖M(ω)‖²``, or ``best`` if that is larger.

    Large matrices: a Cholesky factorisation of ``μI − MMᴴ`` that succeeds proves ``‖M‖² ≤ μ``, at a tenth of the cost of
    eigenvalues; only the frequencies where it fails are solved.
    """
    if M.shape[1] == 1:
        return max(best, float((M.real**2 + M.imag**2).sum(2).max()))
    G = M @ M.conj().transpose(0, 2, 1)  # (f, o, o)
    if M.shape[1] <= _SMALL:
        return max(best, float(np.linalg.eigvalsh(G)[:, -1].max()))
    order = np.argsort(-np.linalg.norm(G, axis=(1, 2)))
    for f in order:
        if best > 0:
            shifted = -G[f]
            shifted[np.diag_indices(len(shifted))] += best
            if _positive(shifted):
                continue
        best = max(best, _top(G[f]) * (1 + 1e-12))
    return best


def _positive(G: np.ndarray) -> bool:
    """Whether a Cholesky factorisation of a Hermitian matrix succeeds."""
    try:
        np.linalg.cholesky(G)
    except np.linalg.LinAlgError:
        return False
    return True


def _gram_iteration(M: np.ndarray, best: float, *, steps: int = 4) -> float:
    """Upper bound of the largest ``‖M(ω)‖²`` by Gram iteration: ``‖M‖² ≤ ‖G_t‖_F^{1/2^(t-1)}``, ``G_{t+1} = G_t G_tᴴ``.

    Source: Delattre et al. (2023), "Efficient bound of Lipschitz constant for convolutional layers by Gram iteration", Alg. 3.
    """
    G = M @ M.conj().transpose(0, 2, 1)
    log = np.zeros(len(G))
    power = 1.0
    for _ in range(steps):
        size = np.linalg.norm(G, axis=(1, 2))
        live = size > 0
        log[live] += np.log(size[live]) / power
        G = G[live] / size[live, None, None]
        log = log[live]
        if not len(G):
            return best
        G = G @ G
        power *= 2
    log += np.log(np.linalg.norm(G, axis=(1, 2))) / power
    return max(best, math.exp(float(log.max())))


def _top(G: np.ndarray) -> float:
    """Largest eigenvalue of a Hermitian positive semidefinite matrix."""
    n = len(G)
    if n == 1:
        return float(G[0, 0].real)
    return max(0.0, float(np.linalg.eigvalsh(G)[-1]))


def _scaled(W: np.ndarray) -> tuple[np.ndarray, float]:
    """``W`` in float64 divided by its largest magnitude, and that magnitude, so that squares neither overflow nor vanish."""
    A = np.array(W, np.float64)
    scale = float(np.abs(A).max()) if A.size else 0.0
    if not math.isfinite(scale):
        raise ModelError("weights: infinite or NaN values were found, finite ones were expected. Re-export the model.")
    return (A / scale if scale > 0 else A), scale
