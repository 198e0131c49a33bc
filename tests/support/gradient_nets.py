"""Small graphs to differentiate, and the laws every derivative of them must keep."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnxruntime as ort
from numpy.testing import assert_allclose
from onnx import helper, numpy_helper

from onnxfim.gradients import derivative_graph

ROWS, SEEDS = 4, 3  # neither of the batch sizes at which shapes are traced


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Open a model on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray], outputs: list[str] | None = None) -> list[np.ndarray]:
    """Run a model on the CPU once."""
    return session(model).run(outputs, feeds)


@dataclass
class Net:
    """A graph with input ``x (N, *shape)`` written node by node; every call returns the name of the first output."""

    shape: tuple[int, ...]
    opset: int = 18
    dtype: type = np.float32
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    batch: str | int = "N"
    x: np.ndarray | None = None  # where the law is tested; drawn at random otherwise
    step: float = 2e-2
    rtol: float = 2e-3
    ir_version: int = 10
    may_vanish: bool = False

    def op(self, op_type: str, *inputs: object, outputs: int = 1, domain: str = "", **attributes: object) -> str:
        return self.ops(op_type, *inputs, outputs=outputs, domain=domain, **attributes)[0]

    def ops(self, op_type: str, *inputs: object, outputs: int = 1, domain: str = "", **attributes: object) -> list[str]:
        names = [i if isinstance(i, str) else self.weight(np.asarray(i)) for i in inputs]
        out = [f"v{len(self.nodes)}_{j}" for j in range(outputs)]
        self.nodes.append(helper.make_node(op_type, names, out, name=f"n{len(self.nodes)}", domain=domain, **attributes))
        return out

    def weight(self, value: np.ndarray) -> str:
        if value.dtype == np.float64 and self.dtype is not np.float64:
            value = value.astype(np.float32)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name

    def model(self, output: str) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        x = helper.make_tensor_value_info("x", kind, [self.batch, *self.shape])
        y = helper.make_tensor_value_info(output, kind, None)
        domains = sorted({n.domain for n in self.nodes} - {""})
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in domains)]
        graph = helper.make_graph(self.nodes, "net", [x], [y], self.weights)
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)


def optimised(net: Net, output: str) -> tuple[Net, str]:
    """The graph as ONNX Runtime's optimiser saves it for this processor, and its output."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/optimised.onnx"
        ort.InferenceSession(net.model(output).SerializeToString(), options, providers=["CPUExecutionProvider"])
        saved = onnx.load(options.optimized_model_filepath)
    return replace(net, nodes=list(saved.graph.node), weights=list(saved.graph.initializer)), saved.graph.output[0].name


def spread(rng: np.random.Generator, *shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Values in random order, none closer to another than an even spacing: no ties, kinks crossed only if near zero."""
    n = int(np.prod(shape))
    grid = low + (np.arange(n) + 0.5) * (high - low) / n
    return rng.permutation(grid).reshape(shape).astype(np.float32)


def check_laws(net: Net, output: str, rng: np.random.Generator, *, single: bool = False) -> None:
    """Outputs unchanged; Jv is the limit of differences; ⟨u, Jv⟩ = ⟨Jᵀu, v⟩.

    ``single`` runs the original row by row, for graphs with a fixed batch of one.
    """
    model = net.model(output)
    x = net.x if net.x is not None else spread(rng, ROWS, *net.shape)
    x = x.astype(net.dtype)
    opened = session(model)

    def original(rows: np.ndarray) -> np.ndarray:
        parts = [opened.run(None, {"x": row[None]})[0] for row in rows] if single else opened.run(None, {"x": rows})
        return np.concatenate(parts).reshape(len(rows), -1)

    y = original(x)
    v = rng.uniform(-1, 1, (SEEDS, *x.shape)).astype(net.dtype)
    u = rng.standard_normal((SEEDS, *y.shape)).astype(net.dtype)
    jvp = derivative_graph(model, input_name="x", output_name=output, kind="jvp")
    vjp = derivative_graph(model, input_name="x", output_name=output, kind="vjp")
    if not {n.domain for n in vjp.graph.node} - {""}:
        onnx.checker.check_model(vjp)
    z, jv = run(jvp, {"x": x, "v": v}, ["z", "w"])
    z2, jtu = run(vjp, {"x": x, "u": u}, ["z", "g"])
    for got in (z, z2):  # the same float32 operations up to the order of sums
        assert_allclose(got, y, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(y).max()))
    assert jv.shape == u.shape
    assert jtu.shape == v.shape
    left = (u.astype(np.float64) * jv).reshape(SEEDS, ROWS, -1).sum(-1)
    right = (v.astype(np.float64) * jtu).reshape(SEEDS, ROWS, -1).sum(-1)
    size = np.linalg.norm(u, axis=-1) * np.linalg.norm(jv, axis=-1) + 1e-12
    assert np.abs(left - right).max() <= 1e-4 * size.max()  # float32 sums of a few hundred terms
    slope = difference(original, x, v, step=net.step)
    scale = np.abs(slope).max() + 1e-6
    assert net.may_vanish or np.abs(slope).max() > 0, "the case does not exercise the rule"
    assert_allclose(jv, slope, rtol=net.rtol, atol=net.rtol * scale)


def difference(f: object, x: np.ndarray, v: np.ndarray, *, step: float) -> np.ndarray:
    """Fourth-order central difference of ``f`` at ``x`` along each direction, (S, N, K)."""
    h = step

    def at(k: float, d: np.ndarray) -> np.ndarray:
        return f((x + k * h * d).astype(x.dtype)).astype(np.float64)

    return np.stack([(8 * (at(1, d) - at(-1, d)) - (at(2, d) - at(-2, d))) / (12 * h) for d in v])
