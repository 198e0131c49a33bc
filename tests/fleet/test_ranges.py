from __future__ import annotations

import random

import pytest

from onnxfim.fleet import ranges
from onnxfim.fleet.ranges import IN_HAND, LONGEST, LOSSES, MOVES, PIECES, PROBE, SHORTEST, RangeQueue


def drained(queue, crew=("a",), seconds=0.01):
    """Answers of a crew that takes turns, each sample in so many seconds; the ranges in the order in which they were handed out."""
    for worker in crew:
        queue.joins(worker)
    now, handed = 0.0, []
    while not queue.over:
        for worker in crew:
            while (found := queue.take(worker, now)) is not None:
                handed.append(found)
            held = queue._hands[worker].ranges
            if held:
                first = held[0]
                now += seconds * len(first)
                queue.answered(worker, first.number, seconds * len(first), now)
    return handed


@pytest.mark.parametrize("crew", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 2, 17, 1000])
def test_every_sample_is_handed_out_once_where_nobody_is_lost(n, crew):
    queue = RangeQueue(range(10, 10 + n))
    handed = [r for r in drained(queue, tuple(range(crew))) if r.number]
    once = {r.number: r for r in handed}
    assert [i for r in sorted(once.values(), key=lambda r: r.number) for i in r.indices] == list(range(10, 10 + n))
    assert (queue.over, queue.done, queue.missing, queue.waiting) == (True, n, (), 0)
    assert queue.handed == len(once)
    assert queue.copies == len(handed) - len(once)


def test_a_worker_holds_two_ranges_and_no_more():
    queue = RangeQueue(range(1000))
    queue.joins("a")
    assert sum(queue.take("a", 0.0) is not None for _ in range(5)) == IN_HAND == 2


def test_ranges_are_probes_first_then_large_then_small():
    queue = RangeQueue(range(10_000))
    sizes = [len(r) for r in drained(queue, ("a", "b"), seconds=0.0005)]
    assert sizes[:IN_HAND] == [PROBE] * IN_HAND
    rest = sizes[IN_HAND:]
    assert rest[0] == -(-(10_000 - IN_HAND * PROBE) // 4)  # a quarter: half of what is left, for two
    assert rest == sorted(rest, reverse=True)
    assert SHORTEST / 0.0005 in rest[-3:]


@pytest.mark.parametrize(("seconds", "most"), [(0.1, LONGEST / 0.1), (LONGEST, 1), (100 * LONGEST, 1)])
def test_no_range_lasts_longer_than_is_lost_with_a_worker(seconds, most):
    assert max(len(r) for r in drained(RangeQueue(range(2000)), seconds=seconds) if r.number > IN_HAND) == most


def test_ranges_last_longer_where_many_workers_ask_for_them():
    queue = RangeQueue(range(10**6))
    for worker in range(1000):
        queue.joins(worker)
    first = queue.take(0, 0.0)
    queue.answered(0, first.number, 0.001 * len(first), 0.0)
    queue._left = 0  # as at the end: the smallest range there is
    assert queue._size() * 0.001 == pytest.approx(2 * ranges.HANDLING * 1000)


def test_samples_that_take_no_time_are_handed_out_all_the_same():
    assert len(drained(RangeQueue(range(500)), ("a", "b"), seconds=0.0)) < 40


def test_a_lost_workers_ranges_go_to_another_and_are_answered_once():
    queue = RangeQueue(range(100))
    queue.joins("a")
    queue.joins("b")
    first, second, other = queue.take("a", 0.0), queue.take("a", 0.0), queue.take("b", 0.0)
    loss = queue.lost("a", "was killed")
    assert (loss.again, loss.blamed, queue.workers) == (len(first) + len(second), None, ("b",))
    queue.answered("b", other.number, 1.0, 1.0)
    again = queue.take("b", 1.0)
    assert (again.indices, again.losses) == (first.indices[: len(again)], 1)
    assert again.number > other.number
    drained(queue, ("b",))
    assert (queue.over, queue.skipped) == (True, {})


def test_only_the_range_that_was_measured_is_under_suspicion():
    queue = RangeQueue(range(100))
    queue.joins("a")
    queue.joins("b")
    queue.take("a", 0.0), queue.take("a", 0.0)
    queue.lost("a", "was killed")
    first, second = queue.take("b", 0.0), queue.take("b", 0.0)
    assert (first.losses, second.losses) == (1, 0)


@pytest.mark.parametrize("n", [1, 2, 8, 9, 100, 1000])
def test_the_sample_that_workers_die_of_is_found_and_skipped_and_all_others_are_measured(n):
    at_fault = n // 3
    queue = RangeQueue(range(n))
    measured, died, now = set(), 0, 0.0
    queue.joins(0)
    for _ in range(100 * n):
        if queue.over:
            break
        worker = died
        found = queue.take(worker, now) or queue._hands[worker].ranges[0]
        now += 1e-3 * len(found)
        held = queue._hands[worker].ranges[0]
        if at_fault in held.indices:
            queue.lost(worker, "ended with SIGSEGV")
            died += 1
            queue.joins(died)
        else:
            measured |= set(queue.answered(worker, held.number, 1e-3 * len(held), now))
    assert queue.over
    assert measured == set(range(n)) - {at_fault}
    assert queue.skipped == {at_fault: "the worker ended with SIGSEGV while it measured this sample, and so did one before it"}
    pieces, deaths = n, LOSSES
    while pieces > 1:
        pieces, deaths = -(-pieces // PIECES), deaths + 1
    assert died <= deaths  # one loss to suspect the range, one for each cut of it, one for the sample


def test_a_lost_machine_speaks_against_no_sample_until_many_are_lost():
    queue = RangeQueue(range(1))
    for turn in range(MOVES):
        queue.joins(turn)
        assert queue.take(turn, 0.0).losses == 0
        assert queue.lost(turn, "was lost with its machine", machine=True).blamed is None
    for turn in range(MOVES, MOVES + LOSSES):
        queue.joins(turn)
        assert queue.take(turn, 0.0).losses == turn - MOVES
        loss = queue.lost(turn, "was lost with its machine", machine=True)
    assert (loss.blamed, queue.over) == (0, True)


def test_a_sample_that_waited_in_a_lost_workers_hand_keeps_its_good_name():
    queue = RangeQueue(range(2))
    queue.joins("a")
    assert queue.take("a", 0.0).indices == (0,)
    assert queue.take("a", 0.0).indices == (1,)
    queue.lost("a", "was killed")
    queue.joins("b")
    assert [queue.take("b", 0.0).losses for _ in range(2)] == [1, 0]


def test_an_idle_worker_takes_what_waits_in_anothers_hand_and_the_first_answer_counts():
    queue = RangeQueue(range(2))
    for worker in "ab":
        queue.joins(worker)
    first, second = queue.take("a", 0.0), queue.take("a", 0.0)
    assert queue.take("b", 0.0).number == second.number
    assert queue.take("b", 0.0) is None  # it is busy
    assert queue.answered("b", second.number, 1.0, 1.0) == (1,)
    assert queue.answered("a", first.number, 1.0, 1.0) == (0,)
    assert (queue.over, queue.copies) == (True, 1)
    assert queue.answered("a", second.number, 1.0, 2.0) == ()  # too late: dropped


def test_an_idle_worker_takes_what_is_late_elsewhere_and_not_before():
    queue = RangeQueue(range(2))
    for worker in "ab":
        queue.joins(worker)
    first, other = queue.take("a", 0.0), queue.take("b", 0.0)
    queue.answered("b", other.number, 1.0, 1.0)
    assert queue.take("b", 1.5) is None
    assert queue.take("b", 2.5).number == first.number


def test_what_another_has_in_hand_too_is_not_handed_out_a_third_time_when_one_of_them_is_lost():
    queue = RangeQueue(range(2))
    for worker in "abc":
        queue.joins(worker)
    first, second = queue.take("a", 0.0), queue.take("a", 0.0)
    queue.take("b", 0.0)
    assert queue.lost("a", "was killed").again == len(first)
    assert queue.take("c", 0.0).indices == first.indices
    assert queue.lost("b", "was killed").again == len(second)
    assert queue.take("c", 0.0).indices == second.indices


def test_a_range_under_suspicion_goes_to_one_worker_at_a_time():
    queue = RangeQueue(range(1))
    for worker in "abc":
        queue.joins(worker)
    queue.take("a", 0.0)
    queue.lost("a", "was killed")
    assert queue.take("b", 0.0).losses == 1
    assert queue.take("c", 1e9) is None


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_no_sample_is_lost_or_measured_by_two_answers_that_count(seed):
    draw = random.Random(seed)
    n = draw.randrange(1, 400)
    deadly = {draw.randrange(n) for _ in range(draw.randrange(3))}
    queue, counted, now, named = RangeQueue(range(n)), [], 0.0, 0
    for _ in range(20_000):
        if queue.over:
            break
        now += draw.random() * 0.1
        crew = list(queue.workers)
        if len(crew) < 1 + seed % 5:
            queue.joins(named)
            named += 1
            continue
        worker = draw.choice(crew)
        queue.take(worker, now)
        held = list(queue._hands[worker].ranges)
        if held and deadly & set(held[0].indices):
            queue.lost(worker, "died")
        elif draw.random() < 0.05:
            queue.lost(worker, "was lost", machine=True)
        elif held:
            counted += queue.answered(worker, held[0].number, draw.random() * 0.01 * len(held[0]), now)
    assert queue.over
    assert sorted([*counted, *queue.skipped]) == list(range(n))
    assert deadly <= set(queue.skipped)
    assert queue._left == 0
    assert len(queue.skipped) <= len(deadly) + 2  # a machine that is lost again and again is laid to a sample at last
