"""Within which distance the weights allow no flip of a sample, from a finished record alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.sample import SampleResult
from onnxfim.record.settings import OUTPUT_FAMILIES

_SURE = 1e-6  # of a probability: what float32 rounds it by, several times over


@dataclass(frozen=True)
class WeightsRadius:
    """What the bound from the weights guarantees of a sample.

    A flip to class j needs ``z_y − z_j`` to fall to 0, which changes by at most ``√2·L·‖δ‖``. The difference is at least
    ``ln p/(1 − p)`` of the predicted class, for p_j is at most ``1 − p``.

    Attributes:
        log10_lipschitz: log10 of L, by the units that lengths are in.

    Source: Tsuzuku, Sato & Sugiyama (2018), NeurIPS, prop. 1.
    """

    log10_lipschitz: float

    def of(self, sample: SampleResult) -> float | None:
        """The L2 length within which its prediction stays, in exact arithmetic; None without a prediction."""
        if sample.prediction is None or sample.confidence is None:
            return None
        stretch = self.log10_lipschitz + 0.5 * math.log10(2)
        return log_odds(sample.confidence) * 10 ** max(min(-stretch, 300.0), -300.0)


def log_odds(confidence: float) -> float:
    """``ln p/(1 − p)`` of a probability less what float32 rounds it by; 0 where that is no lead."""
    p = min(confidence, 1.0) - _SURE
    return math.log(p / (1 - p)) if p > 0.5 else 0.0


def could_tell(audit: Audit) -> bool:
    """Whether a bound from the weights, were there one, would say something of an audit's predictions."""
    of_classes = OUTPUT_FAMILIES[audit.model.output_kind] == OUTPUT_FAMILIES["logits"]
    return audit.decides and audit.model.at is None and audit.model.positions == 1 and of_classes


def weights_radius(audit: Audit, most: float) -> WeightsRadius | None:
    """What the weights guarantee of an audit's samples; None where that is nothing, or is not known.

    Args:
        audit: The audit.
        most: How many model input units one unit of length is, at most over the channels.
    """
    bound = audit.bound
    if bound is None or not could_tell(audit):
        return None
    if not bound.available or bound.log10_lipschitz is None or not most > 0:
        return None
    return WeightsRadius(bound.log10_lipschitz + math.log10(most))
