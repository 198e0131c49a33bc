"""Memory: what an audit takes of the card, and a planted lack of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

import onnxfim
from onnxfim import Settings
from onnxfim.runtime import failures
from onnxfim.runtime import session as opening
from tests.gpu.lines import Bench
from tests.support.residual_nets import residual_net


def check(bench: Bench) -> None:
    """An audit under a limit that its usual batch passes comes to its end with a smaller one."""
    if bench.provider != "cuda":
        bench.tell("memory of the card", "only on CUDA")
        return
    path = bench.folder / "net.onnx"
    onnx.save(residual_net(224, 64, 1), path)
    limit = 400 * 2**20
    _say(bench, path, limit)


def _say(bench: Bench, path: object, limit: int) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    provider = ("CUDAExecutionProvider", {"gpu_mem_limit": str(limit), "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"})
    session = onnxruntime.InferenceSession(path, options, providers=[provider])
    try:
        session.run(None, {"input": np.zeros((512, 3, 224, 224), np.float32)})
        bench.hold("512 rows under a limit of 400 MiB", "went through", "fails", False)
    except Exception as error:  # whatever the runtime raises
        found = failures.run_error(error)
        name = type(found).__name__
        bench.hold(
            "planted lack of memory is read as such",
            f"{type(error).__name__}: {str(error)[:300]}",
            "OutOfMemory",
            name == "OutOfMemory",
        )
    original = opening._options
    opening._options = lambda p, h: {**original(p, h), **(provider[1] if p == provider[0] else {})}
    X = np.random.default_rng(0).standard_normal((4, 3, 224, 224)).astype(np.float32)
    audit = onnxfim.audit(
        path, X, None, Settings(method="sketch", budget=401, batch=256, replay=0, bounds=False, providers=("cuda",))
    )
    bench.hold(
        "audit under that limit",
        f"{len(audit.samples)} samples, {len(audit.skipped)} skipped",
        "4, 0",
        len(audit.samples) == 4 and not audit.skipped,
    )
