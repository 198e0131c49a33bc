"""Derivatives of an ONNX graph, written as ONNX graphs: Jᵀu, Jv, and products with JJᵀ or the Fisher matrix."""

from onnxfim.gradients.build import derivative_graph

__all__ = ["derivative_graph"]
