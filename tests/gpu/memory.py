"""Memory: what an audit takes of the card, and a planted lack of it."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import onnxfim
from onnxfim import Settings
from onnxfim.runtime.failures import run_error
from tests.gpu.lines import Bench
from tests.support.residual_nets import residual_net

_LIMIT = 400  # MiB


def check(bench: Bench) -> None:
    """What a usual audit takes, and one under a limit that its batch passes: it comes to its end with a smaller one."""
    if bench.provider != "cuda":
        bench.tell("memory of the card", "only on CUDA")
        return
    path = bench.folder / "net.onnx"
    onnx.save(residual_net(224, 64, 1), path)
    X = np.random.default_rng(0).standard_normal((4, 3, 224, 224)).astype(np.float32)
    settings = Settings(method="sketch", budget=401, batch=256, replay=0, bounds=False, providers=("cuda",))
    _planted(bench, path)
    with _watched() as used:
        onnxfim.audit(path, X, None, settings)
    # Rows, two layers of 64 channels at 56² beside them, and what cuDNN works in.
    bench.tell("audit at batch 256 takes, MiB of the card", f"{max(used) - used[0]}" if used else "not known")
    audit = onnxfim.audit(path, X, None, replace(settings, provider_options=(f"gpu_mem_limit={_LIMIT * 2**20}",)))
    told = f"{len(audit.samples)} samples, {len(audit.skipped)} skipped"
    bench.hold(f"audit under a limit of {_LIMIT} MiB", told, "4, 0", len(audit.samples) == 4 and not audit.skipped)


def _planted(bench: Bench, path: Path) -> None:
    """What ONNX Runtime says when memory runs out, as we read it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    limit = {"gpu_mem_limit": str(_LIMIT * 2**20), "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
    session = onnxruntime.InferenceSession(path, options, providers=[("CUDAExecutionProvider", limit)])
    session.disable_fallback()
    found = "went through"
    try:
        session.run(None, {"input": np.zeros((512, 3, 224, 224), np.float32)})
    except Exception as error:  # whatever the runtime raises
        found = type(run_error(error)).__name__
    bench.hold("a planted lack of memory is read as", found, "OutOfMemory", found == "OutOfMemory")


@contextmanager
def _watched() -> Iterator[list[int]]:
    """MiB of the card in use, first before the block, then twice a second while it runs."""
    used = [n for n in [_used()] if n is not None]
    done = threading.Event()

    def watch() -> None:
        while used and not done.wait(0.5):
            found = _used()
            used.append(used[0] if found is None else found)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield used
    finally:
        done.set()
        thread.join()


def _used() -> int | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = [tool, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return int(told[0]) if told and told[0].isdigit() else None
