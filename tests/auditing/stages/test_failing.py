"""A stage that fails where nobody foresaw it: a finding, and everything else as without it."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from onnxfim.auditing import schedule
from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.report.formats import renderers
from tests.support.faults import Unforeseen, break_stage, has_fallback, stages_by_name
from tests.support.models import Mlp
from tests.support.places import SAMPLES

MODEL = Mlp.draw(4, 40)
X = MODEL.samples(12)
LABELS = np.arange(12) % 4
GRADIENT = {"replay": 2}
ATTACK = {"replay": 0, "flip": False, "attack": "linf", "attack_samples": 2}
BRACKET = {"replay": 0, "bracket": True}
SKETCH = {"method": "sketch", "budget": 200}
#: What asks for a stage that no audit runs by itself.
ASKED_BY = {"certifying by smoothing": {"certify": ("smoothing:0.5",), "certify_budget": 100}}
#: Without these there is nothing to measure, or no audit to write.
NEEDED = {"clean pass", "concluding", "telling why there is no value"}
#: What a stage's failure changes beside its own part: where it decides how the samples are measured.
DECIDES = {"choosing the step", "differentiating", "measuring by gradients", "looking for ties", "calibration", "refining"}


def record(found):
    """What was found at the samples and in the graph, without what depends on the clock."""
    layout = json.loads(found.to_json())
    (layout.get("attack") or {}).pop("seconds", None)
    names = ("samples", "skipped", "aggregates", "classes", "thumbnails", "calibration", "bound", "attack")
    return {name: layout.get(name) for name in names}


def own_part(name, layout):
    """The record without what the stage of that name would have found."""
    for sample in layout["samples"]:
        drop = {
            "looking for flips": ("flip_radius", "flip_lengths", "bracket"), "replaying the worst directions": ("kl_curve",),
            "attacking": ("attack_distance", "bracket"), "certifying by smoothing": ("smoothed",),
            "bounding around the samples": ("certified_radius", "certified_radius_linf", "bracket"),
            "bounding": ("log10_fisher_bound", "bracket"), "bounding the samples": ("log10_fisher_bound",),
        }.get(name, ())  # fmt: skip
        for field in drop:
            sample.pop(field, None)
    for field in {
        "bounding": ("bound", "aggregates"), "bounding the samples": ("aggregates",), "attacking": ("attack", "aggregates"),
        "bounding around the samples": ("aggregates",), "looking for flips": ("aggregates",), "taking statistics": ("aggregates",),
        "predicting distances": ("aggregates",), "looking for flips in L∞": ("aggregates",),
        "telling the classes": ("classes",), "picturing the samples": ("thumbnails",),
    }.get(name, ()):  # fmt: skip
        layout.pop(field)
    return layout


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An audit of each kind without a failure, made when it is asked for."""
    from onnxfim.record.settings import Settings
    from tests.support import models

    path, made = models.save(MODEL.onnx(), tmp_path_factory.mktemp("model") / "model.onnx"), {}

    def of(options):
        key = str(options)
        if key not in made:
            made[key] = audit(path, X, LABELS, Settings(providers=("cpu",), batch=8, **options))
        return made[key]

    return path, of


@pytest.mark.parametrize("options", [SKETCH, GRADIENT], ids=["sketch", "gradient"])
@pytest.mark.parametrize("name", sorted(set(stages_by_name()) - NEEDED))
def test_the_audit_goes_on_without_it(monkeypatch, cpu, whole, caplog, name, options):
    caplog.set_level(logging.INFO, logger="onnxfim")
    path, of = whole
    beside = {"attacking": ATTACK, "bounding around the samples": BRACKET}
    options = beside.get(name, options) if options is GRADIENT else options
    options = {**options, **ASKED_BY.get(name, {})}
    expected = of(options)
    times = break_stage(monkeypatch, name)
    if not has_fallback(name):
        if name == "measuring by differences" and options is SKETCH:
            with pytest.raises(Unforeseen):
                audit(path, X, LABELS, cpu(batch=8, **options))
        return
    found = audit(path, X, LABELS, cpu(batch=8, **options))
    if not times:
        assert record(found) == record(expected), "a stage that is not called changes nothing"
        return
    assert [f.stage for f in found.run.failed_stages] == [name]
    failed = found.run.failed_stages[0]
    assert (failed.error, failed.message) == ("Unforeseen", "a wild value")
    assert found.verdict == "inconclusive"
    finding = next(f for f in found.findings if f.id == "stage-failed")
    assert finding.level == "error"
    assert f"{name} (Unforeseen: a wild value)" in finding.message
    assert "report it" in finding.message
    assert any(r.exc_info is not None and isinstance(r.exc_info[1], Unforeseen) for r in caplog.records)
    assert Audit.from_json(found.to_json()) == found
    if name not in DECIDES:
        assert own_part(name, record(found)) == own_part(name, record(expected))
    for kind, render in renderers().items():
        assert "a wild value" in str(render(found)) or kind in ("csv",), kind


@pytest.mark.parametrize("name", ["choosing the step", "looking for ties", "calibration"])
def test_gradients_need_no_step_and_no_temperature(monkeypatch, cpu, whole, name):
    path, of = whole
    expected = of({})
    break_stage(monkeypatch, name)
    found = audit(path, X, LABELS, cpu(batch=8))
    assert [s.lambda_max for s in found.samples] == [s.lambda_max for s in expected.samples]
    assert found.run.method == "gradient"


def test_without_a_step_no_sketch_is_made_up(monkeypatch, cpu, whole):
    break_stage(monkeypatch, "choosing the step")
    found = audit(whole[0], X, LABELS, cpu(batch=8, method="sketch"))
    assert found.samples == ()
    assert {s.reason for s in found.skipped} == {"no step: choosing the step failed unexpectedly (Unforeseen)"}
    assert found.aggregates["lambda_max"].mean.value is None


@pytest.mark.parametrize("name", ["differentiating", "measuring by gradients"])
def test_gradients_that_fail_leave_the_differences(monkeypatch, cpu, whole, name):
    path, of = whole
    expected = of({"method": "exact"})
    break_stage(monkeypatch, name)
    found = audit(path, X, LABELS, cpu(batch=8))
    assert found.run.method == "exact", "all coordinates, which the budget covers"
    assert [s.lambda_max for s in found.samples] == [s.lambda_max for s in expected.samples]
    assert not found.gradient.used
    assert found.gradient.reason == f"{name} failed unexpectedly (Unforeseen)"


def test_refining_that_fails_leaves_the_first_round(monkeypatch, cpu, whole):
    break_stage(monkeypatch, "refining")
    found = audit(whole[0], X, LABELS, cpu(batch=8, **SKETCH))
    assert len(found.samples) == len(X)
    assert len({s.directions for s in found.samples}) == 1


def test_one_sample_that_fails_is_skipped_and_the_others_are_measured(monkeypatch, cpu, whole):
    from onnxfim.slopes.measurer import Measurer

    path, of = whole
    expected, plain = of(SKETCH), Measurer.__call__

    def wild(self, sample, *rest):
        if sample.index == 3:
            raise Unforeseen("of this sample")
        return plain(self, sample, *rest)

    monkeypatch.setattr(Measurer, "__call__", wild)
    monkeypatch.setattr(schedule, "most_deciding", lambda *_: [])
    found = audit(path, X, LABELS, cpu(batch=8, **SKETCH))
    assert [(s.index, s.reason) for s in found.skipped] == [(3, "measuring by differences failed unexpectedly (Unforeseen)")]
    assert [s.index for s in found.samples] == [s.index for s in expected.samples if s.index != 3]
    assert found.verdict == "inconclusive"


def test_the_node_is_told_where_it_is_known(monkeypatch, cpu, whole):
    from onnxfim.spectral import reading

    def read(view, **_):
        for node in view.graph.nodes:  # noqa: B007 - what the frame that fails knows
            raise Unforeseen("at a node")

    monkeypatch.setattr(reading, "read_graph", read)
    found = audit(whole[0], X, LABELS, cpu(batch=8))
    node = found.run.failed_stages[0].node
    assert node.split()[0] in {n.op_type for n in MODEL.onnx().graph.node}
    assert f"at the node {node}" in next(f for f in found.findings if f.id == "stage-failed").message


def test_a_surrogate_check_that_fails_says_so(monkeypatch, cpu):
    times = break_stage(monkeypatch, "checking against the surrogate")
    with np.load(SAMPLES / "digits.npz") as data:
        found = audit(SAMPLES / "digits_resnet_int8.onnx", data["inputs"][:6], settings=cpu(budget=60, bounds=False, flip=False))
    assert times
    assert found.gradient.no_check == "checking against the surrogate failed unexpectedly (Unforeseen)"
    assert len(found.samples) == 6


def test_a_check_that_fails_is_a_finding(monkeypatch, cpu, whole):
    from dataclasses import replace

    from onnxfim.verdict import findings
    from onnxfim.verdict.judge import judge

    def says(_):
        raise Unforeseen("in a check")

    monkeypatch.setitem(findings.CHECKS, "partial", replace(findings.CHECKS["partial"], says=says))
    found = judge(whole[1]({}))
    assert found.verdict == "inconclusive"
    assert "The check 'partial' failed" in next(f for f in found.findings if f.id == "stage-failed").message
