"""Answer 2: whether families of nets are ordered as the published bounds order them, by bounds, by λ and by attacks."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np

from .answer import Answer, Figure, Table
from .answers_strength import L2
from .figures import Panel, Series, panels
from .population import CALIBRATED, FAMILIES, RAW, TRAININGS, Measure, Model, Population, Results
from .resampling import interval
from .statistics import Array, concordance, concordance_p, ranks
from .verdicts import NOT, RULE, Estimate, judge, together

ORDER = ("densenet", "vgg", "resnet", "vit")  # claimed, from the least to the most sensitive; the last two may be equal
WORDS = "DenseNet < VGG < ResNet ≤ Transformer"
BOUND = Measure("log10_fisher_bound", "bound of λ from the weights", -1, None)
SHOWN = (BOUND, RAW, CALIBRATED, L2)
ACCURACY, TEMPERATURE = 0.01, 0.25  # near-equal: of accuracy, and of the logarithm of the temperature
TIMES = 2000


def agreement(levels: Array) -> Array:
    """Share of pairs of families in the claimed order, less the share in the reverse: (…, 4) sensitivities to (…,)."""
    pairs = list(combinations(range(len(ORDER)), 2))
    return np.mean([np.sign(levels[..., j] - levels[..., i]) for i, j in pairs], axis=0)


def exact(levels: Array) -> Array:
    """Whether the whole order is the claimed one."""
    return np.all([levels[..., i] < levels[..., i + 1] for i in range(len(ORDER) - 1)], axis=0)


def logarithm(turned: Array, measure: Measure) -> Array:
    """Logarithm of the sensitivity, from a measure turned so that more means more robust; a bound is a logarithm already."""
    if measure is BOUND:
        return -turned
    return np.log(np.maximum(-turned, 1e-40)) if measure.sign < 0 else -np.log(np.maximum(turned, 1e-12))


def levels_of(
    population: Population, measure: Measure, training: str, families: tuple[str, ...], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Sensitivity of each family, mean over seeds of its logarithm: (families,), and replicates over seeds and samples."""
    x = population.quantity(measure)
    value, draws = (logarithm(v, measure) for v in (x.value, x.draws))
    trainings, names = population.labels("training"), population.labels("family")
    sizes = population.labels("size")
    points, replicas = [], []
    for family in families:
        rows = np.flatnonzero((trainings == training) & (names == family) & (sizes == "medium") & np.isfinite(value))
        if not len(rows):
            points.append(np.nan)
            replicas.append(np.full(len(draws), np.nan))
            continue
        drawn = rows[rng.integers(0, len(rows), (len(draws), len(rows)))]
        points.append(value[rows].mean())
        replicas.append(np.take_along_axis(draws, drawn, axis=1).mean(axis=1))
    return np.array(points), np.stack(replicas, axis=1)


def cells_of(results: Results, block: str) -> dict[str, dict[str, dict[str, Any]]]:
    """By data set, training and measure: the families' sensitivities, the order, and how far it is the claimed one."""
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for data in results.data_sets:
        population = results.population(data, block)
        for training in TRAININGS:
            for measure in SHOWN:
                value, draws = (
                    levels_of(population, measure, training, ORDER, rng)
                    if len(population)
                    else (np.full(4, np.nan), np.empty((0, 4)))
                )
                if not np.isfinite(value).all():
                    continue
                found.setdefault(data, {}).setdefault(training, {})[measure.name] = {
                    "order": [ORDER[i] for i in np.argsort(value)],
                    "levels": dict(zip(ORDER, value.tolist(), strict=True)),
                    "agreement": interval(float(agreement(value)), agreement(draws)),
                    "probability": float(exact(draws).mean()),
                    "reverse": float(exact(draws[:, ::-1]).mean()),
                    "draws": agreement(draws),
                }
    return found


def overall(found: dict[str, dict[str, dict[str, Any]]], measure: Measure) -> dict[str, Estimate]:
    """Agreement averaged over the trainings of each data set."""
    told = {}
    for data, by_training in found.items():
        cells = [c[measure.name] for c in by_training.values() if measure.name in c]
        if cells:
            told[data] = interval(
                float(np.mean([c["agreement"].value for c in cells])), np.mean([c["draws"] for c in cells], axis=0)
            )
    return told


def tables_of_levels(results: Results, block: str, *, adjusted: bool) -> dict[str, Array]:
    """By measure: (cells, families) of mean logarithms over seeds; adjusted for accuracy and temperature within each data set."""
    tables: dict[str, list[Array]] = {m.name: [] for m in SHOWN}
    rng = np.random.default_rng(0)
    for data in results.data_sets:
        population = results.population(data, block)
        if not len(population):
            continue
        for measure in SHOWN:
            kept = remaining(population, measure) if adjusted else None
            for training in TRAININGS:
                if kept is None:
                    row, _ = levels_of(population, measure, training, FAMILIES, rng)
                else:
                    chosen = (population.labels("training") == training) & (population.labels("size") == "medium")
                    row = np.array(
                        [
                            kept[m].mean()
                            if (m := chosen & (population.labels("family") == f) & np.isfinite(kept)).any()
                            else np.nan
                            for f in FAMILIES
                        ]
                    )
                if np.isfinite(row).all():
                    tables[measure.name].append(row)
    return {k: np.array(v) for k, v in tables.items() if v}


def remaining(population: Population, measure: Measure) -> Array:
    """Logarithm of a sensitivity less what a linear fit on accuracy, ln T and training explains, (M,)."""
    value = logarithm(population.quantity(measure).value, measure)
    trainings = population.labels("training")
    columns = [population.numbers("accuracy"), np.log(population.numbers("temperature"))] + [
        (trainings == t).astype(float) for t in TRAININGS
    ]
    design = np.stack(columns, axis=1)
    kept = np.isfinite(value) & np.isfinite(design).all(axis=1)
    out = np.full(len(value), np.nan)
    if kept.sum() > design.shape[1]:
        out[kept] = value[kept] - design[kept] @ np.linalg.lstsq(design[kept], value[kept], rcond=None)[0]
    return out


def near_equal(results: Results, block: str) -> dict[str, dict[str, Any]]:
    """Pairs of models of two families, one training and near-equal accuracy and temperature: how many have the claimed order."""
    found: dict[str, dict[str, Any]] = {}
    for data in results.data_sets:
        population = results.population(data, block)
        if not len(population):
            continue
        models, accuracy, log_t = population.models, population.numbers("accuracy"), np.log(population.numbers("temperature"))
        pairs = [
            (i, j)
            for i, j in combinations(range(len(models)), 2)
            if comparable(models[i], models[j], accuracy[[i, j]], log_t[[i, j]])
        ]
        found[data] = {"pairs": len(pairs)}
        for measure in SHOWN:
            x = population.quantity(measure).value
            claimed = [(i, j) if ORDER.index(models[i].family) < ORDER.index(models[j].family) else (j, i) for i, j in pairs]
            known = [(i, j) for i, j in claimed if np.isfinite([x[i], x[j]]).all()]
            found[data][measure.name] = [sum(bool(x[i] > x[j]) for i, j in known), len(known)]  # x: more is more robust
    return found


def comparable(a: Model, b: Model, accuracy: Array, log_t: Array) -> bool:
    """Whether two models differ in family and hardly in the rest."""
    return (
        a.family != b.family and {a.family, b.family} <= set(ORDER) and a.training == b.training and a.size == b.size == "medium"
        and bool(abs(np.diff(accuracy)[0]) <= ACCURACY) and bool(abs(np.diff(log_t)[0]) <= TEMPERATURE)
    )  # fmt: skip


def picture(results: Results, block: str) -> str:
    """Sensitivity of each family less its cell's mean, a line for each data set and training."""
    shown = []
    rng = np.random.default_rng(0)
    for measure in SHOWN:
        series = []
        for i, data in enumerate(results.data_sets):
            population = results.population(data, block)
            for training in TRAININGS if len(population) else ():
                row, _ = levels_of(population, measure, training, (*ORDER, "mlp"), rng)
                if np.isfinite(row).all():
                    series.append(Series(data, list(enumerate((row - row.mean()).tolist())), i, line=True))
        unit = "log₁₀" if measure is BOUND else "ln"
        shown.append(Panel(measure.words, "", f"{unit}, less the mean", series, marks=("DenseNet", "VGG", "ResNet", "ViT", "MLP")))
    return panels("Sensitivity of families", shown, columns=2, width=300)


def answer(results: Results, *, block: str = "grid") -> Answer:
    """The claimed order beside the measured ones, and whether any order is common."""
    found = cells_of(results, block)
    means = {m.name: overall(found, m) for m in SHOWN}
    verdicts = {k: {d: judge(e) for d, e in v.items()} for k, v in means.items()}
    each = {k: together(v.values()) for k, v in verdicts.items()}
    verdict = NOT if NOT in (each[BOUND.name], each[L2.name]) else together([each[BOUND.name], each[L2.name]])
    rng = np.random.default_rng(0)
    shared: dict[str, dict[str, Any]] = {}
    for words, adjusted in (("as they are", False), ("at equal accuracy and temperature", True)):
        for name, table in tables_of_levels(results, block, adjusted=adjusted).items():
            common = ranks(table).mean(axis=0)
            shared.setdefault(words, {})[name] = {
                "cells": len(table), "concordance": float(concordance(table)), "p": concordance_p(table, times=TIMES, rng=rng),
                "order": [FAMILIES[i] for i in np.argsort(common)], "ranks": dict(zip(FAMILIES, common.tolist(), strict=True)),
            }  # fmt: skip
    sure = [(d, t, p) for d, ts in found.items() for t, c in ts.items() if L2.name in c for p in certain(results, d, t, block)]
    near = near_equal(results, block)
    words_of = {m.name: m.words for m in SHOWN}
    cells = [c for ts in found.values() for c in ts.values()]
    hits = {m.name: sum(c[m.name]["order"] == list(ORDER) for c in cells if m.name in c) for m in SHOWN}
    tables = [
        Table(("data set", "training", "measure", "measured order, least sensitive first", "agreement with the claimed order", "P(claimed order)", "P(its reverse)"),
              [(d, t, words_of[k], " < ".join(v["order"]), v["agreement"], v["probability"], v["reverse"])
               for d, ts in found.items() for t, c in ts.items() for k, v in c.items()],
              "Agreement: share of the six pairs of families in the claimed order less the share in reverse, [95 %] over seeds and samples. "
              "Three seeds make coarse intervals."),
        Table(("agreement, mean over trainings", *found), [(words_of[k], *(v.get(d) for d in found)) for k, v in means.items()]),
        Table(("an order common to all data sets and trainings", "measure", "cells", "concordance W", "p", "common order, least sensitive first"),
              [(w, words_of[k], v["cells"], v["concordance"], v["p"], " < ".join(v["order"])) for w, ks in shared.items() for k, v in ks.items()],
              "Kendall's W over five families; p by permutation within each cell. Equal accuracy and temperature: what a linear fit on accuracy, "
              "ln T and training leaves."),
        Table((f"pairs of two families, one training, accuracy within {ACCURACY:.0%}, ln T within {TEMPERATURE:g}", "pairs", *(m.words for m in SHOWN)),
              [(d, n["pairs"], *(f"{n[m.name][0]} of {n[m.name][1]}" for m in SHOWN)) for d, n in near.items()],
              "How many of them have the claimed order; half would be chance."),
        Table(("data set", "training", "orders of families that attacks show beyond doubt"), sure_rows(sure), title="Orders of families that attacks show beyond doubt"),
    ]  # fmt: skip
    line = f"The claimed order is found in {hits[BOUND.name]} of {len(cells)} cells (data sets by trainings) by the bounds, {hits[RAW.name]} by λ raw, {hits[CALIBRATED.name]} by λ calibrated and {hits[L2.name]} by attacks."
    if L2.name in shared.get("as they are", {}):
        s = shared["as they are"][L2.name]
        line += f" Order common to the cells by attacks: {' < '.join(s['order'])} in sensitivity (W {s['concordance']:.2f}, p {s['p']:.2g})."
    for ts in found.values():
        for c in ts.values():
            for v in c.values():
                v.pop("draws")
    figures = [
        Figure(
            "ranking",
            picture(results, block),
            "Sensitivity of the families in the claimed order, by bounds, λ raw, λ calibrated and attacks; a line for each data set and training.",
        )
    ]
    return Answer(
        "ranking", "Do the families rank as the bounds say?", f"Closed-form bounds rank architectures in sensitivity: {WORDS}.",
        "Families of comparable size: the bound from the weights, λ and the smallest attack, by data set and training, over three seeds.",
        RULE.replace("interval", "interval of the agreement with the claimed order (1 all pairs, −1 none)", 1) + ". Both the bounds and the attacks must show the order",
        verdict, line, tables, figures if found else [], {"cells": found, "agreement": means, "verdicts": verdicts, "common": shared, "near_equal": near},
    )  # fmt: skip


def certain(results: Results, data: str, training: str, block: str) -> list[str]:
    """Pairs of families whose attacks differ beyond doubt over seeds and samples, less sensitive first."""
    population = results.population(data, block)
    _, draws = levels_of(population, L2, training, FAMILIES, np.random.default_rng(1))
    told = []
    for i, j in permutations(range(len(FAMILIES)), 2):
        gap = draws[:, j] - draws[:, i]
        if np.isfinite(gap).all() and np.quantile(gap, 0.025) > 0:
            told.append(f"{FAMILIES[i]} < {FAMILIES[j]}")
    return told


def sure_rows(sure: list[tuple[str, str, str]]) -> list[tuple[str, ...]]:
    """One line a cell."""
    return [(d, t, ", ".join(p for a, b, p in sure if (a, b) == (d, t))) for d, t in dict.fromkeys((d, t) for d, t, _ in sure)]
