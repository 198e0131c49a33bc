"""Upper bounds of a model's Lipschitz constant, from its graph and weights alone."""

from onnxfim.record.bound import ClosedForm
from onnxfim.spectral.bound_rules import RULES
from onnxfim.spectral.closed_forms import closed_forms
from onnxfim.spectral.compose import spectral_bound
from onnxfim.spectral.result import LOG10_ZERO, Bound, Factor, Share

__all__ = [
    "LOG10_ZERO", "RULES", "Bound", "ClosedForm", "Factor", "Share", "closed_forms", "spectral_bound",
]  # fmt: skip
