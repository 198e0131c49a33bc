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
    steps_in_time,
)

__all__ = [
    "attention",
    "classical",
    "layers",
    "multiplication",
    "normalisations",
    "picks",
    "pointwise",
    "rearrange",
    "steps_in_time",
]
