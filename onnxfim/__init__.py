"""Robustness auditor for ONNX models: the largest eigenvalue of the input Fisher information."""
