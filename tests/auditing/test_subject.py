"""How a model is opened: what its outputs are, where they are read, and copies that had to prove themselves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, softmax

from onnxfim.auditing import opening as opening_module
from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.subject import check_shape, from_callable
from onnxfim.errors import InputError, ModelError
from onnxfim.slopes.kinds import Gaussian, Probabilities, SigmoidLogits, SigmoidProbabilities, SoftmaxLogits
from tests.support import models
from tests.support.models import Linear, Mlp

LINEAR = Linear.draw(3, 4)
X = LINEAR.samples(5)


class TestKinds:
    @pytest.mark.parametrize(
        ("end", "kind", "reader", "read"),
        [
            (None, "logits", SoftmaxLogits, "make no probabilities"),
            ("LogSoftmax", "logits", SoftmaxLogits, "make no probabilities"),
            ("Softmax", "probabilities", SoftmaxLogits, "differentiated at the logits before node 'Softmax_2'"),
            ("Sigmoid", "sigmoid", SigmoidLogits, "differentiated at the logits before node 'Sigmoid_2'"),
        ],
    )
    def test_files(self, saved, cpu, end, kind, reader, read):  # float32
        opened = open_subject(saved(LINEAR.onnx(end=end)), X, cpu())
        assert opened.info.output_kind == kind
        assert type(opened.reader) is reader
        assert read in opened.info.read_from
        assert (opened.info.rewritten is not None) == (end in ("Softmax", "Sigmoid"))
        probabilities = {"sigmoid": expit}.get(kind, lambda z: softmax(z, axis=1))
        assert_allclose(opened.reader.probabilities(opened.forward.outputs(X))[..., 0], probabilities(LINEAR.logits(X)), atol=1e-6)

    @pytest.mark.parametrize(
        ("fn", "kind", "reader"),
        [
            (LINEAR.logits, "logits", SoftmaxLogits),
            (lambda X: softmax(LINEAR.logits(X), axis=1), "probabilities", Probabilities),
        ],
    )
    def test_functions_are_read_by_their_values(self, cpu, fn, kind, reader):
        opened = open_subject(from_callable(fn, (4,), 3), X, cpu())
        assert (opened.info.output_kind, type(opened.reader)) == (kind, reader)
        assert opened.info.producer == "Python callable"

    @pytest.mark.parametrize(
        ("kind", "reader"),
        [("sigmoid", SigmoidProbabilities), ("gaussian", Gaussian), ("logits", SoftmaxLogits), ("probabilities", Probabilities)],
    )
    def test_what_is_said_holds(self, cpu, kind, reader):
        fn = LINEAR.logits if kind in ("logits", "gaussian") else lambda X: expit(LINEAR.logits(X))
        opened = open_subject(from_callable(fn, (4,), 3), X, cpu(output_kind=kind))
        assert type(opened.reader) is reader
        assert opened.info.read_from.startswith("as given by --output-kind")

    def test_a_sigmoids_logits_and_its_probabilities(self, cpu):
        told, seen = (
            open_subject(from_callable(fn, (4,), 3), X, cpu(output_kind="sigmoid"))
            for fn in (LINEAR.logits, lambda X: expit(LINEAR.logits(X)))
        )
        assert type(told.reader) is SigmoidLogits
        assert type(seen.reader) is SigmoidProbabilities
        assert seen.info.read_from.endswith("differentiated through 2 ∂ arcsin √p")

    def test_doubts(self, saved, cpu):
        plain, ended = saved(LINEAR.onnx(), "plain.onnx"), saved(LINEAR.onnx(end="Softmax"), "ended.onnx")
        assert open_subject(plain, X, cpu()).doubt is None
        assert "do not sum to 1" in open_subject(plain, X, cpu(output_kind="probabilities")).doubt
        assert "a second softmax would be wrong" in open_subject(ended, X, cpu(output_kind="logits")).doubt
        independent = open_subject(from_callable(lambda X: expit(LINEAR.logits(X)), (4,), 3), X, cpu())
        assert "independent probabilities?" in independent.doubt

    def test_one_value_per_sample_is_ambiguous(self, saved, cpu, told):
        one = Linear.draw(1, 4)
        with pytest.raises(ModelError, match=told("one value per sample", "--output-kind sigmoid", "gaussian")):
            open_subject(saved(one.onnx()), X, cpu())
        assert open_subject(saved(one.onnx()), X, cpu(output_kind="gaussian")).info.num_outputs == 1
        assert open_subject(saved(one.onnx(end="Sigmoid")), X, cpu()).info.output_kind == "sigmoid"


class TestRewriting:
    def test_a_fixed_batch_is_freed(self, saved, cpu):  # float32
        opened = open_subject(saved(LINEAR.onnx(batch=1)), X, cpu(batch=64))
        assert "batch axis freed (the file insists on 1)" in opened.info.rewritten
        assert opened.forward.batch == 64
        assert_allclose(opened.forward.outputs(X)[..., 0], LINEAR.logits(X), atol=1e-5)

    def test_a_copy_that_does_not_reproduce_the_file_is_not_used(self, saved, cpu, monkeypatch):
        def spoiled(*args, **options):
            yield Linear(-LINEAR.W, LINEAR.b).onnx()

        monkeypatch.setattr(opening_module, "freed_copies", spoiled)
        opened = open_subject(saved(LINEAR.onnx(batch=1)), X, cpu())
        assert opened.info.rewritten is None
        assert_allclose(opened.forward.outputs(X)[..., 0], LINEAR.logits(X), atol=1e-5)

    def test_a_copy_that_does_not_run_is_not_used(self, saved, cpu):  # the batch is in the arithmetic, not in a Reshape
        nodes = [("Gemm", ["x", "W"], ["g"], {"transB": 1}), ("Add", ["g", "c"], ["z"], {})]
        each = np.arange(6, dtype=np.float32).reshape(2, 3)
        made = models.model(nodes, {"W": LINEAR.W.astype(np.float32), "c": each}, shape=(4,), out=(3,), batch=2)
        opened = open_subject(saved(made), X, cpu())
        assert opened.info.rewritten is None
        assert_allclose(opened.forward.outputs(X)[..., 0], LINEAR.logits(X) - LINEAR.b + each[np.arange(len(X)) % 2], atol=1e-5)

    def test_both_rewritings_at_once(self, saved, cpu):
        opened = open_subject(saved(LINEAR.onnx(end="Softmax", batch=1)), X, cpu())
        assert (
            opened.info.rewritten == "batch axis freed (the file insists on 1); one more output, the logits before node 'Softmax_2'"
        )
        assert_allclose(opened.forward.outputs(X)[..., 0], LINEAR.logits(X), atol=1e-5)

    def test_external_weights_follow_a_copy(self, tmp_path, cpu, monkeypatch):
        folder = tmp_path / "with space"
        folder.mkdir()
        path = models.external(LINEAR.W, LINEAR.b, folder)
        monkeypatch.chdir(tmp_path)
        assert_allclose(open_subject(path, X, cpu()).forward.outputs(X)[..., 0], LINEAR.logits(X), atol=1e-5)
        import onnx

        made = onnx.load(path, load_external_data=False)
        made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        models.save(made, path)
        opened = open_subject(path, X, cpu())
        assert "batch axis freed" in opened.info.rewritten
        assert_allclose(opened.forward.outputs(X)[..., 0], LINEAR.logits(X), atol=1e-5)

    @pytest.mark.parametrize("dtype", ["float16", "float64"])
    def test_other_element_types(self, saved, cpu, dtype):  # float16: 10 bits of mantissa at values of 5
        opened = open_subject(saved(LINEAR.onnx(dtype=dtype, end="Softmax")), X.astype(dtype), cpu())
        assert opened.info.input_dtype == dtype
        truth = LINEAR.logits(X.astype(dtype))
        assert_allclose(opened.forward.outputs(X.astype(dtype))[..., 0], truth, atol=2e-2 if dtype == "float16" else 1e-12)


class TestShapes:
    def test_positions(self, saved, cpu):
        made, W = models.conv(K=3, channels=2, size=5, softmax_axis=1)
        images = np.random.default_rng(0).standard_normal((4, 2, 5, 5)).astype(np.float32)
        opened = open_subject(saved(made), images, cpu())
        assert (opened.info.num_outputs, opened.info.positions, opened.info.output_kind) == (3, 25, "probabilities")
        truth = np.einsum("kc,nchw->nkhw", W, images).reshape(4, 3, 25)
        assert_allclose(opened.forward.outputs(images), truth, atol=1e-5)

    def test_classes_last(self, saved, cpu):  # softmax over axis 3: the classes are there
        nodes = [("MatMul", ["x", "W"], ["logits"], {}), ("Softmax", ["logits"], ["z"], {"axis": -1})]
        made = models.model(nodes, {"W": LINEAR.W.T.astype(np.float32)}, shape=(2, 2, 4), out=(2, 2, 3))
        images = np.random.default_rng(0).standard_normal((5, 2, 2, 4)).astype(np.float32)
        opened = open_subject(saved(made), images, cpu())
        assert (opened.info.num_outputs, opened.info.positions, opened.info.output_kind) == (3, 4, "probabilities")

    def test_samples_that_do_not_fit(self, saved, cpu, told):
        with pytest.raises(InputError, match=told("samples have shape (7,)", "'x' takes (4)", "(N, 4)")):
            open_subject(saved(LINEAR.onnx()), np.zeros((3, 7), np.float32), cpu())
        check_shape("x", (3, 8, 9), (3, None, None))

    @pytest.mark.parametrize(("shape", "K"), [((), 3), ((4, 0), 3), ((4,), 0), ((-1,), 2)])
    def test_callables_that_cannot_be(self, shape, K):
        with pytest.raises(InputError, match="expected positive numbers"):
            from_callable(LINEAR.logits, shape, K)


def test_levels_of_a_quantised_input_reach_the_subject(saved, cpu):
    nodes = [
        ("QuantizeLinear", ["x", "s", "o"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "o"], ["d"], {}),
        ("Gemm", ["d", "W"], ["z"], {"transB": 1}),
    ]
    weights = {"s": np.float32(0.05), "o": np.int8(0), "W": LINEAR.W.astype(np.float32)}
    made = models.model(nodes, weights, shape=(4,), out=(3,), opset=13)
    assert_allclose(open_subject(saved(made), X, cpu()).level, 0.05, rtol=1e-6)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21])
def test_opsets_old_and_new(saved, cpu, opset):  # float32
    path = saved(LINEAR.onnx(opset=opset, end="Softmax"))
    opened = open_subject(path, X, cpu())
    assert opened.info.opset == opset
    assert_allclose(opened.forward.outputs(X)[..., 0], LINEAR.logits(X), atol=1e-5)


def test_a_deeper_model(saved, cpu):  # float32
    mlp = Mlp.draw(4, 6)
    data = mlp.samples(3)
    assert_allclose(open_subject(saved(mlp.onnx()), data, cpu()).forward.outputs(data)[..., 0], mlp.logits(data), atol=1e-5)
