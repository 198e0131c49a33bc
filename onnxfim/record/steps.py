"""The step of the differences: what was chosen, and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from onnxfim.record.limits import ALWAYS, Count, NotNegative, Part, closed


@closed
@dataclass(frozen=True)
class Rung:
    """One step of the ladder: the mean of lambda_max over the calibration samples at this step.

    ``step`` is the amplitude per coordinate in model input units. ``error`` is the measured share of the Gram matrix that is
    curvature, kinks and noise (from the even part of the differences); ``unchanged`` the share of directions that changed nothing.
    ``cross`` is the dithered cross-Gram value where it was measured.
    """

    step: NotNegative
    relative_step: float
    forward: float | None
    central: float | None
    error: float | None
    unchanged: Part
    cross: float | None = field(default=None, metadata=ALWAYS)


@closed
@dataclass(frozen=True)
class ClippedRange:
    """The range of inputs that a file tells apart, and the share of the audited coordinates within a step of its ends."""

    low: float
    high: float
    share: Part


@closed
@dataclass(frozen=True)
class StepBias:
    """How much larger lambda_max at no step is than at the chosen one, extrapolated along the ladder of a file that rounds.

    ``factor`` is the best guess, ``low`` and ``high`` its range. Where ``applied``, values carry the factor and intervals the
    range; else (a step was given) values are those at the step.
    """

    factor: NotNegative
    low: NotNegative
    high: NotNegative
    applied: bool


@dataclass(frozen=True)
class StepChoice:
    """The chosen step, the scheme at it, and the evidence: the curve lambda(r), the noise floor, the cost.

    ``scheme`` is ``forward``, ``central`` or ``dithered``. ``noise_floor`` is the rms rounding noise of one output in output
    units; ``repeat_noise`` the rms difference of repeated identical calls (0 for a deterministic run).
    With all coordinates each is moved by ``step·√d``, the length of the ladder's directions, unless the step was given.
    Where ``per_coordinate`` is true, features differ in scale: each is moved by ``step/input_std`` of its own deviation, and the
    values of the ladder are per squared standard deviation of each input. ``plateau`` tells whether the value is stable around the
    step; ``smallest_usable`` the smallest step that resolves anything. ``bias`` is what dithered values at the step are short of;
    ``rounding`` what shows that the file rounds, or None. Where no step was chosen, ``unchosen`` says why; ``step`` is then the one
    that was asked for, or 0, and the other fields tell nothing.

    ``evaluations`` are the passes that the ladder ran. Those at the chosen step and scheme serve as measurements as well, so that
    samples' own ``evaluations`` name them again; ``run.evaluations`` counts them once.
    """

    step: NotNegative
    scheme: Literal["forward", "central", "dithered"]
    plateau: bool
    given: bool
    input_std: float
    noise_floor: float | None
    repeat_noise: float
    error: float | None
    smallest_usable: float | None
    dither: float | None
    curve: tuple[Rung, ...]
    samples: tuple[int, ...]
    directions: int
    evaluations: int
    clipped: ClippedRange | None = None
    per_coordinate: bool = False
    bias: StepBias | None = None
    rounding: str | None = None
    unchosen: str | None = None


@closed
@dataclass(frozen=True)
class SurrogateCheck:
    """The file's values beside those of its clip surrogate (rounding left out), means over the same ``samples``.

    ``ratio`` is the file's over the surrogate's; its interval holds the estimates' noise and the step's bias.
    """

    samples: Count
    file: NotNegative
    surrogate: NotNegative
    ratio: NotNegative
    low: NotNegative
    high: NotNegative
