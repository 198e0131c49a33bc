"""How far a run is: the stages to come with their work, the rates learned as they run, and the time that is left by both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

#: What a count of a stage is of.
Unit: TypeAlias = Literal["passes", "samples", "layers", "nodes", "boxes"]
#: What a pass goes through, as far as its price is another: rows as they stand, rows of differences with what is made of them,
#: derivative graphs, steps of an attack.
Kind: TypeAlias = Literal["rows", "differences", "derivatives", "attack"]

#: Price of a pass where few of its kind ran yet, in forward passes of the file.
_TIMES: dict[Kind, float] = {"rows": 1.0, "differences": 1.2, "derivatives": 1.3, "attack": 1.4}
_PRIOR, _MOST_PRIOR = 0.05, 16.0  # of a stage, and its passes at most: what the price before it weighs against its own
_FEW = 48  # passes of a kind that weigh as much as what is expected of them by others
_CALLS, _STAGES = 300.0, 2000.0  # passes after which earlier calls, and stages, count for half
_OVER = 0.15  # of the time that a stage takes beyond what was expected: so long again, at least
_WORKED, _SLOWEST = 0.5, 5.0  # seconds of work that tell how slow it is, and how slow at most
_SMOOTH = 2.0  # seconds in which a new estimate of the end is taken over to two thirds
_FAR = 1.6  # ratio to the smoothed time left from which the new one is taken at once


@dataclass(frozen=True)
class PlannedStage:
    """A stage that is to come.

    Attributes:
        stage: Its name, as its ``@stage`` has it.
        passes: Forward passes that it is expected to take.
        kind: What they go through.
        seconds: What it is expected to take beside them.
        at_most: Whether it may end long before.
        unit: What is counted in it: its passes, or other things, which then tell themselves; None where nothing is.
        teaches: Whether its time tells the price of a pass.
        again: Whether it ran before and runs once more.
    """

    stage: str
    passes: float = 0.0
    kind: Kind = "rows"
    seconds: float = 0.0
    at_most: bool = False
    unit: Unit | None = None
    teaches: bool = True
    again: bool = False


@dataclass(frozen=True)
class CourseState:
    """How far a run is.

    Attributes:
        share: Of the run that is done, 0 to 1; it never falls.
        left: Seconds to the end, None while they are not known.
        stage_left: Seconds to the end of the stage, of those.
        at_most: Whether the run may end long before.
        step, steps: The stage's number, and how many there are; zeros while that is not known.
        done, total, unit: Of the stage itself; zeros where nothing is counted.
    """

    share: float
    left: float | None
    stage_left: float
    at_most: bool
    step: int
    steps: int
    done: int
    total: int
    unit: Unit


def aged(left: float, age: float) -> float:
    """Seconds that are left where ``left`` were, ``age`` seconds ago; where these are over and nothing came, some more."""
    return max(left - age, _OVER * age if age > 1.0 else 0.0)


@dataclass
class _Running:
    """The stage that runs: when it began, the passes it took, and when the last of them came back."""

    part: PlannedStage
    entered: float
    began: float  # from when on its pace counts
    heard: float
    price: float  # seconds of a pass, of what comes beside them, and of the whole, by what was known before
    beside: float
    expected: float
    passes: float = 0.0
    spared: float = 0.0  # passes that were not made
    count: tuple[int, int] | None = None
    share: float = 0.0  # of its work, by that count

    def left(self, now: float, price: float) -> float:
        """Seconds that it still takes: by its pace so far and, as long as little of it is done, by what was expected before.

        Where its time is not that of its passes alone, these cost ``price`` each, and what comes beside them comes first.
        """
        age = now - self.heard
        if self.part.passes:
            if self.part.teaches:
                prior = min(_PRIOR * self.part.passes, _MOST_PRIOR)
                price = (prior * self.price + self.heard - self.began) / (prior + self.passes)
            left = max(self.part.passes - self.passes, 0.02 * self.passes) * price
            if not self.part.teaches and self.count is not None and self.count[0]:
                left = (self.count[1] / self.count[0] - 1) * (self.heard - self.began)
            elif not self.passes:
                left += self.beside
        elif self.count is None or not self.count[1]:
            left, age = self.expected, now - self.began
        else:
            left = (1 - self.share) * (_PRIOR * self.expected + self.heard - self.began) / (_PRIOR + self.share)
        return aged(left, age)


@dataclass
class _Price:
    passes: float = 0.0
    seconds: float = 0.0


class Course:
    """The stages of a run, and how far it is.

    Args:
        clock: Tells all times, in seconds.
        work: Tells how long the thread that runs it has been at work, in seconds: where others keep the machine busy that is less
            than what passed, and what is expected beside passes takes as much longer. None takes no notice of it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, work: Callable[[], float] | None = None) -> None:
        self._clock, self.began = clock, clock()
        self._work, self._worked = work, 0.0 if work is None else work()
        self._coming: list[PlannedStage] = []
        self._begun: list[str] = []
        self._running: _Running | None = None
        self._calls: dict[Kind, _Price] = {}
        self._stages: dict[Kind, _Price] = {}
        self._spent = 0.0  # passes of stages that are over
        self._share = 0.0
        self.took: dict[str, float] = {}  # seconds of stages that are over
        self._end: tuple[float, float] | None = None  # the smoothed end, and when it was smoothed

    def plan(self, parts: Sequence[PlannedStage]) -> None:
        """What is to come from here on; stages that began before are left out, unless they run again."""
        self._coming = [p for p in parts if p.again or p.stage not in self._begun]
        running = self._running
        if running is not None:
            same = next((p for p in parts if p.stage == running.part.stage and not p.again), None)
            running.part = running.part if same is None else replace(running.part, passes=max(same.passes, running.passes))
        self._end = None

    def enter(self, stage: str) -> bool:
        """A stage begins; whether it is one of its own, and no part of another that runs."""
        if self._running is not None:
            return False
        part = next((p for p in self._coming if p.stage == stage), PlannedStage(stage))
        self._coming = [p for p in self._coming if p is not part]
        self._begun.append(stage)
        now = self._clock()
        self._running = _Running(
            part, now, now, now, self._price(part.kind) or 0.0, part.seconds * self._slower, self.price_of(part) or 0.0
        )
        return True

    def leave(self) -> None:
        """The stage that runs is over."""
        running, self._running = self._running, None
        if running is None:
            return
        self._spent += running.passes
        self.took[running.part.stage] = self._clock() - running.entered
        if running.part.teaches and running.passes:
            _add(self._stages, running.part.kind, running.passes, self._clock() - running.began, _STAGES)

    def expect(self, passes: float) -> None:
        """The stage that runs takes so many passes in all."""
        if self._running is not None:
            self._running.part = replace(self._running.part, passes=max(passes, self._running.passes))

    def expect_as(self, done: int, total: int) -> None:
        """The stage that runs takes as many passes for all of ``total`` as it took, or was spared, for those that are ``done``."""
        if (running := self._running) is not None and done:
            self.expect((running.passes + running.spared) / done * total - running.spared)

    def beside(self, seconds: float) -> None:
        """The stage that runs took so many seconds for what is done once, and tells nothing of its pace."""
        if self._running is not None:
            self._running.began += seconds

    def spared(self, passes: float) -> None:
        """So many passes of the stage that runs need not be made."""
        if self._running is not None:
            self._running.spared += passes
            self.expect(self._running.part.passes - passes)

    def count(self, done: int, total: int, unit: Unit, share: float | None = None) -> None:
        """So much of the stage that runs is done, of things that are no passes; ``share`` of its work, where they are not alike."""
        if (running := self._running) is not None:
            running.heard = self._clock()
            if running.count is None and not running.part.passes:
                running.began = running.heard  # its pace is that of what is counted
            if running.part.unit != unit:
                running.part = replace(running.part, unit=unit)
            running.count = done, total
            running.share = done / max(total, 1) if share is None else share

    def spent(self, passes: float, kind: Kind | None = None, seconds: float = 0.0) -> None:
        """So many passes came back, after so many seconds where their ``kind`` is told."""
        if kind is not None:
            _add(self._calls, kind, passes, seconds, _CALLS)
        if self._running is None:
            self._spent += passes
        else:
            self._running.passes += passes
            self._running.heard = self._clock()

    @property
    def passes(self) -> int:
        """Passes of the whole run, as far as they are known."""
        running = self._running
        now = 0.0 if running is None else max(running.part.passes, running.passes)
        return round(self._spent + now + sum(p.passes for p in self._coming))

    @property
    def passed(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self.began

    def standing(self) -> CourseState:
        """How far the run is."""
        now, running = self._clock(), self._running
        later = [self.price_of(p) for p in self._coming]
        stage_left = 0.0 if running is None else running.left(now, self._price(running.part.kind) or 0.0)
        # Before the first passes were made and timed nothing is known; nor without any plan.
        known = bool(self._calls) and (bool(self._coming) or running is not None) and None not in later
        left = None if not known else self._smoothed(now, stage_left + sum(s or 0.0 for s in later))
        if left is not None:
            passed = now - self.began
            self._share = max(self._share, min(passed / max(passed + left, 1e-9), 0.999))
        done, total, unit = self._counted()
        begun = len(self._begun)
        return CourseState(
            share=self._share, left=left, stage_left=min(stage_left, math.inf if left is None else left),
            at_most=any(p.at_most for p in ([] if running is None else [running.part]) + self._coming),
            step=begun if self._coming or begun > 1 else 0, steps=begun + len(self._coming) if self._coming or begun > 1 else 0,
            done=done, total=total, unit=unit,
        )  # fmt: skip

    def _counted(self) -> tuple[int, int, Unit]:
        running = self._running
        if running is None or running.part.unit is None:
            return 0, 0, "passes"
        if running.count is not None:
            return *running.count, running.part.unit
        total = max(round(running.part.passes), round(running.passes))  # of samples: one pass each
        return round(running.passes), total, running.part.unit

    def _smoothed(self, now: float, left: float) -> float:
        """The time left, without the jitter of single calls."""
        if self._end is not None:
            before = max(self._end[0] - now, 0.0)
            if before > 0 and 1 / _FAR < left / before < _FAR:
                left = before + (left - before) * (1 - math.exp(-(now - self._end[1]) / _SMOOTH))
        self._end = now + left, now
        return left

    def price_of(self, part: PlannedStage) -> float | None:
        """Seconds that a part takes by what is known so far; None where no price of its passes is."""
        beside = part.seconds * self._slower if part.seconds else 0.0
        if not part.passes:
            return beside
        price = self._price(part.kind)
        return None if price is None else part.passes * price + beside

    @property
    def _slower(self) -> float:
        """How many times longer work takes than on a machine of its own."""
        if self._work is None:
            return 1.0
        worked, passed = self._work() - self._worked, self._clock() - self.began
        return min(max(passed / worked, 1.0), _SLOWEST) if worked > _WORKED else 1.0

    def _price(self, kind: Kind) -> float | None:
        """Seconds of a pass: by whole stages of its kind, with all that goes on in them; by calls, as long as these are few."""
        stages, running = self._stages.get(kind, _Price()), self._running
        passes, seconds = stages.passes, stages.seconds
        if running is not None and running.part.kind == kind and running.part.teaches and running.passes:
            passes, seconds = passes + running.passes, seconds + running.heard - running.began
        expected = self._price_by_calls(kind)
        if expected is None:
            return seconds / passes if passes else None
        return (seconds + _FEW * expected) / (passes + _FEW)

    def _price_by_calls(self, kind: Kind) -> float | None:
        """Seconds of a pass by calls alone."""
        if kind in ("derivatives", "attack") and (own := self._called("derivatives", "attack")) is not None:
            return own
        forward = self._called("rows", "differences")
        return None if forward is None else forward * _TIMES[kind]

    def _called(self, *kinds: Kind) -> float | None:
        """Seconds of a pass of these kinds, on average; None where none ran."""
        found = [self._calls[k] for k in kinds if k in self._calls]
        passes = sum(f.passes for f in found)
        return sum(f.seconds for f in found) / passes if passes else None


def _add(prices: dict[Kind, _Price], kind: Kind, passes: float, seconds: float, half: float) -> None:
    """Add passes to those of their kind, which count for half of what they did after so many new ones: the first calls are slow."""
    price = prices.setdefault(kind, _Price())
    kept = 0.5 ** (passes / half)
    price.passes = kept * price.passes + passes
    price.seconds = kept * price.seconds + seconds


__all__ = ["Course", "CourseState", "Kind", "PlannedStage", "Unit", "aged"]
