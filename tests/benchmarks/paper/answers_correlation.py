"""Answer 1: how well each measure orders models, and samples of a model, as attacks do."""

from __future__ import annotations

from typing import Any

import numpy as np

from .answer import Answer, Cell, Figure, Table, number
from .figures import Panel, Series, forest, panels
from .population import BOUNDARY, CALIBRATED, LEAST_MODELS, MEASURES, PER_SAMPLE, RAW, TRAININGS, Population, Results
from .statistics import kendall, median, partial_spearman, spearman
from .verdicts import HOLDS, NOT, RULE_OF_BOTH, Estimate, judge, together, with_calibration

BLOCKS = ("grid", "strength")


def over_models(population: Population) -> dict[str, dict[str, Any]]:
    """Of each measure: rank correlations over models with both truths, and pairs in order."""
    found: dict[str, dict[str, Any]] = {}
    sampling, truth, robust = population.resampling, population.truth, population.robust
    accuracy = sampling.fixed(population.numbers("accuracy"))
    for measure in MEASURES:
        x = population.quantity(measure)
        if np.isfinite(x.value).sum() < LEAST_MODELS:
            continue
        resolved, right = sampling.ordered(truth, x)
        found[measure.name] = {
            "words": measure.words,
            "l2": sampling.estimate(spearman, x, truth),
            "robust": sampling.estimate(spearman, x, robust),
            "tau": Estimate(float(kendall(x.value, truth.value)), None, None),
            "given_accuracy": sampling.estimate(partial_spearman, x, truth, accuracy),
            "resolved": resolved,
            "in_order": right,
        }
    return found


def over_samples(population: Population) -> dict[str, dict[str, Any]]:
    """Of each measure: the mean over models of the rank correlation over the rightly classified samples of one model."""
    l2 = np.where(population.right, population.samples("l2"), np.nan)
    found = {}
    for measure in PER_SAMPLE:
        values = population.samples(measure.key)
        if np.isfinite(values).any(axis=1).sum() >= 1:
            found[measure.key] = {
                "words": measure.words.split(",")[0],
                "l2": population.resampling.within(measure.sign * values, l2),
            }
    return found


def measured(results: Results, data: str, blocks: tuple[str, ...]) -> dict[str, Any] | None:
    """All correlations of one data set; None where too few models are there."""
    population = results.population(data, *blocks)
    if len(population) < LEAST_MODELS:
        return None
    truth = population.truth

    def gain(a: Any, b: Any) -> Estimate:
        return population.resampling.difference((population.quantity(a), truth), (population.quantity(b), truth))

    right_l2 = np.where(population.right, population.samples("l2"), np.nan)
    return {
        "models": len(population), "samples": int(right_l2.shape[1]),
        "reliability": population.resampling.reliability(right_l2, median),
        "measures": over_models(population), "per_sample": over_samples(population),
        "calibrated_less_raw": gain(CALIBRATED, RAW), "boundary_less_calibrated": gain(BOUNDARY, CALIBRATED),
    }  # fmt: skip


def of_few(results: Results, data: str) -> dict[str, Any] | None:
    """Correlations over the samples alone, where models are too few for more; None where there is no model with an attack."""
    population = results.population(data, "others")
    if not len(population) or not (per_sample := over_samples(population)):
        return None
    return {"models": len(population), "per_sample": per_sample}


def by_training(results: Results, data: str, blocks: tuple[str, ...]) -> dict[str, Any]:
    """Correlations with the smallest attack among the models of one training."""
    found: dict[str, Any] = {}
    for training in TRAININGS:
        models = [m for m in results.usable(data, *blocks) if m.training == training]
        if len(models) < LEAST_MODELS:
            continue
        part = Population(models, replicates=results.replicates)
        found[training] = {
            m.name: part.resampling.estimate(spearman, part.quantity(m), part.truth) for m in (RAW, CALIBRATED, BOUNDARY)
        }
    return found


def without_rule(results: Results, data: str, blocks: tuple[str, ...]) -> dict[str, Any]:
    """What the correlation of λ is where models that failed to train are counted, and where the rule is stricter."""
    found: dict[str, Any] = {}
    for words, share in (("all models", -1.0), ("stricter rule", 0.8)):
        population = results.population(data, *blocks, share=share)
        if len(population) >= LEAST_MODELS:
            found[words] = {"models": len(population)} | {
                m.name: population.resampling.estimate(spearman, population.quantity(m), population.truth)
                for m in (RAW, CALIBRATED)
            }
    return found


def picture(results: Results, data_sets: list[str], blocks: tuple[str, ...]) -> str:
    """Scatter of λ, raw and calibrated, against the smallest attack."""
    shown = []
    for measure in (RAW, CALIBRATED):
        for data in data_sets:
            population = results.population(data, *blocks)
            x, y = np.log10(np.maximum(-population.quantity(measure).value, 1e-12)), population.truth.value
            trainings = population.labels("training")
            series = [Series(t, list(zip(x[trainings == t], y[trainings == t], strict=True)), i) for i, t in enumerate(TRAININGS)]
            shown.append(Panel(f"{data}: {measure.words}", "log₁₀ λ", "smallest L2 attack, median", series))
    return panels("λ against the smallest attack", shown, columns=max(len(data_sets), 1))


def rows(found: dict[str, Any], key: str) -> list[tuple[Cell, ...]]:
    """Lines of the table of measures."""
    names = list(dict.fromkeys(n for d in found.values() for n in d[key]))
    return [
        (next(d[key][n]["words"] for d in found.values() if n in d[key]), *(d[key].get(n, {}).get("l2") for d in found.values()))
        for n in names
    ]


def answer(results: Results, *, blocks: tuple[str, ...] = BLOCKS) -> Answer:
    """The correlations of every data set, with the verdict on λ."""
    found = {d: n for d in results.data_sets if (n := measured(results, d, blocks)) is not None}
    foreign = {d: n for d in results.foreign if (n := measured(results, d, ("others",))) is not None}
    every = found | foreign
    splits = {d: by_training(results, d, blocks) for d in found}
    rule = {d: without_rule(results, d, blocks) for d in found}
    raw, calibrated = (
        {d: judge(n["measures"][m.name]["l2"]) if m.name in n["measures"] else "undecided" for d, n in every.items()}
        for m in (RAW, CALIBRATED)
    )
    verdict = with_calibration(together(raw.values()), together(calibrated.values()))
    full = list(found)
    few = {d: n for d in results.foreign if d not in foreign and (n := of_few(results, d))}
    tables = [
        Table(("ρ over models with the smallest L2 attack", *(f"{d} ({n['models']} models)" for d, n in every.items())), rows(every, "measures"),
              "Spearman's ρ, + means ordered as attacks do; [95 %] over models (the seeds of one configuration together) and samples."),
        Table(("", *every), [
            ("the truth's own reliability (split halves)", *(n["reliability"] for n in every.values())),
            ("λ calibrated less λ raw", *(n["calibrated_less_raw"] for n in every.values())),
            ("verdict on λ raw", *(raw.get(d) for d in every)), ("verdict on λ calibrated", *(calibrated.get(d) for d in every)),
            ("boundary distance less λ calibrated", *(n["boundary_less_calibrated"] for n in every.values())),
        ], "Differences of ρ on the same replicates.", "Reliability of the truth, differences, verdicts"),
        Table(("ρ over models with robust accuracy at the middle radius", *found), [
            (next(n["measures"][k]["words"] for n in found.values() if k in n["measures"]), *(n["measures"].get(k, {}).get("robust") for n in found.values()))
            for k in dict.fromkeys(k for n in found.values() for k in n["measures"])
        ]),
        Table(("pairs of models that differ beyond doubt and that are in order", *every), [
            (next(n["measures"][k]["words"] for n in every.values() if k in n["measures"]),
             *(f"{m['in_order']} of {m['resolved']}" if (m := n["measures"].get(k)) else None for n in every.values()))
            for k in dict.fromkeys(k for n in every.values() for k in n["measures"])
        ], "Beyond doubt: the 95 % interval of the difference of the median smallest attack, over samples, excludes zero."),
        Table(("ρ over models with accuracy held fixed", *found), [
            (m.words, *(n["measures"].get(m.name, {}).get("given_accuracy") for n in found.values())) for m in MEASURES if m.key != "accuracy"
        ], "Partial rank correlation with the smallest L2 attack.", "ρ with accuracy held fixed"),
        Table(("ρ over the rightly classified samples of a model, mean over models", *every), rows(every, "per_sample")),
        Table(("ρ over the rightly classified samples, data sets of few models", *(f"{d} ({n['models']})" for d, n in few.items())), rows(few, "per_sample"),
              "No correlation over models can be told of so few."),
        Table(("ρ within one training", "data set", "λ raw, mean", "λ calibrated, mean", "boundary distance"), [
            (t, d, *(e.values())) for d, s in splits.items() for t, e in s.items()
        ]),
        Table(("models counted", "data set", "how many", "λ raw, mean", "λ calibrated, mean"), [
            (w, d, *(e.values())) for d, s in rule.items() for w, e in s.items()
        ], "How far the numbers depend on leaving out models that did not learn their task."),
    ]  # fmt: skip
    picked = (RAW, CALIBRATED, BOUNDARY)
    groups = [
        (d, [(n["measures"][m.name]["words"], n["measures"][m.name]["l2"], 0) for m in MEASURES if m.name in n["measures"]])
        for d, n in every.items()
    ]
    figures = [
        Figure("correlation", forest("Rank correlation with the smallest attack", groups, across="Spearman's ρ with the smallest L2 attack", at=(0, 0.5)),
               "Rank correlation of each measure with the smallest attack over models, with 95 % intervals, for each data set."),
    ]  # fmt: skip
    if full:
        figures.append(
            Figure(
                "scatter",
                picture(results, full, blocks),
                "Mean λ of each model against its median smallest L2 attack, raw and calibrated, by training.",
            )
        )
    ranges = {
        m.words.split(",")[0]: ", ".join(
            f"{d} {number(n['measures'][m.name]['l2'].value)}" for d, n in every.items() if m.name in n["measures"]
        )
        for m in picked
    }
    line = f"{said(raw, 'raw')}; {said(calibrated, 'calibrated')}. " + "; ".join(f"{w}: {r}" for w, r in ranges.items()) + "."
    line += " " + within_trainings(splits)
    return Answer(
        "correlation", "Does λ order models as attacks do?",
        "The spectral norm of the input Fisher information correlates strongly with adversarial vulnerability, on medical images too.",
        "Rank correlation over models, and over the samples of each, of every measure with the smallest L2 attack and with robust accuracy.",
        RULE_OF_BOTH, verdict, line, tables, figures,
        {"data": found, "others": foreign, "few": few, "by_training": splits, "rule": rule, "verdicts": {"raw": raw, "calibrated": calibrated}},
    )  # fmt: skip


def within_trainings(splits: dict[str, dict[str, dict[str, Estimate]]]) -> str:
    """In how many trainings, each by itself, λ holds: most of ρ over all models may be that of two trainings."""
    cells = [e for by_kind in splits.values() for e in by_kind.values()]
    if not cells:
        return ""
    counts = [f"{m.words.split(',')[0]} {sum(judge(e[m.name]) == HOLDS for e in cells)}" for m in (RAW, CALIBRATED, BOUNDARY)]
    return f"Within one training, of {len(cells)} (data sets by trainings) it holds: {', '.join(counts)}."


def said(verdicts: dict[str, str], words: str) -> str:
    """How many data sets hold."""
    held, against = (sum(v == w for v in verdicts.values()) for w in (HOLDS, NOT))
    return f"λ {words}: holds on {held} of {len(verdicts)} data sets" + (f", not on {against}" if against else "")
