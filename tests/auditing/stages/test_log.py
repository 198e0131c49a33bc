"""Every stage tells the log when it begins and ends, what it cost and how it was run."""

from __future__ import annotations

import logging
import re

import pytest

from onnxfim.auditing.run import audit
from onnxfim.auditing.stages import by_differences as differences
from onnxfim.auditing.subject import from_callable
from onnxfim.errors import ModelError
from tests.support.models import Mlp

MODEL = Mlp.draw(4, 40)
X = MODEL.samples(12)
END = re.compile(r"^(?P<stage>[a-z ]+): (done|broken off) in \d+\.\d\d s, (?P<passes>\d+) passes \((?P<facts>.+)\)$")


def messages(caplog, level):
    return [r.getMessage() for r in caplog.records if r.levelno == level and r.name.startswith("onnxfim.auditing.")]


@pytest.mark.parametrize(
    ("options", "measured"),
    [
        ({"method": "sketch"}, ["measuring by differences", "refining", "looking for flips"]),
        ({"method": "exact"}, ["measuring by differences", "looking for flips"]),
        (
            {"attack": "l2", "replay": 2},
            [
                "differentiating",
                "measuring by gradients",
                "checking against the sketch",
                "looking for flips",
                "replaying the worst directions",
                "attacking",
            ],
        ),
    ],
    ids=["sketch", "exact", "gradient"],
)
def test_stages_in_order_with_all_passes(saved, cpu, caplog, options, measured):
    caplog.set_level(logging.DEBUG, logger="onnxfim")
    found = audit(saved(MODEL.onnx()), X, settings=cpu(batch=8, **options))
    ends = [m for text in messages(caplog, logging.INFO) if (m := END.match(text))]
    stages = [m["stage"] for m in ends]
    assert stages == [
        "trying rows against each other",
        "clean pass",
        "looking for ties",
        "calibration",
        "choosing the step",
        *measured,
        "checking the scaling",
        "bounding",
        "concluding",
    ]
    assert sum(int(m["passes"]) for m in ends) == found.run.evaluations, "no pass outside a stage"
    assert [text.split(":")[0] for text in messages(caplog, logging.DEBUG)] == stages
    assert ends[0]["facts"] == "batch 8, CPUExecutionProvider"
    step = f"step {found.step.step:.3g} per coordinate, {found.step.scheme} differences"
    assert all(m["facts"] == f"{step}, batch 8, CPUExecutionProvider" for m in ends[5:])


def test_what_was_opened_and_a_stage_that_fails(saved, cpu, caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="onnxfim")

    def fails(*_):
        raise ModelError("model: gone.")

    monkeypatch.setattr(differences, "evaluate", fails)
    with pytest.raises(ModelError, match="gone"):
        audit(from_callable(MODEL.logits, (40,), 4, name="mine"), X, settings=cpu(method="sketch"))
    said = messages(caplog, logging.INFO)
    assert said[0].startswith("opened mine: logits")
    assert said[0].endswith("12 samples")
    assert said[-1].startswith("measuring by differences: broken off in ")
    assert said[-1].endswith("callable)")


def test_the_library_adds_no_handler(saved, cpu):
    audit(saved(MODEL.onnx()), X, settings=cpu(method="sketch"))
    assert logging.getLogger("onnxfim").handlers == []
