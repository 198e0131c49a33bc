"""Networks of several heads, detectors and embeddings in the manner of exporters, with their dense float64 twins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit, softmax

D, H = 6, 12  # inputs, hidden units
RNG = np.random.default_rng(7)
A = (RNG.standard_normal((D, H)) / np.sqrt(D)).astype(np.float32)
X = RNG.standard_normal((10, D)).astype(np.float32)


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights of a layer on the hidden units."""
    return (2 * np.random.default_rng([seed, *shape]).standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def info(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def net(nodes, constants, outputs, *, opset=17, batch: int | str = "N", ml=False, kind=TensorProto.FLOAT) -> onnx.ModelProto:
    """``h = tanh(x A)`` and the given nodes on it; ``outputs`` are value infos."""
    trunk = [("MatMul", ["x", "A"], ["a"], {}), ("Tanh", ["a"], ["h"], {})]
    made = [
        helper.make_node(op.rpartition(":")[2], list(i), list(o), name=f"n{k}_{op.rpartition(':')[2]}", domain=op.rpartition(":")[0], **a)
        for k, (op, i, o, a) in enumerate([*trunk, *nodes])
    ]  # fmt: skip
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    stored = {"A": A.astype(dtype), **constants}
    graph = helper.make_graph(
        made, "headed", [info("x", batch, D, kind=kind)], list(outputs), [numpy_helper.from_array(np.asarray(w), n) for n, w in stored.items()]
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("ai.onnx.ml", 1)] if ml else [])
    model = helper.make_model(graph, opset_imports=opsets, producer_name="tests")
    model.ir_version = 8
    return model


def hidden(x: np.ndarray) -> np.ndarray:
    return np.tanh(np.asarray(x, np.float64) @ A.astype(np.float64))


def jacobian(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, h: float = 1e-6) -> np.ndarray:
    """Jacobian of a float64 function of one sample, (outputs, D), by central differences: off by h² and 1e-16/h."""
    moves = h * np.eye(D)
    return np.stack([(f(x + v) - f(x - v)).ravel() / (2 * h) for v in moves], axis=1)


def softmax_fisher(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """``F = Σ_positions JᵀCJ`` of logits f(x) (..., K)."""
    z = np.atleast_2d(f(x))
    J = jacobian(f, x).reshape(*z.shape, D)
    p = softmax(z, axis=-1)
    return sum(j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(J, p, strict=True))


def sigmoid_fisher(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """``F = Σ p(1 − p)∇z∇zᵀ`` of logits f(x) (K, boxes); of boxes with a score at the threshold or above where there is one."""
    z = f(x)
    p = expit(z)
    chosen = np.ones_like(p) if threshold is None else np.broadcast_to(p.max(axis=0) >= threshold, p.shape)
    J = jacobian(f, x)
    return J.T @ np.diag((p * (1 - p) * chosen).ravel()) @ J


def direction_fisher(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """``F = Jᵀ P_z J / ‖z‖²`` of an embedding f(x), in closed form from its Jacobian."""
    z, J = f(x), jacobian(f, x)
    u = z / np.linalg.norm(z)
    return J.T @ (np.eye(len(z)) - np.outer(u, u)) @ J / np.linalg.norm(z) ** 2


def top(fisher: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """The largest eigenvalue at each sample."""
    return np.array([np.linalg.eigvalsh(fisher(x))[-1] for x in np.asarray(inputs, np.float64)])


def captcha(classes=(36, 36, 36, 36, 36), *, soft: bool = False, kind: int = TensorProto.FLOAT, **options) -> onnx.ModelProto:
    """One head for each letter, as logits or probabilities."""
    nodes, constants, outputs = [], {}, []
    for k, n in enumerate(classes):
        constants[f"W{k}"] = weights(H, n, seed=k).astype(helper.tensor_dtype_to_np_dtype(kind))
        nodes.append(("MatMul", ["h", f"W{k}"], [f"l{k}" if soft else f"letter{k}"], {}))
        if soft:
            nodes.append(("Softmax", [f"l{k}"], [f"letter{k}"], {"axis": 1}))
        outputs.append(info(f"letter{k}", options.get("batch", "N"), n, kind=kind))
    return net(nodes, constants, outputs, kind=kind, **options)


def letter(k: int, n: int) -> Callable[[np.ndarray], np.ndarray]:
    """The logits of one head of `captcha`."""
    W = weights(H, n, seed=k).astype(np.float64)
    return lambda x: hidden(x) @ W


BOXES, SCORES = 5, 3  # a small detector's boxes, and scores of each


def detector(layout: str = "channels", *, level: str = "sigmoid", opset: int = 17) -> onnx.ModelProto:
    """Boxes and scores: ``channels`` (N, 4+C, A), ``last`` (N, A, 4+C), ``apart`` two outputs, and others."""
    constants = {"B": 30 * weights(H, 4 * BOXES, seed=1), "S": weights(H, SCORES * BOXES, seed=2),
                 "b4": np.array([-1, 4, BOXES]), "bs": np.array([-1, SCORES, BOXES])}  # fmt: skip
    nodes = [
        ("MatMul", ["h", "B"], ["fb"], {}), ("Reshape", ["fb", "b4"], ["boxes4"], {}),
        ("MatMul", ["h", "S"], ["fs"], {}), ("Reshape", ["fs", "bs"], ["logits"], {}),
        ("Sigmoid", ["logits"], ["probs"], {}),
    ]  # fmt: skip
    if layout == "apart":
        nodes += [
            ("Transpose", ["boxes4"], ["boxes"], {"perm": [0, 2, 1]}),
            ("Transpose", ["probs"], ["scores"], {"perm": [0, 2, 1]}),
        ]
        return net(nodes, constants, [info("boxes", "N", BOXES, 4), info("scores", "N", BOXES, SCORES)], opset=opset)
    if layout == "last":
        nodes += [("Concat", ["boxes4", "probs"], ["both"], {"axis": 1}), ("Transpose", ["both"], ["out"], {"perm": [0, 2, 1]})]
        return net(nodes, constants, [info("out", "N", BOXES, 4 + SCORES)], opset=opset)
    if layout == "two scales":
        nodes += [("Concat", ["boxes4", "probs"], ["both"], {"axis": 1}), ("Concat", ["both", "both"], ["out"], {"axis": 2})]
        return net(nodes, constants, [info("out", "N", 4 + SCORES, 2 * BOXES)], opset=opset)
    if layout == "suppressed":
        nodes += [("Transpose", ["boxes4"], ["boxes"], {"perm": [0, 2, 1]}),
                  ("NonMaxSuppression", ["boxes", "probs", "most", "iou"], ["kept"], {}), ("Cast", ["kept"], ["out"], {"to": 1})]  # fmt: skip
        constants |= {"most": np.array([3]), "iou": np.array([0.5], np.float32)}
        return net(nodes, constants, [info("out", "M", 3)], opset=opset)
    if layout == "decoded":  # all through one Sigmoid, boxes decoded after it, as YOLOv5 does, and joined over two scales
        nodes = [
            ("MatMul", ["h", "B"], ["fb"], {}), ("Reshape", ["fb", "b4"], ["boxes4"], {}),
            ("MatMul", ["h", "S"], ["fs"], {}), ("Reshape", ["fs", "bs"], ["logits"], {}),
            ("Concat", ["boxes4", "logits"], ["raw"], {"axis": 1}), ("Transpose", ["raw"], ["last"], {"perm": [0, 2, 1]}),
            ("Reshape", ["last", "grid"], ["spread"], {}), ("Sigmoid", ["spread"], ["s"], {}),
            ("Slice", ["s", "zero", "four", "three"], ["b"], {}), ("Slice", ["s", "four", "many", "three"], ["c"], {}),
            ("Mul", ["b", "stride"], ["pixels"], {}), ("Concat", ["pixels", "c"], ["one"], {"axis": -1}),
            ("Reshape", ["one", "rows"], ["scale"], {}), ("Concat", ["scale", "scale"], ["out"], {"axis": 1}),
        ]  # fmt: skip
        constants |= {"grid": np.array([-1, 1, BOXES, 4 + SCORES]), "rows": np.array([-1, BOXES, 4 + SCORES]), "zero": np.array([0]),
                      "four": np.array([4]), "many": np.array([99]), "three": np.array([3]),
                      "stride": np.array([64, 80, 96, 70], np.float32)}  # fmt: skip
        return net(nodes, constants, [info("out", "N", 2 * BOXES, 4 + SCORES)], opset=opset)
    if layout == "traced":  # sizes are computed from the input's shape, which shape inference does not follow
        nodes = [
            ("Shape", ["x"], ["s"], {}), ("Gather", ["s", "zero"], ["n"], {"axis": 0}), ("Concat", ["n", "b4"], ["sb"], {"axis": 0}),
            ("Concat", ["n", "bs"], ["ss"], {"axis": 0}), ("MatMul", ["h", "B"], ["fb"], {}), ("Reshape", ["fb", "sb"], ["boxes4"], {}),
            ("MatMul", ["h", "S"], ["fs"], {}), ("Reshape", ["fs", "ss"], ["logits"], {}),
            ("Concat", ["boxes4", "logits"], ["raw"], {"axis": 1}), ("Sigmoid", ["raw"], ["p"], {}),
            ("Slice", ["p", "zero", "four", "one"], ["b"], {}), ("Mul", ["b", "stride"], ["pixels"], {}),
            ("Slice", ["p", "four", "many", "one"], ["c"], {}), ("Concat", ["pixels", "c"], ["out"], {"axis": 1}),
        ]  # fmt: skip
        constants |= {"zero": np.array([0]), "four": np.array([4]), "one": np.array([1]), "many": np.array([99]),
                      "b4": np.array([4, BOXES]), "bs": np.array([SCORES, BOXES]), "stride": np.float32(64)}  # fmt: skip
        return net(nodes, constants, [info("out", "N", "rows", "boxes")], opset=opset)
    nodes.append(("Concat", ["boxes4", "probs"], ["out"], {"axis": 1}))
    return net(nodes, constants, [info("out", "N", 4 + SCORES, BOXES)], opset=opset)


def box_scores(x: np.ndarray) -> np.ndarray:
    """The logits of `detector`'s scores at one sample, (scores, boxes)."""
    return (hidden(x) @ weights(H, SCORES * BOXES, seed=2).astype(np.float64)).reshape(SCORES, BOXES)


def embedder(form: str = "plain", *, opset: int = 17, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """An embedding (N, 8), as it is or divided by its length in the manner of an exporter."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {"W": weights(H, 8).astype(dtype)}
    nodes: list = [("MatMul", ["h", "W"], ["z"], {})]
    if form == "torch":
        constants |= {"tiny": np.array(1e-12, dtype)}
        nodes += [("ReduceL2", ["z"], ["n"], {"axes": [1], "keepdims": 1}), ("Clip", ["n", "tiny"], ["c"], {}),
                  ("Shape", ["z"], ["s"], {}), ("Expand", ["c", "s"], ["e"], {}), ("Div", ["z", "e"], ["out"], {})]  # fmt: skip
    elif form == "keras":
        constants |= {"tiny": np.array(1e-12, dtype), "axes": np.array([1])}
        nodes += [("Mul", ["z", "z"], ["q"], {}), ("ReduceSum", ["q", "axes"], ["n"], {"keepdims": 1}), ("Max", ["n", "tiny"], ["m"], {}),
                  ("Sqrt", ["m"], ["r"], {}), ("Reciprocal", ["r"], ["i"], {}), ("Mul", ["z", "i"], ["out"], {})]  # fmt: skip
    elif form == "lp":
        nodes += [("LpNormalization", ["z"], ["out"], {"axis": -1, "p": 2})]
    else:
        nodes += [("Identity", ["z"], ["out"], {})]
    return net(nodes, constants, [info("out", "N", 8, kind=kind)], opset=opset, kind=kind)


def embedding(x: np.ndarray) -> np.ndarray:
    """The embedding of `embedder` before its division."""
    return hidden(x) @ weights(H, 8).astype(np.float64)


def zipped(labels=("cat", "dog", "eel"), *, before: str = "", binary: bool = False) -> onnx.ModelProto:
    """Labels and a ZipMap of probabilities, as skl2onnx and onnxmltools write them; ``before`` is an operator before the ZipMap."""
    K = len(labels)
    text = isinstance(labels[0], str)
    key = {"classlabels_strings" if text else "classlabels_int64s": list(labels)}
    nodes = [
        ("MatMul", ["h", "W"], ["l"], {}),
        ("Softmax", ["l"], ["p"], {"axis": 1}),
        ("ArgMax", ["p"], ["label"], {"axis": 1, "keepdims": 0}),
    ]
    name = "p"
    if before:
        nodes.append((before, ["p"], ["q"], {"to": 1} if before == "Cast" else {}))
        name = "q"
    nodes.append(("ai.onnx.ml:ZipMap", [name], ["probabilities"], key))
    keys = TensorProto.STRING if text else TensorProto.INT64
    maps = helper.make_map_type_proto(keys, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    zipmap = helper.make_value_info("probabilities", helper.make_sequence_type_proto(maps))
    return net(nodes, {"W": weights(H, K)}, [info("label", "N", kind=TensorProto.INT64), zipmap], ml=True, opset=17)
