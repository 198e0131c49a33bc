"""Answer 4: how much of the differences between models is the seed's; and what the size of a net changes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .answer import Answer, Figure, Table
from .answers_strength import L2, estimate, value
from .figures import forest
from .population import BOUNDARY, CALIBRATED, FLIP, RAW, SIZES, Measure, Model, Results
from .statistics import intraclass, shares_of_variance, t_interval
from .verdicts import RULE_OF_BOTH, Estimate, judge, together, with_calibration

SHOWN = (RAW, CALIBRATED, BOUNDARY, FLIP, L2)
BOUND = Measure("log10_fisher_bound", "bound of λ from the weights", -1, None)


def logs(models: list[Model], measure: Measure) -> np.ndarray:
    """Turned logarithm of each, (M,)."""
    if measure is BOUND:
        return -np.log(10) * np.array([m.number(BOUND.key) for m in models])
    return np.array([value(m, measure) for m in models])


def spread(results: Results, data: str, block: str) -> dict[str, Any]:
    """Of each measure: intraclass correlation, shares of the variance, and what two seeds differ by."""
    models = results.usable(data, block)
    found: dict[str, Any] = {}
    configurations = np.array([m.configuration for m in models])
    nets, trainings = np.array([f"{m.family}-{m.size}" for m in models]), np.array([str(m.training) for m in models])
    for measure in SHOWN:
        values = logs(models, measure)
        if np.isfinite(values).sum() < 4:
            continue
        icc, low, high, within = intraclass(values, configurations)
        if not np.isfinite(within):  # no configuration has two seeds
            continue
        shares = shares_of_variance(values, trainings, nets)
        found[measure.name] = {
            "intraclass": estimate(icc, low, high), "within": within, "factor": float(np.exp(1.96 * np.sqrt(2) * within)),
            "training": shares["first"], "net": shares["second"], "together": shares["together"], "seed": shares["rest"],
        }  # fmt: skip
    return found


def sizes(results: Results, data: str) -> dict[str, list[Estimate]]:
    """Mean rise of each (turned) logarithm from one size to the next, over trainings and seeds of the family that has sizes."""
    models = results.usable(data, "grid")
    families = {m.family for m in models if m.size != "medium"}
    by_key = {(m.size, m.family, m.training, m.seed): m for m in models if m.family in families}
    found = {}
    for measure in (*SHOWN, BOUND):
        rises = []
        for a, b in pairwise(SIZES):
            pairs = [(m, other) for k, m in by_key.items() if k[0] == a and (other := by_key.get((b, *k[1:]))) is not None]
            first, second = (logs([p[i] for p in pairs], measure) for i in (0, 1))
            rises.append(estimate(*t_interval(second - first)))
        found[measure.name] = rises
    return found


def answer(results: Results, *, block: str = "grid") -> Answer:
    """Whether differences between configurations are larger than those between seeds."""
    found = {d: s for d in results.data_sets if (s := spread(results, d, block))}
    by_size = {d: sizes(results, d) for d in found}
    raw, calibrated = (
        {d: judge(s[m.name]["intraclass"]) if m.name in s else "undecided" for d, s in found.items()} for m in (RAW, CALIBRATED)
    )
    verdict = with_calibration(together(raw.values()), together(calibrated.values()))
    keys = ("intraclass", "training", "net", "together", "seed", "factor")
    tables = [
        Table(("data set", "measure", "between configurations", "training", "net", "both together", "seed", "two seeds differ by a factor of up to"),
              [(d, m.words, *(s[m.name][k] for k in keys)) for d, s in found.items() for m in SHOWN if m.name in s],
              "Between configurations: intraclass correlation of the logarithm, [95 %] by the F distribution. Then shares of its sum of squares. "
              "The factor is exp(1.96·√2·s), s the standard deviation over seeds: a smaller difference of two single models may be the seed's."),
        Table(("data set", "measure", *(f"{a} → {b}" for a, b in pairwise(SIZES))),
              [(d, m.words, *s[m.name]) for d, s in by_size.items() for m in (*SHOWN, BOUND)],
              "Size of one family: mean difference of the logarithm, + towards more robust, [95 %] over trainings and seeds.", "Three sizes of one family"),
    ]  # fmt: skip
    names = {m.name: m.words for m in SHOWN}
    line = "Share of the variance of ln λ that seeds have: " + "; ".join(
        f"{d} raw {s[RAW.name]['seed']:.0%}, calibrated {s[CALIBRATED.name]['seed']:.0%}, smallest attack {s[L2.name]['seed']:.0%}"
        for d, s in found.items() if {RAW.name, CALIBRATED.name, L2.name} <= set(s)
    ) + "."  # fmt: skip
    groups = [(d, [(names[k], v["intraclass"], 0) for k, v in s.items()]) for d, s in found.items()]
    figure = Figure("seeds", forest("Seeds", groups, across="share of the variance between configurations", at=(0.5, 1.0)),
                    "Intraclass correlation of each measure: how much of its variance lies between configurations and not between seeds.")  # fmt: skip
    return Answer(
        "seeds", "Does it hold over seeds?", "Differences of λ between trainings and families are larger than between seeds (asked by reviewers).",
        "Every configuration trained from three seeds; variance of the logarithm between configurations and between seeds.",
        RULE_OF_BOTH.replace("interval", "interval of the intraclass correlation"), verdict, line, tables, [figure] if found else [],
        {"data": found, "sizes": by_size, "verdicts": {"raw": raw, "calibrated": calibrated}},
    )  # fmt: skip
