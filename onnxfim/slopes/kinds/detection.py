"""Scores of a detector's boxes: those of the boxes that it reports, as independent yes-or-no outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxfim.graph.ends import Ending
from onnxfim.record.settings import OutputKind, Settings
from onnxfim.slopes.kinds.base import Array, OutputReader, Takes
from onnxfim.slopes.kinds.sigmoid import SigmoidLogits, SigmoidProbabilities


@dataclass(frozen=True)
class DetectionLogits(OutputReader):
    """Logits of the scores of boxes: all scores of those boxes of which one reaches the threshold at the sample itself.

    The other boxes have no part in ``F = Σ_selected p(1 − p) ∇z ∇zᵀ``: it is that of the boxes which are reported at the sample.
    Boxes are the positions of outputs (..., K, P). Never recognised by itself: what is audited of a detector is a choice.
    """

    threshold: float = 0.25

    name: ClassVar[OutputKind] = "detection"
    each: ClassVar[OutputReader] = SigmoidLogits()
    takes: ClassVar[Takes] = "scores"
    has_classes: ClassVar[bool] = False
    independent: ClassVar[bool] = True
    no_temperature: ClassVar[str | None] = "labels of a detector's boxes are not read, so that no temperature can be fitted"
    spread_formula: ClassVar[str] = "max p(1−p)·L² over the selected scores"

    @classmethod
    def of(cls, settings: Settings) -> OutputReader:
        return cls(settings.score_threshold)

    @classmethod
    def fits(cls, z: Array) -> bool:
        return cls.each.fits(z)

    def made_by(self, end: Ending) -> bool:
        return self.each.made_by(end)

    def doubt(self, z: Array) -> str | None:
        if self.selected(z).any():
            return None
        return (
            f"no box of the first samples has a score of {self.threshold:g} or more, so that nothing is audited there. Give a "
            "lower --score-threshold, or check the inputs' scale"
        )

    def selected(self, base: Array) -> Array:
        """Whether each box has a score at or above the threshold, for ``base`` (..., K, P), in its shape."""
        reached = self.probabilities(base).max(axis=-2, keepdims=True) >= self.threshold
        return np.asarray(np.broadcast_to(reached, base.shape))

    def logits(self, outputs: Array) -> Array:
        return self.each.logits(outputs)

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        return self.each.probabilities(outputs, temperature)

    def scores(self, base: Array, plus: Array, minus: Array, h: float | Array, temperature: float = 1.0) -> Array:
        Y = self.each.scores(base, plus, minus, h, temperature)  # (..., K·P)
        return np.asarray(Y * self.selected(base).reshape(*base.shape[:-2], -1))

    def divergence(self, base: Array, outputs: Array) -> Array:
        chosen = self.selected(base)
        return self.each.divergence(base[chosen][:, None], outputs[:, chosen][..., None])

    def log10_spread(self, outputs: Array) -> float:
        chosen = self.selected(outputs)
        return self.each.log10_spread(outputs[chosen]) if chosen.any() else -math.inf

    @property
    def log10_largest_spread(self) -> float:
        return self.each.log10_largest_spread


@dataclass(frozen=True)
class DetectionProbabilities(DetectionLogits):
    """The scores themselves, between 0 and 1."""

    each: ClassVar[OutputReader] = SigmoidProbabilities()
    reads_logits: ClassVar[bool] = False
    differentiated: ClassVar[str] = SigmoidProbabilities.differentiated

    def before_activation(self) -> OutputReader:
        return DetectionLogits(self.threshold)
