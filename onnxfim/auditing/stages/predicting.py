"""Where the slopes at each sample, and λ alone, put the nearest change of its prediction, in L2 and L∞."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.final_results import fingerprint
from onnxfim.auditing.instruments import raw_units
from onnxfim.auditing.stages import as_found, stage
from onnxfim.record.guarantees import Norm, PredictedDistance
from onnxfim.record.limits import Count, closed
from onnxfim.record.packed import layout_of, packed, unpacked
from onnxfim.record.sample import SampleResult
from onnxfim.slopes.estimators import worst_direction
from onnxfim.slopes.exact import GradientRoute
from onnxfim.slopes.predicted import by_sensitivity, first_order, sign_sensitivity, told
from onnxfim.slopes.rivals import MOST, slopes_to_rivals
from onnxfim.slopes.scored import Scored

Array: TypeAlias = np.ndarray[Any, Any]


def sensitivity_in_raw_units(result: SampleResult) -> float | None:
    """λ_max per squared raw unit, of the model's where the two are one; None where it is not known."""
    found = result.lambda_max if result.lambda_max_raw_units is None else result.lambda_max_raw_units
    return found.value


def along_coordinates(result: SampleResult, scored: Scored, unit: Array) -> tuple[PredictedDistance, ...]:
    """Predicted distances of a sample that was measured along all coordinates, from the slopes that its result was made of.

    Args:
        result: The sample's.
        scored: Its slopes and scores along all d coordinates.
        unit: How many model input units one raw unit is, (d,).
    """
    reader, base = scored.reader, scored.base
    if result.prediction is None or result.lambda_max.value is None or base.shape[1] != 1:
        return ()
    z, slopes = reader.contest(base, scored.slopes)  # (C,), (d, C)
    top = int(z.argmax())
    others = np.arange(len(z)) != top
    near = first_order((z[top] - z)[others], (slopes[:, [top]] - slopes).T[others], unit)
    s = np.sign(worst_direction(scored.scores)) * unit if scored.scores.any() else np.zeros(len(unit))
    along_signs = float(np.square(s @ scored.scores).sum())
    lam: dict[Norm, float | None] = {"l2": sensitivity_in_raw_units(result), "linf": along_signs}
    return told(near, {norm: by_sensitivity(reader, base, value) for norm, value in lam.items()})


@stage("predicting distances", instead=as_found)
def predict(ground: Ground, found: Found, route: GradientRoute | None) -> Found:
    """What was found, with the distances that slopes predict; one of `ENDS` keeps those that were finished.

    By gradients from these; along all coordinates they are there already (`along_coordinates`). Where random directions alone were
    taken, the distance in L2 is the boundary distance, where raw units are one number of the model's, and λ's follows from it; in
    L∞ there is none.
    """
    positions = sorted(p for p, r in found.results.items() if r.prediction is not None and r.lambda_max.value is not None)
    if found.method == "exact" or not positions:
        return found
    unit, results = raw_units(ground), dict(found.results)
    if route is None:
        even = float(unit[0]) if (unit == unit[0]).all() and unit[0] > 0 else None
        for p in positions:
            distance = results[p].boundary_distance.value
            near: dict[Norm, float | None] = {"l2": None if even is None or distance is None else distance / even}
            lam = sensitivity_in_raw_units(results[p])
            fisher: dict[Norm, float | None] = {"l2": by_sensitivity(ground.reader, ground.base[p], lam)}
            results[p] = replace(results[p], predicted=told(near, fisher))
        return replace(found, results=results)
    few, rows = _rows(route)
    ahead, kept = _LookingAhead(ground, route, few, unit), _KeptDistances(ground, found)
    try:
        for start in range(0, len(positions), rows):
            ground.meter.count(start, len(positions), "samples")
            ground.say("predicting distances")
            block = positions[start : start + rows]
            known = kept.known(block, results)
            if missing := [p for p in block if p not in known]:
                before = ground.meter.passes
                made = dict(zip(missing, ahead.of(missing, [results[p] for p in missing]), strict=True))
                kept.keep(made, results, ground.meter.passes - before)
                known |= made
            ground.meter.check()
            for p, predicted in known.items():
                results[p] = replace(results[p], predicted=predicted)
    except ENDS as end:
        return replace(found, results=results).ended(end)
    return replace(found, results=results)


def _rows(route: GradientRoute) -> tuple[bool, int]:
    """Whether slopes of all classes are taken, and of how many samples at once."""
    few = route.few
    return few, route.model.rows_per_call(route.model.num_outputs if few else MOST)


def passes_of(route: GradientRoute) -> int:
    """Passes of a sample, roughly."""
    return 1 + route.model.num_outputs if route.few else 2 + min(MOST, route.model.num_outputs - 1) + 2


@dataclass(frozen=True)
class _LookingAhead:
    """Looks ahead from samples along the slopes of their logits."""

    ground: Ground
    route: GradientRoute
    few: bool
    unit: Array

    def of(self, positions: Sequence[int], results: Sequence[SampleResult]) -> list[tuple[PredictedDistance, ...]]:
        """Predicted distances of these samples."""
        ground, at = self.ground, np.array(positions)
        x, base = ground.X[at], ground.base[at]
        signs = np.sign(self.route.directions(ground.X, ground.base, [ground.sample(p) for p in positions])[:, 0]) * self.unit
        parts = self._all(x, at, base, signs) if self.few else self._rivals(x, at, base, signs)
        found = []
        for k, (near, along) in enumerate(parts):
            lam: dict[Norm, float | None] = {
                "l2": sensitivity_in_raw_units(results[k]), "linf": sign_sensitivity(ground.reader, base[k], along)
            }  # fmt: skip
            found.append(told(near, {norm: by_sensitivity(ground.reader, base[k], value) for norm, value in lam.items()}))
        return found

    def _all(self, x: Array, at: Array, base: Array, signs: Array) -> list[tuple[dict[Norm, float | None], Array]]:
        """First-order distances of each sample over all classes, and slopes of its logits along the signs, (K,)."""
        J = self.route.model.jacobian(x, at)  # (n, K, d)
        found = []
        for k, s in enumerate(signs):
            slopes = np.where(np.isfinite(J[k]), J[k], 0.0).astype(np.float64)
            z, D = self.ground.reader.contest(base[k], slopes.T[:, :, None])
            top = int(z.argmax())
            others = np.arange(len(z)) != top
            found.append((first_order((z[top] - z)[others], (D[:, [top]] - D).T[others], self.unit), slopes @ s))
        return found

    def _rivals(self, x: Array, at: Array, base: Array, signs: Array) -> list[tuple[dict[Norm, float | None], Array]]:
        """The same over the classes next in logit, which of many classes are the ones that may be near."""
        model, z = self.route.model, base[:, :, 0]
        order = np.argsort(-z, axis=1, kind="stable")
        asked = min(MOST, z.shape[1] - 1)
        slopes = slopes_to_rivals(model, x, at, order, slice(1, asked + 1))  # (m, n, *shape)
        gaps = np.take_along_axis(z, order[:, :1], 1) - np.take_along_axis(z, order[:, 1 : asked + 1], 1)
        along = model.jvp(x, signs.reshape(1, *x.shape).astype(x.dtype), at)[1][0]  # (n, K)
        each = np.where(np.isfinite(slopes), slopes, 0.0).reshape(asked, len(x), -1).astype(np.float64)
        return [(first_order(gaps[k], each[:, k], self.unit), along[k]) for k in range(len(x))]


@closed
@dataclass(frozen=True, slots=True)
class _Prediction:
    """What was predicted of a sample, and the passes that it took."""

    predicted: tuple[PredictedDistance, ...]
    passes: Count


class _KeptDistances:
    """Predicted distances, kept on disk; without a cache it holds nothing."""

    def __init__(self, ground: Ground, found: Found) -> None:
        self._ground = ground
        how = (found.gradient.provider, ground.settings.surrogate, ground.settings.seed, ground.settings.input_scale)
        known = (*how, ground.reader.identity, ground.scales.identity, layout_of(_Prediction))
        self._store = ground.store(predicted=known) if ground.memory.keeps else None
        self._keys = ground.memory.keys(ground.X, ground.samples.held)

    def known(
        self, positions: Sequence[int], results: dict[int, SampleResult]
    ) -> dict[int, tuple[PredictedDistance, ...]]:  # fmt: skip
        """Those of the samples that are kept; their passes count as remembered."""
        found: dict[int, tuple[PredictedDistance, ...]] = {}
        if self._store is None:
            return found
        for p in positions:
            kept = self._store.content(self._key(p, results[p]), partial(unpacked, _Prediction))
            if kept is not None:
                found[p] = kept.predicted
                self._ground.meter.remembered(kept.passes)
        return found

    def keep(self, made: dict[int, tuple[PredictedDistance, ...]], results: dict[int, SampleResult], passes: int) -> None:
        """Keep what was predicted of these samples, which took so many passes together."""
        if self._store is None:
            return
        each, odd = divmod(passes, len(made))
        contents = []
        for k, (p, predicted) in enumerate(made.items()):
            if (content := packed(_Prediction(predicted, each + (k < odd)))) is not None:
                contents.append((self._key(p, results[p]), content))
        self._store.put_contents(contents)

    def _key(self, position: int, result: SampleResult) -> str:
        own = fingerprint((sensitivity_in_raw_units(result), result.prediction))
        return f"{self._keys.of(self._ground.sample(position))}:predicted:{own}"
