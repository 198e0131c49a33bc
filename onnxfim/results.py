"""The types that cross modules: settings that go in, estimates, samples and the audit that come out."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from onnxfim.errors import OutputError, SettingsError

SCHEMA_VERSION = "1.0"

Kind: TypeAlias = Literal["exact", "estimate", "lower bound", "upper bound"]
OutputKind: TypeAlias = Literal["logits", "probabilities", "sigmoid", "gaussian"]
Method: TypeAlias = Literal["auto", "gradient", "sketch", "exact"]
Level: TypeAlias = Literal["error", "warning", "note"]
Verdict: TypeAlias = Literal["pass", "fail", "inconclusive"]

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What an audit is asked to do; the defaults are the command line's.

    Attributes:
        samples: Audit at most this many samples (the first ones of the data), or all with None.
        method: ``gradient`` (derivative of the graph), ``sketch`` (random directions), ``exact`` (all coordinates by
            differences) or ``auto`` (gradient where the graph can be differentiated and passes its self-test, else exact where the
            budget covers it, else sketch).
        budget: Forward passes per sample, on average over the samples.
        precision: Relative half-width of the 95 % interval of the mean to reach; None spends the budget and stops.
        max_budget: With ``precision``, the most forward passes per sample that may be spent to reach it.
        step: Amplitude per coordinate in model input units, or None to choose it by the ladder.
        seed: Seed of all directions; sample i draws from ``[seed, i]``.
        batch: Rows per call of the runtime, or None to find the best.
        providers: ONNX Runtime providers in order of preference; ``auto`` takes CUDA where it loads, else the CPU.
        require_provider: Raise instead of falling back to another provider.
        output_kind: What the outputs are, or ``auto`` to read it from the graph and the values.
        input: Name of the input to audit where the model has several.
        output: Name of the output to audit where the model has several.
        temperature: Temperature of the calibrated values, or None to fit it on the labels.
        sigma: Standard deviation of the Gaussian for ``output_kind="gaussian"``, in output units.
        input_scale: d(model input)/d(raw input) per channel, for results in raw units; None when not known.
        tf32: Allow TF32 arithmetic on CUDA.
        replay: Samples whose KL curve along the worst direction is measured (spread over the ranking); needs gradients.
        attack: Norm of the attack replay, or None for no attack.
        epsilon: Radius of the attack, in model input units (raw units where ``input_scale`` is given); None for the
            median of the smallest successful attacks.
        attack_range: Smallest and largest input value that the attack may produce, or None for those of the data.
        attack_samples: Samples that are attacked at most.
        surrogate: Differentiate a clip surrogate of a quantised file, labelled as such.
    """

    samples: int | None = None
    method: Method = "auto"
    budget: int = 101
    precision: float | None = None
    max_budget: int = 2000
    step: float | None = None
    seed: int = 0
    batch: int | None = None
    providers: tuple[str, ...] = ("auto",)
    require_provider: bool = False
    output_kind: OutputKind | Literal["auto"] = "auto"
    input: str | None = None
    output: str | None = None
    temperature: float | None = None
    sigma: float = 1.0
    input_scale: tuple[float, ...] | None = None
    tf32: bool = False
    replay: int = 64
    attack: Literal["l2", "linf"] | None = None
    epsilon: float | None = None
    attack_range: tuple[float, float] | None = None
    attack_samples: int = 100
    surrogate: bool = False

    def __post_init__(self) -> None:
        checks = (
            (self.samples is None or self.samples >= 1, f"samples: {self.samples} is not a positive number of samples."),
            (self.method in typing.get_args(Method), f"method: {self.method!r} is not one of {typing.get_args(Method)}."),
            (self.budget >= 12, f"budget: {self.budget} forward passes per sample are too few; give at least 12."),
            (self.precision is None or 0 < self.precision < 1, f"precision: {self.precision} is not between 0 and 100 %."),
            (self.max_budget >= self.budget or self.precision is None,
             f"max_budget: {self.max_budget} is less than the budget of {self.budget}."),
            (self.step is None or (self.step > 0 and math.isfinite(self.step)), f"step: {self.step} is not a positive number."),
            (0 <= self.seed < 2**63, f"seed: {self.seed} is not between 0 and 2^63 - 1."),
            (self.batch is None or self.batch >= 1, f"batch: {self.batch} is not a positive number of rows."),
            (len(self.providers) >= 1, "providers: none is named; give at least one, such as 'auto' or 'cpu'."),
            (self.output_kind in ("auto", *typing.get_args(OutputKind)),
             f"output_kind: {self.output_kind!r} is not auto or one of {typing.get_args(OutputKind)}."),
            (self.temperature is None or 0 < self.temperature < math.inf,
             f"temperature: {self.temperature} is not a positive number."),
            (self.replay >= 0, f"replay: {self.replay} is not a number of samples."),
            (self.epsilon is None or self.epsilon > 0, f"epsilon: {self.epsilon} is not a positive number."),
            (self.attack_range is None or self.attack_range[0] < self.attack_range[1],
             f"attack_range: {self.attack_range} is not a smaller and a larger number."),
            (self.attack_samples >= 1, f"attack_samples: {self.attack_samples} is not a positive number of samples."),
            (self.sigma > 0 and math.isfinite(self.sigma), f"sigma: {self.sigma} is not a positive number."),
        )  # fmt: skip
        for good, message in checks:
            if not good:
                raise SettingsError(message)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, its kind and its cost.

    ``value`` is None where it could not be measured; ``reason`` then says why.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    kind: Kind = "estimate"
    method: str = ""
    evaluations: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Sketch:
    """lambda_max of one sample at one temperature, with the two estimates that bracket its bias.

    ``plain`` is biased upwards (no correction); ``cross_fit`` downwards (directions of one half, values of the other).
    """

    estimate: Estimate
    plain: float | None = None
    cross_fit: float | None = None


@dataclass(frozen=True)
class KLPoint:
    """Measured KL divergences at one distance, in nats; ``quadratic`` is ``½ λ ε²``."""

    epsilon: float
    along: float
    against: float
    random: float
    quadratic: float


@dataclass(frozen=True)
class KLCurve:
    """Measured KL(p(x) ‖ p(x + εv)) along the worst direction ±v and a random one, over a ladder of ε.

    ``holds_to`` is the largest ε up to which the quadratic form is within 10 % on both sides, None if nowhere. ``flips_at`` is the
    smallest ε of the ladder at which the prediction changed, None if at none.
    """

    points: tuple[KLPoint, ...]
    holds_to: float | None
    flips_at: float | None


@dataclass(frozen=True)
class SampleResult:
    """All measures of one sample; lambda_max and trace in nats per squared model input unit.

    ``index`` is the position in the data as given. ``evaluations`` counts forward passes spent on this sample.
    ``unchanged`` is the share of directions along which no output changed at all.
    """

    index: int
    name: str
    label: int | None
    prediction: int | None
    confidence: float | None
    lambda_max: Sketch
    lambda_max_calibrated: Sketch
    trace: Estimate
    effective_rank: float | None
    boundary_distance: Estimate
    logit_sensitivity: Estimate
    evaluations: int
    directions: int
    unchanged: float = 0.0
    lambda_max_raw_units: Estimate | None = None
    top_eigenvalues: tuple[float, ...] = ()
    kl_curve: KLCurve | None = None
    attack_distance: Estimate | None = None


@dataclass(frozen=True)
class Aggregate:
    """One statistic over the samples, with an interval that holds both the sampling of the data and the estimates' noise.

    ``confidence`` is the level that the interval attains: 0.95, or less where so few samples cannot give it.
    """

    value: float | None
    low: float | None
    high: float | None
    confidence: float = 0.95
    method: str = ""


@dataclass(frozen=True)
class Aggregates:
    """The statistics of one measure over the samples that have it (``count`` of them)."""

    mean: Aggregate
    median: Aggregate
    p95: Aggregate
    max: Aggregate
    count: int
    units: str


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: the mean of lambda_max over the calibration samples at this step.

    ``step`` is the amplitude per coordinate in model input units. ``error`` is the measured share of the Gram matrix that is
    curvature, kinks and noise (from the even part of the differences); ``unchanged`` the share of directions that changed nothing.
    ``cross`` is the dithered cross-Gram value where it was measured.
    """

    step: float
    relative_step: float
    forward: float | None
    central: float | None
    error: float | None
    unchanged: float
    cross: float | None = None


@dataclass(frozen=True)
class StepChoice:
    """The chosen step, the scheme at it, and the evidence: the curve lambda(r), the noise floor, the cost.

    ``scheme`` is ``forward``, ``central`` or ``dithered``. ``noise_floor`` is the rms rounding noise of one output in output
    units; ``repeat_noise`` the rms difference of repeated identical calls (0 for a deterministic run).
    ``plateau`` tells whether the value is stable around the step; ``smallest_usable`` the smallest step that resolves anything.
    """

    step: float
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


@dataclass(frozen=True)
class Finding:
    """Something a reader must know; ``id`` is stable, ``message`` says what was seen, what it means and what to do."""

    id: str
    level: Level
    message: str


@dataclass(frozen=True)
class Skipped:
    """A sample that was not audited, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class ModelInfo:
    """What was audited: the file, its interface, and how its outputs were read.

    ``output_kind`` is what the outputs are; ``read_from`` says which values were differentiated and how that is known.
    ``rewritten`` names what a copy of the file was needed for (it reproduced the file's outputs), or is None.
    """

    path: str
    name: str
    sha256: str
    bytes: int
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
    rewritten: str | None = None


@dataclass(frozen=True)
class DataInfo:
    """What the model was audited on."""

    source: str
    sha256: str
    count: int
    shape: tuple[int, ...]
    labels: bool
    synthetic: bool
    class_names: tuple[str, ...] | None = None
    input_min: float = 0.0
    input_max: float = 0.0
    input_std: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Clean accuracy, mean confidence and the temperature that minimises the negative log-likelihood (Guo et al. 2017)."""

    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    mean_confidence: float | None
    temperature: float | None
    nll_before: float | None
    nll_after: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Run:
    """How it was run. ``times`` holds all that depends on the clock; everything else repeats on the same machine."""

    provider: str
    providers_requested: tuple[str, ...]
    providers_registered: tuple[str, ...]
    provider_reason: str | None
    method: str
    step: float
    scheme: str
    temperature: float | None
    seed: int
    evaluations: int
    seconds: float
    versions: Mapping[str, str]
    platform: str
    partial: bool
    times: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassRow:
    """One class of the per-class table; means are of the samples with this label (or prediction where there are no labels)."""

    index: int
    name: str
    count: int
    accuracy: float | None
    mean_confidence: float | None
    lambda_max_mean: float | None
    lambda_max_calibrated_mean: float | None
    boundary_distance_median: float | None


@dataclass(frozen=True)
class Thumbnail:
    """An input as a small picture: rows of 0-255 values, 1 or 3 channels, (H, W, C) flattened in that order."""

    index: int
    height: int
    width: int
    channels: int
    pixels: tuple[int, ...]


@dataclass(frozen=True)
class DirectionPicture:
    """The worst direction of one sample: the input, the signed direction (grey is zero), the input moved along it.

    ``largest`` holds the coordinates with the largest entries and their values, for inputs that are no images (the pictures are
    None then).
    """

    index: int
    role: Literal["worst", "median", "best"]
    epsilon: float
    prediction_before: int | None
    prediction_after: int | None
    input: Thumbnail | None
    direction: Thumbnail | None
    moved: Thumbnail | None
    largest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Correlation:
    """Spearman rank correlation of a measure with the smallest successful attack, with its 95 % bootstrap interval."""

    measure: str
    coefficient: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class AttackSummary:
    """What the attack replay found; a check of the metric, not a certificate of robustness.

    Distances are in raw input units where a normalisation was given, else in model input units. ``median_distance`` is an upper
    bound of the true smallest distance; samples misclassified without attack count as distance 0 and are not in it.
    """

    norm: Literal["l2", "linf"]
    epsilon: float
    units: str
    samples: int
    clean_accuracy: float
    robust_accuracy: float
    robust_accuracy_low: float
    robust_accuracy_high: float
    median_distance: float | None
    failed: int
    input_low: float
    input_high: float
    steps: int
    restarts: int
    evaluations: int
    seconds: float
    correlations: tuple[Correlation, ...]
    by_prediction: bool


@dataclass(frozen=True)
class GradientInfo:
    """How the derivative was obtained and checked; ``reason`` says why it was not used where it was not."""

    used: bool
    reason: str | None
    surrogate: bool
    adjoint_error: float | None
    difference_error: float | None
    cross_checked: int
    cross_check_ratio: float | None


@dataclass(frozen=True)
class Audit:
    """Everything one audit found; every format renders this object, and it is read back from its JSON."""

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
    classes: tuple[ClassRow, ...] = ()
    thumbnails: tuple[Thumbnail, ...] = ()
    gradient: GradientInfo | None = None
    directions: tuple[DirectionPicture, ...] = ()
    attack: AttackSummary | None = None
    units: str = "nats per squared model input unit"
    schema_version: str = SCHEMA_VERSION

    def to_json(self, *, indent: int | None = 1) -> str:
        """This audit as JSON text (schema in ``onnxfim/schema/audit.schema.json``); never holds NaN or infinities."""
        return json.dumps(audit_to_dict(self), indent=indent, allow_nan=False)

    @staticmethod
    def from_json(text: str | bytes) -> Audit:
        """The audit that `to_json` wrote.

        Raises:
            OutputError: not JSON, another schema version, or fields that do not fit.
        """
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise OutputError(f"audit JSON: cannot be parsed ({error}). Give a file that onnxfim wrote with -o json=…") from error
        return audit_from_dict(record)


def audit_to_dict(audit: Audit) -> dict[str, Any]:
    """The audit as plain dicts and lists in the published layout."""
    record = to_plain(audit)
    record["schema_version"] = audit.schema_version
    record["samples"] = [_sample_to_dict(s) for s in audit.samples]
    order = ("schema_version", "verdict", "model", "data", "run")
    return {**{k: record[k] for k in order}, **record}


def _sample_to_dict(sample: SampleResult) -> dict[str, Any]:
    """A sample in the published layout: plain numbers on top, their intervals and kinds under ``intervals``."""
    record = to_plain(sample)
    record["intervals"] = {}
    for name in ("lambda_max", "lambda_max_calibrated"):
        sketch = record[name]
        record[name] = {**sketch["estimate"], "plain": sketch["plain"], "cross_fit": sketch["cross_fit"]}
    for name in ("trace", "boundary_distance", "logit_sensitivity", "attack_distance"):
        if record[name] is not None:
            record["intervals"][name] = record[name]
            record[name] = record[name]["value"]
    return typing.cast("dict[str, Any]", record)


def audit_from_dict(record: Any) -> Audit:
    """The inverse of `audit_to_dict`."""
    if not isinstance(record, dict) or "schema_version" not in record:
        raise OutputError("audit JSON: no 'schema_version' field. Give a file that onnxfim wrote with -o json=…")
    version = str(record["schema_version"])
    if version.split(".", maxsplit=1)[0] != SCHEMA_VERSION.split(".", maxsplit=1)[0]:
        raise OutputError(f"audit JSON: schema_version is {version}, expected {SCHEMA_VERSION}. Use the onnxfim that wrote it.")
    try:
        samples = [_sample_from_dict(s) for s in record["samples"]]
        return typing.cast(Audit, from_plain(Audit, {**record, "samples": samples}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(f"audit JSON: does not fit schema {SCHEMA_VERSION} ({error!r}). Write it anew with -o json=…") from error


def _sample_from_dict(record: Mapping[str, Any]) -> dict[str, Any]:
    sample = {k: v for k, v in record.items() if k != "intervals"}
    for name in ("lambda_max", "lambda_max_calibrated"):
        flat = dict(sample[name])
        plain, cross_fit = flat.pop("plain"), flat.pop("cross_fit")
        sample[name] = {"estimate": flat, "plain": plain, "cross_fit": cross_fit}
    return {**sample, **record["intervals"]}


def to_plain(value: Any) -> Any:
    """Frozen dataclasses, tuples and mappings as dicts and lists; numbers that are not finite become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(v) for v in value]
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def from_plain(kind: Any, value: Any) -> Any:
    """Rebuild a value of type ``kind`` (dataclass, tuple, mapping, optional) from what `to_plain` made of it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return from_plain(next(a for a in arguments if a is not type(None)), value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {f.name for f in dataclasses.fields(kind)}
        return kind(**{k: from_plain(hints[k], v) for k, v in value.items() if k in known})  # type: ignore[operator]
    if origin is tuple:
        inner = arguments[0]
        return tuple(from_plain(inner, v) for v in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {k: from_plain(arguments[1], v) for k, v in value.items()}
    if kind is float:
        return float(value)
    return value
