"""Answer 8: whether sensitivity follows attacks from a float net to its int8 file."""

from __future__ import annotations

from typing import Any

import numpy as np

from .answer import Answer, Figure, Table
from .figures import Panel, Series, panels
from .population import BOUNDARY, CALIBRATED, FLIP, MIDDLE, RAW, Measure, Model, Results
from .resampling import Quantity, Resampling
from .statistics import Array, median, spearman
from .verdicts import RULE_OF_BOTH, Estimate, judge, with_calibration

SHOWN = (RAW, CALIBRATED, BOUNDARY, FLIP)


def paired(twin: Model, parent: Model, measure: Measure) -> Array:
    """Logarithm of twin over parent for each sample that both classify rightly, turned so that + means more robust; (S,)."""
    a, b, ra, rb = (m.samples(k) for m, k in ((twin, measure.key), (parent, measure.key), (twin, "right"), (parent, "right")))
    size = min(map(len, (a, b, ra, rb)))
    kept = (ra[:size] > 0) & (rb[:size] > 0) & (a[:size] > 0) & (b[:size] > 0)
    out = np.full(max(size, 1), np.nan)
    out[:size][kept] = measure.sign * (np.log(a[:size][kept]) - np.log(b[:size][kept]))
    return out


def pairs(results: Results) -> list[tuple[Model, Model]]:
    """Twins with their float nets, where both are usable."""
    named = {m.name: m for m in results.models if not m.failed and m.part("audit") and len(m.samples("l2"))}
    return [(m, named[m.parent]) for m in named.values() if m.parent in named and (m.block == "twin" or "int8" in m.name)]


def drop(twin: Model, parent: Model) -> float:
    """Change of robust accuracy at the middle radius."""
    a, b = twin.robust(), parent.robust()
    return float(a[MIDDLE] - b[MIDDLE]) if min(len(a), len(b)) > MIDDLE else float("nan")


def answer(results: Results) -> Answer:
    """Changes of λ beside changes of the smallest attack, twin by twin."""
    found = pairs(results)
    l2 = Measure("l2", "smallest L2 attack", 1, median)
    tables: dict[str, Array] = {}
    width = max((len(paired(t, p, m)) for t, p in found for m in (*SHOWN, l2)), default=1)
    for m in (*SHOWN, l2):
        rows = [paired(t, p, m) for t, p in found]
        tables[m.key] = np.array([np.concatenate([r, np.full(width - len(r), np.nan)]) for r in rows]).reshape(len(found), width)
    resampling = Resampling([str(t.name) for t, _ in found], width, replicates=results.replicates)
    changes = {k: resampling.quantity(v, median) for k, v in tables.items()}
    clear = {k: beyond(q) for k, q in changes.items()}
    rho: dict[str, dict[str, Estimate]] = {}
    if len(found) >= 4:
        for m in SHOWN:
            rho[m.key] = {
                "change": resampling.estimate(spearman, changes[m.key], changes["l2"]),
                "sample": resampling.within(tables[m.key], tables["l2"]),
            }
    empty = Estimate(None, None, None)
    raw, calibrated = (judge(rho.get(m.key, {}).get("change", empty)) for m in (RAW, CALIBRATED))
    numbers: dict[str, Any] = {
        "twins": [
            {"name": t.name, "accuracy": t.number("accuracy") - p.number("accuracy"), "robust": drop(t, p)} | {k: float(q.value[i]) for k, q in changes.items()}
            for i, (t, p) in enumerate(found)
        ], "rho": rho, "beyond_doubt": clear, "verdicts": {"raw": raw, "calibrated": calibrated},
    }  # fmt: skip
    words = {m.key: m.words.split(",")[0] for m in (*SHOWN, l2)}
    told = [
        Table(("measure", "ρ with the change of the smallest attack, over twins", "ρ of changes over samples, mean over twins", "twins with a change beyond doubt", "median change"),
              [(words[k], rho.get(k, {}).get("change"), rho.get(k, {}).get("sample"), f"{clear[k]} of {len(found)}", percent(changes[k].value)) for k in words],
              "Change: median over samples of the logarithm of int8 over float, + towards more robust; [95 %] over twins and samples."),
        Table(("int8 file", "accuracy, change", "robust accuracy, change", *words.values()),
              [(n["name"], n["accuracy"], n["robust"], *(n[k] for k in words)) for n in numbers["twins"]]),
    ]  # fmt: skip
    line = (
        f"{len(found)} twins: the smallest attack changes beyond doubt in {clear.get('l2', 0)}, calibrated λ in {clear.get(CALIBRATED.key, 0)}; "
        + ", ".join(
            f"ρ of changes {words[k]} {v['change'].value:.2f}".replace("-", "−")
            for k, v in rho.items()
            if v["change"].value is not None
        )
        + "."
    )
    series = [
        Series(
            d,
            [
                (float(changes[CALIBRATED.key].value[i]), float(changes["l2"].value[i]))
                for i, (t, _) in enumerate(found)
                if t.data == d
            ],
            j,
        )
        for j, d in enumerate(dict.fromkeys(str(t.data) for t, _ in found))
    ]
    figures = [Figure("twins", panels("int8 twins", [Panel("int8 beside float", "−Δ ln λ calibrated", "Δ ln smallest attack", series)], columns=1, width=380, height=240),
                      "Change of calibrated λ against change of the smallest attack from float to int8, one point a twin.")] if found else []  # fmt: skip
    return Answer(
        "twins", "Does sensitivity follow attacks into int8?", "From a float net to its int8 file, λ changes as attacks do (asked by reviewers).",
        "int8 files of nets of every family beside their float nets, on the same samples; attacks made on the float net and by a surrogate, decided by the int8 file.",
        RULE_OF_BOTH.replace("on every data set", "over all twins").replace("on some data set it", "it"), with_calibration(raw, calibrated), line, told, figures, numbers,
    )  # fmt: skip


def beyond(change: Quantity) -> int:
    """How many twins have an interval without zero."""
    if not len(change.value):
        return 0
    known = np.isfinite(change.draws)
    enough = known.mean(axis=0) > 0.9
    low, high = np.quantile(np.where(known, change.draws, 0.0), [0.025, 0.975], axis=0)
    return int((enough & ((low > 0) | (high < 0))).sum())


def percent(changes: Array) -> str:
    """Median over twins, in percent."""
    known = changes[np.isfinite(changes)]
    return f"{100 * np.expm1(np.median(known)):+.1f} %".replace("-", "−") if len(known) else "–"
