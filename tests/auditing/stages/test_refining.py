"""Refining: the samples that decide get the rest of the budget, and each is estimated once from all of its directions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from onnxfim.auditing import schedule
from onnxfim.auditing.run import audit
from onnxfim.auditing.stages import by_differences, refining
from onnxfim.auditing.subject import from_callable
from onnxfim.record.settings import Settings
from tests.support.models import Mlp

MODEL = Mlp.draw(4, 150)
X = MODEL.samples(16)


def audited(**options):
    model = from_callable(MODEL.logits, (150,), 4, dtype="float64")
    return audit(model, X, settings=Settings(method="sketch", step=1e-3, flip=False, **options))


@pytest.mark.parametrize("affordable", [0, 1, 7, 30, 10_000])
def test_the_plan_is_that_of_the_rounds_one_by_one(affordable):
    weights = np.random.default_rng(0).exponential(size=20)
    now, left = dict.fromkeys(range(0, 20, 2), 24), affordable
    plan = schedule.planned(now, weights, 24, affordable)
    while left and (chosen := schedule.most_deciding(now, weights, 24, left)):
        left -= len(chosen)
        for i in chosen:
            now[i] += 16
    assert plan == {i: m - 24 for i, m in now.items() if m > 24}
    assert sum(plan.values()) <= 16 * affordable
    assert max(now.values()) < 8 * 24 + 16


def test_a_refined_sample_is_estimated_once_more(monkeypatch):
    made, of = Counter(), by_differences._result

    def counted(ground, plan, sample, parts, kinked):
        made[sample.index] += 1
        return of(ground, plan, sample, parts, kinked)

    monkeypatch.setattr(by_differences, "_result", counted)
    found = audited()
    first = min(s.directions for s in found.samples)
    refined = {s.index for s in found.samples if s.directions > first}
    assert max(s.directions for s in found.samples) >= first + 32  # more than a round
    assert made == {s.index: 2 if s.index in refined else 1 for s in found.samples}


def test_a_precision_is_looked_at_after_every_round(monkeypatch):
    looked, rounds = [], []
    needed, evaluate = schedule.Precision.needed, refining.evaluate
    monkeypatch.setattr(schedule.Precision, "needed", lambda self, *given: (looked.append(self.reached), needed(self, *given))[1])
    monkeypatch.setattr(refining, "evaluate", lambda *given, **how: (rounds.append(1), evaluate(*given, **how))[1])
    assert max(s.directions for s in audited(precision=0.05, max_budget=300).samples) > 100
    assert len(looked) in (len(rounds), len(rounds) + 1)
    assert rounds
    assert not any(looked[:-1])  # it ends with the round that reaches it, or with the budget


@pytest.mark.parametrize("asked", [0.35, 0.25, 0.2])
def test_a_precision_that_the_budget_allows_is_reached_in_few_rounds_and_hardly_exceeded(monkeypatch, asked):
    rounds, evaluate = [], refining.evaluate
    monkeypatch.setattr(refining, "evaluate", lambda *given, **how: (rounds.append(1), evaluate(*given, **how))[1])
    found = audited(precision=asked, budget=30, max_budget=3000)
    assert schedule.Precision(found.samples, asked, 0).reached
    assert len(rounds) <= 4
