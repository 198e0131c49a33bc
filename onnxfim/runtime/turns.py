"""Lets the sessions of one large model take turns, so that its weights are in memory once and not once for each of them."""

from __future__ import annotations

import time
from typing import Protocol

from onnxfim.runtime.heap import give_back

_FREE = 6.0  # times the longest opening: what openings of sessions that had rested may take at any time
_SHARE = 0.1  # and of the time since then


class Holder(Protocol):
    """Holds sessions of a model, and opens them when they are needed.

    Attributes:
        opening: Seconds that they take to open.
    """

    opening: float

    def rest(self) -> None:
        """Close them."""


class WeightTurns:
    """At most one of several holders has its sessions open, while it costs little to open them again.

    A holder that takes its turn sends the others to rest. A session that opens again, with the options that it had, gives the
    same values. Where many turns would cost more than a tenth of the time, holders stay as they are.

    Attributes:
        rests: How often one was sent to rest.
    """

    def __init__(self) -> None:
        self.rests = 0
        self._up: list[Holder] = []
        self._paid, self._longest, self._since = 0.0, 0.0, time.monotonic()

    def take(self, holder: Holder) -> None:
        """It is this holder's turn: it is about to open a session or to run one."""
        if self._up == [holder]:
            return
        for other in [h for h in self._up if h is not holder]:
            self._longest = max(self._longest, other.opening)
            allowed = _FREE * self._longest + _SHARE * (time.monotonic() - self._since)
            if self._paid + other.opening <= allowed:
                self._paid += other.opening
                self._rest(other)
        if holder not in self._up:
            self._up.append(holder)

    def none(self) -> None:
        """No session is needed for long: all holders rest."""
        for holder in list(self._up):
            self._rest(holder)

    def _rest(self, holder: Holder) -> None:
        self.rests += 1
        self._up.remove(holder)
        holder.rest()
        give_back()
