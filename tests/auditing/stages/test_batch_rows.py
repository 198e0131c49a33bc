"""Rows of a batch: models whose rows depend on each other, or disagree, and such as do neither."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper

from onnxfim.auditing.run import audit
from onnxfim.auditing.subject import from_callable
from onnxfim.record.measures import MEASURES
from onnxfim.record.sample import Estimate
from onnxfim.report.formats import FORMATS
from tests.support import models

RNG = np.random.default_rng(0)
A = RNG.standard_normal((6, 4)).astype(np.float32)
X = RNG.standard_normal((10, 6)).astype(np.float32)
SCORES = [("MatMul", ["x", "A"], ["u"], {})]
OVER = {"zero": np.array([0], np.int64)}
MEAN = [*SCORES, ("ReduceMean", ["u"], ["m"], {"axes": [0], "keepdims": 1})]
DEPENDENT = {
    "softmax over the batch": ([*SCORES, ("Softmax", ["u"], ["z"], {"axis": 0})], {}),
    "less the batch's mean": ([*MEAN, ("Sub", ["u", "m"], ["z"], {})], {}),
    "a thousandth of it": ([*MEAN, ("Mul", ["m", "e"], ["s"], {}), ("Sub", ["u", "s"], ["z"], {})], {"e": np.float32(1e-3)}),
    "attention over the batch": (
        [("Transpose", ["x"], ["k"], {}), ("MatMul", ["x", "k"], ["s"], {}), ("Softmax", ["s"], ["a"], {"axis": 1}),
         ("MatMul", ["a", "x"], ["y"], {}), ("MatMul", ["y", "A"], ["z"], {})], {},
    ),
    "normalisation in training mode": (
        [*SCORES, ("BatchNormalization", ["u", "g", "o", "o", "g"], ["z", "m", "v"], {"training_mode": 1})],
        {"g": np.ones(4, np.float32), "o": np.zeros(4, np.float32)},
    ),
}  # fmt: skip


@pytest.fixture
def audited(saved, cpu):
    def run(nodes, weights, fixed="N", **options):
        made = models.model(nodes, {"A": A, **weights}, shape=(6,), out=(4,), batch=fixed)
        return audit(saved(made), X, settings=cpu(replay=2, **options))

    return run


def levels(found):
    return {f.id: f.level for f in found.findings}


class TestDependentRows:
    @pytest.mark.parametrize("case", DEPENDENT)
    def test_no_value_is_given(self, audited, case):
        found = audited(*DEPENDENT[case])
        assert levels(found)["batch-dependent"] == "error"
        assert found.verdict == "inconclusive"
        assert found.rows.dependent
        for sample in found.samples:
            estimates = [
                e for m in MEASURES if isinstance(e := getattr(sample, m.name), Estimate) and m.name != "log10_fisher_bound"
            ]
            assert all(e.value is None for e in estimates)
            assert "neighbours in the batch" in sample.lambda_max.reason
            assert sample.prediction is not None
            assert sample.confidence is not None
        assert "not-deterministic" not in levels(found)

    def test_the_batch_that_a_file_insists_on_is_tried_too(self, audited):
        found = audited(*DEPENDENT["less the batch's mean"], fixed=4)
        assert levels(found)["batch-dependent"] == "error"
        assert found.rows.rows == 4
        assert found.rows.alone is None

    def test_every_format_is_written(self, audited):
        found = audited(*DEPENDENT["softmax over the batch"])
        for name, form in FORMATS.items():
            assert "inconclusive" in form(found).lower() or name in ("csv", "sarif"), name

    def test_a_function(self, cpu):
        found = audit(from_callable(lambda Z: Z @ A - (Z @ A).mean(axis=0), (6,), 4), X, settings=cpu())
        assert levels(found)["batch-dependent"] == "error"


class TestIndependentRows:
    def test_nothing_is_found(self, audited):  # one batch shape: bit for bit
        found = audited([*SCORES, ("Identity", ["u"], ["z"], {})], {})
        assert not found.rows.dependent
        assert (found.rows.neighbours, found.rows.identical, found.rows.repeated) == (0, 0, 0)
        assert not {"batch-dependent", "rows-disagree"} & set(levels(found))
        assert {s.lambda_max.kind for s in found.samples} == {"exact"}

    @pytest.mark.parametrize(("fixed", "options"), [(1, {}), ("N", {"batch": 1})])
    def test_one_row_a_call(self, audited, fixed, options):
        """A copy whose batch is free is tried; where each row has a call of its own there are no neighbours."""
        found = audited([*SCORES, ("Identity", ["u"], ["z"], {})], {}, fixed=fixed, **options)
        assert found.rows is None if options else not found.rows.dependent
        assert "batch-dependent" not in levels(found)


class TestRowsThatDisagree:
    @pytest.mark.parametrize(("off", "level"), [(1e-4, "warning"), (3.0, "error")])
    def test_by_their_place(self, cpu, off, level):
        """Every row of a batch is off by its place: less than a step changes, and more."""

        def placed(Z):
            return Z @ A + off * np.arange(len(Z))[:, None] * np.array([1, -1, 1, 0])

        found = audit(from_callable(placed, (6,), 4), X, settings=cpu(step=0.1))
        assert levels(found)["rows-disagree"] == level
        assert found.rows.identical > 0
        assert "exact" not in {s.lambda_max.kind for s in found.samples}

    def test_scales_taken_from_the_batch(self, saved, cpu):
        """Dynamic quantisation: rows move each other by a level, and the base rows get the shape of the moved ones.

        Weights of 6 bits: of 8, some processors saturate the sum of two products.
        """
        weights = {
            "W": RNG.integers(-60, 60, (6, 32)).astype(np.int8),
            "c": np.float32(6e-3),
            "M": 0.3 * RNG.standard_normal((32, 4)),
        }
        nodes = [
            ("DynamicQuantizeLinear", ["x"], ["q", "s", "o"], {}), ("MatMulInteger", ["q", "W", "o"], ["i"], {}),
            ("Cast", ["i"], ["f"], {"to": 1}), ("Mul", ["f", "s"], ["g"], {}), ("Mul", ["g", "c"], ["h"], {}),
            ("MatMul", ["h", "M"], ["z"], {}),
        ]  # fmt: skip
        made = models.model(nodes, {**weights, "M": weights["M"].astype(np.float32)}, shape=(6,), out=(4,))
        found = audit(saved(made), X, settings=cpu(replay=0, batch=8))
        assert not found.rows.dependent
        assert not found.rows.apart
        assert 1e-5 < found.rows.neighbours / found.rows.scale < 0.05
        assert "rows-disagree" in levels(found)
        assert "exact" not in {s.lambda_max.kind for s in found.samples}
        alone = audit(saved(made), X, settings=cpu(replay=0))
        assert levels(alone)["rows-apart"] == "note"
        assert "rows-disagree" not in levels(alone)
        assert alone.rows.apart
        assert alone.rows.neighbours == found.rows.neighbours, "what a batch would do is still told"
        assert_allclose(
            [s.lambda_max.value for s in alone.samples],
            [s.lambda_max.value for s in audit(saved(made), X, settings=cpu(replay=0, batch=1)).samples],
        )


class TestNoiseFloor:
    """Where a row differs from itself: beside moved rows, in calls of another size, from call to call."""

    def of(self, fault, cpu, **options):
        rng = np.random.default_rng(0)
        return audit(from_callable(lambda Z: Z @ A + fault(Z, rng), (6,), 4), X, settings=cpu(replay=0, flip=False, **options))

    def test_none_where_rows_agree(self, cpu):
        rows = self.of(lambda Z, rng: 0.0, cpu).rows
        assert rows.floor <= 1e-7 * rows.scale  # sums of six float32 products, in another order in another batch
        assert rows.largest <= 1e-6 * rows.scale
        assert rows.batch_rows == len(X)

    def test_beside_moved_rows(self, cpu):
        """Only a batch that holds moved rows is answered otherwise: its rows are off the grid of the samples."""

        def fault(Z, rng):
            return 1e-3 * (~np.isin(Z[:, 0], [*X[:, 0], *(0.5 * X[:, 0])]).all())

        found = self.of(fault, cpu, step=0.1)
        rows = found.rows
        assert_allclose(rows.beside_moved, 1e-3, rtol=1e-3)  # float32
        assert_allclose(rows.largest, 1e-3, rtol=1e-2)
        assert (rows.neighbours, rows.identical, rows.repeated) == (0, 0, 0)
        assert "beside moved rows" in next(f for f in found.findings if f.id == "rows-disagree").message

    def test_batches_of_another_size(self, cpu):
        found = self.of(lambda Z, rng: 1e-3 * (len(Z) > 8), cpu, step=0.1)
        assert_allclose(found.rows.batches, 1e-3, rtol=1e-3)  # float32
        assert found.rows.repeated == 0
        assert found.step.repeat_noise > 0
        assert "not-deterministic" not in levels(found)

    def test_calls_that_differ(self, cpu):
        found = self.of(lambda Z, rng: 1e-4 * rng.standard_normal((len(Z), 4)), cpu, step=0.1)
        assert 1e-5 < found.rows.floor < 1e-3
        assert found.rows.largest > found.rows.floor
        assert levels(found)["not-deterministic"] == "warning"


class TestStepFunctions:
    @pytest.mark.parametrize("trees", [5, 30])
    @pytest.mark.parametrize("ending", ["plain", "softmax", "cast"])
    def test_trees_have_no_value(self, saved, cpu, trees, ending):
        from tests.support.step_models import forest

        after = {
            "plain": (), "softmax": [("Softmax", ["p"], ["z"], {"axis": 1})],
            "cast": [("Cast", ["p"], ["d"], {"to": 11}), ("Cast", ["d"], ["z"], {"to": 1})],
        }[ending]  # fmt: skip
        found = audit(saved(forest(trees, 6, 3, after=after, regressor=ending == "softmax")), X, settings=cpu())
        assert levels(found)["no-slope"] == "error"
        assert found.verdict == "inconclusive"
        assert all(s.lambda_max.value is None and "step function" in s.lambda_max.reason for s in found.samples)
        assert all(s.prediction is not None and s.confidence is not None for s in found.samples)
        assert "TreeEnsemble" in found.model.no_slope

    @pytest.mark.parametrize("jumps", [lambda Z: np.round(2 * (Z @ A)), lambda Z: np.eye(4)[(Z @ A).argmax(axis=1)]])
    def test_values_tell_a_function_that_jumps(self, cpu, jumps):
        found = audit(from_callable(jumps, (6,), 4), np.concatenate([X, 0.7 * X, 0.4 * X]), settings=cpu())
        assert levels(found)["no-slope"] == "error"
        assert all(s.lambda_max.value is None for s in found.samples)

    @pytest.mark.parametrize(
        "smooth",
        [lambda Z: np.tanh(Z @ A), lambda Z: (Z @ A).astype(np.float16).astype(float), lambda Z: np.round(64 * np.tanh(np.round(8 * Z @ A) / 8)) / 16],
        ids=["tanh", "float16", "int8"],
    )  # fmt: skip
    def test_rounding_is_none(self, cpu, smooth):
        found = audit(from_callable(smooth, (6,), 4), np.concatenate([X, 0.7 * X]), settings=cpu())
        assert "no-slope" not in levels(found)
        assert found.measured

    def test_attack_and_replay_do_not_break_on_it(self, saved, cpu):
        labels = helper.make_tensor_value_info("best", TensorProto.INT64, ["N"])
        nodes = [
            *SCORES,
            ("ArgMax", ["u"], ["best"], {"axis": 1, "keepdims": 0}),
            ("OneHot", ["best", "n", "v"], ["z"], {"axis": 1}),
        ]
        made = models.model(
            nodes, {"A": A, "n": np.array(4), "v": np.array([0, 1], np.float32)}, shape=(6,), out=(4,), outputs=[labels]
        )
        found = audit(saved(made), X, labels=(X @ A).argmax(axis=1), settings=cpu(attack="l2", replay=4))
        assert levels(found)["no-slope"] == "error"
        for name, form in FORMATS.items():
            assert form(found), name
