"""Keeps what the model answered along the ladder, so that the chosen step's rows serve as measurements too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from onnxfim.slopes.differences import Ends, Scheme

Array: TypeAlias = np.ndarray[Any, Any]

_BYTES = 2**23  # of outputs kept, for a plan holds them too; rows beyond it are measured again


class LadderRows:
    """Outputs along the first directions of the calibration samples, by the step and the way they were taken.

    Rows are kept as they come until a bound of their size is reached, whatever the batch: which of them are known later does not
    depend on chance.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[float, float | None], dict[int, Array]] = {}
        self._left = _BYTES

    def keep(self, step: float, dither: float | None, ends: Ends) -> None:
        """Keep the ends of central differences, or of dithered ones, along directions 0 … m of a sample.

        Args:
            step: The step, in input units.
            dither: Amplitude of the dither, or None for central differences.
            ends: What was measured.
        """
        pairs = [ends.plus, ends.minus, *([] if ends.twin is None else [ends.twin.plus, ends.twin.minus])]
        size = sum(a.nbytes for a in pairs)
        kept = self._rows.setdefault((step, dither), {})
        index = ends.request.sample.index
        if size > self._left or ends.request.start or len(kept.get(index, ())) >= len(pairs) * len(ends.plus):
            return
        kept[index] = np.stack(pairs, axis=1).reshape(-1, *ends.plus.shape[1:])
        self._left -= size

    def all(self) -> Iterator[tuple[float, float | None, int, Array]]:
        """All that is kept: step, dither, the sample's index and its rows."""
        return ((step, dither, index, rows) for (step, dither), kept in self._rows.items() for index, rows in kept.items())

    @staticmethod
    def made_of(blocks: Iterable[tuple[float, float | None, int, Array]]) -> LadderRows:
        """What `all` told."""
        found = LadderRows()
        for step, dither, index, rows in blocks:
            found._rows.setdefault((step, dither), {})[index] = rows
        return found

    def of(self, scheme: Scheme, step: float, dither: float | None) -> Mapping[int, Array]:
        """By a sample's index, its rows of this scheme at this step, direction by direction, (rows, K, P)."""
        if scheme == "dithered":
            return self._rows.get((step, dither), {})
        rows = self._rows.get((step, None), {})
        return rows if scheme == "central" else {i: z[::2] for i, z in rows.items()}

    def only(self, step: float, dither: float | None) -> None:
        """Give up what was kept of other steps; the rows at this one stay."""
        self._rows = {key: rows for key, rows in self._rows.items() if key in ((step, None), (step, dither))}
