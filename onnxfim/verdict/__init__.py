"""Verdicts on audits: gates, comparison with a baseline, comparison of several audits."""

from onnxfim.verdict.baseline import compare_to_baseline
from onnxfim.verdict.compare import compare
from onnxfim.verdict.comparison import Comparison
from onnxfim.verdict.gates import Gate, decide, parse_gate
from onnxfim.verdict.judge import judge

__all__ = ["Comparison", "Gate", "compare", "compare_to_baseline", "decide", "judge", "parse_gate"]
