"""The rules of the operators: which steps each is for local bounds."""

from onnxfim.relaxed.rules import curved, linear, moves, pools  # noqa: F401 - fill the registry
