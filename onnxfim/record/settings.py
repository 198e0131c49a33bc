"""What an audit is asked to do: each setting is declared here, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from onnxfim.record.declared import check, documented, setting, settings_of
from onnxfim.record.input_pictures import InputKind
from onnxfim.record.noises import gaussian_size, what_is_wrong

OutputKind: TypeAlias = Literal["logits", "probabilities", "sigmoid", "gaussian", "embedding", "detection"]
#: What each is a distribution of, in words: audits of one family can be compared.
OUTPUT_FAMILIES: dict[OutputKind, str] = {
    "logits": "class probabilities", "probabilities": "class probabilities", "sigmoid": "sigmoid", "gaussian": "gaussian",
    "embedding": "embedding", "detection": "detection",
}  # fmt: skip
#: Families whose outputs a label for each sample tells something of: an accuracy, and a temperature.
LABELLED: frozenset[str] = frozenset({"class probabilities", "sigmoid"})
#: Families of outputs that a temperature of a softmax or sigmoid would change.
TEMPERED: frozenset[str] = LABELLED | {"detection"}
Method: TypeAlias = Literal["auto", "gradient", "sketch", "exact"]


def _is_pair(text: str) -> bool:
    key, equals, value = text.partition("=")
    return bool(key.strip() and equals and value.strip())


def shape_given(text: str) -> tuple[str, tuple[int | None, ...]] | None:
    """An input's name and sizes, None for the batch, from ``NAME:[N,3,8]``; None where it is not written so."""
    name, colon, sizes = text.rpartition(":")
    parts = [p.strip() for p in sizes.strip().removeprefix("[").removesuffix("]").split(",")]
    whole = name.strip() and colon and sizes.strip().startswith("[") and sizes.strip().endswith("]")
    if not whole or any(not (p.isidentifier() or (p.isdigit() and 0 < int(p) < 2**31)) for p in parts):
        return None
    found = tuple(int(p) if p.isdigit() else None for p in parts)
    return (name.strip(), found) if found.count(None) <= 1 else None


def smoothing_sigma(text: str, otherwise: float) -> float | None:
    """Standard deviation that ``smoothing:SIGMA`` asks for, ``otherwise`` where it gives none; None where it is not written so."""
    kind, colon, size = text.strip().partition(":")
    if kind != "smoothing":
        return None
    return gaussian_size(size) if colon else otherwise


@documented
@dataclass(frozen=True)
class Settings:
    """What an audit is asked to do; the defaults are the command line's.

    Examples:
        >>> import onnxfim
        >>> onnxfim.Settings(samples=100, method="sketch", budget=401).precision is None
        True
    """

    samples: int | None = setting(
        None, help="Audit at most this many samples, the first ones of the data.", unset="all", least=1,
        wrong="{value} is not a positive number of samples.", group="data", example=1000, prints="at most {value}",
        paired="settings",
    )  # fmt: skip
    method: Method = setting(
        "auto", help="Derivative of the graph (gradient), random directions (sketch), all coordinates by differences (exact), or "
        "the best of these that works (auto).", paired="run",
    )  # fmt: skip
    budget: int = setting(
        101, help="Forward passes per sample, on average over the samples.", least=12,
        wrong="{value} forward passes per sample are too few; give at least {least}.", prints="{value} passes per sample",
        matters=True, paired="settings",
    )  # fmt: skip
    precision: float | None = setting(
        None, help="Half-width of the mean's 95 % interval to reach, such as 5%; without it the budget is spent.", share=True,
        over=0, under=1, unset="not asked for", example="5%",
        prints="{value}, at most {settings.max_budget:,} passes per sample", matters=True,
    )  # fmt: skip
    max_budget: int = setting(
        2000, help="With a precision to reach: forward passes per sample at most.", least=12,
        good=lambda s: s.precision is None or s.max_budget >= s.budget,
        wrong="{value} is less than the budget of {settings.budget}.", row="never",
    )  # fmt: skip
    step: float | None = setting(
        None, help="Amplitude per coordinate, in input units (where features differ in scale, of one whose deviation is the pooled "
        "one); auto chooses it.", over=0, auto=True, paired="run",
    )  # fmt: skip
    scheme: Literal["auto", "forward", "central", "dithered"] = setting(
        "auto", help="Finite differences along random directions (all coordinates take central ones); dithered ones average out "
        "the rounding of int8 and float16 files.", row="never",
        paired="run", with_setting="step",
    )  # fmt: skip
    seed: int = setting(
        0, help="Seed of all directions.", least=0, good=lambda s: s.seed < 2**63, wrong="{value} is not between 0 and 2^63 - 1.",
        row="never", paired="run",
    )  # fmt: skip
    batch: int | None = setting(
        None, help="Rows per call of the runtime; auto finds the best.", least=1, wrong="{value} is not a positive number of rows.",
        auto=True, group="run", identifies=False,
    )  # fmt: skip
    providers: tuple[str, ...] = setting(
        ("auto",), help="cpu, cuda, tensorrt, openvino, … or any provider of ONNX Runtime or of an installed plug-in, in order of "
        "preference; cuda:1 is the second card; auto takes CUDA where it loads, else the CPU.",
        good=lambda s: len(s.providers) >= 1, wrong="none is named; give at least one, such as 'auto' or 'cpu'.",
        option="provider", row="never",
        group="run",
    )  # fmt: skip
    provider_options: tuple[str, ...] = setting(
        (), help="Option of a provider, such as device_id=1: of the first provider, or of the one named before a colon, as in "
        "cuda:device_id=1.", good=lambda s: all(_is_pair(o) for o in s.provider_options),
        wrong="{value} holds one that is not KEY=VALUE. Write it such as 'device_id=1' or 'cuda:device_id=1'.",
        option="provider-option", metavar="KEY=VALUE", example=["device_id=1"], row="changed", matters=True,
        group="run",
    )  # fmt: skip
    provider_libraries: tuple[str, ...] = setting(
        (), help="Shared library of a plug-in provider, and the name to ask for it by. It is loaded into this process, so the "
        "command line alone names it. Installed packages (onnxruntime-ep-NAME) need none.",
        good=lambda s: all(_is_pair(o) for o in s.provider_libraries),
        wrong="{value} holds one that is not NAME=PATH. Write it such as 'mine=/opt/mine/libmine.so'.",
        option="provider-library", metavar="NAME=PATH", row="changed", group="run", identifies=False,
    )  # fmt: skip
    custom_op_libraries: tuple[str, ...] = setting(
        (), help="Shared library of custom operators for ONNX Runtime. It is loaded into the process that runs the model, so the "
        "command line alone names it, and nothing is loaded without it.",
        good=lambda s: all(path.strip() for path in s.custom_op_libraries), wrong="{value} holds one without a path.",
        option="custom-op-library", metavar="PATH", row="changed", matters=True, group="run", identifies=False,  # their hashes do
    )  # fmt: skip
    require_provider: bool = setting(
        False,
        help="Fail if the provider is not obtained, instead of falling back.",
        label="Provider required",
        group="run",
        identifies=False,
    )
    output_kind: Literal["auto"] | OutputKind = setting(
        "auto", help="What the outputs are; auto reads it from the graph and the values.", group="model"
    )
    input_kind: Literal["auto"] | InputKind = setting(
        "auto", help="What the inputs are, for the pictures of a report; auto tells it by their shape and values.", row="changed"
    )
    input: str | tuple[str, ...] | None = setting(
        None, help="Name of the input to perturb, where the model has several. Named several times: these together, as one vector.",
        metavar="NAME", row="never",
        group="model",
    )  # fmt: skip
    feed: tuple[str, ...] = setting(
        (), help="What another input of the model is held at: a number, zeros, ones, or an array in FILE.npy or FILE.npz:KEY, for "
        "all samples or one for each. Without it the data's own values are taken, under the input's name.",
        good=lambda s: all(_is_pair(o) for o in s.feed),
        wrong="{value} holds one that is not NAME=VALUE. Write it such as 'mask=ones'.",
        metavar="NAME=VALUE", example=["mask=ones"], row="changed", matters=True, group="model",
        identifies=False,  # the hash of the values does
    )  # fmt: skip
    shape: tuple[str, ...] = setting(
        (), help="Sizes of an input whose file leaves them open, such as x:[N,3,224,224]; N is the batch, on whichever axis.",
        good=lambda s: all(shape_given(o) is not None for o in s.shape),
        wrong="{value} holds one that is not NAME:[N,SIZE,…]. Write it such as 'x:[N,3,224,224]'.",
        metavar="NAME:[N,…]", example=["x:[N,3,224,224]"], row="changed", matters=True,
        group="model",
    )  # fmt: skip
    output: str | None = setting(
        None, help="Name of the output, where the model has several; several names with commas between them, or `all`, audit their "
        "joint distribution as independent heads.", metavar="NAME[,NAME]|all", row="never",
        group="model",
    )  # fmt: skip
    at: str | None = setting(
        None, help="Name of an inner float value to audit from; without it a file is audited at its input, or, where that takes "
        "whole numbers, at the embedding or the first float value behind it.", metavar="TENSOR", unset="the input",
        example="embedding", row="changed", label="Audited from", matters=True, paired="settings",
        group="model",
    )  # fmt: skip
    class_axis: int | None = setting(
        None, help="Axis of the output that holds the classes, counted from 0 with the batch among them, or from the end with a "
        "minus; without it the graph's last nodes, names and values tell it.", metavar="AXIS", unset="read from the graph",
        example=-1, row="changed", matters=True,
        group="model",
    )  # fmt: skip
    batch_axis: int | None = setting(
        None, help="Axis of the output that holds the batch; without it two calls tell it.", metavar="AXIS",
        unset="found by two calls", example=1, row="changed",
        group="model",
    )  # fmt: skip
    temperature: float | None = setting(
        None, help="Temperature of the calibrated values; auto fits it on the labels.", over=0, auto=True,
        unset="fitted on the labels", matters=True, paired="settings",
    )  # fmt: skip
    sigma: float = setting(
        1.0, help="Standard deviation of the Gaussian, in output units, where the output kind is gaussian or "
        "embedding (of length 1); of classes, that of the noise of --certify smoothing, in raw input units where these are known.",
        over=0, row="changed", matters=True,
        group="model",
    )  # fmt: skip
    score_threshold: float = setting(
        0.25, help="Score at or above which a box is audited, with all its scores, where the output kind is detection.", over=0,
        under=1, row="changed", matters=True,
        group="model",
    )  # fmt: skip
    input_scale: tuple[float, ...] | None = setting(
        None, help="d(model input)/d(raw input) per channel, for results in raw units; None where it is not known.", option=None,
        unset="not known", matters=True,
    )  # fmt: skip
    tf32: bool = setting(
        False, help="Allow TF32 arithmetic on CUDA.", label="TF32", words=("off", "allowed"), matters=True, group="run"
    )
    replay: int = setting(
        64, help="Samples, spread over the ranking, whose KL curve along the worst direction is measured (needs gradients).",
        least=0, wrong="{value} is not a number of samples.", row="changed",
    )  # fmt: skip
    flip: bool = setting(
        True, help="Measure how far each sample must move along its Fisher direction until its prediction changes: about 20 "
        "forward passes a sample beside the budget.", label="Flip radius", row="changed",
    )  # fmt: skip
    attack: Literal["l2", "linf"] | None = setting(
        None, help="Attack the model, in this norm, and correlate every measure with the result (needs gradients).", row="changed"
    )
    epsilon: float | None = setting(
        None, help="Radius of the attack, in model input units, or in raw units where these are known.", over=0,
        unset="median smallest attack", example=0.5, row="changed",
    )  # fmt: skip
    attack_range: tuple[float, float] | None = setting(
        None, help="Smallest and largest input value that the attack may produce.",
        good=lambda s: s.attack_range is None or s.attack_range[0] < s.attack_range[1],
        wrong="{value} is not a smaller and a larger number.", metavar="LOW,HIGH", unset="that of the data", example=[0, 1],
        row="changed",
    )  # fmt: skip
    attack_samples: int = setting(
        100, help="Samples to attack at most.", least=1, wrong="{value} is not a positive number of samples.", row="changed"
    )
    bracket: bool = setting(
        False, help="Put a guaranteed distance beside each estimate: bounds of the network around each sample, the flip radius in "
        "L∞ and the distances that slopes predict, in L2 and L∞.", label="Bracket", row="changed",
    )  # fmt: skip
    noise: tuple[str, ...] = setting(
        (), help="Noise under which each prediction must stay, such as gaussian:0.1 (its standard deviation) or uniform:8/255 (its "
        "half-width), in raw input units where these are known: how often it does, with a stated confidence.",
        good=lambda s: s.wrong_noise is None, wrong="{settings.wrong_noise}",
        metavar="KIND:SIZE", example=["gaussian:0.1"], row="changed",
    )  # fmt: skip
    noise_stable: float = setting(
        0.99, help="Probability with which a prediction that is called stable under noise stays, at least.", share=True, over=0,
        under=1, option="noise-stable", row="changed",
    )  # fmt: skip
    noise_budget: int = setting(
        4000, help="Rows with noise of a sample at most, for each noise.", least=50, most=10**9,
        wrong="{value} is not a number of rows from {least} to a billion.", option="noise-budget", row="changed",
    )  # fmt: skip
    certify: tuple[str, ...] = setting(
        (), help="Certificates beside the estimates: smoothing:SIGMA is the L2 radius of the classifier smoothed by Gaussian noise "
        "of this standard deviation, such as 0.25 or 30/255, in raw input units where these are known (Cohen et al. 2019); "
        "smoothing alone takes --sigma.", good=lambda s: all(smoothing_sigma(text, s.sigma) is not None for text in s.certify),
        wrong="{value} holds one that is no certificate. Write it such as 'smoothing:0.25', 'smoothing:30/255' or 'smoothing'.",
        metavar="smoothing[:SIGMA]", example=["smoothing:0.25"], row="changed",
    )  # fmt: skip
    certify_budget: int = setting(
        1000, help="Rows with noise of a sample that a smoothing certificate rests on.", least=100,
        wrong="{value} rows certify nothing; give at least {least}.", option="certify-budget", row="changed",
    )  # fmt: skip
    verifier: str | None = setting(
        None, help="A verifier to ask how far there is no other prediction: vibecheck, marabou, abcrown, or a command with "
        "places for onnx, vnnlib and timeout in braces. It is run as a program, so the command line alone names it.",
        metavar="COMMAND", row="changed",
    )  # fmt: skip
    verifier_timeout: float = setting(
        30.0, help="Seconds that a verifier may take for one box.", over=0, option="verifier-timeout", row="changed",
    )  # fmt: skip
    verifier_samples: int = setting(
        10, help="Samples that a verifier is asked about at most: the worst, the median and the best ones.", least=1,
        wrong="{value} is not a positive number of samples.", option="verifier-samples", row="changed",
    )  # fmt: skip
    verifier_precision: float = setting(
        0.05, help="How far the largest box without another prediction may lie below the least box that has one or was not "
        "decided, "
        "as a share.", share=True, over=0, under=1, option="verifier-precision", row="changed",
    )  # fmt: skip
    verifier_budget: float | None = setting(
        600.0, help="Seconds that all boxes together may take; no new one begins after them.", over=0, option="verifier-budget",
        unset="no limit", row="changed",
    )  # fmt: skip
    verifier_jobs: int | None = setting(
        None, help="Boxes that are verified at a time.", least=1, wrong="{value} is not a positive number of boxes.",
        unset="one for each core", option="verifier-jobs", group="run", example=4, row="changed", identifies=False,
    )  # fmt: skip
    verifier_model: str | None = setting(
        None, help="A file to verify in the audited file's place, such as the float parent of an int8 file: counterexamples are "
        "tried on the audited file, and nothing is certified of it.", metavar="PATH", unset="the audited file",
        option="verifier-model", example="float.onnx", row="changed",
    )  # fmt: skip
    bounds: bool = setting(True, help="Read the architecture class and the spectral bound from the weights.", row="changed")
    surrogate: bool = setting(False, help="Differentiate a clip surrogate of a quantised file, labelled as such.", row="changed")

    def __post_init__(self) -> None:
        check(self)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that are perturbed; none where that is left to the file."""
        return (self.input,) if isinstance(self.input, str) else self.input or ()

    @property
    def raw(self) -> bool:
        """Whether the raw input's units are known and are not the model's own."""
        return any(abs(s) != 1 for s in self.input_scale or ())

    @property
    def smoothing(self) -> tuple[float, ...]:
        """Standard deviations of the smoothed classifiers that certificates are asked of, each once, in the order given."""
        found = (smoothing_sigma(text, self.sigma) for text in self.certify)
        return tuple(dict.fromkeys(sigma for sigma in found if sigma is not None))

    @property
    def wrong_noise(self) -> str | None:
        """Why the noises cannot be those of one audit, or None."""
        return what_is_wrong(self.noise)

    @property
    def tells_kind(self) -> bool:
        """Whether the output kind was given by the user, who answers for it."""
        return self.output_kind != "auto"


#: All settings, in their order.
SETTINGS = settings_of(Settings)
