"""A verifier in an audit: what it certifies is certified, what it refutes is tried on the file, and what it gets wrong is said."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from onnxfim.auditing import guaranteeing
from onnxfim.auditing.run import audit
from onnxfim.auditing.stages import verifying
from onnxfim.auditing.subject import from_callable
from onnxfim.errors import SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from onnxfim.runtime.stopping import Stop
from tests.support import models
from tests.support.asked_verifier import MODEL, X, closes_in, radius, settings, verified
from tests.support.models import Linear
from tests.support.places import SAMPLES, Thing

FINE = 0.05

pytestmark = pytest.mark.usefixtures("no_other_bounds")


OTHERS = guaranteeing.of_each


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return models.save(MODEL.onnx(), tmp_path_factory.mktemp("model") / "a model.onnx")


@pytest.fixture(scope="module")
def found(path):
    return audit(path, X, settings=settings(verifier_samples=3, verifier_precision=FINE))


def test_certified_radii_are_the_exact_ones(found):
    assert len(verified(found)) == 3
    closes_in(found, radius, FINE)
    for s in verified(found):
        assert (s.certified_radius_linf.kind, s.certified_radius_linf.method[:8]) == ("lower bound", "verifier")


def test_counterexamples_are_replayed_and_none_is_nearer_than_the_boundary(found):
    sat = [(s, b) for s in verified(found) for b in s.verified if b.answer == "sat"]
    assert sat
    for s, b in sat:
        assert b.replay is True
        assert b.distance == pytest.approx(b.epsilon, rel=1e-3)  # a vertex of the box
        assert b.distance >= radius(X[s.index]) * (1 - 1e-6)


def test_the_first_box_of_each_sample_holds_its_flip(found):
    for s in verified(found):
        assert s.verified[0].answer == "sat"
        assert s.verified[0].epsilon == pytest.approx(1.001 * s.flip_radius.value)


def test_the_worst_the_middle_and_the_best_are_asked_about(found):
    ranked = sorted(found.samples, key=lambda s: s.lambda_max.value)
    assert {s.index for s in verified(found)} == {ranked[0].index, ranked[3].index, ranked[-1].index}


def test_the_summary_counts_the_boxes(found):
    v = found.verifier
    boxes = [b for s in verified(found) for b in s.verified]
    assert (v.boxes, v.samples) == (len(boxes), 3)
    assert (v.sat, v.unsat) == tuple(sum(b.answer == a for b in boxes) for a in ("sat", "unsat"))
    assert (v.unknown, v.timeout, v.error, v.not_followed, v.contradictions, v.reason) == (0, 0, 0, 0, 0, None)
    assert v.units == "model input units"
    assert not [f for f in found.findings if f.id.startswith(("verifier", "counterexample", "verified"))]


def test_it_survives_its_json(found):
    assert Audit.from_json(found.to_json()) == found


@pytest.mark.parametrize("end", ["Softmax", "LogSoftmax"])
def test_a_last_softmax_is_cut(saved, end):
    got = audit(saved(MODEL.onnx(end=end)), X, settings=settings())
    closes_in(got, radius)


@pytest.mark.parametrize("end", [None, "Sigmoid"])
def test_one_output_is_two_classes(saved, end):
    lone = Linear.draw(1, 6)
    path = saved(lone.onnx(end=end))
    got = audit(path, X, settings=settings(output_kind="sigmoid"))
    assert len({s.prediction for s in got.samples}) == 2
    closes_in(got, lambda x: abs(lone.logits(x[None])[0, 0]) / np.abs(lone.W).sum())
    assert all(b.replay for s in verified(got) for b in s.verified if b.answer == "sat")


def test_a_fixed_batch_becomes_one_row(saved):
    got = audit(saved(MODEL.onnx(batch=5)), X, settings=settings())
    closes_in(got, radius)


def test_lengths_are_in_raw_units_where_these_are_known(path):
    scale = (0.5, 2.0, 1.0, 4.0, 0.25, 1.0)
    got = audit(path, X, settings=settings(input_scale=scale))
    assert got.verifier.units == "raw input units"
    closes_in(got, lambda x: radius(x, scale=np.array(scale)))
    for s in verified(got):
        assert all(b.distance == pytest.approx(b.epsilon, rel=1e-3) for b in s.verified if b.answer == "sat")


def test_boxes_end_at_the_valid_range(path):
    """A narrow range, in which nothing changes, is certified as a whole, and no box is wider."""
    x = X[[int(np.argmax([radius(x) for x in X]))]]
    low, high = float(x.min()), float(x.min()) + 1e-3  # all other coordinates lie above it, and may move down to it alone
    got = audit(path, np.full_like(x, low), settings=settings(attack_range=(low, high), flip=False, verifier_samples=1))
    (s,) = verified(got)
    control, *boxes = s.verified
    assert control.control is not None, "it reaches beyond the range, where the prediction changes"
    assert (control.answer, control.replay, control.distance) == ("sat", None, None), "nothing is told of the file there"
    assert boxes
    assert {b.answer for b in boxes} == {"unsat"}
    assert s.certified_radius_linf.value == pytest.approx(high - low, rel=1e-3)


def test_beside_other_bounds_the_search_goes_on_from_theirs(path, monkeypatch):
    monkeypatch.setattr(guaranteeing, "of_each", OTHERS)
    got = audit(path, X, settings=settings())
    closes_in(got, radius)
    assert got.verifier.contradictions == 0


def finding(found, name):
    return next((f for f in found.findings if f.id == name), None)


def test_a_verifier_that_certifies_what_changes_is_not_believed(path):
    got = audit(path, X, settings=settings("lies unsat"))
    assert got.verifier.contradictions == 2
    assert all(s.certified_radius_linf is None for s in got.samples)
    told = finding(got, "verifier-contradiction")
    assert told.level == "error"
    assert "in 2 of 2 boxes that hold one" in told.message
    assert got.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("mode", "note"),
    [("lies sat", "does not change the prediction of the network that it was given"), ("outside", "lies outside the box by 1"),
     ("crash", "ended with code 1; Traceback: it fell over")],
)  # fmt: skip
def test_answers_that_do_not_hold_are_the_verifiers_errors(path, mode, note):
    got = audit(path, X, settings=settings(mode, verifier_samples=1))
    assert (got.verifier.error, got.verifier.sat) == (1, 0)
    assert note in verified(got)[0].verified[0].note
    assert note in finding(got, "verifier-failed").message


def test_one_that_gives_no_counterexample_is_an_upper_end_without_a_replay(path):
    got = audit(path, X, settings=settings("no point", verifier_samples=1))
    sat = [b for b in verified(got)[0].verified if b.answer == "sat"]
    assert {(b.replay, b.distance, b.note) for b in sat} == {(None, None, "it gave no counterexample")}
    closes_in(got, radius)


def test_one_that_decides_nothing_is_given_up_and_its_reason_told(path):
    got = audit(path, X, settings=settings("unknown", verifier_jobs=2))
    assert re.fullmatch(r"it decided nothing \d times in a row: net not supported: I know no Gemm", got.verifier.reason)
    assert 3 <= got.verifier.boxes <= 4
    assert "net not supported" in finding(got, "verifier-stopped").message
    assert finding(got, "verifier-undecided") is not None


def test_time_that_is_up_is_said(path):
    got = audit(path, X, settings=settings("slow", verifier_budget=0.01, verifier_jobs=1))
    assert got.verifier.boxes == 1
    assert "its time was up (0.01 s, --verifier-budget)" in finding(got, "verifier-stopped").message


def test_an_interrupt_keeps_the_answers_so_far(path, monkeypatch):
    stop, told = Stop(), []
    original = verifying._AskingBoxes._take

    def take(self, asked, box):
        original(self, asked, box)
        told.append(box)
        if len(told) == 4:
            stop.ask("SIGINT")

    monkeypatch.setattr(verifying._AskingBoxes, "_take", take)
    got = audit(path, X, settings=settings(verifier_jobs=1), stop=stop)
    assert got.run.partial
    assert got.verifier.boxes == 4
    assert sum(len(s.verified) for s in got.samples) == 4


def test_answers_are_kept(path, tmp_path, monkeypatch):
    first = audit(path, X, settings=settings(verifier_samples=1), cache_dir=tmp_path)
    monkeypatch.setattr(verifying, "Question", None)  # nothing may be asked again
    again = audit(path, X, settings=settings(verifier_samples=1), cache_dir=tmp_path)
    assert [s.verified for s in again.samples] == [s.verified for s in first.samples]
    monkeypatch.undo()
    other = audit(path, X, settings=settings("lies unsat", verifier_samples=1), cache_dir=tmp_path)  # another command
    assert other.verifier.contradictions == 1


#: What became of the model on its way to where it runs: other weights, of which the same samples are decided alike.
TWIN = Linear(0.7 * MODEL.W, MODEL.b)


def test_what_deploys_may_differ_from_what_is_verified(saved, path):
    twin = saved(TWIN.onnx(), "twin.onnx")
    got = audit(twin, X, settings=settings(verifier_model=str(path), verifier_samples=7, verifier_precision=0.9))
    assert got.verifier.model == "a model.onnx"
    assert got.verifier.unsat > 0
    assert all(s.certified_radius_linf is None for s in got.samples), "nothing is certified of the audited file"
    assert got.verifier.not_followed > 0
    told = finding(got, "counterexamples-not-followed")
    assert told.level == "warning"
    assert "a model.onnx is what was verified" in told.message
    assert "nothing of the audited file" in finding(got, "verified-another").message
    for s in got.samples:
        if int(MODEL.logits(X[[s.index]])[0].argmax()) != s.prediction:
            assert [(b.answer, "predicts class" in b.note) for b in s.verified] == [("error", True)]
            continue
        for b in s.verified:
            if b.replay:
                assert b.distance >= radius(X[s.index], TWIN) * (1 - 1e-6)  # the audited file's own boundary
            elif b.replay is False:
                assert MODEL.logits(X[[s.index]])[0].argmax() == s.prediction
                assert b.distance >= radius(X[s.index]) * (1 - 1e-6)


def test_a_parent_of_other_outputs_is_refused_and_the_audit_goes_on(saved, path):
    other = saved(Linear.draw(3, 6).onnx(), "other.onnx")
    got = audit(path, X, settings=settings(verifier_model=str(other)))
    assert got.verifier.boxes == 0
    assert "has 3 outputs, expected 4" in finding(got, "verifier-stopped").message
    assert got.measured == len(X)


def test_outputs_without_a_prediction_have_nothing_to_verify(path):
    got = audit(path, X, settings=settings(output_kind="gaussian"))
    assert got.verifier.boxes == 0
    assert "outputs of kind gaussian predict no class" in finding(got, "verifier-stopped").message


def test_a_function_has_no_file_to_verify():
    fn = from_callable(lambda rows: MODEL.logits(rows), input_shape=(6,), num_outputs=4)
    with pytest.raises(SettingsError, match="the model is no file, and a verifier reads files"):
        audit(fn, X, settings=settings())


def test_a_function_can_be_held_against_the_file_it_stands_for(path):
    fn = from_callable(lambda rows: MODEL.logits(rows), input_shape=(6,), num_outputs=4)
    got = audit(fn, X, settings=settings(verifier_model=str(path), verifier_samples=1))
    assert got.verifier.not_followed == 0
    assert any(b.replay for s in got.samples for b in s.verified)


def test_a_command_that_cannot_be_is_refused_before_any_work(path):
    with pytest.raises(SettingsError, match="'no-such-tool' is not installed"):
        audit(path, X, settings=Settings(verifier="no-such-tool {onnx} {vnnlib}"))


MARABOU = Thing("Marabou", "pip install '.[verify]'")


def test_marabou_and_the_closed_form_agree(path):
    MARABOU.load("maraboupy")
    got = audit(path, X, settings=dataclasses.replace(settings(), verifier="marabou"))
    assert got.verifier.unsat > 0
    closes_in(got, radius)


def test_marabou_and_attacks_agree_on_a_sample_model():
    MARABOU.load("maraboupy")
    with np.load(SAMPLES / "digits.npz") as data:
        inputs, labels = data["inputs"][:10], data["labels"][:10]
    options = Settings(
        providers=("cpu",), replay=0, bounds=False, attack="linf", verifier="marabou", verifier_samples=2, verifier_timeout=5.0,
        verifier_precision=0.5,
    )  # fmt: skip
    got = audit(SAMPLES / "digits_mlp.onnx", inputs, labels, options)
    assert got.verifier.unsat > 0
    assert got.verifier.contradictions == got.verifier.not_followed == got.verifier.error == 0
    for s in verified(got):
        if s.certified_radius_linf is not None and s.attack_distance is not None and s.attack_distance.value:
            assert s.certified_radius_linf.value < s.attack_distance.value
