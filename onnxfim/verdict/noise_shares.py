"""What noise does to the predictions of all samples, and of those that they stand for: from a finished record alone."""

from __future__ import annotations

import math

from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import units_of_lengths
from onnxfim.record.decision import Aggregate
from onnxfim.record.guarantee_summaries import NoiseSummary
from onnxfim.record.guarantees import NoiseStability
from onnxfim.record.statistics import clopper_pearson
from onnxfim.record.successive_looks import OF_POPULATION, OF_SAMPLES

#: Of all that is said of all noises of an audit at once.
CONFIDENCE = 1 - OF_SAMPLES - OF_POPULATION
_HERE = "of these samples: from those found stable to all that were not found unstable"


def noise_summaries(audit: Audit) -> tuple[NoiseSummary, ...]:
    """One summary for each noise under which any sample was tried.

    All intervals of all samples under all noises hold at once but for a chance of 1 % (`record.successive_looks`). Where they do,
    the number S of samples that are truly stable lies between those found stable and those not found unstable. S is binomial with
    the population's share, so that the ends of Clopper and Pearson's intervals of these two numbers bound that share but for
    another 4 %, divided among the noises: 95 % in all. It asks of the samples that they are drawn independently; their noise may
    be the same.
    """
    return tuple(s for noise in audit.settings.noise if (s := _summary(audit, noise)) is not None)


def _summary(audit: Audit, noise: str) -> NoiseSummary | None:
    tried = tries_under(audit, noise)
    if not tried:
        return None
    n, decided = len(tried), [t.decided for t in tried]
    stable, unstable = decided.count("stable"), decided.count("unstable")
    low, high = population(stable, n - unstable, n, len(audit.settings.noise))
    return NoiseSummary(
        noise=noise,
        units=units_of_lengths(audit.model.at, raw=audit.settings.raw),
        stable=audit.settings.noise_stable,
        confidence=CONFIDENCE,
        samples=n,
        stable_samples=stable,
        unstable_samples=unstable,
        share=Aggregate(stable / n, stable / n, (n - unstable) / n, CONFIDENCE, _HERE),
        population=Aggregate(stable / n, low, high, CONFIDENCE, "Clopper and Pearson, the open samples on either side"),
        tries=sum(t.tries for t in tried),
        budget=audit.settings.noise_budget,
    )


def tries_under(audit: Audit, noise: str) -> list[NoiseStability]:
    """What was found of the samples that were tried under a noise."""
    return [t for s in audit.samples for t in s.noise if t.noise == noise and t.tries]


def population(least: int, most: int, n: int, noises: int) -> tuple[float, float]:
    """Ends of the population's share where ``least`` to ``most`` of n samples are stable, under each of several noises."""
    tail = OF_POPULATION / max(noises, 1) / 2
    return clopper_pearson(least, n, tail, tail)[0], clopper_pearson(most, n, tail, tail)[1]


def tries_needed(tried: NoiseStability, share: float, level: float) -> float:
    """About how many tries would decide a sample that goes on to keep as many; inf where it stands at the share itself.

    ``m·KL(kept ‖ share) = ln(1/level)``: by Chernoff's bound the chance of so many failures at the share itself.
    """
    kept = min(max(tried.kept / tried.tries, 0.5 / tried.tries), 1 - 0.5 / tried.tries)
    distance = kept * math.log(kept / share) + (1 - kept) * math.log((1 - kept) / (1 - share))
    return math.log(1 / level) / distance if distance > 0 else math.inf
