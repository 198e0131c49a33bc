"""The only home of ONNX Runtime: sessions, providers, rows."""
