"""What a gate is decided on, whatever it names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decidable:
    """What a gate is decided on: a value, its ends (None: not bounded), and what is known of their origin.

    Without a value it is decided on an end where there is one: the value lies beyond all that was found. ``of`` says what it is of,
    ``advice`` what would settle it where the usual ways do not.
    ``noise`` is the half-width that the estimates' noise alone makes; ``why`` tells what is missing where the value or an end is.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int = 0
    noise: float = 0.0
    why: str = ""
    needed: int | None = None
    samples_settle: bool = True
    of: str = ""
    advice: str = ""

    @property
    def measured(self) -> bool:
        """Whether anything is known of it."""
        return not (self.value is None and self.low is None and self.high is None)
