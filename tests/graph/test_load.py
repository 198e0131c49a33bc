"""Files as read: what is refused, and what the graph says of itself."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper

from onnxfim.errors import InputError, ModelError
from onnxfim.graph.choosing_heads import choose_heads
from onnxfim.graph.choosing_inputs import choose_input
from onnxfim.graph.ends import ending, input_level, input_limits, normalisation
from onnxfim.graph.load import fixed_batch, load_model, sample_shape
from tests.support import models
from tests.support.models import Linear

LINEAR = Linear.draw(3, 4)
info = helper.make_tensor_value_info


def elsewhere(location, place):
    """A model with four weights in the file ``location``: an initializer, a constant, or a constant in a branch."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    made = models.model([("Add", ["x", "x"], ["z"], {})], {}, shape=(4,), out=(4,))
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    if place == "initializer":
        made.graph.initializer.append(tensor)
    elif place == "constant":
        made.graph.node.append(constant)
    else:
        branch = helper.make_graph([constant], "branch", [], [info("w", TensorProto.FLOAT, [4])])
        made.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    return made


class TestLoading:
    def test_missing(self, tmp_path, told):
        with pytest.raises(ModelError, match=told("none.onnx", "no such file")):
            load_model(tmp_path / "none.onnx")

    def test_a_folder(self, tmp_path, told):
        with pytest.raises(ModelError, match=told("is not a file")):
            load_model(tmp_path)

    @pytest.mark.parametrize("content", [b"not a model at all", b"\x80\x04\x95", b"PK\x03\x04zip", bytes(1000)])
    def test_not_onnx(self, tmp_path, told, content):
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=told("m.onnx", "")) as caught:
            load_model(path)
        assert "is not ONNX" in str(caught.value) or "holds no ONNX graph" in str(caught.value)

    def test_empty(self, tmp_path, told):
        path = tmp_path / "m.onnx"
        path.write_bytes(b"")
        with pytest.raises(ModelError, match=told("m.onnx", "is empty")):
            load_model(path)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
    def test_truncated(self, tmp_path, share):
        content = Linear.draw(30, 40).onnx().SerializeToString()
        path = tmp_path / "m.onnx"
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ModelError, match=r"truncated|no ONNX graph"):
            load_model(path)

    def test_hash_is_that_of_the_file(self, saved):
        path = saved(LINEAR.onnx())
        file = load_model(path)
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert file.bytes == path.stat().st_size
        assert file.producer == "tests"

    def test_external_weights_count(self, tmp_path):
        path = models.external(LINEAR.W, LINEAR.b, tmp_path)
        before = load_model(path)
        weights = tmp_path / "weights.bin"
        assert before.bytes == path.stat().st_size + weights.stat().st_size
        both = [(p, hashlib.sha256(p.read_bytes()).hexdigest()) for p in (path, weights)]
        assert [(p.resolve(), digest) for p, digest in before.digests] == [(p.resolve(), digest) for p, digest in both]
        assert before.sha256 == hashlib.sha256(path.read_bytes() + weights.read_bytes()).hexdigest()
        weights.write_bytes(weights.read_bytes()[::-1])
        assert load_model(path).sha256 != before.sha256

    @pytest.mark.parametrize("location", ["../secret", "{absolute}", "link", "ring", "sub/../../secret", "no\0name"])
    @pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
    def test_external_weights_stay_in_the_models_folder(self, tmp_path, told, location, place):
        folder = tmp_path / "model"
        folder.mkdir()
        (tmp_path / "secret").write_bytes(bytes(16))
        (folder / "link").symlink_to("../secret")
        (folder / "ring").symlink_to("ring")
        location = location.format(absolute=tmp_path / "secret")
        (folder / "model.onnx").write_bytes(elsewhere(location, place).SerializeToString())
        with pytest.raises(ModelError, match=told("model.onnx: weights are in", "outside the model's folder", "beside the model")):
            load_model(folder / "model.onnx")

    @pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "./weights.bin", "gone", "x" * 5000])
    def test_external_weights_inside_the_folder_are_taken(self, tmp_path, location):
        for name in ("weights.bin", "sub/weights.bin"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(bytes(16))
        content = elsewhere(location, "initializer").SerializeToString()
        (tmp_path / "model.onnx").write_bytes(content)
        assert load_model(tmp_path / "model.onnx").bytes == len(content) + 16 * location.endswith(".bin")

    def test_links_of_a_cache_of_downloads_are_followed(self, tmp_path):
        """Model and weights are both links into one folder of blobs."""
        (tmp_path / "blobs").mkdir()
        (tmp_path / "snapshot").mkdir()
        content = elsewhere("weights.bin", "initializer").SerializeToString()
        for name, blob in (("model.onnx", content), ("weights.bin", bytes(16))):
            (tmp_path / "blobs" / name[::-1]).write_bytes(blob)
            (tmp_path / "snapshot" / name).symlink_to(f"../blobs/{name[::-1]}")
        assert load_model(tmp_path / "snapshot" / "model.onnx").bytes == len(content) + 16


class TestChoosing:
    def test_the_only_float(self, saved):
        file = load_model(saved(models.two_headed(LINEAR.W, LINEAR.b)))
        assert choose_input(file, None).name == "x"
        assert [h.name for h in choose_heads(file, None)] == ["z"], "scores, not the integer labels before them"
        assert [h.name for h in choose_heads(file, "negated")] == ["negated"]

    def test_a_wrong_name_is_told_the_near_one(self, saved, told):
        file = load_model(saved(models.two_headed(LINEAR.W, LINEAR.b)))
        with pytest.raises(InputError, match=told("no output is called 'negatd'", "Did you mean 'negated'?")):
            choose_heads(file, "negatd")
        with pytest.raises(InputError, match=told("no input is called 'image'", "Use one of: x.")):
            choose_input(file, "image")

    def test_whole_numbers_are_audited_behind_the_input(self, saved):
        assert choose_input(load_model(saved(models.integer())), None).dtype == "int64"

    def test_yes_and_no_have_no_small_change(self, saved, told):
        made = models.integer()
        made.graph.input[0].type.tensor_type.elem_type = TensorProto.BOOL
        with pytest.raises(InputError, match=told("'x' takes bool", "expected numbers")):
            choose_input(load_model(saved(made)), None)

    def test_other_inputs(self, saved, told):
        made = models.model(
            [("Add", ["x", "y"], ["z"], {})], {}, shape=(4,), out=(4,), inputs=[info("y", TensorProto.FLOAT, ["N", 4])]
        )
        file = load_model(saved(made))
        with pytest.raises(InputError, match=told("2 inputs can be perturbed", "'y' float32 (N, 4)", "--input x --feed y=VALUE")):
            choose_input(file, None)
        assert choose_input(file, "x").name == "x"

    def test_an_input_that_the_output_does_not_read_is_not_asked_about(self, saved):
        made = models.model(
            [("Abs", ["x"], ["z"], {}), ("Abs", ["y"], ["other"], {})], {}, shape=(4,), out=(4,),
            inputs=[info("y", TensorProto.FLOAT, ["N", 4])],
        )  # fmt: skip
        assert choose_input(load_model(saved(made)), None).name == "x"

    def test_no_rank(self, saved, told):
        made = LINEAR.onnx()
        made.graph.input[0].type.tensor_type.ClearField("shape")
        with pytest.raises(InputError, match=told("has no shape")):
            choose_input(load_model(saved(made)), None)

    def test_labels_alone_are_no_scores(self, saved, told):
        made = models.two_headed(LINEAR.W, LINEAR.b)
        del made.graph.output[1:]
        with pytest.raises(InputError, match=told("no output is a floating-point tensor", "zipmap")):
            choose_heads(load_model(saved(made)), None)

    def test_shapes(self, saved):
        x = choose_input(load_model(saved(models.linear(LINEAR.W, LINEAR.b, shape=(2, 2), batch=1))), None)
        assert sample_shape(x) == (2, 2)
        assert fixed_batch(x) == 1
        assert fixed_batch(choose_input(load_model(saved(LINEAR.onnx())), None)) is None


class TestEnding:
    @pytest.mark.parametrize(
        ("end", "kind"), [(None, "logits"), ("Softmax", "probabilities"), ("LogSoftmax", "logits"), ("Sigmoid", "sigmoid")]
    )
    def test_kinds(self, saved, end, kind):
        graph = load_model(saved(models.linear(LINEAR.W, LINEAR.b, end=end))).graph
        found = ending(graph, "z")
        assert found.kind == kind
        assert found.logits == ("logits" if end else None)

    @pytest.mark.parametrize("after", ["Identity", "Flatten", "Cast"])
    def test_it_is_seen_through_nodes_that_change_nothing(self, saved, after):
        made = models.linear(LINEAR.W, LINEAR.b, end="Softmax")
        made.graph.node[-1].output[0] = "p"
        extra = {"to": TensorProto.FLOAT} if after == "Cast" else {}
        made.graph.node.append(helper.make_node(after, ["p"], ["z"], **extra))
        assert ending(load_model(saved(made)).graph, "z").kind == "probabilities"

    def test_moves_between_the_activation_and_the_output(self, saved):
        nodes = [("Tanh", ["x"], ["t"], {}), ("Softmax", ["t"], ["p"], {"axis": -1}), ("Reshape", ["p", "s"], ["r"], {})]
        made = models.model([*nodes, ("Identity", ["r"], ["z"], {})], {"s": np.array([0, 6])}, shape=(6,), out=(6,))
        found = ending(load_model(saved(made)).graph, "z")
        assert (found.kind, found.logits, found.class_axis) == ("probabilities", "t", None)

    def test_a_cast_to_whole_numbers_ends_the_search(self, saved):
        nodes = [("Softmax", ["x"], ["p"], {}), ("Cast", ["p"], ["i"], {"to": 7}), ("Cast", ["i"], ["z"], {"to": 1})]
        made = models.model(nodes, {}, shape=(4,), out=(4,))
        assert ending(load_model(saved(made)).graph, "z").logits is None

    @pytest.mark.parametrize(
        ("axis", "kind", "classes"), [(0, "logits", None), (1, "probabilities", None), (-1, "probabilities", 2)]
    )
    def test_the_axis_that_a_softmax_sums_over_holds_the_classes(self, saved, axis, kind, classes):
        made = models.model([("Softmax", ["x"], ["z"], {"axis": axis})], {}, shape=(3, 4), out=(3, 4))
        found = ending(load_model(saved(made)).graph, "z")
        assert (found.kind, found.class_axis) == (kind, classes)

    def test_an_attention_softmax_is_not_the_end(self, saved):
        nodes = [("Softmax", ["x"], ["a"], {"axis": 1}), ("Gemm", ["a", "W"], ["z"], {"transB": 1})]
        made = models.model(nodes, {"W": LINEAR.W.astype(np.float32)}, shape=(4,), out=(3,))
        assert ending(load_model(saved(made)).graph, "z").kind == "logits"


class TestNormalisation:
    def test_mean_and_std_are_found(self, saved):  # float32 constants
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
        made = models.normalised(np.ones((2, 12)), mean, std)
        found = normalisation(load_model(saved(made)).graph, "x")
        assert_allclose(found.mean, mean, rtol=1e-6)
        assert_allclose(found.std, std, rtol=1e-6)
        assert len(found.nodes) == 2

    def test_scale_and_shift_are_the_same_thing(self, saved):  # x/127.5 − 1 is (x − 127.5)/127.5
        nodes = [("Mul", ["x", "a"], ["s"], {}), ("Add", ["s", "b"], ["z"], {})]
        made = models.model(nodes, {"a": np.float32(1 / 127.5), "b": np.float32(-1)}, shape=(4,), out=(4,))
        found = normalisation(load_model(saved(made)).graph, "x")
        assert_allclose([found.mean[0], found.std[0]], 127.5, rtol=1e-6)

    def test_none_where_there_is_none(self, saved):
        assert normalisation(load_model(saved(LINEAR.onnx())).graph, "x") is None


def test_levels_of_a_quantised_input(saved):
    nodes = [
        ("QuantizeLinear", ["x", "s", "o"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "o"], ["z"], {}),
    ]
    made = models.model(nodes, {"s": np.float32(0.02), "o": np.int8(0)}, shape=(4,), out=(4,))
    assert_allclose(input_level(load_model(saved(made)).graph, "x"), 0.02, rtol=1e-6)
    assert input_level(load_model(saved(LINEAR.onnx(), "plain.onnx")).graph, "x") is None


@pytest.mark.parametrize("scale", [np.nan, np.inf, 0.0, -0.02])
def test_no_levels_where_the_scale_is_no_size(saved, scale):
    nodes = [("QuantizeLinear", ["x", "s", "o"], ["q"], {}), ("DequantizeLinear", ["q", "s", "o"], ["z"], {})]
    graph = load_model(saved(models.model(nodes, {"s": np.float32(scale), "o": np.int8(0)}, shape=(4,), out=(4,)))).graph
    assert input_level(graph, "x") is None
    assert input_limits(graph, "x") is None


def test_the_builders_build_what_the_checker_takes():
    for made in (LINEAR.onnx(), models.conv()[0], models.integer(), models.two_headed(LINEAR.W, LINEAR.b), models.constant()):
        onnx.checker.check_model(made)
