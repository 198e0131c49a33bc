"""The published estimators against the Gram sketch, on linear-softmax models whose lambda_max is known exactly.

    python tests/benchmarks/bench_published.py [--quick]

For ``z = Wx + b`` the Fisher information is ``WᵀCW = AᵀA``, so the truth is the top eigenvalue of a K×K matrix. Each cell:
estimate / truth, mean ± sd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from _common import arguments, print_table
from _published import DIRECTIONS, best_of_random_directions, best_of_random_rayleigh

from onnxfim.runtime.rows import Coordinates, Rademacher
from onnxfim.slopes.estimators import lambda_max_exact, lambda_max_sketch


@dataclass(frozen=True)
class Linear:
    """Scores ``y(v) = A v`` of a linear-softmax model at one point, with its exact lambda_max and effective rank."""

    A: np.ndarray
    lambda_max: float
    effective_rank: float


def linear_softmax(K: int, d: int, rng: np.random.Generator) -> Linear:
    """Random weights with singular values 1, 1/2, 1/3 … (trained nets have few large ones), and one random prediction."""
    rotation = np.linalg.qr(rng.standard_normal((K, K)))[0]
    W = (rotation / np.arange(1, K + 1)).astype(np.float32) @ rng.standard_normal((K, d), dtype=np.float32)
    z = 2.0 * rng.standard_normal(K)
    p = np.exp(z - z.max())
    p /= p.sum()
    A = (np.sqrt(p)[:, None] * (W - p @ W)).astype(np.float32)
    spectrum = np.linalg.eigvalsh((A @ A.T).astype(np.float64))
    return Linear(A, float(spectrum[-1]), float(spectrum.sum() / spectrum[-1]))


def spread(values: list[float]) -> str:
    """Mean ± sd, with two digits that count."""
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    digits = 3 if mean >= 0.1 else 4 if mean >= 0.01 else 6
    return f"{mean:.{digits}f} ± {sd:.{digits}f}"


def rows(sizes: list[tuple[int, int]], repeats: int) -> Iterator[list[Any]]:
    for d, K in sizes:
        black, white, sketch, covered, rank, exact = [], [], [], [], [], []
        for repeat in range(repeats):
            rng = np.random.default_rng([repeat, d, K])
            model = linear_softmax(K, d, rng)
            truth = model.lambda_max
            rank.append(model.effective_rank)
            black.append(best_of_random_directions(model.A, rng) / truth)
            white.append(best_of_random_rayleigh(model.A, rng) / truth)
            signs = Rademacher(repeat).block(d + K, 0, DIRECTIONS, d).astype(np.float32)
            estimate = lambda_max_sketch((signs @ model.A.T).astype(np.float64))
            assert None not in (estimate.value, estimate.low, estimate.high)
            sketch.append(estimate.value / truth)
            covered.append(estimate.low <= truth <= estimate.high)
            if d <= DIRECTIONS:
                axes = Coordinates().block(0, 0, d, d).astype(np.float64)
                exact.append((lambda_max_exact(axes @ model.A.T.astype(np.float64)).value or 0.0) / truth)
        yield [
            f"{d:,}", K, f"{np.mean(rank):.1f}", spread(black), spread(white), spread(sketch), f"{np.mean(covered):.0%}",
            f"{np.mean(exact):.3f} ({d + 1})" if exact else None,
        ]  # fmt: skip


def main() -> None:
    options = arguments(__doc__)
    dimensions = [64, 1024] if options.quick else [64, 1024, 3072, 150528]
    headers = (
        "d", "K", "tr/λ", f"best of {DIRECTIONS} directions ({DIRECTIONS + 1} passes)",
        f"best of {DIRECTIONS} Rayleigh quotients ({DIRECTIONS} backward passes)", f"onnxfim sketch ({DIRECTIONS + 1} passes)",
        "its 95 % interval covers", "onnxfim exact (passes)",
    )  # fmt: skip
    sizes = [(d, K) for d in dimensions for K in (10, 200)]
    print_table(headers, rows(sizes, 10 if options.quick else 40), title="Estimate / truth")


if __name__ == "__main__":
    main()
