"""Upper bounds of a model's Lipschitz constant, from its graph and weights alone."""

from onnxfim.bounds.compose import spectral_bound
from onnxfim.bounds.registry import RULES
from onnxfim.bounds.result import LOG10_ZERO, Bound, Factor, Share

__all__ = ["LOG10_ZERO", "RULES", "Bound", "Factor", "Share", "spectral_bound"]
