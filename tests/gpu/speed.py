"""Speed: rows a second beside a bare session whose input lies on the device; where the host's time goes; searches for plans."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import onnxfim
from onnxfim import Settings
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.rows import Rademacher, Rows
from tests.gpu.lines import Bench
from tests.support.residual_nets import residual_net

_RATIO = 0.95
_CLASSES = 10


def check(bench: Bench) -> None:
    """Nets of random weights at 32² and 224²: ours beside bare, draws of directions, whole Jacobians in forward passes."""
    sizes = ((32, 16, 1, 64),) if bench.quick else ((32, 64, 3, 256), (224, 64, 2, 64))
    for side, width, blocks, batch in sizes:
        path = _net(bench, side, width, blocks)
        forward = _forward(bench, path, side, batch)
        bare, ours = _rates(forward, side, batch, 3 if bench.quick else 12)
        share = statistics.median(b / o for b, o in zip(bare, ours, strict=True))
        told = f"{share:.2f} of {batch / statistics.median(bare):.0f} rows/s at {batch}"
        bench.hold(f"{side}²: rows a second, ours / bare bound", told, f">= {_RATIO}", share >= _RATIO)
        _drawing(bench, side, batch)
        _jacobians(bench, path, forward, side)


def _net(bench: Bench, side: int, width: int, blocks: int) -> Path:
    path = bench.folder / f"net_{side}.onnx"
    if not path.is_file():
        onnx.save(residual_net(side, width, blocks), path)
    return path


def _forward(bench: Bench, path: Path, side: int, batch: int) -> OnnxForward:
    return OnnxForward(
        path, input_name="input", output_name="logits", shape=(3, side, side), dtype=np.dtype(np.float32),
        hardware=Hardware((bench.provider,), require=True), batch=batch,
    )  # fmt: skip


def _rates(forward: OnnxForward, side: int, batch: int, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds a batch, interleaved: the bare session with input and output bound once, and ours with fresh directions."""
    X = np.random.default_rng(0).standard_normal((1, 3, side, side)).astype(np.float32)
    device = "cuda" if forward.report.obtained.startswith(("CUDA", "Tensorrt")) else "cpu"
    rows = onnxruntime.OrtValue.ortvalue_from_numpy(np.repeat(X, batch, axis=0), device, 0)
    binding = forward.session.io_binding()
    binding.bind_ortvalue_input("input", rows)
    binding.bind_output("logits", "cpu")
    calls = 6

    def batches() -> Iterator[Rows]:
        for i in range(calls):
            yield Rows(np.zeros(batch, np.int64), Rademacher(0).block(0, i * batch, batch, X.size), np.full(batch, 1e-3))

    def bare() -> None:
        for _ in range(calls):
            forward.session.run_with_iobinding(binding)
            binding.copy_outputs_to_cpu()

    def ours() -> None:
        for _ in forward.stream(X, batches()):
            pass

    bare(), ours()
    return zip(*[(_timed(bare) / calls, _timed(ours) / calls) for _ in range(repeats)], strict=True)  # type: ignore[return-value]


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _drawing(bench: Bench, side: int, batch: int) -> None:
    d = 3 * side * side
    ms = statistics.median(_timed(lambda i=i: Rademacher(0).block(0, i * batch, batch, d)) for i in range(7)) * 1e3
    bench.tell(f"{side}²: host ms to draw {batch} directions", f"{ms:.2f}")


def _jacobians(bench: Bench, path: Path, forward: OnnxForward, side: int) -> None:
    """Whole Jacobians of 10 classes in forward passes of the same session, and the audit around them."""
    n = 8 if bench.quick else 64
    X = np.random.default_rng(1).standard_normal((n, 3, side, side)).astype(np.float32)
    model = DifferentiableModel(
        onnx.load(path), input_name="input", output_name="logits", shape=(3, side, side), num_outputs=_CLASSES,
        settings=Settings(), base_dir=bench.folder, hardware=forward.hardware,
    )  # fmt: skip
    rows = min(n, model.rows_per_call(_CLASSES))
    forward.raw(X[:rows]), model.jacobian(X[:rows])
    times = [(_timed(lambda: forward.raw(X[:rows])), _timed(lambda: model.jacobian(X[:rows]))) for _ in range(5)]
    passes = statistics.median(b / a for a, b in times)
    # A backward pass costs two forward ones; its K cotangents share the forward pass.
    bench.hold(
        f"{side}²: exact, K = {_CLASSES}, in forward passes", f"{passes:.1f}", f"<= {1 + 2 * _CLASSES}", passes <= 1 + 2 * _CLASSES
    )
    settings = Settings(samples=n, method="gradient", replay=0, bounds=False, providers=(bench.provider,))
    start = time.perf_counter()
    audit = onnxfim.audit(path, X, None, settings)
    row = statistics.median(a for a, _ in times) / rows
    told = f"{time.perf_counter() - start:.1f} s, {audit.run.evaluations * row:.1f} s of passes"
    bench.tell(f"{side}²: audit of {n} samples by gradients", told)


def check_search(bench: Bench) -> None:
    """What a new batch shape costs, by how cuDNN looks for its plan."""
    if bench.provider != "cuda":
        bench.tell("search for plans", "only on CUDA")
        return
    path = _net(bench, 224, 32, 1)
    for search in ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            path, options, providers=[("CUDAExecutionProvider", {"cudnn_conv_algo_search": search, "use_tf32": 0})]
        )
        first, later = [], []
        for rows in (4, 7, 9, 12):
            x = np.zeros((rows, 3, 224, 224), np.float32)
            first.append(_timed(lambda x=x, s=session: s.run(None, {"input": x})))
            later.append(min(_timed(lambda x=x, s=session: s.run(None, {"input": x})) for _ in range(3)))
        ms = statistics.median(a - b for a, b in zip(first[1:], later[1:], strict=True)) * 1e3
        bench.tell(f"a new shape costs, {search}", f"{ms:.1f} ms (a call {statistics.median(later) * 1e3:.1f} ms)")
