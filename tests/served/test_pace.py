from __future__ import annotations

import itertools
import random
import threading
import time

import pytest

from onnxfim.served.pace import Given, Pace


class Clock:
    """Time that passes where somebody waits, and its event."""

    def __init__(self):
        self.now, self.waits, self.asked = 100.0, [], False

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.waits.append(seconds)
        self.now += max(seconds, 0.0)
        return self.asked

    def is_set(self):
        return self.asked


def test_requests_keep_their_distance():
    clock = Clock()
    pace = Pace(5.0, clock, clock)
    times = []
    for _ in range(11):
        pace.turn()
        times.append(clock.now)
    assert times[-1] - times[0] == pytest.approx(2.0)  # ten gaps of a fifth of a second
    assert min(b - a for a, b in itertools.pairwise(times)) == pytest.approx(0.2)


def test_threads_share_one_rate():
    pace, times, lock = Pace(50.0, threading.Event()), [], threading.Lock()

    def work():
        for _ in range(5):
            pace.turn()
            with lock:
                times.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(10)
    times.sort()
    assert len(times) == 20
    assert times[-1] - times[0] >= 19 / 50 * 0.9  # a wait may end some milliseconds early


def test_all_wait_where_the_server_asks_for_it():
    clock = Clock()
    pace = Pace(None, clock, clock)
    pace.turn()
    pace.hold(7.0)
    before = clock.now
    pace.turn()
    assert clock.now - before == pytest.approx(7.0)


def test_waits_grow_and_are_drawn_anew():
    clock = Clock()
    pace = Pace(None, clock, clock, random.Random(1))
    longest = []
    for tries in range(10):
        clock.waits.clear()
        for _ in range(200):
            pace.back_off(tries)
        assert min(clock.waits) >= 0
        longest.append(max(clock.waits))
    assert longest[0] <= 0.1
    assert longest[3] == pytest.approx(0.8, rel=0.1)  # the longest of 200 draws up to 0.1 · 2³
    assert longest[9] == pytest.approx(15.0, rel=0.1)


def test_a_wait_ends_where_the_work_does():
    event = threading.Event()
    pace = Pace(0.01, event)
    pace.turn()
    threading.Timer(0.05, event.set).start()
    began = time.monotonic()
    with pytest.raises(Given):
        pace.turn()
    assert time.monotonic() - began < 5
