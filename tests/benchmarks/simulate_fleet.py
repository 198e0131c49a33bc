"""How far an audit by many workers scales: 1 to 1,000 of them in a simulation of discrete events, with measured times and failures.

Ranges are handed out by the product's own queue (`onnxfim.fleet.ranges.RangeQueue`); workers, the network, deaths and the clock are
simulated. The times of `DIGITS` and `LARGE` were measured, as seconds of one core's own time, by `--measure`. Written for docs/scale.md:

    python -m tests.benchmarks.simulate_fleet
    python -m tests.benchmarks.simulate_fleet --measure MODEL DATA
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from onnxfim.fleet.ranges import IN_HAND, RangeQueue, SampleRange

CREWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_WAKE = 0.5  # seconds after which workers without a range ask again, as in `fleet.crew`


@dataclass(frozen=True)
class Costs:
    """Times of an audit, in seconds.

    Attributes:
        name: What it is like.
        plan: To plan, whatever the samples are.
        plan_sample: To plan, a sample: the clean pass.
        megabytes: Of the model and all samples, which go to every machine.
        opening: For a worker to start, to import and to open the model.
        fixed: A range, beside its samples.
        sample: A sample.
        spread: Standard deviation of the logarithm of a sample's time.
        answer: A range's answer, at the driver.
        reading: A sample's result, read by the driver.
        merging: A sample's result, merged.
    """

    name: str
    plan: float
    plan_sample: float
    megabytes: float
    opening: float
    fixed: float
    sample: float
    spread: float = 0.0
    answer: float = 0.0015
    reading: float = 0.0
    merging: float = 0.0


@dataclass(frozen=True)
class World:
    """Where it runs.

    Attributes:
        workers: How many there are; those that die are replaced.
        per_machine: Workers of a machine.
        gigabits: Of the network between two machines, a second.
        latency: Seconds of a message.
        hours: Hours that a machine lives on average; infinite where none dies.
        noticed: Seconds until a death is noticed.
        seed: Of the random numbers.
    """

    workers: int
    per_machine: int = 8
    gigabits: float = 10.0
    latency: float = 0.001
    hours: float = math.inf
    noticed: float = 5.0
    seed: int = 3


@dataclass(frozen=True)
class Simulated:
    """What came of it, in seconds of the clock where nothing else is said.

    Attributes:
        total: All.
        plan, opening, measuring, merging: Its parts; opening is until the first worker is ready.
        tail: Of measuring, the time after the last range was handed out.
        driver: Of measuring, the share in which the driver was busy.
        idle: Of the workers' time while it was measured, the share in which they measured nothing that counts.
        lost: Machines that died.
        ranges: Ranges that were handed out.
        samples: Samples whose first answer came, which are all.
        again: Samples that were measured more than once.
    """

    total: float
    plan: float
    opening: float
    measuring: float
    merging: float
    tail: float
    driver: float
    idle: float
    lost: int
    ranges: int
    samples: int
    again: int


@dataclass
class _Worker:
    machine: int
    line: deque[SampleRange] = field(default_factory=deque)
    runs: bool = False
    dead: bool = False


class Simulation:
    """One run."""

    def __init__(self, costs: Costs, world: World, samples: int) -> None:
        self.costs, self.world, self.samples = costs, world, samples
        self.draw = random.Random(world.seed)
        self.queue = RangeQueue(range(samples))
        self.now, self.driver_free, self.driver_busy = 0.0, 0.0, 0.0
        self.workers: dict[int, _Worker] = {}
        self.hungry: set[int] = set()
        self.names, self.order = itertools.count(), itertools.count()
        self.events: list[tuple[float, int, str, tuple[object, ...]]] = []
        self.measured = self.lost = 0
        self.useful = 0.0
        self.handed_last = 0.0
        self.first: float | None = None
        self.asked = -math.inf
        self.answered: set[int] = set()
        self.wakes = False
        self.gone: set[int] = set()

    def run(self) -> Simulated:
        c, w = self.costs, self.world
        plan = c.plan + c.plan_sample * self.samples
        machines = math.ceil(w.workers / w.per_machine)
        for machine in range(machines):
            count = min(w.per_machine, w.workers - machine * w.per_machine)
            self._starts(machine, count, 0.0, hop=math.ceil(math.log2(machine + 1)) + 1 if machines > 1 else 0)
        while not self.queue.over:
            at, _, what, told = heapq.heappop(self.events)
            self.now = at
            getattr(self, f"_{what}")(*told)
        opened = self.first or 0.0
        measuring = self.now - opened
        merging = c.merging * self.samples
        return Simulated(
            total=plan + self.now + merging, plan=plan, opening=opened, measuring=measuring, merging=merging,
            tail=self.now - max(self.handed_last, opened),
            driver=(self.driver_busy - max(0.0, self.driver_free - self.now)) / measuring if measuring else 0.0,
            idle=1 - self.useful / (w.workers * measuring) if measuring else 0.0, lost=self.lost, ranges=self.queue.handed,
            samples=self.queue.done, again=self.measured - self.samples,
        )  # fmt: skip

    def _later(self, seconds: float, what: str, *told: object) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.order), what, told))

    def _starts(self, machine: int, count: int, after: float, hop: int) -> None:
        """A machine with its workers: what they need comes from one that has it already, in so many hops from the driver."""
        transfer = hop * self.costs.megabytes * 8e-3 / self.world.gigabits
        names = [next(self.names) for _ in range(count)]
        for name in names:
            self._later(after + transfer + self.costs.opening, "ready", name, machine)
        if self.world.hours < math.inf:
            self._later(after + self.draw.expovariate(1 / (self.world.hours * 3600)), "dies", machine, names)

    def _ready(self, name: int, machine: int) -> None:
        if name in self.gone:  # its machine died while it opened the model
            return
        if self.first is None:
            self.first = self.now
        self.workers[name] = _Worker(machine)
        self.queue.joins(name)
        self.hungry.add(name)
        self.asked = -math.inf  # who comes asks at once
        self._feed()

    def _wakes(self) -> None:
        self.wakes = False
        self._feed()

    def _feed(self) -> None:
        if not self.queue.waiting and self.now - self.asked < _WAKE:
            if not self.wakes:
                self.wakes = True
                self._later(_WAKE, "wakes")
            return
        self.asked = self.now
        for _ in range(IN_HAND):
            for name in sorted(self.hungry, key=lambda n: (self.queue.busy(n), n)):
                found = self.queue.take(name, self.now)
                if found is None:
                    if not self.queue.busy(name) and not self.wakes:
                        self.wakes = True
                        self._later(_WAKE, "wakes")
                    return
                self.handed_last = self.now if not self.queue.waiting else self.handed_last
                self._later(self.world.latency, "arrives", name, found)
                if self.queue.full(name):
                    self.hungry.discard(name)

    def _arrives(self, name: int, found: SampleRange) -> None:
        worker = self.workers.get(name)
        if worker is not None and not worker.dead:
            worker.line.append(found)
            self._goes_on(name, worker)

    def _goes_on(self, name: int, worker: _Worker) -> None:
        if worker.runs or not worker.line:
            return
        worker.runs = True
        found = worker.line.popleft()
        c = self.costs
        each = (
            c.sample * len(found) if not c.spread
            else sum(c.sample * self.draw.lognormvariate(-c.spread**2 / 2, c.spread) for _ in range(len(found)))
        )  # fmt: skip
        self._later(c.fixed + each, "measured", name, found, c.fixed + each)

    def _measured(self, name: int, found: SampleRange, seconds: float) -> None:
        worker = self.workers.get(name)
        if worker is None or worker.dead:
            return
        worker.runs = False
        self.measured += len(found)
        self._goes_on(name, worker)
        # The driver takes answers one after another.
        begins = max(self.now + self.world.latency, self.driver_free)
        takes = self.costs.answer + self.costs.reading * len(found) * (found.indices[0] not in self.answered)
        self.answered.update(found.indices)
        self.driver_free = begins + takes
        self.driver_busy += takes
        self._later(self.driver_free - self.now, "heard", name, found, seconds)

    def _heard(self, name: int, found: SampleRange, seconds: float) -> None:
        if name not in self.workers:
            return  # it was given up meanwhile
        if self.queue.answered(name, found.number, seconds, self.now):
            self.useful += seconds
        self.hungry.add(name)
        self._feed()

    def _dies(self, machine: int, names: list[int]) -> None:
        self.lost += 1
        self.gone.update(names)
        for name in names:
            if name in self.workers:
                self.workers[name].dead = True
        self._later(self.world.noticed, "noticed", machine, names)

    def _noticed(self, machine: int, names: list[int]) -> None:
        for name in names:
            if self.workers.pop(name, None) is not None:
                self.hungry.discard(name)
                self.queue.lost(name, "was lost with its machine", machine=True)
        self._starts(machine, len(names), 0.0, hop=1)
        self._feed()


def simulate(costs: Costs, world: World, samples: int) -> Simulated:
    """One run of so many samples."""
    return Simulation(costs, world, samples).run()


#: digits_resnet.onnx by gradients, 8x8 pictures, K = 10; a Python process starts and imports in 1.5 s.
DIGITS = Costs(
    "small (8x8, K = 10)", plan=0.6, plan_sample=3.1e-5, megabytes=13.0, opening=1.6, fixed=0.015, sample=0.00049, spread=0.1,
    reading=5.8e-5, merging=3e-5,
)  # fmt: skip
#: MobileNetV1 0.25 by gradients on one core, 224x224 pictures, K = 1,000; which is what a ResNet-50, of a hundred times the arithmetic,
#: takes on a device of a hundred times the speed.
LARGE = Costs(
    "large (224x224, K = 1,000)", plan=2.0, plan_sample=0.026, megabytes=30_100.0, opening=2.4, fixed=0.015, sample=0.227,
    spread=0.1, reading=1.84e-3, merging=2.33e-3,
)  # fmt: skip


def table(costs: Costs, samples: int, **world: float) -> Iterator[str]:
    """Rows of Markdown, one for each number of workers."""
    alone = simulate(costs, World(1, **{**world, "hours": math.inf}), samples)
    yield f"Plan {_clock(alone.plan)}, merge {_clock(alone.merging)}, one worker {_clock(alone.total)} in all."
    yield ""
    yield "| workers | in all | times as fast | measuring | the driver is busy | workers idle | machines lost | measured again |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for workers in CREWS:
        s = simulate(costs, World(workers, **world), samples)
        yield (
            f"| {workers:,} | {_clock(s.total)} | {alone.total / s.total:.1f} | {_clock(s.measuring)} | {s.driver:.0%} | "
            f"{max(s.idle, 0.0):.0%} | {s.lost} | {s.again / samples:.1%} |"
        )


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def measure(model: str, data: str, samples: int) -> dict[str, float]:
    """Seconds of this process's own time on one core: what `Costs` holds."""
    import onnxfim
    from onnxfim import fleet
    from onnxfim.fleet.seat import Seat, heard, materials
    from onnxfim.graph.load import load_model
    from onnxfim.record.shard import Shard

    def timed(work):
        began = time.process_time()
        found = work()
        return found, time.process_time() - began

    file, settings = load_model(model), onnxfim.Settings(samples=samples, batch=64)
    loaded = onnxfim.load_samples(data, model, limit=samples)
    plan, planning = timed(lambda: fleet.plan(file, loaded, settings=settings))
    seat = Seat(materials("5" * 32, file, loaded), 1)
    _, opening = timed(lambda: heard(seat.open(plan.to_json())))
    heard(seat.measure(1, plan.audited[:2]))
    one = min(timed(lambda: heard(seat.measure(1, plan.audited[:1])))[1] for _ in range(3))
    half = len(plan.audited) // 2
    answer, many = timed(lambda: heard(seat.measure(1, plan.audited[:half])))
    shard, reading = timed(lambda: Shard.from_json(answer["shard"]))
    rest = Shard.from_json(heard(seat.measure(1, plan.audited[half:]))["shard"])
    _, merging = timed(lambda: fleet.merge(plan, [shard, rest]))
    heard(seat.leave())
    each = (many - one) / (half - 1)
    return {
        "plan": planning, "opening": opening, "fixed": max(0.0, one - each), "sample": each, "reading": reading / half,
        "merging": merging / len(plan.audited),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "DATA"))
    options = parser.parse_args()
    if options.measure:
        for name, seconds in measure(*options.measure, min(options.samples, 400)).items():
            print(f"{name}: {seconds:.6f}")
        return
    slow = replace(LARGE, name="slow (as large, 100 times the time for a sample)", sample=100 * LARGE.sample)
    spread = replace(LARGE, name=f"{LARGE.name}, if its clean pass were spread over the workers too", plan_sample=0.0)
    cases: list[tuple[Costs, dict[str, float]]] = [(DIGITS, {}), (LARGE, {}), (spread, {}), (slow, {}), (slow, {"hours": 6.0})]
    for costs, world in cases:
        print(f"\n{costs.name}" + (f", each machine lives {world['hours']:.0f} h" if world else "") + "\n")
        for line in table(costs, options.samples, **world):
            print(line, flush=True)


if __name__ == "__main__":
    main()
