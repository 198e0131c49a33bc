"""The command line: parse, call one library function, print, exit."""

import sys

try:
    from onnxfim.cli.main import main
except KeyboardInterrupt:  # before there are handlers
    sys.stderr.write("onnxfim: interrupted before anything was measured.\n")
    sys.exit(130)

__all__ = ["main"]
