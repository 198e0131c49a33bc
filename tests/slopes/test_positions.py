"""Outputs with positions by gradients: maps, steps and several yes-or-no outputs, against dense float64 matrices from the definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, softmax

from onnxfim.auditing.run import audit
from onnxfim.auditing.stages import by_gradients
from onnxfim.errors import ModelError
from onnxfim.slopes import exact
from onnxfim.slopes.class_space import Weighing
from onnxfim.slopes.kinds.sigmoid import SigmoidLogits
from onnxfim.slopes.kinds.softmax import SoftmaxLogits
from onnxfim.slopes.leads import leads_of_outputs
from tests.support import models

RNG = np.random.default_rng(3)
TOLERANCE = 1e-4  # of Lanczos iteration; whole Jacobians in float32 keep within a fifth of it
A, B = RNG.standard_normal((6, 4)).astype(np.float32), RNG.standard_normal(4).astype(np.float32)
M = (RNG.standard_normal((30, 30)) / 4).astype(np.float32)
MAPS = np.random.default_rng(5).standard_normal((8, 1, 16, 16)).astype(np.float32)
STEPS = RNG.standard_normal((8, 5, 6)).astype(np.float32)
#: Steps that see one another: every one of the 5 is a function of all 30 coordinates.
MIXING = [
    ("Reshape", ["x", "flat"], ["r"], {}), ("MatMul", ["r", "M"], ["m"], {}), ("Tanh", ["m"], ["t"], {}),
    ("Reshape", ["t", "steps"], ["s"], {}), ("MatMul", ["s", "A"], ["a"], {}), ("Add", ["a", "b"], ["u"], {}),
]  # fmt: skip
WEIGHTS = {"flat": np.array([-1, 30]), "steps": np.array([-1, 5, 6]), "M": M, "A": A, "b": B}
KINDS = {"softmax": softmax, "sigmoid": lambda z, axis: expit(z), "gaussian": None}


def unet():
    """Nodes and weights of a net with a skip, from (N, 1, 16, 16) to the logits u (N, 4, 16, 16)."""
    rng = np.random.default_rng(7)

    def weight(*shape):
        return (rng.standard_normal(shape) * 1.5 / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    nodes = [
        ("Conv", ["x", "w1", "b1"], ["c1"], {"pads": [1, 1, 1, 1]}), ("Relu", ["c1"], ["r1"], {}),
        ("Conv", ["r1", "w2"], ["c2"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}), ("Relu", ["c2"], ["r2"], {}),
        ("ConvTranspose", ["r2", "w3"], ["t"], {"strides": [2, 2]}), ("Concat", ["r1", "t"], ["j"], {"axis": 1}),
        ("Conv", ["j", "w4", "b4"], ["u"], {}),
    ]  # fmt: skip
    weights = {"w1": weight(6, 1, 3, 3), "b1": weight(6, 1)[:, 0], "w2": weight(8, 6, 3, 3), "w3": weight(8, 6, 2, 2) * 3,
               "w4": weight(4, 12, 1, 1), "b4": weight(4, 1)[:, 0]}  # fmt: skip
    return nodes, weights


def conv(x, w, *, stride=1):
    """A convolution of rows x (N, C, H, W) in float64 with zeros around, so that a stride of 1 keeps the size."""
    side = w.shape[2] // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, [(0, 0), (0, 0), (side, side), (side, side)]), w.shape[2:], (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows[:, :, ::stride, ::stride], w.astype(float), optimize=True)


def unet_in_float64(x):
    """The logits (N, 4, 256) of the same net at rows x (N, 1, 16, 16)."""
    w = {name: a.astype(float) for name, a in unet()[1].items()}
    r1 = np.maximum(conv(x, w["w1"]) + w["b1"][:, None, None], 0)
    r2 = np.maximum(conv(r1, w["w2"], stride=2), 0)
    t = np.einsum("nchw,coij->nohiwj", r2, w["w3"]).reshape(len(x), 6, 16, 16)  # the kernel is as wide as the stride
    return (conv(np.concatenate([r1, t], axis=1), w["w4"]) + w["b4"][:, None, None]).reshape(len(x), 4, 256)


def jacobian(logits, x, h=1e-6):
    """Logits (K, P) at x, and their slopes (K, P, d) by central differences in float64; a piecewise linear net has no other error."""
    moves = h * np.eye(x.size).reshape(x.size, *x.shape)
    x = x.astype(np.float64)
    return logits(x[None])[0], np.moveaxis((logits(x + moves) - logits(x - moves)) / (2 * h), 0, -1)


def dense(kind, z, J, temperature=1.0, sigma=1.0):
    """``F = Σ_p J_pᵀ C_p J_p`` written out, (d, d), from logits (K, P) and slopes (K, P, d)."""
    F = np.zeros((J.shape[2], J.shape[2]))
    for position in range(z.shape[1]):
        if kind == "softmax":
            C = models.covariance(softmax(z[:, position] / temperature)) / temperature**2
        elif kind == "sigmoid":
            p = expit(z[:, position] / temperature)
            C = np.diag(p * (1 - p)) / temperature**2
        else:
            C = np.eye(len(z)) / sigma**2
        F += J[:, position].T @ C @ J[:, position]
    return F


def truths(kind, logits, X, **options):
    """lambda_max, trace and ``‖J‖₂`` of each sample."""
    found = []
    for x in X:
        z, J = jacobian(logits, x)
        w = np.linalg.eigvalsh(dense(kind, z, J, **options))
        found.append((w[-1], w.sum(), np.linalg.norm(J.reshape(-1, x.size), 2)))
    return np.array(found).T


def values(found, measure="lambda_max"):
    return np.array([getattr(s, measure).value for s in found.samples])


def kinds(found, measure="lambda_max"):
    return {getattr(s, measure).kind for s in found.samples}


def methods(found):
    return {s.lambda_max.method for s in found.samples}


@pytest.fixture(params=["whole", "iterated"])
def how(request, monkeypatch):
    """Whole Jacobians, or Lanczos iteration whatever the size."""
    if request.param == "iterated":
        monkeypatch.setattr(exact, "_FEW_AT_POSITIONS", 1)
    return request.param


@pytest.fixture(scope="module")
def truth():
    """lambda_max, trace and ``‖J‖₂`` of the U-net's logits at the maps."""
    return truths("softmax", unet_in_float64, MAPS)


ENDS = {
    "logits": ([("Identity", ["u"], ["z"], {})], {}, (4, 16, 16), {}),
    "softmax": ([("Softmax", ["u"], ["z"], {"axis": 1})], {}, (4, 16, 16), {}),
    "classes last": ([("Transpose", ["u"], ["z"], {"perm": [0, 2, 3, 1]})], {}, (16, 16, 4), {"class_axis": -1}),
    "softmax, classes last": (
        [("Transpose", ["u"], ["v"], {"perm": [0, 2, 3, 1]}), ("Softmax", ["v"], ["z"], {"axis": -1})], {}, (16, 16, 4), {},
    ),
    "flat positions": (
        [("Reshape", ["u", "to"], ["v"], {}), ("Transpose", ["v"], ["z"], {"perm": [0, 2, 1]})],
        {"to": np.array([0, 4, -1])}, (256, 4), {"class_axis": 2},
    ),
}  # fmt: skip
LAYOUTS = {
    "second to last": ([("Identity", ["u"], ["z"], {})], (5, 4), {}),
    "classes first": ([("Transpose", ["u"], ["z"], {"perm": [0, 2, 1]})], (4, 5), {"class_axis": 1}),
    "time first": ([("Transpose", ["u"], ["z"], {"perm": [1, 0, 2]})], ("N", 4), {"first": 5}),
    "classes, then samples": ([("Transpose", ["u"], ["z"], {"perm": [2, 0, 1]})], ("N", 5), {"first": 4, "class_axis": 0}),
}
ACTIVATIONS = {
    "softmax": ("Softmax", {"axis": 2}, {}), "sigmoid": ("Sigmoid", {}, {}), "gaussian": (None, {}, {"sigma": 0.5}),
}  # fmt: skip
METHODS = {"whole": {"all coordinates, derivative of the graph"}, "iterated": {"Lanczos iteration"}}


class TestMaps:
    @pytest.mark.parametrize("end", ENDS)
    def test_every_layout_gives_the_values_of_the_definition(self, saved, cpu, truth, how, end):
        nodes, weights = unet()
        last, more, out, axes = ENDS[end]
        made = models.model([*nodes, *last], {**weights, **more}, shape=(1, 16, 16), out=out)
        found = audit(saved(made), MAPS, settings=cpu(replay=0, **axes))
        lam, trace, stretch = truth
        assert (found.run.method, found.model.num_outputs, found.model.positions) == ("gradient", 4, 256)
        assert methods(found) == METHODS[how]
        assert kinds(found) == kinds(found, "logit_sensitivity") == {"exact"}
        assert_allclose(values(found), lam, rtol=TOLERANCE)
        assert_allclose(values(found, "logit_sensitivity"), stretch, rtol=TOLERANCE)
        assert all(s.lambda_max.low <= t <= s.lambda_max.high for s, t in zip(found.samples, lam, strict=True))
        mean = found.aggregates["lambda_max"].mean
        assert mean.low <= lam.mean() <= mean.high
        assert {s.boundary_distance.value for s in found.samples} == {s.prediction for s in found.samples} == {None}
        assert found.gradient.cross_check_ratio == 1.0  # a sketch of the file itself agrees
        if how == "whole":
            assert_allclose(values(found, "trace"), trace, rtol=TOLERANCE)
        else:
            held = [s.trace.low <= t <= s.trace.high for s, t in zip(found.samples, trace, strict=True)]
            assert kinds(found, "trace") == {"estimate"}
            assert np.mean(held) >= 0.75  # of 8 intervals of 95 %
            assert_allclose(values(found, "trace").mean(), trace.mean(), rtol=0.1)  # 16 random cotangents of 8 samples

    def test_a_divergence_is_that_of_all_positions(self, saved, cpu, truth, how):
        """The measured KL along the worst direction is the quadratic form's within a tenth, as kinks leave; one position's is far less."""
        nodes, weights = unet()
        made = models.model([*nodes, ("Identity", ["u"], ["z"], {})], weights, shape=(1, 16, 16), out=(4, 16, 16))
        found = audit(saved(made), MAPS, settings=cpu(replay=8))
        for s, lam in zip(found.samples, truth[0], strict=True):
            first = s.kl_curve.points[0]
            assert_allclose(first.quadratic, 0.5 * lam * first.epsilon**2, rtol=TOLERANCE)
            assert_allclose((first.along + first.against) / 2, first.quadratic, rtol=0.1)
            assert s.kl_curve.flips_at is None  # there is no one decision
        assert not found.run.failed_stages

    def test_long_leads_are_kept_apart(self, saved, cpu, how, monkeypatch, tmp_path):
        """Neither on disk, nor at hand where they are many: the samples are then measured again, to what float32 rounds."""
        nodes, weights = unet()
        path = saved(models.model([*nodes, ("Identity", ["u"], ["z"], {})], weights, shape=(1, 16, 16), out=(4, 16, 16)))

        def curves(**options):
            found = audit(path, MAPS, settings=cpu(replay=4), **options)
            assert not found.run.failed_stages
            return np.array([[p.along for p in s.kl_curve.points] for s in found.samples if s.kl_curve is not None])

        before = curves()
        assert len(before) == 4
        monkeypatch.setattr(exact, "_LONGEST_LEAD", 1)
        for kept in (exact._KEPT_BYTES, 0):
            monkeypatch.setattr(exact, "_KEPT_BYTES", kept)
            for _ in range(2):  # the second time from the cache, which holds no leads
                assert_allclose(curves(cache_dir=tmp_path / str(kept)), before, rtol=1e-4)

    def test_no_memory_for_the_vectors(self, saved, cpu, monkeypatch, told):
        nodes, weights = unet()
        path = saved(models.model([*nodes, ("Identity", ["u"], ["z"], {})], weights, shape=(1, 16, 16), out=(4, 16, 16)))
        monkeypatch.setattr(by_gradients, "available_memory", lambda: 10**6)
        found = audit(path, MAPS[:4], settings=cpu(replay=0, budget=20))
        assert found.run.method == "sketch"
        assert found.gradient.reason.startswith("4 outputs at 256 positions: the vectors of their slopes need about 1 MB")
        with pytest.raises(ModelError, match=told("no gradients (4 outputs at 256 positions", "Use --method sketch")):
            audit(path, MAPS[:4], settings=cpu(method="gradient"))


class TestSteps:
    @staticmethod
    def logits(rows):
        t = np.tanh(rows.reshape(len(rows), 30) @ M.astype(float)).reshape(-1, 5, 6)
        return (t @ A.astype(float) + B).transpose(0, 2, 1)  # (N, K, P)

    def run(self, saved, cpu, nodes, out, first=None, X=STEPS, **options):
        made = models.model([*MIXING, *nodes], WEIGHTS, shape=(5, 6), out=out)
        if first is not None:
            shape = made.graph.output[0].type.tensor_type.shape
            shape.dim[0].Clear()
            shape.dim[0].dim_value = first
        return audit(saved(made), X, settings=cpu(**{"replay": 0, **options}))

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("kind", ACTIVATIONS)
    def test_every_kind_in_every_layout(self, saved, cpu, how, kind, layout):
        op, attributes, options = ACTIVATIONS[kind]
        nodes, out, axes = LAYOUTS[layout]
        if op:  # before its axes are moved
            nodes = [(op, ["u"], ["p"], attributes), (nodes[0][0], ["p"], ["z"], nodes[0][3])]
        elif kind == "gaussian":
            axes = {**axes, "output_kind": "gaussian"}
        found = self.run(saved, cpu, nodes, out, **{**axes, **options}, temperature=None if kind == "gaussian" else 1.7)
        assert (found.run.method, found.model.num_outputs, found.model.positions) == ("gradient", 4, 5)
        assert methods(found) == METHODS[how]
        lam, trace, stretch = truths(kind, self.logits, STEPS, **options)
        assert_allclose(values(found), lam, rtol=TOLERANCE)
        assert_allclose(values(found, "logit_sensitivity"), stretch, rtol=TOLERANCE)
        if kind != "gaussian":
            hot = truths(kind, self.logits, STEPS, temperature=1.7)[0]
            assert_allclose(values(found, "lambda_max_calibrated"), hot, rtol=TOLERANCE)
        if how == "whole":
            assert_allclose(values(found, "trace"), trace, rtol=TOLERANCE)
        assert found.gradient.cross_check_ratio == 1.0

    @pytest.mark.parametrize("method", ["sketch", "exact"])
    def test_differences_measure_the_same(self, saved, cpu, method):
        """All coordinates to what the step leaves; a sketch of 400 directions within its interval nine times in ten."""
        found = self.run(saved, cpu, *LAYOUTS["time first"][:2], first=5, method=method, budget=800)
        lam = truths("softmax", self.logits, STEPS)[0]
        if method == "exact" or found.run.method == "exact":
            assert_allclose(values(found), lam, rtol=2e-3)
        else:
            covered = [s.lambda_max.low <= t <= s.lambda_max.high for s, t in zip(found.samples, lam, strict=True)]
            assert np.mean(covered) >= 0.7

    def test_probabilities_without_logits(self, saved, cpu):
        """A mean of two softmaxes at every step, read as its logarithm; float32 cancels to 1e-5 of it."""
        nodes = [("Softmax", ["u"], ["p"], {"axis": 2}), ("Neg", ["u"], ["n"], {}), ("Softmax", ["n"], ["q"], {"axis": 2}),
                 ("Mean", ["p", "q"], ["z"], {})]  # fmt: skip
        found = self.run(saved, cpu, nodes, (5, 4))

        def log_p(rows):
            z = self.logits(rows)
            return np.log((softmax(z, axis=1) + softmax(-z, axis=1)) / 2)

        assert found.run.method == "gradient"
        assert_allclose(values(found), truths("softmax", log_p, STEPS)[0], rtol=TOLERANCE)

    def test_units_of_the_inputs(self, saved, cpu, how):
        """Per raw unit over whole Jacobians; iterated, between the bounds that the extreme scales leave."""
        scale = np.linspace(0.5, 2.0, 6)
        found = self.run(saved, cpu, *LAYOUTS["second to last"][:2], input_scale=tuple(scale))
        wanted = []
        for x in STEPS:
            z, J = jacobian(self.logits, x)
            wanted.append(np.linalg.eigvalsh(dense("softmax", z, J * np.tile(scale, 5)))[-1])
        if how == "whole":
            assert_allclose(values(found, "lambda_max_raw_units"), wanted, rtol=TOLERANCE)
        else:
            held = [s.lambda_max_raw_units for s in found.samples]
            assert all(e.low <= t <= e.high for e, t in zip(held, wanted, strict=True))

    def test_one_sided_slopes_at_ties(self, saved, cpu, how):
        """Half of the coordinates stand on the kink of a Relu: the interval holds the value of every side that is drawn."""
        X = np.where(np.arange(6) % 2, STEPS, 0).astype(np.float32)
        nodes = [("Relu", ["x"], ["y"], {}), ("Reshape", ["y", "flat"], ["r"], {}), *MIXING[1:], ("Identity", ["u"], ["z"], {})]
        found = audit(saved(models.model(nodes, WEIGHTS, shape=(5, 6), out=(5, 4))), X, settings=cpu(replay=0))
        assert not found.run.failed_stages
        assert kinds(found) == {"kinked"}
        rng = np.random.default_rng(8)
        for s, x in zip(found.samples, X.astype(float), strict=True):
            for _ in range(4):
                side = x + 1e-4 * rng.standard_normal(x.shape)
                z, J = jacobian(lambda rows: self.logits(np.maximum(rows, 0)), side)
                assert s.lambda_max.low <= np.linalg.eigvalsh(dense("softmax", z, J))[-1] <= s.lambda_max.high

    def test_a_position_that_is_sure_beside_one_that_is_not(self, saved, cpu, how):
        """Values of 1e-12 and below are values: every step alone, in 120 digits."""
        W, b = A, (30 * B).astype(np.float32)
        nodes = [("MatMul", ["x", "A"], ["t"], {}), ("Add", ["t", "b"], ["z"], {})]
        found = audit(saved(models.model(nodes, {"A": W, "b": b}, shape=(5, 6), out=(5, 4))), STEPS, settings=cpu(replay=0))
        z = STEPS.astype(float) @ W.astype(float) + b
        wanted = [max(models.precise_lambda(row, W.T.astype(float)) for row in sample) for sample in z]
        assert min(wanted) < 1e-6
        # The logits are float32, of about 50: what they are off by is that much of every probability.
        assert_allclose(values(found), wanted, rtol=TOLERANCE + 4 * 50 * np.finfo(np.float32).eps)


class TestManyOutputs:
    def test_fewer_coordinates_than_outputs(self, saved, cpu):
        """Slopes of 600 outputs along 6 coordinates are taken forwards; FLOAT32 rounding alone."""
        W = np.random.default_rng(2).standard_normal((6, 600)).astype(np.float32) / 3
        nodes = [("MatMul", ["x", "W"], ["m"], {}), ("Tanh", ["m"], ["t"], {}), ("Reshape", ["t", "to"], ["z"], {})]
        made = models.model(nodes, {"W": W, "to": np.array([-1, 3, 200])}, shape=(6,), out=(3, 200))
        X = np.random.default_rng(1).standard_normal((10, 6)).astype(np.float32)
        found = audit(saved(made), X, settings=cpu(method="gradient", replay=4, class_axis=1))
        lam, trace, _ = truths("softmax", lambda rows: np.tanh(rows @ W.astype(float)).reshape(-1, 3, 200), X)
        assert_allclose(values(found), lam, rtol=2e-5)
        assert_allclose(values(found, "trace"), trace, rtol=2e-5)
        assert {s.evaluations for s in found.samples} == {7}

    def test_features_that_differ_in_scale(self, saved, cpu):
        """In standard deviations, over all coordinates; FLOAT32 rounding alone."""
        sizes = np.array([1e-2, 1.0, 1e2, 1.0, 1e3, 1.0])
        W = (np.random.default_rng(2).standard_normal((6, 600)) / sizes[:, None] / 3).astype(np.float32)
        nodes = [("MatMul", ["x", "W"], ["t"], {}), ("Reshape", ["t", "to"], ["z"], {})]
        made = models.model(nodes, {"W": W, "to": np.array([-1, 3, 200])}, shape=(6,), out=(3, 200))
        X = (np.random.default_rng(1).standard_normal((40, 6)) * sizes).astype(np.float32)
        found = audit(saved(made), X, settings=cpu(method="gradient", replay=0, class_axis=1, samples=6))
        spread, wanted = X[:6].astype(float).std(axis=0), []
        for x in X[:6].astype(float):
            z, J = (x @ W).reshape(3, 200), W.T.astype(float).reshape(3, 200, 6)
            wanted.append(np.linalg.eigvalsh(dense("softmax", z, J * spread))[-1])
        assert found.samples[0].leading_feature is not None
        assert_allclose(values(found, "lambda_max_standardised"), wanted, rtol=1e-3)


class TestProducts:
    @pytest.mark.parametrize("reader", [SoftmaxLogits(), SigmoidLogits()])
    @pytest.mark.parametrize("spread", [1.0, 30.0])
    def test_weighings_and_leads_are_those_of_the_definition(self, reader, spread):  # 1e-9 of the largest: float64
        rng = np.random.default_rng(4)
        z, J = spread * rng.standard_normal((2, 3, 7)), rng.standard_normal((2, 3, 7, 5))
        u = rng.standard_normal((2, 2, 21))
        weighing = Weighing.of(reader, z, 1.3)
        c = weighing.cotangents(np.arange(2), u)
        for k in range(2):
            scores = reader.scores(z[k], np.moveaxis(J[k], -1, 0), np.zeros((1, 3, 7)), 1.0, 1.3)  # (d, K·P)
            wanted = u[k] @ scores.T @ scores
            flat = J[k].reshape(21, 5)
            found = weighing.scores(np.array([k]), (c[k] @ flat @ flat.T)[None])[0] * weighing.factor[k]
            assert_allclose(found, wanted, atol=1e-9 * np.abs(wanted).max())
            lead = leads_of_outputs(reader, z[[k]], u[[k], 0], np.zeros((1, 21)), 1.3)[0, 0] @ flat
            along = u[k, 0] @ scores.T
            assert_allclose(lead / np.linalg.norm(lead), along / np.linalg.norm(along), atol=1e-9)

    @pytest.mark.parametrize("reader", [SoftmaxLogits(), SigmoidLogits()])
    def test_divergences_add_up_over_positions(self, reader):  # 1e-12: float64
        rng = np.random.default_rng(4)
        base, moved = rng.standard_normal((3, 7)), rng.standard_normal((6, 3, 7))
        alone = sum(reader.divergence(base[:, [k]], moved[:, :, [k]]) for k in range(7))
        assert_allclose(reader.divergence(base, moved), alone, rtol=1e-12)
        if reader.name == "logits":
            p, q = softmax(base, axis=0), softmax(moved, axis=1)
            assert_allclose(alone, (p * np.log(p / q)).sum(axis=(1, 2)), rtol=1e-12)
