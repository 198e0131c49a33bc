"""Small models with data that fit them, from which families make cases."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.harness import Case
from tests.support import models
from tests.support.places import CASES, MODELS, SAMPLES
from tests.support.quantised_nets import FORMS, Dense, quantised_file
from tests.support.step_models import forest


@dataclass(frozen=True)
class Base:
    """A model file's bytes and the shape of one sample."""

    name: str
    content: bytes
    shape: tuple[int, ...]
    dtype: str = "float32"

    def proto(self) -> onnx.ModelProto:
        """A fresh copy to be changed."""
        return onnx.load_model_from_string(self.content)


def _mlp(activation: str, end: str | None = "Softmax") -> onnx.ModelProto:
    rng = np.random.default_rng(7)
    nodes = [
        ("Gemm", ["x", "A", "a"], ["h"], {"transB": 1}),
        (activation, ["h"], ["t"], {}),
        ("Gemm", ["t", "B"], ["logits" if end else "z"], {"transB": 1}),
    ]
    nodes += [(end, ["logits"], ["z"], {})] if end else []
    weights = {"A": _draw(rng, 6, 5), "a": _draw(rng, 6), "B": _draw(rng, 3, 6)}
    return models.model(nodes, weights, shape=(5,), out=(3,))


def _cnn() -> onnx.ModelProto:
    rng = np.random.default_rng(8)
    nodes = [
        ("Conv", ["x", "K", "k"], ["c"], {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
        ("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], {}),
        ("Relu", ["n"], ["r"], {}),
        ("MaxPool", ["r"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["p", "L"], ["d"], {"group": 2}),
        ("Add", ["d", "p"], ["s"], {}),
        ("GlobalAveragePool", ["s"], ["g"], {}),
        ("Flatten", ["g"], ["f"], {}),
        ("Gemm", ["f", "W", "b"], ["z"], {"transB": 1}),
    ]
    weights = {"K": _draw(rng, 4, 2, 3, 3), "k": _draw(rng, 4), "scale": _draw(rng, 4), "shift": _draw(rng, 4), "mean": _draw(rng, 4),
               "var": np.abs(_draw(rng, 4)) + np.float32(0.1), "L": _draw(rng, 4, 2, 1, 1), "W": _draw(rng, 3, 4), "b": _draw(rng, 3)}  # fmt: skip
    return models.model(nodes, weights, shape=(2, 6, 6), out=(3,))


def _attention() -> onnx.ModelProto:
    rng = np.random.default_rng(9)
    nodes = [
        ("LayerNormalization", ["x", "scale", "shift"], ["n"], {"axis": -1}),
        ("MatMul", ["n", "Q"], ["q"], {}), ("MatMul", ["n", "P"], ["k"], {}), ("MatMul", ["n", "V"], ["v"], {}),
        ("Transpose", ["k"], ["kt"], {"perm": [0, 2, 1]}),
        ("MatMul", ["q", "kt"], ["a"], {}), ("Mul", ["a", "half"], ["as"], {}), ("Softmax", ["as"], ["w"], {"axis": -1}),
        ("MatMul", ["w", "v"], ["o"], {}), ("Add", ["o", "x"], ["y"], {}),
        ("Erf", ["y"], ["e"], {}),
        ("ReduceMean", ["e"], ["m"], {"axes": [1], "keepdims": 0}),
        ("Shape", ["m"], ["sh"], {}), ("Gather", ["sh", "zero"], ["n0"], {"axis": 0}), ("Concat", ["n0", "minus"], ["to"], {"axis": 0}),
        ("Reshape", ["m", "to"], ["f"], {}),
        ("Gemm", ["f", "W"], ["logits"], {"transB": 1}), ("LogSoftmax", ["logits"], ["z"], {"axis": 1}),
    ]  # fmt: skip
    weights = {name: _draw(rng, 4, 4) for name in "QPV"} | {"scale": _draw(rng, 4), "shift": _draw(rng, 4), "W": _draw(rng, 3, 4)}
    weights |= {"half": np.float32(0.5), "zero": np.int64([0]), "minus": np.int64([-1])}
    return models.model(nodes, weights, shape=(3, 4), out=(3,))


def _branching() -> onnx.ModelProto:
    """An ``If`` whose condition is constant, a ``Constant`` node, a function of the file's own."""
    made = _mlp("Relu", None)
    info = helper.make_tensor_value_info
    for node in made.graph.node:
        node.output[0] = {"z": "z0"}.get(node.output[0], node.output[0])
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, ["z0"], [f"{name}_o"])], name, [], [info(f"{name}_o", TensorProto.FLOAT, ["N", 3])]
        )
        for name, op in (("then_branch", "Identity"), ("else_branch", "Neg"))
    }
    made.graph.node.extend([
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.bool_(True))),
        helper.make_node("If", ["yes"], ["z1"], **branches),
        helper.make_node("Doubled", ["z1"], ["z"], domain="own"),
    ])  # fmt: skip
    made.functions.append(
        helper.make_function(
            "own", "Doubled", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
        )
    )
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def _quantised(form: str) -> onnx.ModelProto:
    net = Dense.draw(5, 6, 3)
    return quantised_file(net, net.samples(16), form)


def _draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _linear(**options: object) -> onnx.ModelProto:
    return models.Linear.draw(3, 5).onnx(**options)


@functools.cache
def bases() -> tuple[Base, ...]:
    """All base models, the smallest kinds first."""
    made: list[tuple[str, Callable[[], onnx.ModelProto], tuple[int, ...], str]] = [
        ("mlp", lambda: _mlp("Tanh"), (5,), "float32"),
        ("relu", lambda: _mlp("Relu", None), (5,), "float32"),
        ("sigmoid", lambda: _mlp("Elu", "Sigmoid"), (5,), "float32"),
        ("cnn", _cnn, (2, 6, 6), "float32"),
        ("attention", _attention, (3, 4), "float32"),
        ("branching", _branching, (5,), "float32"),
        ("linear64", lambda: _linear(dtype="float64"), (5,), "float64"),
        ("linear16", lambda: _linear(dtype="float16", end="Softmax"), (5,), "float16"),
        ("pixels", lambda: models.conv(softmax_axis=1)[0], (2, 5, 5), "float32"),
        (
            "normalised",
            lambda: models.normalised(_draw(np.random.default_rng(3), 3, 8), [0.1, 0.2], [0.5, 2.0]),
            (2, 2, 2),
            "float32",
        ),
        *((form, functools.partial(_quantised, form), (5,), "float32") for form in FORMS),
        ("trees", lambda: forest(3, 5, 3), (5,), "float32"),
    ]
    return tuple(Base(name, make().SerializeToString(), shape, dtype) for name, make, shape, dtype in made)


@functools.cache
def real() -> tuple[Base, ...]:
    """Small trained files, where they are."""
    found = [
        Base(f"digits_{n}", (SAMPLES / f"digits_{n}.onnx").read_bytes(), (1, 8, 8))
        for n in ("mlp", "resnet", "resnet_int8", "vit", "resnet_fp16")
    ]
    found = [Base(b.name, b.content, b.shape, "float16") if "fp16" in b.name and _takes_half(b.content) else b for b in found]
    for path in sorted(CASES.glob("*.onnx")) if CASES.is_dir() else ():
        with np.load(path.with_suffix(".npz")) as data:
            found.append(Base(path.stem, path.read_bytes(), data["inputs"].shape[1:], str(data["inputs"].dtype)))
    kws = MODELS / "kws_dscnn_qdq_int8.onnx"
    if kws.is_file():
        proto = onnx.load_model_from_string(kws.read_bytes())
        dims = proto.graph.input[0].type.tensor_type.shape.dim
        found.append(Base("kws_dscnn_qdq_int8", kws.read_bytes(), tuple(d.dim_value for d in dims)[1:]))
    return tuple(found)


def _takes_half(content: bytes) -> bool:
    return onnx.load_model_from_string(content).graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16


def pick(rng: np.random.Generator, *, of_real: float = 0.15) -> Base:
    """A base; a trained file with this probability."""
    among: Sequence[Base] = real() if rng.random() < of_real else bases()
    return among[int(rng.integers(len(among)))]


def save_data(rng: np.random.Generator, base: Base, folder: Path, *, count: int = 4) -> str:
    """Samples and labels for a base, as ``d.npz``."""
    inputs = rng.standard_normal((count, *base.shape)).astype(base.dtype)
    np.savez(folder / "d.npz", inputs=inputs, labels=rng.integers(0, 3, count))
    return "d.npz"


_AUDITS = (
    (), (), (), ("--no-flip",), ("--method", "sketch"), ("--method", "gradient"), ("--method", "exact"), ("--attack", "l2", "--attack-samples", "2"),
    ("--replay", "2"), ("--scheme", "dithered"), ("--batch", "2"), ("--surrogate",), ("--output-kind", "logits"), ("--output-kind", "probabilities"),
    ("--class-axis", "1"), ("--step", "0.01"), ("--precision", "20%", "--max-budget", "40"), ("--verbose",), ("--quiet",), ("--fail-on", "lambda_max.p95 > 1"),
    ("--output-kind", "gaussian"), ("--no-cache",), ("--temperature", "2"), ("--layout", "NHWC"), ("--samples", "1"), ("--no-bounds",),
)  # fmt: skip
_FORMATS = ("html", "csv", "junit", "sarif", "markdown", "comment")


def command(
    rng: np.random.Generator, folder: Path, base: Base, *, model: str = "m.onnx", note: str, only: str | None = None
) -> Case:
    """One of the commands that read a model, with varied options; its data are written."""
    which = only or str(rng.choice(["audit", "audit", "audit", "inspect", "bounds", "bounds", "compare"]))
    if which == "inspect":
        return Case(("inspect", model, *(["--json"] if rng.random() < 0.5 else [])), note)
    if which == "bounds":
        more = ["--json"] if rng.random() < 0.3 else ["-o", "json=b.json", "-o", "html=b.html"] if rng.random() < 0.5 else []
        return Case(("bounds", model, *more), note)
    data = "random" if rng.random() < 0.1 else save_data(rng, base, folder)
    common = ["--data", data, "--samples", "3", "--budget", "12", "--provider", "cpu"]
    options = _AUDITS[int(rng.integers(len(_AUDITS)))]
    if which == "compare":
        (folder / "other.onnx").write_bytes(base.content)
        both = ["other.onnx", model] if rng.random() < 0.7 else [model, "other.onnx"]
        more = ["-o", "json=c.json"] if rng.random() < 0.6 else []
        more += ["--attribute"] if rng.random() < 0.3 else []
        return Case(("compare", *both, *common, *more), note)
    replay = [] if "--replay" in options else ["--replay", "0"]
    outputs = ["-o", "json=a.json"]
    if rng.random() < 0.3:
        kind = str(rng.choice(_FORMATS))
        outputs += ["-o", f"{kind}=a.{kind}"]
    return Case(("audit", model, *common, *replay, *options, *outputs), note)
