"""What exact measures cost beside the Jacobian they come from: many samples at once, against one measure of one sample at a time.

    python tests/benchmarks/bench_estimates.py [--quick]

The other way is written here from the definition: scores of all coordinates and a singular value decomposition for each measure.
Processor time, the two ways in turn, medians. The differences are the largest relative ones over the samples and measures.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import arguments, print_table
from scipy.special import softmax

from onnxfim.slopes.blocks import Block, results
from onnxfim.slopes.differences import Sample
from onnxfim.slopes.kinds import SoftmaxLogits
from onnxfim.slopes.measurer import Measurer
from onnxfim.slopes.rescaling import Rescaling

SIZES = [(10, 64, 256), (10, 784, 128), (10, 3072, 32), (40, 3072, 16), (10, 150_528, 2)]  # classes, inputs, samples
QUICK = SIZES[:3]
SURE = [0.0, 250.0]  # how far one logit is above the others: probabilities down to 1e-109
MEASURES = ("lambda_max", "lambda_max_calibrated", "lambda_max_standardised", "trace", "logit_sensitivity", "boundary_distance")


def by_definition(z: np.ndarray, J: np.ndarray, units: np.ndarray, temperatures: list[float]) -> list[float]:
    """The `MEASURES` of one sample from its logits z (K,) and their slopes J (K, d), and lambda_max at the other temperatures."""
    D = J.astype(np.float64).T  # (d, K)
    c = int(z.argmax())

    def scores(temperature: float) -> np.ndarray:
        p = softmax(z / temperature)
        E = D - D[:, [c]]
        return np.sqrt(p) * (E - (E @ p)[:, None]) / temperature

    def top(Y: np.ndarray) -> float:
        size = float(np.abs(Y).max()) or 1.0
        return float(np.linalg.svd(Y / size, compute_uv=False)[0] * size) ** 2

    plain, hot = scores(1.0), [scores(t) for t in temperatures]
    others = np.arange(len(z)) != c
    distance = ((z[c] - z)[others] / np.linalg.norm(D[:, [c]] - D, axis=0)[others]).min()
    calibrated = [top(Y) for Y in hot]
    found = [top(plain), calibrated[0], top(plain * units[:, None]), float((plain**2).sum()), math.sqrt(top(D)), float(distance)]
    return found + calibrated[1:]


def spent(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of one call, and what it gave."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def row(K: int, d: int, n: int, sure: float, *, repeats: int) -> tuple[str, ...]:
    """One line of the table."""
    rng = np.random.default_rng([K, d])
    J = rng.standard_normal((n, K, d)).astype(np.float32)
    z = rng.standard_normal((n, K, 1))
    z[:, 0] += sure
    units = np.repeat(rng.uniform(0.5, 2, -(-d // 64)), 64)[:d] if d < 1024 else np.repeat([0.5, 1.0, 2.0], d // 3)
    measurer = Measurer(
        reader=SoftmaxLogits(), scheme="central", exact=True, gradient=True, temperature=1.3, temperature_reason=None,
        temperature_error=0.1, step_error=1e-4, standardised=Rescaling(units),
    )  # fmt: skip
    temperatures = [1.3, *measurer.temperature_ends]
    samples, X = [Sample(k, k) for k in range(n)], np.zeros((n, d), np.float32)
    ours, theirs = [], []
    for _ in range(repeats):
        used, (found, _leads) = spent(lambda: results(measurer, Block(SoftmaxLogits(), X, z, J), samples))
        ours.append(1e3 * used / n)
        used, truth = spent(
            lambda: [by_definition(base[:, 0], slopes, units, temperatures) for base, slopes in zip(z, J, strict=True)]
        )
        theirs.append(1e3 * used / n)
    values = np.array([[getattr(r, name).value for name in MEASURES] for r in found])
    off = float(np.abs(values / np.array(truth)[:, : len(MEASURES)] - 1).max())
    fast, slow = statistics.median(ours), statistics.median(theirs)
    return (
        f"{K}",
        f"{d:,}",
        f"{sure:g}",
        f"{fast:.3f}",
        f"{slow:.3f}",
        f"{slow / fast:.1f}",
        f"{off:.1e}",
        f"{values[:, 0].min():.1e}",
    )


def main() -> None:
    """Print the table."""
    args = arguments(__doc__)
    print_table(
        ("classes", "inputs", "sure by", "ms a sample", "one at a time, ms", "ratio", "largest difference", "smallest λ_max"),
        (row(K, d, n, sure, repeats=3 if args.quick else 5) for K, d, n in (QUICK if args.quick else SIZES) for sure in SURE),
        title="Exact measures of softmax outputs",
    )


if __name__ == "__main__":
    main()
