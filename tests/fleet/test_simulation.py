"""The simulation of many workers against what is known exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from onnxfim.fleet.ranges import LONGEST
from tests.benchmarks.simulate_fleet import DIGITS, LARGE, Costs, World, simulate

#: Nothing costs anything but the samples.
FREE = Costs("free", plan=0.0, plan_sample=0.0, megabytes=0.0, opening=0.0, fixed=0.0, sample=10.0, answer=0.0)
IDEAL = {"latency": 0.0}


@pytest.mark.parametrize("n", [1, 7, 100])
def test_one_worker_takes_the_sum_of_all_times(n):
    costs = replace(FREE, plan=3.0, plan_sample=0.5, opening=2.0, fixed=0.25, reading=0.0, merging=0.125)
    found = simulate(costs, World(1, **IDEAL), n)
    assert found.ranges == n  # a sample takes longer than a range may
    assert found.total == pytest.approx(3.0 + 0.5 * n + 2.0 + (10.0 + 0.25) * n + 0.125 * n)
    assert (found.plan, found.opening, found.merging) == (3.0 + 0.5 * n, 2.0, 0.125 * n)
    assert found.idle == pytest.approx(0.0)


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("n", [1, 5, 64, 100, 129])
def test_equal_times_without_failures_take_as_many_rounds_as_there_must_be(n, workers):
    assert 2 * LONGEST <= FREE.sample  # so that a range is a sample
    assert simulate(FREE, World(workers, **IDEAL), n).total == pytest.approx(math.ceil(n / workers) * FREE.sample)


@pytest.mark.parametrize("workers", [2, 10, 100])
def test_it_is_never_faster_than_the_work_divided_nor_slower_than_list_scheduling(workers):
    """Graham's bound: work / k ≤ time ≤ work / k + the longest piece, which is a range here, beside the other of its worker."""
    costs = replace(FREE, sample=0.05)
    found = simulate(costs, World(workers, **IDEAL), 20_000)
    assert 20_000 * 0.05 / workers <= found.total + 1e-9
    assert found.total <= 20_000 * 0.05 / workers + 2 * LONGEST


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [1, 8, 40])
def test_no_work_is_lost_where_machines_die(workers, seed):
    costs = replace(FREE, sample=1.0, opening=1.0)
    found = simulate(costs, World(workers, hours=0.02, seed=seed, **IDEAL), 3000)
    assert found.samples == 3000
    assert found.lost > 0
    assert found.total > 3000 / workers  # deaths cost time


@pytest.mark.parametrize("seed", range(5))
def test_machines_that_die_while_their_workers_open_the_model_leave_none_behind(seed):
    """However often they die, there are never more workers than places: no run is faster than the work divided."""
    costs = replace(FREE, sample=1.0, opening=60.0)
    found = simulate(costs, World(4, hours=0.015, seed=seed, per_machine=2, **IDEAL), 1000)
    assert found.lost > 0
    assert found.measuring >= 1000 / 4


def test_a_message_that_takes_time_is_hidden_behind_the_range_in_hand():
    """Each worker has the next range already; only at the beginning, and at the end, is a message waited for."""
    slow = simulate(FREE, World(4, latency=2.0), 100).total
    assert slow == pytest.approx(simulate(FREE, World(4, **IDEAL), 100).total, abs=4 * 2.0)


def test_an_answer_that_takes_the_driver_time_bounds_what_many_workers_reach():
    costs = replace(FREE, sample=0.01, reading=0.001)
    found = simulate(costs, World(500, **IDEAL), 20_000)
    assert found.total >= 20_000 * 0.001
    assert found.driver > 0.9


@pytest.mark.parametrize("costs", [DIGITS, LARGE])
def test_more_workers_are_not_slower_by_more_than_a_twentieth(costs):
    totals = [simulate(costs, World(k), 5000).total for k in (1, 10, 100)]
    assert totals[1] < totals[0]
    assert totals[2] < 1.05 * totals[1]


def test_data_reach_machines_in_as_many_hops_as_doubling_takes():
    costs = replace(FREE, megabytes=1250.0)  # a second at 10 Gbit/s
    assert simulate(costs, World(1, **IDEAL), 1).total == pytest.approx(10.0)  # the driver's own machine
    assert simulate(costs, World(16, per_machine=8, **IDEAL), 1).total == pytest.approx(11.0)
