"""The batch that was found is remembered, per model and machine, and nothing that is no batch is believed."""

from __future__ import annotations

import json

import pytest

from onnxfim.auditing import found_batch
from onnxfim.auditing.found_batch import FoundBatch
from onnxfim.auditing.run import opened
from onnxfim.errors import InputError
from onnxfim.record.settings import Settings
from onnxfim.runtime import forward as forward_module
from onnxfim.runtime.batch_finder import BatchFinder
from onnxfim.runtime.shared_cores import SharedCores
from tests.support.models import Mlp

MLP = Mlp.draw(3, 6)


@pytest.fixture
def searches(monkeypatch):
    """How often a batch was looked for; 32 is found."""
    seen = []

    def search(self, call, *clock):
        if self.searching:
            seen.append(self)
            self.searching, self.batch = False, 32

    monkeypatch.setattr(BatchFinder, "search", search)
    return seen


@pytest.fixture
def run(saved, tmp_path):
    file, X = saved(MLP.onnx()), MLP.samples(8)

    def once(**options):
        context = opened(file, X, None, Settings(providers=("cpu",), **options), None, tmp_path / "cache")
        context.memory.close()
        return context.subject.forward

    return once


def test_it_is_found_once(run, searches):
    first, again = run(), run()
    assert len(searches) == 1
    assert first.batch == again.batch == 32


def test_another_machine_finds_its_own(run, searches, monkeypatch):
    run()
    monkeypatch.setattr(found_batch, "usable_cores", lambda: 48)
    run()
    assert len(searches) == 2


def test_a_batch_that_was_given_is_neither_kept_nor_replaced(run, searches):
    assert run(batch=5).batch == 5
    assert run().batch == 32
    assert run(batch=5).batch == 5
    assert len(searches) == 1


def test_that_threads_do_not_spin_is_remembered_too(run, searches, monkeypatch):
    monkeypatch.setattr(forward_module, "usable_cores", lambda: 2)
    monkeypatch.setattr(SharedCores, "seen", lambda self: True)
    assert run().hardware.spinning is False
    monkeypatch.setattr(SharedCores, "seen", lambda self: pytest.fail("looked again"))
    assert run().hardware.spinning is False


@pytest.mark.parametrize("batch", [0, -4, 10**6, True, "64", 2.0, None])
def test_what_is_no_batch_is_found_again(run, searches, monkeypatch, batch):
    run()
    plain = json.loads
    wrong = {"batch": batch, "spinning": True, "reopened": False}
    monkeypatch.setattr("onnxfim.auditing.store.json.loads", lambda text: wrong if b'"reopened"' in _bytes(text) else plain(text))
    assert run().batch == 32
    assert len(searches) == 2


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def test_a_record_of_another_kind_is_refused():
    with pytest.raises(InputError, match="no batch that was found"):
        FoundBatch.read({"batch": 8, "spinning": 1, "reopened": False})
