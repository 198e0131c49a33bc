"""Derivatives of an ONNX graph, written as ONNX graphs: Jᵀu, Jv, and products with JJᵀ or the Fisher matrix."""

from onnxfim.gradients.build import derivative_graph
from onnxfim.gradients.logits import Logits, find_logits
from onnxfim.gradients.selftest import SelfTest, self_test

__all__ = ["Logits", "SelfTest", "derivative_graph", "find_logits", "self_test"]
