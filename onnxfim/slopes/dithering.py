"""The ladder of a file that rounds: dithered cross-Gram values at a few steps, which of them to take, and what it is short of.

Rounding noise adds to the plain value as ``1/r²`` and not to the cross value, whose own noise falls with the directions; kinks,
curvature and saturation within a step lower every value, the more the larger the step. So the smallest step is taken whose noise
the audit's directions pay for, and the fall of the value from there upwards tells what is missing at it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.steps import Rung, StepBias
from onnxfim.runtime.rows import Directions, Forward
from onnxfim.slopes.differences import DifferenceJacobian, Ends, Request, Sample, is_finite, unchanged_share
from onnxfim.slopes.estimators import lambda_max_cross
from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.ladder_rows import LadderRows

Array: TypeAlias = np.ndarray[Any, Any]

#: Steps at which a file that rounds may be probed, in standard deviations of the inputs; few of them are.
DITHERED_LADDER = tuple(0.02 * 2.0**k for k in range(-6, 6))
_START = 6  # of the ladder: the step that int8 files mostly end at
_PART = 1 / 3  # of the passes of measuring that the ladder may take: a quarter of both together
_STEPS = 5  # that are paid for with the directions of a probe
_FEWEST, _MOST = 6, 32  # directions of a probe
#: Passes that the ladder of the smallest audit may take: three steps of a smooth file at six samples.
LEAST_PASSES = 150
#: The same of a file with quantisers: two steps at two samples.
LEAST_QUANTISED = 64
#: Directions of a sample at least, of which the estimate at dithered points keeps what its interval says: it covered 93 % and more
#: of 3,600 draws (of 1, 3, 4 and 9 eigenvalues, without and with noise), and has no value where they do not suffice.
LEAST_DIRECTIONS = 5
_TWO = 2  # steps at least: the change from one to the next tells what the value is short of
_SAMPLES = 2  # at least, at which the ladder climbs
_LEAST = 4  # directions of a probe where even two steps are too much: both take the same ones, so that their ratio is what counts
_DITHER = 0.02  # of the inputs' standard deviation, where the file has no input levels
_APART = 1.0  # of the step: two int8 files read 1.1 to 2.4 times the float ones' value at one step without it, 1.0 to 1.4 with it
#: Noise share that m directions of a sample resolve: 0.14 √m; at twice that a fifth of the samples have no value (measured).
_RESOLVED = 0.14
_PAID = 0.1  # what rounding may add to the relative noise of the audit's mean
_SETTLED = 0.05  # change of the value from the step above at which a smaller one would gain nothing
_STILL = 0.15  # directions that may change nothing
_STEEP = 2.0  # rise of the value at half the step
_HIDDEN = 1e6  # of the value: what rounding adds where a value says nothing of the next
_MODEL_ERROR = 0.02  # of a rung's logarithm, beside its noise
_SHARP, _BLUNT = 0.5, 1.0  # powers of the step that the logarithm of the value may fall with: of deep and of shallow nets


@dataclass(frozen=True)
class Probe:
    """The calibration samples: their inputs (c, *shape), outputs (c, K, P) and stream indices."""

    X: Array
    base: Array
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Means:
    """What an audit can pay for: directions of a sample, and samples.

    Attributes:
        directions: Dithered directions of a sample.
        samples: How many are audited.
        passes: Of measuring all samples; None where the ladder may take what it likes.
        least: Passes that the ladder may take in any case.
    """

    directions: int = 22
    samples: int = 64
    passes: int | None = None
    least: int = LEAST_PASSES

    @property
    def ladder(self) -> float:
        """Passes that the ladder may take: a quarter of its own and those of measuring."""
        return math.inf if self.passes is None else max(_PART * self.passes, self.least)

    def climbers(self, most: int) -> int:
        """Samples at which the ladder of a file with quantisers climbs: as many as two steps are paid for at, two at least."""
        return int(min(max(self.ladder / (_TWO * 4 * _LEAST), _SAMPLES), most))

    @property
    def probing(self) -> int:
        """Directions of a probe, so that its steps cost no more than a share of the audit (or the fewest that say anything)."""
        calls = _PART * 4 * self.directions * self.samples / (_STEPS * 4 * 6)
        return int(min(max(calls, _FEWEST), _MOST))

    def plan(self, samples: int, spent: int) -> tuple[int, float]:
        """Directions of a probe at so many calibration samples, and how many steps may be probed.

        Args:
            samples: At which the ladder climbs.
            spent: Passes that it took already, for smooth schemes: at least two steps are probed all the same.
        """
        left, count = max(self.ladder - spent, self.least), self.probing
        if _TWO * 4 * count * samples > left:
            count = max(int(left // (_TWO * 4 * samples)), _LEAST)
        return count, max(left / (4 * count * samples), _TWO)


@dataclass(frozen=True)
class Dithered:
    """One step of the ladder as it was probed.

    Attributes:
        rung: Its values.
        reach: Root mean square of what moves a coordinate: the step with the dither.
        share: What rounding adds to the plain value, as a share of the cross value; None where nothing was resolved.
        carried: Samples that carry the value, ``(Σλ)²/Σλ²``, as a share of those probed.
        floor: Root mean square of the rounding noise of one output.
    """

    rung: Rung
    reach: float
    share: float | None
    carried: float
    floor: float


@dataclass(frozen=True)
class DitheredChoice:
    """The step to take.

    Attributes:
        rung: Its values.
        plateau: Whether the value holds from it to the next step.
        resolved: Whether the directions pay for its noise.
        bias: What the value at it is short of, or None where it cannot be told.
    """

    rung: Rung
    plateau: bool
    resolved: bool
    bias: StepBias | None


class DitheredLadder:
    """Probes a file that rounds, a step at a time; a step is probed once.

    Args:
        forward: The model.
        reader: What its outputs are.
        probe: Calibration samples.
        directions: Where directions come from.
        input_std: Standard deviation of the inputs, the unit of the ladder.
        seed: Seed of the dither.
        level: Spacing of the input levels where the file quantises its input, else None.
        limits: Range outside which the file clips its input.
        means: What the audit can pay for.
        field: Where features differ in scale, by how much each is moved for a step of 1, in units of ``input_std``. Values of the
            ladder are then those of standardised inputs.
        rows: Keeps what was measured.
        spent: Passes that the ladder took already.
    """

    def __init__(
        self, forward: Forward, reader: OutputReader, probe: Probe, directions: Directions, *, input_std: float, seed: int,
        level: float | None, limits: tuple[float, float] | None, means: Means, field: Array | None = None,
        rows: LadderRows | None = None, spent: int = 0,
    ) -> None:  # fmt: skip
        self._rows = LadderRows() if rows is None else rows
        self._field, self._unit = field, 1.0 if field is None else input_std**2
        self._forward, self._reader, self._probe, self._directions = forward, reader, probe, directions
        self._std, self._seed, self._level, self._limits = input_std, seed, level, limits
        self.means = means
        self.count, self._most = means.plan(len(probe.X), spent)
        self.evaluations = 0
        self._tried: dict[float, Dithered] = {}

    @property
    def tried(self) -> tuple[Dithered, ...]:
        """What was probed, from the smallest step."""
        return tuple(self._tried[r] for r in sorted(self._tried))

    def dither(self, step: float) -> float:
        """Amplitude of the dither at a step: that of the step, and at least half a level, which spreads every input over its own.

        Two points nearer to each other than a step round alike inside the net, and noise that they share is in their product; what
        differences along a step average over is hardly wider for it. Without levels it does not fall with the step below a share
        of the inputs' deviation.
        """
        return max(self._level / 2 if self._level else _DITHER * self._std, _APART * step)

    def at(self, step: float) -> Dithered:
        """The values at a step, in input units."""
        if step not in self._tried:
            self._tried[step] = self._probed(step)
        return self._tried[step]

    def _payable(self, step: float) -> bool:
        """Whether a step was probed, or may be."""
        return step in self._tried or len(self._tried) + 1 <= self._most

    def choose(self, step: float | None) -> DitheredChoice:
        """The smallest step whose noise the audit's directions pay for, or the step given, with what is missing at it."""
        rungs = [q * self._std for q in DITHERED_LADDER]
        if step is not None:
            picked, above = step, [step * 2, step * 4]
            resolved = self.at(step).share is not None
        else:
            k = self._smallest_paid(rungs)
            resolved = k is not None
            if k is None:
                shares = {i: d.share for i, r in enumerate(rungs) if (d := self._tried.get(r)) is not None and d.share is not None}
                k = min(shares, key=lambda i: shares[i]) if shares else max(i for i, r in enumerate(rungs) if r in self._tried)
            picked, above = rungs[k], rungs[k + 1 : k + 3]
        upper = [self.at(r) for r in above if self._payable(r)] if self.at(picked).share is not None else []
        here = self.at(picked)
        bias = step_bias([here, *upper], self.count * len(self._probe.X)) if upper else None
        near = upper[0].rung.cross if upper else None
        plateau = resolved and bool(near) and abs((near or 0.0) / (here.rung.cross or 1.0) - 1) <= 2 * _SETTLED
        return DitheredChoice(here.rung, plateau, resolved, bias)

    def _smallest_paid(self, rungs: Sequence[float]) -> int | None:
        """Position of the smallest step that is paid for, as far down as the value still moves; None where none is."""
        k = _START
        while not self._paid(self.at(rungs[k])) or (k + 1 < len(rungs) and self._steep(rungs, k + 1)):
            k += 1
            if k == len(rungs) or not self._payable(rungs[k]):
                return None
        while k > 0 and not self._settled(rungs, k) and self._payable(rungs[k - 1]) and self._paid(self.at(rungs[k - 1])):
            if self._steep(rungs, k):
                break
            k -= 1
        return k

    def _steep(self, rungs: Sequence[float], k: int) -> bool:
        """Whether the value doubles from step ``k`` down: noise that both points share does so, a slope does not."""
        return self._payable(rungs[k]) and (self.at(rungs[k - 1]).rung.cross or 0.0) > _STEEP * (
            self.at(rungs[k]).rung.cross or 0.0
        )

    def _settled(self, rungs: Sequence[float], k: int) -> bool:
        if k + 1 == len(rungs) or rungs[k + 1] not in self._tried:
            return False
        here, above = (self._tried[r].rung.cross for r in rungs[k : k + 2])
        return bool(here and above) and abs((above or 0.0) / (here or 1.0) - 1) <= _SETTLED

    def _paid(self, at: Dithered) -> bool:
        """Whether the audit's directions pay for the noise: in every sample, and in the mean."""
        if at.share is None or at.rung.unchanged > _STILL or at.share > _RESOLVED * math.sqrt(self.means.directions):
            return False
        carrying = max(at.carried * self.means.samples, 1.0) * self.means.directions
        return math.sqrt((2 * at.share + at.share**2) / carrying) <= _PAID

    def _probed(self, step: float) -> Dithered:
        dither = self.dither(step)
        jacobian = DifferenceJacobian(
            self._forward, self._directions, scheme="dithered", step=step, seed=self._seed, dither=dither, limits=self._limits,
            field=self._field, known=self._rows.of("dithered", step, dither),
        )  # fmt: skip
        X, base = self._probe.X, self._probe.base
        values, plain, still, noise = [], 0.0, [], []
        wanted = requests(self._probe, self.count)
        self.evaluations += sum(4 * r.count - sum(map(len, jacobian.known(r))) for r in wanted)
        for k, ends in enumerate(jacobian.ends(X, base, wanted)):
            self._rows.keep(step, dither, ends)
            if not is_finite(ends) or ends.twin is None:  # says nothing of the step; the sample itself is skipped when measured
                continue
            sketch = cross_sketch(self._reader, base[k], ends)
            values.append(self._unit * sketch.value if sketch.value is not None else 0.0)
            plain += self._unit * (sketch.plain or 0.0)
            still.append(unchanged_share(ends))
            # Either difference carries two variances of one output's noise.
            noise.append(float(np.mean((ends.plus - ends.minus - ends.twin.plus + ends.twin.minus) ** 2)) / 4)
        n = max(len(values), 1)
        cross = sum(values) / n
        share = max(plain / n / cross - 1.0, 0.0) if cross > 0 else None
        rung = Rung(
            step=step, relative_step=step / self._std, forward=None, central=plain / n if values else None, error=None,
            unchanged=float(np.mean(still)) if still else 1.0, cross=cross if values else None,
        )  # fmt: skip
        squares = sum(v * v for v in values)
        carried = sum(values) ** 2 / squares / n if squares > 0 else 0.0
        floor = math.sqrt(float(np.mean(noise))) if noise else 0.0
        return Dithered(rung, math.sqrt(step**2 + dither**2 / 3), share, carried, floor)


def step_bias(points: Sequence[Dithered], directions: int) -> StepBias | None:
    """What the value at the first of these steps is short of the value at none, from its fall along the others.

    The logarithm falls with a power of the reach: about the first on shallow nets, less on deep ones. The factor is that of the
    first power, shrunk by its own noise; its range holds that of the square root and two standard errors.

    Args:
        points: The step taken and larger ones.
        directions: Directions at each of them, over all samples.

    Returns:
        The factor with its range; None where fewer than two steps have a value that rounding leaves anything of.
    """
    good = [p for p in points if p.share is not None and p.share < _HIDDEN and p.rung.cross]
    if len(good) < 2 or good[0] is not points[0]:
        return None
    y = np.log([p.rung.cross or 1.0 for p in good])
    # The directions are the same at all steps: their noise cancels, that of the rounding does not.
    shares = np.array([p.share or 0.0 for p in good])
    carried = np.array([max(p.carried, 1e-3) for p in good])
    weight = 1 / ((2 * shares + shares**2) / (directions * carried) + _MODEL_ERROR**2)

    def fall(power: float) -> tuple[float, float]:
        """Logarithm of the factor and its standard error."""
        x = np.array([p.reach for p in good]) ** power
        mean = float((weight * x).sum() / weight.sum())
        spread = float((weight * (x - mean) ** 2).sum())
        slope = -float((weight * (x - mean) * y).sum()) / spread
        return slope * float(x[0]), float(x[0]) / math.sqrt(spread)

    blunt, error = fall(_BLUNT)
    sharp, _ = fall(_SHARP)
    value = blunt * blunt**2 / (blunt**2 + error**2) if blunt else 0.0
    low, high = min(value, sharp, 0.0 if blunt > 0 else blunt) - 2 * error, max(value, sharp, blunt) + 2 * error
    factor, least, most = (math.exp(min(max(v, -20.0), 20.0)) for v in (value, low, high))
    return StepBias(factor, least, most, applied=False)


def requests(probe: Probe, count: int) -> list[Request]:
    """The first ``count`` directions of every calibration sample."""
    return [Request(Sample(k, i), 0, count) for k, i in enumerate(probe.indices)]


def cross_sketch(reader: OutputReader, base: Array, ends: Ends, temperature: float = 1.0, evaluations: int = 0) -> Any:
    """Dithered cross-Gram estimate from the two dithered points of each direction."""
    assert ends.twin is not None
    first = reader.scores(base, ends.plus, ends.minus, ends.h, temperature)
    second = reader.scores(base, ends.twin.plus, ends.twin.minus, ends.h, temperature)
    return lambda_max_cross(first, second, evaluations=evaluations)


def joined(rungs: Sequence[Rung], tried: Sequence[Dithered]) -> tuple[Rung, ...]:
    """The ladder of plain differences and that of dithered ones as one curve."""
    by_step: Mapping[float, Rung] = {g.step: g for g in rungs} | {d.rung.step: d.rung for d in tried}
    return tuple(by_step[r] for r in sorted(by_step))


def smallest_resolving(tried: Sequence[Dithered]) -> float | None:
    """The smallest step at which rounding adds no more than the value itself; None where there is none."""
    found = [d.rung.step for d in tried if d.share is not None and d.share <= 1.0]
    return min(found) if found else None
