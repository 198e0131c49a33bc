"""The types that cross modules: settings that go in, estimates, samples and the audit that come out."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias

from onnxfim.errors import OutputError, SettingsError

SCHEMA_VERSION = "1.0"

Kind: TypeAlias = Literal["exact", "estimate", "lower bound", "upper bound"]
OutputKind: TypeAlias = Literal["logits", "probabilities", "sigmoid", "gaussian"]
Method: TypeAlias = Literal["auto", "gradient", "sketch", "exact"]
Level: TypeAlias = Literal["error", "warning", "note"]
Verdict: TypeAlias = Literal["pass", "fail", "inconclusive"]
Operator: TypeAlias = Literal[">", ">=", "<", "<="]
Scope: TypeAlias = Literal["samples", "population"]

#: Families of networks, as `architecture` tells them apart.
FAMILIES = ("mlp", "vgg", "resnet", "densenet", "transformer", "hybrid", "unknown")


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
        scheme: Finite differences to take, or ``auto`` to choose them with the step.
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
        bounds: Read the architecture class and compute the spectral bound from the weights.
        surrogate: Differentiate a clip surrogate of a quantised file, labelled as such.
    """

    samples: int | None = None
    method: Method = "auto"
    budget: int = 101
    precision: float | None = None
    max_budget: int = 2000
    step: float | None = None
    scheme: Literal["auto", "forward", "central", "dithered"] = "auto"
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
    bounds: bool = True
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
            (self.scheme in ("auto", "forward", "central", "dithered"),
             f"scheme: {self.scheme!r} is not auto, forward, central or dithered."),
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
    ``replicates`` are the jackknife's pseudo-values, one for each group of directions, as multiples of the value: two audits with
    the same directions share their noise, and these tell how much of it. Empty for exact values.
    """

    estimate: Estimate
    plain: float | None = None
    cross_fit: float | None = None
    replicates: tuple[float, ...] = ()


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
    ``unchanged`` is the share of directions along which no output changed at all. ``log10_fisher_bound`` is log10 of the upper
    bound ``max_k 2p_k(1 − p_k) · L²``, with L from the weights.
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
    log10_fisher_bound: float | None = None


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
    With all coordinates each is moved by ``step·√d``, the length of the ladder's directions, unless the step was given.
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


#: Written for log10 of zero (a map that is constant): an upper bound of it, and a number in every JSON reader.
LOG10_ZERO = -1000.0


@dataclass(frozen=True)
class Factor:
    """One operator's norm.

    ``kind`` is ``linear``, ``activation``, ``pooling``, ``normalisation``, ``attention`` or ``product``; ``method`` says
    how the norm
    was bounded; ``rigorous`` is False only for figures shown for information.
    """

    node: str
    op: str
    shape: tuple[int, ...]
    log10_norm: float
    method: str
    kind: str
    rigorous: bool = True
    note: str = ""


@dataclass(frozen=True)
class Share:
    """How much log10 L grows from the previous value that all paths cross to the output of ``node``, in graph order."""

    node: str
    op: str
    log10_gain: float
    log10_total: float
    nodes: int


@dataclass(frozen=True)
class Bound:
    """An upper bound of the Lipschitz constant of the logits (L2), and of the Fisher information, ``‖F‖ ≤ ½L²``.

    ``available`` is False where an operator has no finite bound: ``reason`` names it, the two figures are None, and ``factors``
    and ``shares`` hold what could be bounded. ``log10_lipschitz`` is `LOG10_ZERO` where the logits do not depend on the input.
    """

    available: bool
    reason: str
    log10_lipschitz: float | None
    log10_fisher: float | None
    factors: tuple[Factor, ...]
    assumptions: tuple[str, ...]
    shares: tuple[Share, ...] = field(default=())

    def to_json(self) -> dict[str, object]:
        """The bound as JSON values; every number is finite."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Bound:
        """The bound that `to_json` wrote.

        Raises:
            OutputError: the data has another form.
        """
        try:
            read = json.loads(json.dumps(data))
            factors = tuple(Factor(**{**f, "shape": tuple(f["shape"])}) for f in read.pop("factors"))
            shares = tuple(Share(**s) for s in read.pop("shares"))
            return cls(**{**read, "factors": factors, "shares": shares, "assumptions": tuple(read["assumptions"])})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OutputError(f"bound: cannot be read back ({error}); a bound written by to_json was expected.") from error


@dataclass(frozen=True)
class ClosedForm:
    """One family's closed form on the layers of a model, log10; None where the model has no layer of the kind it needs."""

    family: str
    formula: str
    log10_lipschitz: float | None


@dataclass(frozen=True)
class Architecture:
    """One of `FAMILIES`, and plain sentences with the node names and counts that led to it."""

    family: str
    evidence: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The architecture as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Architecture:
        """The architecture that `to_json` wrote.

        Raises:
            OutputError: the data has another form.
        """
        evidence = data.get("evidence")
        if (
            data.get("family") not in FAMILIES
            or not isinstance(evidence, (list, tuple))
            or not all(isinstance(e, str) for e in evidence)
        ):
            raise OutputError(
                "architecture: cannot be read back; a family and a list of sentences were expected, as to_json writes them."
            )
        return cls(str(data["family"]), tuple(evidence))


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
    bound of the true smallest distance, None where most attacks failed (a failure is farther than any success); samples
    misclassified without attack count as distance 0 and are not in it.
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
class GateResult:
    """What became of one gate, such as ``lambda_max.p95 > 12.5``; the gate fails where the relation holds.

    ``low`` and ``high`` are the ends that the verdict was taken on: None where few samples do not bound that side.
    ``comparison`` is the whole comparison in unrounded numbers; ``advice`` says what would settle an inconclusive one.
    """

    text: str
    name: str
    operator: Operator
    threshold: float
    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    comparison: str
    advice: str | None = None


@dataclass(frozen=True)
class Difference:
    """Something in which two audits differ, beside the model's values."""

    name: str
    baseline: str
    current: str


@dataclass(frozen=True)
class Movement:
    """One sample's value in the baseline and now."""

    index: int
    name: str
    baseline: float
    current: float


@dataclass(frozen=True)
class BaselineComparison:
    """The same samples measured in a baseline and now.

    Attributes:
        baseline: Name of the baseline's model.
        baseline_sha256: Hash of its file.
        measure: What was compared: ``lambda_max_calibrated`` where both have it, else ``lambda_max``.
        units: Units of the means.
        count: Samples that both measured.
        paired: Whether seed, directions, step and scheme are those of the baseline, so that the estimates' noise is shared.
        scope: Whether the verdict is about these very samples (``ratio_here``) or about the population they come from (``ratio``).
        max_regression: Largest rise of the mean that passes, as a share of the baseline's.
        mean_baseline, mean_current: Means over the shared samples.
        ratio: Mean now over mean then; its interval holds the sampling of the data and the estimates' noise.
        ratio_here: The same on these very samples: its interval holds the estimates' noise alone.
        worse, better: Shares of the samples whose value rose or fell.
        differences: What else differs between the two audits.
        movements: The samples that moved the mean most.
        verdict: ``fail`` where the whole interval is above ``1 + max_regression``, ``pass`` where none of it is.
        comparison: The comparison in unrounded numbers.
        advice: What would settle an inconclusive one.
    """

    baseline: str
    baseline_sha256: str
    measure: str
    units: str
    count: int
    paired: bool
    scope: Scope
    max_regression: float
    mean_baseline: float
    mean_current: float
    ratio: Aggregate
    ratio_here: Aggregate
    worse: Aggregate
    better: Aggregate
    differences: tuple[Difference, ...]
    movements: tuple[Movement, ...]
    verdict: Verdict
    comparison: str
    advice: str | None = None


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
    architecture: Architecture | None = None
    bound: Bound | None = None
    closed_forms: tuple[ClosedForm, ...] = ()
    units: str = "nats per squared model input unit"
    gates: tuple[GateResult, ...] = ()
    comparison: BaselineComparison | None = None
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


def estimate_of(sample: SampleResult, measure: str) -> Estimate | None:
    """A sample's estimate of ``measure``, or None where the audit has no such measure."""
    value = getattr(sample, measure, None)
    if value is None or isinstance(value, Estimate):
        return value
    if isinstance(value, (int, float)):
        return Estimate(float(value), float(value), float(value))
    inner = getattr(value, "estimate", None)
    return inner if isinstance(inner, Estimate) else None


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
        record[name] = {**sketch["estimate"], **{k: v for k, v in sketch.items() if k != "estimate"}}
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
        apart = {"plain": flat.pop("plain"), "cross_fit": flat.pop("cross_fit"), "replicates": flat.pop("replicates", ())}
        sample[name] = {"estimate": flat, **apart}
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


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Types of a dataclass's fields; thousands of samples ask for the same ones."""
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def from_plain(kind: Any, value: Any) -> Any:
    """Rebuild a value of type ``kind`` (dataclass, tuple, mapping, optional) from what `to_plain` made of it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return from_plain(next(a for a in arguments if a is not type(None)), value)
    if dataclasses.is_dataclass(kind):
        hints = _hints(typing.cast(type, kind))
        return kind(**{k: from_plain(hints[k], v) for k, v in value.items() if k in hints})  # type: ignore[operator]
    if origin is tuple:
        inner = arguments[0]
        return tuple(from_plain(inner, v) for v in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {k: from_plain(arguments[1], v) for k, v in value.items()}
    if kind is float:
        return float(value)
    return value
