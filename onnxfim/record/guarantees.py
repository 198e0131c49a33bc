"""What is guaranteed of one sample's prediction, beside what is estimated: a bracket, noise, smoothing, a verifier's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from onnxfim.record.limits import AboveZero, Count, NotNegative, Part, closed

Norm: TypeAlias = Literal["l2", "linf"]
#: What a verifier says of a box: a point with another prediction is in it, none is, or it does not know.
Answer: TypeAlias = Literal["sat", "unsat", "unknown", "timeout", "error"]


@closed
@dataclass(frozen=True, slots=True)
class PredictedDistance:
    """Where the slopes at a sample put the nearest change of its prediction; estimates, which promise nothing.

    Attributes:
        norm: The norm of the move.
        first_order: Smallest ``(z_c − z_j) / ‖∇(z_c − z_j)‖`` over the other classes j, in the dual norm; None where it was not
            measured.
        fisher: Where λ alone puts it: the length at which two classes with this confidence p and this sensitivity are even,
            ``ln(p / (1 − p)) · √(p (1 − p) / λ)``, with λ of the norm; None where it was not measured.
    """

    norm: Norm
    first_order: NotNegative | None
    fisher: NotNegative | None


@closed
@dataclass(frozen=True, slots=True)
class Bracket:
    """Between which lengths the nearest change of a sample's prediction lies, in one norm.

    No move shorter than ``low`` changes the prediction, and one of length ``high`` does: distances of the file's function in exact
    arithmetic from below, of the file as it ran from above.

    Attributes:
        norm: The norm of the move.
        low: Guaranteed length; 0 where nothing is.
        low_from: What guarantees it: ``verifier``, ``local bounds``, ``weights`` or the same in another norm; empty where nothing
            does.
        high: Length of a move that was seen to change the prediction; None where none was found.
        high_from: What found it: ``flip``, ``attack`` or ``counterexample``; empty where nothing did.
        first_order, fisher: Estimates that should lie between, as in `PredictedDistance`.
    """

    norm: Norm
    low: NotNegative
    low_from: str
    high: NotNegative | None
    high_from: str
    first_order: NotNegative | None = None
    fisher: NotNegative | None = None


@closed
@dataclass(frozen=True, slots=True)
class NoiseStability:
    """How often a sample keeps its prediction under random noise, as the file ran.

    Attributes:
        noise: The noise, as it was asked for.
        tries: Rows with noise.
        kept: Those with the sample's own prediction.
        low, high: Ends of what the probability to keep it is known to lie in (Clopper and Pearson), at a level at which all
            samples' ends hold at once.
        decided: Whether that probability is at least the one asked for (``stable``), below it (``unstable``), or not known to be
            either.
        reason: Why it was not tried; then there are no tries.
    """

    noise: str
    tries: Count
    kept: Count
    low: Part
    high: Part
    decided: Literal["stable", "unstable", "open"]
    reason: str | None = None


@closed
@dataclass(frozen=True, slots=True)
class Smoothed:
    """The smoothed classifier at one sample: the class that noise gives most often, and the L2 radius in which that holds.

    Attributes:
        sigma: Standard deviation of the noise.
        prediction: The class; None where it abstains.
        tries: Rows that the bound rests on, those that chose the class apart.
        kept: Those with the class.
        p_low: Lower bound of the class's probability (Clopper and Pearson).
        radius: ``σ Φ⁻¹(p_low)``, 0 where it abstains (Cohen et al. 2019, theorem 1).
        reason: Why it was not tried; then there are no tries.
    """

    sigma: AboveZero
    prediction: int | None
    tries: Count
    kept: Count
    p_low: Part
    radius: NotNegative
    reason: str | None = None


@closed
@dataclass(frozen=True, slots=True)
class VerifiedBox:
    """A verifier's answer about one box around a sample.

    Attributes:
        epsilon: Half-width of the box, before it was clipped to the valid range.
        answer: What it said.
        seconds: How long it took.
        replay: Whether the audited file changes its prediction at the counterexample; None where there is none.
        distance: Length of the counterexample's move in the box's norm; None where there is none.
        note: What else it said, or why there is no answer.
        control: Of a control question, the length of a move inside the box that was known before to change the prediction of the
            network that is verified: ``unsat`` is false there. None of all other boxes.
        believed: Whether ``unsat`` is taken as a certificate. It is not where the verifier was seen to be wrong around this sample,
            nor where no control question could be asked and it named no point with another prediction.
    """

    epsilon: NotNegative
    answer: Answer
    seconds: NotNegative
    replay: bool | None = None
    distance: NotNegative | None = None
    note: str = ""
    control: NotNegative | None = None
    believed: bool = True
