"""Chooses the step and the scheme: a noise probe, and a ladder of steps on a few calibration samples.

The even part of the two one-sided differences, ``(z(x+rv) + z(x−rv) − 2z(x))/2r``, is the error of a forward difference that
can be seen: curvature and kinks (growing with r) and rounding noise (growing with 1/r). Its share of the Gram matrix is the
bias of the forward sketch, so the step with the smallest share is the best one, and the share says how good it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxfim.record.steps import Rung, StepBias, StepChoice
from onnxfim.runtime.rows import Directions, Forward, Rademacher
from onnxfim.slopes.differences import DifferenceJacobian, Scheme, is_finite
from onnxfim.slopes.dithering import DitheredLadder, Means, Probe, joined, requests, smallest_resolving
from onnxfim.slopes.estimators import lambda_max_sketch
from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.ladder_rows import LadderRows

Array: TypeAlias = np.ndarray[Any, Any]

#: Steps of the ladder, in standard deviations of the inputs.
LADDER = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
#: Larger ones, for outputs of so few digits that a smaller step moves them by less than their unit.
LARGE_STEPS = (0.2, 0.3)

#: How the reason begins that a file with quantisers rounds.
QUANTISERS = "the graph quantises"

#: Samples that the ladder climbs at.
MOST_SAMPLES = 6
_DIRECTIONS, _FEWEST = 8, 4  # at a step; few tell as well whether values at two steps agree: they are taken along the same ones
_FIRST = 3  # smallest steps: float32 and float64 files mostly have their plateau there (12 of 14 real ones)
_FORWARD_ERROR = 0.02  # share of curvature and noise in the Gram matrix that a forward sketch may carry
_CENTRAL_ERROR = 0.05
_PLATEAU = 0.10  # change of the value between neighbouring steps on a plateau


def choose_step(
    forward: Forward,
    reader: OutputReader,
    probe: Probe,
    *,
    input_std: float,
    seed: int,
    step: float | None = None,
    scheme: Scheme | Literal["auto"] = "auto",
    level: float | None = None,
    limits: tuple[float, float] | None = None,
    field: Array | None = None,
    means: Means | None = None,
    rounding: str | None = None,
    brief: bool = False,
    rows: LadderRows | None = None,
    further: Sequence[float] = (),
) -> StepChoice:
    """Measure noise and the curve lambda(r), and choose step and scheme.

    Args:
        forward: The model.
        reader: What its outputs are.
        probe: Calibration samples.
        input_std: Standard deviation of the inputs, the unit of the ladder.
        seed: Seed of the directions.
        step: A step given by the user, in input units; only the scheme is then chosen.
        scheme: A scheme given by the user; only the step is then chosen.
        level: Spacing of the input levels of a file that quantises its input: the amplitude of the dither. Such a file has no
            slope at a point, so that smooth schemes are not considered (measured: they read 1.1 to 1.4 times the float file).
        limits: Range outside which the file clips its input.
        field: Where features differ in scale, by how much each is moved for a step of 1, in units of ``input_std``. Values of the
            ladder are then those of standardised inputs.
        means: What the audit can pay for. The smallest step of a file that rounds depends on it, and of one with quantisers how
            many steps are probed. A smooth ladder of which it cannot pay all steps begins with a few; where none has a plateau it
            climbs the others all the same, for else no step is known at which values mean anything.
        rounding: What shows that the file rounds, in words. A file with quantisers is not probed by plain differences.
        brief: Begin with a few steps in any case: the step only serves a check of values that do not depend on it.
        rows: Keeps what was measured, and knows what was measured already.
        further: Steps beside those of the ladder, in standard deviations.

    Returns:
        The choice with its evidence.
    """
    dirs, rows, means = Rademacher(seed), LadderRows() if rows is None else rows, means or Means()
    repeat_noise = float(np.sqrt(np.mean((forward.outputs(probe.X) - probe.base) ** 2)))
    evaluations = len(probe.X)
    quantised = is_quantised(level, rounding)
    smoothly = not quantised or scheme in ("forward", "central")
    steps = sorted({*(q * input_std for q in (*LADDER, *further)), *([step] if step else [])}) if smoothly else []
    first, count = _begun_with(steps, step, len(probe.X), means, brief)
    climbed: dict[float, tuple[Rung, float]] = {}
    for part in (first, [r for r in steps if r not in first]):
        for r in part:
            rung, floor, cost = _climb(forward, reader, probe, dirs, r, input_std, field, count, rows)
            climbed[r] = rung, floor
            evaluations += cost
        if part and _settles([climbed[r][0] for r in sorted(climbed)], step, scheme):
            break
    rungs = [climbed[r][0] for r in sorted(climbed)]
    noise = [climbed[r][1] for r in sorted(climbed)]
    usable = [g for g in rungs if _resolves(g)]
    smooth = StepChoice(
        step=0.0, scheme="forward", plateau=False, given=step is not None, input_std=input_std,
        noise_floor=min((n for n, g in zip(noise, rungs, strict=True) if g.unchanged < 0.5), default=None),
        repeat_noise=repeat_noise, error=None, smallest_usable=usable[0].step if usable else None, dither=None,
        curve=tuple(rungs), samples=probe.indices, directions=count, evaluations=evaluations, rounding=rounding,
        per_coordinate=field is not None,
    )  # fmt: skip

    def choice(rung: Rung, scheme: Scheme, plateau: bool) -> StepChoice:
        error = rung.error if scheme == "forward" else _central_error(usable, rung)
        return replace(smooth, step=rung.step, scheme=scheme, plateau=plateau, error=error)

    if scheme in ("forward", "central"):
        plain = choice(*_smooth_choice_of(scheme, rungs, usable, step))
        return replace(plain, bias=bend(plain)) if further else plain
    chosen = _smooth_choice(rungs, usable, step) if scheme == "auto" and not quantised else None
    if chosen is not None and _settled(chosen, rungs, step):
        return choice(*chosen)
    ladder = DitheredLadder(
        forward,
        reader,
        probe,
        dirs,
        input_std=input_std,
        seed=seed,
        level=level,
        limits=limits,
        # Where nothing else tells that a file rounds, only the whole ladder tells it from a step function and from noise.
        means=means if quantised else replace(means, passes=None),
        field=field,
        rows=rows,
        spent=evaluations,
    )
    found = ladder.choose(step)
    probed = replace(smooth, curve=joined(rungs, ladder.tried), evaluations=evaluations + ladder.evaluations)
    if not found.resolved and chosen is not None and not _noise_dominated(rungs, chosen[0].step):
        # Dithering resolves no more than a central difference does: curvature, not noise. Say so, at the smallest usable scale.
        return replace(choice(chosen[0], "central", False), curve=probed.curve, evaluations=probed.evaluations)
    here = ladder.at(found.rung.step)
    return replace(
        probed,
        step=found.rung.step,
        scheme="dithered",
        plateau=found.plateau,
        noise_floor=ladder.tried[0].floor if smooth.noise_floor is None else smooth.noise_floor,
        error=here.share,
        smallest_usable=smallest_resolving(ladder.tried),
        dither=ladder.dither(found.rung.step),
        directions=ladder.count,
        bias=None if found.bias is None else replace(found.bias, applied=step is None),
    )


def is_quantised(level: float | None, rounding: str | None) -> bool:
    """Whether a file has quantisers, so that it has no slope at a point.

    Args:
        level: Spacing of the input levels, or None.
        rounding: What shows that the file rounds, in words.
    """
    return level is not None or (rounding is not None and rounding.startswith(QUANTISERS))


def truncation(choice: StepChoice) -> float:
    """Relative error that a third derivative leaves in lambda_max by central differences at the chosen step, from the ladder.

    It grows with the square of the step, so a larger step shows it enlarged. Kinks and rounding are not in it.
    """
    curve = [g for g in choice.curve if g.central and g.unchanged < 0.01]
    here = next((g.central for g in curve if g.step == choice.step), None)
    if not here:
        return 0.0
    changes = [abs((g.central or 0.0) / here - 1) * (choice.step / g.step) ** 2 for g in curve if g.step > choice.step]
    return max(changes, default=0.0)


def bend(choice: StepChoice) -> StepBias | None:
    """What lambda_max by central differences at the chosen step may be off by for the function's curvature, from the ladder.

    It is off by a power of two of the step, ``λ(r) ≈ λ(0) (1 − c r²)``, and each neighbouring step tells c. The larger of the two
    counts, half as much again; what rounding adds at the step below makes it larger, never smaller. None without neighbours.
    """
    curve = [g for g in choice.curve if g.central and g.unchanged < 0.5]
    here = next((g for g in curve if g.step == choice.step), None)
    if here is None or not here.central:
        return None
    at, r = curve.index(here), here.step
    near = [*curve[max(0, at - 1) : at], *curve[at + 1 : at + 2]]
    short = [(1 - (g.central or 0.0) / here.central) * r**2 / (g.step**2 - r**2) for g in near]
    if not short:
        return None
    return StepBias(1.0, max(1 - 1.5 * max(0.0, -min(short)), 0.0), 1 + 1.5 * max(0.0, *short), applied=True)


def calibration_positions(weights: Array, count: int = MOST_SAMPLES) -> Array:
    """Positions of the calibration samples: half of them where the outputs are most undecided (they carry the mean), half spread.

    Args:
        weights: How undecided each sample is, (N,).
        count: How many to take.
    """
    n = len(weights)
    if n <= count:
        return np.arange(n)
    undecided = np.argsort(-weights, kind="stable")[: count // 2]
    spread = np.linspace(0, n - 1, n).astype(int)[:: max(1, n // count)]
    rest = [i for i in spread if i not in set(undecided.tolist())][: count - len(undecided)]
    return np.sort(np.concatenate([undecided, np.array(rest, int)]))


def _begun_with(steps: Sequence[float], step: float | None, samples: int, means: Means, brief: bool) -> tuple[Sequence[float], int]:
    """Steps to climb first, and directions at each: all where they may be paid for, else the smallest or those around the given."""

    def paid(some: Sequence[float]) -> bool:
        return len(some) * 2 * _DIRECTIONS * samples <= means.ladder

    if not brief and paid(steps):
        return steps, _DIRECTIONS
    at = 0 if step is None or step not in steps else max(steps.index(step) - 1, 0)
    first = steps[at : at + _FIRST]
    return first, _DIRECTIONS if brief and paid(first) else _FEWEST


def _settles(rungs: Sequence[Rung], step: float | None, scheme: Scheme | Literal["auto"]) -> bool:
    """Whether the steps climbed so far tell which to take."""
    usable = [g for g in rungs if _resolves(g)]
    if scheme in ("forward", "central"):
        return _smooth_choice_of(scheme, rungs, usable, step)[2]
    chosen = _smooth_choice(rungs, usable, step)
    return chosen is not None and _settled(chosen, rungs, step)


def _settled(chosen: tuple[Rung, Scheme, bool], rungs: Sequence[Rung], step: float | None) -> bool:
    """Whether a choice is on a plateau, or the step given measures something else than noise."""
    return chosen[2] or (step is not None and not _noise_dominated(rungs, step))


def _resolves(rung: Rung) -> bool:
    """Whether a step changes the outputs along most directions."""
    return rung.error is not None and rung.unchanged < 0.5


def _climb(
    forward: Forward, reader: OutputReader, probe: Probe, directions: Directions, r: float, input_std: float, field: Array | None,
    count: int, rows: LadderRows,
) -> tuple[Rung, float, int]:  # fmt: skip
    """One rung: values by both schemes, the share of the even part, the rms rounding noise it implies, and the passes it took."""
    jacobian = DifferenceJacobian(forward, directions, scheme="central", step=r, field=field, known=rows.of("central", r, None))
    wanted = requests(probe, count)
    cost = sum(2 * w.count - sum(map(len, jacobian.known(w))) for w in wanted)
    h = r if field is None else r / input_std  # per unit of the input, or per standard deviation
    forwards, centrals, errors, unchanged, even = [], [], [], [], []
    for k, ends in enumerate(jacobian.ends(probe.X, probe.base, wanted)):
        rows.keep(r, None, ends)
        if not is_finite(ends):  # says nothing of the step; the sample itself is skipped when it is measured
            continue
        base = probe.base[k]
        central = reader.scores(base, ends.plus, ends.minus, 2 * h)
        one_sided = reader.scores(base, ends.plus, np.broadcast_to(base, ends.plus.shape), h)
        still = (ends.plus == base).all(axis=(1, 2)) & (ends.minus == base).all(axis=(1, 2))
        unchanged.append(float(still.mean()))
        even.append(float(np.mean((ends.plus + ends.minus - 2 * base) ** 2)))
        energy = float((central**2).sum())
        errors.append(min(float(((one_sided - central) ** 2).sum()) / energy, 1.0) if energy > 0 else 1.0)
        forwards.append(lambda_max_sketch(one_sided).plain or 0.0)
        centrals.append(lambda_max_sketch(central).plain or 0.0)
    if not unchanged:
        return Rung(r, r / input_std, None, None, None, 1.0), 0.0, cost
    dead = all(u == 1.0 for u in unchanged)
    rung = Rung(
        step=r,
        relative_step=r / input_std,
        forward=None if dead else float(np.mean(forwards)),
        central=None if dead else float(np.mean(centrals)),
        error=None if dead else float(np.mean(errors)),
        unchanged=float(np.mean(unchanged)),
    )
    # z⁺ + z⁻ − 2z carries six variances of one output's rounding noise.
    return rung, float(np.sqrt(np.mean(even) / 6)), cost


def _smooth_choice(rungs: Sequence[Rung], usable: Sequence[Rung], step: float | None) -> tuple[Rung, Scheme, bool] | None:
    """(rung, scheme, on a plateau) by forward or central differences; None where no rung resolves anything."""
    if not usable:
        return None
    best = min(usable, key=lambda g: g.error or 0.0) if step is None else next(g for g in rungs if g.step == step)
    if best.error is not None and best.error <= _FORWARD_ERROR and best.unchanged < 0.01:
        return best, "forward", _flat(usable, best)
    candidates = usable if step is None else [best]
    judged = [(_central_error(usable, g), g) for g in candidates]
    good = [(e, g) for e, g in judged if e <= _CENTRAL_ERROR and g.unchanged < 0.01 and _level(usable, g)]
    rung = min(good or judged, key=lambda pair: pair[0])[1]
    return rung, "central", bool(good)


def _smooth_choice_of(
    scheme: Scheme, rungs: Sequence[Rung], usable: Sequence[Rung], step: float | None
) -> tuple[Rung, Scheme, bool]:
    """The same for a scheme that was asked for; the largest rung where none resolves anything."""

    def error(rung: Rung) -> float:
        if scheme == "central":
            return _central_error(usable, rung)
        return 1.0 if rung.error is None else rung.error

    rung = min(usable, key=error, default=rungs[-1]) if step is None else next(g for g in rungs if g.step == step)
    limit = _FORWARD_ERROR if scheme == "forward" else _CENTRAL_ERROR
    good = rung in usable and error(rung) <= limit and rung.unchanged < 0.01
    return rung, scheme, good and (scheme == "central" or _flat(usable, rung))


def _central_error(usable: Sequence[Rung], rung: Rung) -> float:
    """Error of the central difference: a third of the noise in the even part, and the change from the step below."""
    below = [g for g in usable if g.step < rung.step]
    if rung.error is None or rung.central is None or rung not in usable:
        return 1.0
    first = usable[0]
    noise = min(rung.error, (first.error or 0.0) * (first.step / rung.step) ** 2) / 3
    change = abs((below[-1].central or 0.0) - rung.central) / rung.central if below and rung.central else 1.0
    return noise + change


def _flat(usable: Sequence[Rung], rung: Rung) -> bool:
    """Whether the value stays within a tenth at the neighbouring step that is the better of the two."""
    at = usable.index(rung)
    near = [g for g in (*usable[max(0, at - 1) : at], *usable[at + 1 : at + 2]) if g.central is not None]
    if not near or not rung.central:
        return bool(rung.central)
    return min(abs((g.central or 0.0) - rung.central) for g in near) <= _PLATEAU * rung.central


def _level(usable: Sequence[Rung], rung: Rung) -> bool:
    """Whether three neighbouring rungs that end or centre at this one agree: two of a wandering curve may do so by chance."""
    if rung not in usable or not rung.central:
        return False
    at = usable.index(rung)
    agrees = [g.central is not None and abs(g.central - rung.central) <= _PLATEAU * rung.central for g in usable]
    runs = ((at - 1, at + 1), (at - 2, at - 1))
    return any(low >= 0 and high < len(usable) and agrees[low] and agrees[high] for low, high in runs)


def _noise_dominated(rungs: Sequence[Rung], step: float) -> bool:
    """Whether the even part at ``step`` falls with the step (noise) and not rises (curvature, kinks)."""
    below = [g for g in rungs if g.step < step]
    here = next(g for g in rungs if g.step == step)
    if here.error is None or here.unchanged >= 0.01:
        return True
    if not below:
        return here.error > _FORWARD_ERROR
    before = below[-1]
    return before.error is None or before.unchanged > here.unchanged or before.error > here.error
