"""Rows made while the model answers others: the same answers, in order, also where memory does not suffice."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.runtime.failures import RowsFailed
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.perturb import BoundPair, RowBuffer
from onnxfim.runtime.rows import Rademacher, Rows
from tests.support.models import Mlp

X = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
SIZES = (4, 7, 1, 8, 8, 3)


@pytest.fixture
def forward(saved):
    path = saved(Mlp.draw(3, 6).onnx())
    return OnnxForward(
        path, input_name="x", output_name="z", shape=(6,), dtype=np.dtype(np.float32), hardware=Hardware(("cpu",)), batch=8
    )  # fmt: skip


def batches():
    """Batches of one sample and of several, of many sizes."""
    for i, size in enumerate(SIZES):
        sample = np.full(size, i % 5) if i % 2 else np.arange(size) % 5
        yield Rows(sample.astype(np.int64), Rademacher(1).block(i, 0, size, 6), np.linspace(0.1, 0.2, size))


def streamed(forward, ahead):
    forward.ahead = ahead
    return list(forward.stream(X, batches()))


def test_the_answers_are_the_same(forward):
    plain, ahead = streamed(forward, False), streamed(forward, True)
    assert [len(z) for z in ahead] == list(SIZES)
    for a, b in zip(plain, ahead, strict=True):
        assert_array_equal(a, b)


def test_rows_are_made_while_the_model_answers_others(forward, monkeypatch):
    made = threading.Event()
    calls = []
    fill, answer = BoundPair.filled, BoundPair.answers

    def filled(self, feeds, shape, dtype, buffer=None):
        calls.append(shape[0])
        found = fill(self, feeds, shape, dtype, buffer)
        if len(calls) == 2:
            made.set()
        return found

    def answers(self, rows, beside):
        assert made.wait(30)  # the first call of the model ends only when the second batch is there
        return answer(self, rows, beside)

    monkeypatch.setattr(BoundPair, "filled", filled)
    monkeypatch.setattr(BoundPair, "answers", answers)
    streamed(forward, True)


@pytest.mark.parametrize("part", ["of", "answers"])
@pytest.mark.parametrize("most", [2, 5])
def test_where_memory_does_not_suffice_halves_come_in_their_order(forward, monkeypatch, part, most):
    plain = streamed(forward, False)
    owner = RowBuffer if part == "of" else BoundPair
    true = getattr(owner, part)

    def short(self, what, *rest):
        rows = what[0] if part == "of" else what.shape()[0]
        if rows > most:
            raise RuntimeError(f"BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size {rows}")
        return true(self, what, *rest)

    monkeypatch.setattr(owner, part, short)
    ahead = streamed(forward, True)
    assert forward.batch <= most
    for a, b in zip(plain, ahead, strict=True):
        assert_array_equal(a, b)


def test_other_failures_are_told(forward, monkeypatch):
    def fails(self, rows, beside):
        raise RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : bad shape")

    monkeypatch.setattr(BoundPair, "answers", fails)
    with pytest.raises(RowsFailed, match="bad shape"):
        streamed(forward, True)


def test_a_stream_that_is_left_ends(forward):
    forward.ahead = True
    stream = forward.stream(X, batches())
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("onnxfim-draw")]
