"""The audit as a whole: closed forms, invariants, and what must not change a result."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, softmax

from onnxfim.auditing.run import audit
from onnxfim.auditing.subject import from_callable
from onnxfim.data import load
from onnxfim.errors import InputError, ModelError, OnnxFimError, SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from onnxfim.report.formats import renderers
from onnxfim.runtime.failures import OutOfMemory
from onnxfim.runtime.forward import OnnxForward
from tests.support import models
from tests.support.models import Linear, Mlp
from tests.support.places import DEV


def values(found, measure="lambda_max"):
    estimates = [getattr(s, measure) for s in found.samples]
    return np.array([getattr(e, "estimate", e).value for e in estimates], float)


def scrubbed(found):
    """The JSON apart from what depends on the clock."""
    record = json.loads(found.to_json())
    del record["run"]["seconds"], record["run"]["times"]
    return record


class TestClosedForm:
    @pytest.mark.parametrize("K", [2, 10, 1000])
    def test_linear_softmax_is_its_closed_form(self, saved, cpu, K):  # 0.2 %: float32 forwards, step on the plateau
        model = Linear.draw(K, 20, scale=0.5)
        X = model.samples(4)
        found = audit(saved(model.onnx()), X, settings=cpu(method="exact"))
        assert_allclose(values(found), model.lambda_max(X), rtol=2e-3)
        assert_allclose(values(found, "trace"), [np.trace(model.fisher(x)) for x in X], rtol=2e-3)
        assert_allclose(values(found, "logit_sensitivity"), np.linalg.norm(model.W, 2), rtol=2e-3)
        assert {s.lambda_max.kind for s in found.samples} == {"exact"}
        assert found.run.method == "exact"
        assert all(s.lambda_max.low <= t <= s.lambda_max.high for s, t in zip(found.samples, model.lambda_max(X), strict=True))

    @pytest.mark.parametrize("end", ["Softmax", "LogSoftmax"])
    def test_all_ways_to_end_give_the_same(self, saved, cpu, end):  # 0.2 %: float32
        model = Linear.draw(5, 12)
        X = model.samples(3)
        assert_allclose(values(audit(saved(model.onnx(end=end)), X, settings=cpu())), model.lambda_max(X), rtol=2e-3)

    def test_probabilities_alone_give_the_same(self):  # 0.2 %: float64 function, forward differences of √p
        model = Linear.draw(5, 12)
        X = model.samples(3)
        fn = from_callable(lambda X: softmax(model.logits(X), axis=1), (12,), 5, dtype="float64")
        found = audit(fn, X)
        assert "2 ∂√p" in found.model.read_from
        assert_allclose(values(found), model.lambda_max(X), rtol=2e-3)

    def test_sigmoids(self, saved, cpu):  # 0.2 %: float32
        model = Linear.draw(4, 10)
        X = model.samples(3)
        p = expit(model.logits(X))
        truth = [np.linalg.eigvalsh(model.W.T @ np.diag(q * (1 - q)) @ model.W)[-1] for q in p]
        assert_allclose(values(audit(saved(model.onnx(end="Sigmoid")), X, settings=cpu())), truth, rtol=2e-3)
        assert_allclose(values(audit(saved(model.onnx()), X, settings=cpu(output_kind="sigmoid"))), truth, rtol=2e-3)

    def test_one_sigmoid_has_a_boundary(self, saved, cpu):  # 0.2 %: float32
        model = Linear.draw(1, 10)
        X = model.samples(6)
        found = audit(saved(model.onnx(end="Sigmoid")), X, np.arange(6) % 2, cpu())
        z = model.logits(X)[:, 0]
        assert_allclose(values(found, "boundary_distance"), np.abs(z) / np.linalg.norm(model.W), rtol=2e-3)
        assert [s.prediction for s in found.samples] == (z > 0).astype(int).tolist()

    @pytest.mark.parametrize("sigma", [0.5, 2.0])
    def test_gaussian(self, saved, cpu, sigma):  # 0.2 %: float32
        model = Linear.draw(3, 10)
        X = model.samples(3)
        found = audit(saved(model.onnx()), X, settings=cpu(output_kind="gaussian", sigma=sigma))
        assert_allclose(values(found), np.linalg.norm(model.W, 2) ** 2 / sigma**2, rtol=2e-3)
        assert all(s.prediction is None and s.confidence is None and s.boundary_distance.value is None for s in found.samples)
        assert found.calibration.temperature is None

    @pytest.mark.parametrize("end", [None, 1])
    def test_positions_add_up(self, saved, cpu, end):  # 0.2 %: float32; F is block diagonal over the pixels of a 1×1 convolution
        made, W = models.conv(K=3, channels=2, size=4, softmax_axis=end)
        X = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
        found = audit(saved(made), X, settings=cpu())
        p = softmax(np.einsum("kc,nchw->nkhw", W, X), axis=1).reshape(3, 3, 16)
        blocks = [[np.linalg.eigvalsh(W.T @ models.covariance(q[:, i]) @ W) for i in range(16)] for q in p]
        assert_allclose(values(found), np.array(blocks)[..., -1].max(axis=1), rtol=2e-3)
        assert_allclose(values(found, "trace"), np.array(blocks).sum(axis=(1, 2)), rtol=2e-3)
        assert found.model.positions == 16

    def test_temperature_form(self, saved, cpu):  # 0.2 %: float32, at the fitted temperature
        model = Linear.draw(4, 10, scale=2.0)
        X = model.samples(200)
        y = np.random.default_rng(0).integers(0, 4, 200)
        y[:150] = model.logits(X)[:150].argmax(axis=1)
        found = audit(saved(model.onnx()), X, y, cpu(samples=5))
        T = found.run.temperature
        assert abs(np.log(T)) > 0.1
        assert_allclose(values(found, "lambda_max_calibrated"), model.lambda_max(X[:5], T), rtol=2e-3)
        assert_allclose(values(found), model.lambda_max(X[:5]), rtol=2e-3)

    def test_boundary_distance(self, saved, cpu):  # 0.2 %: float32; a linear model's is exact
        model = Linear.draw(4, 10)
        X = model.samples(5)
        z = model.logits(X)
        truth = [
            min((q[c] - q[j]) / np.linalg.norm(model.W[c] - model.W[j]) for j in range(4) if j != c)
            for q in z
            for c in [q.argmax()]
        ]
        assert_allclose(values(audit(saved(model.onnx()), X, settings=cpu()), "boundary_distance"), truth, rtol=2e-3)

    def test_saturated_samples_keep_their_values(self):  # 0.2 %; λ of 1e-30 from the logits of a float64 function
        model = Linear.draw(3, 8)
        X = model.samples(4).astype(np.float64)
        shift = np.array([70.0, 0.0, 0.0])
        found = audit(
            from_callable(lambda X: model.logits(X) + shift, (8,), 3, dtype="float64"), X, settings=Settings(method="exact")
        )
        truth = np.array([models.precise_lambda(z, model.W) for z in model.logits(X) + shift])
        assert truth.max() < 1e-25
        assert_allclose(values(found), truth, rtol=2e-3)
        assert "saturated" in {f.id for f in found.findings}


class TestInvariants:
    MODEL = Mlp.draw(5, 12)
    X = MODEL.samples(4).astype(np.float64)

    def run(self, fn=None, X=None, **options):
        X = self.X if X is None else X
        wrapped = from_callable(fn or self.MODEL.logits, X.shape[1:], 5, dtype="float64")
        return audit(wrapped, X, settings=Settings(**options))

    def test_against_the_dense_matrix(self):  # 0.2 %: forward differences on the plateau
        assert_allclose(values(self.run()), self.MODEL.lambda_max(self.X), rtol=2e-3)

    @pytest.mark.parametrize("method", ["sketch", "exact"])
    def test_constant_and_permutation(self, method):  # 0.1 %: rounding may move the step by a rung
        order = np.array([3, 1, 4, 0, 2])
        base = values(self.run(method=method))
        assert_allclose(values(self.run(lambda X: self.MODEL.logits(X) + 7.0, method=method)), base, rtol=1e-3)
        assert_allclose(values(self.run(lambda X: self.MODEL.logits(X)[:, order], method=method)), base, rtol=1e-3)

    @pytest.mark.parametrize("a", [1 / 255, 30.0])
    def test_units(self, a):  # 0.1 %: the ladder scales with the inputs
        base, scaled = self.run(), self.run(lambda X: self.MODEL.logits(X / a), a * self.X)
        assert_allclose(values(scaled) * a**2, values(base), rtol=1e-3)
        assert_allclose(values(scaled, "boundary_distance") / a, values(base, "boundary_distance"), rtol=1e-3)

    def test_inequalities(self):  # slack of the differences, 0.2 %
        found = self.run(method="exact")
        lam, trace, J = values(found), values(found, "trace"), values(found, "logit_sensitivity")
        assert (lam <= trace * 1.002).all()
        assert (trace <= 4 * lam * 1.002).all()
        assert (lam <= J**2 / 2 * 1.002).all()
        assert all(1 <= s.effective_rank.value <= 4.01 for s in found.samples)

    def test_shape_of_the_input_does_not_matter(self):  # the same numbers
        flat = self.run()
        square = self.run(lambda X: self.MODEL.logits(X.reshape(len(X), -1)), self.X.reshape(4, 1, 3, 4))
        assert_allclose(values(square), values(flat), rtol=1e-12)


@pytest.mark.slow
class TestRepetition:
    @pytest.fixture
    def file(self, saved):
        return saved(Mlp.draw(4, 150).onnx())

    X = Mlp.draw(4, 150).samples(20)
    Y = np.arange(20) % 4

    @pytest.mark.parametrize("options", [{}, {"method": "sketch"}, {"method": "exact"}, {"precision": 0.3}, {"seed": 5}], ids=str)
    def test_the_same_json_twice(self, file, cpu, options):
        first, second = (audit(file, self.X, self.Y, cpu(batch=16, **options)) for _ in range(2))
        assert scrubbed(first) == scrubbed(second)

    def test_the_same_json_whatever_batch_was_found(self, file, cpu):
        first, second = (audit(file, self.X, self.Y, cpu()) for _ in range(2))
        if first.run.times["batch"] == second.run.times["batch"]:
            assert scrubbed(first) == scrubbed(second)
        assert_allclose(values(first), values(second), rtol=2e-3)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "options", [{}, {"method": "sketch"}, {"method": "exact"}, {"method": "sketch", "step": 3e-3}], ids=str
    )
    def test_the_batch_does_not_matter(self, file, cpu, options):  # 0.2 %: float32 products in another blocking
        found = [audit(file, self.X, self.Y, cpu(batch=b, **options)) for b in (1, 7, 64)]
        for other in found[1:]:
            assert_allclose(values(other), values(found[0]), rtol=2e-3)
            assert [s.directions for s in other.samples] == [s.directions for s in found[0].samples]
            assert other.run.evaluations == found[0].run.evaluations

    def test_for_a_float64_function_the_batch_does_not_show(self):  # float64 rounding over a step of 1e-5
        model = Mlp.draw(4, 150)
        fn = from_callable(lambda X: np.stack([model.logits(x[None])[0] for x in X]), (150,), 4, dtype="float64")
        found = [audit(fn, self.X[:8], settings=Settings(batch=b)) for b in (1, 7, 64)]
        for other in found[1:]:
            np.testing.assert_array_equal(values(other), values(found[0]))

    def test_another_seed_is_another_draw_of_the_same(self, file, cpu):
        one, two = (audit(file, self.X, self.Y, cpu(seed=s, method="sketch")) for s in (0, 1))
        assert not np.isclose(values(one), values(two), rtol=1e-4).all()
        truth = Mlp.draw(4, 150).lambda_max(self.X)
        for found in (one, two):
            inside = [s.lambda_max.low <= t <= s.lambda_max.high for s, t in zip(found.samples, truth, strict=True)]
            assert np.mean(inside) >= 0.9

    def test_a_bad_sample_changes_no_other(self, file, cpu):  # bit for bit: streams are named by the position in the data
        settings = cpu(batch=8, step=1e-3, method="sketch", budget=40)
        spoiled = self.X.copy()
        spoiled[3, 7] = np.nan
        whole, rest = audit(file, self.X, self.Y, settings), audit(file, spoiled, self.Y, settings)
        assert [s.index for s in rest.skipped] == [3]
        assert "NaN" in rest.skipped[0].reason
        assert "skipped-samples" in {f.id for f in rest.findings}
        theirs = {s.index: s for s in whole.samples}
        assert [s.index for s in rest.samples] == [i for i in range(20) if i != 3]
        for s in rest.samples:
            if s.directions == theirs[s.index].directions:  # which samples are refined depends on all of them
                assert_allclose(s.lambda_max.value, theirs[s.index].lambda_max.value, rtol=1e-3)

    def test_a_sample_audited_alone_is_the_same(self, file, cpu):  # float32 products in another blocking
        settings = cpu(batch=8, step=1e-3, method="exact")
        alone = audit(file, self.X[:1], settings=settings)
        assert_allclose(values(alone)[0], values(audit(file, self.X, settings=settings))[0], rtol=1e-3)


@pytest.mark.slow
class TestBudget:
    MODEL = Mlp.draw(4, 400)
    X = MODEL.samples(24)

    @pytest.mark.parametrize("budget", [12, 50, 101, 400])
    def test_it_is_kept(self, saved, cpu, budget, reused):
        found = audit(saved(self.MODEL.onnx()), self.X, settings=cpu(budget=budget, method="sketch"))
        spent = [s.evaluations for s in found.samples]
        assert np.mean(spent) <= max(budget, 9 + 1)
        flips = sum(s.flip_radius.evaluations for s in found.samples)  # beside the budget
        assert sum(reused.values()) in (6 * 4, 6 * 8)  # one row a direction at each of the ladder's samples
        assert found.run.evaluations == sum(spent) - 24 + found.step.evaluations + 24 + flips - sum(reused.values())
        if budget >= 50:
            assert np.mean(spent) > 0.8 * budget, "what is paid for is used"

    def test_the_rest_goes_where_probabilities_may_move_whatever_the_noise(self, saved, cpu):
        path = saved(self.MODEL.onnx())
        spent = [
            np.array([s.directions for s in audit(path, self.X, settings=cpu(budget=201, method="sketch", seed=seed)).samples])
            for seed in (0, 1)
        ]
        np.testing.assert_array_equal(*spent)  # chosen by noise, means would come out too low
        p = softmax(self.MODEL.logits(self.X), axis=1)
        top = np.argsort(-(p * (1 - p)).max(axis=1))[:6]
        assert spent[0][top].min() > spent[0].mean()

    def test_precision_is_reached_or_said(self, saved, cpu):
        path = saved(self.MODEL.onnx())
        loose = audit(path, self.X, settings=cpu(precision=0.9, method="sketch"))
        assert "precision-not-reached" not in {f.id for f in loose.findings}
        tight = audit(path, self.X, settings=cpu(precision=0.001, max_budget=150, method="sketch"))
        finding = next(f for f in tight.findings if f.id == "precision-not-reached")
        assert "0.1% was asked for" in finding.message

    def test_more_directions_are_nearer(self, saved, cpu):
        path = saved(self.MODEL.onnx())
        truth = self.MODEL.lambda_max(self.X)
        errors = [
            np.abs(values(audit(path, self.X, settings=cpu(budget=b, method="sketch"))) / truth - 1).mean() for b in (25, 400)
        ]
        assert errors[1] < 0.6 * errors[0]  # √16 less the refinement's unevenness


class TestMemory:
    def test_a_failed_allocation_halves_the_batch_and_goes_on(self, saved, cpu, monkeypatch):
        model = Mlp.draw(4, 30)
        X = model.samples(10)
        path = saved(model.onnx())
        whole = audit(path, X, settings=cpu(batch=64, method="sketch"))
        plain, calls = OnnxForward._bound, []

        def bound(self, X, rows, of):
            calls.append(len(rows.sample))
            if len(rows.sample) > 20:
                raise OutOfMemory("model: ONNX Runtime ran out of memory (bad_alloc). Use a smaller --batch.")
            return plain(self, X, rows, of)

        monkeypatch.setattr(OnnxForward, "_bound", bound)
        found = audit(path, X, settings=cpu(batch=64, method="sketch"))
        assert found.run.times["batch"] <= 20
        assert max(calls) > 20, "the first failed"
        assert_allclose(values(found), values(whole), rtol=2e-3)


@pytest.mark.slow
class TestInterrupt:
    MODEL = Mlp.draw(4, 150)
    X = MODEL.samples(30)

    def interrupted(self, path, settings, stage, after):
        seen = []

        def progress(p):
            seen.append(p.stage)
            if p.stage == stage and seen.count(stage) == after:  # once, as a key is pressed
                raise KeyboardInterrupt

        return audit(path, self.X, settings=settings, progress=progress)

    @pytest.mark.parametrize(
        ("method", "stage", "after"),
        [("sketch", "measuring", 5), ("sketch", "refining", 1), ("exact", "measuring", 5), ("auto", "measuring", 5)],
    )
    def test_what_was_done_is_kept(self, saved, cpu, method, stage, after):
        path = saved(self.MODEL.onnx())
        found = self.interrupted(path, cpu(batch=8, method=method), stage, after)
        assert found.run.partial
        assert "partial" in {f.id for f in found.findings}
        assert 0 < len(found.samples) <= 30
        if stage == "measuring":
            assert len(found.samples) < 30
        whole = {s.index: s for s in audit(path, self.X, settings=cpu(batch=8, method=method)).samples}
        assert {s.index for s in found.samples} <= set(whole)
        assert Audit.from_json(found.to_json()) == found

    @pytest.mark.parametrize(("method", "run"), [("sketch", "sketch"), ("exact", "exact"), ("auto", "gradient")])
    def test_the_method_is_the_one_that_was_interrupted(self, saved, cpu, method, run):
        found = self.interrupted(saved(self.MODEL.onnx()), cpu(batch=8, method=method), "measuring", 5)
        assert found.run.method == run

    @pytest.mark.parametrize("method", ["sketch", "auto"])
    def test_while_the_graph_is_read_the_samples_are_kept(self, saved, cpu, method):
        found = self.interrupted(saved(self.MODEL.onnx()), cpu(batch=8, method=method), "bounding", 1)
        assert found.run.partial
        assert len(found.samples) == 30
        assert found.bound is None

    @pytest.mark.parametrize("stage", ["clean pass", "choosing the step"])
    def test_nothing_done_is_told_of_every_sample(self, saved, cpu, stage):
        found = self.interrupted(saved(self.MODEL.onnx()), cpu(), stage, 1)
        assert found.run.partial
        assert found.samples == ()
        assert [(s.index, s.reason) for s in found.skipped] == [(i, "interrupted before it was measured") for i in range(30)]
        assert found.step.unchosen == "interrupted before it was measured"
        assert found.aggregates["lambda_max"].mean.value is None
        assert Audit.from_json(found.to_json()) == found
        for render in renderers().values():
            assert "interrupted" in str(render(found)) or "interrupted" not in found.verdict


class TestBadOutputs:
    def test_a_sample_whose_output_is_not_finite_is_skipped(self, cpu):
        model = Linear.draw(3, 6)
        X = model.samples(8)
        X[5, 0] = 100

        def fn(X):
            return np.where(X[:, :1] > 50, np.nan, model.logits(X))

        found = audit(from_callable(fn, (6,), 3), X, settings=cpu())
        assert [(s.index, s.reason) for s in found.skipped] == [(5, "the model's output is not finite at this sample")]
        assert [s.index for s in found.samples] == [0, 1, 2, 3, 4, 6, 7]

    def test_none_finite_is_an_error(self, cpu):
        with pytest.raises(InputError, match="no output is finite on any sample"):
            audit(from_callable(lambda X: np.full((len(X), 3), np.inf), (6,), 3), np.zeros((4, 6), np.float32), settings=cpu())

    @pytest.mark.parametrize("share", [0.02, 0.2])
    def test_outputs_that_break_near_a_sample_skip_it_and_go_on(self, cpu, share):
        """NaN in a part of the perturbed rows, in the first round or in the refinement."""
        model = Mlp.draw(4, 150)
        X = model.samples(20)
        rng = np.random.default_rng(0)
        clean = {x.tobytes() for x in X}

        def fn(Z):
            z = model.logits(Z)
            lost = (rng.random(len(Z)) < share / 20) & np.array([x.astype(np.float32).tobytes() not in clean for x in Z])
            z[lost] = np.nan
            return z

        found = audit(from_callable(fn, (150,), 4), X, settings=cpu(step=1e-3, method="sketch"))
        assert len(found.samples) + len({s.index for s in found.skipped}) == 20
        assert len({s.index for s in found.skipped}) == len(found.skipped), "each is named once"
        assert found.skipped
        assert all("not finite near this sample" in s.reason for s in found.skipped)

    def test_no_sample_left_is_no_pass(self, cpu):
        X = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
        clean = {x.tobytes() for x in X}

        def fn(Z):
            at = np.array([x.astype(np.float32).tobytes() in clean for x in Z])
            return np.where(at[:, None], Z[:, :3], np.nan)

        found = audit(from_callable(fn, (6,), 3), X, settings=cpu(step=1e-3))
        assert found.samples == ()
        assert found.verdict == "inconclusive"
        assert len(found.skipped) == 5


class TestWhichSamples:
    MODEL = Linear.draw(3, 6)

    @pytest.fixture
    def folder(self, tmp_path):
        """Images of three classes, twelve each, in the order of their classes."""
        image = DEV.load("PIL.Image")
        rng = np.random.default_rng(0)
        for name in ("bird", "cat", "dog"):
            (tmp_path / "images" / name).mkdir(parents=True)
            for i in range(12):
                image.fromarray(rng.integers(0, 256, (2, 3), np.uint8)).save(tmp_path / "images" / name / f"{i:02}.png")
        return load(tmp_path / "images", shape=(2, 3))

    def audited(self, data, **options):
        fn = from_callable(lambda X: self.MODEL.logits(X.reshape(-1, 6)), (2, 3), 3)
        return audit(fn, data, settings=Settings(method="exact", **options))

    def test_of_class_folders_a_seeded_draw_over_the_classes(self, folder):
        whole = self.audited(folder)
        few = self.audited(folder, samples=9)
        chosen = [s.index for s in few.samples]
        assert len(whole.samples) == 36
        assert len(set(chosen)) == 9
        assert chosen == sorted(chosen)
        assert {s.name.split("/")[0] for s in few.samples} == {"bird", "cat", "dog"}, "the first nine are all birds"
        assert [s.index for s in self.audited(folder, samples=9).samples] == chosen
        assert [s.index for s in self.audited(folder, samples=9, seed=1).samples] != chosen
        by_index = {s.index: s for s in whole.samples}
        for s in few.samples:
            assert (s.name, s.label) == (by_index[s.index].name, s.index // 12)
        assert_allclose(values(few), [by_index[i].lambda_max.value for i in chosen], rtol=1e-2)  # steps found on other samples
        assert few.data.class_names == ("bird", "cat", "dog")

    def test_of_arrays_the_first(self, folder):
        found = self.audited(replace(folder, by_class=False), samples=9)
        assert [s.index for s in found.samples] == list(range(9))


class TestKeptOutputs:
    MODEL = Mlp.draw(4, 150)
    X = MODEL.samples(16)

    def audited(self, **options):
        fn = from_callable(self.MODEL.logits, (150,), 4, dtype="float64")
        return audit(fn, self.X, settings=Settings(method="sketch", step=1e-3, **options))

    def test_only_those_that_are_likely_to_weigh_most_are_kept_where_memory_is_bounded(self, monkeypatch):
        first_round = self.audited(precision=0.9)  # reached at once: nothing is refined
        (first,) = {s.directions for s in first_round.samples}
        z = self.MODEL.logits(self.X)
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        weights = (p * (1 - p)).max(axis=1)
        largest = sorted(first_round.samples, key=lambda s: weights[s.index])[-3:]
        free = {s.index for s in self.audited().samples if s.directions > first}
        assert len(free) > 3, "with room for all, more samples are refined"
        one = (first + 1) * 4 * 8  # bytes: a row of float64 logits for each direction, and the sample's own
        monkeypatch.setattr("onnxfim.auditing.stages.by_differences.KEPT_BYTES", 3 * one)
        found = self.audited()
        refined = {s.index for s in found.samples if s.directions > first}
        assert refined
        assert refined <= {s.index for s in largest}
        assert len(found.samples) == 16
        for s, before in zip(found.samples, first_round.samples, strict=True):
            if s.index not in refined:
                assert s.lambda_max == before.lambda_max


class TestFindings:
    MODEL = Linear.draw(4, 10)
    X = MODEL.samples(60)

    def ids(self, labels, **options):
        fn = from_callable(self.MODEL.logits, (10,), 4)
        return {f.id: f for f in audit(fn, self.X, labels, Settings(samples=10, **options)).findings}

    def test_no_labels(self):
        assert "only raw values exist" in self.ids(None)["no-labels"].message

    def test_chance_accuracy_is_an_error(self):
        found = self.ids((self.MODEL.logits(self.X).argmax(axis=1) + 1) % 4)["accuracy-near-chance"]
        assert found.level == "error"
        assert "wrong normalisation" in found.message

    def test_perfect_accuracy_has_no_temperature(self):
        assert "temperature-unfitted" in self.ids(self.MODEL.logits(self.X).argmax(axis=1))

    def test_confidence_far_from_accuracy(self):
        hot = Linear(8 * self.MODEL.W, 8 * self.MODEL.b)
        y = hot.logits(self.X).argmax(axis=1)
        y[:20] = (y[:20] + 1) % 4
        found = audit(from_callable(hot.logits, (10,), 4), self.X, y, Settings(samples=10))
        ids = {f.id for f in found.findings}
        assert {"confidence-gap", "temperature"} <= ids

    def test_most_serious_first(self):
        levels = [f.level for f in self.ids((self.MODEL.logits(self.X).argmax(axis=1) + 1) % 4).values()]
        assert levels == sorted(levels, key=["error", "warning", "note"].index)

    def test_verdict_follows_errors(self):
        fn = from_callable(self.MODEL.logits, (10,), 4)
        wrong = (self.MODEL.logits(self.X).argmax(axis=1) + 1) % 4
        assert audit(fn, self.X, wrong).verdict == "inconclusive"
        assert audit(fn, self.X).verdict == "measured"


class TestArguments:
    MODEL = Linear.draw(3, 6)

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"samples": 0}, "samples: 0"), ({"budget": 11}, "at least 12"), ({"precision": 0.0}, "precision"),
         ({"step": -1.0}, "step"), ({"step": float("nan")}, "step"),
         ({"seed": -1}, "seed"), ({"batch": 0}, "batch"), ({"providers": ()}, "providers: none"),
         ({"sigma": 0.0}, "sigma"), ({"method": "guess"}, "method: 'guess'"), ({"output_kind": "odd"}, "output_kind: 'odd'"),
         ({"precision": 0.1, "max_budget": 50}, "max_budget: 50 is less")],
    )  # fmt: skip
    def test_settings_that_cannot_be(self, options, words):
        with pytest.raises(SettingsError, match=words):
            Settings(**options)

    @pytest.mark.parametrize(
        ("X", "y", "error", "words"),
        [
            (np.zeros((4, 7)), None, InputError, r"samples have shape \(7,\), but the model takes \(6,\)"),
            (np.zeros((0, 6)), None, InputError, "is empty"),
            (np.full((4, 6), np.nan), None, InputError, "none of the 4 selected samples can be used"),
            (np.zeros((4, 6)), np.zeros(3, int), InputError, "labels have shape"),
            (np.zeros((4, 6)), np.array([0, 1, 3, 0]), InputError, "label 3 of sample 2, expected 0 to 2"),
            (np.zeros((4, 6), complex), None, InputError, "complex numbers"),
        ],
    )
    def test_data_that_do_not_fit(self, saved, cpu, X, y, error, words):
        with pytest.raises(error, match=words):
            audit(saved(self.MODEL.onnx()), X, y, cpu())

    def test_custom_operator(self, saved, cpu):
        with pytest.raises(ModelError, match="without custom operators"):
            audit(saved(models.custom()), np.zeros((2, 4)), settings=cpu())

    def test_a_path_may_be_text_and_the_file_stays_as_it_was(self, saved, cpu):
        path = saved(self.MODEL.onnx(batch=1, end="Softmax"))
        before = path.read_bytes()
        X = self.MODEL.samples(3)
        mine = X.copy()
        assert len(audit(str(path), X, settings=cpu()).samples) == 3
        assert path.read_bytes() == before
        np.testing.assert_array_equal(X, mine)

    def test_progress_grows_to_its_total(self, saved, cpu):
        seen = []
        audit(saved(self.MODEL.onnx()), self.MODEL.samples(12), settings=cpu(method="sketch"), progress=seen.append)
        done = [p.done for p in seen]
        assert done == sorted(done)
        assert all(p.done <= p.total for p in seen if p.total)
        assert {p.stage for p in seen} >= {"clean pass", "choosing the step", "measuring", "refining"}

    def test_audit_can_be_called_as_the_package_says(self):
        import onnxfim

        X = self.MODEL.samples(3)
        fn = from_callable(self.MODEL.logits, (6,), 3)
        assert onnxfim.audit(fn, X).samples == audit(fn, X).samples
        assert issubclass(InputError, OnnxFimError)

    def test_raw_units(self, saved, cpu):  # float64 factor; the interval spans the channels' scales
        X = self.MODEL.samples(4)
        path = saved(self.MODEL.onnx())
        found = audit(path, X, settings=cpu(input_scale=(0.5,)))
        for s in found.samples:
            assert_allclose(s.lambda_max_raw_units.value, 0.25 * s.lambda_max.value, rtol=1e-12)
            assert s.lambda_max_raw_units.kind == "exact"
        assert "lambda_max_raw_units" in found.aggregates
        assert "lambda_max_raw_units" not in audit(path, X, settings=cpu()).aggregates

    def test_raw_units_of_uneven_scales(self, saved, cpu):  # 0.2 %: float32; F_raw = S F S
        X = self.MODEL.samples(4)
        scale = (0.5, 0.25, 1.0, 2.0, 0.1, 0.7)
        S = np.diag(scale)
        truth = [np.linalg.eigvalsh(S @ self.MODEL.fisher(x) @ S)[-1] for x in X]
        for method in ("auto", "exact", "sketch"):
            found = audit(saved(self.MODEL.onnx()), X, settings=cpu(input_scale=scale, method=method))
            for s, t in zip(found.samples, truth, strict=True):
                raw = s.lambda_max_raw_units
                assert raw.low * 0.998 <= t <= raw.high * 1.002
                if raw.kind == "exact":
                    assert_allclose(raw.value, t, rtol=2e-3)
        with pytest.raises(SettingsError, match=r"input_scale: 4 numbers, but samples have shape \(6,\)"):
            audit(saved(self.MODEL.onnx()), X, settings=cpu(input_scale=(1.0, 2.0, 3.0, 4.0)))
