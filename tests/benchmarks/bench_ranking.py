"""Does the black-box audit rank models as attacks do? Spearman correlation with the smallest successful L2 attack.

    python tests/benchmarks/bench_ranking.py [--quick] [--samples N] [--budget N]

Means of lambda_max are in pixel units (inputs between 0 and 1), so that files of different input scalings compare. The attack on
the sample models is our own, on the models of others the stored one of another implementation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from _common import SHARED_MODELS, Case, arguments, have_shared, print_table, sample_cases, shared_cases
from scipy.stats import spearmanr

import onnxfim
from onnxfim import Settings

FIELDS = ("lambda_max", "lambda_max_calibrated")


def pixel_factor(case: Case) -> float:
    """Squared pixel units per squared input unit: inputs are ``(pixel − mean) / std``; the mean over channels where they differ."""
    if case.record is None:  # the sample models take pixels
        return 1.0
    return float(np.mean(1.0 / np.square(case.record["scale"]["std"])))


def audited(case: Case, samples: int, budget: int) -> dict[str, tuple[float, float, float]]:
    """Mean with its interval of each field, in pixel units."""
    audit = onnxfim.audit(
        case.path,
        case.inputs,
        case.labels,
        Settings(samples=samples, budget=budget, providers=("cpu",), method="sketch", bounds=False),
    )
    factor = pixel_factor(case)
    means = {f: audit.aggregates[f].mean for f in FIELDS}
    return {f: tuple((x or 0.0) * factor for x in (m.value, m.low, m.high)) for f, m in means.items()}  # type: ignore[misc]


def exact_means(case: Case) -> dict[str, float]:
    assert case.exact is not None
    return {f: float(np.mean([s[f] for s in case.exact["samples"]])) * pixel_factor(case) for f in FIELDS}


def own_attack(case: Case, samples: int) -> float:
    """Median of our smallest L2 attack on a model that takes pixels."""
    settings = Settings(
        samples=samples, method="gradient", replay=0, attack="l2", attack_range=(0.0, 1.0), attack_samples=samples, providers=("cpu",),
    )  # fmt: skip
    attack = onnxfim.audit(case.path, case.inputs, case.labels, settings).attack
    assert attack is not None
    assert attack.median_distance is not None
    return attack.median_distance


def main() -> None:
    options = arguments(
        __doc__,
        ("--samples", {"type": int, "default": 200}),
        ("--budget", {"type": int, "default": 101}),
    )
    samples, budget = (24, 33) if options.quick else (options.samples, options.budget)
    groups = {"digits": sample_cases()}
    attacks: dict[str, float] = {}  # median distances
    if have_shared():
        stored = json.loads((SHARED_MODELS / "attacks" / "attacks.json").read_text(encoding="utf-8"))
        attacks = {name: found["median_min_l2_pixel"] for name, found in stored.items()}
        for task in ("CIFAR-10", "MNIST"):
            groups[task] = [c for c in shared_cases() if c.name in attacks and c.record["task"] == task]
        if options.quick:
            groups["CIFAR-10"] = [c for c in groups["CIFAR-10"] if "cnna" in c.name]
    groups = {task: [c for c in cases if options.models in c.name] for task, cases in groups.items()}
    summary: list[list[Any]] = []
    for task, cases in ((t, c) for t, c in groups.items() if len(c) > 2):  # a rank correlation of fewer says nothing
        distances = [own_attack(c, samples) if c.record is None else attacks[c.name] for c in cases]
        found: list[dict[str, tuple[float, float, float]]] = []

        def rows(
            cases: list[Case] = cases,
            distances: list[float] = distances,
            found: list[dict[str, tuple[float, float, float]]] = found,
        ) -> Iterator[list[Any]]:
            for case, distance in zip(cases, distances, strict=True):
                found.append(audited(case, samples, budget))
                cells = ["{:.4g} [{:.3g}, {:.3g}]".format(*found[-1][f]) for f in FIELDS]
                yield [case.name, f"{distance:.3f}", *cells, *(f"{v:.4g}" for v in exact_means(case).values())]

        headers = (
            "model",
            "median smallest L2 attack",
            "raw mean [95 %]",
            "calibrated mean [95 %]",
            "exact raw (32)",
            "exact cal. (32)",
        )
        print_table(headers, rows(), title=f"{task}: {samples} samples, {budget} passes each, pixel units")
        ours = [spearmanr([v[f][0] for v in found], distances).statistic for f in FIELDS]
        truth = [spearmanr([exact_means(c)[f] for c in cases], distances).statistic for f in FIELDS]
        summary.append([task, len(cases), *(f"{r:+.2f}" for r in (*ours, *truth))])
    headers = ("data", "models", "raw", "calibrated", "exact values of 32 samples, raw", "calibrated")
    print_table(headers, summary, title="Rank correlation of the mean with the smallest attack (−1 is best)")


if __name__ == "__main__":
    main()
