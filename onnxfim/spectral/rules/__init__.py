"""Bound rules, one module for each kind of operator: importing this package fills the registry."""

from onnxfim.spectral.rules import (
    attention,
    classical,
    layers,
    multiplication,
    normalisations,
    picks,
    pointwise,
    rearrange,
    recurrent,
)

__all__ = ["attention", "classical", "layers", "multiplication", "normalisations", "picks", "pointwise", "rearrange", "recurrent"]
