"""Exact measures through the derivative graph: closed forms, dense twins, trained models, and files of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit

from onnxfim.auditing.run import audit
from onnxfim.errors import ModelError
from onnxfim.slopes.differences import Sample
from onnxfim.slopes.exact import FEW_CLASSES
from tests.support import models, trained
from tests.support.models import Linear, Mlp
from tests.support.places import SAMPLES

pytestmark = pytest.mark.slow

FLOAT32 = 2e-5  # two sweeps in float32, squared, and what the eigenvalue takes from them


def values(found, measure="lambda_max"):
    estimates = [getattr(s, measure) for s in found.samples]
    return np.array([getattr(e, "estimate", e).value for e in estimates], float)


def kinds(found, measure="lambda_max"):
    return {getattr(getattr(s, measure), "estimate", getattr(s, measure)).kind for s in found.samples}


def gradient(cpu, **options):
    return cpu(**{"method": "gradient", "replay": 0, **options})


class TestTemperatureError:
    # Of many classes they are below the truth, by what one product leaves of the turn of the direction: most where another eigenvalue
    # passes the largest, as it does on a spectrum without a gap like this one.
    @pytest.mark.parametrize(("K", "below"), [(10, 0.0), (200, 0.08)])
    def test_values_at_the_ends_of_the_temperatures_interval(self, saved, cpu, K, below):
        model = Linear.draw(K, 20, scale=0.5)
        X = model.samples(40)
        labels = model.logits(X).argmax(axis=1)
        labels[::5] = (labels[::5] + 1) % K
        found = audit(saved(model.onnx()), X, labels, settings=gradient(cpu, samples=12))
        c = found.calibration
        assert (c.errors, c.method) == (8, "maximum likelihood")
        for sign, end in ((-1, 0), (1, 1)):
            truth = model.lambda_max(X[:12], c.temperature * np.exp(sign * 1.96 * c.log_error))
            told = [s.lambda_max_calibrated.value * s.lambda_max_calibrated.at_temperatures[end] for s in found.samples]
            ratio = np.array(told) / truth
            assert ratio.max() <= 1 + 10 * FLOAT32
            assert ratio.min() >= 1 - below - 10 * FLOAT32
            assert np.median(ratio) >= 1 - below / 4 - 10 * FLOAT32
        assert found.aggregates["trace"].kind == ("lower bound" if K > FEW_CLASSES else "exact")


class TestClosedForm:
    @pytest.mark.parametrize("K", [2, 10, 200])
    def test_linear_softmax(self, saved, cpu, K):  # FLOAT32; Lanczos stops at a residual of 1e-4, whose square is the error
        model = Linear.draw(K, 20, scale=0.5)
        X = model.samples(6)
        found = audit(saved(model.onnx()), X, settings=gradient(cpu, temperature=2.0))
        assert found.run.method == "gradient"
        assert_allclose(values(found), model.lambda_max(X), rtol=FLOAT32)
        assert_allclose(values(found, "lambda_max_calibrated"), model.lambda_max(X, 2.0), rtol=FLOAT32)
        assert_allclose(values(found, "logit_sensitivity"), np.linalg.norm(model.W, 2), rtol=FLOAT32)
        assert kinds(found) == kinds(found, "lambda_max_calibrated") == {"exact"}
        for s, truth in zip(found.samples, model.lambda_max(X), strict=True):
            assert s.lambda_max.low <= truth <= s.lambda_max.high
        methods = {s.lambda_max.method for s in found.samples}
        assert methods == ({"Lanczos iteration"} if K > FEW_CLASSES else {"all coordinates, derivative of the graph"})

    @pytest.mark.parametrize("K", [2, 10, 200])
    def test_boundary_distance(self, saved, cpu, K):
        model = Linear.draw(K, 20, scale=0.5)
        X = model.samples(6)
        z = model.logits(X)
        c = z.argmax(axis=1)
        with np.errstate(invalid="ignore"):
            ratio = (z.max(axis=1)[:, None] - z) / np.linalg.norm(model.W[c][:, None] - model.W, axis=2)
        found = values(audit(saved(model.onnx()), X, settings=gradient(cpu)), "boundary_distance")
        truth = np.nanmin(ratio, axis=1)
        assert (found >= truth * (1 - FLOAT32)).all(), "over some classes it is an upper bound"
        if K <= FEW_CLASSES:
            assert_allclose(found, truth, rtol=FLOAT32)

    @pytest.mark.parametrize("K", [10, 200])
    def test_traces(self, saved, cpu, K):
        model = Linear.draw(K, 20, scale=0.5)
        X = model.samples(3)
        found = audit(saved(model.onnx()), X, settings=gradient(cpu))
        truth = np.array([np.trace(model.fisher(x)) for x in X])
        if K <= FEW_CLASSES:
            assert_allclose(values(found, "trace"), truth, rtol=FLOAT32)
            assert_allclose(
                [s.top_eigenvalues for s in found.samples], [np.linalg.eigvalsh(model.fisher(x))[:-6:-1] for x in X], rtol=1e-4
            )
        else:
            assert kinds(found, "trace") == {"lower bound"}
            assert (values(found, "trace") <= truth * (1 + FLOAT32)).all()

    @pytest.mark.parametrize("K", [10, 100])
    def test_a_smooth_net(self, saved, cpu, K):  # FLOAT32
        model = Mlp.draw(K, 12)
        X = model.samples(5)
        assert_allclose(values(audit(saved(model.onnx()), X, settings=gradient(cpu))), model.lambda_max(X), rtol=FLOAT32)

    @pytest.mark.parametrize("K", [5, 120])
    def test_independent_sigmoids(self, saved, cpu, K):  # FLOAT32; F = Wᵀ diag(p(1 − p)) W
        model = Linear.draw(K, 20, scale=0.5)
        X = model.samples(4)
        p = expit(model.logits(X))
        truth = [np.linalg.eigvalsh((model.W.T * (q * (1 - q))) @ model.W)[-1] for q in p]
        found = audit(saved(model.onnx(end="Sigmoid")), X, settings=gradient(cpu, replay=2))
        assert_allclose(values(found), truth, rtol=FLOAT32)
        assert found.run.method == "gradient"

    @pytest.mark.parametrize("K", [5, 120])
    def test_gaussian_outputs(self, saved, cpu, K):  # FLOAT32; F = WᵀW / σ²
        model = Linear.draw(K, 20, scale=0.5)
        found = audit(saved(model.onnx()), model.samples(4), settings=gradient(cpu, output_kind="gaussian", sigma=0.5, replay=2))
        assert_allclose(values(found), 4 * np.linalg.norm(model.W, 2) ** 2, rtol=FLOAT32)
        assert {s.prediction for s in found.samples} == {None}
        assert all(
            c.kl_curve.points[-1].along == pytest.approx(c.kl_curve.points[-1].quadratic, rel=1e-3)
            for c in found.samples
            if c.kl_curve
        )

    @pytest.mark.parametrize("few", [0, 80])
    def test_saturated_samples_have_values(self, saved, cpu, few, monkeypatch):  # FLOAT32 of a value down to 1e-30
        monkeypatch.setattr("onnxfim.slopes.exact.FEW_CLASSES", few)
        model = Linear.draw(10, 20, scale=3.0)
        X = 12 * model.samples(3)
        truth = np.array([models.precise_lambda(z, model.W.astype(np.float32)) for z in model.logits(X)])
        assert truth.min() < 1e-9
        z = (X @ model.W.T.astype(np.float32)).max()
        found = values(audit(saved(model.onnx()), X, settings=gradient(cpu)))
        assert_allclose(found, truth, rtol=max(FLOAT32, 4 * float(z) * 1.2e-7))  # float32 logits of size z stand in an exponent

    def test_raw_units_are_exact_for_unequal_scales(self, saved, cpu):  # FLOAT32; F_raw = S F S
        model = Linear.draw(4, 6)
        X, S = model.samples(3), np.diag([1.0, 2, 3, 4, 5, 6])
        found = audit(saved(model.onnx()), X, settings=gradient(cpu, input_scale=tuple(np.diag(S))))
        assert_allclose(
            values(found, "lambda_max_raw_units"), [np.linalg.eigvalsh(S @ model.fisher(x) @ S)[-1] for x in X], rtol=FLOAT32
        )


class TestDirection:
    @pytest.mark.parametrize("K", [10, 200])
    def test_its_rayleigh_quotient_is_lambda(self, saved, cpu, K, monkeypatch):  # 1e-4: float32
        from onnxfim.slopes.exact import GradientRoute

        kept, plain = {}, GradientRoute.worst_directions

        def worst(self, X, base, targets, temperature=1.0):
            kept["v"], kept["t"] = plain(self, X, base, targets, temperature), targets
            return kept["v"]

        monkeypatch.setattr(GradientRoute, "worst_directions", worst)
        model = Linear.draw(K, 20, scale=0.5)
        X = model.samples(6)
        found = audit(saved(model.onnx()), X, settings=gradient(cpu, replay=6))
        assert_allclose(np.linalg.norm(kept["v"], axis=1), 1, rtol=1e-6)
        lam = dict(zip((s.index for s in found.samples), values(found), strict=True))
        for t, v in zip(kept["t"], kept["v"], strict=True):
            assert_allclose(v @ model.fisher(X[t.position]) @ v, lam[t.index], rtol=1e-4)
        for s in found.samples:  # and it is what the replay moves along
            p = s.kl_curve.points[0]  # both ways together: what is odd in ε cancels, at a tenth of the boundary distance or nearer
            assert (p.along + p.against) / 2 == pytest.approx(p.quadratic, rel=0.05)
            assert p.random < p.along

    def test_those_of_the_jacobian_are_those_of_passes_and_cost_none(self, saved, cpu, monkeypatch):  # 1e-5: float32 twice
        from onnxfim.slopes.exact import GradientRoute

        routes = []
        measured = GradientRoute.measure
        monkeypatch.setattr(GradientRoute, "measure", lambda self, *a: (routes.append(self), measured(self, *a))[1])
        model = Mlp.draw(5, 12)
        X = model.samples(6)
        path = saved(model.onnx())
        held = audit(path, X, settings=gradient(cpu, replay=6))
        route, calls = routes[0], []
        samples = [Sample(k, k, str(k), None) for k in range(6)]
        vjp = route.model.vjp
        monkeypatch.setattr(route.model, "vjp", lambda *a: calls.append(a) or vjp(*a))
        at_hand = route.directions(X, None, samples)
        assert calls == []
        assert_allclose(at_hand, route._by_passes(X, None, samples, 1.0), atol=1e-5)
        assert len(calls) == 1
        monkeypatch.setattr("onnxfim.slopes.exact._HELD_BYTES", 0)
        by_passes = audit(path, X, settings=gradient(cpu, replay=6))
        assert by_passes.run.evaluations - held.run.evaluations == 2 * 3 * 6  # for flips, and for curves
        radii = [[s.flip_radius.value for s in found.samples] for found in (held, by_passes)]
        assert_allclose(*radii, rtol=1e-4)

    def test_a_resumed_audit_takes_them_from_where_the_first_did(self, saved, cpu, tmp_path, monkeypatch):
        from onnxfim.slopes.exact import GradientRoute

        model = Mlp.draw(5, 12)
        X = model.samples(6)
        path, settings = saved(model.onnx()), gradient(cpu, replay=6)
        monkeypatch.setattr("onnxfim.slopes.exact._HELD_BYTES", 4 * 8 * model.samples(1)[0].size)  # of four samples
        first = audit(path, X, settings=settings, cache_dir=tmp_path)
        asked, by_passes = [], GradientRoute._by_passes
        monkeypatch.setattr(
            GradientRoute, "_by_passes", lambda self, X, base, some, T: (asked.extend(some), by_passes(self, X, base, some, T))[1]
        )
        second = audit(path, X, settings=settings, cache_dir=tmp_path)
        assert {s.position for s in asked} == {4, 5}
        assert [s.flip_radius for s in second.samples] == [s.flip_radius for s in first.samples]
        assert [s.kl_curve for s in second.samples] == [s.kl_curve for s in first.samples]


class TestKind:
    def test_exact_only_with_a_small_residual(self, saved, cpu, monkeypatch):
        model = Linear.draw(200, 60, scale=0.5)
        X = model.samples(3)
        path = saved(model.onnx())
        monkeypatch.setattr("onnxfim.slopes.exact._MOST_PRODUCTS", 1)
        found = audit(path, X, settings=gradient(cpu))
        truth = model.lambda_max(X)
        assert kinds(found) == {"lower bound"}
        assert (values(found) <= truth * (1 + FLOAT32)).all()

    def test_samples_do_not_depend_on_their_company(self, saved, cpu, monkeypatch):  # FLOAT32: other batches, other rounding
        model = Linear.draw(120, 20, scale=0.5)
        X = model.samples(8)
        path = saved(model.onnx())
        together = values(audit(path, X, settings=gradient(cpu)))
        monkeypatch.setattr("onnxfim.gradients.differentiable._BYTES", 1)  # one sample a call
        assert_allclose(values(audit(path, X, settings=gradient(cpu))), together, rtol=FLOAT32)
        few = audit(path, X, settings=gradient(cpu, samples=3))
        assert_allclose(values(few), together[:3], rtol=FLOAT32)


class TestFiles:
    def test_a_fixed_batch(self, saved, cpu):  # FLOAT32
        model = Linear.draw(4, 6)
        X = model.samples(5)
        found = audit(saved(model.onnx(batch=1)), X, settings=gradient(cpu))
        assert_allclose(values(found), model.lambda_max(X), rtol=FLOAT32)

    @pytest.mark.parametrize("end", ["Softmax", "LogSoftmax"])
    @pytest.mark.parametrize("K", [6, 120])
    def test_ended_by_softmax_equals_its_logits_twin(self, saved, cpu, end, K):  # 1e-5: float32 of two graphs
        model = Linear.draw(K, 8)
        X = model.samples(5)
        plain = audit(saved(model.onnx(), "plain.onnx"), X, settings=gradient(cpu))
        ended = audit(saved(model.onnx(end=end), "ended.onnx"), X, settings=gradient(cpu))
        assert_allclose(values(ended), values(plain), rtol=1e-5)
        assert_allclose(values(ended, "boundary_distance"), values(plain, "boundary_distance"), rtol=1e-5)

    @pytest.mark.parametrize("opset", [7, 9, 11, 13])
    def test_old_opsets(self, saved, cpu, opset):  # FLOAT32
        model = Linear.draw(4, 6)
        X = model.samples(4)
        found = audit(saved(model.onnx(opset=opset)), X, settings=gradient(cpu))
        assert found.model.opset == opset
        assert_allclose(values(found), model.lambda_max(X), rtol=FLOAT32)

    def test_external_data(self, cpu, tmp_path):  # FLOAT32
        import onnx

        model = Linear.draw(4, 300)
        X = model.samples(4) / 10
        path = tmp_path / "m.onnx"
        onnx.save(model.onnx(), path, save_as_external_data=True, location="m.bin", size_threshold=0)
        assert_allclose(values(audit(path, X, settings=gradient(cpu))), model.lambda_max(X), rtol=FLOAT32)

    @pytest.mark.slow
    def test_half_precision(self, cpu):
        # 10 % of the median and a quarter at most: float16 weights and activations round by 1e-3, and move kinks.
        found, plain = measured("digits_resnet_fp16"), measured("digits_resnet")
        ratio = values(found) / values(plain)
        assert np.median(np.abs(ratio - 1)) < 0.1
        assert_allclose(values(found).mean(), values(plain).mean(), rtol=0.1)

    def test_rounded_files_are_refused_with_the_reason_and_sketched_by_auto(self, cpu, told):
        path = SAMPLES / "digits_resnet_int8.onnx"
        X, y = digits_data()
        with pytest.raises(ModelError, match=told("digits_resnet_int8.onnx: no gradients", "QuantizeLinear", "--method sketch")):
            audit(path, X, y, gradient(cpu, samples=4))
        found = audit(path, X, y, cpu(samples=4))
        assert found.run.method == "sketch"
        assert not found.gradient.used
        (finding,) = [f for f in found.findings if f.id == "no-gradient"]
        assert "zero almost everywhere" in finding.message

    @pytest.mark.slow
    def test_the_surrogate_is_labelled(self, cpu):
        X, y = digits_data()
        found = audit(SAMPLES / "digits_resnet_int8.onnx", X, y, gradient(cpu, samples=8, surrogate=True))
        assert found.run.method == "gradient"
        assert found.gradient.surrogate
        (finding,) = [f for f in found.findings if f.id == "surrogate"]
        assert "not of the file itself" in finding.message
        # A quarter: int8 weights, and clips at the ends of the input range.
        assert_allclose(values(found).mean(), values(measured("digits_resnet"))[:8].mean(), rtol=0.5)

    def test_a_float_file_has_no_surrogate(self, saved, cpu):
        model = Linear.draw(4, 6)
        found = audit(saved(model.onnx()), model.samples(3), settings=gradient(cpu, surrogate=True))
        assert not found.gradient.surrogate


def digits_data():
    arrays = trained.OURS["digits_resnet"].arrays
    return arrays["inputs"], arrays["labels"]


def measured(name):
    """The audit by gradients; at the reference's temperature where there is one, for theirs is one of a grid."""
    model = trained.ALL[name]
    temperature = {"temperature": model.exact["temperature"]} if model.stored else {}
    return trained.audited(name, "gradient", replay=0, **temperature)


def errors(found, reference, measure):
    rows = {r["index"]: r[measure] for r in reference["samples"]}
    return np.abs(values(found, measure) / [rows[s.index] for s in found.samples] - 1)


class TestTrained:
    @pytest.mark.parametrize("measure", ["trace", "boundary_distance", "logit_sensitivity"])
    @pytest.mark.parametrize("name", trained.known_exactly())
    def test_what_stands_beside_it(
        self, name, measure
    ):  # 1e-3 on 95 %: float32 and float64 break ReLU and MaxPool ties differently
        assert (errors(measured(name), trained.OURS[name].exact, measure) <= 1e-3).mean() >= 0.95
        assert measured(name).verdict == "measured"

    @pytest.mark.parametrize("measure", ["lambda_max", "lambda_max_calibrated"])
    @pytest.mark.parametrize("name", [*trained.known_exactly(), *trained.theirs(lambda m: m.stored)])
    def test_lambda_max(self, name, measure):
        model, found = trained.ALL[name], measured(name)
        error = errors(found, model.exact, measure)
        if model.by_differences:
            assert error.max() <= 0.02  # its stored values are good to about 1 %
        else:
            assert (error <= 1e-3).mean() >= 0.95
        assert "gradient-sketch-disagree" not in {f.id for f in found.findings}
