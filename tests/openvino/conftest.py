"""The OpenVINO build of ONNX Runtime, put before the running environment's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import OPENVINO, ROOT
from tests.support.tracing import untraced

#: It carries OpenVINO 2025.4.1 and needs nothing that the running environment has not.
PACKAGE = "onnxruntime-openvino==1.24.1"
_INSTALL_SECONDS, _RUN_SECONDS = 120, 300  # at most, on a busy machine


@dataclass(frozen=True)
class OtherRuntime:
    """Programs that import ONNX Runtime from ``folder`` and all else from the running environment."""

    folder: Path

    def __call__(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments."""
        path = [str(self.folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "XDG_CACHE_HOME": str(cwd / "cache")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_RUN_SECONDS,
        )

    def told(self, script: str, *arguments: str, cwd: Path) -> Any:
        """What a script prints last, as JSON."""
        done = self("-c", script, *arguments, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def openvino(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """The OpenVINO build in a folder of its own, installed once a session (84 MB)."""
    folder = tmp_path_factory.mktemp("openvino")
    # Alone: a second build that lay in the folder would be imported in its place, or half of each.
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        "--target",
        str(folder),
        PACKAGE,
    ]
    try:
        with untraced(children=True):
            done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        OPENVINO.skip()
    if done.returncode:
        OPENVINO.skip()
    return OtherRuntime(folder)
