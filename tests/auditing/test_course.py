"""The time that is left, by a clock that the tests turn: what is known before, what a run learns, and what it says of itself."""

from __future__ import annotations

import pytest

from onnxfim.auditing.course import Course, PlannedStage


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Run:
    """A course, and a machine that takes ``price`` seconds for a pass, by kind."""

    def __init__(self, parts, **price):
        self.clock = Clock()
        self.course = Course(self.clock)
        self.course.plan(parts)
        self.price = {"rows": 0.01, "differences": 0.012, "derivatives": 0.03, "attack": 0.03, **price}

    def calls(self, kind, passes, each=10):
        """So many passes in calls of a few each; how far the run is after every one."""
        for _ in range(0, passes, each):
            seconds = each * self.price[kind]
            self.clock.now += seconds
            self.course.spent(each, kind, seconds)
            yield self.course.standing()

    def stage(self, stage, kind, passes):
        assert self.course.enter(stage)
        told = list(self.calls(kind, passes))
        self.course.leave()
        return told


PARTS = (
    PlannedStage("clean pass", 200, unit="samples"),
    PlannedStage("measuring", 1000, "derivatives", unit="passes"),
    PlannedStage("looking for flips", 500),
    PlannedStage("concluding", seconds=1.0),
)


def test_nothing_is_told_before_a_pass_was_timed():
    run = Run(PARTS)
    assert run.course.standing().left is None
    run.course.enter("clean pass")
    run.clock.now += 3.0
    at = run.course.standing()
    assert (at.left, at.share, at.step, at.steps) == (None, 0.0, 1, 4)


def test_the_time_left_is_that_of_all_stages_by_the_rate_of_each():
    run = Run(PARTS)
    told = run.stage("clean pass", "rows", 200)
    # Of derivatives none ran yet: 1.3 times a row, where they take three: 1000 · 0.013 + 500 · 0.01 + 1.
    assert told[-1].left == pytest.approx(19.0, rel=0.1)
    told = run.stage("measuring", "derivatives", 1000)
    for k, at in list(enumerate(told))[5:]:  # learned from the fifth call on: 1000 · 0.03, 500 · 0.01 and a second
        assert at.left == pytest.approx((1000 - 10 * (k + 1)) * 0.03 + 6.0, rel=0.35)
    assert told[-1].left == pytest.approx(6.0, rel=0.1)
    told = run.stage("looking for flips", "rows", 500)
    assert told[-1].left == pytest.approx(1.0, rel=0.2)


def test_the_share_never_falls_and_ends_near_one():
    run = Run(PARTS, derivatives=0.2)  # much slower than anybody thought
    shares = [at.share for stage, kind, n in (("clean pass", "rows", 200), ("measuring", "derivatives", 1000),
                                              ("looking for flips", "rows", 500)) for at in run.stage(stage, kind, n)]  # fmt: skip
    assert shares == sorted(shares)
    assert 0.98 < shares[-1] < 1.0


def test_a_long_call_counts_down_and_never_says_zero():
    run = Run([PlannedStage("clean pass", 100), PlannedStage("measuring", 100, "derivatives")])
    run.stage("clean pass", "rows", 100)
    run.course.enter("measuring")
    left = []
    for _ in range(20):  # one call that takes twenty times what was expected
        run.clock.now += 1.3
        left.append(run.course.standing().left)
    assert left[0] < 1.3
    assert min(left) > 0
    assert left[-1] > 2.0, "the longer it takes, the longer it may go on"


def test_what_a_cache_gives_takes_no_time():
    run = Run([PlannedStage("clean pass", 100), PlannedStage("measuring", 1000, "rows")])
    run.stage("clean pass", "rows", 100)
    run.course.enter("measuring")
    run.course.spared(900)
    assert run.course.standing().left == pytest.approx(1.0, rel=0.1)
    assert run.course.passes == 200


def test_a_stage_that_takes_more_than_expected_says_so_by_what_is_done():
    run = Run([PlannedStage("clean pass", 100), PlannedStage("measuring", 100, "rows", unit="passes")])
    run.stage("clean pass", "rows", 100)
    run.course.enter("measuring")
    list(run.calls("rows", 50))
    run.course.expect_as(5, 100)  # ten passes a sample, of a hundred
    at = run.course.standing()
    assert at.left == pytest.approx(9.5, rel=0.15)
    assert (at.done, at.total, at.unit) == (50, 1000, "passes")


def test_another_plan_changes_what_is_to_come_and_not_what_was():
    run = Run(PARTS)
    run.stage("clean pass", "rows", 200)
    before = run.course.standing()
    run.course.plan(
        [
            PlannedStage("clean pass", 200),
            PlannedStage("measuring by differences", 20_000, "differences"),
            PlannedStage("concluding", seconds=1.0),
        ]
    )
    after = run.course.standing()
    assert (after.step, after.steps) == (1, 3)
    assert after.left == pytest.approx(20_000 * 0.012 + 1, rel=0.1)
    assert after.share >= before.share


def test_a_stage_may_come_again():
    run = Run([PlannedStage("clean pass", 100), PlannedStage("choosing the step", 50)])
    run.stage("clean pass", "rows", 100)
    run.stage("choosing the step", "rows", 50)
    run.course.plan([PlannedStage("choosing the step", 300, again=True), PlannedStage("clean pass", 100)])
    assert run.course.standing().left == pytest.approx(3.0, rel=0.1)
    run.stage("choosing the step", "rows", 300)
    assert run.course.standing().steps == 3


def test_what_opens_a_graph_comes_beside_its_passes():
    run = Run([PlannedStage("clean pass", 100), PlannedStage("differentiating", 100, "derivatives", seconds=5.0, teaches=False)])
    run.stage("clean pass", "rows", 100)
    run.course.enter("differentiating")
    assert run.course.standing().left == pytest.approx(5.0 + 100 * 0.013, rel=0.1)
    run.clock.now += 5.0
    run.course.spent(10, "derivatives", 0.1)
    assert run.course.standing().left == pytest.approx(90 * 0.01, rel=0.1)


def test_layers_are_counted_from_the_first():
    run = Run([PlannedStage("clean pass", 100), PlannedStage("bounding", seconds=1.0)])
    run.stage("clean pass", "rows", 100)
    run.course.enter("bounding")
    run.clock.now += 7.0  # until the graph is read
    run.course.count(0, 40, "layers")
    for k in range(1, 21):
        run.clock.now += 0.5
        run.course.count(k, 40, "layers")
    at = run.course.standing()
    assert (at.done, at.total, at.unit) == (20, 40, "layers")
    assert at.left == pytest.approx(10.0, rel=0.15)


def test_layers_that_cost_more_than_others_count_for_more():
    run = Run([PlannedStage("clean pass", 100), PlannedStage("bounding", seconds=1.0)])
    run.stage("clean pass", "rows", 100)
    run.course.enter("bounding")
    run.course.count(0, 40, "layers", 0.0)
    run.clock.now += 10.0
    run.course.count(30, 40, "layers", 0.2)  # the last ten are the large ones
    assert run.course.standing().left == pytest.approx(40.0, rel=0.25)


def test_a_part_of_a_stage_is_no_stage():
    course = Course(Clock())
    course.plan([PlannedStage("a"), PlannedStage("b")])
    assert course.enter("a")
    assert not course.enter("b")
    assert course.standing().steps == 2


def test_a_precision_to_be_reached_may_end_it_early():
    run = Run([PlannedStage("clean pass", 10), PlannedStage("refining", 10_000, "differences", at_most=True)])
    assert run.stage("clean pass", "rows", 10)[-1].at_most
