"""How fast requests may follow one another: a rate, pauses that a server asks for, and waits that grow."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

_FIRST, _LONGEST = 0.1, 15.0  # seconds of the first wait before another try, and of the longest
#: Seconds that a server may ask to wait.
MOST_ASKED = 300.0


class Given(Exception):
    """A wait that ended because the work is to end."""


class Pace:
    """Lets requests of several threads go at a rate, one token at a time.

    Args:
        rate: Requests a second, or None for no limit.
        ending: Set where waits are to end.
        clock, rng: Of time and of the waits' jitter.
    """

    def __init__(
        self,
        rate: float | None,
        ending: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._apart = 0.0 if rate is None else 1.0 / rate
        self._ending, self._clock, self._rng = ending, clock, rng or random.Random()
        self._lock = threading.Lock()
        self._next, self._held = 0.0, 0.0

    def turn(self) -> None:
        """Wait until the next request may go.

        Raises:
            Given: the work is to end.
        """
        while True:
            with self._lock:
                now = self._clock()
                mine = self._held <= now
                at = max(now, self._next) if mine else self._held
                if mine:
                    self._next = at + self._apart
            self._sleep(at - now)
            if mine and self._held <= self._clock():  # else it was asked to wait meanwhile
                return

    def hold(self, seconds: float) -> None:
        """Let no request go for so long: the server asked for it."""
        with self._lock:
            self._held = max(self._held, self._clock() + seconds)

    def back_off(self, tries: int) -> None:
        """Wait before another try: at random up to a time that doubles with each.

        Source: Brooker (2015), "Exponential Backoff And Jitter", AWS Architecture Blog: full jitter.

        Args:
            tries: How many there were.

        Raises:
            Given: the work is to end.
        """
        self._sleep(self._rng.uniform(0.0, min(_LONGEST, _FIRST * 2.0 ** min(tries, 20))))

    def _sleep(self, seconds: float) -> None:
        if self._ending.wait(seconds):
            raise Given
