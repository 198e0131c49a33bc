"""Files of whole numbers, audited at the value behind their input: against float64, in its own units, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper

from onnxfim import Audit, Settings, audit, audit_isolated, bounds, check
from onnxfim.auditing import entry
from onnxfim.auditing.api import load_samples
from onnxfim.auditing.run import opened
from onnxfim.errors import InputError
from tests.graph.test_inner import FRONTS, IMAGES
from tests.support.models import Linear
from tests.support.models import model as made_of
from tests.support.whole_nets import Bag, Levels, Masked, lambda_max, lstm

BAG, IMAGE = Bag.draw(), Levels.draw()
IDS = BAG.ids(5)
TRUTH = BAG.lambda_max(IDS)
#: float32 weights and gradients against float64.
RTOL = 2e-5


def audited(path, inputs, cpu, **settings):
    return audit(path, inputs, settings=cpu(**{"replay": 0, "flip": False, **settings}))


def values(found):
    return np.array([s.lambda_max.value for s in found.samples])


class TestTokens:
    @pytest.mark.parametrize("front", FRONTS)
    def test_lambda_max_of_the_embedding(self, saved, cpu, front):
        nodes, weights, value = FRONTS[front]
        made = BAG.onnx(nodes, weights=weights)
        table = BAG
        if "half" in front:
            table = replace(BAG, E=weights["H"].astype(np.float32))
        elif "int8" in front:
            table = replace(BAG, E=weights["Q"] * np.float32(0.03))
        elif front == "other ids":
            table = replace(BAG, E=BAG.E[::-1])
        found = audited(saved(made), IDS, cpu)
        assert_allclose(values(found), table.lambda_max(IDS), rtol=RTOL)
        assert found.run.method == "gradient"
        assert (found.model.at.tensor, found.model.input, found.model.input_dtype) == (value, value, "float32")

    @pytest.mark.parametrize(
        "options", [{"dtype": "int32"}, {"batch": 1}, {"batch": 4}, {"free": True}, {"opset": 11}], ids=lambda o: next(iter(o))
    )
    def test_every_form_of_the_input(self, saved, cpu, options):
        assert_allclose(values(audited(saved(BAG.onnx(**options)), IDS, cpu)), TRUTH, rtol=RTOL)

    def test_ids_that_lose_the_batch_get_it_back(self, saved, cpu):
        nodes = [("Reshape", ["x", "flat"], ["i"], {}), ("Gather", ["E", "i"], ["a"], {}), ("Reshape", ["a", "s"], ["e"], {})]
        made = BAG.onnx(nodes, weights={"flat": np.array([-1]), "s": np.array([-1, 5, 6])})
        found = audited(saved(made), IDS, cpu)
        assert_allclose(values(found), TRUTH, rtol=RTOL)
        assert found.model.at.front.endswith("by 'x', and Reshape (node 'Reshape_2')")

    def test_time_before_the_batch(self, saved, cpu):
        nodes = [("Transpose", ["x"], ["i"], {"perm": [1, 0]}), ("Gather", ["E", "i"], ["a"], {}), ("Tanh", ["a"], ["b"], {})]
        made = BAG.onnx([*nodes, ("Transpose", ["b"], ["e"], {"perm": [1, 0, 2]})])
        found = audited(saved(made), IDS, cpu)
        assert_allclose(values(found), lambda_max(lambda e: BAG.logits(np.tanh(e)), BAG.E[IDS]), rtol=RTOL)
        assert (found.model.at.tensor, found.data.shape) == ("a", (5, 6))

    @pytest.mark.parametrize(("method", "rtol"), [("auto", RTOL), ("exact", 3e-3)])  # 3e-3: of central differences in float32
    def test_an_lstm(self, saved, cpu, method, rtol):
        made, E, logits = lstm()
        ids = np.random.default_rng(3).integers(0, len(E), (3, 5))
        found = audited(saved(made), ids, cpu, method=method)
        assert_allclose(values(found), lambda_max(logits, E[ids]), rtol=rtol)
        assert found.run.method == ("gradient" if method == "auto" else "exact")

    def test_a_sketch_holds_the_truth(self, saved, cpu):
        found = audited(saved(BAG.onnx()), IDS, cpu, method="sketch", budget=401)
        inside = [s.lambda_max.low <= t <= s.lambda_max.high for s, t in zip(found.samples, TRUTH, strict=True)]
        assert sum(inside) >= len(TRUTH) - 1  # intervals of 95 %

    def test_samples_that_no_table_holds_are_left_out(self, saved, cpu):
        ids = IDS.copy()
        ids[2, 0] = 99
        found = audited(saved(BAG.onnx()), ids, cpu)
        assert [s.index for s in found.samples] == [0, 1, 3, 4]
        assert_allclose(values(found), np.delete(TRUTH, 2), rtol=RTOL)
        assert [s.index for s in found.skipped] == [2]
        assert "out of data bounds" in found.skipped[0].reason

    def test_no_sample_that_any_table_holds(self, saved, cpu, told):
        with pytest.raises(InputError, match=told("out of data bounds")):
            audited(saved(BAG.onnx()), IDS + 99, cpu)


class TestImages:
    @pytest.mark.parametrize("front", IMAGES)
    def test_lambda_max_of_the_levels(self, saved, cpu, front):
        nodes, dtype, weights, _, unit, limits = IMAGES[front]
        made = IMAGE.onnx(nodes, dtype=dtype, weights=weights)
        X = IMAGE.images(4, dtype=np.dtype(dtype) if np.dtype(dtype).itemsize == 1 else np.uint8).astype(dtype)
        levels = X.astype(np.float64)
        if front == "moved":
            levels = levels.transpose(0, 1, 3, 2)
        elif front in ("shifted", "DequantizeLinear"):
            levels = (levels - 128) * (0.5 if front == "DequantizeLinear" else 1)
        found = audited(saved(made), X, cpu)
        assert_allclose(values(found), lambda_max(IMAGE.logits, levels), rtol=RTOL)
        assert found.units == f"nats per squared {unit}"
        assert (found.data.input_min, found.data.input_max) == (levels.min(), levels.max())
        assert opened(saved(made), X, None, cpu(), None, None).subject.limits == limits

    def test_flips_and_attacks_stay_inside_the_levels(self, saved, cpu):
        X = IMAGE.images(4)
        X[:, :, :3] = 0  # at the end: there is no less
        labels = np.array([IMAGE.logits(x.astype(float)).argmax() for x in X])
        found = audit(saved(IMAGE.onnx()), X, labels, cpu(replay=0, attack="l2"))
        assert (found.attack.input_low, found.attack.input_high) == (0.0, 255.0)
        assert found.attack.units == "levels of the input"
        assert found.aggregates["flip_radius"].units == "levels of the input, L2"

    def test_images_are_pictured_and_have_no_positions(self, saved, cpu):
        found = audited(saved(IMAGE.onnx()), IMAGE.images(4), cpu, replay=3)
        assert len(found.thumbnails) == 4
        assert found.directions[0].direction is not None
        assert found.directions[0].positions == ()


class TestRecord:
    @pytest.fixture
    def found(self, saved, cpu):
        return audited(saved(BAG.onnx()), IDS, cpu, replay=3, flip=True)

    def test_units_are_those_of_the_embedding_everywhere(self, found):
        assert found.units == "nats per squared unit of the embedding"
        assert {name: a.units for name, a in found.aggregates.items()} == {
            "lambda_max": "nats per squared unit of the embedding",
            "lambda_max_standardised": "nats per squared standard deviation of each input",
            "lambda_max_calibrated": "nats per squared unit of the embedding, at the fitted temperature",
            "boundary_distance": "units of the embedding, L2",
            "flip_radius": "units of the embedding, L2",
            "logit_sensitivity": "logits per unit of the embedding",
            "trace": "nats per squared unit of the embedding",
        }

    def test_what_stands_before_it(self, found):
        at = found.model.at
        assert (at.input, at.input_dtype, at.input_shape) == ("x", "int64", ("N", 5))
        assert (at.kind, at.named) == ("tokens", False)
        assert at.front == "Gather (node 'Gather_0') of the table 'E' (20 rows) by 'x'"

    def test_it_comes_back_from_its_json(self, found):
        record = json.loads(found.to_json())
        assert record["model"]["at"]["tensor"] == "e"
        assert Audit.from_json(found.to_json()) == found

    def test_each_tokens_part_of_the_worst_direction(self, found):
        for picture in found.directions:
            assert [p.token for p in picture.positions] == IDS[picture.index].tolist()
            assert_allclose([p.share for p in picture.positions], 0.2, rtol=1e-4)  # a mean moves all alike
            assert picture.direction is None, "rows of a table are no image"
        assert found.thumbnails == ()

    def test_a_position_that_the_net_reads_more_has_more_of_it(self, saved, cpu):
        weights = np.array([4, 1, 1, 1, 0.0])
        made = BAG.onnx(
            [("Gather", ["E", "x"], ["a"], {}), ("Mul", ["a", "w"], ["e"], {})], weights={"w": np.float32(weights)[:, None]}
        )
        found = audited(saved(made), IDS, cpu, replay=1)
        assert_allclose([p.share for p in found.directions[0].positions], weights**2 / (weights**2).sum(), atol=1e-5)


class TestNamed:
    def test_a_value_behind_the_embedding(self, saved, cpu):
        found = audited(saved(BAG.onnx()), IDS, cpu, at="m")
        A, B = BAG.A.astype(float), BAG.B.astype(float)
        means = BAG.E[IDS].astype(float).mean(axis=1)
        assert_allclose(values(found), lambda_max(lambda m: B @ np.tanh(A @ m), means), rtol=RTOL)
        assert (found.units, found.model.at.named) == ("nats per squared unit of 'm'", True)

    def test_a_layer_of_a_file_of_floats(self, saved, cpu):
        linear = Linear.draw(3, 4)
        X = linear.samples(4)
        found = audited(saved(linear.onnx(shape=(2, 2))), X.reshape(-1, 2, 2), cpu, at="flat")
        assert_allclose(values(found), linear.lambda_max(X), rtol=RTOL)
        assert (found.model.at.input_dtype, found.data.shape) == ("float32", (4,))

    def test_the_input_itself_is_no_inner_value(self, saved, cpu):
        linear = Linear.draw(3, 4)
        assert audited(saved(linear.onnx()), linear.samples(2), cpu, at="x").model.at is None

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("mm", ("--at: no node writes a value called 'mm'", "Did you mean 'm'")),
            ("z", ("'z' is the output itself", "--at")),
            ("i", ("'i' is of int64, expected a float value", "--at")),
            ("flat", ("'flat' has shape (5, 6) for 1 and (10, 6) for 2 samples", "axis of the batch", "--at")),
        ],
    )
    def test_what_cannot_be_audited_from(self, saved, cpu, told, name, words):
        nodes = [("Reshape", ["x", "s"], ["i"], {}), ("Gather", ["E", "i"], ["flat"], {}), ("Reshape", ["flat", "s3"], ["e"], {})]
        made = BAG.onnx(nodes, weights={"s": np.array([-1]), "s3": np.array([-1, 5, 6])})
        with pytest.raises(InputError, match=told(*words)):
            audited(saved(made), IDS, cpu, at=name)

    def test_whole_numbers_without_any_float_behind_them(self, saved, cpu, told):
        made = IMAGE.onnx(
            [("Greater", ["x", "n"], ["b"], {}), ("Where", ["b", "half", "one"], ["f"], {})], weights={"n": np.uint8(99)}
        )
        with pytest.raises(InputError, match=told("'x' takes uint8, which has no small change", "--at 'f'")):
            audited(saved(made), IMAGE.images(2), cpu)


class TestTrust:
    def test_a_copy_that_gives_other_outputs_is_not_used(self, saved, cpu, monkeypatch, told):
        original = entry.part_behind

        def other(*arguments):
            copy = original(*arguments)
            next(n for n in copy.graph.node if n.op_type == "Tanh").op_type = "Sigmoid"
            return copy

        monkeypatch.setattr(entry, "part_behind", other)
        with pytest.raises(InputError, match=told("the file cut at 'e' gives outputs that differ by", "--at")):
            audited(saved(BAG.onnx()), IDS, cpu)

    def test_values_of_several_shapes_are_refused(self, saved, cpu, told):
        nodes = [("NonZero", ["x"], ["n"], {}), ("Transpose", ["n"], ["p"], {}), ("GatherND", ["x", "p"], ["i"], {})]
        nodes += [("Gather", ["E", "i"], ["flat"], {}), ("Unsqueeze", ["flat", "k"], ["e"], {})]
        made = BAG.onnx(nodes, weights={"k": np.array([0])})
        with pytest.raises(InputError, match=told("'e' has shape", "axis of the batch", "--at")):
            audited(saved(made), IDS, cpu)

    def test_samples_of_another_shape(self, saved, cpu, told):
        with pytest.raises(InputError, match=told("samples have shape (4,), but the model takes (5,)")):
            audited(saved(BAG.onnx()), IDS[:, :4], cpu)


class TestHeld:
    NET = Masked.draw()
    IDS, MASKS = NET.data(6)

    def test_a_mask_of_each_samples_own(self, saved, cpu):
        found = audited(saved(self.NET.onnx()), {"x": self.IDS, "mask": self.MASKS}, cpu)
        assert_allclose(values(found), self.NET.lambda_max(self.IDS, self.MASKS), rtol=RTOL)
        assert (found.run.method, found.model.at.tensor) == ("gradient", "e")
        assert found.model.rewritten == "inputs held (mask)"

    def test_a_mask_for_all(self, saved, cpu):
        found = audited(saved(self.NET.onnx()), self.IDS, cpu, feed=("mask=ones",))
        assert_allclose(values(found), self.NET.lambda_max(self.IDS, np.ones_like(self.MASKS)), rtol=RTOL)
        assert found.model.rewritten == "inputs held (mask)", "the ids give the mask its number of rows: that is not held"

    @pytest.mark.parametrize(("method", "rtol"), [("auto", RTOL), ("exact", 5e-3)])  # 5e-3: of central differences in float32
    def test_probabilities_of_each_token(self, saved, cpu, method, rtol):
        found = audited(saved(self.NET.onnx(each=True)), {"x": self.IDS, "mask": self.MASKS}, cpu, method=method)
        assert_allclose(values(found), self.NET.lambda_max(self.IDS, self.MASKS, each=True), rtol=rtol)
        assert found.run.method == ("gradient" if method == "auto" else "exact")
        assert (found.model.positions, found.model.num_outputs) == (4, 3)

    def test_operators_fused_by_the_runtime(self, saved, cpu):
        found = audited(saved(self.NET.fused()), {"x": self.IDS.astype(np.int32), "mask": self.MASKS.astype(np.int32)}, cpu)
        assert_allclose(values(found), self.NET.lambda_max(self.IDS, self.MASKS), rtol=RTOL)
        assert found.run.method == "gradient"
        assert "of the table 'E' (15 rows) by 'x'" in found.model.at.front

    def test_no_mask(self, saved, cpu, told):
        with pytest.raises(InputError, match=told("'mask' int64 (N, 4)", "--feed mask=VALUE")):
            audited(saved(self.NET.onnx()), self.IDS, cpu)

    def test_a_mask_made_of_the_ids_is_held_at_each_samples_own(self, saved, cpu):
        ids = self.IDS * self.MASKS
        found = audited(saved(self.NET.onnx(own_mask=True)), ids, cpu, replay=3)
        assert_allclose(values(found), self.NET.lambda_max(ids, self.MASKS), rtol=RTOL)
        assert found.model.rewritten == "what the nodes behind 'e' read of 'x' held at each sample's own"
        for picture in found.directions:
            shares = np.array([p.share for p in picture.positions])
            assert_array_equal(shares[ids[picture.index] == 0], 0), "what is masked moves nothing"

    @pytest.mark.parametrize("own_mask", [True, False])
    def test_samples_that_fail_leave_the_others_their_own_values(self, saved, cpu, own_mask):
        ids = self.IDS * self.MASKS
        truth = self.NET.lambda_max(ids, self.MASKS)
        ids[1, 0] = 99
        inputs = ids if own_mask else {"x": ids, "mask": self.MASKS}
        found = audited(saved(self.NET.onnx(own_mask=own_mask)), inputs, cpu)
        assert [s.index for s in found.samples] == [0, 2, 3, 4, 5]
        assert_allclose(values(found), np.delete(truth, 1), rtol=RTOL)

    def test_differences_hold_them_too(self, saved, cpu):
        ids = self.IDS * self.MASKS
        found = audited(saved(self.NET.onnx(own_mask=True)), ids, cpu, method="exact")
        assert_allclose(values(found), self.NET.lambda_max(ids, self.MASKS), rtol=5e-3)  # of central differences in float32

    def test_another_process_and_the_cache(self, saved, cpu, tmp_path):
        path, inputs = saved(self.NET.onnx()), {"x": self.IDS, "mask": self.MASKS}
        settings = cpu(replay=0, flip=False)
        here = audit(path, inputs, settings=settings, cache_dir=tmp_path / "kept")
        again = audit(path, {**inputs, "mask": np.ones_like(self.MASKS)}, settings=settings, cache_dir=tmp_path / "kept")
        there = audit_isolated(path, inputs, settings=settings)
        assert_array_equal(values(there), values(here))
        assert_allclose(values(again), self.NET.lambda_max(self.IDS, np.ones_like(self.MASKS)), rtol=RTOL)

    def test_a_layer_beside_which_the_input_goes_on(self, saved, cpu):
        linear = Linear.draw(3, 4)
        nodes = [("Tanh", ["x"], ["t"], {}), ("Add", ["t", "x"], ["s"], {}), ("Gemm", ["s", "W", "b"], ["z"], {"transB": 1})]
        made = made_of(nodes, {"W": linear.W.astype(np.float32), "b": linear.b.astype(np.float32)}, shape=(4,), out=(3,))
        X = linear.samples(4)
        found = audited(saved(made), X, cpu, at="t")
        truth = [lambda_max(lambda t, x=x: (t + x) @ linear.W.T + linear.b, np.tanh(x.astype(float))[None])[0] for x in X]
        assert_allclose(values(found), truth, rtol=RTOL)


class TestWrittenOut:
    """Operators that take whole numbers themselves get a float before them."""

    @pytest.mark.parametrize("opset", [11, 13, 17])
    def test_an_embed_layer_normalization(self, saved, cpu, opset):
        rng = np.random.default_rng(0)
        P, scale, shift = (rng.standard_normal(size).astype(np.float32) for size in ((9, 6), 6, 6))
        nodes = [("EmbedLayerNormalization", ["x", "", "E", "P", "", "scale", "shift"], ["e", "index"], {"epsilon": 1e-5})]
        made = BAG.onnx(nodes, dtype="int32", weights={"P": P, "scale": scale, "shift": shift}, opset=opset)
        made.graph.node[0].domain = "com.microsoft"
        made.opset_import.append(helper.make_opsetid("com.microsoft", 1))

        def logits(e):
            centred = e + P[:5] - (e + P[:5]).mean(axis=1, keepdims=True)
            return BAG.logits(centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * scale + shift)

        found = audited(saved(made), IDS.astype(np.int32), cpu)
        assert_allclose(values(found), lambda_max(logits, BAG.E[IDS]), rtol=RTOL)
        assert "of the table 'E' (20 rows) by 'x'" in found.model.at.front

    def test_an_embedding_beside_it_that_is_read_for_its_shape(self, saved, cpu):
        made = Masked.draw().fused(positions=True)
        ids, masks = Masked.draw().data(6)
        found = audited(saved(made), {"x": ids.astype(np.int32), "mask": masks.astype(np.int32)}, cpu)
        assert_allclose(values(found), Masked.draw().lambda_max(ids, masks), rtol=RTOL)
        assert found.model.at.tensor != "seen"

    def test_integer_arithmetic_on_the_levels(self, saved, cpu):
        W = np.clip(np.rint(IMAGE.A.T / 0.01), -127, 127).astype(np.int8)
        nodes = [
            ("Flatten", ["x"], ["flat"], {"axis": 1}), ("MatMulInteger", ["flat", "W", "zero", "none"], ["sum"], {}),
            ("Cast", ["sum"], ["s"], {"to": TensorProto.FLOAT}), ("Mul", ["s", "scale"], ["h"], {}), ("Tanh", ["h"], ["t"], {}),
            ("Gemm", ["t", "B"], ["z"], {"transB": 1}),
        ]  # fmt: skip
        weights = {"W": W, "zero": np.uint8(128), "none": np.int8(0), "scale": np.float32(1e-4), "B": IMAGE.B}
        made = made_of(nodes, weights, shape=(1, 6, 6), out=(3,))
        made.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
        X = IMAGE.images(4)
        truth = lambda_max(lambda v: IMAGE.B @ np.tanh(W.T.astype(float) @ v.ravel() * 1e-4), X - 128.0)
        found = audited(saved(made), X, cpu, budget=2001)
        assert found.model.at.kind == "levels"
        assert found.units == "nats per squared unit of the dequantised input"
        assert_allclose(values(found), truth, rtol=0.2)  # a sketch of 2,001 passes of a file that rounds

    def test_a_classical_model(self, saved, cpu):
        rng = np.random.default_rng(1)
        W, b = rng.standard_normal((3, 4)), rng.standard_normal(3)
        options = {
            "coefficients": W.ravel().tolist(),
            "intercepts": b.tolist(),
            "classlabels_ints": [0, 1, 2],
            "post_transform": "NONE",
        }
        made = made_of([("LinearClassifier", ["x"], ["label", "z"], options)], {}, shape=(4,), out=(3,))
        made.graph.node[0].domain = "ai.onnx.ml"
        made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
        made.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
        X = rng.integers(-3, 3, (4, 4))
        truth = lambda_max(lambda v: W.astype(np.float32).astype(float) @ v + b, X)
        assert_allclose(values(audited(saved(made), X, cpu)), truth, rtol=5e-3)  # by differences where there is no rule


def test_audits_at_other_values_do_not_compare(saved, cpu, told):
    path = saved(BAG.onnx())
    one, other = audited(path, IDS, cpu), audited(path, IDS, cpu, at="h")
    with pytest.raises(InputError, match=told("samples of shape")):
        check(one, baseline=other)
    assert check(one, baseline=one).comparison.verdict == "pass"


def test_what_is_kept_is_kept_by_the_value(saved, cpu, tmp_path):
    path, kept = saved(BAG.onnx()), tmp_path / "kept"

    def run(at):
        return audit(path, IDS, settings=cpu(replay=0, flip=False, at=at), cache_dir=kept)

    first, other, again = run(None), run("m"), run(None)
    assert_array_equal(values(again), values(first))
    assert not np.allclose(values(other), values(first))
    assert again.run.times["cached_rows"] > 0


def test_another_process_gives_the_same(saved, cpu):
    path = saved(BAG.onnx())
    there = audit_isolated(path, IDS, settings=cpu(replay=0, flip=False))
    here = audited(path, IDS, cpu)
    assert_array_equal(values(there), values(here))
    assert there.model.at == here.model.at


def test_the_bound_holds_from_the_value_on(saved, cpu):
    path = saved(IMAGE.onnx())
    alone, found = bounds(path).bound, audited(path, IMAGE.images(4), cpu)
    assert alone.available
    assert found.bound.log10_lipschitz == pytest.approx(alone.log10_lipschitz)
    assert values(found).max() <= 10**alone.log10_fisher
    later = bounds(path, at="d").bound
    assert later.log10_lipschitz == pytest.approx(alone.log10_lipschitz + np.log10(127.5), abs=1e-6)  # d = x / 127.5


def test_samples_are_read_as_whole_numbers(saved, npz):
    path = saved(BAG.onnx(dtype="int32"))
    samples = load_samples(npz(IDS), path)
    assert samples.inputs.dtype == np.int32
    with pytest.raises(InputError, match="holds float64 values"):
        load_samples(npz(IDS + 0.5), path)


def test_a_value_inside_a_function(saved, cpu):
    made = BAG.onnx()
    body = [helper.make_node("Gather", ["t", "i"], ["o"])]
    made.functions.append(helper.make_function("own", "Embed", ["i", "t"], ["o"], body, made.opset_import))
    made.opset_import.append(helper.make_opsetid("own", 1))
    made.graph.node[0].CopyFrom(helper.make_node("Embed", ["x", "E"], ["e"], domain="own", name="embed"))
    assert_allclose(values(audited(saved(made), IDS, cpu)), TRUTH, rtol=RTOL)


def test_weights_beside_the_file(tmp_path, cpu):
    path = tmp_path / "model.onnx"
    made = BAG.onnx()
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save_model(made, path, save_as_external_data=True, location="weights", size_threshold=0)
    assert_allclose(values(audited(path, IDS, cpu)), TRUTH, rtol=RTOL)


def test_settings_name_it():
    assert Settings(at="e").at == "e"
