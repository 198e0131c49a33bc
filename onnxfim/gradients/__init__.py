"""Derivatives of an ONNX graph, written as ONNX graphs: Jᵀu, Jv, and products with JJᵀ."""

from onnxfim.gradients.build import derivative_graph
from onnxfim.gradients.nodewise import NodeTests
from onnxfim.gradients.selftest import SelfTest, self_test

__all__ = ["NodeTests", "SelfTest", "derivative_graph", "self_test"]
