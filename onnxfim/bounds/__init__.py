"""Upper bounds of a model's Lipschitz constant, from its graph and weights alone."""

from onnxfim.bounds.closed_forms import closed_forms
from onnxfim.bounds.compose import spectral_bound
from onnxfim.bounds.registry import RULES
from onnxfim.bounds.result import LOG10_ZERO, Bound, Factor, Share
from onnxfim.record.bound import ClosedForm

__all__ = [
    "LOG10_ZERO", "RULES", "Bound", "ClosedForm", "Factor", "Share", "closed_forms", "spectral_bound",
]  # fmt: skip
