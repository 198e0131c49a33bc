"""An attack on a smoothed classifier: what its certificates are held against.

Projected gradient ascent in L2 on the chance that noise gives another class, by the gradient of ``−log E[softmax_y(f(x + δ + σε))]``
(Salman et al. 2019, NeurIPS, SmoothAdv), with fresh noise at every step, and nothing clipped: a certificate holds beyond the valid
range too. A success is judged on the smoothed classifier as PREDICT of Cohen et al. (2019) does, by many rows of the file itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy import stats

from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.served_model import as_model
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.settings import Settings
from onnxfim.runtime.hardware import Hardware

Array: TypeAlias = np.ndarray[Any, Any]

#: Logits (B, K) at rows, and the gradient (B, *shape) of ``log Σ_{j≠y} exp z_j − z_y`` for their labels y (B,).
Gradient: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
#: Classes (B,) that the file gives rows.
Decide: TypeAlias = Callable[[Array], Array]

_PIECE = 4096  # rows that are asked at a time


@dataclass(frozen=True)
class SmoothedAttack:
    """Attacks the classifier that is smoothed by noise of a standard deviation.

    Attributes:
        gradient: Of the file, or of a twin that has one.
        decide: The file.
        sigma: Standard deviation of the noise.
        steps: Of an ascent.
        rows: With noise, of a step.
        judged: Rows that judge a success.
        level: Chance of a success that is none.
    """

    gradient: Gradient
    decide: Decide
    sigma: float
    steps: int = 20
    rows: int = 32
    judged: int = 2000
    level: float = 1e-3

    def moves(self, X: Array, labels: Array, radius: Array, rng: np.random.Generator) -> Array:
        """Where an ascent in the balls of radius (n,) about the samples X (n, *shape) ends, (n, *shape)."""
        delta = np.zeros(X.shape)
        for step in range(self.steps):
            g = self._ascent(X + delta, labels, rng)
            size = np.linalg.norm(g.reshape(len(g), -1), axis=1)
            unit = g / _wide(np.maximum(size, 1e-300), g)
            delta = delta + _wide(radius * max(2.5 / self.steps, 0.5 * (1 - step / self.steps)), g) * unit
            length = np.linalg.norm(delta.reshape(len(g), -1), axis=1)
            delta *= _wide(np.minimum(1.0, radius / np.maximum(length, 1e-300)), g)
        return delta

    def successes(self, X: Array, labels: Array, delta: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Whether the smoothed classifier has another class at X + δ, (n,) bool, and the lengths of the moves as made, (n,)."""
        moved = (X + delta).astype(X.dtype)
        lengths = np.linalg.norm((moved.astype(np.float64) - X).reshape(len(X), -1), axis=1)
        return np.array([self._another(x, int(y), rng) for x, y in zip(moved, labels, strict=True)], bool), lengths

    def _another(self, x: Array, label: int, rng: np.random.Generator) -> bool:
        counts = np.bincount(self.votes(x, rng), minlength=label + 2)
        first = int(counts.argmax())
        return first != label and stats.binomtest(int(counts[first]), int(counts[first] + counts[label])).pvalue <= self.level

    def votes(self, x: Array, rng: np.random.Generator) -> Array:
        """The file's classes at rows with noise about a point, (judged,)."""
        noise = rng.standard_normal((self.judged, *x.shape), dtype=np.float32)
        return np.asarray(self.decide((x + self.sigma * noise).astype(x.dtype)))

    def _ascent(self, X: Array, labels: Array, rng: np.random.Generator) -> Array:
        """The mean over the noise of each row's gradient by the weight that its softmax has in that of the mean, (n, *shape)."""
        rows = np.repeat(X, self.rows, axis=0)
        rows = rows + self.sigma * rng.standard_normal(rows.shape)
        of = np.repeat(labels, self.rows)
        parts = [self.gradient(rows[i : i + _PIECE], of[i : i + _PIECE]) for i in range(0, len(rows), _PIECE)]
        z, g = np.concatenate([p[0] for p in parts]).astype(np.float64), np.concatenate([p[1] for p in parts]).astype(np.float64)
        own = np.take_along_axis(z, of[:, None], axis=1)[:, 0]
        others = np.where(np.arange(z.shape[1]) == of[:, None], -np.inf, z)
        lead = own - np.logaddexp.reduce(others, axis=1)  # the softmax is expit of it
        log = -np.abs(lead) - 2 * np.log1p(np.exp(-np.abs(lead)))  # of p (1 − p)
        log = log.reshape(len(X), self.rows)
        weight = np.exp(log - log.max(axis=1, keepdims=True))  # of each sample's own rows: the direction alone matters
        return np.asarray((_wide(weight.reshape(-1), g) * g).reshape(len(X), self.rows, *X.shape[1:]).sum(axis=1))


def _wide(values: Array, like: Array) -> Array:
    """Values of samples (n,) broadcastable to (n, *shape)."""
    return np.asarray(values).reshape(-1, *([1] * (like.ndim - 1)))


def attacked_file(path: Path, X: Array, sigma: float, *, twin: Path | None = None, **options: Any) -> SmoothedAttack:
    """An attack on a file of logits, by its own derivative graphs or those of a twin."""
    settings = Settings(providers=("cpu",), batch=256)
    subject = open_subject(as_model(path, settings), X, settings)
    source = subject if twin is None else open_subject(as_model(twin, settings), X, settings)
    graphs = source.differentiable
    assert graphs is not None, source.no_gradient
    model = DifferentiableModel(
        graphs.proto, input_name=graphs.input_name, output_name=graphs.logits, shape=X.shape[1:], num_outputs=source.info.num_outputs,
        settings=settings, base_dir=graphs.base_dir, hardware=Hardware(("cpu",)),
    )  # fmt: skip

    def gradient(rows: Array, labels: Array) -> tuple[Array, Array]:
        most = model.rows_per_call(1)
        parts = [
            model.loss_gradient(rows[i : i + most], labels[i : i + most], np.full(len(rows[i : i + most]), -1))
            for i in range(0, len(rows), most)
        ]
        return np.concatenate([z for z, _ in parts]), np.concatenate([g for _, g in parts])

    def decide(rows: Array) -> Array:
        return subject.reader.predictions(subject.forward.outputs(rows))

    return SmoothedAttack(gradient, decide, sigma, **options)
