"""Models of several inputs: one is perturbed, the others are held at each sample's own values or at one for all."""

from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from onnxfim import Settings, audit
from onnxfim.auditing import inputs
from onnxfim.auditing.run import samples_of
from onnxfim.errors import InputError, ModelError
from onnxfim.graph.held import POSITION, HeldValue, hold
from onnxfim.graph.joint import JOINT, JoinedInput, join, joined_rows
from onnxfim.graph.load import load_model
from onnxfim.record.audit import Audit
from onnxfim.report.page.facts import how_it_was_run
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.rows import LostPosition, PlacedForward, Rademacher, Rows
from onnxfim.runtime.session import open_session, run
from onnxfim.slopes import exact
from tests.support import models
from tests.support.two_inputs import TwoInputs

NET = TwoInputs.drawn()
DATA = NET.data()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return NET.write(tmp_path_factory.mktemp("held") / "two.onnx")


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    return NET.write(tmp_path_factory.mktemp("held") / "fixed.onnx", batch=5)


def settings(of="image", **others):
    return Settings(input=of, feed=("flag=1",), providers=("cpu",), **others)


def values(found):
    return np.array([s.lambda_max.value for s in found.samples])


# float32 passes; central differences of a smooth function; a sketch is held by its interval
TOLERANCES = {"gradient": 2e-5, "exact": 2e-3}


@pytest.mark.parametrize("of", ["image", "meta"])
@pytest.mark.parametrize("method", ["gradient", "exact", "sketch"])
def test_every_sample_has_the_value_at_its_own_held_inputs(path, of, method):
    found = audit(path, DATA, settings=settings(of, method=method, budget=401, attack="l2"))
    assert (found.run.method, found.run.failed_stages) == (method, ())
    truth = NET.lambda_max(DATA, of)
    if method == "sketch":  # 200 directions: a dozen intervals of 95 %
        assert sum(s.lambda_max.low <= t <= s.lambda_max.high for s, t in zip(found.samples, truth, strict=True)) >= 10
    else:
        assert_allclose(values(found), truth, rtol=TOLERANCES[method])
    shuffled = NET.lambda_max({**DATA, **{k: v[::-1] for k, v in DATA.items() if k not in (of, "labels")}}, of)
    assert np.abs(shuffled / truth - 1).max() > 0.1  # another sample's values would show


def test_many_classes_by_products(tmp_path):
    net = TwoInputs.drawn(2, classes=90)
    found = audit(net.write(tmp_path / "many.onnx"), DATA, settings=settings(method="gradient", attack="linf", bounds=False))
    assert found.run.failed_stages == ()
    assert found.samples[0].lambda_max.method == "Lanczos iteration"
    assert_allclose(values(found), net.lambda_max(DATA), rtol=1e-3)  # the iteration's tolerance


@pytest.mark.parametrize("method", ["gradient", "exact"])
def test_a_file_that_insists_on_its_batch(fixed, method):
    found = audit(fixed, DATA, settings=settings(method=method))
    assert found.run.failed_stages == ()
    assert_allclose(values(found), NET.lambda_max(DATA), rtol=TOLERANCES[method])


def test_the_flag_is_the_one_that_is_fed(path):
    found = audit(path, DATA, settings=replace(settings(method="gradient"), feed=("flag=false",)))
    assert_allclose(values(found), NET.lambda_max(DATA, flag=False), rtol=TOLERANCES["gradient"])


@pytest.mark.parametrize("method", ["gradient", "sketch"])
def test_samples_that_are_left_out_move_no_others(path, method):
    given = {k: v.copy() for k, v in DATA.items()}
    given["image"][2] = np.nan
    given["meta"][5] = np.nan  # its outputs are no numbers
    whole = audit(path, DATA, settings=settings(method=method))
    some = audit(path, given, settings=settings(method=method, samples=8))
    assert [s.index for s in some.skipped] == [2, 5]
    own = {s.index: s.lambda_max.value for s in whole.samples}
    assert_allclose(values(some), [own[s.index] for s in some.samples], rtol=0.2 if method == "sketch" else 1e-5)
    if method == "gradient":
        assert_allclose(values(some), NET.lambda_max(DATA)[[s.index for s in some.samples]], rtol=TOLERANCES[method])


@pytest.mark.parametrize("method", ["gradient", "sketch"])
def test_kept_results_are_those_of_the_held_values(path, tmp_path, method):
    first = audit(path, DATA, settings=settings(method=method), cache_dir=tmp_path)
    again = audit(path, DATA, settings=settings(method=method), cache_dir=tmp_path)
    assert again.run.times["cached_rows"] > 0
    assert values(again).tolist() == values(first).tolist()
    other = {**DATA, "meta": DATA["meta"][::-1].copy()}
    moved = audit(path, other, settings=settings(method=method), cache_dir=tmp_path)
    anew = audit(path, other, settings=settings(method=method))
    assert_allclose(values(moved), values(anew), rtol=1e-6)
    flag = replace(settings(method=method), feed=("flag=0",))
    assert_allclose(
        values(audit(path, DATA, settings=flag, cache_dir=tmp_path)), values(audit(path, DATA, settings=flag)), rtol=1e-6
    )


class TestPositions:
    @pytest.fixture
    def forward(self, path):
        file = load_model(path)
        held = {
            "meta": HeldValue(DATA["meta"], 0, True), "kind": HeldValue(DATA["kind"], 0, True),
            "state": HeldValue(DATA["state"], 1, True), "flag": HeldValue(np.array(True), None),
            "aside": HeldValue(np.zeros((1, 2), np.float32), 0), "unread": HeldValue(np.zeros((1, 1), np.float32), None),
        }  # fmt: skip
        copy = hold(file.proto, "image", held)
        assert [i.name for i in copy.graph.input] == ["image", POSITION]
        return OnnxForward(
            copy.SerializeToString(), input_name="image", output_name="z", shape=(1, 4, 4), dtype=np.dtype("float32"), batch=3,
            placed=True,
        )  # fmt: skip

    def test_rows_in_any_order(self, forward):
        of = np.array([7, 7, 2, 11, 0])
        assert_allclose(forward.outputs(DATA["image"][of], of)[:, :, 0], NET.parts(DATA)[0][of], atol=1e-5)  # float32

    @pytest.mark.parametrize("where", ["packs", "ahead"])
    @pytest.mark.parametrize("most", [1, 4, 16])
    def test_rows_that_are_made_elsewhere_keep_their_samples(self, forward, where, most):
        """By a graph of ours, as on a device: one batch after the other, or made while the model answers the one before."""
        setattr(forward, where, True)
        forward.finder.batch = most
        of = np.array([3, 9, 4])
        rng = np.random.default_rng(0)
        sample, scale = rng.integers(0, 3, 16), rng.uniform(-0.1, 0.1, 16)
        v = Rademacher(0).signs(0, 0, 16, 16)
        batches = [Rows(sample[i : i + most], v[i : i + most], scale[i : i + most]) for i in range(0, 16, most)]
        z = np.concatenate(list(forward.stream(DATA["image"][of], batches, of)))[:, :, 0]
        data = {k: a[of][sample] for k, a in DATA.items()}
        moved = data["image"].reshape(16, -1) + scale[:, None] * np.asarray(v)
        assert_allclose(z, NET.parts({**data, "image": moved})[0], atol=1e-5)  # float32

    def test_a_lost_position_is_an_error(self, forward):
        with pytest.raises(LostPosition, match="3 rows of a model with held inputs, but the positions of no samples"):
            forward.outputs(DATA["image"][:3])
        with pytest.raises(LostPosition, match="positions of 2 samples"):
            forward.outputs(DATA["image"][:3], np.arange(2))
        with pytest.raises(LostPosition):
            next(forward.stream(DATA["image"], iter(())))
        with pytest.raises(LostPosition):
            PlacedForward(forward, np.arange(2)).outputs(DATA["image"][:3])


def test_arrays_by_name_become_samples_with_what_is_held(path):
    samples = samples_of(load_model(path), DATA, None, settings())
    assert sorted(samples.held) == ["kind", "meta", "state"]
    left = samples.without({3: "left out"})
    assert all(len(v) == len(DATA["image"]) - 1 for v in left.held.values())
    assert_allclose(left.held["meta"], np.delete(DATA["meta"], 3, axis=0))


class TestTogether:
    BOTH = ("image", "meta")

    @pytest.mark.parametrize("method", ["gradient", "exact"])
    @pytest.mark.parametrize("batch", ["N", 5])
    def test_two_inputs_are_perturbed_as_one_vector(self, tmp_path, method, batch):
        file = NET.write(tmp_path / "two.onnx", batch=batch)
        found = audit(file, DATA, settings=settings(self.BOTH, method=method, budget=401, attack="l2"))
        assert (found.run.method, found.run.failed_stages) == (method, ())
        assert_allclose(values(found), NET.lambda_max(DATA, self.BOTH), rtol=TOLERANCES[method])
        # In units of each number's own spread, for an image and metadata have none in common.
        spread = np.concatenate([DATA[n].reshape(12, -1).std(axis=0, dtype=np.float64) for n in self.BOTH])
        own = np.array([s.lambda_max_standardised.value for s in found.samples])
        assert_allclose(own, NET.lambda_max(DATA, self.BOTH, scale=spread), rtol=TOLERANCES[method])
        assert found.step.per_coordinate

    def test_the_record_tells_which_numbers_are_which_input(self, path):
        found = audit(path, DATA, settings=settings(self.BOTH, method="gradient", flip=False, replay=0))
        assert [i.at for i in found.model.inputs if i.role == "perturbed"] == [
            "numbers 0 to 15 of one vector", "numbers 16 to 19 of one vector",
        ]  # fmt: skip
        assert found.data.shape == (20,)
        (model,) = (group for group in how_it_was_run(found) if group.title == "Model")
        facts = {f.name: f.value for f in model.facts}
        assert facts["Input"] == "image, meta as one vector: float32, N × 20"
        assert "inputs perturbed together (image, meta)" in found.model.rewritten
        assert Audit.from_json(found.to_json()) == found

    @pytest.mark.parametrize("opset", [7, 12, 13])
    def test_the_parts_are_the_inputs(self, opset):
        f = TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info(n, t, ["N", *s]) for n, t, s in (("a", f, (2, 3)), ("b", TensorProto.DOUBLE, (4,)))]
        nodes = [helper.make_node("Identity", [n], [f"{n}_out"]) for n in ("a", "b")]
        outputs = [onnx.ValueInfoProto(name=f"{i.name}_out", type=i.type) for i in inputs]
        model = helper.make_model(
            helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", opset)], ir_version=5
        )
        parts = [JoinedInput("a", (2, 3), np.dtype("float32")), JoinedInput("b", (4,), np.dtype("float64"))]
        rows = [np.random.default_rng(0).standard_normal((5, *p.shape)).astype(p.dtype) for p in parts]
        copy = join(model, parts)
        onnx.checker.check_model(copy)
        session, _ = open_session(copy.SerializeToString())
        whole = joined_rows(rows, parts)
        assert (whole.shape, whole.dtype) == ((5, 10), np.float64)
        for got, want in zip(run(session, ["a_out", "b_out"], {JOINT: whole}), rows, strict=True):
            np.testing.assert_array_equal(got, want)

    def test_samples_whose_other_values_are_no_numbers_are_skipped(self, path):
        given = {k: v.copy() for k, v in DATA.items()}
        given["meta"][4, 1] = np.nan
        found = audit(path, given, settings=settings(self.BOTH, method="gradient"))
        assert [(s.index, s.reason) for s in found.skipped] == [(4, "holds 1 NaN or infinite values in 'meta'")]
        assert_allclose(values(found), np.delete(NET.lambda_max(DATA, self.BOTH), 4), rtol=TOLERANCES["gradient"])

    @pytest.mark.parametrize(
        ("names", "left", "words"),
        [
            (("image", "meta"), "meta", ("hold no values of 'meta' float32 (N, 4), which is perturbed too",)),
            (("image", "state"), "", ("'state' float32 (2, N, 7) does not have its batch on the first axis",)),
            (("image", "image"), "", ("--input names 'image' twice",)),
            (("image", "kind"), "", ("'kind' takes whole numbers",)),
        ],
    )
    def test_what_cannot_be_perturbed_together(self, path, told, names, left, words):
        with pytest.raises(InputError, match=told(*words)):
            audit(path, {k: v for k, v in DATA.items() if k != left}, settings=settings(names))


@pytest.mark.parametrize("remembered", [True, False])  # directions that are made with the Jacobian, or by passes of their own
def test_what_follows_a_measurement_is_of_the_same_sample(path, monkeypatch, remembered):
    """Flips, the replay and attacks as of each sample alone, whose held inputs are constants then."""
    if not remembered:
        monkeypatch.setattr(exact, "_HELD_BYTES", 0)
    labelled = samples_of(load_model(path), DATA, NET.parts(DATA)[0].argmax(axis=1), settings())
    options = settings(method="gradient", attack="l2", attack_range=(-9, 9), temperature=1.0, bounds=False)
    whole = audit(path, labelled, settings=options)
    assert whole.calibration.accuracy == 1.0
    for k, together in enumerate(whole.samples[:5]):
        (alone,) = audit(path, labelled.without({i: "" for i in range(12) if i != k}), settings=options).samples
        assert alone.index == together.index == k
        assert_allclose(together.flip_radius.value, alone.flip_radius.value, rtol=1e-4)  # float32 directions
        curves = [[(p.epsilon, p.along, p.against) for p in s.kl_curve.points] for s in (together, alone)]
        assert_allclose(*curves, rtol=1e-3, atol=1e-7)
        assert_allclose(together.attack_distance.value, alone.attack_distance.value, rtol=0.05)  # random starts are shared out


@pytest.mark.parametrize("method", ["gradient", "sketch"])
def test_ties_are_those_of_the_sample_and_its_held_values(tmp_path, method):
    """Unit 0 is ReLU of the first coordinate, 0 at two samples; unit 1 adds the sample's own first metadatum, to 0 at another.

    The slopes of the other units are gated by the metadata.
    """
    rng = np.random.default_rng(3)
    W, V, U = rng.standard_normal((4, 6)), 3 * rng.standard_normal((3, 6)), rng.standard_normal((6, 3))
    W[:, 0], V[:, 0] = [1, 0, 0, 0], 0
    W[:, 1], V[:, 1] = [0, 1, 0, 0], [1, 0, 0]
    nodes = [("MatMul", ["x", "W"], ["xw"], {}), ("MatMul", ["m", "V"], ["mv"], {}), ("Add", ["xw", "mv"], ["a"], {}),
             ("Relu", ["a"], ["h"], {}), ("MatMul", ["h", "U"], ["z"], {})]  # fmt: skip
    weights = {k: v.astype(np.float32) for k, v in (("W", W), ("V", V), ("U", U))}
    inputs = [helper.make_tensor_value_info("m", TensorProto.FLOAT, ["N", 3])]
    models.save(models.model(nodes, weights, shape=(4,), out=(3,), inputs=inputs), tmp_path / "tied.onnx")
    x, m = (rng.standard_normal((10, d)).astype(np.float32) for d in (4, 3))
    x[[2, 7], 0] = 0.0
    x[5, 1] = -m[5, 0]
    found = audit(tmp_path / "tied.onnx", {"x": x, "m": m}, settings=Settings(input="x", method=method, providers=("cpu",)))
    assert found.run.failed_stages == ()
    assert found.gradient.ties.samples == 3

    def fisher(k, gate):
        a = x[k].astype(float) @ W + m[k] @ V
        J, z = (W * np.where(a == 0, gate, a > 0) @ U).T, np.maximum(a, 0) @ U
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        return J.T @ (np.diag(p) - np.outer(p, p)) @ J

    for s in found.samples:
        sides = [fisher(s.index, gate) for gate in (False, True)]
        best = [np.linalg.eigh(F)[1][:, -1] for F in sides]
        least, *_, most = sorted(v @ F @ v for v in best for F in sides)  # along either side's best direction, on either side
        if s.index not in (2, 5, 7):
            slack = 0.1 if method == "sketch" else 0.0
            assert s.lambda_max.low * (1 - slack) <= most <= s.lambda_max.high * (1 + slack)
        elif method == "gradient":
            assert s.lambda_max.kind == "kinked"
            # Within the margin of one-sided slopes, of which few of many sides are looked at.
            assert least / 1.2 <= s.lambda_max.low <= least * 1.01
            assert most / 1.01 <= s.lambda_max.high <= most * 1.2
        else:
            assert s.lambda_max.value is None


@pytest.mark.parametrize(("dtype", "off", "good"), [("float32", 1e-3, False), ("float16", 1e-3, True), ("float16", 1e-2, False)])
def test_a_copy_may_differ_by_the_rounding_of_the_files_type(saved, monkeypatch, dtype, off, good):
    rng = np.random.default_rng(0)
    W, U = rng.standard_normal((4, 3)).astype(dtype), rng.standard_normal((2, 3)).astype(dtype)
    nodes = [("MatMul", ["x", "W"], ["a"], {}), ("MatMul", ["meta", "U"], ["b"], {}), ("Add", ["a", "b"], ["s"], {}),
             ("Mul", ["s", "one"], ["z"], {})]  # fmt: skip
    meta = helper.make_tensor_value_info("meta", models.TYPES[dtype], ["N", 2])
    made = models.model(nodes, {"W": W, "U": U, "one": np.ones(1, dtype)}, shape=(4,), out=(3,), dtype=dtype, inputs=[meta])

    def other(model, *arguments):
        copy = hold(model, *arguments)
        one = next(t for t in copy.graph.initializer if t.name == "one")
        one.CopyFrom(numpy_helper.from_array(np.array([1 + off], dtype), "one"))
        return copy

    monkeypatch.setattr(inputs, "hold", other)
    data = {"x": rng.standard_normal((6, 4)).astype(dtype), "meta": rng.standard_normal((6, 2)).astype(dtype)}
    run_it = partial(audit, saved(made), data, settings=Settings(input="x", providers=("cpu",), replay=0, flip=False))
    if good:
        assert run_it().samples
    else:
        with pytest.raises(ModelError, match="does not give the file's own outputs"):
            run_it()
