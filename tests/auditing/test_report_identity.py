"""The same ask has the same report id, whenever and in whatever batches it is answered; another has another."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

import onnxfim
from onnxfim.data import Preprocessing, from_arrays
from onnxfim.errors import SettingsError
from onnxfim.record.settings import Settings
from tests.support.models import Linear
from tests.support.two_inputs import TwoInputs

MODEL = Linear.draw(3, 5)
CHEAP = Settings(replay=0, flip=False, bounds=False, providers=("cpu",))


@pytest.fixture
def path(saved):
    return saved(MODEL.onnx())


def identity(path, inputs=None, labels=None, **settings):
    return onnxfim.audit(path, MODEL.samples(6) if inputs is None else inputs, labels, replace(CHEAP, **settings)).identity


def test_the_same_ask(path, monkeypatch):
    first = identity(path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    later = identity(path, batch=2)
    assert first.report_id == later.report_id
    assert (first.date, later.date) == ("2023-11-14T22:13:20Z", "2027-01-15T08:00:00Z")
    assert first.command == ()
    assert hashlib.sha256(first.asked.encode()).hexdigest() == first.report_id


def test_the_file_is_meant_wherever_it_lies(path, tmp_path):
    other = tmp_path / "elsewhere.onnx"
    other.write_bytes(path.read_bytes())
    assert identity(path).report_id == identity(other).report_id


def test_other_asks(path, saved):
    X, y = MODEL.samples(6), np.zeros(6, np.int64)
    moved = X + np.float32(0.5)
    prepared = [
        from_arrays(X, preprocessing=Preprocessing(**given), shape=(5,)) for given in ({}, {"mean": (0.1,)}, {"mean": (0.2,)})
    ]
    found = [
        identity(path),
        identity(path, moved),
        identity(path, labels=y),
        identity(path, seed=1),
        identity(path, samples=3),
        identity(saved(Linear.draw(3, 5, seed=1).onnx(), "other.onnx")),
        *(identity(path, samples) for samples in prepared[1:]),
    ]
    assert len({f.report_id for f in found}) == len(found)
    assert identity(path, prepared[0]).report_id == found[0].report_id


def test_an_isolated_audit_has_the_same(path):
    here, apart = identity(path), onnxfim.audit_isolated(path, MODEL.samples(6), settings=CHEAP).identity
    assert apart == here


def test_a_checked_audit_keeps_it(path):
    audit = onnxfim.audit(path, MODEL.samples(6), settings=CHEAP)
    audit = replace(audit, identity=replace(audit.identity, title="mine"))
    assert onnxfim.check(audit, "lambda_max.mean < 1e9").identity == audit.identity


def test_a_date_that_cannot_be_is_refused_before_any_work(path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    told = []
    with pytest.raises(SettingsError, match="SOURCE_DATE_EPOCH: found 'soon'"):
        onnxfim.audit(path, MODEL.samples(6), settings=CHEAP, progress=told.append)
    assert told == []


def test_what_other_inputs_are_held_at_enters_by_its_values(tmp_path):
    net = TwoInputs.drawn()
    path, data = net.write(tmp_path / "two.onnx"), net.data()
    settings = replace(CHEAP, input="image", samples=3)
    for name in ("one.npy", "other name.npy"):
        np.save(tmp_path / name, np.array(True))

    def of(feed, held=data):
        return onnxfim.audit(path, held, settings=replace(settings, feed=(f"flag={feed}",))).identity.report_id

    moved = {**data, "meta": data["meta"] + np.float32(0.5)}
    assert of(tmp_path / "one.npy") == of(tmp_path / "other name.npy")
    assert len({of(1), of(0), of(1, moved)}) == 3
