"""From the measures' tests to decisions: a closed test over all of them, one decision a pair, ranks and an order that agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxfim.verdict.closed_test import adjusted
from onnxfim.verdict.decided import LEVEL, Agreement, Decision, MeasureTest
from onnxfim.verdict.measure_tests import WEIGHTS, Trial

Array: TypeAlias = np.ndarray[Any, Any]
Place: TypeAlias = tuple[int, int]


def decisions(trials: Mapping[Place, Sequence[Trial]]) -> dict[Place, Decision]:
    """One decision for each pair of entries, by its trials; all trials of all pairs are corrected together.

    Args:
        trials: Of each pair that is tested, its measures' tests, in the order in which they decide.
    """
    asked = [(place, t, _weight(t, each)) for place, each in trials.items() for t in each if t.decides]
    corrected = adjusted(np.array([t.p for _, t, _ in asked]), np.array([w for _, _, w in asked])) if asked else np.empty(0)
    found = {(place, t.question): float(p) for (place, t, _), p in zip(asked, corrected, strict=True)}
    return {
        place: _decision([_test(place, t, found.get((place, t.question), 1.0)) for t in each])
        for place, each in trials.items()
    }  # fmt: skip


def _weight(trial: Trial, beside: Sequence[Trial]) -> float:
    """What a trial has of the level of its pair."""
    return WEIGHTS[trial.question] / sum(WEIGHTS[t.question] for t in beside if t.decides)


def _test(place: Place, t: Trial, p: float) -> MeasureTest:
    better = None if t.better is None else place[t.better]
    significant = t.decides and better is not None and p < LEVEL
    return MeasureTest(
        t.question, t.measure, t.count, t.unfound, t.ratio, t.p, p, better, significant, t.decides, t.test, t.note
    )  # fmt: skip


def _decision(tests: Sequence[MeasureTest]) -> Decision:
    """The first measure decides where it is significant; another where nothing contradicts it."""
    asked = [t for t in tests if t.decides]
    told = [t for t in asked if t.significant]
    if not told:
        return Decision(None, None, min((t.p_adjusted for t in asked), default=1.0), "open", tuple(tests))
    lead, first = asked[0], told[0]
    against = {t.better for t in told if t.better != first.better} or (lead.better not in (None, first.better))
    agreement: Agreement = "disagree" if against else "agree" if len(told) > 1 else "alone"
    if against and first is not lead:
        return Decision(None, None, first.p_adjusted, agreement, tuple(tests))
    return Decision(first.better, first.question, first.p_adjusted, agreement, tuple(tests))


def relative_logs(trials: Mapping[Place, Sequence[Trial]], count: int, question: str) -> Array | None:
    """How robust each entry is against the geometric mean of all, as a logarithm, (count,); larger is more robust.

    The least-squares solution of the pairs' log-ratios of one question, which may contradict each other a little, for each pair is
    over its own shared samples. None where a pair has no such ratio.

    Source: Mosteller (1951), Psychometrika 16(1), 3-9, for scales from paired comparisons by least squares.
    """
    rows, values = [], []
    for (i, j), each in trials.items():
        trial = next((t for t in each if t.question == question), None)
        if trial is None:
            continue
        row = np.zeros(count)
        row[i], row[j] = -1.0, 1.0
        rows.append(row)
        values.append(np.clip(trial.log, -50.0, 50.0) * (1 if question == "distance" else -1))
    if not rows or np.linalg.matrix_rank(np.array(rows)) < count - 1:
        return None
    found, *_ = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)
    return np.asarray(found - found.mean())


def ordered(scores: Sequence[tuple[float, ...]], found: Mapping[Place, Decision]) -> tuple[list[int], bool]:
    """Entries from the most robust on: by their scores, but never one before another that is decided to be better.

    Args:
        scores: Of each entry, larger for more robust; the later ones count where the earlier are equal.
        found: The decisions.

    Returns:
        The order, and whether it could be kept: decided pairs may go in a circle, as A over B, B over C, C over A.
    """
    over = {(d.better, i + j - d.better) for (i, j), d in found.items() if d.better is not None}
    left, order, kept = set(range(len(scores))), [], True
    while left:
        free = [i for i in left if not any((j, i) in over for j in left)]
        kept &= bool(free)
        best = min(free or left, key=lambda i: (*(-s for s in scores[i]), i))
        order.append(best)
        left.remove(best)
    return order, kept


def rank_ends(entry: int, count: int, found: Mapping[Place, Decision]) -> tuple[int, int]:
    """The ranks that the decided pairs leave open for an entry.

    The sets of all entries hold all true ranks together with the closed test's confidence: a rank outside takes a wrong decision.

    Source: Al Mohamad, Goeman & van Zwet (2022), "Simultaneous confidence intervals for ranks with application to ranking
    institutions", Biometrics 78(1), 238-247.
    """
    mine = [d for place, d in found.items() if entry in place and d.better is not None]
    worse = sum(d.better == entry for d in mine)
    return 1 + len(mine) - worse, count - worse
