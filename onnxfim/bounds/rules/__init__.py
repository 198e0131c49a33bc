"""Bound rules, one module for each kind of operator: importing this package fills the registry."""

from onnxfim.bounds.rules import attention, gates, layers, layout, normalisations, pointwise

__all__ = ["attention", "gates", "layers", "layout", "normalisations", "pointwise"]
