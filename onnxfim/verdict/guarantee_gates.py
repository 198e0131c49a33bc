"""Gates on what is guaranteed: their names, how a choice among several stands in them, and what they are decided on.

``noise.stable_share`` is of the noise, or of the worst of several; ``noise[uniform:8/255].stable_share`` names one of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from onnxfim.record.audit import Audit
from onnxfim.record.guarantee_summaries import NoiseSummary
from onnxfim.record.noises import noises, read_noise
from onnxfim.record.successive_looks import noise_level
from onnxfim.verdict.decidable import Decidable
from onnxfim.verdict.noise_shares import population, tries_needed, tries_under

_SHARE, _SHARE_HERE = "noise.stable_share", "noise.stable_share_here"
#: Their names, without a choice.
NAMES: tuple[str, ...] = (_SHARE, _SHARE_HERE)
#: Those whose values are shares.
SHARES: tuple[str, ...] = (_SHARE, _SHARE_HERE)
_CHOICE = re.compile(r"\[([^\]]*)\]")
_MANY = 1_000_000  # samples, or rows, beyond which nothing is advised


def without_choice(name: str) -> str:
    """The name without what stands in brackets."""
    return _CHOICE.sub("", name)


def choice(name: str) -> str | None:
    """What stands in brackets in a name, or None."""
    found = _CHOICE.search(name)
    return None if found is None else found[1]


def wrong_choice(name: str) -> str | None:
    """Why a name may not have what stands in its brackets, or None."""
    chosen = choice(name)
    if chosen is None:
        return None
    if without_choice(name) not in NAMES or not name.startswith("noise[") or len(_CHOICE.findall(name)) > 1:
        return f"{name!r} takes nothing in brackets there. A noise stands so: 'noise[uniform:8/255].stable_share'."
    found = read_noise(chosen)
    return f"{chosen!r} {found}" if isinstance(found, str) else None


def reading(audit: Audit, name: str, threshold: float) -> Decidable | None:
    """What a gate of this name is decided on; None where it is none of those here."""
    if without_choice(name) not in NAMES:
        return None
    why = why_no_noise(name, audit.settings.noise)
    if why is not None:
        return Decidable(None, None, None, why=why)
    chosen = choice(name)
    wanted = [n.text for n in noises(audit.settings.noise) if chosen is None or n.same == _same(chosen)]
    found = [s for s in audit.noise if s.noise in wanted]
    if len(found) < len(wanted):
        return Decidable(None, None, None, why=_why_untried(audit, next(w for w in wanted if w not in {s.noise for s in found})))
    here = without_choice(name) == _SHARE_HERE
    shares = [s.share if here else s.population for s in found]
    # The smallest of several shares lies between the smallest of their lower and of their upper ends, for all hold at once.
    value, low, high = (min(getattr(s, end) for s in shares) for end in ("value", "low", "high"))
    worst = min(found, key=lambda s: (s.share if here else s.population).low or 0.0)
    of = "" if here else " of such samples in general"
    return Decidable(value, low, high, worst.samples, of=of, advice=_advice(audit, worst, threshold, here=here))


def why_no_noise(name: str, asked: Sequence[str]) -> str | None:
    """Why there can be no value of this name under the noises that were asked for, or None."""
    if not asked:
        return "no noise is added. Give --noise, such as --noise gaussian:0.1"
    chosen = choice(name)
    if chosen is None or any(n.same == _same(chosen) for n in noises(asked)):
        return None
    return f"{chosen} is not among the noises ({', '.join(asked)}). Give --noise {chosen}"


def _same(text: str) -> tuple[str, float] | None:
    found = read_noise(text)
    return None if isinstance(found, str) else found.same


def _why_untried(audit: Audit, noise: str) -> str:
    reasons = [t.reason for s in audit.samples for t in s.noise if t.noise == noise and t.reason]
    return reasons[0] if reasons else "no sample was tried under noise"


def _advice(audit: Audit, summary: NoiseSummary, threshold: float, *, here: bool) -> str:
    """What would settle a gate on it: more rows for open samples, or more samples."""
    n, several = summary.samples, len(audit.settings.noise)
    still_open = n - summary.stable_samples - summary.unstable_samples
    rows = _more_rows(audit, summary)
    undecided = f"{still_open:,} of {n:,} samples are open after {summary.budget:,} rows"
    if here:
        return f"{undecided}. {rows}"
    if still_open and any(
        _decided(population(k, k, n, several), threshold) for k in (summary.stable_samples, n - summary.unstable_samples)
    ):
        return f"{undecided}, and may settle it. {rows}"
    return _more_samples(summary, threshold, several)


def _decided(interval: tuple[float, float], threshold: float) -> bool:
    return not interval[0] <= threshold <= interval[1]


def _more_rows(audit: Audit, summary: NoiseSummary) -> str:
    """How many rows would decide most of the open samples."""
    level = noise_level(summary.samples, len(audit.settings.noise)) / 2
    tried = [t for t in tries_under(audit, summary.noise) if t.decided == "open"]
    needed = sorted(tries_needed(t, summary.stable, level) for t in tried)
    half = needed[(len(needed) - 1) // 2] if needed else math.inf
    if half > _MANY:
        return "They are too close to the share asked for: move --noise-stable, or change the noise."
    rows = max(math.ceil(1.3 * half / 100) * 100, 2 * summary.budget)
    return f"About {rows:,} rows a sample (--noise-budget {rows}) would decide half of them, if they keep as many as so far."


def _more_samples(summary: NoiseSummary, threshold: float, several: int) -> str:
    """How many samples would move the population's interval off the threshold."""
    share, count = summary.stable_samples / summary.samples, summary.samples
    unstable = summary.unstable_samples / summary.samples
    while count <= _MANY:
        count = math.ceil(count * 1.02) + 1
        if _decided(population(round(share * count), count - round(unstable * count), count, several), threshold):
            words = f"if as many of them are stable ({100 * share:.3g} %)"
            return f"About {count - summary.samples:,} more samples ({count:,} in all) would settle it, {words}."
    return "The share is too close to the threshold for any number of samples to tell: move the threshold."


__all__ = ["NAMES", "SHARES", "choice", "reading", "why_no_noise", "without_choice", "wrong_choice"]
