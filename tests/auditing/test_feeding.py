"""What inputs are held at: numbers, files, the samples' own values; and what does not fit, in one line."""

import json

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from onnxfim import Settings, audit, audit_isolated, bounds, inspect, load_samples
from onnxfim.auditing.feeding import nothing
from onnxfim.errors import InputError, SettingsError
from onnxfim.graph.graph import TensorInfo
from onnxfim.graph.held import POSITION, HeldValue, hold
from onnxfim.record.audit import Audit
from onnxfim.runtime.session import open_session, run
from tests.support import models
from tests.support.two_inputs import TwoInputs
from tests.support.whole_nets import Bag

NET = TwoInputs.drawn()
DATA = NET.data()
INFO = helper.make_tensor_value_info


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return NET.write(tmp_path_factory.mktemp("feeding") / "two.onnx")


def found(path, data=DATA, feed=("flag=1",), **others):
    return audit(path, data, settings=Settings(input="image", feed=feed, providers=("cpu",), method="gradient", **others))


def values(result):
    return np.array([s.lambda_max.value for s in result.samples])


class TestValues:
    @pytest.mark.parametrize(("words", "value"), [("zeros", 0), ("ones", 1), ("-0.25", -0.25), ("1e-1", 0.1)])
    def test_numbers(self, path, words, value):
        given = {**DATA, "meta": np.full_like(DATA["meta"], value)}
        assert_allclose(values(found(path, feed=("flag=true", f"meta={words}"))), NET.lambda_max(given), rtol=2e-5)  # float32

    @pytest.mark.parametrize("name", ["one.npy", "own.npy", "arrays.npz:meta", "arrays.npz"])
    def test_files(self, path, tmp_path, name):
        own = DATA["meta"][::-1].copy()
        np.save(tmp_path / "one.npy", own[:1])
        np.save(tmp_path / "own.npy", own)
        np.savez(tmp_path / "arrays.npz", meta=own, other=own)
        truth = NET.lambda_max({**DATA, "meta": np.repeat(own[:1], len(own), axis=0) if name == "one.npy" else own})
        assert_allclose(values(found(path, feed=("flag=1", f"meta={tmp_path / name}"))), truth, rtol=2e-5)  # float32

    def test_a_file_of_all_samples_is_read_at_those_that_are_left(self, path, tmp_path):
        np.save(tmp_path / "own.npy", DATA["meta"])
        given = {k: v.copy() for k, v in DATA.items() if k != "meta"}
        given["image"][0] = np.inf
        result = found(path, given, feed=("flag=1", f"meta={tmp_path / 'own.npy'}"))
        assert [s.index for s in result.samples] == list(range(1, 12))
        assert_allclose(values(result), NET.lambda_max(DATA)[1:], rtol=2e-5)  # float32

    def test_what_is_the_same_for_all_samples_becomes_a_constant(self, path):
        given = {k: np.repeat(v[:1], 12, axis=0) if k != "image" else v for k, v in DATA.items()}
        result = found(path, given)
        assert_allclose(values(result), NET.lambda_max(given), rtol=2e-5)  # float32
        assert [i.at for i in result.model.inputs if i.role == "held"][:1] == ["the data's value, the same for all samples"]

    def test_text(self, tmp_path):
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "W"], ["xw"]),
                helper.make_node(
                    "LabelEncoder", ["language"], ["scale"], domain="ai.onnx.ml", keys_strings=["de", "en"], values_floats=[2.0, 3.0],
                    default_float=0.0,
                ),
                helper.make_node("Mul", ["xw", "scale"], ["z"]),
            ],
            "text", [INFO("x", TensorProto.FLOAT, ["N", 3]), INFO("language", TensorProto.STRING, ["N", 1])],
            [INFO("z", TensorProto.FLOAT, ["N", 3])], [numpy_helper.from_array(np.eye(3, dtype=np.float32), "W")],
        )  # fmt: skip
        file = tmp_path / "text.onnx"
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
        file.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
        x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)

        def truth(factor):
            p = np.exp(factor[:, None] * x.astype(float))
            p /= p.sum(axis=1, keepdims=True)
            return [f**2 * np.linalg.eigvalsh(np.diag(q) - np.outer(q, q))[-1] for f, q in zip(factor, p, strict=True)]

        options = Settings(providers=("cpu",), method="gradient")
        languages = np.array([["de"], ["en"], ["de"], ["de"], ["en"], ["de"]], object)
        own = audit(file, {"x": x, "language": languages}, settings=options)
        assert_allclose(values(own), truth(np.where(languages[:, 0] == "en", 3.0, 2.0)), rtol=2e-5)  # float32
        fed = audit(file, x, settings=Settings(providers=("cpu",), method="gradient", feed=("language=en",)))
        assert_allclose(values(fed), truth(np.full(6, 3.0)), rtol=2e-5)  # float32


class TestErrors:
    @pytest.mark.parametrize(
        ("feed", "words"),
        [
            ((), ("nothing says what to hold 'flag' bool () at", "--feed flag=VALUE")),
            (("flag=yes",), ("--feed flag=yes: is no value", "zeros, ones")),
            (("flag=2",), ("holds values that bool does not", "'flag'")),
            (("flag=1", "kind=1.5"), ("holds values that int64 does not",)),
            (("flag=1", "mta=1"), ("no input to hold is called 'mta'", "Use one of: meta")),
            (("flag=1", "image=1"), ("no input to hold is called 'image'",)),
            (("flag=1", "meta=none.npy"), ("none.npy", "cannot be opened")),
            (("flag=1", "meta=1", "meta=2"), ("--feed meta=2: 'meta' is held at 1 already",)),
        ],
    )
    def test_values(self, path, feed, words, told):
        with pytest.raises(InputError, match=told(*words)):
            found(path, feed=feed)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"meta": DATA["meta"][:, :3]}, ("data[meta]: each sample's value has shape (3,)", "takes (4,)")),
            ({"meta": DATA["meta"][:5]}, ("inputs['meta']: has shape (5, 4)", "each of the 12 samples")),
            ({"kind": DATA["kind"] + 0.5}, ("data[kind]: holds values that int64 does not",)),
            ({"kind": np.array(["a"] * 12)}, ("data[kind]: holds <U1", "takes int64")),
            ({"kind": np.array([None] * 12)}, ("inputs['kind']: holds Python objects", "numbers or text")),
            ({"flag": np.arange(12) % 2 == 0}, ("data[flag]: samples have different values", "no batch axis")),
        ],
    )
    def test_data(self, path, change, words, told):
        with pytest.raises(InputError, match=told(*words)):
            found(path, {**DATA, **change}, feed=() if "flag" in change else ("flag=1",))

    def test_arrays_of_the_wrong_shape(self, path, tmp_path, told):
        np.save(tmp_path / "a.npy", np.zeros((3, 4), np.float32))
        with pytest.raises(InputError, match=told("holds 3 values, but the data have a sample of index 11")):
            found(path, feed=("flag=1", f"meta={tmp_path / 'a.npy'}"))
        np.save(tmp_path / "a.npy", np.zeros((12, 5), np.float32))
        with pytest.raises(InputError, match=told("has shape (12, 5), but input 'meta' float32 (N, 4) takes")):
            found(path, feed=("flag=1", f"meta={tmp_path / 'a.npy'}"))

    def test_no_values_of_the_perturbed_input(self, path, told):
        with pytest.raises(InputError, match=told("inputs: hold no values of 'image' (found 'meta')")):
            found(path, {"meta": DATA["meta"]})

    @pytest.mark.parametrize("text", ["x", "x:3", "x:[N,N]", "x:[0,3]", ":[N]", "x:[N,-1]"])
    def test_shapes_that_are_none(self, text, told):
        with pytest.raises(SettingsError, match=told("NAME:[N,SIZE,…]")):
            Settings(shape=(text,))

    def test_values_that_are_none(self, told):
        with pytest.raises(SettingsError, match=told("NAME=VALUE")):
            Settings(feed=("mask",))


class TestBatchAxis:
    """z = x W + sum of a state whose batch is axis 1; its symbol differs from the other input's."""

    @pytest.fixture
    def file(self, saved):
        def write(batch, state):
            return saved(
                models.model(
                    [("MatMul", ["x", "W"], ["xw"], {}), ("ReduceSum", ["state", "axes"], ["s"], {"keepdims": 0}),
                     ("Add", ["xw", "s"], ["a"], {}), ("Tanh", ["a"], ["z"], {})],
                    {"W": np.eye(3, dtype=np.float32), "axes": np.array([0], np.int64)}, shape=(3,), out=(3,), batch=batch,
                    inputs=[INFO("state", TensorProto.FLOAT, state)],
                )
            )  # fmt: skip

        return write

    X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    STATE = np.random.default_rng(1).standard_normal((6, 2, 3)).astype(np.float32)

    def truth(self):
        z = np.tanh(self.X.astype(float) + self.STATE.sum(axis=1))
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        J = [np.diag(1 - row**2) for row in z]
        return [np.linalg.eigvalsh(j @ (np.diag(q) - np.outer(q, q)) @ j)[-1] for j, q in zip(J, p, strict=True)]

    def measured(self, file, *shape):
        options = Settings(providers=("cpu",), method="gradient", input="x", shape=shape)
        return values(audit(file, {"x": self.X, "state": self.STATE}, settings=options))

    def test_the_same_symbol_tells(self, file):
        assert_allclose(self.measured(file("N", [2, "N", 3])), self.truth(), rtol=2e-5)  # float32

    def test_the_same_fixed_batch_tells(self, file):
        assert_allclose(self.measured(file(4, [2, 4, 3])), self.truth(), rtol=2e-5)
        assert_allclose(self.measured(file(1, [2, 1, 3])), self.truth(), rtol=2e-5)

    def test_another_symbol_is_asked_about(self, file, told):
        path = file("N", [2, "batch", 3])
        with pytest.raises(InputError, match=told("which axis of input 'state'", "--shape state:[2,N,3]")):
            self.measured(path)
        assert_allclose(self.measured(path, "state:[2,N,3]"), self.truth(), rtol=2e-5)

    def test_a_shape_that_contradicts_the_file(self, file, told):
        with pytest.raises(InputError, match=told("--shape state:[3,N,3]: the file says")):
            self.measured(file("N", [2, "batch", 3]), "state:[3,N,3]")
        with pytest.raises(InputError, match=told("the model has no input 'stat'")):
            self.measured(file("N", [2, "batch", 3]), "stat:[2,N,3]")

    def test_open_sizes_are_asked_for(self, file, told):
        path = file("N", ["layers", "N", 3])
        options = {"providers": ("cpu",), "method": "gradient", "input": "x"}
        with pytest.raises(InputError, match=told("nothing gives a size for", "--shape state:[SIZE,N,3]")):
            audit(path, self.X, settings=Settings(feed=("state=0",), **options))
        result = audit(path, self.X, settings=Settings(feed=("state=0.5",), shape=("state:[2,N,3]",), **options))
        assert len(result.samples) == 6


@pytest.mark.parametrize("opset", [7, 11, 13, 17])
@pytest.mark.parametrize("batch", ["N", 3])
def test_the_copy_gives_what_the_file_gives(opset, batch):
    """For all operator sets, held at one value for all and at each row's own, text-free; the file is fed by hand."""
    inputs = [INFO("x", TensorProto.FLOAT, [batch, 2]), INFO("m", TensorProto.FLOAT, [batch, 2])]
    nodes = [helper.make_node("Mul", ["x", "m"], ["z"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, [INFO("z", TensorProto.FLOAT, [batch, 2])]),
        opset_imports=[helper.make_opsetid("", opset)], ir_version=5,
    )  # fmt: skip
    x, m = np.random.default_rng(0).standard_normal((2, 3, 2)).astype(np.float32)
    one = hold(model, "x", {"m": HeldValue(m[:1], 0)})
    own = hold(model, "x", {"m": HeldValue(m, 0, True)})
    for copy, want, feeds in ((one, x * m[:1], {}), (own, x * m[[2, 0, 0]], {POSITION: np.array([2, 0, 0])})):
        onnx.checker.check_model(copy)
        session, _ = open_session(copy.SerializeToString())
        assert_allclose(run(session, ["z"], {"x": x, **feeds})[0], want, rtol=1e-6)


def test_another_process_holds_the_same(path, tmp_path):
    np.savez(tmp_path / "data.npz", labels=np.zeros(12, int), **DATA)
    samples = load_samples(tmp_path / "data.npz", path, input="image")
    assert sorted(samples.held) == ["kind", "meta", "state"]
    options = Settings(input="image", feed=("flag=1",), providers=("cpu",), method="gradient")
    apart, here = audit_isolated(path, samples, settings=options), audit(path, samples, settings=options)
    assert values(apart).tolist() == values(here).tolist()
    assert_allclose(values(apart), NET.lambda_max(DATA), rtol=2e-5)  # float32


def test_the_record_tells_what_became_of_each_input(path):
    result = found(path)
    assert [(i.name, i.role, i.at) for i in result.model.inputs] == [
        ("image", "perturbed", None), ("meta", "held", "each sample's own value"), ("kind", "held", "each sample's own value"),
        ("state", "held", "each sample's own value"), ("flag", "held", "1"), ("aside", "not read", None),
        ("unread", "not read", None),
    ]  # fmt: skip
    assert result.model.rewritten == (
        "inputs held (meta, kind, state, flag); inputs left out that the output does not read (aside, unread)"
    )
    assert Audit.from_json(result.to_json()) == result
    assert json.loads(result.to_json())["model"]["inputs"][4]["shape"] == []
    assert result.bound.available


def test_inspect_tells_the_roles(path, saved):
    assert inspect(path).roles == (None, None, "held", None, "held", "not read", "not read")
    assert inspect(saved(models.Linear.draw(3, 4).onnx())).roles == ("perturbed",)


def test_bounds_take_what_is_fed_as_constants(path, told):
    assert not bounds(path, input="image").bound.available  # the flag decides by what the logits are multiplied
    fed = [bounds(path, input="image", feed=(f"flag={flag}", "state=0.5")).bound for flag in (1, 0)]
    assert_allclose(fed[0].log10_lipschitz - fed[1].log10_lipschitz, np.log10(2), atol=1e-6)  # the flag halves them
    assert "Other inputs are fixed: meta, kind, aside, unread." in fed[0].assumptions
    with pytest.raises(InputError, match=told("no input to hold is called 'flg'")):
        bounds(path, input="image", feed=("flg=1",))


def test_bounds_by_several_inputs_are_by_one_vector(path, told):
    feed = ("flag=1", "state=0.5", "kind=1")
    alone = [bounds(path, input=name, feed=feed).bound.log10_lipschitz for name in ("image", "meta")]
    both = bounds(path, input=("image", "meta"), feed=feed).bound
    stacked = np.concatenate([NET.W, NET.V]).astype(np.float64)
    true = np.log10(np.linalg.norm(stacked @ NET.U.astype(np.float64), 2))  # where every tanh has slope 1
    assert both.log10_lipschitz >= max(*alone, true)
    assert both.assumptions[0].startswith("L2 norm of one sample's inputs perturbed together, as one vector")
    with pytest.raises(InputError, match=told("'kind' int64 (N) takes whole numbers", "expected one --input")):
        bounds(path, input=("image", "kind"))


def test_bounds_with_sizes_that_the_file_leaves_open(saved):
    rng = np.random.default_rng(0)
    W, R, C = (rng.standard_normal(s).astype(np.float32) for s in ((1, 16, 4), (1, 16, 4), (4, 3)))
    nodes = [
        ("Mul", ["x", "mask"], ["m"], {}), ("Transpose", ["m"], ["t"], {"perm": [1, 0, 2]}),
        ("LSTM", ["t", "W", "R"], ["", "last"], {"hidden_size": 4}), ("Squeeze", ["last", "zero"], ["h"], {}),
        ("MatMul", ["h", "C"], ["z"], {}),
    ]  # fmt: skip
    mask = INFO("mask", TensorProto.FLOAT, ["N", "T", 1])
    weights = {"W": W, "R": R, "C": C, "zero": np.array([0])}
    path = saved(models.model(nodes, weights, shape=("T", 4), out=(3,), inputs=[mask]))
    open_ = bounds(path, input="x").bound
    assert not open_.available
    few, many = (bounds(path, input="x", feed=("mask=ones",), shape=(f"x:[N,{T},4]",)).bound for T in (3, 30))  # T of both
    assert few.available
    assert few.log10_lipschitz < many.log10_lipschitz


def test_an_input_whose_batch_is_not_first_is_not_perturbed(path, told):
    words = ("input 'state' holds its batch on axis 1 (its axis 1 is called 'N')", "name another input with --input")
    with pytest.raises(InputError, match=told(*words)):
        audit(path, DATA, settings=Settings(input="state", feed=("flag=1",), providers=("cpu",)))


def test_tokens_beside_a_float_that_nothing_reads(saved, cpu):
    bag = Bag.draw()
    made = bag.onnx()
    made.graph.input.append(INFO("aside", TensorProto.FLOAT, ["N", 2]))
    found = audit(saved(made), bag.ids(3), settings=cpu(replay=0, flip=False))
    assert found.model.at is not None
    assert_allclose(values(found), bag.lambda_max(bag.ids(3)), rtol=2e-5)  # float32 against float64


def test_an_input_of_a_type_that_cannot_be_fed_is_told_in_one_line():
    with pytest.raises(InputError, match=r"input 'a': takes unknown, expected a type that can be fed.*without this input"):
        nothing(TensorInfo("a", "unknown", ("N", 3)))
