"""The flip radius of whole audits: every route, every output kind, models that are steps, an interrupt, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import helper

from onnxfim.auditing.api import check
from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.slopes.flips import PRECISION
from tests.slopes.test_flips import linear_flip
from tests.support import models
from tests.support.models import Linear, Mlp
from tests.support.places import SAMPLES

LINEAR = Linear.draw(4, 20)
X = LINEAR.samples(30)
WIDE = (-100.0, 100.0)


def radii(found):
    return np.array([np.nan if s.flip_radius.value is None else s.flip_radius.value for s in found.samples])


def nearest(model, X):
    """First-order distances to the boundary, exact for a linear model."""
    z = model.logits(X)
    c = z.argmax(axis=1)
    norms = np.linalg.norm(model.W[c][:, None] - model.W[None], axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = (z.max(axis=1, keepdims=True) - z) / norms
    return np.nanmin(np.where(norms > 0, d, np.inf), axis=1)


def along_fisher(model, x):
    v = np.linalg.eigh(model.fisher(x))[1][:, -1]
    return min(linear_flip(model, x, v), linear_flip(model, x, -v))


@pytest.mark.parametrize("method", ["gradient", "exact"])
@pytest.mark.parametrize("few", [True, False])
def test_a_linear_model_flips_where_it_must(saved, cpu, monkeypatch, method, few):  # the bracket's width; float32 rows
    monkeypatch.setattr("onnxfim.slopes.exact.FEW_CLASSES", 80 if few else 0)
    found = audit(saved(LINEAR.onnx()), X, settings=cpu(method=method, replay=0, attack_range=WIDE))
    truth = np.minimum(nearest(LINEAR, X), [along_fisher(LINEAR, x) for x in X])
    assert_allclose(radii(found), truth, rtol=PRECISION + 1e-3)
    assert {s.flip_radius.kind for s in found.samples} == {"upper bound"}
    assert all(s.flip_radius.low is None and s.flip_radius.high == s.flip_radius.value for s in found.samples)
    assert "within the range given, -100 to 100" in found.samples[0].flip_radius.method
    assert Audit.from_json(found.to_json()) == found


@pytest.mark.parametrize("scale", [(2.5,), tuple(np.linspace(0.5, 4.0, 20))], ids=["one", "each"])
def test_the_length_in_other_units_is_the_moves_own(saved, cpu, scale):
    """Along the Fisher direction and towards the boundary alone, both known in closed form; float32 rows, a bracket of 2 %."""
    found = audit(saved(LINEAR.onnx()), X, settings=cpu(replay=0, attack_range=WIDE, input_scale=scale))
    z = LINEAR.logits(X)
    deviation = X.astype(np.float64).std(axis=0)
    for x, s, logits in zip(X.astype(np.float64), found.samples, z, strict=True):
        others = [LINEAR.W[k] - LINEAR.W[logits.argmax()] for k in range(4) if k != logits.argmax()]
        v = np.linalg.eigh(LINEAR.fisher(x))[1][:, -1]
        ways = [w / np.linalg.norm(w) for w in (v, -v, *others)]
        for told, unit in ((s.flip_lengths.raw, np.array(scale)), (s.flip_lengths.standardised, None)):
            if unit is not None:
                lengths = [s.flip_radius.value * np.linalg.norm(w / unit) for w in ways]
                assert np.min(np.abs(np.array(lengths) / told - 1)) < 1e-3
            else:
                assert s.flip_radius.value / deviation.max() <= told * 1.5
                assert told <= 1.5 * s.flip_radius.value / deviation.min()
    assert Audit.from_json(found.to_json()) == found


def test_without_raw_units_there_is_no_length_in_them(saved, cpu):
    found = audit(saved(LINEAR.onnx()), X[:5], settings=cpu(replay=0, attack_range=WIDE))
    assert all(s.flip_lengths.raw is None for s in found.samples)
    assert all(s.flip_lengths.standardised > 0 for s in found.samples)


def test_a_sketch_gives_an_upper_bound_and_says_so(saved, cpu):
    found = audit(saved(LINEAR.onnx()), X, settings=cpu(method="sketch", attack_range=WIDE))
    ratio = radii(found) / nearest(LINEAR, X)
    assert ratio.min() >= 1 - 1e-4
    assert np.median(ratio) < 2  # 80 directions of 20 coordinates: a cosine of .89
    assert any("sketched" in s.flip_radius.method for s in found.samples)


def test_passes_are_counted_and_few(saved, cpu):
    path = saved(Mlp.draw(4, 40).onnx())
    data = Mlp.draw(4, 40).samples(40)
    with_, without = (audit(path, data, settings=cpu(method="gradient", replay=0, flip=flip)) for flip in (True, False))
    spent = sum(s.flip_radius.evaluations for s in with_.samples)
    assert with_.run.evaluations - without.run.evaluations == spent, "directions come from the Jacobian that measuring had"
    assert 5 < spent / len(data) <= 26
    assert all(s.flip_radius is None for s in without.samples)
    assert [s.lambda_max for s in with_.samples] == [s.lambda_max for s in without.samples]
    for audited in (with_, without):
        assert Audit.from_json(audited.to_json()) == audited


def test_batches_change_nothing(saved, cpu):  # exactly: rows of a linear float32 model are the same in any batch
    path = saved(LINEAR.onnx())
    small, large = (audit(path, X, settings=cpu(method="exact", batch=b)) for b in (3, 64))
    assert_allclose(radii(small), radii(large), rtol=PRECISION)


@pytest.mark.parametrize("K", [2, 1])
def test_two_classes_and_one_sigmoid(saved, cpu, K):  # float32 rows
    model = Linear.draw(K, 10)
    data = model.samples(20)
    made = model.onnx() if K == 2 else models.linear(model.W, model.b, end="Sigmoid")
    found = audit(saved(made), data, settings=cpu(replay=0, attack_range=WIDE))
    z = model.logits(data)
    gap, slope = (z[:, 0] - z[:, 1], model.W[0] - model.W[1]) if K == 2 else (z[:, 0], model.W[0])
    assert_allclose(radii(found), np.abs(gap) / np.linalg.norm(slope), rtol=PRECISION + 1e-3)


def steps_model():
    """A classifier of stairs: ``floor(2 W x)``; its slope is 0 wherever it has one."""
    W = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    nodes = [("MatMul", ["x", "W"], ["h"], {}), ("Floor", ["h"], ["z"], {})]
    return models.model(nodes, {"W": 2 * W.T}, shape=(8,), out=(3,))


def trees_model():
    """Two stumps: class 1 where ``x_0 > 0.5``, by one vote, unless ``x_1 > 0.8``."""
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2], post_transform="NONE",
        nodes_treeids=[0, 0, 0, 1, 1, 1], nodes_nodeids=[0, 1, 2, 0, 1, 2], nodes_featureids=[0, 0, 0, 1, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * 2, nodes_values=[0.5, 0.0, 0.0, 0.8, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0, 1, 0, 0], nodes_falsenodeids=[2, 0, 0, 2, 0, 0],
        class_treeids=[0, 0, 1, 1], class_nodeids=[1, 2, 1, 2], class_ids=[0, 1, 1, 0], class_weights=[1.0, 1.0, 0.1, 2.0],
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "trees", [helper.make_tensor_value_info("x", models.TYPES["float32"], ["N", 3])],
        [helper.make_tensor_value_info("z", models.TYPES["float32"], ["N", 3])],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)])
    made.ir_version = 8
    return made


@pytest.mark.parametrize("made", [steps_model, trees_model], ids=["floor", "trees"])
def test_models_without_a_slope_have_a_radius(saved, cpu, made):
    from onnxruntime import InferenceSession

    path = saved(made())
    d = 8 if made is steps_model else 3
    data = np.random.default_rng(1).random((40, d)).astype(np.float32)
    found = audit(path, data, settings=cpu())
    measured = radii(found)
    assert np.isfinite(measured).all()
    assert (measured > 0).all()
    assert measured.max() <= np.sqrt(d), "inside the data's range"
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    decided = session.run(["z"], {"x": data})[0].argmax(axis=1)
    assert len(set(decided)) > 1
    if made is trees_model:  # class 1 is a corner: the way out is the nearer side, the way in leads over both
        x, y = data[:, 0].astype(float), data[:, 1].astype(float)
        inwards = np.hypot(np.maximum(0.5 - x, 0), np.maximum(y - 0.8, 0))
        least = np.where(decided == 1, np.minimum(x - 0.5, 0.8 - y), inwards)
        assert (measured >= least * (1 - 1e-4)).all(), "an upper bound"
        assert np.median(measured / least) < 3
    assert np.mean([s.flip_radius.evaluations for s in found.samples]) < 60


def test_a_rounded_file_has_a_radius(cpu):
    with np.load(SAMPLES / "digits.npz") as file:
        data = file["inputs"][:16]
    found = audit(SAMPLES / "digits_resnet_int8.onnx", data, settings=cpu(bounds=False))
    assert np.isfinite(radii(found)).all()
    assert "the range that the file tells apart" in found.samples[0].flip_radius.method


def test_no_flip_has_no_value_but_a_reason(saved, cpu):
    always = Linear(np.zeros((2, 6)) + 1e-3 * np.arange(6), np.array([5.0, 0.0]))  # class 0 wins everywhere near the data
    found = audit(saved(always.onnx()), always.samples(12), settings=cpu(replay=0))
    assert {s.flip_radius.value for s in found.samples} == {None}
    assert all("no flip within the data's range" in s.flip_radius.reason for s in found.samples)
    assert found.aggregates["flip_radius"].count == 0
    assert check(found, "flip_radius.median > 0.1").gates[0].verdict == "inconclusive"


def test_outputs_without_one_decision_have_none(saved, cpu):
    per_pixel, _ = models.conv()
    data = np.random.default_rng(0).random((4, 2, 5, 5)).astype(np.float32)
    found = audit(saved(per_pixel), data, settings=cpu(output_kind="logits"))
    assert {s.flip_radius.reason for s in found.samples} == {"defined for a classifier with one decision per sample"}
    plain = audit(saved(LINEAR.onnx()), X[:4], settings=cpu(output_kind="gaussian", replay=0))
    assert {s.flip_radius.reason for s in plain.samples} == {"defined for a classifier with one decision per sample"}


def test_an_interrupt_keeps_what_was_found(saved, cpu, monkeypatch):
    monkeypatch.setattr("onnxfim.auditing.stages.flipping._BYTES", 4 * 8 * 20 * 10)  # blocks of ten samples
    seen = []

    def progress(p):
        seen.append(p.stage)
        if p.stage == "looking for flips" and seen.count(p.stage) == 3:
            raise KeyboardInterrupt

    found = audit(saved(LINEAR.onnx()), X, settings=cpu(method="gradient", replay=4), progress=progress)
    assert found.run.partial
    assert len(found.samples) == 30
    assert np.isfinite(radii(found)).sum() == 20
    assert found.samples[-1].flip_radius.reason == "the run was interrupted before it was measured"
    assert all(s.kl_curve is None for s in found.samples), "later stages did not run"
    assert Audit.from_json(found.to_json()) == found


def test_gates_name_it(saved, cpu):
    found = audit(saved(LINEAR.onnx()), X, settings=cpu(replay=0, attack_range=WIDE))
    middle = found.aggregates["flip_radius"].median.value
    assert middle == pytest.approx(np.median(radii(found)))
    kept, broken = check(found, f"flip_radius.median > {middle / 4}", f"flip_radius.median > {middle * 4}").gates
    assert (kept.verdict, broken.verdict) == ("pass", "fail")
