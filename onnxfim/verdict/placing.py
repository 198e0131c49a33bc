"""Where a model stands among the reference classifiers whose inputs have the shape of its own, from a finished record."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.reference import ReferenceFigure, ReferenceModel, ReferenceTask, reference_table, tasks_of
from onnxfim.record.robustness import Rank, Ranked, ReferencePlace, SurvivalCurve, Training
from onnxfim.record.settings import OUTPUT_FAMILIES
from onnxfim.verdict.pixels import no_level

_FEWEST = 3  # references that make a rank, and of one training that make a range


def place_among(audit: Audit, flips: SurvivalCurve | None, level: float | None) -> tuple[ReferencePlace | None, str | None]:
    """The model's place and None, or None and why there is none; both None where no reference has such inputs.

    Args:
        audit: A finished record.
        flips: The curve of its flip radii, in the units that ``level`` is of.
        level: How many of them one of the 255 steps from black to white is; None where that is not known.
    """
    if OUTPUT_FAMILIES[audit.model.output_kind] != OUTPUT_FAMILIES["logits"] or audit.model.positions != 1:
        return None, None
    shaped = tasks_of(audit.data.shape, audit.model.num_outputs)
    inner = audit.model.at is not None and audit.model.at.kind != "levels"
    if not shaped or audit.data.synthetic or inner:
        return None, None
    task = _meant(audit, shaped)
    if task is None:
        return None, f"inputs have the shape of {shaped[0].task}, but its classes have other names"
    if level is None:
        return None, f"no reference: {no_level(audit)}"
    others = task.others(audit.model.sha256)
    if len(others) < _FEWEST:
        return None, f"no reference: {len(others)} other {task.task} classifiers are known, too few"
    figures = pixel_figures(audit, flips, level)
    ranks = [r for name in _order() if (r := _rank(name, figures[name], others)) is not None]
    if not ranks:
        return None, "no reference: its values were measured too coarsely, or not at all"
    accuracies = [m.accuracy for m in others]
    like = {_like(r.measure, r.value, others) for r in ranks}
    agreed = like.pop() if len(like) == 1 else None
    return ReferencePlace(task.task, len(others), tuple(ranks), (min(accuracies), max(accuracies)), agreed), None


def pixel_figures(audit: Audit, flips: SurvivalCurve | None, level: float) -> dict[Ranked, ReferenceFigure]:
    """What references are ranked by, in pixel units: the median flip radius, and the mean calibrated λ_max.

    The references were measured by gradients; flips that were looked for without them lie farther, and are not held against theirs.
    """
    white = 255 * level
    half = None if flips is None or audit.run.method != "gradient" else flips.half
    radius = ReferenceFigure(None)
    if half is not None:
        radius = ReferenceFigure(*(x / white if x else None for x in (half.epsilon, half.low, half.high)))
    lam, told = ReferenceFigure(None), audit.aggregates.get("lambda_max_calibrated")
    factor = lambda_in_pixels(audit, level)
    if told is not None and told.mean.value and factor is not None:
        a = told.mean
        lam = ReferenceFigure(*(None if x is None or x <= 0 else x * factor for x in (a.value, a.low, a.high)))
    return {"flip_radius": radius, "lambda_max_calibrated": lam}


def lambda_in_pixels(audit: Audit, level: float) -> float | None:
    """What λ per squared model input unit is multiplied by for that per squared pixel unit, on the geometric mean of the samples.

    Channels whose scales differ turn the worst direction a little: the factor is that of the raw λ_max, of which both are known.
    """
    if audit.settings.input_scale is None:
        return (255 * level) ** 2
    ratios = [
        s.lambda_max_raw_units.value / s.lambda_max.value
        for s in audit.samples
        if s.lambda_max.value and s.lambda_max_raw_units is not None and s.lambda_max_raw_units.value
    ]
    if not ratios:
        scale = [abs(s) for s in audit.settings.input_scale]
        return min(scale) * max(scale) * (255 * level) ** 2
    return math.exp(float(np.mean(np.log(ratios)))) * (255 * level) ** 2


def figure_of(model: ReferenceModel, measure: Ranked) -> float | None:
    """The figure of a reference that is ranked."""
    return model.flip_radius.value if measure == "flip_radius" else model.lambda_mean.value


def _order() -> tuple[Ranked, ...]:
    both: tuple[Ranked, ...] = ("flip_radius", "lambda_max_calibrated")
    return tuple(sorted(both, key=lambda name: name != reference_table().leads))


def _rank(measure: Ranked, own: ReferenceFigure, models: Sequence[ReferenceModel]) -> Rank | None:
    """How many references are less sensitive: their radius is longer, their λ smaller."""
    others = [f for m in models if (f := figure_of(m, measure)) is not None]
    if own.value is None or not math.isfinite(own.value) or len(others) != len(models):
        return None

    def below(value: float) -> int:
        return sum(f > value if measure == "flip_radius" else f < value for f in others)

    ends = sorted((below(own.low or 0.0), below(own.high if own.high is not None else math.inf)))
    statistic = "median" if measure == "flip_radius" else "mean"
    if ends == [0, len(others)]:
        return None  # its interval holds all references
    return Rank(measure, statistic, own.value, below(own.value), *ends)  # type: ignore[arg-type]


def _like(measure: Ranked, value: float, models: Sequence[ReferenceModel]) -> Training | None:
    """The training whose references lie around this value of a measure, where no other's do."""
    ranges: dict[Training, tuple[float, float]] = {}
    groups: tuple[Training, ...] = ("standard", "robust")
    for group in groups:
        known = [f for m in models if m.group == group and (f := figure_of(m, measure)) is not None]
        if len(known) >= _FEWEST:
            ranges[group] = (min(known), max(known))
    if len(ranges) != len(groups):
        return None
    around = [group for group, (low, high) in ranges.items() if low <= value <= high]
    return around[0] if len(around) == 1 else None


def _meant(audit: Audit, shaped: tuple[ReferenceTask, ...]) -> ReferenceTask | None:
    """The task that the names of the classes, of the file and of the data speak for; the first where none speaks."""
    names = {_plain(n) for n in audit.data.class_names or ()}
    if names and not all(n.isdigit() for n in names):
        return next((t for t in shaped if len(names & set(map(_plain, t.names))) > t.classes // 2), None)
    told = f"{audit.model.name} {audit.data.source}".lower()
    return next((t for t in shaped if any(w in told for w in t.words)), shaped[0])


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
