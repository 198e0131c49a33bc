"""The ladder of a file that rounds: dithered cross-Gram values at growing steps, and which of them to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.audit import Rung
from onnxfim.runtime.rows import Directions, Forward
from onnxfim.slopes.differences import DifferenceJacobian, Ends, Request, Sample, is_finite, unchanged_share
from onnxfim.slopes.estimators import lambda_max_cross
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

#: Steps at which a noisy file is probed by the dithered cross-Gram.
DITHERED_LADDER = (1e-3, 3e-3, 1e-2, 3e-2, 6e-2, 1e-1, 3e-1, 1.0)
DITHERED_DIRECTIONS = 24
_NOISE_SHARE = 0.12  # plain over cross minus one: at this share the cross value is within a tenth of the float file's (measured)
_DITHERED_PLATEAU = 0.25  # change of the value between neighbours on a plateau: each carries the noise of a few directions


@dataclass(frozen=True)
class Probe:
    """The calibration samples: their inputs (c, *shape), outputs (c, K, P) and stream indices."""

    X: Array
    base: Array
    indices: tuple[int, ...]


def requests(probe: Probe, count: int) -> list[Request]:
    """The first ``count`` directions of every calibration sample."""
    return [Request(Sample(k, i), 0, count) for k, i in enumerate(probe.indices)]


def dithered_curve(
    forward: Forward, reader: OutputReader, probe: Probe, rungs: Sequence[Rung], directions: Directions,
    input_std: float, dither: float, seed: int, step: float | None, limits: tuple[float, float] | None,
    field: Array | None = None,
) -> tuple[tuple[Rung, ...], int]:  # fmt: skip
    """The ladder with dithered cross-Gram values beside the plain ones; ``error`` of a new rung is None."""
    by_step = {g.step: g for g in rungs}
    evaluations = 0
    unit = 1.0 if field is None else input_std**2  # per squared unit of the input, or squared standard deviation
    for r in sorted({*(q * input_std for q in DITHERED_LADDER), *([step] if step else [])}):
        jacobian = DifferenceJacobian(
            forward, directions, scheme="dithered", step=r, seed=seed, dither=dither, limits=limits, field=field
        )
        cross, plain, still = 0.0, 0.0, []
        for k, ends in enumerate(jacobian.ends(probe.X, probe.base, requests(probe, DITHERED_DIRECTIONS))):
            if not is_finite(ends):
                continue
            sketch = cross_sketch(reader, probe.base[k], ends)
            top = sketch.value if sketch.value is not None else 0.0
            cross += top
            plain += sketch.plain or 0.0
            still.append(unchanged_share(ends))
        evaluations += 4 * DITHERED_DIRECTIONS * len(probe.X)
        count, share = max(len(still), 1), float(np.mean(still)) if still else 1.0
        old = by_step.get(r) or Rung(r, r / input_std, None, None, None, share)
        by_step[r] = replace(old, central=unit * plain / count, cross=unit * cross / count, unchanged=share)
    return tuple(by_step[r] for r in sorted(by_step)), evaluations


def cross_sketch(reader: OutputReader, base: Array, ends: Ends, temperature: float = 1.0, evaluations: int = 0) -> Any:
    """Dithered cross-Gram estimate from the two dithered points of each direction."""
    assert ends.twin is not None
    first = reader.scores(base, ends.plus, ends.minus, ends.h, temperature)
    second = reader.scores(base, ends.twin.plus, ends.twin.minus, ends.h, temperature)
    return lambda_max_cross(first, second, evaluations=evaluations)


def noise_share(rung: Rung) -> float | None:
    """What rounding noise adds to the plain value, as a share of the cross value; None where nothing was resolved."""
    if rung.cross is None or rung.central is None or rung.cross <= 0:
        return None
    return max(rung.central / rung.cross - 1.0, 0.0)


def smallest_resolving(curve: Sequence[Rung]) -> float | None:
    """The smallest step at which rounding adds no more than the value itself; None where there is none."""
    found = [g.step for g in curve if (share := noise_share(g)) is not None and share <= 1.0]
    return min(found) if found else None


def dithered_choice(curve: Sequence[Rung], step: float | None) -> tuple[Rung, bool, bool]:
    """(rung, on a plateau, resolved): the smallest step at which rounding adds no more than `_NOISE_SHARE`."""
    tried = [g for g in curve if g.cross is not None]
    quiet = [g for g in tried if (share := noise_share(g)) is not None and share <= _NOISE_SHARE]
    if step is not None:
        picked = next(g for g in tried if g.step == step)
        resolved = noise_share(picked) is not None
    elif quiet:
        picked, resolved = quiet[0], True
    else:
        shares = [(share, g) for g in tried if (share := noise_share(g)) is not None]
        picked = min(shares, key=lambda pair: pair[0])[1] if shares else tried[-1]
        resolved = False
    at = tried.index(picked)
    near = [g.cross for g in (*tried[max(0, at - 1) : at], *tried[at + 1 : at + 2]) if g.cross]
    flat = bool(picked.cross) and any(abs(c - (picked.cross or 0.0)) <= _DITHERED_PLATEAU * (picked.cross or 0.0) for c in near)
    return picked, flat and picked in quiet, resolved
