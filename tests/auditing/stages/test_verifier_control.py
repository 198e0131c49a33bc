"""A verifier's control question, and its errors: one that always finds nothing is never believed, and one error ends nothing."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from onnxfim.auditing.control_moves import ControlSearch
from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.run import audit
from onnxfim.auditing.verified_network import network_of
from onnxfim.graph.load import load_model
from onnxfim.record.audit import Audit
from onnxfim.report.guarantee_columns import guarantee_columns
from onnxfim.report.guarantee_words import verifier_words
from onnxfim.verifiers.properties import StaysInBox, box_around
from tests.support import models
from tests.support.asked_verifier import MODEL, WIDE, X, closes_in, radius, settings, verified
from tests.support.models import Linear
from tests.support.pretended import pretend

CLASSES = MODEL.logits(X).argmax(axis=1)
ONE_CLASS = X[CLASSES == np.bincount(CLASSES).argmax()]
NEVER = Linear(np.zeros_like(MODEL.W), np.arange(4.0))  # the same class everywhere

pytestmark = pytest.mark.usefixtures("no_other_bounds")


def finding(found, name):
    return next((f for f in found.findings if f.id == name), None)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return models.save(MODEL.onnx(), tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def search(path):
    def of(data, low=WIDE[0], high=WIDE[1], scale=1.0):
        network = network_of(open_subject(load_model(path), data, settings("exact")), data)
        predictions = dict(enumerate(MODEL.logits(data).argmax(axis=1).tolist()))
        ends = (np.full(data.shape[1:], low), np.full(data.shape[1:], high))
        return ControlSearch(network, data, predictions, *ends, scale, lambda: None)

    return of


def about(x):
    return StaysInBox(x, x, int(MODEL.logits(x[None])[0].argmax()), 4)


UNKNOWN_MOVES = {
    "no flip": {"flip": False},
    "another provider": {"providers": ("openvino", "cpu")},
    "another provider, no flip": {"providers": ("openvino", "cpu"), "flip": False},
    "one class": {"flip": False, "data": ONE_CLASS},
    "one class, narrow": {"flip": False, "data": np.tile(X[:1], (3, 1)), "attack_range": (float(X[0].min()), float(X[0].max()))},
}


@pytest.mark.parametrize("case", UNKNOWN_MOVES)
def test_a_liar_is_never_believed(path, monkeypatch, case):
    options = dict(UNKNOWN_MOVES[case])
    data = options.pop("data", X)
    if "openvino" in options.get("providers", ()):
        pretend(monkeypatch)
    got = audit(path, data, settings=settings("lies unsat", **options))
    assert got.run.provider.startswith("OpenVINO") == ("providers" in options)
    assert len(verified(got)) == 2
    for s in verified(got):
        (box,) = s.verified
        assert (box.answer, box.believed) == ("unsat", False)
        assert 0 < box.control < box.epsilon
        assert s.certified_radius_linf is None
    v = got.verifier
    assert (v.contradictions, v.disbelieved, v.without_control) == (2, 2, 0)
    assert "in 2 of 2 boxes that hold one" in finding(got, "verifier-contradiction").message
    assert got.verdict == "inconclusive"
    assert guarantee_columns(got)["verified_safe"] == [None] * len(data)
    assert "0 hold no other prediction" in verifier_words(v)
    assert "2 said to hold none and not believed" in verifier_words(v)


@pytest.mark.parametrize("case", UNKNOWN_MOVES)
def test_an_honest_one_is_believed(path, monkeypatch, case):
    options = dict(UNKNOWN_MOVES[case])
    data = options.pop("data", X)
    if "openvino" in options.get("providers", ()):
        pretend(monkeypatch)
    got = audit(path, data, settings=settings("exact", **options))
    assert (got.verifier.contradictions, got.verifier.disbelieved, got.verifier.without_control) == (0, 0, 0)
    assert all(s.verified[0].control and s.verified[0].answer == "sat" for s in verified(got))
    assert [b.control for s in verified(got) for b in s.verified[1:]].count(None) == got.verifier.boxes - len(verified(got))
    if case != "one class, narrow":  # there the range ends all boxes
        closes_in(got, data=data)


def test_a_liar_about_the_file_in_its_place(path):
    got = audit(path, X, settings=settings("lies unsat", verifier_model=str(path)))
    assert (got.verifier.contradictions, got.verifier.disbelieved) == (2, 2)
    assert "contradict what was found" in verifier_words(got.verifier)
    assert finding(got, "verifier-contradiction") is not None


def test_without_any_control_nothing_is_certified(saved):
    got = audit(saved(NEVER.onnx()), X, settings=settings("exact"))
    assert got.verifier.unsat > 0
    assert got.verifier.disbelieved == got.verifier.unsat
    assert got.verifier.without_control == 2
    assert got.verifier.contradictions == 0
    assert all(s.certified_radius_linf is None for s in got.samples)
    told = finding(got, "verifier-without-control")
    assert told.level == "warning"
    assert "No control question could be asked" in told.message
    assert "no control question could be asked around 2 samples, of which nothing is certified" in verifier_words(got.verifier)


def test_a_control_that_is_not_decided_is_said(path):
    got = audit(path, X, settings=settings("sees none"))
    assert got.verifier.control_open == 2
    assert all(s.certified_radius_linf is not None for s in verified(got))
    assert "did not decide the control question of 2 of the samples" in finding(got, "verifier-control-open").message


@pytest.mark.parametrize(("mode", "believed"), [("sees what is wide", True), ("lies where it is wide", False)])
def test_another_control_is_asked_where_the_first_was_not_decided(path, mode, believed):
    got = audit(path, X, settings=settings(mode))
    assert len(verified(got)) == 2
    for s in verified(got):
        first, *between, last = s.verified
        assert (first.answer, first.control) == ("unknown", pytest.approx(s.flip_radius.value))
        assert last.control > first.control
        assert last.answer == ("sat" if believed else "unsat")
        assert {b.control for b in between} == {None}
        assert {b.believed for b in between if b.answer == "unsat"} == {believed}
        assert (s.certified_radius_linf is not None) == believed
    assert (got.verifier.control_open, got.verifier.contradictions) == ((0, 0) if believed else (0, 2))


@pytest.mark.parametrize("scale", [1.0, np.array([0.5, 2.0, 1.0, 4.0, 0.25, 1.0])])
def test_the_control_lies_on_the_way_to_the_nearest_sample_of_another_class(search, scale):
    moves = search(X, scale=scale)
    for p, x in enumerate(X):
        others = [q for q in range(len(X)) if CLASSES[q] != CLASSES[p]]
        nearest = min(others, key=lambda q: np.max(np.abs(X[q].astype(np.float64) - x) / scale))
        found = moves.near(p, about(x), (0, p))
        assert found.valid
        assert MODEL.logits(found.point[None])[0].argmax() != CLASSES[p]
        way = X[nearest].astype(np.float64) - x
        part = float((found.point - x) @ way / (way @ way))
        np.testing.assert_allclose(found.point, x + part * way, atol=1e-5)  # rounded to float32
        assert 0 < part <= 1
        assert found.length == pytest.approx(np.max(np.abs(found.point.astype(np.float64) - x) / scale))
        assert MODEL.logits((x + (part - 2**-9) * way)[None])[0].argmax() == CLASSES[p], "no nearer one is on the way"
        low, high = box_around(x, 1.001 * found.length, scale=scale, low=WIDE[0], high=WIDE[1])
        assert dataclasses.replace(about(x), low=low, high=high).holds(found.point)


def test_without_such_a_sample_a_point_is_drawn_the_same_for_a_seed(search):
    moves = search(ONE_CLASS)
    first, again = (moves.near(0, about(ONE_CLASS[0]), (3, 0)) for _ in range(2))
    assert first.valid
    np.testing.assert_array_equal(first.point, again.point)
    assert MODEL.logits(first.point[None])[0].argmax() != MODEL.logits(ONE_CLASS[:1])[0].argmax()
    assert (first.point >= WIDE[0]).all()
    assert (first.point <= WIDE[1]).all()


def test_beyond_a_range_without_another_prediction_one_is_found(search):
    x = X[[int(np.argmax([radius(x) for x in X]))]]
    low = float(x.min())
    data = np.full_like(x, low)
    found = search(data, low, low + 1e-3).near(0, about(data[0]), (0, 0))
    assert not found.valid
    assert MODEL.logits(found.point[None])[0].argmax() != MODEL.logits(data)[0].argmax()


def test_where_the_network_decides_otherwise_itself_there_is_none(search):
    wrong = (int(CLASSES[0]) + 1) % 4
    assert search(X).near(0, StaysInBox(X[0], X[0], wrong, 4), (0, 0)) is None


def test_errors_at_some_boxes_end_no_sample(path):
    got = audit(path, X, settings=settings("errs at the boundary", verifier_precision=0.05, verifier_samples=7))
    assert got.verifier.error > 0
    assert got.verifier.reason is None
    assert len(verified(got)) == 7
    certified = [s.certified_radius_linf for s in verified(got)]
    assert None not in certified
    for s in verified(got):
        lost = [k for k, b in enumerate(s.verified) if b.answer == "error"]
        assert all("GurobiError: no licence was found" in s.verified[k].note for k in lost)
        for k in lost:  # narrower boxes are asked about afterwards, unless what is certified is near already
            near = s.certified_radius_linf.value >= s.verified[k].epsilon / 1.051
            assert near or any(b.epsilon < s.verified[k].epsilon for b in s.verified[k + 1 :])
    assert "GurobiError: no licence was found" in finding(got, "verifier-failed").message


def test_one_that_cannot_run_is_given_up_at_its_first_boxes(path):
    got = audit(path, X, settings=settings("crash", verifier_samples=7, verifier_jobs=1))
    assert (got.verifier.boxes, got.verifier.error) == (3, 3)
    assert got.verifier.reason == "it decided nothing 3 times in a row: ended with code 1; Traceback: it fell over"
    assert "Traceback: it fell over" in finding(got, "verifier-stopped").message


def test_errors_without_an_end_are_given_up(path, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_ONCE", str(tmp_path / "answered"))
    got = audit(path, X, settings=settings("answers once", verifier_samples=7, verifier_jobs=1))
    assert got.verifier.error == got.verifier.boxes - 1
    assert "it answered nothing about 3 samples in a row: ended with code 1; GurobiError" in got.verifier.reason
    assert len(verified(got)) == 4, "the first was answered in part"


def test_what_is_recorded_survives_its_json_and_older_files_load(path):
    got = audit(path, X, settings=settings("lies unsat", flip=False))
    assert Audit.from_json(got.to_json()) == got
    older = json.loads(got.to_json())
    for name in ("disbelieved", "without_control", "control_open"):
        del older["verifier"][name]
    for sample in older["samples"]:
        for box in sample.get("verified", ()):
            del box["control"], box["believed"]
    read = Audit.from_json(json.dumps(older))
    assert (read.verifier.disbelieved, read.verifier.without_control) == (0, 0)
    assert all(b.believed and b.control is None for s in read.samples for b in s.verified)
