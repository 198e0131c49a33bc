"""The stage ``audit``: what the product says of the .onnx file, and what the published estimators would have said.

Of the published estimators the black box is run on the file itself, with central differences of its outputs; the white box needs the
eigenvalues of ``AAᵀ`` alone, which the audit has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

import onnxfim
from onnxfim import Settings
from sample_models import files
from tests.benchmarks._published import DIRECTIONS, best_of_random_rayleigh

from .cells import Cell
from .data_sets import load
from .stages import Folder, Record

SAMPLES = 100  # the first test images are audited and attacked
STEP = 1e-2  # L2 length in pixel units of their differences: float32 outputs are then good to about 1e-4 relative

Floats = NDArray[np.float64]


def settings(*, samples: int, low: float = 0.0, high: float = 1.0, **more: Any) -> Settings:
    """How every model is audited: gradients where the graph has them, no replay, flips within the pixels' range."""
    return Settings(samples=samples, providers=("cpu",), replay=0, attack_range=(low, high), **more)


def number(value: float | None) -> float | None:
    """Rounded to four significant digits; None where there is none or it is not finite."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.4g}")


def numbers(values: Any) -> list[float | None]:
    """Each rounded to four significant digits."""
    return [number(None if v is None else float(v)) for v in values]


def described(audit: onnxfim.Audit) -> Record:
    """What an audit says, as plain lists over its samples; a sample that was skipped is None everywhere."""
    by_index = {sample.index: sample for sample in audit.samples}
    kept = [by_index.get(i) for i in range(len(audit.samples) + len(audit.skipped))]

    def column(name: str) -> list[float | None]:
        return numbers(getattr(s, name).value if s is not None and getattr(s, name) is not None else None for s in kept)

    calibration = audit.calibration
    bound = audit.bound
    return {
        "temperature": number(calibration.temperature if calibration is not None else None),
        "log_error": number(calibration.log_error if calibration is not None else None),
        "mean_confidence": number(calibration.mean_confidence if calibration is not None else None),
        "log10_lipschitz": number(bound.log10_lipschitz if bound is not None and bound.available else None),
        "log10_fisher_bound": median(column("log10_fisher_bound")),
        "family_read": audit.architecture.family if audit.architecture is not None else None,
        "passes": audit.run.evaluations,
        "method": audit.run.method,
        "verdict": audit.verdict,
        "skipped": [f"{s.index}: {s.reason}" for s in audit.skipped],
        "kind": sorted({s.lambda_max.kind for s in audit.samples}),
        "samples": {
            "right": [None if s is None or s.label is None else int(s.label == s.prediction) for s in kept],
            "lambda_raw": column("lambda_max"),
            "lambda_calibrated": column("lambda_max_calibrated"),
            "lambda_standardised": column("lambda_max_standardised"),
            "boundary": column("boundary_distance"),
            "flip": column("flip_radius"),
            "jacobian": column("logit_sensitivity"),
            "trace": column("trace"),
            "confidence": numbers(None if s is None else s.confidence for s in kept),
        },
    }


def median(values: list[float | None]) -> float | None:
    """Of those that there are."""
    known = [v for v in values if v is not None]
    return number(float(np.median(known))) if known else None


def published_black(
    logits: Callable[[NDArray[np.float32]], NDArray[np.float32]], X: NDArray[np.float32], *, seed: int = 0
) -> Floats:
    """Largest ``vᵀFv`` over random unit directions, for each image (n,); ``logits`` maps (N, …) to (N, K)."""
    found = np.empty(len(X))
    for i, x in enumerate(X):
        rng = np.random.default_rng([seed, i])
        V = rng.standard_normal((DIRECTIONS, *x.shape), dtype=np.float32)
        V /= np.sqrt(np.square(V).reshape(DIRECTIONS, -1).sum(axis=1)).reshape(-1, *(1,) * x.ndim)
        z = log_softmax(logits(np.concatenate([x + STEP * V, x - STEP * V, x[None]])).astype(np.float64), axis=-1)
        slopes = (z[:DIRECTIONS] - z[DIRECTIONS:-1]) / (2 * STEP)  # (directions, K): of log p along v
        found[i] = (np.square(slopes) @ np.exp(z[-1])).max()
    return found


def published_white(eigenvalues: list[Floats], classes: int, *, seed: int = 0) -> Floats:
    """Largest Rayleigh quotient of ``AAᵀ`` (K×K, rank K − 1 at most) over random unit vectors, for each image (n,)."""
    found = np.empty(len(eigenvalues))
    for i, spectrum in enumerate(eigenvalues):
        A = np.diag(np.sqrt(np.pad(spectrum, (0, classes - len(spectrum)))))
        found[i] = best_of_random_rayleigh(A, np.random.default_rng([seed, i, 1]))
    return found


def spectrum(sample: Any, classes: int) -> Floats:
    """Eigenvalues of the sample's Fisher matrix: the largest as measured, what the trace leaves spread over the others."""
    top = np.asarray(sample.top_eigenvalues or (sample.lambda_max.value or 0.0,), np.float64)
    others = classes - 1 - len(top)
    if others <= 0:
        return top[: classes - 1]
    rest = max((sample.trace.value or 0.0) - top.sum(), 0.0)
    return np.concatenate([top, np.full(others, rest / others)])


def published(audit: onnxfim.Audit, path: Path, X: NDArray[np.float32], *, classes: int) -> dict[str, list[float | None]]:
    """What both published estimators say of the same images; the white box only where the audit knows the eigenvalues."""
    run = files.opened(path)
    said: dict[str, list[float | None]] = {"black": numbers(published_black(run, X))}
    if len(audit.samples) == len(X) and all(s.lambda_max.kind == "exact" for s in audit.samples):
        said["white"] = numbers(published_white([spectrum(s, classes) for s in audit.samples], classes))
    return said


def audit(folder: Folder, cell: Cell) -> Record:
    """Audit the file on its first test images; the temperature comes from all of them."""
    data = load(cell.data)
    path = folder.onnx(cell.name)
    result = onnxfim.audit(path, data.test_images, data.test_labels, settings(samples=SAMPLES))
    record = described(result)
    record["published"] = published(result, path, data.test_images[:SAMPLES], classes=data.classes)
    mean = np.mean([v for v in record["samples"]["lambda_raw"] if v is not None])
    return record | {"said": f"mean λ {mean:.3g}, T {record['temperature']}"}
