"""The plan of an audit against what it did: every stage was planned, and takes about as many passes as the plan has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from onnxfim.auditing.course import Course
from onnxfim.auditing.meter import Progress
from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from tests.support.places import SAMPLES

AUDITS = {
    "gradient": ("digits_resnet.onnx", {}),
    "gradient with an attack": ("digits_vit.onnx", {"attack": "l2", "attack_samples": 20}),
    "gradient with an attack in L∞": ("digits_vgg.onnx", {"attack": "linf", "attack_samples": 20}),
    "gradient with a bracket": ("digits_resnet.onnx", {"bracket": True}),
    "sketch": ("digits_mlp.onnx", {"method": "sketch", "budget": 400}),
    "sketch with a bracket": ("digits_mlp.onnx", {"method": "sketch", "budget": 200, "bracket": True}),
    "exact with a bracket": ("digits_mlp.onnx", {"method": "exact", "bracket": True}),
    "exact": ("digits_mlp.onnx", {"method": "exact"}),
    "rounding": ("digits_resnet_int8.onnx", {"budget": 200}),
    "surrogate": ("digits_resnet_int8.onnx", {"surrogate": True}),
    "smoothed": ("digits_resnet_adv.onnx", {"certify": ("smoothing:0.05", "smoothing:0.1"), "certify_budget": 200}),
    "smoothed and attacked": ("digits_mlp.onnx", {"certify": ("smoothing:0.05",), "attack": "l2", "attack_samples": 5}),
    "smoothed by differences": ("digits_mlp.onnx", {"certify": ("smoothing:0.05",), "method": "exact"}),
    "noise": ("digits_mlp.onnx", {"noise": ("gaussian:0.01", "uniform:8/255")}),
    "noise on what rounds": ("digits_resnet_int8.onnx", {"noise": ("gaussian:0.01",), "budget": 40}),
    "little": ("digits_mlp.onnx", {"flip": False, "bounds": False, "replay": 0}),
}


@dataclass(frozen=True)
class Ran:
    """An audit, what it told on its way, and the stages that it entered although nobody had planned them."""

    audit: Audit
    told: list[Progress]
    unplanned: list[str]


@pytest.fixture(scope="module", params=AUDITS)
def ran(request):
    file, options = AUDITS[request.param]
    with np.load(SAMPLES / "digits.npz") as data:
        X, y = data["inputs"], data["labels"]
    settings = Settings(**{"samples": 60, "replay": 10, "providers": ("cpu",), **options})
    told, unplanned, enter = [], [], Course.enter

    def entered(self, stage):
        if self._running is None and stage not in {p.stage for p in self._coming}:
            unplanned.append(stage)
        return enter(self, stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Course, "enter", entered)
        return Ran(audit(SAMPLES / file, X, y, settings, progress=told.append), told, unplanned)


def test_every_stage_that_runs_was_planned(ran):
    assert ran.unplanned == []


def test_the_passes_that_are_planned_are_those_that_are_made(ran):
    """Within a quarter, from when the method is settled."""
    run = ran.audit.run
    forecasts = [p.forecast for p in ran.told if p.forecast is not None and p.forecast.sure]
    assert forecasts[0].method == run.method
    assert forecasts[0].passes == pytest.approx(run.evaluations, rel=0.25)
    assert forecasts[-1].passes == pytest.approx(run.evaluations, rel=0.05)
    assert {f.samples for f in forecasts} == {60}


def test_what_is_told_hangs_together(ran):
    told = ran.told
    shares, steps = [p.share for p in told], [p.step for p in told]
    assert shares == sorted(shares)
    assert steps == sorted(steps)
    assert told[-1].step >= told[-1].steps - 1
    for p in told:
        assert 0 <= p.share <= 1
        assert 0 <= p.stage_done <= max(p.stage_total, 0)
        assert p.step <= p.steps
        assert p.seconds_left is None or p.seconds_left >= p.stage_seconds_left >= 0
    known = [p.seconds_left is not None for p in told]
    assert known == sorted(known), "once it is known it stays known"
    assert {p.stage_unit for p in told if p.stage == "measuring" and p.stage_total} <= {"passes", "samples"}
    assert {p.stage_unit for p in told if p.stage == "bounding" and p.stage_total} <= {"layers"}
