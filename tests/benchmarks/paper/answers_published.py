"""Answer 7: what the published estimators would have said of the same files."""

from __future__ import annotations

from typing import Any

import numpy as np

from .answer import Answer, Figure, Table, number
from .figures import forest
from .population import LEAST_MODELS, RAW, Measure, Population, Results
from .resampling import Quantity
from .statistics import Array, mean, median, spearman
from .verdicts import HOLDS, NOT, UNDECIDED, Estimate, together

BLACK, WHITE = Measure("black", "published black box, mean", -1, mean), Measure("white", "published white box, mean", -1, mean)
NEAR = (0.8, 1.25)
RULE = (
    f"the interval of the median ratio to λ: wholly within [{NEAR[0]:g}, {NEAR[1]:g}] for both estimators on every data set: holds; wholly outside for "
    "one: does not hold; otherwise undecided"
)


def judged(ratio: Estimate) -> str:
    """The rule for one estimator and data set."""
    if ratio.low is None or ratio.high is None:
        return UNDECIDED
    return (
        HOLDS
        if NEAR[0] <= ratio.low and ratio.high <= NEAR[1]
        else NOT
        if ratio.high < NEAR[0] or ratio.low > NEAR[1]
        else UNDECIDED
    )


def ratio(population: Population, measure: Measure) -> Estimate:
    """Median over models of the median over samples of published over λ raw, with both levels resampled."""
    truth, said = population.samples("lambda_raw"), population.samples(measure.key)
    width = min(truth.shape[1], said.shape[1])
    truth, said = truth[:, :width], said[:, :width]
    known = np.isfinite(truth) & np.isfinite(said) & (truth > 1e-30)
    full = np.full(population.samples("l2").shape, np.nan)
    full[:, :width] = np.where(known, said / np.where(known, truth, 1.0), np.nan)
    return population.resampling.estimate(median, population.resampling.quantity(full, median))


def turned(a: Array, b: Array) -> tuple[int, int]:
    """How many pairs of models one measure orders the other way round than another, and how many pairs there are."""
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    upper = np.triu_indices(len(a), 1)
    signs = np.sign(a[:, None] - a[None])[upper] * np.sign(b[:, None] - b[None])[upper]
    return int((signs < 0).sum()), len(signs)


def by_data(results: Results, data: str, blocks: tuple[str, ...]) -> dict[str, Any]:
    """Ratio, correlation with attacks, and pairs turned, of each estimator."""
    population = results.population(data, *blocks)
    found: dict[str, Any] = {}
    if len(population) < LEAST_MODELS:
        return found
    for measure in (BLACK, WHITE):
        x = population.quantity(measure)
        kept = np.isfinite(x.value)
        if kept.sum() < LEAST_MODELS:
            continue
        own = population.quantity(RAW)
        same = Quantity(np.where(kept, own.value, np.nan), np.where(kept, own.draws, np.nan))
        wrong, pairs = turned(x.value, same.value)
        found[measure.key] = {
            "models": int(kept.sum()), "ratio": ratio(population, measure),
            "attacks": population.resampling.estimate(spearman, x, population.truth),
            "ours": population.resampling.estimate(spearman, same, population.truth),
            "difference": population.resampling.difference((x, population.truth), (same, population.truth)),
            "agreement": population.resampling.estimate(spearman, x, same), "turned": wrong, "pairs": pairs,
        }  # fmt: skip
    return found


def answer(results: Results) -> Answer:
    """Their size and their order beside λ."""
    found = {d: f for d in results.data_sets if (f := by_data(results, d, ("grid",)))}
    found |= {d: f for d in results.foreign if (f := by_data(results, d, ("others",)))}
    words = {"black": "black box, 100 random directions", "white": "white box, 100 Rayleigh quotients"}
    verdicts = {d: {k: judged(v["ratio"]) for k, v in f.items()} for d, f in found.items()}
    table = Table(
        ("data set", "estimator", "models", "ratio to λ, median", "ρ with attacks", "ρ of λ raw, same models", "difference", "ρ with λ raw", "pairs of models turned"),
        [(d, words[k], v["models"], v["ratio"], v["attacks"], v["ours"], v["difference"], v["agreement"], f"{v['turned']} of {v['pairs']}")
         for d, f in found.items() for k, v in f.items()],
        "[95 %] over models and samples. Pairs turned: in another order than by λ raw.",
    )  # fmt: skip
    line = (
        "; ".join(summary(k, [(d, f[k]) for d, f in found.items() if k in f]) for k in words if any(k in f for f in found.values()))
        + "."
    )
    groups = [(words[k], [(d, logged(f[k]["ratio"]), 0) for d, f in found.items() if k in f]) for k in words]
    figures = [Figure("published", forest("Published estimators", groups, across="log₁₀ of the ratio to λ", at=(0.0,)),
                      "Ratio of the published estimators to λ, on a logarithmic axis, with intervals.")] if found else []  # fmt: skip
    return Answer(
        "published", "What would the published estimators have said?", "The published black-box and white-box algorithms estimate the spectral norm.",
        "Both estimators, restated from their definition, on the same files and samples as λ.",
        RULE, together(v for f in verdicts.values() for v in f.values()), line, [table], figures, {"data": found, "verdicts": verdicts},
    )  # fmt: skip


def summary(kind: str, found: list[tuple[str, dict[str, Any]]]) -> str:
    """Ratio and order of one estimator over the data sets."""
    ratios = [v["ratio"].value for _, v in found if v["ratio"].value is not None]
    attacks = ", ".join(
        f"{d} {number(v['attacks'].value)} (λ {number(v['ours'].value)})" for d, v in found if v["attacks"].value is not None
    )
    wrong, pairs = (sum(v[k] for _, v in found) for k in ("turned", "pairs"))
    sizes = f"median ratio to λ {min(ratios):.2g} to {max(ratios):.2g}" if ratios else "no ratio"
    return f"{kind} box: {sizes}, {wrong} of {pairs} pairs of models in another order than by λ raw, ρ with attacks {attacks or 'not known'}"


def logged(e: Estimate) -> Estimate:
    """Base 10."""
    return Estimate(*(None if v is None or v <= 0 else float(np.log10(v)) for v in (e.value, e.low, e.high)))
