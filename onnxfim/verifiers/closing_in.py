"""Which box of a sample a verifier is asked about next: answers close in on the largest one without another prediction."""

from __future__ import annotations

import math

from onnxfim.record.guarantees import Answer

_MOST = 24  # boxes of a sample
_GROWTH = 2.0  # from a box that holds no other prediction to the next, as long as none is known that does
_FALL = 4.0  # from a box that was not decided to the next, as long as none is known that holds none
_LEAST = 1e-4  # of the first box: smaller ones are not asked about
_UNDECIDED = 4  # boxes in a row that were not decided, before any was, after which no more are asked about
#: By how much wider than a move that changed the prediction the box is that must hold it.
CONTROL = 1.001


class ClosingIn:
    """The boxes of one sample, by their half-widths.

    The first question is a control: it is about a box that holds a move which changed the prediction of the very network that is
    verified, where one is known; a verifier that finds none in it is not to be believed. Then it closes in by halves of the ratio
    of both ends. A box that ends in an error is one that was not decided.

    Args:
        low: Half-width up to which nothing changes the prediction, as is known without the verifier; 0 where nothing is.
        high: Length of a move that changes it, inside the range of valid inputs; None where none is known.
        guess: Where to begin, where both ends are not known.
        most: Half-width of a box that holds every valid input.
        precision: How far apart, as a ratio less one, both ends may stay.
        control: Half-width of the control's box, where that is not the one that just holds ``high``. Without ``high`` the box
            reaches beyond valid inputs: what is found there is no end of those that follow.

    Attributes:
        certified: Largest half-width that the verifier found no other prediction in; 0 where there is none.
        contradicted: Whether it found none in a box that holds one.
        controlled: Whether it was asked the control question, or named a point itself that changes the prediction.
        refuted: Whether it found another prediction in any box.
    """

    def __init__(
        self, *, low: float, high: float | None, guess: float, most: float, precision: float, control: float | None = None
    ) -> None:
        self._low, self._changed, self._guess, self._most = low, high, guess, most
        self._ratio = 1 + precision
        self._open = math.inf  # least half-width that was not decided
        if control is None and high is not None and CONTROL * high <= most:
            control = CONTROL * high
        self._control = control
        self._beyond = high is None
        self._asked = self._undecided = 0
        self._guessed = False  # whether a box was asked about beside the first one
        self.certified, self.contradicted, self.controlled, self.refuted = 0.0, False, False, False

    @property
    def asks_control(self) -> bool:
        """Whether the next box is that of the control question."""
        return self._control is not None

    @property
    def ceiling(self) -> float:
        """The least half-width that there is no use in asking about; infinite where none is known."""
        return min(math.inf if self._changed is None else self._changed, self._open)

    @property
    def asked(self) -> int:
        """How many boxes it was asked about."""
        return self._asked

    @property
    def expected(self) -> int:
        """How many boxes it will be asked about in all, roughly."""
        if self.next() is None:
            return self._asked
        low, high = self._low, self.ceiling
        ratio = high / low if low > 0 and math.isfinite(high) else _FALL**2
        return self._asked + self.asks_control + max(1, math.ceil(math.log2(max(math.log(ratio) / math.log(self._ratio), 1.0))))

    def next(self) -> float | None:
        """The next half-width; None where it is done."""
        undecided = self._undecided >= _UNDECIDED and not self.certified
        if self._control is not None and not self.contradicted and self._guess > 0:
            return self._control
        if self.contradicted or undecided or self._asked >= _MOST or self._guess <= 0:
            return None
        low, high = self._low, self.ceiling
        if not math.isfinite(high):
            step = max(self._guess, _GROWTH * low) if self._guessed else max(self._guess, low)
            return None if low >= self._most else min(step, self._most)
        if low > 0:
            return None if high <= low * self._ratio else math.sqrt(low * high)
        step = high / (_FALL if math.isfinite(self._open) else _GROWTH)
        if self._guess < step and not self._guessed:
            step = self._guess
        return step if step > _LEAST * (self._changed or self._guess) else None

    def ask_control(self, epsilon: float) -> None:
        """Ask another control question next, about a box of this half-width that surely holds another prediction."""
        self._control = epsilon

    def told(self, epsilon: float, answer: Answer, *, changed: float | None = None) -> None:
        """Take in an answer about a box of the half-width ``epsilon``.

        Args:
            epsilon: Its half-width.
            answer: What was said.
            changed: Length of the counterexample's move, where it changes the prediction of the network that is verified.
        """
        self._asked += 1
        control, self._control = self.asks_control, None
        self._guessed |= not control
        self.controlled |= control or (answer == "sat" and changed is not None)
        self._undecided = self._undecided + 1 if answer in ("unknown", "timeout", "error") else 0
        if answer == "unsat":
            if control or (self._changed is not None and epsilon >= self._changed):
                self.contradicted = True
                self.certified = 0.0
                return
            self.certified = max(self.certified, epsilon)
            self._low = max(self._low, epsilon)
        elif answer == "sat":
            self.refuted = True
            if control and self._beyond:
                return
            found = epsilon if changed is None else min(changed, epsilon)
            if found < self.certified:
                self.contradicted, self.certified = True, 0.0
            self._changed = found if self._changed is None else min(self._changed, found)
        elif not control:
            self._open = min(self._open, epsilon)
