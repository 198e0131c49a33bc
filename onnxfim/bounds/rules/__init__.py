"""Bound rules, one module for each kind of operator: importing this package fills the registry."""

from onnxfim.bounds.rules import attention, gating, layers, normalisations, pointwise, rearrange

__all__ = ["attention", "gating", "layers", "normalisations", "pointwise", "rearrange"]
