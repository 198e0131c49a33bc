"""Nets that take whole numbers, by onnx.helper, and the float64 functions of the value that they are audited from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from onnx import TensorProto, helper
from scipy.special import softmax

from tests.support.models import covariance, model

_STEP = 1e-30  # of complex differences, which subtract nothing


def lambda_max(logits, values):
    """``λ_max`` of ``softmax(logits(v))`` at each of the values, by complex steps in float64; ``logits`` takes one complex value.

    Of logits (positions, K) it is that of the positions' sum.
    """
    found = []
    for value in np.asarray(values, np.float64):
        flat = value.ravel().astype(complex)
        columns = []
        for i in range(flat.size):
            moved = flat.copy()
            moved[i] += 1j * _STEP
            columns.append(logits(moved.reshape(value.shape)).imag / _STEP)
        p = softmax(np.atleast_2d(logits(flat.reshape(value.shape)).real), axis=1)  # (positions, K)
        J = np.moveaxis(np.array(columns), 0, -1).reshape(*p.shape, -1)  # (positions, K, d)
        found.append(np.linalg.eigvalsh(sum(j.T @ covariance(q) @ j for j, q in zip(J, p, strict=True)))[-1])
    return np.array(found)


@dataclass(frozen=True)
class Bag:
    """Tokens, their embeddings, the mean over the positions, ``B tanh(A m)``."""

    E: np.ndarray
    A: np.ndarray
    B: np.ndarray
    length: int

    @classmethod
    def draw(cls, *, vocabulary=20, width=6, length=5, K=3, seed=0):
        rng = np.random.default_rng([seed, vocabulary, width, K])
        E, A, B = rng.standard_normal((vocabulary, width)), rng.standard_normal((8, width)), rng.standard_normal((K, 8))
        return cls(E.astype(np.float32), A.astype(np.float32), B.astype(np.float32), length)

    def ids(self, n, *, seed=1, dtype=np.int64):
        return np.random.default_rng([seed, n]).integers(1, len(self.E), (n, self.length)).astype(dtype)

    def logits(self, embedded):
        """Of one sample's embeddings (T, H)."""
        return self.B.astype(np.float64) @ np.tanh(self.A.astype(np.float64) @ embedded.mean(axis=0))

    def lambda_max(self, ids):
        return lambda_max(self.logits, self.E[ids])

    def onnx(self, front=None, *, embedded="e", dtype="int64", batch="N", weights=None, opset=17, free=False):
        """The file; ``front`` are the nodes from the ids ``x`` to the embeddings ``embedded``, a Gather where none are given."""
        nodes = front or [("Gather", ["E", "x"], ["e"], {})]
        nodes = [
            *nodes,
            ("ReduceMean", [embedded], ["m"], {"axes": [1], "keepdims": 0}),
            ("Gemm", ["m", "A"], ["h"], {"transB": 1}),
            ("Tanh", ["h"], ["t"], {}),
            ("Gemm", ["t", "B"], ["z"], {"transB": 1}),
        ]
        held = {"E": self.E, "A": self.A, "B": self.B, **(weights or {})}
        used = {i for _, inputs, _, _ in nodes for i in inputs}
        held = {name: value for name, value in held.items() if name in used}
        shape = ("T" if free else self.length,)
        made = model(nodes, held, shape=shape, out=(len(self.B),), batch=batch, opset=opset)
        made.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return made


@dataclass(frozen=True)
class Levels:
    """An image of levels, ``x / 127.5 − 1``, then ``B tanh(A x)``."""

    A: np.ndarray
    B: np.ndarray
    shape: tuple[int, ...] = (1, 6, 6)

    @classmethod
    def draw(cls, K=3, *, shape=(1, 6, 6), seed=0):
        rng = np.random.default_rng([seed, K])
        d = int(np.prod(shape))
        A, B = rng.standard_normal((8, d)) / np.sqrt(d), 2 * rng.standard_normal((K, 8))
        return cls(A.astype(np.float32), B.astype(np.float32), shape)

    def images(self, n, *, seed=1, dtype=np.uint8):
        ends = np.iinfo(dtype)
        return np.random.default_rng([seed, n]).integers(ends.min, ends.max + 1, (n, *self.shape)).astype(dtype)

    def logits(self, levels):
        """Of one image's levels."""
        flat = levels.ravel() / 127.5 - 1
        return self.B.astype(np.float64) @ np.tanh(self.A.astype(np.float64) @ flat)

    def onnx(self, front=None, *, value="f", dtype="uint8", batch="N", weights=None, opset=17, scaled=True):
        """The file; ``front`` are the nodes from the image ``x`` to the float levels ``value``, a Cast where none are given."""
        nodes = front or [("Cast", ["x"], ["f"], {"to": TensorProto.FLOAT})]
        first = [("Div", [value, "half"], ["d"], {}), ("Sub", ["d", "one"], ["s"], {})] if scaled else []
        nodes = [
            *nodes,
            *first,
            ("Flatten", ["s" if scaled else value], ["flat"], {"axis": 1}),
            ("Gemm", ["flat", "A"], ["h"], {"transB": 1}),
            ("Tanh", ["h"], ["t"], {}),
            ("Gemm", ["t", "B"], ["z"], {"transB": 1}),
        ]
        held = {"A": self.A, "B": self.B, "half": np.float32(127.5), "one": np.float32(1), **(weights or {})}
        used = {i for _, inputs, _, _ in nodes for i in inputs}
        made = model(
            nodes, {k: v for k, v in held.items() if k in used}, shape=self.shape, out=(len(self.B),), batch=batch, opset=opset
        )
        made.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return made


def lstm(*, vocabulary=12, width=4, hidden=3, length=5, K=3, seed=0):
    """Tokens, embeddings, an LSTM over time and its last state: the file, and the logits of one sample's embeddings."""
    rng = np.random.default_rng(seed)
    E = rng.standard_normal((vocabulary, width)).astype(np.float32)
    W, R = (rng.standard_normal((1, 4 * hidden, n)).astype(np.float32) for n in (width, hidden))
    C = (2 * rng.standard_normal((hidden, K))).astype(np.float32)
    nodes = [
        ("Gather", ["E", "x"], ["e"], {}),
        ("Transpose", ["e"], ["time"], {"perm": [1, 0, 2]}),
        ("LSTM", ["time", "W", "R"], ["", "last"], {"hidden_size": hidden}),
        ("Squeeze", ["last", "zero"], ["h"], {}),
        ("MatMul", ["h", "C"], ["z"], {}),
    ]
    made = model(nodes, {"E": E, "W": W, "R": R, "C": C, "zero": np.array([0])}, shape=(length,), out=(K,))
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64

    def logits(embedded):
        h, c = np.zeros(hidden), np.zeros(hidden)
        for e in embedded:
            i, o, f, g = np.split(W[0].astype(np.float64) @ e + R[0].astype(np.float64) @ h, 4)
            i, o, f = (1 / (1 + np.exp(-gate)) for gate in (i, o, f))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
        return h @ C.astype(np.float64)

    return made, E, logits


@dataclass(frozen=True)
class Masked:
    """A small token classifier like BERT: embeddings of tokens and positions, LayerNormalization, masked attention, the first token."""

    weights: dict[str, np.ndarray]
    length: int = 4

    @classmethod
    def draw(cls, *, vocabulary=15, width=6, length=4, K=3, seed=0):
        rng = np.random.default_rng([seed, vocabulary, width])
        sizes = {
            "E": (vocabulary, width),
            "P": (length, width),
            "Q": (width, width),
            "K": (width, width),
            "V": (width, width),
            "C": (width, K),
        }
        scale = {"Q": 0.5, "K": 0.5}  # attention that no position has alone
        drawn = {name: scale.get(name, 1.0) * rng.standard_normal(size) for name, size in sizes.items()}
        return cls({name: value.astype(np.float32) for name, value in drawn.items()}, length)

    def data(self, n, *, seed=1):
        """Ids and masks that end at another position each."""
        rng = np.random.default_rng([seed, n])
        ids = rng.integers(1, len(self.weights["E"]), (n, self.length))
        mask = (np.arange(self.length)[None] < rng.integers(2, self.length + 1, n)[:, None]).astype(np.int64)
        return ids, mask

    def logits(self, embedded, mask, *, each=False):
        """Of one sample's token embeddings (T, H) and its mask (T,); (T, K) of ``each`` token."""
        w = {name: value.astype(np.float64) for name, value in self.weights.items()}
        s = embedded + w["P"]
        centred = s - s.mean(axis=1, keepdims=True)
        h = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        scores = (h @ w["Q"]) @ (h @ w["K"]).T / np.sqrt(s.shape[1]) + (1 - mask)[None] * -1e4
        e = np.exp(scores - scores.real.max(axis=1, keepdims=True))
        mixed = (e / e.sum(axis=1, keepdims=True)) @ (h @ w["V"])
        return (mixed if each else mixed[0]) @ w["C"]

    def lambda_max(self, ids, masks, *, each=False):
        embedded = self.weights["E"][ids]
        logits = partial(self.logits, each=each)
        return np.concatenate([lambda_max(partial(logits, mask=m), v[None]) for v, m in zip(embedded, masks, strict=True)])

    def onnx(self, *, own_mask=False, each=False):
        """Inputs ``x`` (ids) and ``mask``; with ``own_mask`` the ids alone, of which zero is padding.

        With ``each`` it gives probabilities of each token, (N, T, K), in place of the first one's logits.
        """
        width = self.weights["E"].shape[1]
        mask = (
            [("Equal", ["x", "pad"], ["b"], {}), ("Not", ["b"], ["n"], {}), ("Cast", ["n"], ["m"], {"to": TensorProto.FLOAT})]
            if own_mask
            else [("Cast", ["mask"], ["m"], {"to": TensorProto.FLOAT})]
        )
        nodes = [
            *mask,
            ("Gather", ["E", "x"], ["e"], {}),
            ("Add", ["e", "P"], ["s"], {}),
            ("LayerNormalization", ["s", "ones", "zeros"], ["h"], {"axis": -1}),
            *((("MatMul", ["h", w], [w.lower()], {})) for w in ("Q", "K", "V")),
            ("Transpose", ["k"], ["kt"], {"perm": [0, 2, 1]}),
            ("MatMul", ["q", "kt"], ["qk"], {}),
            ("Div", ["qk", "root"], ["scaled"], {}),
            ("Sub", ["one", "m"], ["off"], {}),
            ("Mul", ["off", "low"], ["bias"], {}),
            ("Unsqueeze", ["bias", "second"], ["spread"], {}),
            ("Add", ["scaled", "spread"], ["scores"], {}),
            ("Softmax", ["scores"], ["p"], {"axis": -1}),
            ("MatMul", ["p", "v"], ["mixed"], {}),
            ("Gather", ["mixed", "first"], ["cls"], {"axis": 1}),
            ("MatMul", ["cls", "C"], ["z"], {}),
        ]
        if each:
            nodes = [*nodes[:-2], ("MatMul", ["mixed", "C"], ["logits"], {}), ("Softmax", ["logits"], ["z"], {"axis": -1})]
        held = {
            **self.weights, "ones": np.ones(width, np.float32), "zeros": np.zeros(width, np.float32), "root": np.float32(np.sqrt(width)),
            "one": np.float32(1), "low": np.float32(-1e4), "second": np.array([1]), "first": np.array(0), "pad": np.array(0),
        }  # fmt: skip
        used = {i for _, inputs, _, _ in nodes for i in inputs}
        others = [] if own_mask else [helper.make_tensor_value_info("mask", TensorProto.INT64, ["N", self.length])]
        made = model(
            nodes,
            {k: v for k, v in held.items() if k in used},
            shape=(self.length,),
            out=(*((self.length,) if each else ()), self.weights["C"].shape[1]),
            inputs=others,
        )
        made.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
        return made

    def fused(self, *, positions=False):
        """The same of ONNX Runtime's fused operators; inputs ``x`` and ``mask`` int32, and where sequences end is what masks.

        With ``positions`` these are a Slice as long as a Gather of the ids is, which is read for nothing else.
        """
        width = self.weights["E"].shape[1]
        nodes = [
            ("EmbedLayerNormalization", ["x", "", "E", "P", "", "ones", "zeros", "mask", "places" if positions else ""], ["h", "ends"],
             {"epsilon": 1e-5}),
            ("Attention", ["h", "QKV", "bias", "ends"], ["mixed"], {"num_heads": 1}),
            ("Gather", ["mixed", "first"], ["cls"], {"axis": 1}),
            ("MatMul", ["cls", "C"], ["z"], {}),
        ]  # fmt: skip
        if positions:
            nodes = [
                ("Gather", ["E", "x"], ["seen"], {}),
                ("Shape", ["seen"], ["sizes"], {}),
                ("Slice", ["sizes", "one", "two"], ["length"], {}),
                ("Slice", ["counted", "start", "length", "one"], ["some"], {}),
                ("Slice", ["sizes", "start", "two"], ["whole"], {}),
                ("Expand", ["some", "whole"], ["places"], {}),
                *nodes,
            ]
        Q, K, V = (self.weights[n] for n in "QKV")
        held = {
            **self.weights, "QKV": np.concatenate([Q, K, V], axis=1), "bias": np.zeros(3 * width, np.float32),
            "ones": np.ones(width, np.float32), "zeros": np.zeros(width, np.float32), "first": np.array(0),
            "one": np.array([1]), "two": np.array([2]), "start": np.array([0]), "counted": np.arange(9, dtype=np.int32)[None],
        }  # fmt: skip
        used = {i for _, inputs, _, _ in nodes for i in inputs}
        made = model(
            nodes,
            {k: v for k, v in held.items() if k in used},
            shape=(self.length,),
            out=(self.weights["C"].shape[1],),
            inputs=[helper.make_tensor_value_info("mask", TensorProto.INT32, ["N", self.length])],
        )
        made.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
        for node in made.graph.node:
            if node.op_type in ("EmbedLayerNormalization", "Attention"):
                node.domain = "com.microsoft"
        made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        return made
