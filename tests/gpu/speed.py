"""Speed: rows a second beside a bare session whose input lies on the device; where the host's time goes; searches for plans."""

from __future__ import annotations

import statistics
import time
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
from tests.benchmarks.bench_rows import measured
from tests.gpu.lines import Bench
from tests.support.residual_nets import residual_net

_RATIO = 0.95
_PARTS = ("draw", "feed", "make", "call")  # of a batch: the host's, the host's, the bus and our graph, the model
_CLASSES = 10


def check(bench: Bench) -> None:
    """Nets of random weights at 32² and 224²: ours beside bare, bytes beside packed bits, whole Jacobians in forward passes."""
    sizes = ((32, 16, 1, 64),) if bench.quick else ((32, 64, 3, 256), (224, 64, 2, 64), (224, 64, 2, 256))
    for side, width, blocks, batch in sizes:
        path = _net(bench, side, width, blocks)
        repeats, batches = (3, 6) if bench.quick else (5, 32)  # an audit's streams are long
        found = measured(bench.provider, side=side, batch=batch, repeats=repeats, batches=batches, model=onnx.load(path))
        used = "bytes" if bench.on_cpu else "packed"
        share = found[used]["bare"] / found[used]["stream"]
        told = f"{share:.2f} of {1e3 * batch / found[used]['bare']:.0f} rows/s at {batch}"
        _held(bench, f"{side}², {batch} rows: rows a second, ours / bare bound", told, f">= {_RATIO}", share >= _RATIO)
        for kind, ms in found.items():
            bench.tell(
                f"{side}², {batch} rows: {kind}: ms to {', '.join(_PARTS)}", " / ".join(f"{ms[part]:.2f}" for part in _PARTS)
            )
    for side in dict.fromkeys(side for side, *_ in sizes):
        path = _net(bench, side, *next((w, b) for s, w, b, _ in sizes if s == side))
        _jacobians(bench, path, _forward(bench, path, side, 64), side)


def _held(bench: Bench, name: str, value: str, target: str, passed: bool) -> None:
    """A line of speed passes or fails on an accelerator alone: on shared cores a time tells nothing."""
    if bench.on_cpu:
        bench.tell(name, value)
    else:
        bench.hold(name, value, target, passed)


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


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


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
    most = 1 + 2 * _CLASSES
    _held(bench, f"{side}²: exact, K = {_CLASSES}, in forward passes", f"{passes:.1f}", f"<= {most}", passes <= most)
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
