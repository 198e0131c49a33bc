"""The command line: parse, call one library function, print, exit."""

from onnxfim.cli.main import main

__all__ = ["main"]
