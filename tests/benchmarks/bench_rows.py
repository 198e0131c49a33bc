"""Where the time of a batch of perturbed rows goes, on any provider: drawing, feeding, making the rows, the model's call.

    python tests/benchmarks/bench_rows.py [--provider NAME] [--quick] [--exact] [--repeats N]

Directions as bytes and as packed bits alternate in one run; each figure is the median over the repeats, in milliseconds of a batch.
``draw`` is the host's (beside the model's call in an audit), ``feed`` the host's too, ``make`` the bus and the little graph, ``call``
the model with its outputs read. ``stream`` is what a batch takes in an audit, all of it, against ``bare``: the same rows through a
session bound once. ``--exact`` times a whole Jacobian of 10 classes against what the host does with it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _common import arguments, print_table
from onnx import TensorProto, helper

from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.settings import Settings
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.rows import Rademacher, Rows
from onnxfim.slopes.differences import Ends, Request, Sample
from onnxfim.slopes.kinds import SoftmaxLogits
from onnxfim.slopes.measurer import Measurer
from tests.support.residual_nets import residual_net

#: Side of the images, rows of a batch.
CASES = ((32, 16), (32, 64), (32, 256), (224, 8), (224, 64))
QUICK = ((32, 16), (32, 64))


def small_net(side: int) -> onnx.ModelProto:
    """A model that costs next to nothing: pooling and one product, so that the rows' own cost shows."""
    rng = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(rng.standard_normal((3, 10)).astype(np.float32), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    into = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, side, side])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    made = helper.make_model(
        helper.make_graph(nodes, "small", [into], [out], [weight]), opset_imports=[helper.make_opsetid("", 17)]
    )
    made.ir_version = 8
    return made


def opened(provider: str, model: onnx.ModelProto, side: int, batch: int) -> OnnxForward:
    """The forward of a model on a provider that must be there."""
    return OnnxForward(
        model.SerializeToString(), input_name="input", output_name="logits", shape=(3, side, side), dtype=np.dtype(np.float32),
        hardware=Hardware((provider,), require=True), batch=batch,
    )  # fmt: skip


def drawn(d: int, batch: int, start: int, *, packed: bool) -> Rows:
    """A batch of central differences of one sample."""
    of = np.arange(batch) // 2
    source = Rademacher(0)
    count = int(of[-1]) + 1
    v: Any = source.signs(0, start, count, d)[of] if packed else source.block(0, start, count, d)[of]
    return Rows(np.zeros(batch, np.int64), v, np.where(np.arange(batch) % 2, -1e-3, 1e-3))


def measured(
    provider: str, *, side: int = 32, batch: int = 64, repeats: int = 11, batches: int = 6, model: onnx.ModelProto | None = None
) -> dict[str, dict[str, float]]:
    """Milliseconds of a batch, by ``"bytes"`` and ``"packed"``: draw, feed, make, call, stream; and bare of both.

    Args:
        provider: As in ``--provider``.
        side: Of the images, three channels.
        batch: Rows.
        repeats: Over which the median is taken; bytes and bits alternate.
        batches: Of one stream.
        model: Input ``input`` (N, 3, side, side), output ``logits``; a residual net of random weights where it is not given.

    Raises:
        AssertionError: the outputs of bits and bytes differ.
    """
    forward = opened(provider, model or residual_net(side, 32, 2), side, batch)
    forward.few_shapes = False  # the batch as it is given
    d = 3 * side * side
    X = np.random.default_rng(1).standard_normal((1, 3, side, side)).astype(np.float32)
    size = (batch, 3, side, side)
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in ("bytes", "packed")}

    def noted(kind: str, what: str, seconds: float) -> None:
        found[kind].setdefault(what, []).append(1e3 * seconds)

    def timed(call: Callable[[], Any]) -> tuple[Any, float]:
        start = time.perf_counter()
        made = call()
        return made, time.perf_counter() - start

    for repeat in range(repeats + 1):
        answers = {}
        for kind in ("bytes", "packed"):
            packed = kind == "packed"
            rows, draw = timed(lambda: drawn(d, batch, repeat * batch, packed=packed))  # noqa: B023
            (pair, feeds), feed = timed(lambda: forward.fed(X, rows))  # noqa: B023
            made, make = timed(lambda: pair.filled(feeds, size, np.dtype(np.float32)))  # noqa: B023
            (answers[kind],), call = timed(lambda: pair.answers(made))  # noqa: B023
            _, bare = timed(lambda: _repeated(pair.answers, made, batches))  # noqa: B023
            forward.packs = True  # rows pass as they were drawn

            def source(packed: bool = packed) -> Iterator[Rows]:
                for b in range(batches):
                    yield drawn(d, batch, b * batch, packed=packed)

            _, stream = timed(lambda: list(forward.stream(X, source())))
            if repeat:  # the first warms up
                parts = {"draw": draw, "feed": feed, "make": make, "call": call}
                for what, seconds in {**parts, "stream": stream / batches, "bare": bare / batches}.items():
                    noted(kind, what, seconds)
        assert np.array_equal(answers["bytes"], answers["packed"]), "rows from bits are not those from bytes"
    return {kind: {what: statistics.median(all_) for what, all_ in parts.items()} for kind, parts in found.items()}


def _repeated(call: Callable[[Any], Any], value: Any, times: int) -> None:
    for _ in range(times):
        call(value)


def exact(provider: str, *, side: int = 224, repeats: int = 5) -> dict[str, float]:
    """Milliseconds of a sample, and bytes that come back, of a whole Jacobian of 10 classes: device, cast, and the measures."""
    model = residual_net(side, 32, 2)
    derivative = DifferentiableModel(
        model, input_name="input", output_name="logits", shape=(3, side, side), num_outputs=10, settings=Settings(),
        base_dir=Path(), hardware=Hardware((provider,), require=True),
    )  # fmt: skip
    X = np.random.default_rng(1).standard_normal((1, 3, side, side)).astype(np.float32)
    measurer = Measurer(
        reader=SoftmaxLogits(), scheme="central", exact=True, gradient=True, temperature=None, temperature_reason=None, step_error=0.0
    )  # fmt: skip
    found: dict[str, list[float]] = {"jacobian": [], "float64": [], "measures": []}
    size = 0
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        J32 = derivative.jacobian(X)
        device = time.perf_counter()
        J = J32.astype(np.float64)[0]
        cast = time.perf_counter()
        base = np.linspace(0, 1, 10)[:, None]
        measurer(Sample(0, 0), base, [Ends(Request(Sample(0, 0), 0, J.shape[1]), J.T[:, :, None], np.zeros((1, 10, 1)), 1.0)])
        end = time.perf_counter()
        size = J32.nbytes
        if repeat:
            for what, seconds in zip(found, (device - start, cast - device, end - cast), strict=True):
                found[what].append(1e3 * seconds)
    return {**{what: statistics.median(all_) for what, all_ in found.items()}, "bytes": float(size)}


def main() -> None:
    options = arguments(
        __doc__,
        ("--provider", {"default": "cpu"}),
        ("--repeats", {"type": int, "default": 11}),
        ("--exact", {"action": "store_true"}),
    )
    parts = ("draw", "feed", "make", "call", "stream", "bare")
    rows = []
    for side, batch in QUICK if options.quick else CASES:
        nets = {"next to nothing": small_net, "residual net": lambda side: residual_net(side, 32, 2)}
        for name in (n for n in nets if options.models in n and (not options.quick or n == "next to nothing")):
            model = nets[name](side)
            repeats = 3 if options.quick or (side > 32 and options.provider == "cpu") else options.repeats
            found = measured(options.provider, side=side, batch=batch, repeats=repeats, model=model)
            for kind, ms in found.items():
                ratio = ms["bare"] / ms["stream"]
                rows.append([f"{side}²", batch, name, kind, *(f"{ms[p]:.2f}" for p in parts), f"{ratio:.2f}"])
    print_table(("side", "batch", "model", "directions", *parts, "bare / stream"), rows, title=f"ms a batch on {options.provider}")
    if options.exact:
        ms = exact(options.provider, side=32 if options.quick else 224)
        print_table(tuple(ms), [[f"{v:,.1f}" for v in ms.values()]], title="ms of a sample's Jacobian of 10 classes")


if __name__ == "__main__":
    main()
