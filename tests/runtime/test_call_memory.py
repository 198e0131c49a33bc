"""Calls grow while memory lasts, shrink where it does not, and never go beyond what is stated."""

from __future__ import annotations

import pytest

from onnxfim.runtime import call_memory as module
from onnxfim.runtime.call_memory import CACHED, MOST, CallCost, CallMemory, took_much

MB = 2**20
MANY = 2**22  # samples, more than any call takes


@pytest.fixture
def machine(monkeypatch):
    """A machine with memory to give; a call grows the process by what the test says."""
    state = {"left": 100_000 * MB, "resident": 100 * MB}
    monkeypatch.setattr(module, "available_memory", lambda: state["left"])
    monkeypatch.setattr(module, "resident_memory", lambda: state["resident"])
    monkeypatch.setattr(module, "highest_memory", lambda: state["resident"])
    monkeypatch.setattr(module, "_FRESH", -1.0)
    return state


def call(memory, machine, rows, seeds, grows=0):
    with memory.watched(rows, seeds):
        machine["resident"] += grows


def test_blocks_double_up_to_the_stated_bound(machine):
    memory, rows = CallMemory(CallCost(2 * MB, 0)), []
    for _ in range(8):
        rows.append(memory.rows(1, MANY))
        call(memory, machine, rows[-1], 1, grows=0)
    assert rows == [16, 32, 64, 128, 128, 128, 128, 128]
    assert memory.cost.of(rows[-1], 1) == MOST


def test_cotangents_of_a_call_stay_in_the_caches_or_are_as_many_as_the_weights(machine):
    assert CACHED == 8 * MB
    assert CallMemory(CallCost(0, MB)).rows(1, 800) == 8
    assert CallMemory(CallCost(0, MB)).rows(4, 800) == 2
    assert CallMemory(CallCost(0, MB)).rows(16, 800) == 1
    assert CallMemory(CallCost(0, MB, weights=30 * MB)).rows(10, 900) == 3
    assert CallMemory(CallCost(0, MB, weights=500 * MB)).rows(1, 5000) == 32  # of the first call's memory


def test_calls_for_the_caches_are_even(machine):
    memory = CallMemory(CallCost(0, MB))
    assert [memory.rows(1, left) for left in (3, 8, 11, 13, 20, 24)] == [3, 8, 11, 6, 10, 8]


def test_a_small_call_does_not_let_the_next_grow(machine):
    memory = CallMemory(CallCost(2 * MB, 0))
    call(memory, machine, 1, 1)
    assert memory.rows(1, MANY) == 16


def test_half_of_what_is_left_is_the_bound_where_that_is_less(machine):
    machine["left"] = 20 * MB
    memory = CallMemory(CallCost(MB, MB))
    assert memory.rows(1, MANY) == 5
    assert memory.seeds(100) == 9
    machine["left"] = MB
    assert memory.rows(1, MANY) == memory.seeds(100) == 1
    assert "needs about 2 MB, and 1 MB are available" in memory.short()


def test_calls_that_took_more_than_planned_make_the_next_smaller(machine):
    memory = CallMemory(CallCost(MB, MB))
    call(memory, machine, 16, 1, grows=320 * MB)  # ten times
    assert memory.rows(1, MANY) == 3
    call(memory, machine, 3, 1)
    assert memory.rows(1, MANY) <= 6


def test_what_failed_is_not_tried_again(machine):
    memory = CallMemory(CallCost(MB, MB))
    memory.failed(12)
    sizes = []
    for _ in range(6):
        sizes.append(memory.rows(2, MANY))
        call(memory, machine, sizes[-1], 2)
    assert max(sizes) * 2 < 12
    assert memory.seeds(100) < 12


def test_rows_of_a_call_keep_the_batch_that_was_asked_for(machine):
    assert CallMemory(CallCost(1, 1), most=3).rows(1, MANY) == 3


def test_on_a_device_calls_are_as_large_as_they_are_asked_for(machine):
    memory = CallMemory(CallCost(MB, MB))
    memory.measures, machine["left"] = False, MB
    assert memory.rows(10, MANY) >= 10**6
    assert memory.short() is None


def test_a_batch_took_much_past_the_bound_or_the_share(machine):
    before = (100 * MB, 100 * MB)
    machine["resident"] += 200 * MB
    assert not took_much(before)
    machine["left"] = 300 * MB
    assert took_much(before)
    machine["left"], machine["resident"] = 100_000 * MB, 400 * MB
    assert took_much(before)
