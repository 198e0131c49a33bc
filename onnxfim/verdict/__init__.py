"""Verdicts on audits: gates and comparison with a baseline; of several audits in `verdict.compare`, which an audit alone lacks."""

from onnxfim.verdict.baseline import compare_to_baseline
from onnxfim.verdict.gates import Gate, decide, parse_gate
from onnxfim.verdict.judge import judge

__all__ = ["Gate", "compare_to_baseline", "decide", "judge", "parse_gate"]
