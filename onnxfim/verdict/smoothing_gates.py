"""Gates on smoothed classifiers, such as ``smoothing.certified_accuracy@0.25 < 60%``: their names, and what they are decided on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import units_of_lengths
from onnxfim.record.noises import gaussian_size
from onnxfim.record.statistics import fewest_bracketing
from onnxfim.verdict.decidable import Decidable
from onnxfim.verdict.smoothed_shares import Certified, largest_radius, why_untried

#: The names, as a shell completes them; ``smoothing[SIGMA]`` tells which of several smoothed classifiers is meant.
NAMES = ("smoothing.certified_accuracy@0.25", "smoothing.accuracy", "smoothing.abstained", "smoothing.radius.median")
_NAME = re.compile(r"smoothing(?:\[([^\]]+)\])?\.(accuracy|abstained|radius\.median|certified_accuracy@(.+))")
_OF_LABELS = "there are no labels. Give some (labels in the .npz, --labels, or one folder per class)"


@dataclass(frozen=True)
class Name:
    """What a gate's name asks for.

    Attributes:
        sigma: Of the classifier with this noise; None for the only one.
        what: ``certified_accuracy``, ``accuracy``, ``abstained`` or ``radius.median``.
        radius: Of a certified accuracy; else 0.
    """

    sigma: float | None
    what: str
    radius: float = 0.0

    @property
    def share(self) -> bool:
        """Whether it is a share of the samples."""
        return self.what != "radius.median"


def read_name(name: str) -> Name | None:
    """What a name asks for, or None where it is none of these."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    sigma, what, radius = match.groups()
    sizes = [None if text is None else gaussian_size(text) for text in (sigma, radius)]
    if (sigma is not None and sizes[0] is None) or (radius is not None and sizes[1] is None):
        return None
    return Name(sizes[0], what.partition("@")[0], sizes[1] or 0.0)


def is_share(name: str) -> bool:
    """Whether a name is one of these, and of a share."""
    found = read_name(name)
    return found is not None and found.share


def read(audit: Audit, name: Name) -> Decidable:
    """What a gate of this name is decided on.

    A certified accuracy has the interval of `Certified.share`; without labels it is the share certified for the file's own
    prediction. A median radius counts a sample without a radius for the class that counts as 0.
    """
    sigmas = audit.settings.smoothing
    if (why := _not_asked(name, sigmas)) is not None:
        return Decidable(None, None, None, why=why)
    sigma = sigmas[0] if name.sigma is None else name.sigma
    found = Certified.of(audit, sigma)
    if not found.count:
        return Decidable(None, None, None, why=why_untried(audit, sigma))
    if name.what == "radius.median":
        median, needed = found.median(), max(fewest_bracketing(0.5))
        return Decidable(median.value, median.low, median.high, found.count, needed=needed if median.low is None else None)
    if name.what == "accuracy" and not found.labelled:
        return Decidable(None, None, None, why="there are no labels")
    share = found.abstained() if name.what == "abstained" else found.share(name.radius)
    return Decidable(share.share, share.low, share.high, found.count)


def missing(name: Name, sigmas: Sequence[float], *, labelled: bool) -> str | None:
    """Why a gate of this name cannot be decided, whatever is measured; None where it can."""
    why = _not_asked(name, sigmas)
    if why is None and name.what == "accuracy" and not labelled:
        return _OF_LABELS
    return why


def out_of_reach(name: Name, sigmas: Sequence[float], budget: int) -> str | None:
    """Why a certified accuracy can only be 0, in words; None where it can be more."""
    sigma = name.sigma or (sigmas[0] if sigmas else 1.0)
    most = largest_radius(sigma, budget)
    if name.radius <= most:
        return None
    return f"with noise of {sigma:g} and {budget:,} rows no radius is above {most:.3g}. Give a larger SIGMA or --certify-budget"


def units(audit: Audit, name: Name) -> str:
    """What the values of a gate are in; empty for a share."""
    return "" if name.share else units_of_lengths(audit.model.at, raw=audit.settings.raw)


def _not_asked(name: Name, sigmas: Sequence[float]) -> str | None:
    told = ", ".join(f"{s:g}" for s in sigmas)
    if not sigmas:
        return "no smoothing certificate is asked for. Give --certify smoothing:SIGMA"
    if name.sigma is None and len(sigmas) > 1:
        return f"it does not say which of the smoothed classifiers ({told}). Name one, such as smoothing[{sigmas[0]:g}].{name.what}"
    if name.sigma is not None and name.sigma not in sigmas:
        return f"noise of {name.sigma:g} is not asked for (asked: {told}). Give --certify smoothing:{name.sigma:g} too"
    return None
