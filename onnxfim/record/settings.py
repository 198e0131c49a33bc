"""What an audit is asked to do."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Literal, TypeAlias

from onnxfim.errors import SettingsError

OutputKind: TypeAlias = Literal["logits", "probabilities", "sigmoid", "gaussian"]
#: What each is a distribution of, in words: audits of one family can be compared.
FAMILIES: dict[OutputKind, str] = {
    "logits": "class probabilities", "probabilities": "class probabilities", "sigmoid": "sigmoid", "gaussian": "gaussian"
}  # fmt: skip
Method: TypeAlias = Literal["auto", "gradient", "sketch", "exact"]


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
