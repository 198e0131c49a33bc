"""Tiny ONNX models whose derivatives are known, and the dense float64 twins they are held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mpmath
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax

from tests.support.tracing import untraced

OPSET = 17
TYPES = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}


def model(nodes, weights, *, shape, out, dtype="float32", out_dtype=None, batch="N", opset=OPSET, ir=8, inputs=(), outputs=()):
    """A checked-in-spirit model: input ``x`` (batch, *shape), output ``z`` (batch, *out), further inputs and outputs as given."""
    graph = helper.make_graph(
        [helper.make_node(op, list(i), list(o), name=f"{op}_{k}", **a) for k, (op, i, o, a) in enumerate(nodes)],
        "tiny",
        [helper.make_tensor_value_info("x", TYPES[dtype], [batch, *shape]), *inputs],
        [helper.make_tensor_value_info("z", TYPES[out_dtype or dtype], [batch, *out]), *outputs],
        [numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="tests")
    made.ir_version = ir
    return made


def save(made, path) -> Path:
    path = Path(path)
    path.write_bytes(made.SerializeToString())
    return path


@dataclass(frozen=True)
class Linear:
    """``z = W x + b`` with its Fisher information in closed form, ``F = WᵀCW``."""

    W: np.ndarray
    b: np.ndarray

    @classmethod
    def draw(cls, K, d, *, seed=0, scale=1.0):
        rng = np.random.default_rng([seed, K, d])
        return cls(scale * rng.standard_normal((K, d)), 0.5 * rng.standard_normal(K))

    def logits(self, X):
        return np.asarray(X, np.float64).reshape(len(X), -1) @ self.W.T + self.b

    def samples(self, n, *, seed=1):
        return np.random.default_rng([seed, *self.W.shape]).standard_normal((n, self.W.shape[1])).astype(np.float32)

    def fisher(self, x, temperature=1.0):
        p = softmax(self.logits(x[None])[0] / temperature)
        return self.W.T @ covariance(p) @ self.W / temperature**2

    def lambda_max(self, X, temperature=1.0):
        return np.array([np.linalg.eigvalsh(self.fisher(x, temperature))[-1] for x in X])

    def onnx(self, **options):
        return linear(self.W, self.b, **options)


def covariance(p):
    return np.diag(p) - np.outer(p, p)


@untraced()
def precise_lambda(z, J):
    """``λ_max(JᵀCJ)`` for one row of logits, through the K×K form, in 120 digits."""
    with mpmath.workdps(120):
        e = [mpmath.exp(mpmath.mpf(float(v))) for v in z]
        p = [v / mpmath.fsum(e) for v in e]
        K, d = J.shape
        D = [[mpmath.mpf(float(J[k, i])) for i in range(d)] for k in range(K)]
        mean = [mpmath.fsum(p[k] * D[k][i] for k in range(K)) for i in range(d)]
        A = mpmath.matrix([[mpmath.sqrt(p[k]) * (D[k][i] - mean[i]) for i in range(d)] for k in range(K)])
        return float(max(mpmath.eigsy(A * A.T, eigvals_only=True)))


def linear(W, b, *, end=None, dtype="float32", batch="N", opset=OPSET, shape=None):
    """``z = W x + b`` as a file, ended by ``Softmax``, ``LogSoftmax`` or ``Sigmoid`` where asked; any sample shape."""
    K, d = W.shape
    shape = shape or (d,)
    nodes = [("Flatten", ["x"], ["flat"], {"axis": 1})]
    nodes += [("Gemm", ["flat", "W", "b"], ["logits" if end else "z"], {"transB": 1})]
    if end:
        axis = {} if end == "Sigmoid" else {"axis": 1}
        nodes.append((end, ["logits"], ["z"], axis))
    weights = {"W": W.astype(dtype), "b": b.astype(dtype)}
    return model(nodes, weights, shape=shape, out=(K,), dtype=dtype, batch=batch, opset=opset)


@dataclass(frozen=True)
class Mlp:
    """``z = B tanh(A x)``: smooth, with a dense Jacobian."""

    A: np.ndarray
    B: np.ndarray

    @classmethod
    def draw(cls, K, d, *, hidden=16, seed=0, scale=1.0):
        rng = np.random.default_rng([seed, K, d, hidden])
        return cls(scale * rng.standard_normal((hidden, d)) / np.sqrt(d), 2.0 * rng.standard_normal((K, hidden)) / np.sqrt(hidden))

    def logits(self, X):
        return np.tanh(np.asarray(X, np.float64).reshape(len(X), -1) @ self.A.T) @ self.B.T

    def jacobian(self, x):
        return self.B * (1 - np.tanh(self.A @ np.ravel(x).astype(np.float64)) ** 2) @ self.A

    def fisher(self, x):
        J = self.jacobian(x)
        return J.T @ covariance(softmax(self.logits(x[None])[0])) @ J

    def lambda_max(self, X):
        return np.array([np.linalg.eigvalsh(self.fisher(x))[-1] for x in X])

    def samples(self, n, *, seed=1):
        return np.random.default_rng([seed, n]).standard_normal((n, self.A.shape[1])).astype(np.float32)

    def onnx(self, *, dtype="float32", batch="N", shape=None):
        nodes = [
            ("Flatten", ["x"], ["flat"], {"axis": 1}),
            ("Gemm", ["flat", "A"], ["h"], {"transB": 1}),
            ("Tanh", ["h"], ["t"], {}),
            ("Gemm", ["t", "B"], ["z"], {"transB": 1}),
        ]
        weights = {"A": self.A.astype(dtype), "B": self.B.astype(dtype)}
        return model(nodes, weights, shape=shape or (self.A.shape[1],), out=(len(self.B),), dtype=dtype, batch=batch)


def conv(K=3, *, channels=2, size=5, seed=0, softmax_axis=None):
    """A per-pixel classifier (N, K, H, W): a 1×1 convolution. Returns the model and its (K, C) weights."""
    W = np.random.default_rng([seed, K, channels]).standard_normal((K, channels)).astype(np.float32)
    nodes = [("Conv", ["x", "W"], ["logits" if softmax_axis else "z"], {})]
    if softmax_axis:
        nodes.append(("Softmax", ["logits"], ["z"], {"axis": softmax_axis}))
    return model(nodes, {"W": W[:, :, None, None]}, shape=(channels, size, size), out=(K, size, size)), W


def normalised(W, mean, std):
    """A linear classifier of images (C, 2, 2) with its normalisation in the first nodes."""
    C = len(mean)
    shape = (1, C, 1, 1)
    nodes = [
        ("Sub", ["x", "mean"], ["centred"], {}),
        ("Div", ["centred", "std"], ["scaled"], {}),
        ("Flatten", ["scaled"], ["flat"], {"axis": 1}),
        ("Gemm", ["flat", "W"], ["z"], {"transB": 1}),
    ]
    weights = {
        "mean": np.float32(mean).reshape(shape),
        "std": np.float32(std).reshape(shape),
        "W": W.astype(np.float32),
    }
    return model(nodes, weights, shape=(C, 2, 2), out=(len(W),))


def constant(K=4, d=6):
    """A model that no input changes: ``z = 0 · x W + b``."""
    W, b = np.zeros((K, d)), np.linspace(-1, 1, K)
    return linear(W, b)


def custom(d=4):
    """A node of a domain that no runtime has."""
    made = model([("Relu", ["x"], ["z"], {})], {}, shape=(d,), out=(d,))
    made.graph.node[0].op_type, made.graph.node[0].domain = "Frobnicate", "org.nowhere"
    made.opset_import.append(helper.make_opsetid("org.nowhere", 1))
    return made


def integer(d=4):
    """A model that takes int64 only."""
    nodes = [("Cast", ["x"], ["f"], {"to": TensorProto.FLOAT}), ("Gemm", ["f", "W"], ["z"], {})]
    return model(nodes, {"W": np.eye(d, 3, dtype=np.float32)}, shape=(d,), out=(3,), dtype="int64", out_dtype="float32")


def two_headed(W, b):
    """Integer labels first and scores second, as scikit-learn exports do, and a second float output."""
    K, _d = W.shape
    info = helper.make_tensor_value_info
    made = linear(W, b)
    made.graph.node.append(helper.make_node("ArgMax", ["z"], ["label"], axis=1, keepdims=0))
    made.graph.node.append(helper.make_node("Neg", ["z"], ["negated"]))
    made.graph.output.insert(0, info("label", TensorProto.INT64, ["N"]))
    made.graph.output.append(info("negated", TensorProto.FLOAT, ["N", K]))
    return made


def external(W, b, folder, name="model.onnx"):
    """A linear classifier whose weights lie in a file beside it."""
    made = linear(W, b)
    path = Path(folder) / name
    onnx.save(made, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path
