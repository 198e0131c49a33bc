"""How often a comparison decides, how often wrongly, and whether it orders models as attacks do.

    python tests/benchmarks/bench_comparing.py [--quick] [--models TEXT]

Null pairs have nothing to decide: one model against itself along other random directions, on either half of its samples; and two
models whose samples change places at random, so that neither is better than the other whatever their values are. A table of them
tells how often each question was answered by chance, before the others. What is decided of models by others is held against their
smallest successful L2 attacks, by another implementation: pairs that these resolve beyond doubt must come in their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from _common import SHARED_MODELS, Case, arguments, have_shared, print_table, sample_cases, shared_cases
from scipy.stats import spearmanr

import onnxfim
from onnxfim import Settings
from onnxfim.record.audit import Audit
from onnxfim.verdict.common_units import in_common_units
from onnxfim.verdict.compare import compare
from onnxfim.verdict.comparison import Comparison
from onnxfim.verdict.signed_ranks import signed_ranks_of

HALF = 40  # samples of a half
CALIBRATED = 500  # samples that a temperature is fitted on
RESOLVED = 1e-3  # p-value below which attacks tell two models apart


def audited(case: Case, start: int, count: int, **given: Any) -> Audit:
    """An audit of so many samples from ``start`` on; the temperature is fitted on all, as the command line does."""
    scale = None if case.record is None else tuple(1.0 / s for s in case.record["scale"]["std"])
    inputs, labels = (np.roll(a, -start, axis=0)[:CALIBRATED] for a in (case.inputs, case.labels))
    settings = Settings(samples=count, replay=0, bounds=False, providers=("cpu",), input_scale=scale, **given)
    return onnxfim.audit(case.path, inputs, labels, settings)


def itself(case: Case, draws: int) -> Iterator[Comparison]:
    """The model against itself: other directions, on either half of the samples."""
    for start in (0, HALF):
        for k in range(draws):
            seeds = (2 * k, 2 * k + 1)
            yield compare([audited(case, start, HALF, method="sketch", seed=seed) for seed in seeds])


def swapped(audits: Sequence[Audit], draws: int) -> Iterator[Comparison]:
    """Pairs of audits whose samples change places at random; temperatures, which belong to a whole audit, are taken as known."""
    rng = np.random.default_rng(0)
    common = [replace(a, settings=replace(a.settings, input_scale=None)) for a in in_common_units(audits).audits]
    for one, other in combinations(common, 2):
        for _ in range(draws):
            turned = rng.random(len(one.samples)) < 0.5
            there = {s.index: s for s in other.samples}
            pairs = [(s, there[s.index]) for s in one.samples if s.index in there]
            mixed = [pair[::-1] if turn else pair for pair, turn in zip(pairs, turned, strict=True)]
            yield compare([_with(a, [m[k] for m in mixed]) for k, a in enumerate((one, other))])


def _with(audit: Audit, samples: Sequence[Any]) -> Audit:
    known = tuple(replace(s, lambda_max_calibrated=replace(s.lambda_max_calibrated, at_temperatures=())) for s in samples)
    return replace(audit, samples=known, calibration=replace(audit.calibration, influences=(), log_error=0.0))


def counted(kind: str, found: Sequence[Comparison]) -> tuple[str, ...]:
    """How many null pairs are decided, and what share of each question's own tests is below 2.5 % before any correction."""
    decisions = [c.pairs[0].decided for c in found]
    decided = sum(d is not None and d.better is not None for d in decisions)
    claims = sum(d is not None and any(t.significant for t in d.measures) for d in decisions)
    shares = []
    for question in ("distance", "boundary", "log_lambda", "mean_lambda"):
        p = [t.p for d in decisions if d is not None and (t := d.of(question)) is not None]
        shares.append(f"{np.mean(np.array(p) < 0.025):.1%} of {len(p)}" if p else "–")
    return kind, str(len(found)), f"{decided} ({decided / max(len(found), 1):.1%})", str(claims), *shares


def against_attacks(cases: Sequence[Case], audits: Sequence[Audit]) -> None:
    """Whether decided pairs, and the order, are those of the stored attacks."""
    stored = [np.load(SHARED_MODELS / "attacks" / f"{case.name}.npz") for case in cases]
    distance = [dict(zip(d["index"].tolist(), d["min_l2_pixel"].tolist(), strict=True)) for d in stored]
    comparison = compare(audits)
    place = {i: k for k, i in enumerate(comparison.order)}
    resolved = ordered = decided = right = wrong = 0
    for pair in comparison.pairs:
        i, j = pair.first, pair.second
        both = [(distance[i][k], distance[j][k]) for k in distance[i] if k in distance[j]]
        logs = np.array([np.log(b / a) for a, b in both if np.isfinite(a) and np.isfinite(b) and min(a, b) > 0])
        truth = signed_ranks_of(logs)
        told = pair.decided is not None and pair.decided.better is not None
        decided += told
        if truth.p >= RESOLVED:
            continue
        better = j if truth.log > 0 else i
        resolved += 1
        ordered += place[better] < place[i + j - better]
        right += told and pair.decided is not None and pair.decided.better == better
        wrong += told and pair.decided is not None and pair.decided.better != better
    medians = [float(np.nanmedian(list(d.values()))) for d in distance]
    rho = spearmanr([place[i] for i in range(len(cases))], [-m for m in medians]).statistic
    print_table(
        ("pairs", "decided", "resolved by attacks", "of these in the attacks' order", "decided rightly", "decided wrongly", "ρ of the order"),
        [(len(comparison.pairs), decided, resolved, f"{ordered} ({ordered / resolved:.0%})", right, wrong, f"{rho:.2f}")],
        title=f"{len(cases)} CIFAR-10 models against their smallest L2 attacks",
    )  # fmt: skip
    rows = [
        (k + 1, cases[i].name, f"{comparison.entries[i].rank_low}-{comparison.entries[i].rank_high}",
         f"{comparison.entries[i].relative:.2f}", f"{medians[i]:.3f}")
        for k, i in enumerate(comparison.order)
    ]  # fmt: skip
    print_table(("order", "model", "ranks", "relative", "median smallest L2 attack"), rows)


def main() -> None:
    args = arguments(__doc__)
    ours = [c for c in sample_cases() if "int8" not in c.name and args.models in c.name]
    theirs = [c for c in shared_cases() if c.name.startswith("cifar") and (SHARED_MODELS / "attacks" / f"{c.name}.npz").exists()]
    theirs = [c for c in theirs if args.models in c.name] if have_shared() and not args.quick else []
    ours = ours[:3] if args.quick else ours
    sample_audits = [audited(c, 0, 60) for c in ours]
    their_audits = [audited(c, 0, 100) for c in theirs]
    told = compare(sample_audits)
    decided = sum(p.decided is not None and p.decided.better is not None for p in told.pairs)
    best = told.order[0]
    worst = max(p.decided.p for p in told.pairs if p.decided is not None and best in (p.first, p.second))
    print_table(
        ("models", "pairs", "decided", "first", "largest p of the first against another"),
        [(len(ours), len(told.pairs), decided, told.entries[best].name, f"{worst:.1e}")],
        title="The sample models, 60 samples",
    )
    if theirs:
        against_attacks(theirs, their_audits)
    own = 1 if args.quick else 4
    groups = [
        ("samples swapped, our models", list(swapped(sample_audits, 20))),
        ("itself, other directions, our models", [c for case in ours for c in itself(case, own)]),
    ]
    if theirs:
        groups.append(("samples swapped, models of others", list(swapped(their_audits, 6))))
        groups.append(("itself, other directions, models of others", [c for case in theirs for c in itself(case, 1)]))
    groups.append(("all", [c for _, found in groups for c in found]))
    print_table(
        ("null pairs", "number", "decided", "with any significant measure", "distance p < 2.5 %", "boundary", "λ of each sample", "mean λ"),
        [counted(kind, found) for kind, found in groups if found],
        title="Null pairs",
    )  # fmt: skip


if __name__ == "__main__":
    main()
