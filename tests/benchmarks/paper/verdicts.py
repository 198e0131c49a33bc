"""Verdicts by rule: an estimate with its interval against a threshold, and several of them together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

HOLDS, CALIBRATED, NOT, UNDECIDED = "holds", "holds after calibration", "does not hold", "undecided"
STRONG = 0.5  # a rank correlation from which we call the association strong
RULE = (
    f"holds: on every data set the 95 % interval lies wholly above {STRONG:g}; does not hold: on some data set it lies wholly below; "
    "undecided: otherwise"
)
RULE_OF_BOTH = f"{RULE}; holds after calibration: not so for the raw value, but so after one temperature for each model"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def known(self) -> bool:
        """Whether it has an interval."""
        return None not in (self.value, self.low, self.high)

    def json(self) -> dict[str, Any]:
        """Rounded to four significant digits."""
        return {k: None if v is None else float(f"{v:.4g}") for k, v in asdict(self).items()}


def judge(estimate: Estimate, threshold: float = STRONG) -> str:
    """One interval against a threshold."""
    if estimate.low is None or estimate.high is None:
        return UNDECIDED
    return HOLDS if estimate.low > threshold else NOT if estimate.high < threshold else UNDECIDED


def together(verdicts: Iterable[str]) -> str:
    """Of several data sets: all must hold, and one that does not is enough against."""
    found = list(verdicts)
    if not found:
        return UNDECIDED
    return NOT if NOT in found else HOLDS if all(v == HOLDS for v in found) else UNDECIDED


def with_calibration(raw: str, calibrated: str) -> str:
    """The verdict on a claim whose raw and calibrated forms were judged."""
    return CALIBRATED if raw != HOLDS and calibrated == HOLDS else raw
