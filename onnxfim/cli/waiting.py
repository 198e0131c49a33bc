"""What is said while a run goes on: which lines, when, and in which words; times come in from outside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxfim.auditing.dry_run import DryRun
    from onnxfim.auditing.run import Forecast, Progress

#: Seconds in which nothing is said: who waits no longer needs no line, and an error that comes at once is the only one.
SILENT = 1.0
#: Seconds between lines where there is no terminal: below ten, whatever keeps a line from being printed at once.
HEARTBEAT = 8.0
#: The same where the work is done in this process, which may keep the thread that says them from its turn for some seconds.
CLOSER_HEARTBEAT = 5.0
#: Seconds of a run from which on it is told at its beginning what it will take.
LONG = 20.0
_BEGUN = 1.0  # seconds of a stage that is told of: shorter ones pass unsaid
_UNSURE = 5.0  # seconds after which a forecast is told that the derivative graphs may still change
_LATE, _DOUBT = 0.6, 6.0  # share of the run after which it is not told again, and seconds for which it must be far off
_CHANGED = 2.0  # ratio of two forecasts from which on the second is told as well


def seconds_words(seconds: float) -> str:
    """A time as people say it: the more of it, the coarser."""
    if seconds < 1:
        return "1 s"
    if seconds < 10:
        return f"{seconds:.0f} s"
    if seconds < 57.5:
        return f"{round(seconds / 5) * 5} s"
    if seconds < 595:
        minutes, left = divmod(round(seconds / 10) * 10, 60)
        return f"{minutes} min" + (f" {left} s" if left else "")
    if seconds < 3570:
        return f"{round(seconds / 60)} min"
    hours, minutes = divmod(round(seconds / 300) * 5, 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def passed_words(seconds: float) -> str:
    """A time that has passed, to the second."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min"), (left, "s")) if n]
    return " ".join(parts) or "0 s"


def counted(count: int, unit: str) -> str:
    """So many of a unit, which is named in the plural."""
    one = {"passes": "pass", "boxes": "box"}.get(unit, unit.removesuffix("s"))
    return f"{count:,} {one if count == 1 else unit}"


def forecast_words(forecast: Forecast) -> str:
    """What a run will take: 'about 3 min: 12,345 passes on CPU, gradient, 60 samples'."""
    return f"{expected_words(forecast.seconds, at_most=forecast.at_most)}: {work_words(forecast)}"


def expected_words(seconds: float, *, at_most: bool) -> str:
    """A time that is expected: 'about 3 min', or 'at most' where it may end long before."""
    return f"{'at most' if at_most else 'about'} {seconds_words(seconds)}"


def work_words(run: Forecast | DryRun) -> str:
    """What a run does: '12,345 passes on CPU, gradient, 60 samples'."""
    provider = run.provider.removesuffix("ExecutionProvider")
    return f"{counted(run.passes, 'passes')} on {provider}, {run.method}, {counted(run.samples, 'samples')}"


@dataclass(frozen=True)
class Turn:
    """Which of several jobs of one command runs, and how long the others are expected to take beside it.

    Attributes:
        number, count: The job's number, from 1, and how many there are.
        name: What it is about.
        later: What the jobs after it take, in units of what this one takes; None where nothing is known of that.
        expected: Seconds that it takes by those before it; None where nothing is known of that.
    """

    number: int
    count: int
    name: str
    later: float | None = None
    expected: float | None = None

    @property
    def words(self) -> str:
        return f"{self.name} ({self.number} of {self.count})"


@dataclass
class Waiting:
    """The state of a run as it was last told, and what is to be said of it, at times of one clock in seconds.

    Args:
        began: When the command began.
        started: When this job began.
        turn: Which of several jobs runs; None of one alone.
        stage: What is done before anything is told.
        reached: Share of all jobs that was told before; it never falls.
    """

    began: float
    started: float
    turn: Turn | None = None
    stage: str = "starting"
    heartbeat: float = HEARTBEAT
    silent: float = SILENT
    reached: float = 0.0
    _last: Progress | None = None
    _heard: float = 0.0
    _stage: object = None
    _since: float = 0.0  # when the stage began
    _said_stage: bool = True
    _said: float = field(default=0.0)  # when the last line came
    _forecast: float | None = None  # seconds that were told
    _doubted: float | None = None  # since when they are far off

    def __post_init__(self) -> None:
        self._said = self._since = self.started
        self._heard = self.started

    def told(self, progress: Progress, now: float) -> list[str]:
        """Take in how far it is; lines that are to be said at once."""
        stage = progress.step or progress.stage
        if stage != self._stage:
            self._stage, self._since, self._said_stage = stage, now, False
        self._last, self._heard = progress, now
        return self.lines(now)

    def lines(self, now: float) -> list[str]:
        """Lines that are due: what the run will take, a stage that has gone on for a while, and one every few seconds."""
        if now - self.began < self.silent:
            return []
        found = []
        if (line := self._foretold(now)) is not None:
            found.append(line)
        fresh = not self._said_stage and now - self._since >= min(_BEGUN, self.silent)
        if fresh or now - self._said >= self.heartbeat:
            self._said_stage = True
            found.append(self.line(now))
        if found:
            self._said = now
        return found

    def due(self, now: float) -> float:
        """Seconds until a line may be due."""
        times = [self._said + self.heartbeat]
        if not self._said_stage:
            times.append(self._since + min(_BEGUN, self.silent))
        return max(max(min(times), self.began + self.silent) - now, 0.02)

    def _foretold(self, now: float) -> str | None:
        """What a long run will take, said once it is known, and again where that has changed much."""
        forecast = None if self._last is None else self._last.forecast
        if forecast is None or not (forecast.sure or now - self.started > _UNSURE):
            return None
        seconds = forecast.seconds
        if seconds < LONG:
            return None
        if self._forecast is not None:  # again where it is far off, early enough to matter, and for longer than a moment
            if 1 / _CHANGED < seconds / self._forecast < _CHANGED or (self._last is not None and self._last.share > _LATE):
                self._doubted = None
                return None
            self._doubted = now if self._doubted is None else self._doubted
            if now - self._doubted < _DOUBT:
                return None
        again, self._forecast = self._forecast is not None, seconds
        words = forecast_words(forecast)
        head = "" if self.turn is None else f"{self.turn.words}: "
        return f"{head}now {words}" if again else f"{head}{words}"

    def left(self, now: float) -> float | None:
        """Seconds to the end of this job; None while they are not known."""
        from onnxfim.auditing.course import aged  # once a run goes on

        last, passed = self._last, now - self.started
        expected = None if self.turn is None else self.turn.expected
        if expected is not None and (last is None or last.seconds_left is None or passed < _UNSURE):
            return aged(expected, passed)  # its own first calls tell less than the jobs before it
        if last is None or last.seconds_left is None:
            return None
        age = max(now - self._heard, 0.0)
        stage = min(last.stage_seconds_left, last.seconds_left)
        return last.seconds_left - stage + aged(stage, age)

    def left_of_all(self, now: float) -> float | None:
        """The same of all jobs."""
        left = self.left(now)
        if left is None or self.turn is None or self.turn.number == self.turn.count:
            return left
        return None if self.turn.later is None else left + (now - self.started + left) * self.turn.later

    def share(self, now: float) -> float | None:
        """Share that is done of the jobs; None while it is not known."""
        left = self.left_of_all(now)
        if left is not None and self._last is not None:
            passed = now - self.began
            share = self._last.share if self.turn is None else min(passed / max(passed + left, 1e-9), 0.999)
            self.reached = max(self.reached, share)
        return self.reached or None

    def left_words(self, now: float) -> str:
        """How long it still takes."""
        left, last = self.left_of_all(now), self._last
        if left is None:
            return "estimating the time left"
        return f"{expected_words(left, at_most=last is not None and last.at_most)} left"

    @property
    def stage_words(self) -> str:
        """What it does, and which step that is."""
        head, last = "" if self.turn is None else f"{self.turn.words}: ", self._last
        if last is None:
            return head + self.stage
        return head + (f"step {last.step} of {last.steps}, {last.stage}" if last.step else last.stage)

    @property
    def short_words(self) -> str:
        """The same as `stage_words`, for a bar."""
        last = self._last
        if last is None or not last.step:
            return self.stage_words
        return ("" if self.turn is None else f"{self.turn.words} ") + f"{last.step}/{last.steps} {last.stage}"

    @property
    def count_words(self) -> str:
        """How much of the stage is done; nothing where nothing is counted in it."""
        last = self._last
        if last is None or not last.stage_total:
            return ""
        return f"{last.stage_done:,} of {counted(last.stage_total, last.stage_unit)}"

    def line(self, now: float) -> str:
        """How far it is, in one line."""
        count, share = self.count_words, self.share(now)
        told = f"{self.stage_words}: {count}" if count else self.stage_words
        done = "" if share is None else f"{share:.0%} "
        return f"{told}; {done}after {passed_words(now - self.began)}, {self.left_words(now)}"


__all__ = [
    "CLOSER_HEARTBEAT",
    "HEARTBEAT",
    "LONG",
    "SILENT",
    "Turn",
    "Waiting",
    "counted",
    "expected_words",
    "forecast_words",
    "passed_words",
    "seconds_words",
    "work_words",
]
