"""What was decided about two models: each measure's test, and the decision that they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from onnxfim.record.decision import Aggregate

#: The measures that decide: how far a sample must move until its prediction changes, as seen (else by its slopes), and as its
#: slopes tell beside it; the sensitivity of a usual sample; the sensitivity on average.
Question: TypeAlias = Literal["distance", "boundary", "log_lambda", "mean_lambda"]
#: ``alone``: one measure is significant; ``agree``: several are, in one direction; ``disagree``: in two, or against what was
#: seen of the distances; ``open``: none is.
Agreement: TypeAlias = Literal["alone", "agree", "disagree", "open"]

#: The chance, at most, that anything that a comparison calls decided is wrong: of all its pairs and measures together.
LEVEL = 0.025


@dataclass(frozen=True)
class MeasureTest:
    """One measure of two models over the samples that both have it on.

    Attributes:
        question: Which of the questions it answers.
        measure: The measure's name.
        count: Samples that the test is over.
        unfound: How many of them have no flip in one model or in both; they count as farther than any flip.
        ratio: The second model's over the first's: of distances and of λ_max sample by sample in the middle, of λ_max on average.
        p: Two-sided p-value of no difference, the errors that all samples share included.
        p_adjusted: The same, corrected for all measures and pairs that were tested.
        better: Position of the entry that is more robust by this measure's estimate; None where both are equal.
        significant: Whether ``p_adjusted`` is below the level.
        decides: Whether its outcome counts for the decision; ``note`` says why not.
        test: What the p-value is of.
    """

    question: Question
    measure: str
    count: int
    unfound: int
    ratio: Aggregate
    p: float
    p_adjusted: float
    better: int | None
    significant: bool
    decides: bool
    test: str
    note: str = ""


@dataclass(frozen=True)
class Decision:
    """Which of two models is the more robust one, as far as their samples tell.

    Attributes:
        better: Position of the more robust entry; None where nothing is decided.
        by: The measure that decides: the first significant one in their order; None where nothing is decided.
        p: Its adjusted p-value; the smallest of all where nothing is decided.
        agreement: How the significant measures stand to one another. The first, the distances, decides whatever the others say,
            for it is what was seen, and no temperature changes it. Another decides only where all significant ones agree and the
            distances do not point the other way.
        measures: The tests.
    """

    better: int | None
    by: Question | None
    p: float
    agreement: Agreement
    measures: tuple[MeasureTest, ...]

    def of(self, question: Question) -> MeasureTest | None:
        """The test of that question, if it could be asked."""
        return next((m for m in self.measures if m.question == question), None)
