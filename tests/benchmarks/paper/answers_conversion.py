"""Answer 5: whether λ converts to robust accuracy by one curve for all data sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from .answer import Answer, Figure, Table
from .figures import Panel, Series, panels
from .population import BOUNDARY, CALIBRATED, FLIP, RAW, Measure, Population, Results
from .statistics import Array, isotonic, mean, step
from .verdicts import HOLDS, Estimate, judge, together, with_calibration

SHOWN = (RAW, CALIBRATED, BOUNDARY, FLIP)
RULE = (
    "skill: 1 less the conversion's mean absolute error over that of the constant (the fitted data set's mean share at each of the three "
    "radii); holds: for every ordered pair of data sets the 95 % interval over models lies above 0; does not hold: for some pair it lies below; "
    "undecided: otherwise"
)
BLOCKS = ("grid", "strength")


def points(results: Results, population: Population, data: str, measure: Measure) -> tuple[Array, Array]:
    """Strain of each model at each of the three radii, and the share of its rightly classified images that stay right, both (M, 3).

    The strain is free of units. A radius e of L∞ is an L2 length of at most e·√d, so ``λ e² d / 2`` bounds the divergence in nats
    to second order, and ``e √d / distance`` is 1 where the longest step reaches the distance.
    """
    side = results.json["data"][data]["side"]
    radii = stacked([m.part("attack").get("epsilons") or [] for m in population.models])
    value = np.abs(population.quantity(measure).value)[:, None]
    length = radii * side
    strain = value * length**2 / 2 if measure.sign < 0 else length / np.where(value > 0, value, np.nan)
    clean = np.array([m.number("clean") if np.isfinite(m.number("clean")) else m.number("accuracy") for m in population.models])[
        :, None
    ]
    robust = stacked([m.robust().tolist() for m in population.models])
    return np.log10(np.maximum(strain, 1e-12)), np.minimum(robust / np.where(clean > 0, clean, np.nan), 1.0)


def stacked(rows: list[list[float]]) -> Array:
    """(M, 3), NaN where there are fewer."""
    return np.array([[*map(float, r[:3]), *[np.nan] * (3 - len(r[:3]))] for r in rows]).reshape(len(rows), 3)


def fitted(x: Array, y: Array) -> tuple[Array, Array]:
    """Decreasing curve through all that is known."""
    known = np.isfinite(x) & np.isfinite(y)
    return isotonic(x[known], y[known])


def errors(curve: tuple[Array, Array], x: Array, y: Array) -> Array:
    """Mean absolute error of each model over the radii, (M,)."""
    return mean(np.where(np.isfinite(x), np.abs(step(curve, np.nan_to_num(x)) - y), np.nan))


def resampled(population: Population, error: Array, constant: Array) -> tuple[Estimate, Estimate]:
    """Mean error, and skill beside the constant, over models."""
    sampling = population.resampling
    a, b = sampling.fixed(error), sampling.fixed(np.where(np.isfinite(error), constant, np.nan))

    def skill(e: Array, c: Array) -> Array:
        return 1 - mean(e) / np.maximum(mean(c), 1e-9)

    return sampling.estimate(mean, a), sampling.estimate(skill, a, b)


def left_out(population: Population, x: Array, y: Array) -> Array:
    """Error of each model by a curve of the other configurations of its data set, (M,)."""
    names = population.labels("configuration")
    out = np.full(len(x), np.nan)
    for name in np.unique(names):
        inside = names == name
        if np.isfinite(x[~inside] + y[~inside]).sum() > 3:
            out[inside] = errors(fitted(x[~inside], y[~inside]), x[inside], y[inside])
    return out


def answer(results: Results) -> Answer:
    """Curves fitted on one data set and tried on the others."""
    populations = {d: p for d in results.data_sets if len(p := results.population(d, *BLOCKS)) >= 3}
    known = {(d, m.name): points(results, p, d, m) for d, p in populations.items() for m in SHOWN}
    found: dict[str, dict[str, Any]] = {}
    for source in populations:
        for target, population in populations.items():
            y = known[target, RAW.name][1]
            level = mean(known[source, RAW.name][1].T)
            constant = mean(np.abs(level - y))
            row: dict[str, Any] = {"constant": population.resampling.estimate(mean, population.resampling.fixed(constant))}
            for m in SHOWN:
                x = known[target, m.name][0]
                error = left_out(population, x, y) if source == target else errors(fitted(*known[source, m.name]), x, y)
                row[m.name], row[f"skill {m.name}"] = resampled(population, error, constant)
            found[f"{source} → {target}"] = row
    across = {k: v for k, v in found.items() if k.split(" → ")[0] != k.split(" → ")[1]}
    verdicts = {m.name: {k: judge(v[f"skill {m.name}"], 0.0) for k, v in across.items()} for m in SHOWN}
    verdict = with_calibration(together(verdicts[RAW.name].values()), together(verdicts[CALIBRATED.name].values()))
    tables = [
        Table(("fitted on → tried on", "constant", *(m.words for m in SHOWN)),
              [(k, v["constant"], *(v[m.name] for m in SHOWN)) for k, v in found.items()],
              "Mean absolute error of the share of rightly classified images that stay right, at three radii, [95 %] over models; on one data set: configurations left out in turn."),
        Table(("skill beside the constant", *(m.words for m in SHOWN)), [(k, *(v[f"skill {m.name}"] for m in SHOWN)) for k, v in found.items()],
              "1: no error; 0: no better than the constant; below: worse."),
    ]  # fmt: skip
    names = [d for d, _ in known]
    shown = []
    for m in SHOWN:
        series = []
        for i, d in enumerate(dict.fromkeys(names)):
            x, y = known[d, m.name]
            kept = np.isfinite(x) & np.isfinite(y)
            series.append(Series(d, list(zip(x[kept].tolist(), y[kept].tolist(), strict=True)), i))
            curve = fitted(x, y)
            series.append(
                Series(
                    "",
                    [*zip(*(c.tolist() for c in curve), strict=True), (float(x[kept].max(initial=-12)), float(curve[1][-1]))]
                    if len(curve[0])
                    else [],
                    i,
                    steps=True,
                    marks=False,
                )
            )
        shown.append(Panel(m.words.split(",")[0], "log₁₀ strain", "share that stays right", series))
    worst = {
        m.words.split(",")[0]: max((v[m.name].value for v in across.values() if v[m.name].value is not None), default=float("nan"))
        for m in SHOWN
    }
    ahead = {m.words.split(",")[0]: sum(v == HOLDS for v in verdicts[m.name].values()) for m in SHOWN}
    line = (
        "Better than a constant beyond doubt, of " + f"{len(across)} transfers: " + ", ".join(f"{w} {n}" for w, n in ahead.items())
    )
    line += "; largest mean error in points: " + ", ".join(f"{w} {100 * v:.0f}" for w, v in worst.items() if np.isfinite(v)) + "."
    return Answer(
        "conversion", "Does λ convert to robust accuracy?", "λ converts to robust accuracy by a curve that carries over from one data set to another (asked by reviewers).",
        "A decreasing step curve of robust accuracy (as a share of the rightly classified) on λ·e²·d/2 (L∞ radius e in pixel units, d pixels), or on e·√d over a distance, fitted on one data set and tried on the others.",
        RULE, verdict, line, tables, [Figure("conversion", panels("Robust accuracy by strain", shown, columns=2, width=300), "Robust accuracy against the strain by λ and by distances, with the curve of each data set.")] if populations else [],
        {"transfers": found, "verdicts": verdicts},
    )  # fmt: skip
