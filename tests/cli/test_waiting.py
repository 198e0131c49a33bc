"""What is said while a run goes on, by a clock that the tests turn."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from onnxfim.auditing.meter import of_one_stage
from onnxfim.auditing.run import Forecast, Progress
from onnxfim.cli.waiting import HEARTBEAT, Turn, Waiting, counted, forecast_words, passed_words, seconds_words

FORECAST = Forecast(170.0, 12_345, "gradient", "CPUExecutionProvider", 60)
TOLD = Progress(
    "measuring", 3, 60, "samples", 0.2, 100.0, 80.0, step=7, steps=14, stage_done=3, stage_total=60, stage_unit="samples"
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (3.4, "3 s"), (12.0, "10 s"), (58.0, "1 min"), (64.0, "1 min"), (76.0, "1 min 20 s"), (599.0, "10 min"),
     (3000.0, "50 min"), (3599.0, "1 h"), (9000.0, "2 h 30 min")],
)  # fmt: skip
def test_times_are_told_as_people_say_them(seconds, words):
    assert seconds_words(seconds) == words


@pytest.mark.parametrize(("seconds", "words"), [(0.3, "0 s"), (61.0, "1 min 1 s"), (3600.0, "1 h"), (3725.0, "1 h 2 min 5 s")])
def test_passed_time_is_told_to_the_second(seconds, words):
    assert passed_words(seconds) == words


@pytest.mark.parametrize(
    ("count", "unit", "words"),
    [(1, "samples", "1 sample"), (2, "samples", "2 samples"), (1, "passes", "1 pass"), (1, "layers", "1 layer"), (0, "nodes", "0 nodes"),
     (12345, "passes", "12,345 passes")],
)  # fmt: skip
def test_units_have_their_number(count, unit, words):
    assert counted(count, unit) == words


def test_what_a_run_will_take_is_one_line():
    assert forecast_words(FORECAST) == "about 2 min 50 s: 12,345 passes on CPU, gradient, 60 samples"
    assert forecast_words(replace(FORECAST, at_most=True, samples=1)).startswith("at most 2 min 50 s")
    assert forecast_words(replace(FORECAST, samples=1)).endswith(", 1 sample")


def test_the_time_left_of_a_run_of_one_stage_goes_down_while_nothing_is_heard():
    state = Waiting(began=0.0, started=0.0)
    state.told(of_one_stage("restoring a node", 2, 10, "nodes", 0.2, 80.0), 20.0)
    assert state.left(20.0) == 80.0
    assert state.left(60.0) == 40.0


def test_a_line_tells_the_step_the_count_the_share_and_the_time_left():
    state = Waiting(began=0.0, started=1.0)
    state.told(TOLD, 20.0)
    assert state.line(20.0) == "step 7 of 14, measuring: 3 of 60 samples; 20% after 20 s, about 1 min 40 s left"
    assert "estimating the time left" in Waiting(0.0, 0.0).line(5.0)


def test_a_time_that_is_not_known_is_no_number():
    state = Waiting(0.0, 0.0)
    state.told(replace(TOLD, seconds_left=None, share=0.0, stage_total=0), 5.0)
    assert state.line(5.0) == "step 7 of 14, measuring; after 5 s, estimating the time left"


def test_nothing_is_said_in_the_first_second():
    state = Waiting(0.0, 0.0)
    assert state.told(TOLD, 0.9) == []
    assert state.lines(0.99) == []


@pytest.mark.parametrize("told_every", [0.1, 3.0, 60.0, 1e9])
def test_a_line_comes_at_least_every_ten_seconds(told_every):
    """Whatever the run tells: it may be in one call all the time."""
    state, said, next_told, now = Waiting(0.0, 0.0), [0.0], 2.0, 0.0
    while now < 300:
        if now >= next_told:
            said += [now] * bool(state.told(TOLD, now))
            next_told += told_every
        said += [now] * bool(state.lines(now))
        now += min(state.due(now), 0.5)
    assert max(b - a for a, b in itertools.pairwise([*said, 300.0])) <= 10.0
    assert len(said) <= 300 / HEARTBEAT + 3, "nor much more often"


def test_short_stages_pass_unsaid_and_long_ones_are_said_soon():
    state = Waiting(0.0, 0.0)
    assert state.told(replace(TOLD, step=1), 2.0) == []
    assert state.told(replace(TOLD, step=2), 2.5) == []  # the first took half a second
    assert state.lines(3.4) == []
    (line,) = state.lines(3.6)
    assert line.startswith("step 2 of 14")


def test_a_long_run_is_foretold_once_and_again_where_it_changes():
    state = Waiting(0.0, 0.0)
    unsure = replace(TOLD, forecast=replace(FORECAST, sure=False))
    assert state.told(unsure, 2.0) == []  # the derivative may still fail
    assert state.told(replace(TOLD, forecast=FORECAST), 2.5) == [forecast_words(FORECAST)]
    assert state.told(replace(TOLD, forecast=replace(FORECAST, seconds=200.0)), 2.6) == []
    sketch = replace(FORECAST, seconds=900.0, method="sketch")
    assert state.told(replace(TOLD, forecast=sketch), 2.7) == []  # it may be one long call
    assert f"now {forecast_words(sketch)}" in state.told(replace(TOLD, forecast=sketch), 9.0)
    late = replace(TOLD, share=0.8, forecast=FORECAST)
    assert not [line for t in (10.0, 17.0) for line in state.told(late, t) if line.startswith("now")]


def test_a_short_run_is_not_foretold():
    state = Waiting(0.0, 0.0)
    assert state.told(replace(TOLD, forecast=replace(FORECAST, seconds=19.0)), 2.0) == []


def test_the_time_left_falls_while_a_call_is_under_way():
    state = Waiting(0.0, 0.0)
    state.told(TOLD, 10.0)
    assert state.left(10.0) == pytest.approx(100.0)
    assert state.left(50.0) == pytest.approx(60.0)
    assert state.left(90.0) > 20.0, "never below what the later stages take"


def test_several_models_are_one_run():
    state = Waiting(began=0.0, started=40.0, turn=Turn(2, 3, "b.onnx", later=2.0))
    state.told(replace(TOLD, seconds_left=30.0, stage_seconds_left=30.0), 50.0)
    # 30 s for the rest of this one, which takes 40 in all, and twice that for the one after it.
    assert state.left_of_all(50.0) == pytest.approx(110.0)
    assert state.line(50.0).startswith("b.onnx (2 of 3): step 7 of 14, measuring")
    assert state.share(50.0) == pytest.approx(50 / 160)
    known = Waiting(0.0, 40.0, Turn(2, 3, "b.onnx", later=1.0, expected=60.0), reached=0.5)
    known.told(replace(TOLD, seconds_left=500.0), 42.0)  # its first calls were slow
    assert known.left(42.0) == pytest.approx(58.0)
    assert known.share(42.0) == 0.5, "the share of all never falls"
    assert known.left(50.0) > 400.0
    unknown = Waiting(0.0, 0.0, Turn(1, 3, "step of a.onnx"))
    unknown.told(TOLD, 5.0)
    assert "estimating" in unknown.line(5.0)
