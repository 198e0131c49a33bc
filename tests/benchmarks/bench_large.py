"""Many classes: cost of block Lanczos iteration in forward passes, and up to how many classes whole Jacobians cost less.

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
from onnxfim.slopes.class_space import JointProducts, Weighing
from onnxfim.slopes.kinds.softmax import SoftmaxLogits
from onnxfim.slopes.krylov import lanczos
from onnxfim.slopes.rivals import distances_to_rivals
from tests.support.places import SHARED

BATCH = 4
IMAGENET = SHARED / "models_more" / "imagenet_mobilenetv1_025.onnx"


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


def noise_of(n: int, classes: int) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal((n, 3, classes))
    return noise / np.linalg.norm(noise, axis=2, keepdims=True)


def weighings_of(z: np.ndarray, temperatures: list[float]) -> tuple[list[Weighing], np.ndarray]:
    """Lambda at the temperatures and the logit sensitivity, with their starts, as an audit has them."""
    noise = noise_of(*z.shape)
    found = [Weighing.of(SoftmaxLogits(), z[:, :, None], t) for t in temperatures]
    starts = [w.starts(noise) for w in found]
    two = np.where(np.arange(3)[:, None] < 2, noise, 0.0)
    return [*found, Weighing.none(*z.shape)], np.concatenate([*starts, two])


def measured(model: DifferentiableModel, X: np.ndarray, z: np.ndarray, *, every: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values (operators,), products with each start, and passes a sample: of lambda alone, or of all that an audit measures."""
    weighings, starts = weighings_of(z, [1.0, 0.8] if every else [1.0])
    if not every:
        weighings, starts = weighings[:1], starts[: len(z)]
    products = JointProducts(model, X, weighings)
    found = lanczos(products, starts, tolerance=1e-4, most=60)
    passes = products.passes
    if every:
        stretch = np.sqrt(found.values[-len(z) :] + found.errors[-len(z) :])
        passes = passes + distances_to_rivals(model, X, z, stretch, 1e-4)[2]
    factor = np.concatenate([w.factor for w in weighings])
    return found.values * factor, found.products, passes


def row_of(name: str, model: DifferentiableModel, forward: Callable, X: np.ndarray, repeats: int) -> list[object]:
    once = seconds(lambda: forward(X), 3 * repeats)
    z = forward(X).astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    confidence = (p.max(axis=1) / p.sum(axis=1)).mean()
    row: list[object] = [name, f"{1e3 * once / len(X):.1f}", f"{confidence:.2f}"]
    for seeds in (1, 3, 8):
        u = np.random.default_rng(2).standard_normal((seeds, *z.shape))
        row.append(f"{seconds(lambda: model.gram(X, u), repeats) / once:.1f}")  # noqa: B023
    weighings, starts = weighings_of(z, [1.0])
    sharp = lanczos(JointProducts(model, X, weighings[:1]), starts[: len(z)], tolerance=1e-6, most=30)
    for every in (False, True):
        values, products, passes = measured(model, X, z, every=every)
        spent = seconds(lambda: measured(model, X, z, every=every), repeats) / once  # noqa: B023
        row += [
            f"{products.sum() / len(z):.1f}",
            f"{passes.mean():.0f} ({passes.max()})",
            f"{passes.mean() / 5:.1f}",
            f"{spent:.0f}",
        ]
        if not every:
            row.append(f"{np.abs(values / (sharp.values * weighings[0].factor) - 1).max():.0e}")
    return row


def many_classes(classes: int, sizes: list[int], gains: list[float], repeats: int) -> Iterator[list[object]]:
    if IMAGENET.exists():
        yield row_of("trained MobileNet 224²", *imagenet(2 if repeats == 1 else 2 * BATCH), repeats)
    for size in sizes:
        for gain in gains:
            model, forward = opened(convolutional(classes, size, gain=gain), classes, size)
            X = np.random.default_rng(1).standard_normal((BATCH, 3, size, size)).astype(np.float32)
            yield row_of(f"random {size}², logits ±{gain:.0f}", model, forward, X, repeats)


def imagenet(images: int) -> tuple[DifferentiableModel, Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """A trained network of 1,000 classes before its softmax, and its images."""
    proto = onnx.load(IMAGENET)
    logits = proto.graph.node[-1].input[0]
    name, classes = proto.graph.input[0].name, 1000
    X = np.load(IMAGENET.with_name("data_imagenet_mobilenet_nhwc.npz"))["inputs"][:images].astype(np.float32)
    model = DifferentiableModel(
        proto, input_name=name, output_name=logits, shape=X.shape[1:], num_outputs=classes, settings=Settings(providers=("cpu",)),
        base_dir=IMAGENET.parent, hardware=Hardware(("cpu",)),
    )  # fmt: skip
    proto.graph.output.append(helper.make_tensor_value_info(logits, TensorProto.FLOAT, None))
    session = open_session(proto.SerializeToString(), Hardware(("cpu",)))[0]
    return model, lambda rows: run(session, [logits], {name: rows})[0], X


def crossover(counts: list[int], size: int, repeats: int) -> Iterator[list[object]]:
    for classes in counts:
        model, forward = opened(convolutional(classes, size), classes, size)
        X = np.random.default_rng(1).standard_normal((BATCH, 3, size, size)).astype(np.float32)
        once = seconds(lambda: forward(X), 3 * repeats)  # noqa: B023
        z = forward(X).astype(np.float64)
        whole = seconds(lambda: model.jacobian(X), repeats) / once  # noqa: B023
        single, every = (seconds(lambda: measured(model, X, z, every=e), repeats) / once for e in (False, True))  # noqa: B023
        yield [classes, f"{whole:.1f}", f"{single:.1f}", f"{every:.1f}"]


if __name__ == "__main__":
    options = arguments(__doc__)
    repeats = 1 if options.quick else 3
    headers = ["input", "ms per row", "mean confidence", *(f"passes of {n} products" for n in (1, 3, 8))]
    for what in ("λ", "all"):
        headers += [f"{what}: products", "passes counted: mean (most)", "in fives", "passes timed"]
        headers += ["largest error of λ"] if what == "λ" else []
    sizes, gains = ([32], [12.0]) if options.quick else ([64, 224], [1.0, 4.0, 12.0])
    title = "K = 1000: products and forward passes per sample to 1e-4 of the values; a single product is five passes"
    print_table(headers, many_classes(1000, sizes, gains, repeats), title=title)
    headers = ["K", "whole Jacobian (all measures)", "Lanczos to 1e-4 (raw λ alone)", "Lanczos, all measures"]
    counts = [10] if options.quick else [10, 20, 30, 50, 100]
    print_table(headers, crossover(counts, 32 if options.quick else 64, repeats), title="Crossover, forward passes per sample")
