"""Lots in a folder: each is taken once, and what was taken and not finished is not lost."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from onnxfim.fleet.claims import Claims
from tests.support.places import ROOT

LOTS = 60


@pytest.fixture
def folder(tmp_path):
    Claims.make(tmp_path / "lots", LOTS)
    return tmp_path / "lots"


def test_one_takes_all_in_their_order(folder):
    claims = Claims(folder, "a")
    assert list(claims) == list(range(1, LOTS + 1))
    assert claims.left == 0
    assert claims.results() == {}


def test_several_at_once_take_each_lot_once(folder):
    taken: dict[str, list[int]] = {name: [] for name in "abcd"}
    start = threading.Barrier(len(taken))

    def work(name):
        start.wait()
        for number in Claims(folder, name):
            taken[name].append(number)
            Claims(folder, name).finish(number, f"{name}{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for numbers in taken.values() for n in numbers) == list(range(1, LOTS + 1))
    assert Claims(folder).results() == {n: f"{name}{n}" for name, numbers in taken.items() for n in numbers}


_TAKE = """
import sys
from pathlib import Path
from onnxfim.fleet.claims import Claims
claims = Claims(Path(sys.argv[1]), sys.argv[2])
for number in claims:
    claims.finish(number, sys.argv[2])
"""


def test_processes_take_each_lot_once(folder):
    started = [
        subprocess.Popen([sys.executable, "-c", _TAKE, str(folder), name], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}) for name in "ab"
    ]
    assert [p.wait() for p in started] == [0, 0]
    assert sorted(Claims(folder).results()) == list(range(1, LOTS + 1))


def test_one_that_is_started_again_goes_on_with_what_it_took(folder):
    first = iter(Claims(folder, "a"))
    assert [next(first), next(first)] == [1, 2]
    Claims(folder, "a").finish(1, "done")  # and dies here
    other = iter(Claims(folder, "b"))
    assert next(other) == 3
    again = iter(Claims(folder, "a"))
    assert [next(again), next(again)] == [2, 4]


def test_what_a_lost_one_took_is_freed_and_taken_by_others(folder):
    lost = iter(Claims(folder, "a"))
    assert [next(lost), next(lost)] == [1, 2]
    claims = Claims(folder, "a")
    claims.finish(1, "done")
    assert Claims(folder).release("a") == 1
    assert Claims(folder).release("nobody") == 0
    assert list(Claims(folder, "b")) == list(range(2, LOTS + 1))
    assert Claims(folder).results() == {1: "done"}
