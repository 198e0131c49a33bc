"""What the smoothed classifiers are certified for over all samples: from a finished record alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import units_of_lengths
from onnxfim.record.decision import Aggregate
from onnxfim.record.guarantee_summaries import CertifiedShare, SmoothingSummary
from onnxfim.record.guarantees import Smoothed
from onnxfim.record.smoothing_terms import ALPHA, CHOOSING
from onnxfim.record.special import ndtri
from onnxfim.record.statistics import bracketing, clopper_pearson

_MOST = 100  # radii of a curve at most
_ROUND = (1.0, 2.5, 5.0)  # digits of their spacing: all of them are round, multiples of 0.25 and 0.5 among them
_CLOSE = 1e-9  # relative: what a radius may be short of a round one by rounding


@dataclass(frozen=True)
class Certified:
    """The samples that a smoothed classifier was tried on.

    Attributes:
        smoothed: Their certificates.
        radii: Radius of each for the class that counts, its label or the file's own prediction; 0 where there is none.
        labelled: Whether that is the label.
        right: Of how many the class is the one that counts.
        clean: Of how many the file's own prediction is.
    """

    smoothed: tuple[Smoothed, ...]
    radii: tuple[float, ...]
    labelled: bool
    right: int
    clean: int

    @staticmethod
    def of(audit: Audit, sigma: float) -> Certified:
        """Those of an audit with this standard deviation; with labels, the samples that have one."""
        labelled = audit.data.labels and audit.reads_labels
        every = ((s, c) for s in audit.samples for c in s.smoothed if c.sigma == sigma and c.reason is None)
        some = [(s, c, s.label if labelled else s.prediction) for s, c in every if not labelled or s.label is not None]
        good = [c.prediction is not None and c.prediction == counts for _, c, counts in some]
        return Certified(
            tuple(c for _, c, _ in some), tuple(c.radius if g else 0.0 for (_, c, _), g in zip(some, good, strict=True)),
            labelled, sum(good), sum(s.prediction == counts for s, _, counts in some),
        )  # fmt: skip

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.radii)

    def share(self, radius: float) -> CertifiedShare:
        """The share with a radius of at least this, abstentions and other classes never among them, and its interval.

        The population's share of samples that are certified lies in Clopper and Pearson's interval; at most `ALPHA` of its samples
        have a wrong certificate.
        """
        count = sum(r >= radius for r in self.radii) if radius > 0 else self.right
        low, high = clopper_pearson(count, self.count)
        return CertifiedShare(radius, count / self.count, max(low - ALPHA, 0.0), high)

    def abstained(self) -> CertifiedShare:
        """The share of abstentions, with Clopper and Pearson's interval."""
        count = sum(c.prediction is None for c in self.smoothed)
        return CertifiedShare(0.0, count / self.count, *clopper_pearson(count, self.count))

    def median(self) -> Aggregate:
        """Median radius; its interval holds the sampling of the data."""
        ordered, n = sorted(self.radii), self.count
        below, above = bracketing(n, 0.5)
        middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        low, high = (None if rank is None else ordered[rank] for rank in (below, above))
        bounded = low is not None and high is not None
        return Aggregate(middle, low, high, 0.95 if bounded else 0.0, "order statistics" if bounded else "too few samples")


def smoothing(audit: Audit) -> tuple[SmoothingSummary, ...]:
    """What each smoothed classifier that was asked for is certified for, over the samples of an audit."""
    return tuple(_summary(audit, sigma) for sigma in audit.settings.smoothing)


def largest_radius(sigma: float, budget: int) -> float:
    """The radius where all rows have one class: none can be larger."""
    return max(sigma * float(ndtri(clopper_pearson(budget, budget, ALPHA)[0])), 0.0)


def round_radii(largest: float) -> tuple[float, ...]:
    """At most 100 round radii from 0 to the largest, evenly spaced."""
    if not largest > 0:
        return (0.0,)
    decade = math.floor(math.log10(largest)) - 3
    spacings = (float(f"{digit}e{decade + k}") for k in range(5) for digit in _ROUND)
    spacing = next(s for s in spacings if largest / s < _MOST)
    return tuple(float(f"{k * spacing:.10g}") for k in range(int(largest / spacing * (1 + _CLOSE)) + 1))


def _summary(audit: Audit, sigma: float) -> SmoothingSummary:
    found, budget = Certified.of(audit, sigma), audit.settings.certify_budget
    n = found.count
    return SmoothingSummary(
        sigma=sigma,
        units=units_of_lengths(audit.model.at, raw=audit.settings.raw),
        confidence=1 - ALPHA,
        samples=n,
        abstained=sum(c.prediction is None for c in found.smoothed),
        agrees=_agreeing(audit, sigma),
        accuracy=found.right / n if n and found.labelled else None,
        clean_accuracy=found.clean / n if n and found.labelled else None,
        curve=tuple(found.share(r) for r in round_radii(largest_radius(sigma, budget))) if n else (),
        labelled=found.labelled,
        choosing=CHOOSING,
        budget=budget,
        median=found.median() if n else None,
        average=sum(found.radii) / n if n else None,
        reason=None if n else why_untried(audit, sigma),
        caveat=caveat(audit),
    )


def _agreeing(audit: Audit, sigma: float) -> int:
    labelled = audit.data.labels and audit.reads_labels
    return sum(
        c.prediction is not None and c.prediction == s.prediction
        for s in audit.samples for c in s.smoothed
        if c.sigma == sigma and c.reason is None and not (labelled and s.label is None)
    )  # fmt: skip


def why_untried(audit: Audit, sigma: float) -> str:
    """Why no sample has a certificate."""
    reasons: Sequence[str] = [c.reason for s in audit.samples for c in s.smoothed if c.sigma == sigma and c.reason]
    return reasons[0] if reasons else "no sample was measured" if not audit.samples else "it was not come to"


def caveat(audit: Audit) -> str:
    """What the certificates of an audit do not cover, in sentences."""
    model, rounding = audit.model, audit.step.rounding
    parts = [
        "The certificate is of the smoothed classifier, which answers with the class that noise gives most often; it says nothing "
        "of the file alone.",
        "It holds for x + noise in real arithmetic: the noise here is drawn as float32 numbers by a generator, and x + noise is "
        f"rounded to {model.input_dtype}, by which a certificate can be wrong (Voráček and Hein 2023; Jin, Ohrimenko and "
        "Rubinstein 2022).",
    ]
    if model.at is not None:
        parts.append(
            f"Noise is added at {model.at.tensor}, behind {model.at.front}: what is smoothed is what the file makes of that value."
        )
    if rounding is not None:
        parts.append(
            f"Rounding inside the file ({rounding}) is part of the classifier that is smoothed, and makes no certificate wrong as "
            "long as the answer to a row depends on that row alone."
        )
    if model.served is not None:
        parts.append("The rows go to the served model as it takes them; what they are rounded by on the way is not known.")
    return " ".join(parts)
