"""Audits with brackets, noise, smoothing and a verifier's answers, of the size and spread that digit classifiers give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.guarantee_summaries import (
    BracketSummary,
    CertifiedShare,
    DecidedAt,
    NoiseSummary,
    SmoothingSummary,
    VerifierSummary,
)
from onnxfim.record.guarantees import Bracket, NoiseStability, PredictedDistance, Smoothed, VerifiedBox
from onnxfim.record.sample import Estimate
from onnxfim.record.statistics import clopper_pearson

RAW = "raw input units"
CAVEAT = "It holds in exact arithmetic; rounding of the file on its provider is not covered."


def with_bracket(audit: Audit, *, gap: float = 8.0, seed: int = 0, norms: tuple[str, ...] = ("l2", "linf"), bad: int = 0) -> Audit:
    """The audit with a bracket of every sample; ``gap`` is the median of high over low, and ``bad`` samples contradict themselves.

    Every eleventh sample has nothing found, every thirteenth nothing guaranteed.
    """
    rng = np.random.default_rng(seed)
    samples, summaries = list(audit.samples), []
    for norm in norms:
        rows = []
        for i, s in enumerate(samples):
            high = float((s.boundary_distance.value or 1.0) * (1.2 if norm == "l2" else 0.15) * np.exp(rng.normal(0, 0.2)))
            low = high / float(np.exp(abs(rng.normal(np.log(gap), 0.5))))
            if i < bad:
                low = 1.5 * high
            first, fisher = 0.8 * high * float(np.exp(rng.normal(0, 0.1))), 0.7 * high * float(np.exp(rng.normal(0, 0.5)))
            none_found, nothing = i % 11 == 10, i % 13 == 12
            b = Bracket(
                norm, 0.0 if nothing else low, "" if nothing else "local bounds", None if none_found else high,
                "" if none_found else "flip" if i % 2 else "attack", first, fisher,
            )  # fmt: skip
            rows.append(b)
            certified = Estimate(b.low, None, None, "lower bound", "linear relaxation", 0)
            name = "certified_radius" if norm == "l2" else "certified_radius_linf"
            samples[i] = replace(
                s, bracket=(*s.bracket, b), predicted=(*s.predicted, PredictedDistance(norm, first, fisher)), **{name: certified}
            )
        summaries.append(_bracket_summary(norm, rows, bad))
    settings = replace(audit.settings, bracket=True)
    return replace(audit, samples=tuple(samples), bracket=tuple(summaries), settings=settings)


def _median(values: list[float]) -> Aggregate:
    known = sorted(values)
    n = len(known)
    at = known[n // 2]
    return Aggregate(at if np.isfinite(at) else None, known[max(0, n // 2 - 3)], None if n < 6 else known[min(n - 1, n // 2 + 3)])


def _bracket_summary(norm: str, rows: list[Bracket], bad: int) -> BracketSummary:
    both = [b for b in rows if b.high is not None and b.low > 0]
    width = float(np.median([b.high / b.low for b in both])) if both else None
    middle = [b.high for b in rows if b.high is not None]
    ladder = [float(f"{e:.1g}") for e in np.quantile(middle, [0.05, 0.25, 0.5]) / 3] if middle else []
    decided = []
    for e in dict.fromkeys(ladder):
        lost = sum(b.high is not None and b.high <= e for b in rows)
        kept = sum(b.low >= e for b in rows)
        decided.append(DecidedAt(e, kept, lost, len(rows) - kept - lost))
    low = replace(_median([b.low for b in rows]), high=None)
    high = _median([np.inf if b.high is None else b.high for b in rows])
    high = replace(high, low=None, high=None if high.high is None or not np.isfinite(high.high) else high.high)
    tried = len([b for b in both if b.first_order is not None])
    return BracketSummary(
        norm, RAW, len(rows), low, high, width, tuple(decided), bad,
        first_order_outside=0, first_order_tried=tried, fisher_outside=min(2, tried), fisher_tried=tried,
    )  # fmt: skip


def with_noise(audit: Audit, *noises: str, stable: float = 0.99, seed: int = 0) -> Audit:
    """The audit with noise tried on every sample; of five, four are stable, and the last is unstable or open by turns."""
    rng = np.random.default_rng(seed)
    samples, summaries = list(audit.samples), []
    for noise in noises or ("gaussian:0.1", "uniform:8/255"):
        rows = []
        for i, s in enumerate(samples):
            word = "stable" if i % 5 else "unstable" if i % 2 else "open"
            tries = 700 if word == "stable" else 4000 if word == "open" else 300
            kept = tries if word == "stable" else round(tries * (0.991 if word == "open" else 0.7 + 0.2 * rng.random()))
            low, high = clopper_pearson(kept, tries)
            found = NoiseStability(noise, tries, kept, low, high, word)
            rows.append(found)
            samples[i] = replace(s, noise=(*s.noise, found))
        n = len(rows)
        good, bad = (sum(r.decided == word for r in rows) for word in ("stable", "unstable"))
        share = Aggregate(good / n, good / n, (n - bad) / n, 0.95, "decided")
        ends = clopper_pearson(good, n)[0], clopper_pearson(n - bad, n)[1]
        summaries.append(
            NoiseSummary(
                noise, RAW, stable, 0.95, n, good, bad, share, Aggregate(good / n, *ends, 0.95, "Clopper and Pearson"),
                sum(r.tries for r in rows), 4000,
            )
        )  # fmt: skip
    return replace(audit, samples=tuple(samples), noise=tuple(summaries))


def with_smoothing(audit: Audit, *sigmas: float, seed: int = 0) -> Audit:
    """The audit with smoothing certificates of every sample."""
    rng = np.random.default_rng(seed)
    samples, summaries = list(audit.samples), []
    labelled = audit.data.labels
    for sigma in sigmas or (0.12, 0.25):
        rows = []
        for i, s in enumerate(samples):
            radius = float(max(0.0, sigma * (1.6 - abs(rng.normal(0, 0.9)))))
            found = Smoothed(
                sigma, None if radius == 0 else s.prediction, 1000, 990 if radius else 510, 0.98 if radius else 0.47, radius
            )
            rows.append((s, found))
            samples[i] = replace(s, smoothed=(*s.smoothed, found))
        n = len(rows)
        right = [f.radius for s, f in rows if f.prediction is not None and f.prediction == (s.label if labelled else s.prediction)]
        top = max(right, default=sigma)
        curve = []
        for radius in np.linspace(0, top, 13):
            k = sum(bool(r >= radius) for r in right)
            curve.append(CertifiedShare(round(float(radius), 4), k / n, *clopper_pearson(k, n)))
        summaries.append(
            SmoothingSummary(
                sigma, RAW, 0.999, n, sum(f.prediction is None for _, f in rows), sum(f.prediction == s.prediction for s, f in rows),
                len(right) / n if labelled else None, audit.calibration.accuracy, tuple(curve), labelled, 100, 1000,
                caveat=CAVEAT, median=replace(_median([0.0] * (n - len(right)) + right), method="order statistics"),
                average=sum(right) / n,
            )
        )  # fmt: skip
    return replace(audit, samples=tuple(samples), smoothing=tuple(summaries))


def with_verifier(audit: Audit, *, asked: int = 6) -> Audit:
    """The audit with a verifier's answers on its first samples: one counterexample is not followed by the file."""
    samples = list(audit.samples)
    count = dict.fromkeys(("sat", "unsat", "unknown", "timeout", "error"), 0)
    not_followed = 0
    for i in range(min(asked, len(samples))):
        boxes = [VerifiedBox(0.01, "unsat", 1.2)]
        if i % 3 == 2:
            boxes.append(VerifiedBox(0.03, "timeout", 30.0, note="no answer within 30 s"))
        else:
            boxes.append(VerifiedBox(0.03, "sat", 4.5, i != 1, 0.028))
            not_followed += i == 1
        for b in boxes:
            count[b.answer] += 1
        samples[i] = replace(samples[i], verified=tuple(boxes))
    asked = min(asked, len(samples))
    summary = VerifierSummary(
        "vibecheck {onnx} {vnnlib} --timeout {timeout}", "linf", RAW, asked, 2 * asked, **count, not_followed=not_followed,
        contradictions=0, timeout_seconds=30.0, seconds=41.0,
    )  # fmt: skip
    return replace(audit, samples=tuple(samples), verifier=summary)


def with_guarantees(audit: Audit, **bracket: object) -> Audit:
    """The audit with all of these."""
    return with_verifier(with_smoothing(with_noise(with_bracket(audit, **bracket))))  # type: ignore[arg-type]


def with_hostile_guarantees(audit: Audit, text: str) -> Audit:
    """The audit with guarantees in which every foreign text is ``text``."""
    audit = with_guarantees(audit)

    def sample(s):
        return replace(
            s,
            bracket=tuple(replace(b, low_from=text if b.low else "", high_from="" if b.high is None else text) for b in s.bracket),
            noise=tuple(replace(n, noise=text) for n in s.noise[:1]),
            smoothed=tuple(replace(x, tries=0, kept=0, reason=text) for x in s.smoothed),
            verified=tuple(replace(v, note=text) for v in s.verified),
        )

    return replace(
        audit,
        samples=tuple(map(sample, audit.samples)),
        bracket=tuple(replace(b, units=text) for b in audit.bracket),
        noise=tuple(replace(n, noise=text, units=text) for n in audit.noise[:1]),
        smoothing=tuple(replace(s, units=text, caveat=text) for s in audit.smoothing),
        verifier=replace(audit.verifier, command=text, units=text, not_followed=1, contradictions=1),
    )
