"""Chooses the step and the scheme: a noise probe, and a ladder of steps on a few calibration samples.

The even part of the two one-sided differences, ``(z(x+rv) + z(x−rv) − 2z(x))/2r``, is the error of a forward difference that
can be seen: curvature and kinks (growing with r) and rounding noise (growing with 1/r). Its share of the Gram matrix is the
bias of the forward sketch, so the step with the smallest share is the best one, and the share says how good it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxfim.record.audit import Rung, StepChoice
from onnxfim.runtime.rows import Directions, Forward, Rademacher
from onnxfim.slopes.differences import DifferenceJacobian, Ends, Request, Sample, Scheme
from onnxfim.slopes.estimators import lambda_max_cross, lambda_max_sketch
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

#: Steps of the ladder, in standard deviations of the inputs.
LADDER = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
#: Steps at which a noisy file is probed by the dithered cross-Gram.
DITHERED_LADDER = (1e-3, 3e-3, 1e-2, 3e-2, 6e-2, 1e-1, 3e-1, 1.0)

_SAMPLES = 6
_DIRECTIONS = 8
_DITHERED_DIRECTIONS = 24
_FORWARD_ERROR = 0.02  # share of curvature and noise in the Gram matrix that a forward sketch may carry
_CENTRAL_ERROR = 0.05
_NOISE_SHARE = 0.12  # plain over cross minus one: at this share the cross value is within a tenth of the float file's (measured)
_PLATEAU = 0.10  # change of the value between neighbouring steps on a plateau
_DITHERED_PLATEAU = 0.25  # the same where each value carries the noise of a few dithered directions


@dataclass(frozen=True)
class Probe:
    """The calibration samples: their inputs (c, *shape), outputs (c, K, P) and stream indices."""

    X: Array
    base: Array
    indices: tuple[int, ...]


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

    Returns:
        The choice with its evidence.
    """
    ladder = sorted({*(r * input_std for r in LADDER), *([step] if step else [])})
    dirs = Rademacher(seed)
    repeat_noise = float(np.sqrt(np.mean((forward.outputs(probe.X) - probe.base) ** 2)))
    evaluations = len(probe.X)
    rungs: list[Rung] = []
    noise: list[float] = []
    for r in ladder:
        rung, floor, cost = _climb(forward, reader, probe, dirs, r, input_std)
        rungs.append(rung)
        noise.append(floor)
        evaluations += cost
    usable = [g for g in rungs if g.error is not None and g.unchanged < 0.5]
    noise_floor = min((n for n, g in zip(noise, rungs, strict=True) if g.unchanged < 0.5), default=None)

    def choice(rung: Rung, scheme: Scheme, plateau: bool, curve: Sequence[Rung] = rungs, dither: float | None = None) -> StepChoice:
        noisy = scheme == "dithered"
        return StepChoice(
            step=rung.step,
            scheme=scheme,
            plateau=plateau,
            given=step is not None,
            input_std=input_std,
            noise_floor=noise_floor,
            repeat_noise=repeat_noise,
            error=_noise_share(rung) if noisy else rung.error if scheme == "forward" else _central_error(usable, rung),
            smallest_usable=_smallest_resolving(curve) if noisy else usable[0].step if usable else None,
            dither=dither,
            curve=tuple(curve),
            samples=probe.indices,
            directions=_DITHERED_DIRECTIONS if noisy else _DIRECTIONS,
            evaluations=evaluations,
        )

    if scheme in ("forward", "central"):
        return choice(*_smooth_choice_of(scheme, rungs, usable, step))
    chosen = _smooth_choice(rungs, usable, step) if scheme == "auto" and not level else None
    if chosen is not None and (chosen[2] or (step is not None and not _noise_dominated(rungs, step))):
        return choice(*chosen)
    dither = level if level else 0.02 * input_std
    curve, cost = _dithered_curve(forward, reader, probe, rungs, dirs, input_std, dither, seed, step, limits)
    evaluations += cost
    picked, plateau, resolved = _dithered_choice(curve, step)
    if not resolved and chosen is not None and not _noise_dominated(rungs, chosen[0].step):
        # Dithering resolves no more than a central difference does: curvature, not noise. Say so, at the smallest usable scale.
        return choice(chosen[0], "central", False, curve)
    return choice(picked, "dithered", plateau, curve, dither)


def calibration_positions(weights: Array, count: int = _SAMPLES) -> Array:
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


def _requests(probe: Probe, count: int) -> list[Request]:
    return [Request(Sample(k, i), 0, count) for k, i in enumerate(probe.indices)]


def _climb(
    forward: Forward, reader: OutputReader, probe: Probe, directions: Directions, r: float, input_std: float
) -> tuple[Rung, float, int]:
    """One rung: values by both schemes, the share of the even part, and the rms rounding noise it implies."""
    jacobian = DifferenceJacobian(forward, directions, scheme="central", step=r)
    forwards, centrals, errors, unchanged, even = [], [], [], [], []
    for k, ends in enumerate(jacobian.ends(probe.X, probe.base, _requests(probe, _DIRECTIONS))):
        if not is_finite(ends):  # says nothing of the step; the sample itself is skipped when it is measured
            continue
        base = probe.base[k]
        central = reader.scores(base, ends.plus, ends.minus, 2 * r)
        one_sided = reader.scores(base, ends.plus, np.broadcast_to(base, ends.plus.shape), r)
        still = (ends.plus == base).all(axis=(1, 2)) & (ends.minus == base).all(axis=(1, 2))
        unchanged.append(float(still.mean()))
        even.append(float(np.mean((ends.plus + ends.minus - 2 * base) ** 2)))
        energy = float((central**2).sum())
        errors.append(min(float(((one_sided - central) ** 2).sum()) / energy, 1.0) if energy > 0 else 1.0)
        forwards.append(lambda_max_sketch(one_sided).plain or 0.0)
        centrals.append(lambda_max_sketch(central).plain or 0.0)
    cost = 2 * _DIRECTIONS * len(probe.X)
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


def _dithered_curve(
    forward: Forward, reader: OutputReader, probe: Probe, rungs: Sequence[Rung], directions: Directions,
    input_std: float, dither: float, seed: int, step: float | None, limits: tuple[float, float] | None,
) -> tuple[tuple[Rung, ...], int]:  # fmt: skip
    """The ladder with dithered cross-Gram values beside the plain ones; ``error`` of a new rung is None."""
    by_step = {g.step: g for g in rungs}
    evaluations = 0
    for r in sorted({*(q * input_std for q in DITHERED_LADDER), *([step] if step else [])}):
        jacobian = DifferenceJacobian(forward, directions, scheme="dithered", step=r, seed=seed, dither=dither, limits=limits)
        cross, plain, still = 0.0, 0.0, []
        for k, ends in enumerate(jacobian.ends(probe.X, probe.base, _requests(probe, _DITHERED_DIRECTIONS))):
            if not is_finite(ends):
                continue
            sketch = cross_sketch(reader, probe.base[k], ends)
            top = sketch.value if sketch.value is not None else 0.0
            cross += top
            plain += sketch.plain or 0.0
            still.append(unchanged_share(ends))
        evaluations += 4 * _DITHERED_DIRECTIONS * len(probe.X)
        count, share = max(len(still), 1), float(np.mean(still)) if still else 1.0
        old = by_step.get(r) or Rung(r, r / input_std, None, None, None, share)
        by_step[r] = replace(old, central=plain / count, cross=cross / count, unchanged=share)
    return tuple(by_step[r] for r in sorted(by_step)), evaluations


def cross_sketch(reader: OutputReader, base: Array, ends: Ends, temperature: float = 1.0, evaluations: int = 0) -> Any:
    """Dithered cross-Gram estimate from the two dithered points of each direction."""
    assert ends.twin is not None
    first = reader.scores(base, ends.plus, ends.minus, ends.h, temperature)
    second = reader.scores(base, ends.twin.plus, ends.twin.minus, ends.h, temperature)
    return lambda_max_cross(first, second, evaluations=evaluations)


def is_finite(ends: Ends) -> bool:
    """Whether all outputs at the ends (and at the dithered twins') are numbers."""
    good = bool(np.isfinite(ends.plus).all() and np.isfinite(ends.minus).all())
    return good and (ends.twin is None or is_finite(ends.twin))


def unchanged_share(ends: Ends) -> float:
    """Share of directions along which no output differs between the two ends (at both dithered points)."""
    still = (ends.plus == ends.minus).all(axis=(1, 2))
    if ends.twin is not None:
        still &= (ends.twin.plus == ends.twin.minus).all(axis=(1, 2))
    return float(still.mean())


def _noise_share(rung: Rung) -> float | None:
    """What rounding noise adds to the plain value, as a share of the cross value; None where nothing was resolved."""
    if rung.cross is None or rung.central is None or rung.cross <= 0:
        return None
    return max(rung.central / rung.cross - 1.0, 0.0)


def _smallest_resolving(curve: Sequence[Rung]) -> float | None:
    found = [g.step for g in curve if (share := _noise_share(g)) is not None and share <= 1.0]
    return min(found) if found else None


def _dithered_choice(curve: Sequence[Rung], step: float | None) -> tuple[Rung, bool, bool]:
    """(rung, on a plateau, resolved): the smallest step at which rounding adds no more than `_NOISE_SHARE`."""
    tried = [g for g in curve if g.cross is not None]
    quiet = [g for g in tried if (share := _noise_share(g)) is not None and share <= _NOISE_SHARE]
    if step is not None:
        picked = next(g for g in tried if g.step == step)
        resolved = _noise_share(picked) is not None
    elif quiet:
        picked, resolved = quiet[0], True
    else:
        shares = [(share, g) for g in tried if (share := _noise_share(g)) is not None]
        picked = min(shares, key=lambda pair: pair[0])[1] if shares else tried[-1]
        resolved = False
    at = tried.index(picked)
    near = [g.cross for g in (*tried[max(0, at - 1) : at], *tried[at + 1 : at + 2]) if g.cross]
    flat = bool(picked.cross) and any(abs(c - (picked.cross or 0.0)) <= _DITHERED_PLATEAU * (picked.cross or 0.0) for c in near)
    return picked, flat and picked in quiet, resolved
