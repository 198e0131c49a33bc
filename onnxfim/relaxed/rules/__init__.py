"""The rules of the operators: which steps each is for local bounds."""

from onnxfim.relaxed.rules import curved, of_many, with_weights, without_arithmetic  # noqa: F401 - fill the registry
