"""Outputs that are more than one tensor of scores, end to end, and their values against dense float64 twins."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper

from onnxfim.auditing.run import audit
from onnxfim.errors import InputError
from tests.support import headed, models
from tests.support.headed import H, X, info, net, top, weights

EXACT = {"method": "exact"}  # differences along all coordinates: of outputs with positions too
SAME = 2e-3  # float32 differences against float64
ALIKE = 1e-4  # float32 derivatives against float64


@pytest.fixture
def audited(saved, cpu):
    return lambda made, inputs=X, **options: audit(saved(made), inputs, settings=cpu(replay=0, **options))


def values(found):
    return np.array([s.lambda_max.value for s in found.samples])


def ids(found, level):
    return [f.id for f in found.findings if f.level == level]


class TestLookingThrough:
    @pytest.mark.parametrize("before", ["", "Identity", "Cast"])
    @pytest.mark.parametrize("labels", [("cat", "dog", "eel"), (0, 1, 2), (7, 3, 5)])
    def test_a_zipmap(self, audited, labels, before):
        made = headed.zipped(labels, before=before)
        truth = top(lambda x: headed.softmax_fisher(headed.letter(0, 3), x), X)
        for asked in (None, "probabilities"):
            found = audited(made, output=asked)
            assert_allclose(values(found), truth, rtol=ALIKE)
            assert (found.model.output, found.model.output_kind) == ("probabilities", "probabilities")
            assert "the tensor before ZipMap" in found.model.rewritten
            assert found.data.class_names == (None if labels == (0, 1, 2) else tuple(map(str, labels)))
            assert "other-heads" not in ids(found, "warning")

    def test_labels_are_no_scores(self, audited, told):
        with pytest.raises(InputError, match=told("'label' holds int64 of shape (N)", "Name 'probabilities'")):
            audited(headed.zipped(), output="label")

    @pytest.mark.parametrize("axis", [1, -1])
    def test_one_output_for_each_class(self, audited, axis):
        nodes = [
            ("MatMul", ["h", "W"], ["l"], {}), ("Softmax", ["l"], ["p"], {"axis": 1}),
            ("ArgMax", ["p"], ["label"], {"axis": 1, "keepdims": 0}), ("Split", ["p"], ["c0", "c1", "c2"], {"axis": axis}),
            *((("Reshape", [f"c{k}", "one"], [f"i{k}"], {})) for k in range(3)),
        ]  # fmt: skip
        shape = ("N",) if axis == 1 else ("N", 1)
        outputs = [info("label", "N", kind=TensorProto.INT64), *(info(f"i{k}", *shape) for k in range(3))]
        made = net(nodes, {"W": weights(H, 3), "one": np.array([-1] if axis == 1 else [-1, 1])}, outputs)
        found = audited(made)
        assert_allclose(values(found), top(lambda x: headed.softmax_fisher(headed.letter(0, 3), x), X), rtol=ALIKE)
        assert found.model.output == "i0, i1, i2"

    @pytest.mark.parametrize("asked", ["pair[0]", "pair[1]"])
    def test_a_sequence_of_tensors(self, audited, asked):
        tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        nodes = [
            ("MatMul", ["h", "W0"], ["a0"], {}), ("MatMul", ["h", "W1"], ["a1"], {}), ("SequenceConstruct", ["a0", "a1"], ["pair"], {})
        ]  # fmt: skip
        sequence = helper.make_value_info("pair", helper.make_sequence_type_proto(tensor))
        made = net(nodes, {"W0": weights(H, 3), "W1": weights(H, 4, seed=1)}, [sequence])
        k = int(asked[5])
        truth = top(lambda x: headed.softmax_fisher(headed.letter(k, 3 + k), x), X)
        assert_allclose(values(audited(made, output=asked)), truth, rtol=ALIKE)

    def test_what_cannot_be_looked_through_is_told_in_a_line(self, audited, told):
        body = helper.make_graph(
            [helper.make_node("Softmax", ["in"], ["out"])], "body", [info("in", "N", 3)], [info("out", "N", 3)]
        )
        tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        nodes = [
            ("MatMul", ["h", "W"], ["l"], {}), ("SequenceConstruct", ["l"], ["s"], {}), ("SequenceMap", ["s"], ["q"], {"body": body})
        ]  # fmt: skip
        made = net(nodes, {"W": weights(H, 3)}, [helper.make_value_info("q", helper.make_sequence_type_proto(tensor))])
        with pytest.raises(InputError, match=told("output 'q' cannot be read", "SequenceMap")):
            audited(made, output="q")
        with pytest.raises(InputError, match=told("no output is a floating-point tensor", "SequenceMap")):
            audited(made)

    @pytest.mark.parametrize("batch", ["N", 1])
    def test_a_dropped_axis(self, audited, batch):
        nodes = [("MatMul", ["h", "W"], ["l"], {}), ("Sigmoid", ["l"], ["p"], {}), ("Squeeze", ["p", "one"], ["y"], {})]
        made = net(nodes, {"W": weights(H, 1), "one": np.array([1])}, [info("y", batch)], batch=batch)
        truth = top(lambda x: headed.sigmoid_fisher(lambda v: headed.letter(0, 1)(v)[:, None], x), X)
        found = audited(made)
        assert_allclose(values(found), truth, rtol=SAME)
        assert found.model.output_kind == "sigmoid"

    def test_a_dropped_batch(self, audited):
        nodes = [("MatMul", ["h", "W"], ["l"], {}), ("Squeeze", ["l", "nought"], ["y"], {})]
        made = net(nodes, {"W": weights(H, 3), "nought": np.array([0])}, [info("y", 3)], batch=1)
        assert_allclose(values(audited(made)), top(lambda x: headed.softmax_fisher(headed.letter(0, 3), x), X), rtol=SAME)


class TestSeveral:
    @pytest.mark.parametrize("first", ["logits", "probabilities"])
    def test_logits_and_their_softmax_are_one(self, audited, first):
        outputs = [info("z", "N", 4), info("p", "N", 4)]
        made = net(
            [("MatMul", ["h", "W"], ["z"], {}), ("Softmax", ["z"], ["p"], {"axis": 1})], {"W": weights(H, 4)},
            outputs if first == "logits" else outputs[::-1],
        )  # fmt: skip
        for asked in (None, "all"):
            found = audited(made, output=asked)
            assert found.model.output == "z"
            assert {o.name: (o.role, o.of) for o in found.model.outputs} == {"z": ("head", None), "p": ("same", "z")}
            assert "other-heads" not in ids(found, "warning")
        assert audited(made, output="p").model.output_kind == "probabilities"

    def test_what_follows_from_a_head_is_none(self, audited):
        nodes = [
            ("MatMul", ["h", "W"], ["z"], {}), ("Softmax", ["z"], ["p"], {"axis": 1}), ("ReduceMax", ["p"], ["best"], {"axes": [1]}),
            ("ArgMax", ["p"], ["label"], {"axis": 1, "keepdims": 0}), ("Identity", ["h"], ["hidden"], {}),
        ]  # fmt: skip
        outputs = [
            info("best", "N", 1), info("label", "N", kind=TensorProto.INT64), info("hidden", "N", H), info("p", "N", 4), info("z", "N", 4)
        ]  # fmt: skip
        found = audited(net(nodes, {"W": weights(H, 4)}, outputs))
        assert found.model.output == "z"
        told = {o.name: o.role for o in found.model.outputs}
        assert told == {"best": "derived", "label": "labels", "hidden": "features", "p": "same", "z": "head"}
        assert "other-heads" not in ids(found, "warning")

    def test_an_auxiliary_head_comes_second_and_the_other_is_told(self, audited):
        nodes = [("MatMul", ["h", "W0"], ["aux_logits"], {}), ("MatMul", ["h", "W1"], ["main"], {})]
        made = net(nodes, {"W0": weights(H, 3), "W1": weights(H, 3, seed=1)}, [info("aux_logits", "N", 3), info("main", "N", 3)])
        found = audited(made)
        assert found.model.output == "main"
        message = next(f.message for f in found.findings if f.id == "other-heads")
        assert "'aux_logits' (logits, N×3)" in message
        assert "--output all" in message
        named = audited(made, output="aux_logits")
        assert "other-heads" not in ids(named, "warning")
        assert_allclose(values(named), top(lambda x: headed.softmax_fisher(headed.letter(0, 3), x), X), rtol=ALIKE)

    @pytest.mark.parametrize("soft", [False, True])
    @pytest.mark.parametrize("classes", [(36,) * 5, (3, 5, 2), (4, 4)])
    def test_independent_heads_add_up(self, audited, classes, soft):
        found = audited(headed.captcha(classes, soft=soft), X[:4], output="all", **EXACT)

        def fisher(x):
            return sum(headed.softmax_fisher(headed.letter(k, n), x) for k, n in enumerate(classes))

        assert_allclose(values(found), top(fisher, X[:4]), rtol=SAME)
        assert (found.model.num_outputs, found.model.positions) == (max(classes), len(classes))
        assert found.model.output == ", ".join(f"letter{k}" for k in range(len(classes)))
        assert "heads side by side as positions" in found.model.rewritten

    @pytest.mark.parametrize("batch", [1, 4])
    def test_heads_of_a_fixed_batch(self, audited, batch):
        found = audited(headed.captcha((3, 5), batch=batch), X[:4], output="all", **EXACT)
        fishers = lambda x: sum(headed.softmax_fisher(headed.letter(k, n), x) for k, n in enumerate((3, 5)))  # noqa: E731
        assert_allclose(values(found), top(fishers, X[:4]), rtol=SAME)

    @pytest.mark.parametrize(
        ("kind", "dtype", "rtol"), [(TensorProto.DOUBLE, np.float64, 1e-6), (TensorProto.FLOAT16, np.float16, 0.1)]
    )
    @pytest.mark.parametrize("soft", [False, True])
    def test_in_other_types(
        self, audited, kind, dtype, rtol, soft
    ):  # rtol: float64 differences; those of float16, which are coarse
        found = audited(headed.captcha((3, 5), kind=kind, soft=soft), X[:4].astype(dtype), output="all", **EXACT)
        fisher = lambda x: sum(headed.softmax_fisher(headed.letter(k, n), x) for k, n in enumerate((3, 5)))  # noqa: E731
        assert_allclose(values(found), top(fisher, X[:4]), rtol=rtol)

    def test_log_probabilities_and_logits_together(self, audited):
        nodes = [
            ("MatMul", ["h", "W0"], ["l"], {}),
            ("LogSoftmax", ["l"], ["logp"], {"axis": 1}),
            ("MatMul", ["h", "W1"], ["b"], {}),
        ]
        made = net(nodes, {"W0": weights(H, 3), "W1": weights(H, 5, seed=1)}, [info("logp", "N", 3), info("b", "N", 5)])
        fisher = lambda x: sum(headed.softmax_fisher(headed.letter(k, n), x) for k, n in enumerate((3, 5)))  # noqa: E731
        assert_allclose(values(audited(made, X[:4], output="all", **EXACT)), top(fisher, X[:4]), rtol=SAME)

    def test_heads_of_maps_of_classes(self, audited):  # (N, K, H, W) each
        nodes = [
            ("MatMul", ["h", "W0"], ["a0"], {}), ("Reshape", ["a0", "s0"], ["m0"], {}), ("Softmax", ["m0"], ["seg"], {"axis": 1}),
            ("MatMul", ["h", "W1"], ["cls"], {}),
        ]  # fmt: skip
        made = net(nodes, {"W0": weights(H, 12), "W1": weights(H, 5, seed=1), "s0": np.array([-1, 3, 2, 2])},
                   [info("seg", "N", 3, 2, 2), info("cls", "N", 5)])  # fmt: skip

        def fisher(x):
            maps = headed.softmax_fisher(lambda v: headed.letter(0, 12)(v).reshape(3, 4).T, x)
            return maps + headed.softmax_fisher(headed.letter(1, 5), x)

        found = audited(made, X[:4], output="all", **EXACT)
        assert (found.model.num_outputs, found.model.positions) == (5, 5)
        assert_allclose(values(found), top(fisher, X[:4]), rtol=SAME)

    def test_an_axis_is_of_one_output(self, audited, told):
        with pytest.raises(InputError, match=told("--class-axis and --batch-axis are of one output", "2 are asked for")):
            audited(headed.captcha((3, 5)), output="all", class_axis=1)

    def test_some_of_them(self, audited):
        found = audited(headed.captcha((3, 5, 2)), X[:4], output="letter2,letter0", **EXACT)
        fisher = lambda x: headed.softmax_fisher(headed.letter(0, 3), x) + headed.softmax_fisher(headed.letter(2, 2), x)  # noqa: E731
        assert_allclose(values(found), top(fisher, X[:4]), rtol=SAME)
        assert found.model.output == "letter2, letter0"

    def test_yes_or_no_beside_a_choice(self, audited):
        nodes = [("MatMul", ["h", "W0"], ["class"], {}), ("MatMul", ["h", "W1"], ["l"], {}), ("Sigmoid", ["l"], ["tags"], {})]
        made = net(nodes, {"W0": weights(H, 3), "W1": weights(H, 4, seed=1)}, [info("class", "N", 3), info("tags", "N", 4)])

        def fisher(x):
            tags = headed.sigmoid_fisher(lambda v: headed.letter(1, 4)(v)[:, None], x)
            return headed.softmax_fisher(headed.letter(0, 3), x) + tags

        found = audited(made, X[:4], output="all", **EXACT)
        assert_allclose(values(found), top(fisher, X[:4]), rtol=SAME)
        assert found.model.positions == 5

    def test_yes_or_no_alone_are_joined(self, audited):
        nodes = [
            ("MatMul", ["h", f"W{k}"], [f"l{k}"], {}) for k in (0, 1)
        ] + [("Sigmoid", [f"l{k}"], [f"s{k}"], {}) for k in (0, 1)]  # fmt: skip
        made = net(nodes, {"W0": weights(H, 2), "W1": weights(H, 1, seed=1)}, [info("s0", "N", 2), info("s1", "N", 1)])

        def fisher(x):
            return sum(headed.sigmoid_fisher(lambda v, k=k, n=n: headed.letter(k, n)(v)[:, None], x) for k, n in ((0, 2), (1, 1)))

        found = audited(made, output="all")
        assert (found.run.method, found.model.output_kind) == ("gradient", "sigmoid")
        assert_allclose(values(found), top(fisher, X), rtol=ALIKE)

    def test_means_beside_classes_are_no_one_distribution(self, audited, told):
        nodes = [("MatMul", ["h", "W0"], ["age"], {}), ("MatMul", ["h", "W1"], ["class"], {})]
        made = net(nodes, {"W0": weights(H, 2), "W1": weights(H, 3, seed=1)}, [info("age", "N", 2), info("class", "N", 3)])
        both = audited(made, output="all", output_kind="gaussian")
        assert_allclose(
            values(both),
            top(lambda x: sum((J := headed.jacobian(headed.letter(k, n), x)).T @ J for k, n in ((0, 2), (1, 3))), X),
            rtol=ALIKE,
        )

    def test_a_wrong_name_in_a_list(self, audited, told):
        with pytest.raises(InputError, match=told("no output is called 'lettr1'", "Did you mean 'letter1'?")):
            audited(headed.captcha((3, 5)), output="letter0,lettr1")

    def test_an_output_that_is_called_all(self, audited):
        made = net([("MatMul", ["h", "W0"], ["all"], {}), ("MatMul", ["h", "W1"], ["b"], {})],
                   {"W0": weights(H, 3), "W1": weights(H, 3, seed=1)}, [info("b", "N", 3), info("all", "N", 3)])  # fmt: skip
        assert audited(made, output="all").model.output == "all"


class TestDetectors:
    @pytest.mark.parametrize("layout", ["channels", "last", "apart", "two scales", "decoded", "suppressed"])
    def test_none_is_read_as_one_choice(self, audited, told, layout):
        with pytest.raises(InputError, match=told("as a detector's", "--output-kind detection")):
            audited(headed.detector(layout))

    def test_boxes_by_name_are_no_classes(self, audited, told):
        with pytest.raises(InputError, match=told("output 'boxes' holds boxes", "--output-kind detection")):
            audited(headed.detector("apart"), output="boxes")
        with pytest.raises(InputError, match=told("output 'boxes' holds boxes, expected scores")):
            audited(headed.detector("apart"), output="boxes", output_kind="detection")
        assert audited(headed.detector("apart"), output="scores", **EXACT).model.output_kind == "sigmoid"

    @pytest.mark.parametrize("threshold", [0.25, 0.9])
    @pytest.mark.parametrize("opset", [9, 17])
    @pytest.mark.parametrize("layout", ["channels", "last", "apart", "two scales"])
    def test_its_scores_are_audited(self, audited, layout, threshold, opset):
        found = audited(headed.detector(layout, opset=opset), X[:4], output_kind="detection", score_threshold=threshold, **EXACT)
        truth = top(lambda x: headed.sigmoid_fisher(headed.box_scores, x, threshold), X[:4])
        assert_allclose(values(found), truth * (2 if layout == "two scales" else 1), rtol=SAME, atol=1e-9)
        assert (found.model.num_outputs, found.model.output_kind) == (headed.SCORES, "detection")
        assert all(s.prediction is None for s in found.samples)

    def test_scores_through_joins_and_cuts_are_read_at_their_logits(self, audited):
        for layout in ("decoded", "two scales"):
            found = audited(headed.detector(layout), X[:4], output_kind="detection", **EXACT)
            truth = 2 * top(lambda x: headed.sigmoid_fisher(headed.box_scores, x, 0.25), X[:4])
            assert_allclose(values(found), truth, rtol=SAME)
            assert "differentiated at the logits" in found.model.read_from

    def test_scores_whose_sizes_are_computed_are_read_at_their_logits(self, audited, told):
        found = audited(headed.detector("traced"), X[:4], output_kind="detection")
        assert_allclose(values(found), top(lambda x: headed.sigmoid_fisher(headed.box_scores, x, 0.25), X[:4]), rtol=ALIKE)
        assert (found.run.method, found.bound.available) == ("gradient", True)
        with pytest.raises(InputError, match=told("(entries 0 to 3)", "(entries 4 to 6)", "--output-kind detection")):
            audited(headed.detector("traced"))

    def test_scores_before_suppression(self, audited):
        found = audited(headed.detector("suppressed"), X[:4], output_kind="detection", **EXACT)
        assert_allclose(values(found), top(lambda x: headed.sigmoid_fisher(headed.box_scores, x, 0.25), X[:4]), rtol=SAME)
        assert "the scores that NonMaxSuppression" in found.model.rewritten

    def test_the_threshold_chooses(self):  # the test above would pass with any selection else
        high, low = (top(lambda x, t=t: headed.sigmoid_fisher(headed.box_scores, x, t), X[:4]) for t in (0.9, 0.25))
        assert (high < 0.99 * low).any()

    def test_a_threshold_that_nothing_reaches_is_told(self, audited):
        found = audited(headed.detector(), X[:4], output_kind="detection", score_threshold=0.99999, **EXACT)
        assert "no box of the first samples" in next(f.message for f in found.findings if f.id == "output-kind")

    def test_who_says_a_kind_answers_for_it(self, audited):
        assert audited(headed.detector(), X[:4], output_kind="gaussian", **EXACT).model.output_kind == "gaussian"

    @pytest.mark.parametrize("nodes", [
        [("Sigmoid", ["l"], ["p"], {}), ("Sub", ["one", "p"], ["o"], {}), ("Concat", ["o", "p"], ["z"], {"axis": 1})],
        [("Concat", ["l", "l"], ["z"], {"axis": 1})],
    ])  # fmt: skip
    def test_values_of_one_make_are_no_detector(self, audited, nodes):
        made = net(
            [("MatMul", ["h", "W"], ["l"], {}), *nodes], {"W": weights(H, 1), "one": np.ones(1, np.float32)}, [info("z", "N", 2)]
        )
        assert audited(made).model.num_outputs == 2


class TestEmbeddings:
    @pytest.mark.parametrize("form", ["plain", "torch", "keras", "lp"])
    def test_they_are_compared_by_their_direction(self, audited, form):
        found = audited(headed.embedder(form), output_kind="embedding")
        assert_allclose(values(found), top(lambda x: headed.direction_fisher(headed.embedding, x), X), rtol=ALIKE)
        assert found.model.output_kind == "embedding"
        assert (found.model.rewritten is None) == (form != "plain")
        assert ids(found, "error") == []

    @pytest.mark.parametrize("opset", [11, 13, 18, 21])
    def test_in_every_operator_set(self, audited, opset):
        found = audited(headed.embedder(opset=opset), output_kind="embedding", sigma=0.5)
        assert_allclose(values(found), 4 * top(lambda x: headed.direction_fisher(headed.embedding, x), X), rtol=ALIKE)

    def test_in_float64(self, audited):
        made = headed.embedder(kind=TensorProto.DOUBLE)
        found = audited(made, X.astype(np.float64), output_kind="embedding")
        assert_allclose(values(found), top(lambda x: headed.direction_fisher(headed.embedding, x), X), rtol=1e-7)

    @pytest.mark.parametrize("form", ["torch", "keras", "lp"])
    @pytest.mark.parametrize("count", [1, 10])
    def test_rows_of_length_1_are_doubted_as_logits(self, audited, form, count):
        found = audited(headed.embedder(form), X[:count])
        assert found.verdict == "inconclusive"
        assert "--output-kind embedding" in next(f.message for f in found.findings if f.id == "output-kind")

    @pytest.mark.parametrize("name", ["sentence_embedding", "image_embeds", "pooler_output", "last_hidden_state", "features"])
    def test_what_is_called_an_embedding_is_doubted(self, audited, name):
        made = net([("MatMul", ["h", "W"], [name], {})], {"W": weights(H, 8)}, [info(name, "N", 8)])
        message = next(f.message for f in audited(made).findings if f.id == "output-kind")
        assert f"it is called {name!r}, like an embedding" in message
        assert "output-kind" not in [f.id for f in audited(made, output_kind="logits").findings]

    def test_logits_are_not(self, audited):
        assert "output-kind" not in ids(audited(headed.embedder()), "error")
        assert "output-kind" not in ids(audited(models.linear(np.eye(headed.D), np.zeros(headed.D))), "error")
