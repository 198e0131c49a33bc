"""``python -m onnxfim``."""

from onnxfim.cli import main

main()
