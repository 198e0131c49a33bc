"""Bound rules, one module for each kind of operator: importing this package fills the registry."""

from onnxfim.spectral.rules import attention, layers, multiplication, normalisations, pointwise, rearrange, steps_in_time

__all__ = ["attention", "layers", "multiplication", "normalisations", "pointwise", "rearrange", "steps_in_time"]
