"""Does lambda_max order samples and models as attacks do: our smallest L2 attack, and the stored one, against every measure.

Run by hand: ``python tests/benchmarks/bench_attack.py [--quick] [--models TEXT]``. Distances are in pixel units (0 to 1); the
stored distances, which others' models have, are over the same images the smallest steps found by DDN (200 steps) on another
implementation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from _common import SHARED_MODELS, Case, arguments, have_shared, print_table, sample_cases, shared_cases
from scipy.stats import spearmanr

from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings

MEASURES = ("lambda_max", "lambda_max_calibrated", "boundary_distance", "logit_sensitivity", "confidence")
MEANS = ("mean λ_max raw", "mean λ_max calibrated", "median boundary distance")


@dataclass(frozen=True)
class Outcome:
    """One model: its audit, in pixel units where ``factor`` is applied, and the stored median distance where there is one."""

    case: Case
    audit: Audit
    factor: float
    stored: float | None

    @property
    def group(self) -> str:
        return "digits" if self.case.record is None else str(self.case.record["task"])

    def means(self) -> tuple[float, ...]:
        """The three measures of the model in pixel units: λ per squared pixel unit, distance in pixel units."""
        rows = self.audit.samples
        model = np.array([s.lambda_max.value for s in rows])
        # A scale of 1 leaves the values as they are, and no second ones are given.
        raw = np.array([s.lambda_max.value if (e := s.lambda_max_raw_units) is None else e.value for s in rows])
        # Calibrated values are in model units only: the same factor brings them to pixels.
        factor = np.median(raw[model > 0] / model[model > 0])
        calibrated = np.mean([s.lambda_max_calibrated.value for s in rows]) * factor
        distances = [s.boundary_distance.value for s in rows if s.boundary_distance.value is not None]
        return float(raw.mean()), float(calibrated), float(np.median(distances) / self.factor)


def pixel_scale(case: Case) -> tuple[tuple[float, float], tuple[float, ...]]:
    """(range of the model's input, d(model input)/d(pixel) per channel) for pixels from 0 to 1."""
    record = case.record
    if record is None:  # the sample models take pixels
        return (0.0, 1.0), (1.0,)
    if "raw255" in record["data"]:
        return (0.0, 255.0), (255.0,)
    mean, std = (np.array(record["scale"][k], float) for k in ("mean", "std"))
    return (float((-mean / std).min()), float(((1 - mean) / std).max())), tuple(float(s) for s in 1 / std)


def stored_median(case: Case, count: int) -> float:
    """Median of the stored distances over the same images, those classified right; a failed attack counts as farther than all."""
    with np.load(SHARED_MODELS / "attacks" / f"{case.name}.npz") as data:
        distances, good = data["min_l2_pixel"], data["clean"] & (data["index"] < count)
    return float(np.median(np.nan_to_num(distances[good], nan=np.inf)))


def measured(case: Case, count: int, stored: float | None) -> Outcome:
    span, scale = pixel_scale(case)
    # The temperature is fitted on all labelled samples, the measures and the attack are of the first ones.
    settings = Settings(
        samples=count, method="gradient", replay=0, attack="l2", attack_range=span, input_scale=scale, attack_samples=count,
        providers=("cpu",),
    )  # fmt: skip
    return Outcome(case, audit(case.path, case.inputs, case.labels, settings), float(np.mean(scale)), stored)


def model_row(o: Outcome) -> list[object]:
    s = o.audit.attack
    assert s is not None
    found = {c.measure: c.coefficient for c in s.correlations}
    ratio = None if s.median_distance is None or o.stored is None else f"{s.median_distance / o.stored:.1%}"
    stored = None if o.stored is None else f"{o.stored:.4f}"
    cells = [None if found[m] is None else f"{found[m]:+.2f}" for m in MEASURES]
    return [o.case.name, f"{s.median_distance:.4f}", stored, ratio, s.failed, *cells]


def published_claim(outcomes: list[Outcome]) -> None:
    groups = {
        "sample models": [o for o in outcomes if o.group == "digits"],
        "cifar_cnna, trainings of one net": [o for o in outcomes if o.case.name.startswith("cifar_cnna_")],
        "CIFAR-10, all": [o for o in outcomes if o.group.startswith("CIFAR")],
        "MNIST, all": [o for o in outcomes if o.group == "MNIST"],
    }
    rows = []
    for name, members in groups.items():
        if len(members) < 3:
            continue
        means = np.array([o.means() for o in members])
        ours = [o.audit.attack.median_distance for o in members]  # type: ignore[union-attr]
        stored = None if members[0].stored is None else [o.stored for o in members]
        cells = [d and f"{spearmanr(means[:, k], d).statistic:+.2f}" for k in range(3) for d in (ours, stored)]
        rows.append([name, len(members), *cells])
    headers = ["models", "n", *(f"{m}, {d}" for m in MEANS for d in ("ours", "stored"))]
    print_table(headers, rows, title="Rank correlation over models with the median smallest L2 attack")
    rows = [[o.case.name, *(f"{v:.4g}" for v in o.means())] for o in outcomes]
    print_table(["model", *MEANS], rows, title="The measures behind it, in pixel units")


def main() -> None:
    options = arguments(__doc__)
    cases = sample_cases()[:3] if options.quick else sample_cases()
    if have_shared():
        stored = json.loads((SHARED_MODELS / "attacks" / "attacks.json").read_text(encoding="utf-8"))
        quick = ("cifar_cnna_sgd", "cifar_cnna_mix", "cifar_cnna_kw")
        cases += [c for c in shared_cases() if c.name in stored and (not options.quick or c.name in quick)]
    count = 20 if options.quick else 100
    outcomes: list[Outcome] = []

    def rows() -> Iterator[list[object]]:
        for case in cases:
            if options.models in case.name:
                outcomes.append(measured(case, count, stored_median(case, count) if case.record else None))
                yield model_row(outcomes[-1])

    title = "Smallest L2 attack, and rank correlation of each measure with it over the samples"
    print_table(["model", "ours", "stored", "ratio", "failed", *MEASURES], rows(), title=title)
    published_claim(outcomes)


if __name__ == "__main__":
    main()
