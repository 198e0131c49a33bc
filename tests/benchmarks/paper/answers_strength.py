"""Answer 3: whether λ falls, and the smallest attack grows, with every step of the strength of adversarial training."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from .answer import Answer, Figure, Table
from .figures import Panel, Series, panels
from .population import BOUNDARY, CALIBRATED, FLIP, RAW, Measure, Model, Results
from .statistics import Array, mean, median, monotone, t_interval
from .verdicts import HOLDS, NOT, UNDECIDED, Estimate, together, with_calibration

RULE = (
    "each step of the strength, 0 to 2 times the training radius, over families and seeds of a data set: mean difference of the logarithm with "
    "Student's 95 % interval; holds: on every data set all steps lie wholly on the claimed side; does not hold: on some data set a step lies wholly "
    "on the other side; undecided: otherwise; holds after calibration: not so for raw λ, but so for the calibrated one"
)
L2 = Measure("l2", "smallest L2 attack, median of the right", 1, median, right_only=True)
SHOWN = (RAW, CALIBRATED, BOUNDARY, FLIP, L2)


def value(model: Model, measure: Measure) -> float:
    """Logarithm of a measure of one model, turned so that more means more robust; NaN where it has none."""
    samples = model.samples(measure.key)
    if not len(samples):
        return float("nan")
    if measure.right_only:
        right = model.samples("right")
        size = min(len(samples), len(right)) if len(right) else len(samples)
        kept = samples[:size][right[:size] > 0] if len(right) else samples[samples > 0]
        samples = kept if len(kept) else np.full(1, np.nan)
    tell: Callable[[Array], Array] = measure.tell or mean
    found = float(tell(samples))
    return measure.sign * float(np.log(found)) if found > 0 else float("nan")


def sequences(results: Results, data: str) -> dict[tuple[str, int], dict[float, Model]]:
    """Models of a family and seed by the strength of their PGD training, standard training as 0."""
    chosen = [m for m in results.usable(data, "grid", "strength") if m.size == "medium" and m.training in ("standard", "pgd")]
    families = {m.family for m in chosen if m.block == "strength"}
    found: dict[tuple[str, int], dict[float, Model]] = {}
    for m in chosen:
        if m.family in families:
            found.setdefault((str(m.family), int(m.seed)), {})[float(m.strength)] = m
    return found


def steps(found: dict[tuple[str, int], dict[float, Model]], measure: Measure) -> list[tuple[float, float, Estimate, int]]:
    """From which strength to which, the mean rise of the (turned) logarithm, and over how many sequences."""
    strengths = sorted({s for sequence in found.values() for s in sequence})
    told = []
    for a, b in pairwise(strengths):
        rises = np.array([value(q[b], measure) - value(q[a], measure) for q in found.values() if a in q and b in q])
        middle, low, high = t_interval(rises)
        told.append((a, b, estimate(middle, low, high), int(np.isfinite(rises).sum())))
    return told


def estimate(middle: float, low: float, high: float) -> Estimate:
    """With None for NaN."""
    return Estimate(*(None if not np.isfinite(v) else float(v) for v in (middle, low, high)))


def judged(told: list[tuple[float, float, Estimate, int]]) -> str:
    """The rule for one data set."""
    ends = [(e.low, e.high) for _, _, e, _ in told]
    if any(high is not None and high < 0 for _, high in ends):
        return NOT
    return HOLDS if ends and all(low is not None and low > 0 for low, _ in ends) else UNDECIDED


def picture(by_data: dict[str, dict[tuple[str, int], dict[float, Model]]]) -> str:
    """Mean over families and seeds, less its value at standard training."""
    shown = []
    for data, found in by_data.items():
        strengths = sorted({s for q in found.values() for s in q})
        series = []
        for i, measure in enumerate(SHOWN):
            factor = 1 if measure.sign > 0 else -1
            table = np.array([[factor * value(q[s], measure) if s in q else np.nan for s in strengths] for q in found.values()])
            level = mean((table - table[:, :1]).T)
            series.append(Series(measure.words.split(",")[0], list(zip(strengths, level.tolist(), strict=True)), i, line=True))
        shown.append(Panel(data, "strength (training radius / ε)", "ln of ratio to standard", series))
    return panels("Strength of adversarial training", shown)


def answer(results: Results) -> Answer:
    """Whether the order of strengths is that of λ."""
    by_data = {d: q for d in results.data_sets if (q := sequences(results, d))}
    found: dict[str, dict[str, Any]] = {}
    verdicts: dict[str, dict[str, str]] = {m.name: {} for m in SHOWN}
    for data, q in by_data.items():
        found[data] = {}
        for measure in SHOWN:
            told = steps(q, measure)
            verdicts[measure.name][data] = judged(told)
            whole = [[value(s[k], measure) for k in sorted(s)] for s in q.values()]
            found[data][measure.name] = {
                "steps": [{"from": a, "to": b, "rise": e, "sequences": n} for a, b, e, n in told],
                "monotone": sum(monotone(np.array(w)) for w in whole), "sequences": len(whole),
            }  # fmt: skip
    verdict = with_calibration(together(verdicts[RAW.name].values()), together(verdicts[CALIBRATED.name].values()))
    table = Table(
        ("data set", "measure", *(f"{a:g} → {b:g}" for a, b in steps_of(found)), "sequences that never turn", "verdict"),
        [
            (d, m.words, *(next((s["rise"] for s in n[m.name]["steps"] if (s["from"], s["to"]) == ab), None) for ab in steps_of(found)),
             f"{n[m.name]['monotone']} of {n[m.name]['sequences']}", verdicts[m.name][d])
            for d, n in found.items() for m in SHOWN
        ],
        "Mean difference of the natural logarithm from one strength to the next, + towards more robust, [95 %] over families and seeds.",
    )  # fmt: skip
    counts = {
        m.name: (sum(n[m.name]["monotone"] for n in found.values()), sum(n[m.name]["sequences"] for n in found.values()))
        for m in SHOWN
    }
    line = (
        "Sequences in which it never turns: "
        + ", ".join(f"{m.words.split(',')[0]} {a} of {b}" for m in SHOWN for a, b in [counts[m.name]])
        + "."
    )
    figures = (
        [
            Figure(
                "strength",
                picture(by_data),
                "λ, distances and the smallest attack against the strength of adversarial training, by data set.",
            )
        ]
        if by_data
        else []
    )
    return Answer(
        "strength", "Does λ follow the strength of adversarial training?",
        "λ falls monotonically as adversarial training gets stronger (asked by reviewers).",
        "λ, distances and the smallest attack of nets trained by PGD at 0, ¼, ½, 1 and 2 times the data set's radius.",
        RULE, verdict, line, [table], figures, {"data": found, "verdicts": verdicts},
    )  # fmt: skip


def steps_of(found: dict[str, dict[str, Any]]) -> list[tuple[float, float]]:
    """All steps, in order."""
    return sorted({(s["from"], s["to"]) for n in found.values() for m in n.values() for s in m["steps"]})
