"""Which worker measures which samples: ranges from a queue, large first and small at the end, those of lost workers again."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

Indices: TypeAlias = tuple[int, ...]

#: Ranges that a worker holds at most: the one that it measures, and the next, so that it never waits for an answer.
IN_HAND = 2
#: A range holds this part of what is left for each worker: the first half of the work goes out in one round, a quarter in the next.
PARTS = 2
#: Seconds that a range takes at most: so much is measured again where a worker is lost, or is missing where the run is ended.
LONGEST = 5.0
#: And at least, so that what a range costs beside its samples is a small part of it.
SHORTEST = 0.2
#: Seconds that the one queue needs for a range; with many workers ranges last so long that it keeps up at half its pace.
HANDLING = 0.002
#: Samples of a range as long as nobody knows what one takes, which may be minutes.
PROBE = 1
#: Workers that must be lost with a range before it is laid to a sample of it, and into how many parts it is cut then.
LOSSES, PIECES = 2, 8
#: How often a range may go to another worker because a whole machine was lost, before that counts as a loss of the range's own.
MOVES = 4
#: A range that takes so many times what is expected is given to an idle worker as well.
LATE = 2.0
#: And one that takes so many times that may hang.
HUNG = 100.0


@dataclass(frozen=True)
class SampleRange:
    """Samples that one worker measures in one go.

    Attributes:
        number: Its number; a range that is handed out again, whole or in part, has another.
        indices: The samples' indices in the data.
        losses: Workers that died with these samples in hand.
        moves: How often they went to another worker because a machine was lost.
    """

    number: int
    indices: Indices
    losses: int = 0
    moves: int = 0

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Loss:
    """What became of the ranges that a lost worker had in hand.

    Attributes:
        again: Samples that are measured by another worker.
        blamed: The index of the sample that the loss was laid to, or None.
    """

    again: int
    blamed: int | None = None


@dataclass
class _Hand:
    """The ranges that a worker has in hand, and since when it measures the first of them."""

    ranges: deque[SampleRange] = field(default_factory=deque)
    since: float = 0.0


class RangeQueue:
    """The samples of a plan on their way to workers and back; times come in from outside, by one clock in seconds.

    Sizes follow factoring: a range is a part of what is left, so that the last ones are small and all workers end together. They
    are bounded in seconds, by what a sample took so far. When nothing is left, idle workers get a range that waits in another's
    hand, or that is late there; the answer that comes first counts, and the others are dropped: all are the same.

    A worker that dies is followed by another. Its ranges go back into the queue. Where `LOSSES` of them died at one range, it is
    cut into pieces until a single sample is left, which is then listed as skipped. A machine that is lost speaks against no sample.

    Args:
        indices: The samples' indices in the data.

    Source of the sizes: Hummel, Schonberg, Flynn (1992), Factoring, Communications of the ACM 35(8).
    """

    def __init__(self, indices: Iterable[int]) -> None:
        whole = tuple(indices)
        self._pool: deque[tuple[SampleRange, int]] = deque([(SampleRange(0, whole), 0)] if whole else [])
        self._left = len(whole)
        self._open = set(whole)
        self._hands: dict[Hashable, _Hand] = {}
        self._out: dict[int, SampleRange] = {}  # in somebody's hand
        self._often: Counter[int] = Counter()  # in how many
        self._seconds, self._measured = 0.0, 0
        self._skipped: dict[int, str] = {}
        self.total = len(whole)
        self.handed = self.copies = 0

    @property
    def over(self) -> bool:
        """Whether every sample was measured, or is skipped."""
        return not self._open

    @property
    def done(self) -> int:
        """Samples that were measured, or are skipped."""
        return self.total - len(self._open)

    @property
    def missing(self) -> Indices:
        """The samples that are still to come, increasing."""
        return tuple(sorted(self._open))

    @property
    def skipped(self) -> Mapping[int, str]:
        """Samples that workers died of, by index, and why they are skipped."""
        return self._skipped

    @property
    def rate(self) -> float | None:
        """Seconds that a sample took so far, on average; None before the first answer."""
        return self._seconds / self._measured if self._measured else None

    @property
    def waiting(self) -> int:
        """Samples that nobody has in hand."""
        return self._left

    @property
    def workers(self) -> tuple[Hashable, ...]:
        """Those that take ranges."""
        return tuple(self._hands)

    def busy(self, worker: Hashable) -> bool:
        """Whether a worker has a range in hand."""
        return bool(self._hands[worker].ranges)

    def full(self, worker: Hashable) -> bool:
        """Whether a worker takes no other range now."""
        return len(self._hands[worker].ranges) >= IN_HAND

    def overdue(self, now: float, quiet: float) -> tuple[Hashable, ...]:
        """Workers whose range takes longer than so many seconds, and `HUNG` times what is expected of it."""
        rate = self.rate or 0.0
        return tuple(
            worker
            for worker, hand in self._hands.items()
            if hand.ranges and now - hand.since > max(quiet, HUNG * rate * len(hand.ranges[0]))
        )

    def joins(self, worker: Hashable) -> None:
        """Another worker takes ranges from now on."""
        self._hands.setdefault(worker, _Hand())

    def take(self, worker: Hashable, now: float) -> SampleRange | None:
        """The next range for a worker; None where it holds enough, or there is nothing that it could do."""
        hand = self._hands[worker]
        if self.full(worker):
            return None
        found = self._cut()
        if found is None and not hand.ranges:
            found = self._copied(worker, now)
        if found is not None:
            if not hand.ranges:
                hand.since = now
            hand.ranges.append(found)
            self._out[found.number] = found
            self._often[found.number] += 1
        return found

    def answered(self, worker: Hashable, number: int, seconds: float, now: float) -> Indices:
        """A worker measured a range that it has in hand, in so many seconds; those of its samples that nobody answered before."""
        found = self._out[number]
        self._let_go(self._hands[worker], number, now)
        self._seconds += seconds
        self._measured += len(found)
        fresh = tuple(i for i in found.indices if i in self._open)
        self._open.difference_update(fresh)
        return fresh

    def lost(self, worker: Hashable, ended: str, *, machine: bool = False) -> Loss:
        """A worker is lost with what it had in hand.

        Args:
            worker: Which.
            ended: How it ended, in words that follow "the worker".
            machine: Whether a whole machine is lost: this speaks against no sample.
        """
        hand = self._hands.pop(worker, _Hand())
        blamed: int | None = None
        back: list[SampleRange] = []
        for place, held in enumerate(tuple(hand.ranges)):
            self._let_go(hand, held.number, hand.since)
            if held.number in self._out or held.indices[0] not in self._open:
                continue  # another has it in hand as well, or answered
            if place > 0:  # it was waiting
                back.append(held)
            elif machine and held.moves < MOVES:
                back.append(replace(held, moves=held.moves + 1))
            else:
                blamed, parts = self._suspected(held, ended)
                back.extend(parts)
        self._pool.extendleft((part, 0) for part in reversed(back))
        again = sum(map(len, back))
        self._left += again
        return Loss(again, blamed)

    def _let_go(self, hand: _Hand, number: int, now: float) -> None:
        """A range leaves a worker's hand."""
        hand.ranges = deque(r for r in hand.ranges if r.number != number)
        hand.since = now
        self._often[number] -= 1
        if not self._often[number]:
            del self._often[number], self._out[number]

    def _suspected(self, held: SampleRange, ended: str) -> tuple[int | None, list[SampleRange]]:
        """The sample that a loss is laid to, or the parts of the range that are tried next."""
        losses = held.losses + 1
        if losses < LOSSES:
            return None, [replace(held, losses=losses)]
        if len(held) == 1:
            (index,) = held.indices
            self._skipped[index] = f"the worker {ended} while it measured this sample, and so did one before it"
            self._open.discard(index)
            return index, []
        size = math.ceil(len(held) / PIECES)
        parts = [held.indices[at : at + size] for at in range(0, len(held), size)]
        return None, [replace(held, indices=part, losses=LOSSES - 1) for part in parts]

    def _cut(self) -> SampleRange | None:
        """The next range of what nobody has in hand; None where that is nothing."""
        if not self._pool:
            return None
        whole, start = self._pool.popleft()
        end = start + self._size()
        indices = whole.indices[start:end]
        if end < len(whole):
            self._pool.appendleft((whole, end))
        self._left -= len(indices)
        self.handed += 1
        return replace(whole, number=self.handed, indices=indices)

    def _size(self) -> int:
        """Samples of the next range."""
        crew = max(1, len(self._hands))
        share = math.ceil(self._left / (PARTS * crew))
        rate = self.rate
        if rate is None:
            return min(share, PROBE)
        shortest = max(SHORTEST, 2.0 * HANDLING * crew)
        longest = max(LONGEST, shortest)
        if rate * share < shortest:
            return math.ceil(shortest / rate) if rate > 0.0 else max(1, share)
        return max(1, min(share, int(longest / rate)))

    def _copied(self, worker: Hashable, now: float) -> SampleRange | None:
        """A range that another worker has in hand and is not yet at, or is late with; none that is under suspicion."""
        best: tuple[float, SampleRange] | None = None
        for other, hand in self._hands.items():
            for place, held in enumerate(hand.ranges):
                if other == worker or self._often[held.number] > 1 or held.losses:
                    continue
                expected, passed = len(held) * (self.rate or math.inf), now - hand.since
                if place == 0 and passed <= LATE * expected:
                    continue
                urgency = passed if place == 0 else expected
                if best is None or urgency > best[0]:
                    best = urgency, held
        if best is None:
            return None
        self.copies += 1
        return best[1]


__all__ = ["IN_HAND", "Loss", "RangeQueue", "SampleRange"]
