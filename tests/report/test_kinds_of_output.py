"""What a page says of outputs that have no class for each sample: nothing of flips, accuracy or labels."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from onnxfim.auditing.run import audit
from onnxfim.report import render_html
from onnxfim.slopes.kinds import KINDS
from onnxfim.verdict.compare import compare
from tests.support import headed
from tests.support.headed import X

MADE = {
    "gaussian": (headed.embedder(), {"output_kind": "gaussian"}),
    "embedding": (headed.embedder(), {"output_kind": "embedding"}),
    "detection": (headed.detector(), {"output_kind": "detection"}),
    "heads": (headed.captcha((4, 5)), {"output": "all"}),
}
LABELS = np.arange(len(X)) % 4


def words(page: str) -> str:
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", page.partition("<body")[2], flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


@pytest.fixture
def page(saved, cpu):
    def made(model, labels=None, **options):
        found = audit(saved(model), X, labels, settings=cpu(**options))
        return found, words(render_html(found))

    return made


@pytest.mark.parametrize("name", MADE)
def test_no_flips_and_no_call_for_labels(page, name):
    model, options = MADE[name]
    found, told = page(model, **options)
    assert found.samples[0].kl_curve is not None  # replayed, so that flips would be told
    for word in ("predictions had flipped", "Prediction flips", "prediction flipped", "flip within the ladder", "does not flip",
                 "Give labels", "give labels", "pass labels"):  # fmt: skip
        assert word not in told
    assert {"no-labels", "labels-unread"}.isdisjoint(f.id for f in found.findings)


def test_a_classifier_has_them(page):
    _, told = page(headed.captcha((4,)))
    for word in ("predictions had flipped", "Prediction flips", "prediction flipped", "flip within the ladder", "Give labels"):
        assert word in told


@pytest.mark.parametrize("name", MADE)
def test_labels_that_tell_nothing_are_said_not_to_be_read(page, name):
    model, options = MADE[name]
    found, told = page(model, LABELS, **options)
    message = next(f.message for f in found.findings if f.id == "labels-unread")
    assert "labels were not read" in message
    assert ("Name one head with --output" in message) == (name == "heads")
    assert message in told
    assert found.calibration.temperature is None


def test_labels_of_one_head_are_read(page):
    found, _ = page(headed.captcha((4, 5)), LABELS, output="letter0")
    assert found.calibration.accuracy is not None
    assert "labels-unread" not in [f.id for f in found.findings]


@pytest.mark.parametrize(("name", "tempered"), [("heads", True), ("detection", True), ("gaussian", False), ("embedding", False)])
def test_a_comparison_says_why_raw_values_are_compared(page, name, tempered):
    model, options = MADE[name]
    found, _ = page(model, **options)
    told = compare([found, replace(found, model=replace(found.model, name="other", sha256="0" * 64))])
    notes = " ".join(told.notes)
    assert ("for labels tell nothing of such outputs: they change with the temperature" in notes) == tempered
    assert "for want of labels" not in notes
    assert "no classes, or have several positions" in told.deployment.flip_radius.reason


@pytest.mark.parametrize("kind", KINDS)
def test_which_kinds_labels_tell_something_of(saved, cpu, kind):
    """The record's own word of it is that of the readers."""
    found = audit(saved(headed.captcha((4,))), X, settings=cpu(replay=0, flip=False))
    told = replace(found, model=replace(found.model, output_kind=kind.name)).reads_labels
    assert told == (kind.no_temperature is None)
