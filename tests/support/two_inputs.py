"""A classifier of two float inputs and more, with its own values and derivatives in float64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]

HIDDEN, META, KINDS = 7, 4, 5
IMAGE = (1, 4, 4)


@dataclass(frozen=True)
class TwoInputs:
    """``z = tanh(x W + m V + E[kind] + s) U · (flag ? 1 : 0.5)`` of an image x, metadata m, a kind, a state s and a flag.

    The kind (N,) int64 picks a row of a table; the state (2, N, HIDDEN) holds its batch on axis 1, and both halves are added; the
    flag is one bool for all.
    """

    W: Array
    V: Array
    E: Array
    U: Array

    @classmethod
    def drawn(cls, seed: int = 0, classes: int = 3) -> TwoInputs:
        rng = np.random.default_rng(seed)
        sizes = ((int(np.prod(IMAGE)), HIDDEN), (META, HIDDEN), (KINDS, HIDDEN), (HIDDEN, classes))
        return cls(*(rng.standard_normal(s).astype(np.float32) * 0.5 for s in sizes))

    def data(self, n: int = 12, seed: int = 1) -> dict[str, Array]:
        """Samples, every one with values of its own."""
        rng = np.random.default_rng(seed)
        return {
            "image": rng.standard_normal((n, *IMAGE)).astype(np.float32),
            "meta": 2 * rng.standard_normal((n, META)).astype(np.float32),
            "kind": rng.integers(0, KINDS, n),
            "state": rng.standard_normal((n, 2, HIDDEN)).astype(np.float32),
        }

    def parts(self, data: dict[str, Array], flag: bool = True) -> tuple[Array, Array]:
        """Logits (N, K) and their derivative by what is inside tanh, (N, K, HIDDEN), float64."""
        x, m = (data[name].reshape(len(data[name]), -1).astype(np.float64) for name in ("image", "meta"))
        a = x @ self.W + m @ self.V + self.E[data["kind"]] + data["state"].astype(np.float64).sum(axis=1)
        h, factor = np.tanh(a), 1.0 if flag else 0.5
        U = self.U.astype(np.float64)
        return factor * h @ U, factor * U.T[None] * (1 - h**2)[:, None]

    def lambda_max(self, data: dict[str, Array], of: str | tuple[str, ...] = "image", flag: bool = True, scale: Any = 1.0) -> Array:
        """lambda_max by one input, or by several together, in nats per squared unit of ``scale`` (d,), (N,) float64."""
        z, inner = self.parts(data, flag)
        names = (of,) if isinstance(of, str) else of
        J = (
            np.concatenate([inner @ {"image": self.W, "meta": self.V}[n].astype(np.float64).T for n in names], axis=2) * scale
        )  # (N, K, d)
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        C = np.einsum("nk,kj->nkj", p, np.eye(p.shape[1])) - p[:, :, None] * p[:, None]
        return np.asarray(np.linalg.eigvalsh(np.einsum("nkd,nkj,nje->nde", J, C, J))[:, -1])

    def write(self, path: Path, *, batch: int | str = "N", opset: int = 17) -> Path:
        """The file; it also has an input that only another output reads, and one that nothing reads."""
        tensors = {"W": self.W, "V": self.V, "E": self.E, "U": self.U, "half": np.float32(0.5), "one": np.float32(1)}
        node = helper.make_node
        nodes = [
            node("Flatten", ["image"], ["flat"]),
            node("MatMul", ["flat", "W"], ["xw"]),
            node("MatMul", ["meta", "V"], ["mv"]),
            node("Gather", ["E", "kind"], ["embedded"]),
            node("ReduceSum", ["state", "first"] if opset >= 13 else ["state"], ["s"], keepdims=0,
                 **({} if opset >= 13 else {"axes": [0]})),
            node("Sum", ["xw", "mv", "embedded", "s"], ["a"]),
            node("Tanh", ["a"], ["h"]),
            node("MatMul", ["h", "U"], ["hu"]),
            node("Where", ["flag", "one", "half"], ["factor"]),
            node("Mul", ["hu", "factor"], ["z"]),
            node("Identity", ["aside"], ["other"]),
        ]  # fmt: skip
        if opset >= 13:
            tensors["first"] = np.array([0], np.int64)
        info, f = helper.make_tensor_value_info, TensorProto.FLOAT
        inputs = [
            info("image", f, [batch, *IMAGE]), info("meta", f, [batch, META]), info("kind", TensorProto.INT64, [batch]),
            info("state", f, [2, batch, HIDDEN]), info("flag", TensorProto.BOOL, []), info("aside", f, [batch, 2]),
            info("unread", f, [1, 1]),
        ]  # fmt: skip
        outputs = [info("z", f, [batch, self.U.shape[1]]), info("other", f, [batch, 2])]
        weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()]
        graph = helper.make_graph(nodes, "two inputs", inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
        return path
