"""Noise through whole audits: counts held against plain loops over the file's own answers, whatever the file and the way."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnxruntime
import pytest

from onnxfim import Settings, audit
from onnxfim.auditing.stages import noise as stage_of_noise
from onnxfim.auditing.subject import from_callable
from onnxfim.record.audit import Audit
from onnxfim.record.noises import noises
from onnxfim.record.successive_looks import looks, noise_level
from onnxfim.runtime.stopping import Stop
from tests.support import models
from tests.support.failing_under_noise import at_rest, chance_at, failing, noisy
from tests.support.models import Mlp
from tests.support.places import DEV, SAMPLES
from tests.support.serving import Model, onnx_function, served
from tests.support.step_models import forest
from tests.support.whole_nets import Bag, Levels

QUICK = {"replay": 0, "bounds": False, "flip": False}
MODEL = Mlp.draw(4, 20)
X = MODEL.samples(12)
NOISE = "gaussian:0.3"


def under(path, X, cpu, *kinds, **options):
    return audit(path, X, settings=cpu(**{**QUICK, "noise": kinds or (NOISE,), "noise_budget": 1500, **options}))


def held_against(found, X, predictions, *, scale=1.0, seed=0):
    """Each sample's counts against the predictions of its rows, a function of them, and its decision against the looks."""
    assert found.samples
    level = noise_level(len(found.samples), len(found.settings.noise))
    plan = looks(found.settings.noise_stable, level, found.settings.noise_budget)
    for x, sample in zip(X, found.samples, strict=True):
        assert [t.noise for t in sample.noise] == list(found.settings.noise)
        for tried, noise in zip(sample.noise, noises(found.settings.noise), strict=True):
            rows = noisy(x, noise, tried.tries, seed=seed, scale=scale)
            same = np.cumsum(predictions(rows) == sample.prediction)
            assert tried.kept == same[-1]
            seen = [int(same[k.tries - 1]) for k in plan.looks if k.tries <= tried.tries]
            told = plan.standing(seen)
            assert (tried.tries, tried.low, tried.high, tried.decided) == (told.tries, told.low, told.high, told.decided)
            assert all(plan.standing(seen[:k]).decided == "open" for k in range(1, len(seen)))
    assert Audit.from_json(found.to_json()) == found


def of_file(path, *, name="x", output=0, decide=lambda z: z.argmax(axis=1)):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda rows: decide(session.run(None, {name: rows})[output])


class TestWhateverTheFile:
    @pytest.mark.parametrize("method", ["gradient", "sketch", "exact"])
    def test_a_float_file(self, saved, cpu, method):
        path = saved(MODEL.onnx())
        found = under(path, X, cpu, NOISE, "uniform:1/4", method=method)
        held_against(found, X, of_file(path))
        assert {t.decided for s in found.samples for t in s.noise} >= {"stable", "unstable"}

    @pytest.mark.parametrize("name", ["digits_resnet_int8", "digits_resnet_fp16", "digits_resnet_softmax"])
    def test_files_that_round(self, cpu, name):
        path = SAMPLES / f"{name}.onnx"
        with np.load(SAMPLES / "digits.npz") as data:
            some = data["inputs"][:6]
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        given = some.astype(np.float16 if "float16" in session.get_inputs()[0].type else np.float32)
        found = under(path, given, cpu, "gaussian:0.1", batch=64, noise_budget=300)
        held_against(found, given, of_file(path, name=session.get_inputs()[0].name))

    def test_float64(self, saved, cpu):
        path = saved(MODEL.onnx(dtype="float64"))
        held_against(under(path, X.astype(np.float64), cpu), X.astype(np.float64), of_file(path))

    def test_trees_which_have_no_slope(self, saved, cpu):
        path = saved(forest(9, 5, 3, seed=2))
        rows = np.random.default_rng(3).standard_normal((8, 5)).astype(np.float32)
        found = under(path, rows, cpu)
        assert all(s.lambda_max.value is None for s in found.samples)
        held_against(found, rows, of_file(path))

    @pytest.mark.parametrize("outputs", [1, 5])
    def test_sigmoids(self, saved, cpu, outputs):
        net = Mlp.draw(outputs, 20)
        made = net.onnx()
        path = saved(made)
        decide = (lambda z: (z[:, 0] > 0).astype(int)) if outputs == 1 else (lambda z: z.argmax(axis=1))
        found = under(path, X, cpu, output_kind="sigmoid")
        held_against(found, X, of_file(path, decide=decide))

    def test_a_function_of_the_users(self, cpu):
        found = under(from_callable(MODEL.logits, (20,), 4), X, cpu)
        held_against(found, X, lambda rows: MODEL.logits(rows).argmax(axis=1))

    def test_a_served_model(self, saved, cpu, tmp_path):
        with np.load(SAMPLES / "digits.npz") as data:
            some = data["inputs"][:5]
        path = SAMPLES / "digits_mlp.onnx"
        DEV.load("urllib3")
        with served({"digits": Model(onnx_function(path), some.shape[1:], 10)}) as server:
            found = under(server.url, some, cpu, "gaussian:0.1", method="sketch", budget=40, noise_budget=200)
        held_against(found, some, of_file(path, name="images"))

    def test_tokens_move_in_the_units_of_their_embedding(self, saved, cpu):
        bag = Bag.draw()
        ids = bag.ids(5)
        found = under(saved(bag.onnx()), ids, cpu, "gaussian:0.4")
        held_against(found, bag.E[ids], lambda rows: np.array([bag.logits(e.astype(float)).argmax() for e in rows]))
        assert found.noise[0].units == "units of the embedding"

    def test_a_named_inner_value(self, saved, cpu):
        bag = Bag.draw()
        ids = bag.ids(5)
        found = under(saved(bag.onnx()), ids, cpu, at="e")
        assert found.model.at.named
        held_against(found, bag.E[ids], lambda rows: np.array([bag.logits(e.astype(float)).argmax() for e in rows]))

    @pytest.mark.parametrize("dtype", ["uint8", "int8"])
    def test_pictures_of_bytes_stay_pictures_of_bytes(self, saved, cpu, dtype):
        """The rows are those that the file itself can be fed: whole levels, and none beyond its type."""
        image = Levels.draw()
        path, pictures = saved(image.onnx(dtype=dtype)), image.images(4, dtype=np.dtype(dtype))
        found = under(path, pictures, cpu, "gaussian:30", "uniform:5")
        answers, ends = of_file(path), np.iinfo(dtype)

        def fed(rows):
            return answers(np.clip(np.rint(rows), ends.min, ends.max).astype(dtype))

        held_against(found, pictures.astype(np.float32), fed)
        assert found.noise[0].units == "levels of the input"

    def test_dequantised_pictures_too(self, saved, cpu):
        from tests.graph.test_inner import IMAGES

        image = Levels.draw()
        nodes, dtype, weights, *_ = IMAGES["DequantizeLinear"]
        path, pictures = saved(image.onnx(nodes, dtype=dtype, weights=weights)), image.images(4)
        answers = of_file(path)
        held_against(
            under(path, pictures, cpu, "gaussian:9"), ((pictures.astype(np.float32) - 128) * np.float32(0.5)),
            lambda rows: answers(np.clip(np.rint(rows / 0.5 + 128), 0, 255).astype(np.uint8)),
        )  # fmt: skip

    def test_sizes_are_in_raw_units_of_each_channel(self, saved, cpu):
        scale = tuple(np.linspace(0.2, 3, 20).tolist())
        path = saved(MODEL.onnx())
        found = under(path, X, cpu, input_scale=scale)
        held_against(found, X, of_file(path), scale=scale)
        assert found.noise[0].units == "raw input units"
        assert under(path, X, cpu).noise[0].units == "model input units"

    @pytest.mark.parametrize("kind", ["gaussian", "embedding"])
    def test_without_a_prediction_there_is_a_reason(self, saved, cpu, kind):
        found = under(saved(MODEL.onnx()), X, cpu, output_kind=kind)
        (tried,) = {s.noise[0] for s in found.samples}
        assert (tried.tries, tried.low, tried.high, tried.decided) == (0, 0.0, 1.0, "open")
        assert tried.reason == "defined for a classifier with one decision per sample"
        assert found.noise == ()

    def test_rows_that_depend_on_their_neighbours_are_no_tries(self, saved, cpu):
        A = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
        nodes = [("MatMul", ["x", "A"], ["u"], {}), ("ReduceMean", ["u"], ["m"], {"axes": [0]}), ("Sub", ["u", "m"], ["z"], {})]
        path = saved(models.model(nodes, {"A": A}, shape=(20,), out=(4,)))
        found = under(path, X, cpu)
        assert {s.noise[0].reason for s in found.samples} == {stage_of_noise._NEIGHBOURS}
        assert found.noise == ()

    def test_outputs_that_are_not_finite_are_changes(self, saved, cpu):
        """The logarithm of a number that noise makes negative: NaN at about half of the rows of a sample near 0."""
        W = np.full((2, 2), 0.1, np.float32)
        nodes = [("Log", ["x"], ["l"], {}), ("MatMul", ["l", "W"], ["u"], {}), ("Add", ["u", "b"], ["z"], {})]
        path = saved(models.model(nodes, {"W": W, "b": np.float32([1, 0])}, shape=(2,), out=(2,)))
        rows = np.float32([[0.01, 5], [9, 9]])
        found = under(path, rows, cpu, "gaussian:1")
        first, second = (s.noise[0] for s in found.samples)
        assert first.decided == "unstable"
        assert 0.2 < first.kept / first.tries < 0.8
        assert second.decided == "stable"


class TestTruth:
    def test_every_interval_holds_the_known_chance(self, saved, cpu):
        """Chances from 0.003 % to one half, known in closed form; seeds are fixed, and one interval in a hundred audits may miss."""
        first = np.linspace(-0.3, 0.5, 30, dtype=np.float32)
        X, path = at_rest(30, first=first), saved(failing(0.03, 0.2))
        truth = 1 - chance_at(first, 0.03, 0.2)
        for seed in range(5):
            found = under(path, X, cpu, "gaussian:0.2", seed=seed, noise_budget=4000, batch=500)
            for p, s, x in zip(truth, found.samples, first, strict=True):
                p = p if s.prediction == 0 else 1 - p
                (tried,) = s.noise
                assert tried.low <= p <= tried.high, (x, tried)
                assert tried.decided != ("unstable" if p >= 0.99 else "stable"), (x, tried)

    def test_a_planted_failure_of_3_percent_is_never_called_stable(self, saved, cpu):
        """Ten audits of eight samples; `bench_noise.py planted` makes 200."""
        path = saved(failing(0.03, 0.2))
        for seed in range(10):
            found = under(path, at_rest(8, seed=seed), cpu, "gaussian:0.2", seed=seed, noise_budget=4000, batch=500)
            assert {s.noise[0].decided for s in found.samples} <= {"unstable", "open"}
            assert found.noise[0].stable_samples == 0
            assert found.noise[0].share.value == 0

    def test_one_that_never_fails_is_stable_at_the_first_look_that_can_tell(self, saved, cpu):
        found = under(saved(failing(0.03, 0.2)), at_rest(8, first=-9), cpu, "gaussian:0.2")
        soonest = looks(0.99, noise_level(8, 1), 1500).soonest
        assert {(s.noise[0].decided, s.noise[0].tries) for s in found.samples} == {("stable", soonest)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return models.save(MODEL.onnx(), tmp_path_factory.mktemp("noise") / "model.onnx")


@pytest.fixture(scope="module")
def whole(path):
    return audit(path, X, settings=Settings(providers=("cpu",), **QUICK, noise=(NOISE, "uniform:0.2"), noise_budget=1500))


class TestRuns:
    @pytest.mark.parametrize("batch", [1, 7, 100])
    def test_the_batch_changes_nothing(self, path, cpu, whole, batch):
        found = under(path, X, cpu, NOISE, "uniform:0.2", batch=batch)
        assert [s.noise for s in found.samples] == [s.noise for s in whole.samples]
        assert found.noise == whole.noise

    def test_samples_that_are_tried_together_change_nothing(self, path, cpu, whole, monkeypatch):
        for name, value in (("_FIRST", 1), ("_MOST", 5), ("_SECONDS", 1e-6)):
            monkeypatch.setattr(stage_of_noise, name, value)
            assert [s.noise for s in under(path, X, cpu, NOISE, "uniform:0.2").samples] == [s.noise for s in whole.samples]

    def test_another_seed_is_other_noise(self, path, cpu, whole):
        assert [s.noise for s in under(path, X, cpu, NOISE, "uniform:0.2", seed=1).samples] != [s.noise for s in whole.samples]

    def test_every_row_is_counted(self, path, cpu, whole):
        none = audit(path, X, settings=cpu(**QUICK))
        assert whole.run.evaluations - none.run.evaluations == sum(t.tries for s in whole.samples for t in s.noise)
        assert [s.tries for s in whole.noise] == [sum(s.noise[k].tries for s in whole.samples) for k in range(2)]

    def test_the_progress_tells_samples(self, path, cpu):
        told = []
        audit(path, X, settings=cpu(**QUICK, noise=(NOISE, "uniform:0.2"), batch=64), progress=told.append)
        at = [(p.stage_done, p.stage_total, p.stage_unit) for p in told if p.stage == "adding noise" and p.stage_total]
        assert at
        assert {(total, unit) for _, total, unit in at} <= {(24, "samples")}

    def test_what_was_kept_is_used_again(self, path, cpu, whole, tmp_path):
        options = {**QUICK, "noise_budget": 1500}
        settings = cpu(**options, noise=(NOISE, "uniform:0.2"))
        first = audit(path, X, settings=settings, cache_dir=tmp_path)
        again = audit(path, X, settings=settings, cache_dir=tmp_path)
        tries = sum(t.tries for s in whole.samples for t in s.noise)
        assert again.run.times["cached_rows"] - first.run.times["cached_rows"] >= tries
        assert again.run.evaluations == first.run.evaluations == whole.run.evaluations
        assert again.samples == first.samples == whole.samples

    def test_another_budget_goes_on_from_what_was_kept(self, path, cpu, tmp_path):
        short = cpu(**QUICK, noise=(NOISE,), noise_budget=200, noise_stable=0.95)
        audit(path, X, settings=short, cache_dir=tmp_path)
        far = cpu(**QUICK, noise=(NOISE,), noise_budget=3000)
        found, fresh = audit(path, X, settings=far, cache_dir=tmp_path), audit(path, X, settings=far)
        assert [s.noise for s in found.samples] == [s.noise for s in fresh.samples]
        assert found.run.evaluations == fresh.run.evaluations
        assert found.run.times["cached_rows"] > 32 * 12

    def test_an_interrupt_keeps_what_was_finished_and_the_next_run_goes_on(self, path, cpu, whole, tmp_path, monkeypatch):
        monkeypatch.setattr(stage_of_noise, "_FIRST", 2)
        monkeypatch.setattr(stage_of_noise, "_MOST", 2)
        settings, stop, seen = cpu(**QUICK, noise=(NOISE, "uniform:0.2"), noise_budget=1500), Stop(), []

        def progress(p):
            seen.append(p.stage)
            if seen.count("adding noise") == 4:
                stop.ask()

        found = audit(path, X, settings=settings, progress=progress, stop=stop, cache_dir=tmp_path)
        assert found.run.partial
        done = [t for s in found.samples for t in s.noise if t.tries]
        left = [t for s in found.samples for t in s.noise if not t.tries]
        assert len(done) in range(2, 12)
        assert len(found.samples) == 12
        assert {t.reason for t in left} == {"the run was interrupted before it was tried"}
        again = audit(path, X, settings=settings, cache_dir=tmp_path)
        assert again.samples == whole.samples
        assert again.run.times["cached_rows"] >= sum(t.tries for t in done)

    def test_a_stage_that_fails_gives_its_reason(self, path, cpu, monkeypatch):
        def broken(*_):
            raise ZeroDivisionError("nobody foresaw it")

        monkeypatch.setattr(stage_of_noise._UnderNoise, "of_all", broken)
        found = under(path, X, cpu)
        assert "adding noise" in {f.stage for f in found.run.failed_stages}
        assert all("ZeroDivisionError" in s.noise[0].reason for s in found.samples)
        assert found.noise == ()

    def test_without_noise_nothing_is_there(self, path, cpu):
        found = audit(path, X, settings=cpu(**QUICK))
        assert {s.noise for s in found.samples} == {()}
        assert found.noise == ()
        assert dataclasses.replace(found, noise=()) == found
