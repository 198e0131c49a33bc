"""Does the flip radius rank samples and models as attacks do, beside the other measures, and what does it cost?

    python tests/benchmarks/bench_flip.py [--quick] [--samples N] [--method auto|sketch] [--models NAME]

Per sample: Spearman's correlation of each measure with the smallest L2 attack, over the samples that the model has right. Over
models: the same of their statistics, and the share of pairs in the right order among those whose median attacks differ beyond doubt
(the 95 % bootstrap interval of the difference leaves out 0). Signs are turned so that + is right. On others' models the attacks are
stored ones of another implementation (DDN, 200 steps), on the sample models our own; an attack that failed counts as farther than
all that did not. Distances are in pixel units (inputs between 0 and 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from _common import SHARED_MODELS, Case, arguments, have_shared, print_table, sample_cases, shared_cases

import onnxfim
from onnxfim import Settings
from onnxfim.record.measures import BY_NAME
from onnxfim.record.sample import estimate_of
from onnxfim.record.statistics import spearman, spearman_of_resamples

MEASURES = ("flip_radius", "boundary_distance", "lambda_max_calibrated", "lambda_max", "trace", "logit_sensitivity", "confidence")
REPLICATES = 1000


@dataclass(frozen=True)
class Ranked:
    """One model: its measures and the smallest attacks of the samples that it has right, and what the measures cost."""

    case: Case
    values: dict[str, np.ndarray]
    everywhere: dict[str, np.ndarray]
    attack: np.ndarray
    slope_passes: float
    flip_passes: float

    def statistic(self, measure: str) -> float:
        """The statistic that stands for the model: the mean of lambda_max, trace and confidence, the median of the others."""
        if measure in ("boundary_distance", "flip_radius", "logit_sensitivity"):
            return float(np.median(self.values[measure]))
        return float(np.mean(self.everywhere[measure][np.isfinite(self.everywhere[measure])]))


def sign(measure: str) -> int:
    """+1 where a larger value should mean a longer attack."""
    return BY_NAME[measure].sign if measure in BY_NAME else 1


def in_pixels(case: Case, measure: str) -> float:
    """Factor from input to pixel units; the mean over the channels where their scales differ."""
    if case.record is None:
        return 1.0
    std = float(np.mean(case.record["scale"]["std"]))
    return {"flip_radius": std, "boundary_distance": std, "logit_sensitivity": 1 / std, "confidence": 1.0}.get(measure, std**-2)


def ranked(case: Case, samples: int, method: str) -> Ranked | None:
    """The model measured on the attacked samples, or None where there are no attacks."""
    X, y = case.inputs, case.labels
    own: dict[str, Any] = {}
    stored = None
    if case.record is None:
        own = {"attack": "l2", "attack_range": (0.0, 1.0), "attack_samples": samples}
    else:
        path = SHARED_MODELS / "attacks" / f"{case.name}.npz"
        if not path.is_file():
            return None
        with np.load(path) as file:
            stored = {name: file[name] for name in file.files}
        order = np.concatenate([stored["index"], np.setdiff1d(np.arange(len(X)), stored["index"])])
        X, y = X[order], y[order]
        samples = min(samples, len(stored["index"]))
    settings = Settings(samples=samples, method="gradient" if own else method, replay=0, bounds=False, providers=("cpu",), **own)
    audit = onnxfim.audit(case.path, X, y, settings)
    found = audit.samples
    if stored is None:
        attack = np.array([e.value if (e := s.attack_distance) and e.value is not None else np.inf for s in found])
        right = np.array([s.prediction == s.label for s in found])
    else:
        at = [s.index for s in found]
        attack = np.where(np.isfinite(stored["min_l2_pixel"][at]), stored["min_l2_pixel"][at], np.inf)
        right = stored["clean"][at]
    values = {m: _column(found, m) * in_pixels(case, m) for m in MEASURES}
    slopes, flips = (float(np.mean(v)) for v in ([s.evaluations for s in found], [s.flip_radius.evaluations for s in found]))
    return Ranked(case, {m: v[right] for m, v in values.items()}, values, attack[right], slopes, flips)


def _column(samples: Any, measure: str) -> np.ndarray:
    """A measure of the samples; one without a value counts as the least sensitive, since nothing was found there."""
    estimates = [estimate_of(s, measure) for s in samples]
    missing = np.inf if sign(measure) > 0 else 0.0
    return np.array([missing if e is None or e.value is None else e.value for e in estimates])


def per_sample(model: Ranked) -> Iterator[Any]:
    """Cells of one model's row."""
    yield model.case.name
    yield len(model.attack)
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(model.attack), len(model.attack)) for _ in range(REPLICATES)]
    for measure in MEASURES:
        rho = spearman(sign(measure) * model.values[measure], model.attack)
        yield f"{rho:.2f}" if rho is not None else None
    both = [spearman_of_resamples(model.values[m], model.attack, draws) for m in MEASURES[:2]]
    low, high = np.quantile(both[0] - both[1], [0.025, 0.975]) if len(both[0]) == len(both[1]) else (np.nan, np.nan)
    yield f"{low:+.2f} to {high:+.2f}"
    finite = np.isfinite(model.attack) & np.isfinite(model.values["flip_radius"])
    yield f"{np.median(model.values['flip_radius'][finite] / model.attack[finite]):.2f}"
    yield f"{model.slope_passes:.0f} + {model.flip_passes:.1f}"


def resolved(models: list[Ranked]) -> list[tuple[Ranked, Ranked]]:
    """Pairs, the less robust first, whose median attacks differ beyond doubt."""
    rng = np.random.default_rng(0)
    medians = {id(m): np.median(m.attack[rng.integers(0, len(m.attack), (REPLICATES, len(m.attack)))], axis=1) for m in models}
    pairs = []
    for a, b in combinations(models, 2):
        with np.errstate(invalid="ignore"):
            low, high = np.nanquantile(medians[id(b)] - medians[id(a)], [0.025, 0.975])
        if low > 0 or high < 0:
            pairs.append((a, b) if low > 0 else (b, a))
    return pairs


def over_models(models: list[Ranked], statistic: Callable[[Ranked], float], direction: int) -> tuple[str, str]:
    """Rank correlation of a statistic with the median attack over the models, and resolved pairs in the right order."""
    rho = spearman(direction * np.array([statistic(m) for m in models]), np.array([float(np.median(m.attack)) for m in models]))
    pairs = resolved(models)
    right = sum(direction * statistic(a) < direction * statistic(b) for a, b in pairs)
    return ("–" if rho is None else f"{rho:.2f}"), f"{right} of {len(pairs)}"


def main() -> None:
    options = arguments(
        __doc__, ("--samples", {"type": int, "default": 100}), ("--method", {"choices": ["auto", "sketch"], "default": "auto"})
    )
    groups: dict[str, list[Case]] = {}
    if have_shared():
        for case in shared_cases():
            groups.setdefault(case.record["task"] if case.record else "", []).append(case)
    if options.method == "auto":
        groups["digits"] = sample_cases()
    if options.quick:
        groups = {task: cases[:2] for task, cases in groups.items() if task in ("MNIST", "digits")}
    samples = 30 if options.quick else options.samples
    found: dict[str, list[Ranked]] = {}

    def rows() -> Iterator[list[Any]]:
        for task, cases in groups.items():
            for case in (c for c in cases if options.models in c.name):
                if (model := ranked(case, samples, options.method)) is not None:
                    found.setdefault(task, []).append(model)
                    yield list(per_sample(model))

    names = [BY_NAME[m].label if m in BY_NAME else m.capitalize() for m in MEASURES]
    heads = ("model", "samples", *names, "flip less boundary, 95 %", "flip / attack", "passes: slopes + flips")
    print_table(heads, rows(), title=f"Rank correlation with the smallest L2 attack per sample ({options.method})")
    summary, models_table = [], []
    for task, models in found.items():
        mean = [np.mean([spearman(sign(m) * x.values[m], x.attack) or 0.0 for x in models]) for m in MEASURES]
        summary.append(
            [task, len(models), *(f"{v:.3f}" for v in mean), None, None, f"{np.mean([x.flip_passes for x in models]):.1f}"]
        )
        if len(models) > 2:
            for measure, name in zip(MEASURES, names, strict=True):
                rho, order = over_models(models, lambda m, measure=measure: m.statistic(measure), sign(measure))  # type: ignore[misc]
                models_table.append([task, len(models), name, rho, order])
    print_table(heads, summary, title="Mean over the models")
    print_table(("data", "models", "measure", "rank correlation", "resolved pairs in order"), models_table, title="Over models")


if __name__ == "__main__":
    main()
