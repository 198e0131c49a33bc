"""Many classes: cost of Lanczos iteration in forward passes, and up to how many classes whole Jacobians cost less.

Run by hand: ``python tests/benchmarks/bench_large.py [--quick]``. Weights are random. Times are ratios to a forward pass of the
same batch through the runtime in one run, medians over repetitions of processor time; pin it to one core (``taskset -c 0``), so
that threads do not spin.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from _common import arguments, print_table
from onnx import TensorProto, helper, numpy_helper

from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.settings import Settings
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.session import open_session, run
from onnxfim.slopes.exact import isotropic_start
from onnxfim.slopes.krylov import lanczos

BATCH = 4


def convolutional(classes: int, size: int, *, seed: int = 0, gain: float = 4.0) -> onnx.ModelProto:
    """Five 3×3 convolutions, strided where the image is large, a pooled head; logits with a standard deviation near ``gain``."""
    rng = np.random.default_rng(seed)
    nodes, weights = [], {}
    name, channels = "x", 3
    for i, (width, stride) in enumerate([(32, 1 if size <= 64 else 2), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2)]):
        weights[f"w{i}"] = rng.standard_normal((width, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        pads = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [stride] * 2}
        nodes += [helper.make_node("Conv", [name, f"w{i}"], [f"c{i}"], **pads), helper.make_node("Relu", [f"c{i}"], [f"r{i}"])]
        name, channels = f"r{i}", width
    weights["head"] = rng.standard_normal((channels, classes)) * gain / np.sqrt(channels)
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["z"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "net", [info("x", TensorProto.FLOAT, ["N", 3, size, size])], [info("z", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def opened(proto: onnx.ModelProto, classes: int, size: int) -> tuple[DifferentiableModel, Callable[[np.ndarray], np.ndarray]]:
    settings = Settings(providers=("cpu",))
    model = DifferentiableModel(
        proto, input_name="x", output_name="z", shape=(3, size, size), num_outputs=classes, settings=settings, base_dir=Path(),
        hardware=Hardware(("cpu",)),
    )  # fmt: skip
    session = open_session(proto.SerializeToString(), Hardware(("cpu",)))[0]
    return model, lambda X: run(session, ["z"], {"x": X})[0]


def seconds(call: Callable[[], object], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return statistics.median(times)


def many_classes(classes: int, sizes: list[int], repeats: int) -> Iterator[list[object]]:
    for size in sizes:
        for gain in (1.0, 4.0, 12.0):
            model, forward = opened(convolutional(classes, size, gain=gain), classes, size)
            rng = np.random.default_rng(1)
            X = rng.standard_normal((BATCH, 3, size, size)).astype(np.float32)
            once = seconds(lambda: forward(X), 3 * repeats)  # noqa: B023
            z = forward(X).astype(np.float64)
            p = np.exp(z - z.max(axis=1, keepdims=True))
            confidence = (p.max(axis=1) / p.sum(axis=1)).mean()

            def product(rows: np.ndarray, u: np.ndarray) -> np.ndarray:
                return model.fisher(X[rows], u[None], 1.0)[0]  # noqa: B023

            noise = rng.standard_normal((BATCH, classes))
            start = isotropic_start(p / p.sum(axis=1, keepdims=True), noise)
            sharp = lanczos(product, noise, tolerance=1e-9, most=60)
            u = rng.standard_normal((1, BATCH, classes))
            one = seconds(lambda: model.fisher(X, u, 1.0), repeats) / once  # noqa: B023
            row: list[object] = [f"{size}²", f"{1e3 * once / BATCH:.1f}", f"{confidence:.2f}", f"{one:.2f}"]
            for tolerance in (1e-3, 1e-4):
                found = lanczos(product, noise, tolerance=tolerance, most=60, start=start)
                spent = seconds(lambda: lanczos(product, noise, tolerance=tolerance, most=60, start=start), repeats) / once  # noqa: B023
                error = np.abs(found.values / sharp.values - 1).max()
                row += [f"{found.products.mean():.1f} ({found.products.max()})", f"{spent:.1f}", f"{error:.0e}"]
            yield row


def crossover(counts: list[int], size: int, repeats: int) -> Iterator[list[object]]:
    for classes in counts:
        model, forward = opened(convolutional(classes, size), classes, size)
        rng = np.random.default_rng(1)
        X = rng.standard_normal((BATCH, 3, size, size)).astype(np.float32)
        once = seconds(lambda: forward(X), 3 * repeats)  # noqa: B023
        noise = rng.standard_normal((BATCH, classes))

        def product(rows: np.ndarray, u: np.ndarray) -> np.ndarray:
            return model.fisher(X[rows], u[None], 1.0)[0]  # noqa: B023

        whole = seconds(lambda: model.jacobian(X), repeats) / once  # noqa: B023
        single = seconds(lambda: lanczos(product, noise, tolerance=1e-4, most=60), repeats) / once  # noqa: B023
        stretch = seconds(
            lambda: lanczos(lambda r, u: model.gram(X[r], u[None])[0].astype(np.float64), noise, tolerance=1e-4, most=60),  # noqa: B023
            repeats,
        ) / once  # fmt: skip
        near = np.zeros((min(9, classes - 1), BATCH, classes))
        near[..., 0] = 1
        distances = seconds(lambda: model.vjp(X, near), repeats) / once  # noqa: B023
        everything = 2 * single + stretch + distances
        yield [classes, f"{whole:.1f}", f"{single:.1f}", f"{everything:.1f}"]


if __name__ == "__main__":
    options = arguments(__doc__)
    repeats = 1 if options.quick else 3
    headers = ["input", "ms per row", "mean confidence", "passes per product"]
    for tolerance in ("1e-3", "1e-4"):
        headers += [f"products to {tolerance}: mean (most)", "passes", "largest error of λ"]
    title = f"K = 1000, batch of {BATCH}: residual reached, products, forward passes per sample"
    print_table(headers, many_classes(1000, [64] if options.quick else [64, 224], repeats), title=title)
    headers = ["K", "whole Jacobian (all measures)", "Lanczos to 1e-4 (raw λ alone)", "Lanczos, all measures"]
    counts = [10, 30] if options.quick else [10, 20, 30, 50, 100]
    print_table(headers, crossover(counts, 64, repeats), title="Crossover, input 3×64×64, forward passes per sample")
