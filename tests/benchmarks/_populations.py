"""Populations of real values: every measured sample of a trained model, at any temperature, from one Jacobian each.

What a benchmark of intervals needs is many draws of samples from a population that is known whole. A model's Jacobians are computed
once and kept as Gram matrices ``JJᵀ``; lambda_max at a temperature T is then array work, and so is a temperature refitted on each draw.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import softmax

from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.run import audit
from onnxfim.errors import OnnxFimError
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.audit import Calibration
from onnxfim.record.settings import Settings
from onnxfim.record.statistics import Z95
from onnxfim.runtime.hardware import Hardware
from onnxfim.slopes.calibration import calibrate
from onnxfim.slopes.kinds import SoftmaxLogits
from tests.support import trained

FOLDER = Path(tempfile.gettempdir()) / "onnxfim-populations"
FLIPPED = 200  # samples whose flip radii are a population
_GRID = np.linspace(np.log(0.02), np.log(30.0), 121)  # of ln T; values between are interpolated, to 1e-4 of the value


@dataclass(frozen=True)
class Population:
    """Logits z (N, K), labels (N,) and ``JJᵀ`` (N, K, K) of all samples of a model's data, float64."""

    name: str
    z: np.ndarray
    labels: np.ndarray
    gram: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Which predictions are wrong, (N,)."""
        return self.z.argmax(axis=1) != self.labels

    def exact(self, temperature: float) -> np.ndarray:
        """lambda_max of ``softmax(z / T)`` at each sample, (N,)."""
        p = softmax(self.z / temperature, axis=1)
        root = np.sqrt(p) / temperature
        c = self.z.argmax(axis=1)
        n, K = p.shape
        contrast = np.broadcast_to(np.eye(K), (n, K, K)).copy()  # slopes relative to the likeliest class: nothing cancels
        contrast[np.arange(n), :, c] -= 1.0
        B = root[:, :, None] * (contrast - (p[:, :, None] * contrast).sum(axis=1, keepdims=True))
        return np.maximum(np.linalg.eigvalsh(B @ self.gram @ B.transpose(0, 2, 1))[:, -1], 1e-300)

    @cached_property
    def _table(self) -> np.ndarray:
        return np.log(np.array([self.exact(t) for t in np.exp(_GRID)]))  # (grid, N)

    def values(self, log_t: float) -> np.ndarray:
        """lambda_max at ``ln T``, (N,), between the grid's temperatures by interpolation."""
        at = np.clip((log_t - _GRID[0]) / (_GRID[1] - _GRID[0]), 0, len(_GRID) - 1.001)
        k = int(at)
        return np.exp(self._table[k] + (at - k) * (self._table[k + 1] - self._table[k]))

    def fitted(self, rows: np.ndarray) -> Calibration:
        """The temperature of these rows, as an audit fits it."""
        return calibrate(SoftmaxLogits(), self.z[rows, :, None], self.labels[rows])

    def calibrated(self, rows: np.ndarray, found: Calibration) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated values of these rows, (n,), and their multiples at the ends of the temperature's interval, (2, n)."""
        log_t = float(np.log(found.temperature))
        values = self.values(log_t)[rows]
        return values, np.array([self.values(log_t + sign * Z95 * found.log_error)[rows] / values for sign in (-1, 1)])


def population(model: trained.Trained, folder: Path = FOLDER) -> Population | None:
    """A model's population, from the folder where it was kept; None where its graph has no derivative or no classes."""
    key = hashlib.sha256(model.path.read_bytes()).hexdigest()[:16]
    kept = folder / f"{model.name}-{key}.npz"
    if not kept.is_file():
        arrays = _computed(model)
        if arrays is None:
            return None
        folder.mkdir(exist_ok=True)
        np.savez(kept, **arrays)
    with np.load(kept) as found:
        return Population(model.name, found["z"], found["labels"], found["gram"])


def _computed(model: trained.Trained) -> dict[str, np.ndarray] | None:
    X, labels = model.arrays["inputs"], model.arrays["labels"]
    settings = Settings(providers=("cpu",), batch=64)
    try:
        subject = open_subject(model.path, X, settings)
        source = subject.differentiable
        if source is None or subject.reader.name != "logits":
            return None
        z = subject.forward.outputs(X).astype(np.float64)[:, :, 0]
        derivative = DifferentiableModel(
            source.proto, input_name=source.input_name, output_name=source.logits, shape=X.shape[1:], num_outputs=z.shape[1],
            settings=settings, base_dir=source.base_dir, hardware=Hardware(("cpu",)),
        )  # fmt: skip
        grams = []
        for start in range(0, len(X), 8):
            J = derivative.jacobian(X[start : start + 8]).astype(np.float64)  # (n, K, d)
            grams.append(J @ J.transpose(0, 2, 1))
    except OnnxFimError as error:
        print(f"{model.name}: {error}")
        return None
    return {"z": z, "labels": labels, "gram": np.concatenate(grams)}


def flip_radii(model: trained.Trained, folder: Path = FOLDER) -> np.ndarray | None:
    """Flip radii of up to `FLIPPED` samples by one audit, infinite where none was found; None where the model has none at all."""
    key = hashlib.sha256(model.path.read_bytes()).hexdigest()[:16]
    kept = folder / f"{model.name}-{key}-flips.npy"
    if not kept.is_file():
        settings = Settings(samples=FLIPPED, replay=0, bounds=False, providers=("cpu",), batch=64)
        try:
            found = audit(model.path, model.arrays["inputs"], model.arrays["labels"], settings)
        except OnnxFimError as error:
            print(f"{model.name}: {error}")
            return None
        radii = [s.flip_radius for s in found.samples if s.flip_radius is not None]
        folder.mkdir(exist_ok=True)
        np.save(kept, [np.inf if r.value is None else r.value for r in radii if r.value is not None or r.evaluations])
    values = np.load(kept)
    return values if np.isfinite(values).any() else None


def populations(name: str = "") -> Iterator[Population]:
    """The populations of all trained models whose name holds ``name``; rounded twins are left out, they repeat their originals."""
    for model in originals(name):
        found = population(model)
        if found is not None:
            yield found


def originals(name: str = "") -> Iterator[trained.Trained]:
    """The trained models whose name holds ``name``, without rounded twins."""
    for model in trained.ALL.values():
        if name in model.name and model.parent is None and model.name != "digits_resnet_softmax":
            yield model
