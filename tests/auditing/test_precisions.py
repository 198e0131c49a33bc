"""Small nets in every precision that ONNX Runtime's own tools write: the audit's value against the float net's in float64."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax

from onnxfim.auditing.run import audit
from onnxfim.errors import InputError
from onnxfim.record.settings import Settings
from tests.support.gradient_nets import Net
from tests.support.packed_weights import MS, n_bits
from tests.support.precisions import BY_NAME, SCHEMES
from tests.support.quantised_nets import Dense

N = 24
NET = Dense.draw(64, 48, 6)
X = NET.samples(N + 64)
TRUTH = NET.lambda_max(X[:N])
SETTINGS = Settings(replay=0, bounds=False, flip=False, providers=("cpu",))
NEEDS_IR = pytest.mark.skipif(importlib.util.find_spec("onnx_ir") is None, reason="the tool needs the package onnx_ir")
ROUNDED = [s.name for s in SCHEMES if s.static or s.name.startswith("dynamic")]
#: Relative, of the mean: weights of 4 bits are another net. Others: 22 directions a sample, and weights of 8 bits.
TOLERANCE = {"QDQ int8, int4 weights": 0.4}


@pytest.fixture(scope="module")
def float_file(tmp_path_factory):
    nodes, constants, now = [], [], "x"
    for k, W in enumerate(NET.weights):
        constants += [
            numpy_helper.from_array(W.T.astype(np.float32), f"W{k}"),
            numpy_helper.from_array(np.zeros(len(W), np.float32), f"b{k}"),
        ]
        nodes += [helper.make_node("MatMul", [now, f"W{k}"], [f"m{k}"], name=f"m{k}")]
        nodes += [helper.make_node("Add", [f"m{k}", f"b{k}"], [f"z{k}"], name=f"z{k}")]
        now = f"z{k}"
        if k < len(NET.weights) - 1:
            nodes.append(helper.make_node("Relu", [now], [f"r{k}"], name=f"r{k}"))
            now = f"r{k}"
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info(now, TensorProto.FLOAT, ["N", 6])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("float") / "net.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def audited(float_file, tmp_path):
    def run(name, inputs=X, *, cache_dir=None, **options):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            path = BY_NAME[name].written(float_file, inputs, tmp_path)
        dtype = options.pop("dtype", np.float32)
        return audit(path, inputs[:N].astype(dtype), settings=replace(SETTINGS, **options), cache_dir=cache_dir)

    return run


def errors(found):
    return [f.id for f in found.findings if f.level == "error"]


def values(found):
    return np.array([s.lambda_max.value for s in found.samples])


@pytest.mark.parametrize("name", ROUNDED)
def test_files_that_round(audited, name):
    found = audited(name)
    mean = found.aggregates["lambda_max"].mean
    assert (found.run.method, found.step.scheme) == ("sketch", "dithered")
    assert found.step.rounding.startswith("the graph quantises")
    assert mean.value is not None
    assert {s.lambda_max.kind for s in found.samples} == {"estimate"}
    assert all(s.lambda_max.low < s.lambda_max.value < s.lambda_max.high for s in found.samples)
    assert found.run.evaluations > 4 * 22 * N / 2, "four passes a direction are counted"
    if name not in TOLERANCE:
        assert found.gradient.check is not None, found.gradient.no_check
    saturates = "uint8, int8" in name  # on processors without an 8-bit dot product of 32 bits the runtime saturates sums
    if not saturates:
        assert_allclose(mean.value, TRUTH.mean(), rtol=TOLERANCE.get(name, 0.15))
        assert not errors(found) or name in TOLERANCE
    assert ("rows-apart" in {f.id for f in found.findings}) == name.startswith("dynamic")


def test_what_was_kept_of_another_batch_is_not_taken(audited, tmp_path):
    name = next(n for n in ROUNDED if n.startswith("dynamic"))
    together, alone = (audited(name, cache_dir=tmp_path / "cache", batch=batch) for batch in (4, None))
    assert_array_equal(values(alone), values(audited(name)))
    assert not np.array_equal(values(together), values(alone))


@pytest.mark.parametrize("name", ["float16", "float16, float32 ends", "bfloat16 weights", "bfloat16 weights and products"])
def test_half_precision_is_differentiated(audited, name):
    """Weights of 11 or 8 significant bits: relative errors of 2^-12 and 2^-9 each, some of them the same way; other relus."""
    found = audited(name, dtype=np.float16 if name == "float16" else np.float32)
    assert found.run.method == "gradient", found.gradient.reason
    assert {s.lambda_max.kind for s in found.samples} == {"exact"}
    assert_allclose(values(found), TRUTH, rtol=0.1 if "bfloat16" in name else 0.02)
    assert_allclose(values(found).mean(), TRUTH.mean(), rtol=0.02 if "bfloat16" in name else 0.005)
    assert not errors(found)


@NEEDS_IR
@pytest.mark.parametrize("name", [s.name for s in SCHEMES if "Bits" in s.name or "alone" in s.name])
def test_weights_alone_are_differentiated(audited, name):
    found = audited(name)
    assert found.run.method == "gradient"
    assert not errors(found)
    assert_allclose(values(found).mean(), TRUTH.mean(), rtol=0.02 if "8," in name else 0.25)  # weights of 4 bits are another net


def test_four_bit_floats_are_differentiated(audited):
    found = audited("MatMulBnb4 NF4, block 64")
    assert found.run.method == "gradient"
    assert_allclose(values(found).mean(), TRUTH.mean(), rtol=0.25)


@pytest.mark.parametrize("accuracy", [0, 4])
def test_weights_of_few_bits_have_the_derivative_of_the_definition(saved, accuracy):
    """Whatever the kernel does to its activations, the values are those of the graph, and the sketch of the file agrees."""
    form = n_bits(np.random.default_rng(0), 6, 64, zeros="packed", accuracy=accuracy)
    net = helper.make_graph(
        [helper.make_node("MatMulNBits", ["x", "B", "s", "o"], ["z"], name="z", domain=MS, **form.attributes)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])], [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 6])],
        [numpy_helper.from_array(a, n) for a, n in zip(form.inputs, "Bso", strict=False) if a is not None],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    rows = np.random.default_rng(1).standard_normal((12, 64)).astype(np.float32)
    found = audit(saved(helper.make_model(net, opset_imports=opsets, ir_version=8)), rows, settings=SETTINGS)
    W = form.weights
    truth = [
        np.linalg.eigvalsh(W.T @ (np.diag(p) - np.outer(p, p)) @ W)[-1] for p in softmax(rows.astype(np.float64) @ W.T, axis=1)
    ]
    assert found.run.method == "gradient"
    assert found.gradient.cross_checked >= 6
    assert "gradient-sketch-disagree" not in errors(found)
    # Level 4: probabilities are those that the file gave, of logits with activations in 8 bits.
    assert_allclose(values(found), truth, rtol=1e-3 if accuracy == 0 else 0.1)


@pytest.mark.parametrize(("kind", "runs"), [(TensorProto.FLOAT16, True), (TensorProto.BFLOAT16, False)])
def test_an_input_of_sixteen_bits(saved, kind, runs):
    """NumPy has no bfloat16, and ONNX Runtime's Python takes none: such an input is refused in one line."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], name="f", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "W"], ["z"], name="z"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, ["N", 64])], [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 48])],
        [numpy_helper.from_array(NET.weights[0].T.astype(np.float32), "W")],
    )  # fmt: skip
    path = saved(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    if runs:
        assert audit(path, X[:12].astype(np.float16), settings=SETTINGS).run.method == "gradient"
    else:
        with pytest.raises(InputError, match=r"^[^\n]*input 'x' takes bfloat16, expected float16, float32 or float64[^\n]*$"):
            audit(path, X[:12], settings=SETTINGS)


def test_inputs_of_wide_range_in_sixteen_bits(saved, monkeypatch):
    """Bytes in float16: the sum of the samples passes the type's largest number, and steps below its spacing change nothing."""
    rng = np.random.default_rng(4)
    W = (rng.standard_normal((64, 5)) / 800).astype(np.float16)
    samples = rng.integers(128, 256, (40, 64))

    def found(element, dtype):
        model = helper.make_model(
            helper.make_graph(
                [helper.make_node("MatMul", ["x", "W"], ["z"])], "bytes",
                [helper.make_tensor_value_info("x", element, ["N", 64])], [helper.make_tensor_value_info("z", element, ["N", 5])],
                [numpy_helper.from_array(W.astype(dtype), "W")],
            ), opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
        )  # fmt: skip
        return audit(saved(model), samples.astype(dtype), labels, SETTINGS)

    G = W.astype(np.float64)
    z = samples @ G
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    truth = [np.linalg.eigvalsh(G @ (np.diag(q) - np.outer(q, q)) @ G.T)[-1] for q in p]
    labels = z.argmax(axis=1)
    monkeypatch.setattr("onnxfim.auditing.stages.unmeasurable.only_jumps", lambda curve: True)  # as of a ladder that bends early
    half = found(TensorProto.FLOAT16, np.float16)
    assert "no-slope" not in {f.id for f in half.findings}
    assert_allclose([s.lambda_max.value for s in half.samples], [truth[s.index] for s in half.samples], rtol=2e-2)  # float16 logits
    assert "no-slope" in {f.id for f in found(TensorProto.FLOAT, np.float32).findings}


@pytest.mark.parametrize("where", ["casts", "constants"])
def test_halves_that_no_weight_shows(saved, where):
    """A file may hold float32 weights and casts, or half precision in Constant nodes: it rounds as one with half weights does."""
    rng = np.random.default_rng(5)
    net = Net((64,), opset=17)
    t = net.op("Cast", "x", to=int(TensorProto.FLOAT16))
    for k, width in enumerate((256, 256, 256, 10)):
        into = 64 if k == 0 else 256
        weight = rng.standard_normal((into, width)) / into**0.5
        if where == "casts":
            half = net.op("Cast", weight, to=int(TensorProto.FLOAT16))
        else:
            half = net.op("Constant", value=numpy_helper.from_array(weight.astype(np.float16)))
        t = net.op("MatMul", t, half)
        t = net.op("Mul", t, t) if k < 2 else t
    made = net.model(net.op("Cast", t, to=int(TensorProto.FLOAT)))
    X = rng.standard_normal((8, 64)).astype(np.float32)
    found = audit(saved(made), X, settings=SETTINGS)
    assert found.run.method == "gradient", found.gradient.reason
