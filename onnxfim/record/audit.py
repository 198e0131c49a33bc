"""Everything one audit found: the model, the data, the run, the samples and what follows from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

from onnxfim.record.audited_from import INPUT_UNIT, AuditedFrom, Position
from onnxfim.record.bound import Architecture, Bound, ClosedForm
from onnxfim.record.brief import brief
from onnxfim.record.data_info import DataInfo
from onnxfim.record.decision import Aggregates, BaselineComparison, Finding, GateResult, Verdict
from onnxfim.record.guarantee_summaries import BracketSummary, NoiseSummary, SmoothingSummary, VerifierSummary
from onnxfim.record.identity import Identity
from onnxfim.record.input_pictures import DirectionSummary, SeriesTrace
from onnxfim.record.limits import ALWAYS, AboveZero, Byte, Coefficient, Count, Limits, NotNegative, Part, Positive, closed
from onnxfim.record.robustness import Robustness
from onnxfim.record.row_check import RowCheck
from onnxfim.record.running import UNDONE, Run
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.record.served import Served
from onnxfim.record.settings import LABELLED, OUTPUT_FAMILIES, TEMPERED, OutputKind, Settings
from onnxfim.record.shown import Shown
from onnxfim.record.steps import StepChoice, SurrogateCheck
from onnxfim.record.ties import Ties
from onnxfim.record.writing import write_text

SCHEMA_VERSION = "2.0"


@dataclass(frozen=True)
class OutputInfo:
    """One output of the file, or several that are one thing: what its last nodes make of it, and what it is among the others.

    ``kind`` is None of labels and of what cannot be read; ``role`` is ``head`` where it tells something of its own, else how it
    goes with the output ``of``.
    """

    name: str
    kind: str | None
    shape: tuple[int | str | None, ...] | None
    role: Literal["head", "same", "derived", "features", "state", "boxes", "labels", "unread"]
    of: str | None = None


@dataclass(frozen=True)
class InputInfo:
    """An input of a file that has several, and what became of it.

    ``role`` tells whether it was perturbed, held at given values, or does not reach the output; ``at`` what it was held at, in
    words.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None
    role: Literal["perturbed", "held", "not read"]
    at: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """What was audited: the file, its interface, and how its outputs were read.

    ``output_kind`` is what the outputs are; ``read_from`` says which values were differentiated and how that is known.
    ``rewritten`` names what a copy of the file was needed for (it reproduced the file's outputs), or is None. ``doubt`` is what
    speaks against the kind that the outputs were read as. ``class_axis`` and ``batch_axis`` are those of the file's output, and
    ``axes_from`` tells how they are known; None in files that do not say. ``no_slope`` tells why the outputs have no slope, where
    they are a step function of the input. ``at`` tells where inside the file it was audited, where that is not its input: ``input``
    is then the value that was audited from. ``outputs`` are all that the file gives, where that is more than one thing; ``output``
    is what was audited of them. ``inputs`` are all of the file's, where it has several. ``served`` tells where a model was asked
    whose file was not seen: ``sha256`` is then that of its address and of what is told of it there, and no hash of weights.
    """

    path: str
    name: str
    sha256: str
    bytes: Count
    producer: str
    opset: int | None
    input: str
    input_shape: tuple[int | str | None, ...]
    input_dtype: str
    output: str
    num_outputs: int
    positions: int
    output_kind: OutputKind
    read_from: str
    rewritten: str | None = field(default=None, metadata=ALWAYS)
    doubt: str | None = None
    class_axis: Count | None = None
    batch_axis: Count | None = None
    axes_from: str | None = None
    no_slope: str | None = None
    outputs: tuple[OutputInfo, ...] = ()
    at: AuditedFrom | None = None
    inputs: tuple[InputInfo, ...] = ()
    served: Served | None = None


@dataclass(frozen=True)
class Calibration:
    """Clean accuracy, mean confidence and the temperature that minimises the negative log-likelihood (Guo et al. 2017).

    Attributes:
        accuracy: Share of right predictions; ``accuracy_low`` and ``accuracy_high`` end its 95 % interval.
        mean_confidence: Mean probability of the predicted class.
        temperature: None where there is none to fit; ``reason`` says why.
        nll_before: Mean negative log-likelihood at temperature 1, in nats.
        nll_after: The same at the temperature.
        errors: Wrong predictions, which are what a temperature is known by.
        log_error: Standard error of the temperature's logarithm; 0 where it was given.
        method: How the temperature was found.
        influences: What each labelled sample adds to the error of the logarithm, in the order of the data; their root sum of
            squares is ``log_error``. Two audits of the same samples share part of their errors, and these tell how much of it.
    """

    accuracy: Part | None
    accuracy_low: Part | None
    accuracy_high: Part | None
    mean_confidence: Part | None
    temperature: AboveZero | None
    nll_before: float | None
    nll_after: float | None
    reason: str | None = field(default=None, metadata=ALWAYS)
    errors: Count | None = field(default=None, metadata=ALWAYS)
    log_error: NotNegative | None = field(default=None, metadata=ALWAYS)
    method: str = field(default="", metadata=ALWAYS)
    influences: tuple[float, ...] = field(default=(), metadata=ALWAYS)


@dataclass(frozen=True)
class ClassRow:
    """One class of the per-class table; means are of the samples with this label (or prediction where there are no labels)."""

    index: Count
    name: str
    count: Count
    accuracy: Part | None
    mean_confidence: Part | None
    lambda_max_mean: float | None
    lambda_max_calibrated_mean: float | None
    boundary_distance_median: float | None


@closed
@dataclass(frozen=True)
class Thumbnail:
    """An input as a small picture: rows of 0-255 values, 1 or 3 channels, (H, W, C) flattened in that order."""

    index: Count
    height: Positive
    width: Positive
    channels: Annotated[int, Limits(choices=(1, 3))]
    pixels: tuple[Byte, ...]


@closed
@dataclass(frozen=True)
class DirectionPicture:
    """The worst direction of one sample: the input, the signed direction (grey is zero), the input moved along it.

    ``largest`` holds the coordinates with the largest entries and their values, for inputs that are no images (the pictures are
    None then). ``positions`` are those of a sequence of tokens, where each has values of its own, ``traces`` channels of a series.
    """

    index: Count
    role: Literal["worst", "median", "best"]
    epsilon: NotNegative
    prediction_before: int | None
    prediction_after: int | None
    input: Thumbnail | None
    direction: Thumbnail | None
    moved: Thumbnail | None
    largest: tuple[tuple[Count, float], ...] = field(default=(), metadata=ALWAYS)
    positions: tuple[Position, ...] = ()
    traces: tuple[SeriesTrace, ...] = ()


@closed
@dataclass(frozen=True)
class Correlation:
    """Spearman rank correlation of a measure with the smallest successful attack, with its 95 % bootstrap interval."""

    measure: str
    coefficient: Coefficient | None
    low: Coefficient | None
    high: Coefficient | None
    count: Count


@dataclass(frozen=True)
class AttackSummary:
    """What the attack replay found; a check of the metric, not a certificate of robustness.

    Distances are in raw input units where a normalisation was given, else in model input units. ``median_distance`` is an upper
    bound of the true smallest distance, None where most attacks failed (a failure is farther than any success); samples
    misclassified without attack count as distance 0 and are not in it.
    """

    norm: Literal["l2", "linf"]
    epsilon: NotNegative
    units: str
    samples: Count
    clean_accuracy: Part
    robust_accuracy: Part
    robust_accuracy_low: Part
    robust_accuracy_high: Part
    median_distance: NotNegative | None
    failed: Count
    input_low: float
    input_high: float
    steps: Count
    restarts: Count
    evaluations: Count
    seconds: NotNegative
    correlations: tuple[Correlation, ...]
    by_prediction: bool


@dataclass(frozen=True)
class GradientInfo:
    """How the derivative was obtained and checked; ``reason`` says why it was not used where it was not.

    ``ties`` are those of the data, whatever measured them; None where they were not looked for. ``check`` holds the values of a
    file that rounds against its surrogate's; ``no_check`` says why there are none. ``provider`` is where the derivative graphs ran,
    None where that is the model's own provider; ``provider_reason`` says why not there.
    """

    used: bool
    reason: str | None
    surrogate: bool
    adjoint_error: float | None
    difference_error: float | None
    cross_checked: Count
    cross_check_ratio: float | None
    check: SurrogateCheck | None = None
    no_check: str | None = None
    ties: Ties | None = None
    provider: str | None = None
    provider_reason: str | None = None


@dataclass(frozen=True, repr=False)
class Audit(Shown):
    """Everything one audit found; every format renders this object, and it is read back from its JSON.

    Examples:
        >>> import onnxfim
        >>> samples = onnxfim.load_samples("digits.npz", "digits_mlp.onnx", limit=20)
        >>> audit = onnxfim.audit("digits_mlp.onnx", samples, settings=onnxfim.Settings(samples=20, replay=0))
        >>> audit.save("audit.json")
        >>> onnxfim.Audit.load("audit.json") == audit
        True
        >>> audit.aggregates["lambda_max"].count, audit.samples[0].lambda_max.kind
        (20, 'exact')
    """

    model: ModelInfo
    data: DataInfo
    settings: Settings
    run: Run
    step: StepChoice
    calibration: Calibration
    aggregates: Mapping[str, Aggregates]
    samples: tuple[SampleResult, ...]
    skipped: tuple[Skipped, ...]
    findings: tuple[Finding, ...]
    verdict: Verdict
    classes: tuple[ClassRow, ...] = field(default=(), metadata=ALWAYS)
    thumbnails: tuple[Thumbnail, ...] = field(default=(), metadata=ALWAYS)
    gradient: GradientInfo | None = None
    directions: tuple[DirectionPicture, ...] = ()
    attack: AttackSummary | None = None
    architecture: Architecture | None = None
    bound: Bound | None = None
    closed_forms: tuple[ClosedForm, ...] = ()
    rows: RowCheck | None = None
    units: str = field(default=f"nats per squared {INPUT_UNIT}", metadata=ALWAYS)
    gates: tuple[GateResult, ...] = field(default=(), metadata=ALWAYS)
    comparison: BaselineComparison | None = field(default=None, metadata=ALWAYS)
    identity: Identity | None = None
    robustness: Robustness | None = None
    direction_summary: DirectionSummary | None = None
    bracket: tuple[BracketSummary, ...] = ()
    noise: tuple[NoiseSummary, ...] = ()
    smoothing: tuple[SmoothingSummary, ...] = ()
    verifier: VerifierSummary | None = None
    schema_version: str = field(default=SCHEMA_VERSION, metadata=ALWAYS)

    @property
    def measured(self) -> int:
        """How many samples have a value of lambda_max; an audit of which none has says nothing about its model."""
        return sum(s.lambda_max.value is not None for s in self.samples)

    @property
    def noise_alone(self) -> bool:
        """Whether outputs are steps (trees), which have no slope to measure, and what random noise does to them was measured."""
        return bool(self.noise or self.smoothing) and bool(self.model.no_slope) and not self.measured

    @property
    def wanted(self) -> int:
        """How many samples were to be measured: those that were, and those that an audit which ended early did not come to."""
        return len(self.samples) + sum(s.reason in UNDONE for s in self.skipped)

    @property
    def reads_labels(self) -> bool:
        """Whether labels, one for each sample, tell something of these outputs: an accuracy, and a temperature."""
        return self.model.positions == 1 and OUTPUT_FAMILIES[self.model.output_kind] in LABELLED

    @property
    def tempered(self) -> bool:
        """Whether raw values change with the temperature of a softmax or sigmoid."""
        return OUTPUT_FAMILIES[self.model.output_kind] in TEMPERED

    @property
    def decides(self) -> bool:
        """Whether a sample has one prediction, which may flip."""
        return any(s.prediction is not None for s in self.samples)

    def to_json(self, *, indent: int | None = 1) -> str:
        """This audit as JSON text (its schema: `onnxfim.record.schema.audit_schema`); never holds NaN or infinities."""
        from onnxfim.record.layout import audit_text

        return audit_text(self, indent=indent)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write this audit as JSON, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        from onnxfim.record.layout import audit_parts

        write_text(path, partial(audit_parts, self, indent=1))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Audit:
        """The audit that `save`, or ``onnxfim audit -o json=PATH``, wrote.

        Raises:
            OutputError: the file cannot be read, or does not hold what onnxfim writes: the first value that does not fit, by its
                path.
        """
        from onnxfim.record.json_text import read_json
        from onnxfim.record.layout import audit_from_dict

        return audit_from_dict(read_json(path), where=str(path))

    def __repr__(self) -> str:
        """Three lines instead of every number."""
        return brief(self)

    @staticmethod
    def from_json(text: str | bytes) -> Audit:
        """The audit that `to_json` wrote.

        Raises:
            OutputError: not JSON, another schema version, or fields that do not fit.
        """
        from onnxfim.record.json_text import parsed
        from onnxfim.record.layout import audit_from_dict

        return audit_from_dict(parsed(text, where="audit JSON"))
