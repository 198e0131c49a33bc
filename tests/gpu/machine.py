"""The machine: versions, the providers that load, the card."""

from __future__ import annotations

import shutil
import subprocess

from onnxfim.runtime.doctor import examine
from onnxfim.runtime.providers import provider_names
from tests.gpu.lines import Bench


def check(bench: Bench) -> None:
    """What `doctor` finds, and whether the provider under test loads."""
    found = examine()
    wanted = provider_names((bench.provider,))[0]
    state = next((p for p in found.providers if p.name == wanted), None)
    loads = state is not None and state.loads
    bench.hold(f"{wanted} loads", "yes" if loads else f"no: {state.reason if state else 'not in this build'}", "yes", loads)
    for name, version in found.packages:
        bench.tell(f"version of {name}", version)
    for library in found.libraries:
        bench.tell(library.name, library.version or library.file or f"not found: {library.reason}")
    bench.tell("card", _card())
    bench.tell("Python, platform", f"{found.python.split()[0]}, {found.platform}")


def _card() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "no nvidia-smi"
    asked = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
