"""Answer 6: whether λ says how much accuracy is lost under corruption and on images of another source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .answer import Answer, Figure, Table
from .answers_strength import L2
from .figures import forest
from .population import BOUNDARY, CALIBRATED, FLIP, LEAST_MODELS, RAW, Measure, Model, Results
from .statistics import partial_spearman, spearman
from .verdicts import RULE_OF_BOTH, judge, together, with_calibration

BLOCKS = ("grid", "strength")
ACCURACY = Measure("accuracy", "accuracy (for comparison)", 1, None)
SHOWN = (RAW, CALIBRATED, BOUNDARY, FLIP, Measure("jacobian", "‖J‖₂, mean", -1, RAW.tell), L2, ACCURACY)


def average(values: list[float | None] | None) -> float:
    """Mean of what there is."""
    known = [v for v in values or () if v is not None]
    return float(np.mean(known)) if known else float("nan")


def lost(model: Model, name: str) -> float:
    """Accuracy lost under one corruption, mean over its severities."""
    return model.number("accuracy") - average((model.part("attack").get("corruptions") or {}).get(name))


def lost_elsewhere(model: Model, name: str) -> float:
    """Accuracy lost on another source, of balanced accuracies where they are known."""
    attack = model.part("attack")
    balanced = attack.get("balanced") or {}
    if name in balanced and "test_part" in balanced:
        return average(balanced["test_part"]) - average(balanced[name])
    return model.number("accuracy") - average((attack.get("shift") or {}).get(name))


def answer(results: Results) -> Answer:
    """Rank correlations with the loss of accuracy; + means less sensitive models lose less."""
    found: dict[str, dict[str, Any]] = {}
    for data in results.data_sets:
        population = results.population(data, *BLOCKS)
        if len(population) < LEAST_MODELS:
            continue
        models = population.models
        kinds = {"corruptions": sorted({n for m in models for n in m.part("attack").get("corruptions") or {}}),
                 "shift": sorted({n for m in models for n in m.part("attack").get("shift") or {}})}  # fmt: skip
        accuracy = population.resampling.fixed(population.numbers("accuracy"))
        parts: dict[str, Any] = {}
        for kind, names in kinds.items():
            loss: Callable[[Model, str], float] = lost if kind == "corruptions" else lost_elsewhere
            table = np.array([[loss(m, n) for n in names] for m in models]).reshape(len(models), len(names))
            losses = {n: table[:, i] for i, n in enumerate(names)}
            if len(names):
                losses = {f"all {kind}": table.mean(axis=1)} | losses
            for name, drop in losses.items():
                if np.isfinite(drop).sum() < LEAST_MODELS:
                    continue
                y = population.resampling.fixed(-drop)
                parts[name] = {"lost": float(np.nanmean(drop))} | {
                    m.name: population.resampling.estimate(spearman, population.quantity(m), y) for m in SHOWN if np.isfinite(population.quantity(m).value).sum() >= LEAST_MODELS
                }  # fmt: skip
                if name.startswith("all "):
                    parts[name]["given accuracy"] = {
                        m.name: population.resampling.estimate(partial_spearman, population.quantity(m), y, accuracy) for m in (RAW, CALIBRATED, BOUNDARY)
                    }  # fmt: skip
        found[data] = parts
    verdicts = {
        f"{m.words}, {kind}": {d: judge(p[f"all {kind}"][m.name]) for d, p in found.items() if m.name in p.get(f"all {kind}", {})}
        for m in (RAW, CALIBRATED) for kind in ("corruptions", "shift")
    }  # fmt: skip
    each = {k: together(v.values()) for k, v in verdicts.items()}
    raw, calibrated = (together(v for k, v in each.items() if k.startswith(m.words)) for m in (RAW, CALIBRATED))
    overall = ("all corruptions", "all shift")
    tables = [
        Table(("data set", "accuracy lost under", "points lost, mean", *(m.words for m in SHOWN)),
              [(d, n, 100 * p["lost"], *(p.get(m.name) for m in SHOWN)) for d, ps in found.items() for n, p in ps.items()],
              "Spearman's ρ over models of the measure with the accuracy lost, + means that less sensitive models lose less; [95 %] over models "
              "and audited samples. Corruptions: mean of three severities on all test images. Another source: balanced accuracy."),
        Table(("with accuracy held fixed", "data set", "λ raw, mean", "λ calibrated, mean", "boundary distance"),
              [(n, d, *ps[n]["given accuracy"].values()) for d, ps in found.items() for n in overall if n in ps], title="ρ with accuracy held fixed"),
    ]  # fmt: skip
    line = "ρ of calibrated λ with the accuracy lost: " + "; ".join(
        f"{d} " + ", ".join(f"{n.removeprefix('all ')} {ps[n][CALIBRATED.name].value:.2f} (attacks {ps[n][L2.name].value:.2f})".replace("-", "−")
                            for n in overall if n in ps and CALIBRATED.name in ps[n] and ps[n][CALIBRATED.name].value is not None)
        for d, ps in found.items()
    ) + "."  # fmt: skip
    groups = [
        (f"{d}: {n}", [(m.words, ps[n][m.name], 0) for m in SHOWN if m.name in ps[n]])
        for d, ps in found.items()
        for n in overall
        if n in ps
    ]
    figures = [Figure("shift", forest("Loss of accuracy", groups, across="Spearman's ρ with accuracy lost (+: less sensitive models lose less)", at=(0, 0.5)),
                      "Rank correlation of each measure with the accuracy lost under corruption and on other sources.")] if groups else []  # fmt: skip
    return Answer(
        "shift", "Does λ speak of corruption and shift?", "λ also orders models under natural corruption and out of distribution (asked by reviewers).",
        "Accuracy lost under nine corruptions at three severities, and on images of another source, beside λ, distances and attacks.",
        RULE_OF_BOTH, with_calibration(raw, calibrated), line, tables, figures, {"data": found, "verdicts": verdicts, "each": each},
    )  # fmt: skip
