"""Whether a model answers a row alike wherever it stands, and the noise floor that this leaves."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.record.limits import Count, NotNegative, closed


@closed
@dataclass(frozen=True)
class RowCheck:
    """Whether the rows of a batch are answered as if each were alone, and so the noise floor; differences are rms, in output units.

    Attributes:
        rows: Rows in a batch that was tried.
        scale: Largest output in size, which the differences are judged by.
        neighbours: The same rows in a batch of the same size among others; None where it could not be tried.
        alone: A row in a call of its own; None where the file insists on its batch.
        identical: Identical rows of one batch.
        repeated: The same batch twice: what is left is chance.
        dependent: The answers depend on the neighbours, beyond chance and rounding.
        apart: Every row of the audit had a call of its own, for the file takes scales of quantisation from the whole batch.
        beside_moved: Samples at rest in a batch of the same size of moved rows, which are made where the model runs.
        batch_rows: Rows in a call of the clean pass.
        batches: The same rows in a batch that was tried and in the clean pass.
        largest: The largest difference of any one output in all of this.

        The last four are None where they were not tried, as in files of earlier versions.
    """

    rows: Count
    scale: NotNegative
    neighbours: NotNegative | None
    alone: NotNegative | None
    identical: NotNegative
    repeated: NotNegative
    dependent: bool
    apart: bool = False
    beside_moved: NotNegative | None = None
    batch_rows: Count | None = None
    batches: NotNegative | None = None
    largest: NotNegative | None = None

    @property
    def floor(self) -> float:
        """The largest rms difference of a row from itself: what differences of outputs must rise above."""
        if self.apart:  # no row of the audit had neighbours
            return max(self.identical, self.repeated)
        return max(
            self.identical, self.repeated, *(d or 0.0 for d in (self.alone, self.neighbours, self.beside_moved, self.batches))
        )
