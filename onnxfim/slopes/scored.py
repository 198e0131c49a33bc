"""Slopes and scores of one sample's ends, each made once for all that look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from onnxfim.slopes.differences import Ends
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Scored:
    """What outputs at the ends of steps tell.

    Attributes:
        reader: What the outputs are.
        base: Outputs at the sample, (K, P).
        ends: Along all directions of it.
    """

    reader: OutputReader
    base: Array
    ends: Ends

    @cached_property
    def slopes(self) -> Array:
        """Slopes of the logits, (m, K, P)."""
        return self.reader.slopes(self.ends.plus, self.ends.minus, self.ends.h)

    @cached_property
    def scores(self) -> Array:
        """Scores at the model's own temperature, (m, K·P)."""
        return self.at(1.0)

    @cached_property
    def twin(self) -> Scored | None:
        """The same at the dithered twins."""
        return None if self.ends.twin is None else Scored(self.reader, self.base, self.ends.twin)

    @property
    def pairs(self) -> tuple[Scored, ...]:
        """These, and those of the twins where there are any."""
        return (self,) if self.twin is None else (self, self.twin)

    def at(self, temperature: float) -> Array:
        """Scores at a temperature, (m, K·P)."""
        ends = self.ends
        if self.reader.scores_from_slopes:
            return self.reader.scores_of(self.base, self.slopes, temperature)
        return self.reader.scores(self.base, ends.plus, ends.minus, ends.h, temperature)


def joined(parts: Sequence[Ends]) -> Ends:
    """Ends along all directions of a sample, from those along disjoint ranges of them."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    minus = first.minus if len(first.minus) == 1 else np.concatenate([e.minus for e in parts])
    twins = [e.twin for e in parts if e.twin is not None]
    own = first.ahead is not None
    return Ends(
        first.request,
        np.concatenate([e.plus for e in parts]),
        minus,
        np.concatenate([np.asarray(e.h) for e in parts]) if isinstance(first.h, np.ndarray) else first.h,
        joined(twins) if twins else None,
        np.concatenate([e.ahead for e in parts if e.ahead is not None]) if own else None,
    )
