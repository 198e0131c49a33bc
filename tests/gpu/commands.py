"""The command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from tests.gpu.lines import ROOT

_NOTHING: Mapping[str, str] = {}


def onnxfim(*arguments: str, environment: Mapping[str, str] = _NOTHING) -> subprocess.CompletedProcess[str]:
    """``onnxfim ARGUMENTS`` of this tree."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "onnxfim", *arguments], env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
