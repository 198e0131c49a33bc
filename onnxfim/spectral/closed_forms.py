"""The families' closed forms, each evaluated on the model's own layer norms.

VGG ``Π‖W‖`` · ResNet ``Π(1 + Π‖branch‖)`` · DenseNet ``Π√(1 + ‖H‖²)`` · Transformer ``Π(1 + L_LN·L_MHA)(1 +
L_LN·L_FFN)``. A form other than that
of the model's own family says what the same layers would give if they were wired that way. None of them is a bound of the model
(pooling and strides between layers are left out); the bound is `spectral_bound`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxfim.record.bound import Bound, ClosedForm, Factor
from onnxfim.spectral.result import plus, root_sum


def closed_forms(bound: Bound, *, branch: int = 2) -> tuple[ClosedForm, ...]:
    """The four forms, in alphabetical order.

    Args:
        bound: The bound whose factors are the layers.
        branch: Layers per residual branch where the form needs grouping.
    """
    layers = [f for f in bound.factors if f.kind == "linear"]
    logs = [f.log10_norm for f in layers]
    groups = [logs[a : a + branch] for a in range(0, len(logs), branch)]
    forms = (
        ("densenet", "Π√(1 + ‖H_l‖²)", math.fsum(root_sum(0.0, v) for v in logs) if logs else None),
        (
            "resnet",
            f"Π(1 + Π‖W‖), {branch} layers per branch",
            math.fsum(plus(0.0, math.fsum(g)) for g in groups) if logs else None,
        ),
        ("transformer", "Π(1 + L_LN·L_MHA)(1 + L_LN·L_FFN)", _transformer(bound.factors)),
        ("vgg", "Π‖W_l‖", math.fsum(logs) if logs else None),
    )
    return tuple(ClosedForm(*form) for form in forms)


def _transformer(factors: Sequence[Factor]) -> float | None:
    """Between two normalisations lies one branch: attention with its projections, or a feed-forward pair."""
    if not any(f.kind == "attention" for f in factors):
        return None
    total, branch, inside = 0.0, 0.0, False
    projections: list[float] = []
    for f in factors:
        if f.kind == "normalisation":
            total += plus(0.0, branch) if inside else branch
            branch, inside, projections = f.log10_norm, True, []
        elif f.kind == "attention":
            branch += f.log10_norm + max(projections, default=0.0)
            projections = []
        elif f.kind == "linear" and inside:
            projections.append(f.log10_norm)
        else:
            branch += f.log10_norm
        if f.kind not in ("linear", "attention", "normalisation"):
            branch, projections = branch + math.fsum(projections), []
    branch += math.fsum(projections)
    return total + (plus(0.0, branch) if inside else branch)
