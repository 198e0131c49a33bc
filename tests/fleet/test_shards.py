"""Plans, shards and merges: one audit in parts is the audit in one piece, number for number."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from onnxfim import Settings, audit, fleet
from onnxfim.data import load
from onnxfim.errors import InputError, ModelError, OutputError, ProviderError, SettingsError
from onnxfim.fleet.merging import looked_at
from onnxfim.graph.load import load_model
from onnxfim.record.plan import Plan
from onnxfim.record.running import MISSING_SHARDS, UNSHARDED
from onnxfim.record.shard import Shard
from onnxfim.runtime.stopping import Stop, Stopped
from tests.support.models import Mlp
from tests.support.places import SAMPLES

DIGITS = SAMPLES / "digits.npz"
SAMPLE_COUNT = 24
BATCH = 64  # found by a clock otherwise
GRADIENT = {"samples": SAMPLE_COUNT, "batch": BATCH, "replay": 6}
SKETCH = {"samples": SAMPLE_COUNT, "batch": BATCH, "method": "sketch", "budget": 60}
CASES = {
    "gradient": ("digits_resnet", GRADIENT),
    "attacked": ("digits_mlp", {**GRADIENT, "attack": "l2", "attack_samples": 5}),
    "bracketed": ("digits_mlp", {**GRADIENT, "bracket": True}),
    "sketch": ("digits_mlp", SKETCH),
    "raw units": ("digits_mlp", {**SKETCH, "input_scale": (0.5,)}),
    "coordinates": ("digits_mlp", {"samples": SAMPLE_COUNT, "batch": BATCH, "method": "exact"}),
    "bracket": ("digits_mlp", {**GRADIENT, "bracket": True, "input_scale": (0.5,)}),
    "bracket by sketch": ("digits_mlp", {**SKETCH, "bracket": True}),
    "bracket by coordinates": ("digits_mlp", {"samples": SAMPLE_COUNT, "batch": BATCH, "method": "exact", "bracket": True}),
    "quantised": ("digits_resnet_int8", {**SKETCH, "method": "auto", "budget": 100, "samples": 12}),
}


def timeless(found):
    """An audit's record without what depends on clocks."""
    record = json.loads(found.to_json())
    for name in ("seconds", "times"):
        del record["run"][name]
    record["identity"].pop("date", None)
    if record.get("attack"):
        del record["attack"]["seconds"]
    return record


@pytest.fixture(scope="module")
def samples():
    return load(DIGITS)


class Measured:
    """An audit in one piece, its plan, and shards of it."""

    def __init__(self, samples, model, settings):
        self.samples, self.model, self.settings = samples, load_model(SAMPLES / f"{model}.onnx"), Settings(**settings)
        self.whole = timeless(audit(self.model, samples, settings=self.settings))
        self.plan = Plan.from_json(fleet.plan(self.model, samples, settings=self.settings).to_json())

    def shard(self, i, n, **options):
        with fleet.opened(self.plan, self.model, self.samples, **options) as work:
            return Shard.from_json(work.measure(self.plan.lot(i, n), part=(i, n)).to_json())

    def shards(self, n, **options):
        return [self.shard(i, n, **options) for i in range(1, n + 1)]

    def merged(self, shards, **options):
        return fleet.merge(self.plan, shards, finish=(self.model, self.samples), **options)


@pytest.fixture(scope="module")
def measured(samples):
    made = {}

    def of(case):
        if case not in made:
            made[case] = Measured(samples, *CASES[case])
        return made[case]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("case", ["gradient", "sketch"])
def test_shards_of_any_number_make_the_audit_of_one_process(measured, case, n):
    of = measured(case)
    shards = of.shards(n)
    assert timeless(of.merged([*shards[::-1], shards[0]])) == of.whole  # in any order, one of them twice


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["attacked", "raw units", "coordinates", "quantised", "bracket", "bracket by sketch", "bracket by coordinates"]
)
def test_whatever_couples_the_samples_is_in_the_plan(measured, case):
    of = measured(case)
    assert timeless(of.merged(of.shards(3))) == of.whole


@pytest.mark.parametrize("case", ["gradient", "sketch"])
def test_rows_of_a_call_are_each_shards_own(measured, case):
    of = measured(case)
    shards = [of.shard(1, 3, batch=5), of.shard(2, 3), of.shard(3, 3, batch=200)]
    assert {s.batch for s in shards} == {5, BATCH, 200}
    assert timeless(of.merged(shards)) == of.whole


@pytest.mark.parametrize("case", ["gradient", "sketch", "bracket"])
def test_parts_of_any_kind_measured_by_one_process_are_the_same(measured, case):
    of = measured(case)
    order = np.random.default_rng(0).permutation(of.plan.audited)
    with fleet.opened(of.plan, of.model, of.samples) as work:
        parts = [work.measure(part.tolist()) for part in np.split(order, [1, 9, 10])]
    assert timeless(of.merged(parts)) == of.whole


@pytest.mark.parametrize("case", ["gradient", "sketch"])
def test_a_shard_that_was_stopped_goes_on_from_the_cache(measured, tmp_path, case):
    of, stop = measured(case), Stop()
    told = []

    def report(progress):
        told.append(progress.stage)
        if told.count("measuring") == 4 or progress.stage == "looking for flips":
            stop.ask("SIGTERM")

    with fleet.opened(of.plan, of.model, of.samples, progress=report, cache_dir=tmp_path, batch=1) as work, pytest.raises(Stopped):
        work.measure(of.plan.lot(1, 2), part=(1, 2), stop=stop)
    assert any(tmp_path.iterdir())
    again = of.shard(1, 2, cache_dir=tmp_path)
    assert again.evaluations == of.shard(1, 2).evaluations
    assert timeless(of.merged([again, of.shard(2, 2)])) == of.whole


def test_a_model_that_is_a_function_is_planned_too():
    from onnxfim import from_callable

    model = Mlp.draw(4, 30)
    given, X = from_callable(model.logits, (30,), 4, dtype="float64"), model.samples(12)
    settings = Settings(method="sketch", budget=40, batch=16)
    whole = timeless(audit(given, X, settings=settings))
    from onnxfim.auditing.run import samples_of

    samples = samples_of(given, X, None, settings)
    plan = fleet.plan(given, samples, settings=settings)
    with fleet.opened(plan, given, samples) as work:
        shards = [work.measure(plan.lot(i, 2), part=(i, 2)) for i in (1, 2)]
    assert timeless(fleet.merge(plan, shards)) == whole


class TestMissing:
    def test_shards_that_are_missing_are_named(self, measured, told):
        of = measured("sketch")
        with pytest.raises(
            fleet.Missing, match=told("merge: shards 1/3, 3/3 missing: 8 of 24 samples are there", "--partial")
        ) as raised:
            of.merged([of.shard(2, 3)])
        assert raised.value.parts == ((1, 3), (3, 3))
        assert sorted(raised.value.indices) == sorted({*of.plan.lot(1, 3), *of.plan.lot(3, 3)})

    def test_a_partial_audit_lists_what_is_missing_and_decides_nothing(self, measured):
        of = measured("sketch")
        found = of.merged([of.shard(2, 3)], partial=True)
        assert (found.run.partial, found.run.interrupted_by, found.verdict) == (True, MISSING_SHARDS, "inconclusive")
        assert {s.index for s in found.skipped if s.reason == UNSHARDED} == {*of.plan.lot(1, 3), *of.plan.lot(3, 3)}
        assert (len(found.samples), found.wanted) == (8, 24)
        finding = next(f for f in found.findings if f.id == "partial")
        assert finding.message == "Shards are missing: the audit holds 8 of 24 samples. Measure the others, and merge again."

    def test_without_the_model_what_looks_at_it_again_is_left_out_and_told(self, measured):
        of = measured("gradient")
        found = fleet.merge(of.plan, of.shards(2))
        assert looked_at(found, found.samples)
        assert [f.stage for f in found.run.failed_stages] == ["looking over all samples"]
        assert all(s.kl_curve is None for s in found.samples)
        assert [s.lambda_max for s in found.samples] == [s.lambda_max for s in of.merged(of.shards(2)).samples]


class TestRefused:
    def test_shards_of_another_plan(self, measured, told):
        of = measured("sketch")
        with pytest.raises(
            InputError, match=told("shard 1 of 2: was measured by the plan ffffffffffff…", "Give shards of one plan")
        ):
            of.merged([replace(of.shard(1, 2), plan="f" * 64)])

    def test_shards_of_other_versions(self, measured, told):
        of = measured("sketch")
        shard = of.shard(1, 2)
        other = replace(shard, versions={**shard.versions, "numpy": "0.1"})
        with pytest.raises(
            InputError, match=told("shard 1 of 2: was measured with numpy 0.1, planned with", "the versions of the plan")
        ):
            of.merged([other])

    def test_shards_of_two_counts(self, measured, told):
        of = measured("sketch")
        with pytest.raises(InputError, match=told("overlaps", "expected shards of one count")):
            of.merged([of.shard(1, 2), of.shard(1, 3)])

    def test_a_shard_twice_with_other_values(self, measured, told):
        of = measured("sketch")
        shard = of.shard(1, 2)
        other = replace(shard, samples=(replace(shard.samples[0], confidence=0.5), *shard.samples[1:]))
        with pytest.raises(InputError, match=told("is there twice, and sample 0 differs", "Keep the one that you trust")):
            of.merged([shard, other])

    def test_another_model(self, measured, samples, told):
        of = measured("sketch")
        with pytest.raises(ModelError, match=told("digits_resnet.onnx: its hash is", "Give that model.")):
            fleet.opened(of.plan, load_model(SAMPLES / "digits_resnet.onnx"), samples)

    def test_other_data(self, measured, samples, told):
        of = measured("sketch")
        moved = replace(samples, inputs=samples.inputs + np.float32(0.01))
        with pytest.raises(InputError, match=told("sample 0 is another one than was planned", "or plan again")):
            fleet.opened(of.plan, of.model, moved)
        with pytest.raises(InputError, match=told("sample 3 of the plan is not there", "Give the data that were planned")):
            fleet.opened(of.plan, of.model, samples.take(np.arange(3)))

    def test_another_label_is_another_sample(self, measured, samples, told):
        of = measured("sketch")
        labels = samples.labels.copy()
        labels[5] += 1
        with fleet.opened(of.plan, of.model, samples.take(np.arange(len(samples)))) as work:
            work.measure([5])
        with pytest.raises(InputError, match=told("sample 5 is another one than was planned")):
            fleet.opened(of.plan, of.model, replace(samples, labels=labels)).measure([5])

    def test_a_sample_that_is_none_of_the_plans(self, measured, told):
        of = measured("sketch")
        with (
            fleet.opened(of.plan, of.model, of.samples) as work,
            pytest.raises(InputError, match=told("sample 999 is none of those")),
        ):
            work.measure([0, 999])

    def test_another_provider(self, measured, told):
        of = measured("sketch")
        run = {**of.plan.draft["run"], "provider": "CUDAExecutionProvider"}
        plan = replace(of.plan, draft={**of.plan.draft, "run": run})
        with pytest.raises(
            ProviderError, match=told("runs on CPUExecutionProvider here, and was planned on CUDAExecutionProvider")
        ):
            fleet.opened(plan, of.model, of.samples)

    def test_a_precision_looks_at_all_samples(self, samples, told):
        with pytest.raises(
            SettingsError, match=told("precision: 0.1 is reached by looking at the values of all samples", "Give --budget")
        ):
            fleet.plan(load_model(SAMPLES / "digits_mlp.onnx"), samples, settings=Settings(precision=0.1))


class TestText:
    def test_a_plan_is_read_as_it_was_written_and_its_id_is_of_what_moves_numbers(self, measured):
        plan = measured("sketch").plan
        again = Plan.from_json(plan.to_json())
        assert (again, again.id) == (plan, plan.id)
        elsewhere = replace(plan, reading=None, draft={**plan.draft, "run": {**plan.draft["run"], "seconds": 9.0}})
        assert elsewhere.id == plan.id
        for change in ({"batch": plan.batch + 1}, {"grain": 0.5}, {"audited": plan.audited[:-1]}, {"foreseen": 1}):
            assert replace(plan, **change).id != plan.id

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{}", "no 'plan_version' field"),
            ('{"plan_version": "2"}', "plan_version is \"2\", expected '1'"),
            ('{"plan_version": "1"}', "is missing"),
            ("[]", "no 'plan_version' field"),
        ],
    )
    def test_what_is_no_plan(self, text, words, told):
        with pytest.raises(OutputError, match=told("plan: ", words)):
            Plan.from_json(text)

    @pytest.mark.parametrize("change", [{"digests": []}, {"way": "guess"}, {"batch": 0}, {"audited": [-1]}, {"draft": {}}])
    def test_a_plan_with_a_field_that_cannot_be(self, measured, change, told):
        record = {**json.loads(measured("sketch").plan.to_json()), **change}
        with pytest.raises(OutputError, match=told("plan: ")):
            Plan.from_json(json.dumps(record))

    @pytest.mark.parametrize("change", [{"shape": [3]}, {"content": "AAA="}, {"content": "é"}, {"dtype": "|O"}])
    def test_an_array_that_is_none(self, measured, change, told):
        of = measured("sketch")
        record = json.loads(of.plan.to_json())
        record["box"]["low"] |= change
        with pytest.raises(OutputError, match=told("plan: ")):
            fleet.opened(Plan.from_json(json.dumps(record)), of.model, of.samples)

    @pytest.mark.parametrize(
        "change", [{"shard_version": "2"}, {"samples": [{}]}, {"evaluations": -1}, {"part": [0, 2]}, {"nothing": 1}]
    )
    def test_what_is_no_shard(self, measured, change, told):
        record = {**json.loads(measured("sketch").shard(1, 3).to_json()), **change}
        with pytest.raises(OutputError, match=told("shard: ")):
            Shard.from_json(json.dumps(record))
