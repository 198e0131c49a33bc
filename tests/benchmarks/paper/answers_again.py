"""Whether a block made once more from other seeds gives the same conclusions."""

from __future__ import annotations

from typing import Any

from . import answers_correlation, answers_ranking, answers_seeds
from .answer import Answer, Table, told
from .answers_strength import L2
from .population import BOUNDARY, CALIBRATED, FLIP, RAW, Results
from .verdicts import HOLDS, NOT, UNDECIDED, judge

RULE = "holds: every conclusion below is the same in both blocks; does not hold: one is the opposite (holds against does not hold); undecided: otherwise"


def conclusions(results: Results, data: str, block: str) -> dict[str, tuple[Any, str]]:
    """Value and verdict of each conclusion of one block."""
    found: dict[str, tuple[Any, str]] = {}
    if (correlations := answers_correlation.measured(results, data, (block,))) is not None:
        for m in (RAW, CALIBRATED, BOUNDARY, FLIP):
            for truth, words in (("l2", "smallest attack"), ("robust", "robust accuracy")):
                if m.name in correlations["measures"]:
                    e = correlations["measures"][m.name][truth]
                    found[f"ρ of {m.words} with the {words}"] = (e, judge(e))
    cells = answers_ranking.cells_of(results, block).get(data, {})
    for m in (answers_ranking.BOUND, RAW, CALIBRATED, L2):
        if e := answers_ranking.overall({data: cells}, m).get(data):
            found[f"agreement of families with the claimed order: {m.words}"] = (e, judge(e))
    for name, e in answers_seeds.spread(results, data, block).items():
        found[f"share between configurations: {name}"] = (e["intraclass"], judge(e["intraclass"]))
    return found


def answer(results: Results) -> Answer | None:
    """Both blocks side by side; None where no block was made again."""
    again = sorted({str(m.data) for m in results.models if m.block == "again"})
    both = {d: (conclusions(results, d, "grid"), conclusions(results, d, "again")) for d in again}
    both = {d: pair for d, pair in both.items() if all(pair)}
    if not both:
        return None
    rows, same, opposite = [], 0, 0
    numbers: dict[str, Any] = {}
    for data, (first, second) in both.items():
        for key in first:
            if key not in second:
                continue
            (a, va), (b, vb) = first[key], second[key]
            same += va == vb
            opposite += {va, vb} == {HOLDS, NOT}
            rows.append((data, key, a, b, va, vb))
            numbers.setdefault(data, {})[key] = {"first": a, "again": b, "verdicts": [va, vb]}
    verdict = NOT if opposite else HOLDS if same == len(rows) else UNDECIDED
    table = Table(
        ("data set", "conclusion", "first seeds", "other seeds", "verdict", "verdict again"),
        rows,
        "The grid's block alone on both sides, judged against 0.5.",
    )
    key = f"ρ of {CALIBRATED.words} with the smallest attack"
    line = f"{same} of {len(rows)} conclusions are the same, {opposite} opposite. " + "; ".join(
        f"{d}: {key} {told(n[key]['first'])} and {told(n[key]['again'])}" for d, n in numbers.items() if key in n
    ) + "."  # fmt: skip
    return Answer(
        "again", "Does a second run say the same?", "The conclusions do not depend on the seeds of one run.",
        "One data set's block trained, audited and attacked once more from seeds of its own.", RULE, verdict, line, [table], [], {"data": numbers},
    )  # fmt: skip
